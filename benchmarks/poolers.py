"""Switches a database back and forth with few and with many poolers, and prints the pauses.

    .venv/bin/python benchmarks/poolers.py [--few 2] [--many 50] [--switches 10]

Three rows, one after the other on the same machine; look at the ratios, not at milliseconds:

- few poolers, each a real PgBouncer with a guard, and writers that use them;
- many, of which all but the few are stand-ins: they are told, ask and answer in both databases as
  guards do, each with connections of its own, and take the time in between that a real guard took
  in the first row, without the work. So it is when each pooler has a host of its own;
- many real ones, which have to share the processors of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

import psycopg  # noqa: E402
from ansible_collections.ascent.scaling.plugins.modules import database_move  # noqa: E402

from benchmarks.move import options  # noqa: E402
from tests.support.motion import Stage, Writers, folder, staged  # noqa: E402


class Measured:
    """The switches of one row."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.to_pause: list[float] = []
        self.to_resume: list[float] = []
        self.failures: list[str] = []

    def add(self, moved: dict[str, Any]) -> None:
        """Keep the figures of one switch."""
        points = moved["timeline"]
        self.pauses.append(float(moved["pause_ms"]))
        self.to_pause.append(points["paused"])
        self.to_resume.append(points["resumed"] - points["opened"])


def measure(given: Any, real: int, stand_ins: int = 0, like: Measured | None = None) -> Measured:
    """Switch with real poolers and stand-ins that take as long as those of `like`."""
    found = Measured()
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(staged(stack.enter_context(folder()) / "stage", real))
        for host in stage.hosts:
            host.start_guard()
        asked = options(stage)
        with Writers(stage.ports, count=max(8, real), rate=given.rate) as writers:
            database_move.run({**asked, "state": "copied"}, dry=False)
            names = [f"stand-in-{number}" for number in range(stand_ins)]
            if like and names:
                stack.enter_context(standing_in(stage, names, like))
            asked["poolers"] = [*asked["poolers"], *names]
            database_move.run({**asked, "state": "verified"}, dry=False)
            for number in range(given.switches):
                state = "returned" if number % 2 else "switched"
                found.add(database_move.run({**asked, "state": state}, dry=False))
                time.sleep(1)
        found.failures = writers.failures
    return found


@contextlib.contextmanager
def standing_in(stage: Stage, names: list[str], like: Measured) -> Iterator[None]:
    """Stand-ins in a process of their own, which uses about a tenth of a processor."""
    asked = {
        "names": names,
        "sides": {
            name: server.conninfo("ascent_guard")
            for name, server in (("box", stage.source), ("db", stage.target))
        },
        "to_pause_ms": statistics.median(like.to_pause),
        "to_resume_ms": statistics.median(like.to_resume),
    }
    process = subprocess.Popen([sys.executable, __file__, "--stand-in", json.dumps(asked)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def stand_in(asked: dict[str, Any]) -> None:
    """Be told, ask and say what guards do; never returns."""
    number = itertools.count()
    # What is due: when, in which order, on which connection, which statement, what with.
    due: list[tuple[float, int, Any, str, tuple[Any, ...]]] = []

    def plan(after: float, connection: Any, statement: str, *values: Any) -> None:
        heapq.heappush(due, (time.monotonic() + after, next(number), connection, statement, values))

    say = "SELECT ascent_move.say(%s, %s, %s, %s, %s)"
    ask = "SELECT ascent_move.door_state(%s, false)"
    connections: dict[Any, tuple[str, str]] = {}
    for name in asked["names"]:
        for side, conninfo in asked["sides"].items():
            connection = psycopg.connect(**conninfo, autocommit=True)
            connection.execute("SET synchronous_commit = off")
            connection.execute("LISTEN ascent_move_told")
            connections[connection] = name, side
            plan(0, connection, "heartbeat")
    by_name = {found: connection for connection, found in connections.items()}
    leads = dict.fromkeys(asked["names"], "box")

    def hear(connection: Any, text: str) -> None:
        name, side = connections[connection]
        told = json.loads(text)
        attempt = told["attempt"]
        if told["do"] == "pause":
            took = asked["to_pause_ms"] / 1000
            plan(took, connection, say, name, "", attempt, "paused", "")
        elif told["do"] == "switch":
            plan(0, connection, ask, attempt)
            leads[name] = side
            for end in asked["sides"]:
                took = asked["to_resume_ms"] / 1000
                plan(took, by_name[name, end], say, name, "", attempt, "switched", "")

    sockets = {connection.fileno(): connection for connection in connections}
    poll = select.poll()
    for descriptor, connection in sockets.items():
        poll.register(descriptor, select.POLLIN)
        connection.add_notify_handler(
            lambda notice, connection=connection: hear(connection, notice.payload)
        )
    while True:
        wait = max(0.0, due[0][0] - time.monotonic()) if due else 1.0
        for descriptor, _ in poll.poll(wait * 1000):
            connection = sockets[descriptor]
            connection.pgconn.consume_input()
            while notice := connection.pgconn.notifies():
                hear(connection, notice.extra.decode())
        while due and due[0][0] <= time.monotonic():
            _, _, connection, statement, values = heapq.heappop(due)
            if statement != "heartbeat":
                connection.execute(statement, values)
                continue
            name, _ = connections[connection]
            connection.execute(say, (name, leads[name], "", "idle", ""))
            connection.execute("SELECT ascent_move.standing()")
            connection.execute(ask, ("",))
            plan(1, connection, "heartbeat")


def main() -> int:
    """Measure all rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=50)
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--rate", type=float, default=100, help="transactions a second, in all")
    parser.add_argument("--stand-in", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stand_in:
        stand_in(given.stand_in)
    print("| poolers | median pause | longest pause | against few | failed |")
    print("|---|---|---|---|---|")
    few = measure(given, given.few)
    rows = [
        (f"{given.few}", few),
        (
            f"{given.many}, as on hosts of their own",
            measure(given, given.few, given.many - given.few, few),
        ),
        (f"{given.many}, all on this machine", measure(given, given.many)),
    ]
    for name, found in rows:
        middle = statistics.median(found.pauses)
        print(
            f"| {name} | {middle:.0f} ms | {max(found.pauses):.0f} ms"
            f" | {middle / statistics.median(few.pauses):.2f} | {len(found.failures)} |"
        )
        for failure in sorted(set(found.failures)):
            print(f"failed: {failure}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
