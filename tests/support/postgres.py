"""A throw-away PostgreSQL cluster with a PgBouncer in front, from the distribution's packages."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

PASSWORD = "s3cret-of-the-shop"


def binaries() -> Path | None:
    """The server's programs, the newest first; None if they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return found[0].parent if found else None


def pooler() -> str | None:
    """The pooler's program; None if it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def as_owner(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@dataclass
class Cluster:
    directory: Path
    port: int
    pooler_port: int

    def url(self, database: str, port: int | None = None, user: str = "shop") -> str:
        password = "" if user == "postgres" else f":{PASSWORD}"
        return f"postgresql://{user}{password}@127.0.0.1:{port or self.port}/{database}"

    def pooled(self, alias: str) -> str:
        return self.url(alias, self.pooler_port)

    def execute(self, database: str, statement: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url(database, user="postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def create(self, database: str) -> None:
        self.execute("postgres", f"CREATE DATABASE {database} OWNER shop")

    def restart_at_once(self) -> None:
        """What a crash does: no session is told, recovery runs."""
        self._ctl("restart", "-m", "immediate")

    def _ctl(self, *arguments: str) -> None:
        programs = binaries()
        assert programs
        data = str(self.directory / "data")
        log = str(self.directory / "log")
        subprocess.run(
            as_owner([str(programs / "pg_ctl"), "-D", data, "-l", log, "-w", *arguments]),
            check=True,
            capture_output=True,
        )

    @property
    def pooler_pid(self) -> int:
        return int((self.directory / "pgbouncer.pid").read_text())

    @contextlib.contextmanager
    def pooler_stopped(self) -> Iterator[None]:
        """Freeze the pooler, as a busy or suspended machine does."""
        os.kill(self.pooler_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pooler_pid, signal.SIGCONT)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """A cluster and its pooler, gone when the block ends."""
    programs, pgbouncer = binaries(), pooler()
    assert programs and pgbouncer
    directory.mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres")
    cluster = Cluster(directory, free_port(), free_port())
    initdb = [str(programs / "initdb"), "-D", str(directory / "data"), "-A", "trust"]
    subprocess.run(
        as_owner([*initdb, "-U", "postgres", "--no-sync"]), check=True, capture_output=True
    )
    with (directory / "data" / "postgresql.conf").open("a") as settings:
        settings.write(
            f"port = {cluster.port}\nlisten_addresses = '127.0.0.1'\nfsync = off\n"
            f"unix_socket_directories = '{directory}'\n"
        )
    # The password is asked for, so that a witness without it would not get in.
    (directory / "data" / "pg_hba.conf").write_text(
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    cluster._ctl("start")
    pid = 0
    try:
        cluster.execute("postgres", f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")
        (directory / "users").write_text(f'"shop" "{PASSWORD}"\n')
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {cluster.pooler_port}\n"
            f"auth_type = scram-sha-256\nauth_file = {directory}/users\npool_mode = transaction\n"
            f"unix_socket_dir =\npidfile = {directory}/pgbouncer.pid\n"
            f"logfile = {directory}/pgbouncer.log\nserver_login_retry = 1\n"
        )
        if os.geteuid() == 0:
            for name in ("users", "pgbouncer.ini"):
                shutil.chown(directory / name, "postgres")
        subprocess.run(
            as_owner([pgbouncer, "-d", str(directory / "pgbouncer.ini")]),
            check=True,
            capture_output=True,
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError, ValueError):
                pid = cluster.pooler_pid
                socket.create_connection(("127.0.0.1", cluster.pooler_port), 1).close()
                break
            if time.monotonic() > deadline:
                raise TimeoutError((directory / "pgbouncer.log").read_text())
            time.sleep(0.05)
        yield cluster
    finally:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
        cluster._ctl("stop", "-m", "immediate")
