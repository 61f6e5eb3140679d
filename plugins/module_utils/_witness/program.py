# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The witness: writes and reads through a live system, and puts on disk what it was promised.

One file, so that it can be laid on any host: Python's standard library, and psycopg 3 for the
SQL probe. It knows nothing of Ansible. The module `ascent.scaling.witness` starts and stops it;
`docs/witness.md` describes the journal.

    program.py run CONFIG      probe until SIGTERM, the time limit or a full journal
    program.py check CONFIG    ask once; exit 0 if everything answers, else 4 with the reason
    program.py rows CONFIG OUT write what each database holds of a run
    program.py drop CONFIG     drop the witness's tables

Requests are due at fixed times, whether or not the earlier ones were answered (open loop), and
their latency counts from the moment they were due: a system that hangs cannot hide by slowing the
witness down (Gil Tene, "How NOT to Measure Latency", on coordinated omission).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import queue
import re
import select
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

HTTP_RATE_CAP = 50.0
SQL_RATE_CAP = 100.0
# A dispatcher that wakes this late was itself held up (a busy or suspended machine): the system
# under test is not to blame for the requests that were not sent.
OWN_STALL_S = 0.25
# A pooled connection is given back after so many uses, so that logins are tested too.
USES_PER_CONNECTION = 100
MAX_BODY = 1024 * 1024
# Kept free in the journal's bound, so that answers to what was sent still find room.
JOURNAL_RESERVE = 1024 * 1024
IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}
# SQLSTATEs after which nobody can tell whether the statement took effect: connection exceptions
# (also PgBouncer's own, 08P01), statement_completion_unknown, operator intervention, system and
# internal errors. With any other, the server has said that it rolled back.
UNKNOWN_STATES = re.compile(r"^(08|57P|58|XX|F0|40003)")
TABLE_NAME = re.compile(r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$")
DEFAULT_TABLE = "public.ascent_witness"


class JournalFull(Exception):
    """The journal has reached its bound."""


class Journal:
    """An append-only file of JSON lines; what is synced survives the death of the program.

    A line torn by a crash is closed by the next start, so that it spoils nothing after it.
    `limit` bytes is the bound of the file; the first line beyond it raises JournalFull.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._write_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._size = os.fstat(self._fd).st_size
        self._synced = self._size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._put(b"\n")
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _put(self, data: bytes) -> int:
        with self._write_lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self._size += len(data)
            return self._size

    def append(self, event: str, *, reserve: bool = False, **fields: Any) -> int:
        """Write one line with both clocks; return the offset to hand to `sync`."""
        line = {"e": event, "t": round(time.monotonic(), 6), "w": round(time.time(), 6), **fields}
        data = json.dumps(line, separators=(",", ":"), default=str).encode() + b"\n"
        room = self._limit if reserve else self._limit - JOURNAL_RESERVE
        if self._size + len(data) > room:
            raise JournalFull(f"{self.path} has reached its bound of {self._limit} bytes")
        return self._put(data)

    def sync(self, offset: int) -> None:
        """Return when everything up to `offset` is on the disk (one fsync serves all waiters)."""
        with self._sync_lock:
            if self._synced >= offset:
                return
            reach = self._size
            os.fsync(self._fd)
            self._synced = reach

    def record(self, event: str, **fields: Any) -> None:
        """Append one answer and sync it. Answers may use the reserve."""
        self.sync(self.append(event, reserve=True, **fields))


class Watchdog(threading.Thread):
    """Ends a conversation at its deadline by shutting its socket down.

    Time-outs of single reads do not bound a peer that drips, and a database client waits for
    ever on a pooler that was stopped; this bounds both.
    """

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[float, int]] = {}
        self._fired: set[int] = set()
        self._next = 0

    @contextlib.contextmanager
    def limit(self, fd: int, deadline: float) -> Iterator[Callable[[], bool]]:
        """Shut `fd` down at `deadline` (monotonic); yields a function that tells if it did."""
        with self._lock:
            self._next += 1
            token = self._next
            self._watched[token] = (deadline, os.dup(fd))
        try:
            yield lambda: token in self._fired
        finally:
            with self._lock:
                _deadline, own = self._watched.pop(token)
                os.close(own)
                self._fired.discard(token)

    def run(self) -> None:
        while True:
            time.sleep(0.05)
            now = time.monotonic()
            with self._lock:
                for token, (deadline, fd) in self._watched.items():
                    if now >= deadline and token not in self._fired:
                        self._fired.add(token)
                        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                            sock.shutdown(socket.SHUT_RDWR)


class OpenLoop:
    """Calls `action(due)` at a fixed rate from a bounded set of worker threads.

    What waits behind a hanging system is sent when it comes back, but never faster than `cap` a
    second: the stated rate is kept over time, the cap at every moment.
    """

    def __init__(
        self,
        name: str,
        rate: float,
        cap: float,
        workers: int,
        journal: Journal,
        make_action: Callable[[], Callable[[float], None]],
        fatal: Callable[[str], None],
    ) -> None:
        self.name = name
        self._interval = 1.0 / min(rate, cap)
        self._gap = 1.0 / cap
        self._journal = journal
        self._make_action = make_action
        self._fatal = fatal
        self._due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._pace_lock = threading.Lock()
        self._free_at = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True)
            for i in range(workers)
        ]
        self._dispatcher = threading.Thread(target=self._dispatch, name=name, daemon=True)

    def start(self) -> None:
        for thread in (*self._threads, self._dispatcher):
            thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self, deadline: float) -> bool:
        """Wait for what is under way; True if everything came to an end."""
        self._dispatcher.join(max(0.0, deadline - time.monotonic()))
        for _thread in self._threads:
            self._due.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in (self._dispatcher, *self._threads))

    def _dispatch(self) -> None:
        due = time.monotonic() + self._interval
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            late = time.monotonic() - due
            if late > OWN_STALL_S:
                try:
                    self._journal.append("stall", loop=self.name, ms=round(late * 1000, 1))
                except (JournalFull, OSError) as error:
                    self._fatal(f"journal: {error}")
                    return
                due = time.monotonic()
            self._due.put(due)
            due += self._interval

    def _work(self) -> None:
        try:
            action = self._make_action()
            while (due := self._due.get()) is not None:
                if self._stop.is_set() and time.monotonic() - due > self._interval:
                    continue
                self._pace()
                action(due)
        except (JournalFull, OSError) as error:
            self._fatal(f"journal: {error}")
        except Exception as error:
            # A defect of ours ends the witness in the open: a silent one would look like peace.
            self._fatal(f"internal error: {error!r}")
            raise

    def _pace(self) -> None:
        with self._pace_lock:
            now = time.monotonic()
            at = max(now, self._free_at)
            self._free_at = at + self._gap
        if at > now:
            time.sleep(at - now)


def always(action: Callable[[float], None]) -> Callable[[], Callable[[float], None]]:
    """One action for all workers of a loop."""
    return lambda: action


# --- HTTP ---------------------------------------------------------------------------------------


class HttpFailure(Exception):
    """A request that was not answered as a user expects; `cause` is one word for the count."""

    def __init__(self, cause: str, detail: str = "", status: int | None = None) -> None:
        super().__init__(detail or cause)
        self.cause = cause
        self.detail = detail
        self.status = status


def cause_of(error: BaseException) -> str:
    """Name the cause of a failed conversation in one word."""
    if isinstance(error, socket.gaierror):
        return "dns"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError | http.client.RemoteDisconnected):
        return "reset"
    if isinstance(error, http.client.HTTPException):
        return "protocol"
    if isinstance(error, OSError):
        return "unreachable"
    raise error


class FrontDoor:
    """Opens connections to the application as an outside user does."""

    def __init__(self, config: dict[str, Any], watchdog: Watchdog) -> None:
        url = urllib.parse.urlsplit(config["url"])
        self.tls = url.scheme == "https"
        self.name = url.hostname or ""
        self.prefix = url.path.rstrip("/")
        self.timeout = float(config["timeout"])
        port = url.port or (443 if self.tls else 80)
        self.host_header = url.netloc.rpartition("@")[2]
        self._address = (self.name, port)
        if config.get("connect_to"):
            address, _, other = str(config["connect_to"]).rpartition(":")
            if not address or other.endswith("]") or (":" in address and not address.endswith("]")):
                address, other = str(config["connect_to"]), ""
            self._address = (address.strip("[]"), int(other or port))
        self._watchdog = watchdog
        self._context: ssl.SSLContext | None = None
        if self.tls:
            self._context = ssl.create_default_context(cafile=config.get("ca_file") or None)
            if not config.get("verify", True):
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE

    def connect(self, deadline: float) -> http.client.HTTPConnection:
        """Resolve the name, connect, and shake hands, all before the deadline."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left to connect")
        sock = socket.create_connection(self._address, timeout=left)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock = self._context.wrap_socket(sock, server_hostname=self.name)
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        connection = http.client.HTTPConnection(self.name)
        connection.sock = sock
        return connection

    def exchange(
        self,
        connection: http.client.HTTPConnection,
        request: dict[str, Any],
        deadline: float,
        cookies: dict[str, str] | None = None,
    ) -> tuple[int, str, bool, dict[str, str]]:
        """Send one request; return (status, body, connection can be kept, headers)."""
        headers = {"Host": self.host_header, "User-Agent": "ascent-witness/1", "Accept": "*/*"}
        body: bytes | None = None
        if request.get("json") is not None:
            body = json.dumps(request["json"]).encode()
            headers["Content-Type"] = "application/json"
        elif request.get("form"):
            body = urllib.parse.urlencode(request["form"]).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in cookies.items())
        headers.update(request.get("headers") or {})
        sock = connection.sock
        assert sock is not None
        with self._watchdog.limit(sock.fileno(), deadline) as fired:
            try:
                connection.request(
                    request.get("method") or "GET", self.prefix + request["path"], body, headers
                )
                response = connection.getresponse()
                data = response.read(MAX_BODY)
                whole = response.isclosed() or not response.read(1)
            except (OSError, http.client.HTTPException) as error:
                if fired():
                    raise TimeoutError(f"no answer within {self.timeout:g} s") from error
                raise
            if fired():
                raise TimeoutError(f"no whole answer within {self.timeout:g} s")
        if cookies is not None:
            for line in response.headers.get_all("Set-Cookie") or []:
                key, _, value = line.split(";", 1)[0].partition("=")
                cookies[key.strip()] = value.strip()
        kept = whole and not response.will_close
        text = data.decode("utf-8", "replace")
        return response.status, text, kept, dict(response.headers.items())

    @staticmethod
    def expect(request: dict[str, Any], status: int, body: str) -> None:
        """Raise HttpFailure unless the answer is what the description expects."""
        if status not in (request.get("status") or [200]):
            raise HttpFailure(f"status_{status}", body[:120], status)
        wanted = request.get("contains")
        if wanted and wanted not in body:
            raise HttpFailure("body", f"answer does not contain {wanted!r}", status)


def is_idle(connection: http.client.HTTPConnection) -> bool:
    """Tell whether a kept connection is still open and silent (a closed one is readable)."""
    if connection.sock is None:
        return False
    ready, _, _ = select.select([connection.sock], [], [], 0)
    return not ready


def is_turn_of_kept(number: int, descriptions: int) -> bool:
    """Tell whether a request may use a kept connection: every second one, of each description."""
    # With an even number of descriptions each would always meet the same kind: shift each round.
    rounds = number // descriptions if descriptions % 2 == 0 else 0
    return (number + rounds) % 2 == 0


class HttpProbe:
    """Requests at a fixed rate, every second one over a kept connection."""

    def __init__(
        self,
        config: dict[str, Any],
        journal: Journal,
        watchdog: Watchdog,
        fatal: Callable[[str], None],
    ) -> None:
        self._door = FrontDoor(config, watchdog)
        self._requests: list[dict[str, Any]] = config["requests"]
        self._journal = journal
        self._kept: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._id = 0
        self.loops: list[OpenLoop] = []
        self.journeys: list[Journey] = []
        if self._requests:
            rate, workers = float(config["rate"]), int(config["workers"])
            loop = OpenLoop("http", rate, HTTP_RATE_CAP, workers, journal, always(self._one), fatal)
            self.loops.append(loop)
        for description in config.get("journeys") or []:
            journey = Journey(description, config, self._door, journal)
            self.journeys.append(journey)
            name = f"journey {description['name']}"
            loop = OpenLoop(
                name, journey.rate, HTTP_RATE_CAP, 1, journal, always(journey.one), fatal
            )
            self.loops.append(loop)

    def describe(self) -> dict[str, Any]:
        """What stands in the journal's first line."""
        return {
            "requests": [r["name"] for r in self._requests],
            "journeys": {j.name: j.writer for j in self.journeys},
            "journey_rates": {j.name: j.rate for j in self.journeys},
        }

    def finish(self, deadline: float) -> None:
        """Read back what the journeys were promised, as far as the time allows."""
        for journey in self.journeys:
            journey.read_all(deadline)

    def _take_kept(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                connection = self._kept.get_nowait()
            except queue.Empty:
                return None
            if is_idle(connection):
                return connection
            connection.close()

    def _one(self, due: float) -> None:
        with self._lock:
            self._id += 1
            number = self._id
        request = self._requests[number % len(self._requests)]
        reuse = is_turn_of_kept(number, len(self._requests))
        deadline = due + self._door.timeout
        sent = {"id": number, "r": request["name"]}
        if time.monotonic() >= deadline:
            late = "not sent: all places were taken by requests without an answer"
            self._done(sent, due, HttpFailure("timeout", late), "none")
            return
        connection = self._take_kept() if reuse else None
        kind = "kept" if connection else "fresh"
        self._journal.append("sent", **sent, due=round(due, 6), c=kind)
        try:
            try:
                self._converse(connection, request, deadline)
            except (ConnectionError, http.client.RemoteDisconnected) as error:
                # A server may close a kept connection at any time; browsers then ask again, if
                # asking twice is safe (RFC 9112, section 9.3.1).
                if kind == "fresh" or (request.get("method") or "GET") not in IDEMPOTENT:
                    raise
                kind = f"retried after {cause_of(error)}"
                self._converse(None, request, deadline)
        except HttpFailure as failure:
            self._done(sent, due, failure, kind)
        except (OSError, http.client.HTTPException) as error:
            self._done(sent, due, HttpFailure(cause_of(error), str(error)), kind)
        else:
            self._done(sent, due, None, kind)

    def _converse(
        self,
        connection: http.client.HTTPConnection | None,
        request: dict[str, Any],
        deadline: float,
    ) -> None:
        connection = connection or self._door.connect(deadline)
        keep = False
        try:
            status, body, keep, _headers = self._door.exchange(connection, request, deadline)
            if keep and self._kept.qsize() < 4:
                self._kept.put(connection)
            else:
                keep = False
            self._door.expect(request, status, body)
        finally:
            if not keep:
                connection.close()

    def _done(
        self, sent: dict[str, Any], due: float, failure: HttpFailure | None, kind: str
    ) -> None:
        fields: dict[str, Any] = {**sent, "ms": round((time.monotonic() - due) * 1000, 2)}
        if kind.startswith("retried"):
            fields["retried"] = kind
        if failure is None:
            self._journal.record("done", **fields)
        else:
            fields.update(cause=failure.cause, detail=failure.detail[:200], status=failure.status)
            self._journal.record("error", **fields)


def fill(value: Any, names: dict[str, str]) -> Any:
    """Replace `{name}` in every string of a request description."""
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, dict):
        return {key: fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    return value


class Journey:
    """Numbered writes through the application, each with a way to read it back.

    A journey has steps `before` (a sign-up, a login: once a session), `write`, and `read`. Steps
    may `capture` parts of an answer by regular expression for the steps after them.
    """

    def __init__(
        self, description: dict[str, Any], config: dict[str, Any], door: FrontDoor, journal: Journal
    ) -> None:
        self.name: str = description["name"]
        self.rate = float(description.get("rate") or 1)
        self._description = description
        self._door = door
        self._journal = journal
        self.writer = f"{config['run_id']}/{config['name']}/{self.name}/{time.time_ns() // 1000000}"
        token = hashlib.sha256(self.writer.encode()).hexdigest()[:16]
        self._names = {"writer": self.writer, "token": token}
        self._cookies: dict[str, str] = {}
        self._session = False
        self._n = 0
        self._acknowledged: list[tuple[int, dict[str, Any]]] = []
        self._again = 0

    def _step(self, request: dict[str, Any], names: dict[str, str]) -> None:
        """Send one step over a fresh connection; put what it captures into `names`."""
        deadline = time.monotonic() + self._door.timeout
        connection = self._door.connect(deadline)
        try:
            status, body, _keep, headers = self._door.exchange(
                connection, request, deadline, self._cookies
            )
        finally:
            connection.close()
        self._door.expect(request, status, body)
        answer = "\n".join(f"{k}: {v}" for k, v in headers.items()) + "\n\n" + body
        for name, pattern in (request.get("capture") or {}).items():
            found = re.search(pattern, answer)
            if not found:
                raise HttpFailure("body", f"nothing in the answer matches {pattern!r}", status)
            names[name] = found.group(1)

    def one(self, due: float) -> None:
        """Write the next number, read it back, and read an earlier one again."""
        self._n += 1
        n, names = self._n, {**self._names, "n": str(self._n)}
        common: dict[str, Any] = {"j": self.writer, "n": n}
        sent = False
        try:
            if not self._session:
                # A session has its own number, so that signing up twice meets no old name.
                self._names["session"] = names["session"] = f"{self._names['token']}s{n}"
                self._cookies.clear()
                for step in self._description.get("before") or []:
                    self._step(fill(step, {**self._names, **names}), self._names)
                self._session = True
            names = {**self._names, **names}
            self._journal.append("jsent", **common)
            sent = True
            self._step(fill(self._description["write"], names), names)
        except HttpFailure as failure:
            self._session = False
            # An answer below 500 is the application's own word that it did not take the write.
            refused = failure.status is not None and failure.status < 500
            self._fail(common, due, failure.cause, failure.detail, refused or not sent)
            return
        except (OSError, http.client.HTTPException) as error:
            self._session = False
            unsent = not sent or isinstance(error, ConnectionRefusedError | socket.gaierror)
            self._fail(common, due, cause_of(error), str(error), unsent)
            return
        self._journal.record("jack", **common, ms=round((time.monotonic() - due) * 1000, 2))
        read = fill(self._description["read"], names)
        self._acknowledged.append((n, read))
        self.read(n, read)
        self._again = (self._again + 1) % len(self._acknowledged)
        self.read(*self._acknowledged[self._again])

    def _fail(self, common: dict[str, Any], due: float, cause: str, detail: str, no: bool) -> None:
        event = "jfailed" if no else "junknown"
        ms = round((time.monotonic() - due) * 1000, 2)
        self._journal.record(event, **common, ms=ms, cause=cause, detail=detail[:200])

    def read(self, n: int, request: dict[str, Any]) -> None:
        """Read one acknowledged number back: `jread` with ok, or why not."""
        start = time.monotonic()
        common: dict[str, Any] = {"j": self.writer, "n": n}
        try:
            self._step(request, {})
        except HttpFailure as failure:
            # An answer without the number is an old answer; no good answer says nothing of it.
            cause = "missing" if failure.cause in ("body", "status_404") else failure.cause
            common.update(cause=cause, detail=failure.detail[:200])
        except (OSError, http.client.HTTPException) as error:
            common.update(cause=cause_of(error), detail=str(error)[:200])
        self._journal.record("jread", **common, ms=round((time.monotonic() - start) * 1000, 2))

    def read_all(self, deadline: float) -> None:
        """Read every acknowledged number a last time, newest first, at most at the cap."""
        for n, request in reversed(self._acknowledged):
            if time.monotonic() >= deadline:
                return
            with contextlib.suppress(JournalFull):
                self.read(n, request)
            time.sleep(1 / HTTP_RATE_CAP)


# --- SQL ----------------------------------------------------------------------------------------


def connect_sql(url: str, timeout: float) -> Any:
    """Open a connection that works through a transaction pooler (no prepared statements)."""
    import psycopg

    return psycopg.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=max(2, int(timeout)),
        application_name="ascent-witness",
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
    )


def sql_errors() -> type[Exception]:
    """psycopg's base error, imported late."""
    import psycopg

    return psycopg.Error


def ensure_table(connection: Any, table: str) -> None:
    """Create the witness's table if it is not there."""
    if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0] is not None:
        return
    try:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (writer text NOT NULL, n bigint NOT NULL,"
            " value bigint NOT NULL, written_at timestamptz NOT NULL DEFAULT clock_timestamp(),"
            " PRIMARY KEY (writer, n))"
        )
    except sql_errors():
        # Two witnesses that start together race here; the loser finds the table there.
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0] is None:
            raise


class SqlConnection:
    """One worker's connection: opened when needed, dropped on error and after some uses."""

    def __init__(self, url: str, timeout: float, watchdog: Watchdog) -> None:
        self._url = url
        self._timeout = timeout
        self._watchdog = watchdog
        self._connection: Any = None
        self._uses = 0

    def open(self) -> None:
        if self._connection is not None and self._uses >= USES_PER_CONNECTION:
            self.close()
        if self._connection is None:
            self._connection = connect_sql(self._url, self._timeout)
            self._uses = 0

    def query(self, statement: str, values: tuple[Any, ...], deadline: float) -> list[Any]:
        self._uses += 1
        with self._watchdog.limit(self._connection.fileno(), deadline):
            rows: list[Any] = self._connection.execute(statement, values).fetchall()
            return rows

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = None


def brief(error: BaseException) -> str:
    """The first line of an error, bounded (psycopg's texts never hold the password)."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class SqlProbe:
    """Numbered rows and a register in one table, through one alias; read back as they go.

    A write is one INSERT of the new number and of the register (n = 0, whose value is the highest
    number) in one implicit transaction: a client that dies holds no lock. A number is never sent
    twice, and each start of the program is a writer of its own: a doubled row is the system's.
    """

    def __init__(
        self,
        database: dict[str, Any],
        config: dict[str, Any],
        journal: Journal,
        watchdog: Watchdog,
        fatal: Callable[[str], None],
    ) -> None:
        self.name: str = database["name"]
        self.table: str = database.get("table") or DEFAULT_TABLE
        if not TABLE_NAME.match(self.table):
            raise ValueError(f"{self.table!r} is no plain table name")
        self._urls = {"write": database["url"]}
        if database.get("read_url") and database["read_url"] != database["url"]:
            self._urls["read"] = database["read_url"]
        self._lag_s = float(config.get("read_lag_ms") or 0) / 1000
        self.patience = float(config["timeout"])
        self._journal = journal
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._n = 0
        self._newest = 0
        self._recent: list[tuple[float, int]] = []
        self.writer = f"{config['run_id']}/{config['name']}/{self.name}/{time.time_ns() // 1000000}"
        rate, read_rate = float(config["rate"]), float(config["read_rate"])
        self.loops = [
            OpenLoop(f"write {self.name}", rate, SQL_RATE_CAP, 4, journal, self._make_writer, fatal)
        ]
        if read_rate > 0:
            self.loops += [
                OpenLoop(
                    f"read {self.name} {via}",
                    read_rate / len(self._urls),
                    SQL_RATE_CAP,
                    2,
                    journal,
                    partial(self._make_reader, via),
                    fatal,
                )
                for via in self._urls
            ]

    def prepare(self) -> None:
        """Create the table; raises psycopg's error if the database cannot be written."""
        connection = connect_sql(self._urls["write"], self.patience)
        try:
            with self._watchdog.limit(connection.fileno(), time.monotonic() + self.patience):
                ensure_table(connection, self.table)
        finally:
            connection.close()

    def _make_writer(self) -> Callable[[float], None]:
        connection = SqlConnection(self._urls["write"], self.patience, self._watchdog)
        statement = (
            f"INSERT INTO {self.table} AS w (writer, n, value) VALUES (%s, %s, %s), (%s, 0, %s)"  # noqa: S608 - the name is checked
            " ON CONFLICT (writer, n) DO UPDATE SET value = greatest(w.value, excluded.value)"
            " WHERE w.n = 0 RETURNING n"
        )
        return lambda due: self._write(connection, statement, due)

    def _write(self, connection: SqlConnection, statement: str, due: float) -> None:
        with self._lock:
            self._n += 1
            n = self._n
        common: dict[str, Any] = {"d": self.name, "n": n}
        sent = False
        deadline = due + self.patience
        try:
            if time.monotonic() >= deadline:
                raise TimeoutError("not sent: all connections were busy for too long")
            connection.open()
            self._journal.append("sent", **common, due=round(due, 6))
            sent = True
            values = (self.writer, n, n, self.writer, n)
            written = {row[0] for row in connection.query(statement, values, deadline)}
        except (OSError, sql_errors()) as error:
            connection.close()
            self._failed(common, due, error, sent)
            return
        ms = round((time.monotonic() - due) * 1000, 2)
        if n not in written:
            self._journal.record("clash", **common, ms=ms)
            return
        self._journal.record("ack", **common, ms=ms)
        with self._lock:
            if n > self._newest:
                self._newest = n
                self._recent.append((time.monotonic(), n))
                # What is older than the allowed lag can only be the last of its kind.
                horizon = time.monotonic() - self._lag_s
                while len(self._recent) > 1 and self._recent[1][0] <= horizon:
                    self._recent.pop(0)

    def _failed(self, common: dict[str, Any], due: float, error: BaseException, sent: bool) -> None:
        state = getattr(error, "sqlstate", None)
        unknown = sent and (state is None or bool(UNKNOWN_STATES.match(state)))
        self._journal.record(
            "unknown" if unknown else "failed",
            **common,
            ms=round((time.monotonic() - due) * 1000, 2),
            state=state,
            detail=brief(error),
        )

    def _promised(self, via: str) -> int:
        """The number that a read which starts now must show."""
        with self._lock:
            if via == "write" or self._lag_s == 0:
                return self._newest
            horizon = time.monotonic() - self._lag_s
            return max((n for at, n in self._recent if at <= horizon), default=0)

    def _make_reader(self, via: str) -> Callable[[float], None]:
        connection = SqlConnection(self._urls[via], self.patience, self._watchdog)
        statement = f"SELECT n, value FROM {self.table} WHERE writer = %s AND n IN (0, %s)"  # noqa: S608 - the name is checked
        return lambda due: self._read(connection, via, statement, due)

    def _read(self, connection: SqlConnection, via: str, statement: str, due: float) -> None:
        common: dict[str, Any] = {"d": self.name, "via": via}
        deadline = due + self.patience
        want = 0
        try:
            if time.monotonic() >= deadline:
                raise TimeoutError("not sent: all connections were busy for too long")
            connection.open()
            want = self._promised(via)
            rows = dict(connection.query(statement, (self.writer, want), deadline))
        except (OSError, sql_errors()) as error:
            connection.close()
            ms = round((time.monotonic() - due) * 1000, 2)
            state = getattr(error, "sqlstate", None)
            self._journal.record("rfailed", **common, ms=ms, state=state, detail=brief(error))
            return
        register = rows.get(0, 0)
        fields = {**common, "want": want, "reg": register}
        if want and (rows.get(want) != want or register < want):
            fields["stale"] = "register" if rows.get(want) == want else "row"
        self._journal.record("read", **fields, ms=round((time.monotonic() - due) * 1000, 2))


# --- The program --------------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    """Read the configuration, and beside it the secrets (mode 0600), if there are any."""
    config: dict[str, Any] = json.loads(path.read_text())
    secrets = path.with_name(path.name.replace("config-", "secrets-"))
    if secrets != path and secrets.exists():
        for key, value in json.loads(secrets.read_text()).items():
            config[key] = value
    return config


def check(config: dict[str, Any], watchdog: Watchdog) -> str:
    """Ask once; return an empty string, or why the probe would see nothing but errors."""
    if config["probe"] == "http":
        door = FrontDoor(config, watchdog)
        for request in config["requests"]:
            deadline = time.monotonic() + door.timeout
            what = f"{request.get('method') or 'GET'} {config['url']}{request['path']}"
            try:
                connection = door.connect(deadline)
                try:
                    status, body, _keep, _headers = door.exchange(connection, request, deadline)
                finally:
                    connection.close()
                door.expect(request, status, body)
            except HttpFailure as failure:
                return f"{what}: {failure.cause}: {failure.detail}".strip(": ")
            except (OSError, http.client.HTTPException) as error:
                return f"{what}: {cause_of(error)}: {error}"
        return ""
    for database in config["databases"]:
        try:
            for url in {database["url"], database.get("read_url") or database["url"]}:
                connection = connect_sql(url, config["timeout"])
                connection.close()
        except (OSError, sql_errors()) as error:
            return f"database {database['name']}: {brief(error)}"
    return ""


def ranges(numbers: list[int]) -> list[list[int]]:
    """Turn sorted numbers into [first, last] pairs."""
    found: list[list[int]] = []
    for n in numbers:
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return found


def rows_of(database: dict[str, Any], run_id: str, timeout: float) -> dict[str, Any]:
    """What one database holds of a run, as ranges; an error stands in the answer as such."""
    table = database.get("table") or DEFAULT_TABLE
    holding: dict[str, Any] = {
        "database": database["name"],
        "place": database.get("place") or "primary",
        "table": table,
        "writers": {},
    }
    if not TABLE_NAME.match(table):
        return {**holding, "error": f"{table!r} is no plain table name"}
    try:
        connection = connect_sql(database["url"], timeout)
        try:
            if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0] is None:
                return {**holding, "missing": True}
            # Tells two aliases of one database from two databases (a pooler has many names).
            holding["identity"] = connection.execute(
                "SELECT current_database() || '@' || pg_postmaster_start_time()"
            ).fetchone()[0]
            counted = connection.execute(
                f"SELECT writer, n, value, count(*) FROM {table} WHERE starts_with(writer, %s)"  # noqa: S608 - the name is checked
                " GROUP BY writer, n, value ORDER BY writer, n",
                (run_id + "/",),
            ).fetchall()
        finally:
            connection.close()
    except (OSError, sql_errors()) as error:
        return {**holding, "error": brief(error)}
    for writer, n, value, count in counted:
        held = holding["writers"].setdefault(
            writer, {"rows": [], "doubled": {}, "altered": {}, "register": None}
        )
        if n == 0:
            held["register"] = max(value, held["register"] or 0)
            continue
        if value != n:
            held["altered"][str(n)] = value
            continue
        held["rows"].append(n)
        if count > 1:
            held["doubled"][str(n)] = count
    for held in holding["writers"].values():
        held["rows"] = ranges(held["rows"])
    return holding


def drop(database: dict[str, Any], timeout: float, really: bool) -> bool:
    """Drop the witness's table; tell whether it was there."""
    table = database.get("table") or DEFAULT_TABLE
    if not TABLE_NAME.match(table):
        raise ValueError(f"{table!r} is no plain table name")
    connection = connect_sql(database["url"], timeout)
    try:
        there = connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()[0] is not None
        if there and really:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        return there
    finally:
        connection.close()


class AlreadyRunning(Exception):
    """Another witness of the same run holds the lock."""


# Whoever asks whether a witness runs holds the lock for the moment of asking (control.holder).
LOCK_PATIENCE_S = 2.0


def hold_lock(path: Path) -> int:
    """Hold the run's lock for the life of the process, with its pid and start inside."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise AlreadyRunning(str(path)) from error
        time.sleep(0.01)
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({"pid": os.getpid(), "started": time.time()}).encode(), 0)
    return fd


def lives(process: dict[str, Any] | None) -> bool:
    """Tell whether a process of this machine still runs: its number, and its start in ticks.

    Both are of /proc/<pid>/stat (proc(5), fields 1 and 22). Without a process, always.
    """
    if not process:
        return True
    try:
        fields = Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and fields[19] == str(process["started"])


def run(config: dict[str, Any]) -> str:
    """Probe until told to stop; return why it ended."""
    directory = Path(config["directory"])
    stem = f"{config['probe']}-{config['name']}"
    lock = hold_lock(directory / f"lock-{stem}")
    # put() of a SimpleQueue may be called in a signal handler; an Event's set() may not.
    reasons: queue.SimpleQueue[str] = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda _number, _frame: reasons.put("stopped"))
    signal.signal(signal.SIGINT, lambda _number, _frame: reasons.put("stopped"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    journal = Journal(directory / f"journal-{stem}.jsonl", int(config["max_journal_bytes"]))
    watchdog = Watchdog()
    watchdog.start()
    end_at = time.monotonic() + float(config["max_seconds"])
    if config["probe"] == "http":
        http_probes = [HttpProbe(config, journal, watchdog, reasons.put)]
        sql_probes = []
        about = http_probes[0].describe()
    else:
        http_probes = []
        sql_probes = [
            SqlProbe(database, config, journal, watchdog, reasons.put)
            for database in config["databases"]
        ]
        about = {"writers": {probe.name: probe.writer for probe in sql_probes}}
    journal.record(
        "start",
        probe=config["probe"],
        run_id=config["run_id"],
        name=config["name"],
        pid=os.getpid(),
        rate=float(config["rate"]),
        read_rate=config.get("read_rate"),
        max_seconds=config["max_seconds"],
        **about,
    )
    loops = [loop for probe in http_probes for loop in probe.loops]
    for loop in loops:
        loop.start()
    waiting = sql_probes
    reason = ""
    while not reason:
        # A database that refuses the table is asked again each second, each refusal on record.
        refused = []
        for probe in waiting:
            try:
                probe.prepare()
            except (OSError, sql_errors()) as error:
                journal.record("failed", d=probe.name, n=0, ms=0, detail=brief(error))
                refused.append(probe)
                continue
            for loop in probe.loops:
                loop.start()
            loops += probe.loops
        waiting = refused
        left = max(0.0, end_at - time.monotonic())
        owner = config.get("while_run")
        try:
            reason = reasons.get(timeout=min(left, 1.0) if waiting or owner else left)
        except queue.Empty:
            reason = "time limit" if time.monotonic() >= end_at else ""
            if not lives(owner):
                reason = "the run that it watched for is over"
    with contextlib.suppress(JournalFull):
        journal.append("stopping", reserve=True)
    for loop in loops:
        loop.stop()
    deadline = time.monotonic() + float(config["timeout"]) + 2
    unsettled = [loop.name for loop in loops if not loop.join(deadline)]
    for http_probe in http_probes:
        http_probe.finish(time.monotonic() + float(config.get("final_seconds") or 20))
    journal.record("end", reason=reason, unsettled=unsettled)
    os.close(lock)
    return reason


def main(arguments: list[str]) -> int:
    """Run one verb; see the head of this file."""
    os.umask(0o077)
    verb, config = arguments[0], load(Path(arguments[1]))
    if verb == "run":
        try:
            reason = run(config)
        except AlreadyRunning:
            return 3
        # Threads that still wait for a dead peer are daemons: nothing of value is in them.
        sys.stdout.write(reason + "\n")
        sys.stdout.flush()
        os._exit(0 if reason in ("stopped", "time limit") else 1)
    if verb == "check":
        watchdog = Watchdog()
        watchdog.start()
        reason = check(config, watchdog)
        sys.stdout.write(reason + "\n")
        return 4 if reason else 0
    if verb == "rows":
        found = [
            rows_of(database, config["run_id"], config["timeout"])
            for database in config["databases"]
        ]
        out = Path(arguments[2])
        temporary = out.with_name(out.name + ".new")
        temporary.write_text("".join(json.dumps(holding) + "\n" for holding in found))
        temporary.replace(out)
        return 0
    if verb in ("drop", "drop-check"):
        dropped = [
            database["name"]
            for database in config["databases"]
            if drop(database, config["timeout"], verb == "drop")
        ]
        sys.stdout.write(json.dumps(dropped) + "\n")
        return 0
    sys.stderr.write(f"unknown verb {verb}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
