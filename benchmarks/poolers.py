"""Switches a database back and forth with few and with many poolers, and prints the pauses.

    .venv/bin/python benchmarks/poolers.py [--few 2] [--many 50] [--switches 10]

Every pooler is a PgBouncer with a guard of its own, all on this machine, made for it and taken away
again; writers use them all. Few and many have the same machine, one after the other: look at the
ratio, not at milliseconds. On hosts of their own the guards do not share two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.ascent.scaling.plugins.modules import database_move  # noqa: E402

from benchmarks.move import options  # noqa: E402
from tests.support.motion import Writers, folder, staged  # noqa: E402


def measure(poolers: int, given: Any) -> list[float]:
    """The pause of each switch, in ms."""
    pauses = []
    with folder() as directory, staged(directory / "stage", poolers) as stage:
        for host in stage.hosts:
            host.start_guard()
        with Writers(stage.ports, count=max(8, poolers), rate=given.rate) as writers:
            database_move.run({**options(stage), "state": "verified"}, dry=False)
            for number in range(given.switches):
                state = "returned" if number % 2 else "switched"
                moved = database_move.run({**options(stage), "state": state}, dry=False)
                pauses.append(float(moved["pause_ms"]))
                time.sleep(1)
        if writers.failures:
            print(f"{len(writers.failures)} failed: {writers.failures[0]}", file=sys.stderr)
    return pauses


def main() -> int:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=50)
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--rate", type=float, default=100, help="transactions a second, in all")
    given = parser.parse_args()
    print("| poolers | median pause | longest pause | against few |")
    print("|---|---|---|---|")
    few = 0.0
    for poolers in (given.few, given.many):
        pauses = measure(poolers, given)
        middle = statistics.median(pauses)
        few = few or middle
        print(f"| {poolers} | {middle:.0f} ms | {max(pauses):.0f} ms | {middle / few:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
