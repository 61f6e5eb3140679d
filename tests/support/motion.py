"""Two PostgreSQL servers, poolers with their guards, and writers: what a move is tried on.

All of it are real programs of the distribution on this machine, on ports of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import psycopg.rows

from tests.support.lab import ROOT
from tests.support.postgres import as_owner, binaries, free_port, pooler

GUARD = ROOT / "plugins/module_utils/_motion/guard.py"
# The owner of everything, and the login that is a member of it.
ROLE, LOGIN = "shop", "shop_a"
# Who may look at what a pooler does.
WATCHER = "watcher"

SCHEMA = """
CREATE TABLE ledger (worker int, seq int, note text, PRIMARY KEY (worker, seq));
CREATE TABLE counters (k int PRIMARY KEY, n int NOT NULL DEFAULT 0);
INSERT INTO counters SELECT generate_series(0, 31);
CREATE TABLE log (worker int, seq int);
CREATE SEQUENCE numbers;
CREATE INDEX ledger_note ON ledger (note);
CREATE MATERIALIZED VIEW numbers_seen AS SELECT count(*) FROM log;
"""


@dataclass
class Server:
    """A PostgreSQL cluster."""

    directory: Path
    port: int

    def conninfo(self, user: str = "postgres", database: str = "shop") -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": database}

    def execute(self, statement: str, *values: Any, database: str = "shop") -> list[Any]:
        with psycopg.connect(**self.conninfo(database=database), autocommit=True) as connection:
            connection.execute("SET ascent_move.allow = on")
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    @property
    def pid(self) -> int:
        return int((self.directory / "data/postmaster.pid").read_text().split()[0])

    def ctl(self, *arguments: str) -> None:
        programs = binaries()
        assert programs
        log = str(self.directory / "log")
        command = [str(programs / "pg_ctl"), "-D", str(self.directory / "data"), "-l", log, "-w"]
        subprocess.run(as_owner([*command, *arguments]), check=True, capture_output=True)

    @classmethod
    def make(cls, directory: Path) -> Server:
        programs = binaries()
        assert programs
        directory.mkdir(parents=True)
        directory.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
        server = cls(directory, free_port())
        initdb = [str(programs / "initdb"), "-D", str(directory / "data"), "-A", "trust"]
        subprocess.run(
            as_owner([*initdb, "-U", "postgres", "--no-sync"]), check=True, capture_output=True
        )
        with (directory / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"port = {server.port}\nlisten_addresses = '127.0.0.1'\nfsync = off\n"
                f"unix_socket_directories = '{directory}'\nwal_level = logical\n"
                "wal_retrieve_retry_interval = 200ms\nmax_connections = 200\n"
            )
        server.ctl("start")
        server.execute("CREATE DATABASE shop", database="postgres")
        server.execute("CREATE ROLE ascent_guard LOGIN", database="postgres")
        return server


@dataclass
class Host:
    """A pooler host: PgBouncer and its guard."""

    name: str
    directory: Path
    port: int
    bouncer: int = 0
    guard: subprocess.Popen[bytes] | None = None

    @property
    def databases(self) -> Path:
        return self.directory / "databases.ini"

    def start(self, server: Server) -> None:
        program = pooler()
        assert program
        self.directory.mkdir(parents=True)
        (self.directory / "moves").mkdir()
        (self.directory / "state").mkdir()
        self.databases.write_text(
            f"[databases]\nmain = host=127.0.0.1 port={server.port} dbname=shop\n"
        )
        (self.directory / "users").write_text(f'"{LOGIN}" ""\n"{WATCHER}" ""\n')
        (self.directory / "pgbouncer.ini").write_text(
            f"%include {self.databases}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nauth_type = trust\nauth_file = {self.directory}/users\n"
            f"pool_mode = transaction\nunix_socket_dir = {self.directory}\n"
            f"pidfile = {self.directory}/pgbouncer.pid\nlogfile = {self.directory}/pgbouncer.log\n"
            f"server_login_retry = 1\nmax_client_conn = 500\nstats_users = {WATCHER}\n"
        )
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, "postgres")
        self.start_bouncer()

    def start_bouncer(self) -> None:
        program = pooler()
        assert program
        (self.directory / "pgbouncer.pid").unlink(missing_ok=True)
        subprocess.run(
            as_owner([program, "-d", str(self.directory / "pgbouncer.ini")]),
            check=True,
            capture_output=True,
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.bouncer = int((self.directory / "pgbouncer.pid").read_text())
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def start_guard(self) -> None:
        console = json.dumps({"host": str(self.directory), "port": self.port})
        environment = {
            **os.environ,
            "ASCENT_GUARD_CONSOLE": console,
            "ASCENT_GUARD_DATABASES": str(self.databases),
        }
        with (self.directory / "guard.log").open("ab") as log:
            self.guard = subprocess.Popen(
                [
                    *(sys.executable, str(GUARD)),
                    *(str(self.directory / "moves"), str(self.directory / "state")),
                ],
                env=environment,
                user="postgres" if os.geteuid() == 0 else None,
                stdout=log,
                stderr=log,
            )

    def describe(self, source: Server, target: Server) -> None:
        sides = {
            name: {
                "conninfo": server.conninfo("ascent_guard"),
                "server": {"host": "127.0.0.1", "port": server.port, "dbname": "shop"},
            }
            for name, server in (("box", source), ("db", target))
        }
        text = json.dumps({"pooler": self.name, "aliases": ["main"], "sides": sides})
        (self.directory / "moves" / "shop.json").write_text(text)

    def show(self, what: str) -> list[dict[str, Any]]:
        """What PgBouncer's console shows."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=WATCHER, dbname="pgbouncer", autocommit=True,
            row_factory=psycopg.rows.dict_row,
        ) as console:  # fmt: skip
            console.prepare_threshold = None
            return console.execute(f"SHOW {what}".encode()).fetchall()

    def leads_to(self) -> int:
        line = next(line for line in self.databases.read_text().splitlines() if "main" in line)
        return int(line.split("port=")[1].split()[0])

    def kill_guard(self) -> None:
        assert self.guard
        self.guard.kill()
        self.guard.wait()

    def freeze_guard(self, on: bool) -> None:
        assert self.guard
        self.guard.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def stop(self) -> None:
        if self.guard and self.guard.poll() is None:
            self.guard.terminate()
            try:
                self.guard.wait(10)
            except subprocess.TimeoutExpired:
                self.guard.kill()
        if self.bouncer:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.bouncer, signal.SIGTERM)


@dataclass
class Writers:
    """Clients that write through the poolers, and keep what was acknowledged."""

    ports: list[int]
    count: int = 8
    rate: float = 100.0
    acknowledged: set[tuple[int, int]] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    first: int = 0

    def __enter__(self) -> Writers:
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,), daemon=True)
            for number in range(self.count)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(40)

    @property
    def longest_ms(self) -> float:
        return 1000 * max(self.gaps)

    def _write(self, worker: int) -> None:
        port = self.ports[worker % len(self.ports)]
        connection: psycopg.Connection[Any] | None = None
        step = self.count / self.rate
        seq = self.first
        while not self._ends.wait(step):
            seq += 1
            began = time.monotonic()
            try:
                if connection is None:
                    connection = psycopg.connect(
                        host="127.0.0.1", port=port, user=LOGIN, dbname="main", connect_timeout=5,
                        prepare_threshold=None,
                    )  # fmt: skip
                connection.execute("INSERT INTO ledger VALUES (%s, %s, 'x')", (worker, seq))
                connection.execute("UPDATE counters SET n = n + 1 WHERE k = %s", (worker,))
                connection.execute("INSERT INTO log VALUES (%s, nextval('numbers'))", (worker,))
                connection.commit()
                self.acknowledged.add((worker, seq))
            except psycopg.Error as error:
                self.failures.append(str(error).strip())
                if connection:
                    connection.close()
                connection = None
            self.gaps.append(time.monotonic() - began)

    def lost(self, server: Server) -> set[tuple[int, int]]:
        return self.acknowledged - {
            (row[0], row[1]) for row in server.execute("SELECT worker, seq FROM ledger")
        }


@dataclass
class Stage:
    """The whole: two servers and some pooler hosts."""

    source: Server
    target: Server
    hosts: list[Host]

    @property
    def ports(self) -> list[int]:
        return [host.port for host in self.hosts]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user reaches: pytest takes its own away from all others."""
    with tempfile.TemporaryDirectory(prefix="ascent-move-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@contextlib.contextmanager
def staged(directory: Path, poolers: int = 2) -> Iterator[Stage]:
    """The application on the source, with guards that know of the move; gone afterwards."""
    hosts: list[Host] = []
    servers: list[Server] = []
    try:
        for name in ("box", "db"):
            servers.append(Server.make(directory / name))
        source, target = servers
        for server in servers:
            server.execute(f"CREATE ROLE {ROLE}")
            server.execute(f"CREATE ROLE {LOGIN} LOGIN IN ROLE {ROLE}")
            server.execute(f"ALTER ROLE {LOGIN} SET role = {ROLE}")
            server.execute(f"ALTER DATABASE shop OWNER TO {ROLE}")
        # The target is as PostgreSQL makes it: the move closes it.
        source.execute("REVOKE ALL ON DATABASE shop FROM PUBLIC")
        source.execute(f"SET ROLE {ROLE}; {SCHEMA}")
        for number in range(poolers):
            host = Host(f"web-{number}", directory / f"web-{number}", free_port())
            hosts.append(host)
            host.start(source)
            host.describe(source, target)
        yield Stage(source, target, hosts)
    finally:
        for host in hosts:
            host.stop()
        for server in servers:
            server.ctl("stop", "-m", "immediate")
