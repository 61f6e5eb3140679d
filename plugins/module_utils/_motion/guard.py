# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of a pooler host: pauses its PgBouncer for a move, and never leaves it paused.

One file, so that it can be laid on any host: Python's standard library and psycopg 3. It stands
there always, and does nothing until a move is described in its directory.

    guard.py MOVES STATE    MOVES: a file <move>.json each (`Move.read`); STATE: its own notes

The mover tells it through the databases (LISTEN and NOTIFY), so no port is opened for it. What it
does never rests on what the mover said alone:

- A pause ends. `bound_s` after it began the guard asks the databases how the attempt stands, and
  follows; `hard_s` after it began it resumes in any case. The side that is left is closed to the
  application until the attempt is aborted, so to resume too early costs errors, and loses nothing.
- It goes to another server when that server's door is open, and then only (`ledger.py`).
- What it is about to do is on disk before it is done, so that a guard that was killed goes on.
- Without an attempt it compares, once a second, where the data is with where its PgBouncer
  leads: a host that was away during the switch finds its way by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg

log = logging.getLogger("ascent.guard")

TOLD = "ascent_move_told"
HEARTBEAT_S = 1.0
RETRY_S = 0.2
# How long one side may take for an answer before it counts as away.
ANSWER_S = 0.4
# After how long an answer that decides nothing is asked for again.
AGAIN_S = 0.1
# With these settings a pool that has a connection opens no further one.
OPENS_NONE = {"min_pool_size": 0, "default_pool_size": 1}
# How long a connection that is just being opened is waited for.
OPENING_S = 0.5

Server = tuple[str, int, str]  # address, port, database


@dataclass(frozen=True)
class Move:
    """A move as its file describes it.

    `sides` maps the two sides' names to how the guard logs in there (`conninfo`, of libpq) and
    to where PgBouncer leads when the data is there (`server`).
    """

    name: str
    pooler: str
    aliases: list[str]
    sides: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Move:
        """Read a move's file. Raises ValueError where it does not describe one."""
        try:
            found = json.loads(path.read_text())
            move = cls(path.stem, found["pooler"], list(found["aliases"]), dict(found["sides"]))
            if len(move.sides) != 2 or not move.aliases:
                raise ValueError("a move has two sides and at least one alias")
            for side in move.sides:
                move.server(side)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not describe a move: {error!r}") from error
        return move

    def server(self, side: str) -> Server:
        """Where PgBouncer leads when the data is at this side."""
        server = self.sides[side]["server"]
        return str(server["host"]), int(server["port"]), str(server["dbname"])


def is_finished(text: str) -> bool:
    """Whether a move's file says that nothing is to be guarded any more."""
    try:
        return bool(json.loads(text).get("finished"))
    except (AttributeError, json.JSONDecodeError):
        return False


@dataclass(frozen=True)
class Attempt:
    """An attempt to switch, as the mover told it. Times in seconds from the start of the pause."""

    id: str
    leaves: str
    goes_to: str
    bound_s: float
    hard_s: float

    def text(self) -> str:
        """The attempt as it is written down."""
        return json.dumps(vars(self))


@dataclass(frozen=True)
class Event:
    """Something that a side or PgBouncer reports to the guard's own thread."""

    kind: Literal["told", "door", "left", "standing", "lost", "paused", "wake"]
    side: str = ""
    attempt: str = ""
    value: Any = None


class Side(threading.Thread):
    """One of the two databases, with a connection of its own that is made again when it breaks."""

    def __init__(self, move: Move, name: str, events: queue.SimpleQueue[Event]) -> None:
        super().__init__(name=f"{move.name}:{name}", daemon=True)
        self.side = name
        self._move = move
        self._events = events
        self._asked: queue.SimpleQueue[tuple[str, str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe()
        self._ends = threading.Event()
        self.connected = False

    def ask(self, kind: str, attempt: str, *values: Any) -> None:
        """Have a question answered, or reported as lost where nobody answers."""
        self._asked.put((kind, attempt, values))
        os.write(self._wake_write, b".")

    def end(self) -> None:
        """Let the thread end; it does so within a heartbeat."""
        self._ends.set()
        os.write(self._wake_write, b".")

    def run(self) -> None:
        """Stay connected, answer what is asked, pass on what is told."""
        told = ""
        while not self._ends.is_set():
            try:
                with self._connect() as connection:
                    # What comes while something is asked is passed on by psycopg alone.
                    connection.add_notify_handler(lambda notice: self._hear(notice.payload))
                    connection.execute(f"LISTEN {TOLD}")
                    self.connected, told = True, ""
                    log.info("%s: connected to %s", self._move.name, self.side)
                    self._serve(connection)
            except (psycopg.Error, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s: %s: %s", self._move.name, self.side, told.strip())
            finally:
                self.connected = False
            self._events.put(Event("lost", self.side))
            self._refuse()
            self._ends.wait(RETRY_S)

    def _connect(self) -> psycopg.Connection[Any]:
        limits = {
            # libpq takes no less than two seconds for a connection.
            "connect_timeout": 2,
            # A server that has vanished is given up after a second, not after minutes.
            "tcp_user_timeout": 1000,
            "keepalives_idle": 1,
            "keepalives_interval": 1,
            "keepalives_count": 2,
            "application_name": "ascent_guard",
            "options": "-c statement_timeout=2000 -c lock_timeout=1000 -c synchronous_commit=off",
        }
        conninfo = self._move.sides[self.side]["conninfo"]
        return psycopg.connect(**{**limits, **conninfo}, autocommit=True)

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        while not self._ends.is_set():
            ready, _, _ = select.select([connection.fileno(), self._wake_read], [], [], HEARTBEAT_S)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            while True:
                try:
                    kind, attempt, values = self._asked.get_nowait()
                except queue.Empty:
                    break
                try:
                    self._answer(connection, kind, attempt, values)
                except (psycopg.Error, OSError):
                    self._events.put(Event("lost", self.side, attempt))
                    raise
            if connection.fileno() in ready:
                connection.pgconn.consume_input()
            while notice := connection.pgconn.notifies():
                self._hear(notice.extra.decode())

    def _hear(self, text: str) -> None:
        self._events.put(Event("told", self.side, value=text))

    def _answer(
        self, connection: psycopg.Connection[Any], kind: str, attempt: str, values: tuple[Any, ...]
    ) -> None:
        if kind == "say":
            server, said, detail = values
            connection.execute(
                "SELECT ascent_move.say(%s, %s, %s, %s, %s)",
                (self._move.pooler, server, attempt, said, detail),
            )
            return
        statement = {
            "door": "SELECT ascent_move.door_state(%s, %s)",
            "left": "SELECT ascent_move.give_up(%s, %s, %s)",
            "standing": "SELECT ascent_move.standing()",
        }[kind]
        asked = () if kind == "standing" else (attempt, *values)
        row = connection.execute(statement, asked).fetchone()
        self._events.put(Event(kind, self.side, attempt, row[0] if row else None))  # type: ignore[arg-type]

    def _refuse(self) -> None:
        """Nobody answers what was asked meanwhile."""
        with contextlib.suppress(queue.Empty):
            while True:
                _, attempt, _ = self._asked.get_nowait()
                self._events.put(Event("lost", self.side, attempt))


class Bouncer:
    """The PgBouncer of this host, through its console.

    Connections to the console stay open: in the pause, each new one would take milliseconds.
    """

    def __init__(self, console: dict[str, Any], databases: Path) -> None:
        self._console = console
        self._databases = databases
        self._idle: list[psycopg.Connection[Any]] = []
        self._pausing: dict[str, psycopg.Connection[Any] | None] = {}

    def _connect(self) -> psycopg.Connection[Any]:
        login = {"dbname": "pgbouncer", "user": "pgbouncer", "connect_timeout": 2}
        # The console takes simple queries only, so nothing is prepared either.
        connection = psycopg.connect(**{**login, **self._console}, autocommit=True)
        connection.prepare_threshold = None
        return connection

    def _ask(self, command: str, pauses: str = "") -> psycopg.Cursor[Any]:
        """Have a command done; `pauses` is the alias whose `resume` may cut it off."""
        while True:
            if pauses:
                self._goes_on(pauses)
            try:
                connection, kept = self._idle.pop(), True
            except IndexError:
                connection, kept = self._connect(), False
            if pauses:
                self._pausing[pauses] = connection
            try:
                found = connection.execute(command.encode())
            except psycopg.Error:
                if not connection.closed:
                    self._idle.append(connection)
                    raise
                connection.close()
                # PgBouncer may have been started anew since this one was kept.
                if not kept or (pauses and pauses not in self._pausing):
                    raise
            else:
                self._idle.append(connection)
                return found

    def _goes_on(self, alias: str) -> None:
        if alias not in self._pausing:
            raise InterruptedError(f"{alias} was resumed meanwhile")

    def get_ready(self, connections: int) -> None:
        """Have connections open before they are needed."""
        while len(self._idle) < connections:
            self._idle.append(self._connect())

    def pause(self, alias: str) -> None:
        """Let transactions end and begin none; returns when all have ended.

        It begins when no connection to the server is just being opened: a pause ends such a one,
        which PgBouncer takes for a server that lets nobody in, and whoever comes within
        `server_login_retry` of that is turned away. Until `resume`, or a failure, no further one is
        opened.

        Raises psycopg.Error or OSError where it was resumed meanwhile or cannot be paused, and
        TimeoutError where connections are being opened all the time.
        """
        self._pausing[alias] = None
        try:
            for name, value in OPENS_NONE.items():
                self._ask(f"SET {name} = {value}")
            self._wait_for_logins(alias)
            self._ask(f'PAUSE "{alias}"', pauses=alias)
        except BaseException:
            # Its resume may have come before: nobody else would make the pools large again.
            with contextlib.suppress(psycopg.Error, OSError):
                self._ask("RELOAD")
            raise
        finally:
            self._pausing.pop(alias, None)

    def _wait_for_logins(self, alias: str) -> None:
        deadline = time.monotonic() + OPENING_S
        while any(int(row["sv_login"]) for row in self._show("POOLS") if row["database"] == alias):
            self._goes_on(alias)
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"PgBouncer has been opening a connection for {alias} for more than "
                    f"{OPENING_S} s: is the server slow to let clients in (SHOW SERVERS)?"
                )
            time.sleep(0.002)

    def resume(self, alias: str) -> None:
        """Go on, with all settings as they are in the file; what is not paused stays as it is."""
        with contextlib.suppress(psycopg.errors.ProtocolViolation):
            self._ask(f'RESUME "{alias}"')
        # Where transactions have not ended, somebody waits for that still, and need not.
        waiting = self._pausing.pop(alias, None)
        if waiting:
            with contextlib.suppress(OSError, psycopg.Error):
                end = socket.socket(fileno=os.dup(waiting.fileno()))
                with end:
                    end.shutdown(socket.SHUT_RDWR)
        self._ask("RELOAD")

    def server(self, alias: str) -> Server:
        """Where the alias leads at this moment."""
        row = self._database(alias)
        return str(row.get("host")), int(row.get("port") or 0), str(row.get("database"))

    def _database(self, alias: str) -> dict[str, Any]:
        for row in self._show("DATABASES"):
            if row["name"] == alias:
                return row
        raise LookupError(f"PgBouncer has no alias {alias}")

    def _show(self, what: str) -> list[dict[str, Any]]:
        cursor = self._ask(f"SHOW {what}")
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def lead(self, aliases: list[str], server: Server) -> None:
        """Have the aliases lead to another server, from now on and after a restart."""
        wanted = "{0} = host={1} port={2} dbname={3}"
        text = before = self._databases.read_text()
        for alias in aliases:
            line = wanted.format(alias, *server)
            text, found = re.subn(rf"(?m)^{re.escape(alias)}[ \t]*=.*$", line, text)
            if not found:
                raise LookupError(f"{self._databases} has no alias {alias}")
        if text != before:
            _write(self._databases, text, lasting=True)
        self._ask("RELOAD")
        deadline = time.monotonic() + 2
        while any(self.server(alias) != server for alias in aliases):
            if time.monotonic() > deadline:
                raise TimeoutError(f"PgBouncer has not taken over {server} for {aliases}")
            time.sleep(0.002)


@dataclass
class Holding:
    """An attempt that this guard takes part in."""

    attempt: Attempt
    began: float
    paused: set[str] = field(default_factory=set)
    door: str = ""  # what the side that is gone to said last
    left: str = ""  # what the side that is left said last
    resumed: bool = False
    asked: list[tuple[str, bool]] = field(default_factory=list)
    asked_at: float = 0.0
    waiting: set[str] = field(default_factory=set)  # sides that have not answered the last question


def questions(door: str) -> list[tuple[str, bool]]:
    """What to ask once the time is over, from what the side that is gone to said last (pure).

    Each question is one of `door` and `left`, with whether it may end the attempt by itself: a
    closed door is made void; then the left side is final, whatever state it is in. A door that
    cannot be asked leaves the left side to decide, unless it is just committing.
    """
    if door == "void":
        return [("left", True)]
    if door == "away":
        return [("left", False), ("door", True)]
    return [("door", True)]


class Guard(threading.Thread):
    """Guards one move on this host."""

    def __init__(
        self,
        move: Move,
        bouncer: Bouncer,
        notes: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=move.name, daemon=True)
        self.move = move
        self._bouncer = bouncer
        self._notes = notes
        self._clock = clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._sides = {name: Side(move, name, self._events) for name in move.sides}
        self._standing: dict[str, int | None] = {}
        self._holding: Holding | None = None
        self._ends = threading.Event()
        self._next_look = 0.0

    def end(self) -> None:
        """Let the guard end once no attempt is under way."""
        self._ends.set()
        self._events.put(Event("wake"))

    def run(self) -> None:
        """Follow what is told and what time it is, until the move's file is gone."""
        for side in self._sides.values():
            side.start()
        self._remember()
        while not self._ends.is_set() or self._holding:
            try:
                with contextlib.suppress(queue.Empty):
                    self._take(self._events.get(timeout=self._patience()))
                self._look_at_the_clock()
            except (psycopg.Error, OSError, LookupError) as error:
                # PgBouncer itself is away: systemd starts it, and its file says where it leads.
                log.warning("%s: PgBouncer: %s", self.move.name, str(error).strip())
                time.sleep(RETRY_S)
        for side in self._sides.values():
            side.end()

    # --- what happens

    def _take(self, event: Event) -> None:
        holding = self._holding
        if event.kind == "told":
            self._told(event.side, event.value)
        elif event.kind == "standing":
            self._standing[event.side] = event.value
        elif event.kind == "lost":
            self._standing.pop(event.side, None)
            if holding:
                holding.waiting.discard(event.side)
                if event.side == holding.attempt.goes_to:
                    holding.door = "away"
                else:
                    holding.left = "away"
        elif event.kind == "paused" and holding is None and not event.value:
            # It came to rest for an attempt that is over.
            self._bouncer.resume(event.side)
        elif holding and event.attempt == holding.attempt.id:
            if event.kind == "paused":
                self._paused(holding, event)
            else:
                holding.waiting.discard(event.side)
                setattr(holding, event.kind, event.value)

    def _told(self, side: str, text: str) -> None:
        try:
            told = json.loads(text)
            what, attempt = told["do"], str(told["attempt"])
            if what == "pause":
                limits = float(told["bound_s"]), float(told["hard_s"])
                asked = Attempt(attempt, side, str(told["goes_to"]), *limits)
        except (ValueError, KeyError, TypeError):
            log.warning("%s: %s told what nobody understands: %.200s", self.move.name, side, text)
            return
        holding = self._holding
        if what == "pause":
            why = self._objection(asked)
            if why:
                self._say(side, attempt, "refused", why)
            else:
                self._pause(asked)
        elif holding and attempt == holding.attempt.id:
            # A word is a hint to look, and not more: the databases know.
            if what == "switch" and side == holding.attempt.goes_to:
                self._ask_door(holding, void=False)
            elif what == "resume" and side == holding.attempt.leaves:
                self._ask_left(holding, final=False)

    def _objection(self, asked: Attempt) -> str:
        """Why this guard cannot take part; better to say so than to pause for nothing."""
        if self._holding:
            return f"attempt {self._holding.attempt.id} is under way here"
        if asked.goes_to not in self._sides or asked.goes_to == asked.leaves:
            return f"no such side: {asked.goes_to}"
        if not self._sides[asked.goes_to].connected:
            return f"{asked.goes_to} cannot be reached from here"
        return ""

    def _pause(self, attempt: Attempt) -> None:
        began = self._clock()
        self._holding = Holding(attempt, began)
        _write(self._notes, attempt.text())
        log.info("%s: attempt %s pauses", self.move.name, attempt.id)
        for alias in self.move.aliases:
            threading.Thread(target=self._pause_one, args=(attempt, alias), daemon=True).start()

    def _pause_one(self, attempt: Attempt, alias: str) -> None:
        try:
            self._bouncer.pause(alias)
            trouble = ""
        except (psycopg.Error, OSError, ValueError) as error:
            trouble = str(error).strip() or "failed"
        self._events.put(Event("paused", alias, attempt.id, trouble))

    def _paused(self, holding: Holding, event: Event) -> None:
        attempt = holding.attempt
        if event.value:
            if not holding.resumed:
                self._say(attempt.leaves, attempt.id, "failed", str(event.value))
            return
        holding.paused.add(event.side)
        if holding.resumed:
            self._bouncer.resume(event.side)
        elif holding.paused == set(self.move.aliases):
            self._say(attempt.leaves, attempt.id, "paused")

    # --- what time it is

    def _patience(self) -> float:
        holding = self._holding
        if holding is None:
            return max(0.01, self._next_look - self._clock())
        passed = self._clock() - holding.began
        if passed < holding.attempt.bound_s:
            return holding.attempt.bound_s - passed
        return 0.02

    def _look_at_the_clock(self) -> None:
        holding = self._holding
        if holding is None:
            if self._clock() >= self._next_look:
                self._next_look = self._clock() + HEARTBEAT_S
                self._follow_the_data()
            return
        if holding.door == "opened":
            self._switch(holding)
            return
        if holding.left == "aborted":
            self._resume(holding)
            self._forget("resumed")
            return
        passed = self._clock() - holding.began
        if passed < holding.attempt.bound_s:
            return
        if passed >= holding.attempt.hard_s and not holding.resumed:
            log.warning("%s: attempt %s: resumes undecided", self.move.name, holding.attempt.id)
            self._resume(holding)
        self._decide(holding)

    def _decide(self, holding: Holding) -> None:
        """Time is over: find out how the attempt ended, or end it."""
        now = self._clock()
        if holding.waiting and now - holding.asked_at >= ANSWER_S:
            for side in holding.waiting:
                setattr(holding, "door" if side == holding.attempt.goes_to else "left", "away")
            holding.waiting.clear()
        # Where the left side is away, there is nothing to wait for: it is the right one.
        if holding.door == "void" and holding.left == "away" and not holding.resumed:
            self._resume(holding)
        asks = questions(holding.door)
        if asks == holding.asked and (holding.waiting or now - holding.asked_at < AGAIN_S):
            return
        holding.asked, holding.asked_at = asks, now
        holding.waiting.clear()
        for kind, forcing in asks:
            if kind == "door":
                self._ask_door(holding, void=forcing)
            else:
                self._ask_left(holding, final=forcing)

    def _ask_door(self, holding: Holding, void: bool) -> None:
        attempt = holding.attempt
        holding.waiting.add(attempt.goes_to)
        self._sides[attempt.goes_to].ask("door", attempt.id, void)

    def _ask_left(self, holding: Holding, final: bool) -> None:
        attempt = holding.attempt
        holding.waiting.add(attempt.leaves)
        reason = f"the guard of {self.move.pooler}: the time was over"
        self._sides[attempt.leaves].ask("left", attempt.id, final, reason)

    def _switch(self, holding: Holding) -> None:
        attempt = holding.attempt
        self._bouncer.lead(self.move.aliases, self.move.server(attempt.goes_to))
        self._resume(holding)
        self._forget("switched")

    def _resume(self, holding: Holding) -> None:
        holding.resumed = True
        for alias in self.move.aliases:
            self._bouncer.resume(alias)

    def _forget(self, said: str) -> None:
        holding = self._holding
        if holding is None:
            return
        self._holding = None
        self._notes.unlink(missing_ok=True)
        log.info("%s: attempt %s: %s", self.move.name, holding.attempt.id, said)
        # The side that the mover looks at first.
        ends = (holding.attempt.leaves, holding.attempt.goes_to)
        for side in reversed(ends) if said == "switched" else ends:
            self._say(side, holding.attempt.id, said)
        self._next_look = self._clock() + HEARTBEAT_S
        self._standing.clear()

    def _remember(self) -> None:
        """Go on with an attempt that an earlier life of this guard was part of."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            attempt = Attempt(**json.loads(self._notes.read_text()))
            log.warning("%s: goes on with attempt %s", self.move.name, attempt.id)
            # How long it was away is not known: it is time to find out how it stands.
            self._holding = Holding(attempt, self._clock() - attempt.bound_s)

    def _follow_the_data(self) -> None:
        """Without an attempt: lead to where the data is, and let the mover see this guard."""
        self._bouncer.get_ready(1 + len(self.move.aliases))
        here = self._where()
        known = {side: epoch for side, epoch in self._standing.items() if epoch is not None}
        if known and set(self._standing) == set(self._sides):
            right = max(known, key=lambda side: known[side])
            if self._bouncer.server(self.move.aliases[0]) != self.move.server(right):
                log.warning("%s: the data is at %s, so PgBouncer follows", self.move.name, right)
                self._bouncer.lead(self.move.aliases, self.move.server(right))
                here = right
        for name, side in self._sides.items():
            if side.connected:
                side.ask("say", "", here, "idle", "")
                side.ask("standing", "")
                # So that the server has prepared the question when it matters.
                side.ask("door", "", False)
            else:
                self._standing.pop(name, None)

    def _where(self) -> str:
        server = self._bouncer.server(self.move.aliases[0])
        for side in self._sides:
            if self.move.server(side) == server:
                return side
        return "elsewhere: {}:{}/{}".format(*server)

    def _say(self, side: str, attempt: str, said: str, detail: str = "") -> None:
        if self._sides[side].connected:
            self._sides[side].ask("say", attempt, "", said, detail[:500])


def _write(path: Path, text: str, lasting: bool = False) -> None:
    """Replace a file in one step, with its mode and owner.

    `lasting`: it outlives a power cut once this returns, and not only the death of who wrote it.
    """
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            os.fchmod(descriptor, status.st_mode & 0o7777)
        stream.write(text)
        if lasting:
            stream.flush()
            os.fsync(descriptor)
    draft.replace(path)


def watch(
    moves: Path, state: Path, bouncer: Bouncer, ends: threading.Event
) -> Iterator[dict[str, Guard]]:
    """Keep a guard for each move that is described; yields them after each look."""
    guards: dict[str, tuple[str, Guard]] = {}
    while not ends.is_set():
        described: dict[str, str] = {}
        for path in sorted(moves.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                text = path.read_text()
                if not is_finished(text):
                    described[path.stem] = text
        for name, (text, guard) in list(guards.items()):
            if described.get(name) != text:
                guard.end()
                guard.join()
                del guards[name]
        for name, text in described.items():
            if name not in guards:
                try:
                    move = Move.read(moves / f"{name}.json")
                except (ValueError, FileNotFoundError) as error:
                    log.error("%s", error)
                    continue
                guards[name] = (text, Guard(move, bouncer, state / f"{name}.attempt"))
                guards[name][1].start()
        yield {name: guard for name, (_, guard) in guards.items()}
        ends.wait(HEARTBEAT_S)
    for _, guard in guards.values():
        guard.end()
        guard.join()


def _end_at_once(trouble: threading.ExceptHookArgs) -> None:
    """End the process where one of its threads died of something unforeseen."""
    log.error("%s", "".join(traceback.format_exception(trouble.exc_value)))
    os._exit(70)


def main(arguments: list[str]) -> int:
    """Guard until SIGTERM; an attempt that is under way is seen to its end first."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    moves, state = Path(arguments[0]), Path(arguments[1])
    console = json.loads(os.environ.get("ASCENT_GUARD_CONSOLE") or "{}")
    console = {"host": "/var/run/postgresql", "port": 6432, **console}
    databases = Path(os.environ.get("ASCENT_GUARD_DATABASES") or "/etc/pgbouncer/databases.ini")
    # Whatever nobody has thought of: systemd starts it anew, and it goes on by its notes.
    threading.excepthook = _end_at_once
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    for _ in watch(moves, state, Bouncer(console, databases), ends):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
