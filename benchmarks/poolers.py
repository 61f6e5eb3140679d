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
from collections import deque
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


class StandIn:
    """One connection of a stand-in: what it is told, and what it sends without waiting for it."""

    def __init__(self, name: str, side: str, conninfo: dict[str, Any]) -> None:
        self.name, self.side = name, side
        self.connection = psycopg.connect(**conninfo, autocommit=True)
        self.connection.execute("SET synchronous_commit = off")
        self.connection.execute("LISTEN ascent_move_told")
        self.sends: deque[tuple[str, list[str]]] = deque()
        self.waits = False

    def send(self, statement: str, *values: str) -> None:
        """Send a statement once the answer to the one before has come."""
        self.sends.append((statement, list(values)))
        self._go_on()

    def _go_on(self) -> None:
        if self.sends and not self.waits:
            statement, values = self.sends.popleft()
            self.connection.pgconn.send_query_params(
                statement.encode(), [value.encode() for value in values]
            )
            self.waits = True

    def hears(self) -> list[dict[str, Any]]:
        """Take what has come; returns what it was told."""
        connection = self.connection.pgconn
        connection.consume_input()
        while self.waits and not connection.is_busy():
            self.waits = connection.get_result() is not None
        self._go_on()
        told = []
        while notice := connection.notifies():
            told.append(json.loads(notice.extra))
        return told


SAY = "SELECT ascent_move.say($1, $2, $3, $4, $5)"
ASK = "SELECT ascent_move.door_state($1, false)"
BEAT = f"{SAY}, ascent_move.standing(), ascent_move.door_state('', false)"


def stand_in(asked: dict[str, Any]) -> None:
    """Be told, ask and say what guards do; never returns."""
    number = itertools.count()
    # What is due: when, in which order, by which connection, and what it says of which attempt.
    due: list[tuple[float, int, StandIn, str, str]] = []

    def plan(after: float, one: StandIn, word: str, attempt: str = "") -> None:
        heapq.heappush(due, (time.monotonic() + after, next(number), one, word, attempt))

    ends: dict[str, list[StandIn]] = {}
    for name in asked["names"]:
        ends[name] = [StandIn(name, side, where) for side, where in asked["sides"].items()]
        for one in ends[name]:
            plan(0, one, "idle")
    leads = dict.fromkeys(asked["names"], "box")
    # As a guard, it says nothing else until an attempt is over.
    holding: set[str] = set()
    poll = select.poll()
    listens = {one.connection.fileno(): one for pair in ends.values() for one in pair}
    for descriptor in listens:
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll(1000 * max(0.0, due[0][0] - time.monotonic())):
            one = listens[descriptor]
            for told in one.hears():
                holding.add(one.name)
                if told["do"] == "pause":
                    plan(asked["to_pause_ms"] / 1000, one, "paused", told["attempt"])
                elif told["do"] == "switch":
                    leads[one.name] = one.side
                    one.send(ASK, told["attempt"])
                    for end in ends[one.name]:
                        plan(asked["to_resume_ms"] / 1000, end, "switched", told["attempt"])
        while due and due[0][0] <= time.monotonic():
            _, _, one, word, attempt = heapq.heappop(due)
            if word == "over":
                holding.discard(one.name)
            elif word != "idle":
                one.send(SAY, one.name, "", attempt, word, "")
                if word == "switched":
                    plan(1, one, "over")
            else:
                if one.name not in holding:
                    one.send(BEAT, one.name, leads[one.name], "", "idle", "")
                plan(1, one, "idle")


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
