"""Moves the same data three ways, under the same writers, and prints pause and time side by side.

    .venv/bin/python benchmarks/move.py [--megabytes 1000] [--rate 100]

ascent      the module database_move
by hand     PostgreSQL's logical replication, and a script of psql at the end: what a careful
            engineer writes; nothing is compared, and there is no way back
dump        pg_dump | pg_restore with the application stopped

Two PostgreSQL servers and two PgBouncers of this machine, made for it and taken away again. All
three run one after the other on the same machine: look at ratios, not at seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

import psycopg  # noqa: E402
from ansible_collections.ascent.scaling.plugins.modules import database_move  # noqa: E402

from tests.support.motion import LOGIN, ROLE, Server, Stage, Writers, folder, staged  # noqa: E402
from tests.support.postgres import binaries  # noqa: E402

SETTLE_S = 2.0


@dataclass
class Result:
    """What a way of moving took, in seconds but for the pause (ms)."""

    way: str
    total_s: float
    pause_ms: float
    failed: int
    lost: int


def program(name: str) -> str:
    """A program of the newest PostgreSQL that is installed."""
    programs = binaries()
    assert programs, "install the packages postgresql and pgbouncer (make setup)"
    return str(programs / name)


def fill(server: Server, megabytes: int) -> None:
    """Rows of a kilobyte, that do not compress."""
    server.execute(
        f"SET ROLE {ROLE}; CREATE TABLE filler (id bigint PRIMARY KEY, body text);"
        "INSERT INTO filler SELECT n, (SELECT string_agg(md5(n::text || k::text), '')"
        f" FROM generate_series(1, 30) k) FROM generate_series(1, {megabytes * 1000}) n;"
        "CREATE INDEX ON filler (left(body, 32)); ANALYZE"
    )


def options(stage: Stage) -> dict[str, Any]:
    """The module's options."""

    def side(name: str, server: Server) -> dict[str, Any]:
        return {
            "name": name, "host": "127.0.0.1", "port": server.port, "database": "shop",
            "user": "postgres", "password": "", "replication_user": "postgres",
            "replication_password": "", "sslmode": "disable",
        }  # fmt: skip

    return {
        "state": "switched",
        "origin": side("box", stage.source),
        "other": side("db", stage.target),
        "roles": [ROLE],
        "poolers": [host.name for host in stage.hosts],
        "pooler_addresses": ["127.0.0.1"],
        "max_pause": 2.0,
        "verified_within": 3600,
        "compare": "full",
        "sample_rows": 20_000,
        "patience": 300,
        "allow_unlogged": False,
        "room_mb": None,
        "backup": "",
    }


def console(stage: Stage, command: str) -> None:
    """Tell every PgBouncer, one after the other, as a script does."""
    for host in stage.hosts:
        where = ["-h", str(host.directory), "-p", str(host.port), "-U", "pgbouncer"]
        run([program("psql"), "-Xq", *where, "-d", "pgbouncer", "-c", command], as_postgres=True)


def lead_to_target(stage: Stage) -> None:
    """Have every PgBouncer lead to the target from now on."""
    for host in stage.hosts:
        text = host.databases.read_text()
        host.databases.write_text(
            text.replace(f"port={stage.source.port}", f"port={stage.target.port}")
        )
    console(stage, "RELOAD")


def run(command: list[str], as_postgres: bool = False, feed: str | None = None) -> str:
    """Run a program to its end; its output."""
    if as_postgres and os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=feed)
    return done.stdout


def psql(server: Server, statement: str) -> str:
    """Ask a server, with a program of its own, as a script does."""
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", "shop"]
    return run([program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *where], feed=statement).strip()


def schema(stage: Stage) -> None:
    """The definitions, from the source to the target."""
    where = ["-h", "127.0.0.1", "-U", "postgres", "-d", "shop"]
    text = run([program("pg_dump"), "--schema-only", *where, "-p", str(stage.source.port)])
    psql(stage.target, text)


def by_ascent(stage: Stage, writers: Writers) -> float:
    """Our own way; returns nothing to add to what the writers saw."""
    for host in stage.hosts:
        host.start_guard()
    database_move.run(options(stage), dry=False)
    return 0.0


def by_hand(stage: Stage, writers: Writers) -> float:
    """A script: copy, wait, pause, wait again, set the sequences, lead elsewhere, go on."""
    source, target = stage.source, stage.target
    psql(source, "ALTER TABLE log REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR ALL TABLES")
    schema(stage)
    psql(target, "DROP PUBLICATION IF EXISTS p")
    psql(
        target,
        f"CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={source.port} user=postgres"
        " dbname=shop' PUBLICATION p",
    )
    while psql(target, "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") != "0":
        time.sleep(1)
    console(stage, "PAUSE main")
    position = psql(source, "SELECT pg_current_wal_lsn()")
    arrived = f"SELECT confirmed_flush_lsn >= '{position}' FROM pg_replication_slots"
    while psql(source, arrived) != "t":
        time.sleep(0.2)
    sequences = psql(
        source,
        "SELECT format('SELECT setval(%L, %s);', schemaname || '.' || sequencename, last_value)"
        " FROM pg_sequences WHERE last_value IS NOT NULL",
    )
    psql(target, sequences)
    psql(target, "ALTER SUBSCRIPTION s DISABLE; REFRESH MATERIALIZED VIEW numbers_seen")
    lead_to_target(stage)
    console(stage, "RESUME main")
    return 0.0


def by_dump(stage: Stage, writers: Writers) -> float:
    """The application stands still from the first byte to the last."""
    writers.__exit__()
    began = time.monotonic()
    where = ["-h", "127.0.0.1", "-U", "postgres", "-d", "shop"]
    dump = [program("pg_dump"), "-Fc", *where, "-p", str(stage.source.port)]
    restore = [program("pg_restore"), *where, "-p", str(stage.target.port)]
    with subprocess.Popen(dump, stdout=subprocess.PIPE) as reading:
        subprocess.run(restore, stdin=reading.stdout, check=True)
    assert reading.returncode == 0
    lead_to_target(stage)
    with psycopg.connect(
        host="127.0.0.1", port=stage.ports[0], user=LOGIN, dbname="main", prepare_threshold=None
    ) as connection:
        connection.execute("SELECT count(*) FROM ledger")
    pause = time.monotonic() - began
    writers.first += 1_000_000
    writers.__enter__()
    return pause * 1000


def measure(way: str, move: Callable[[Stage, Writers], float], given: Any) -> Result:
    """One way, with servers of its own."""
    with folder() as directory, staged(directory / "stage") as stage:
        fill(stage.source, given.megabytes)
        with Writers(stage.ports, rate=given.rate) as writers:
            time.sleep(SETTLE_S)
            began = time.monotonic()
            pause = move(stage, writers)
            total = time.monotonic() - began
            time.sleep(SETTLE_S)
        lost = len(writers.lost(stage.target))
        return Result(way, total, pause or writers.longest_ms, len(writers.failures), lost)


def main() -> int:
    """Measure all ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000, help="of data that lies there")
    parser.add_argument("--rate", type=float, default=100, help="transactions a second")
    given = parser.parse_args()
    ways = {"ascent": by_ascent, "by hand": by_hand, "dump": by_dump}
    results = []
    for way, move in ways.items():
        print(f"{way} …", file=sys.stderr, flush=True)
        results.append(measure(way, move, given))
    ours = results[0]
    print("| way | longest wait of a write | ours is | total | failed | lost |")
    print("|---|---|---|---|---|---|")
    for result in results:
        ratio = f"1/{result.pause_ms / ours.pause_ms:.0f}" if result is not ours else ""
        print(
            f"| {result.way} | {result.pause_ms:.0f} ms | {ratio} | {result.total_s:.1f} s "
            f"| {result.failed} | {result.lost} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
