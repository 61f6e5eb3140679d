"""Climbs from stage 1 to 3 with a gigabyte of data, under load, and prints what its users noticed.

    .venv/bin/python benchmarks/climb.py [--megabytes 1000] [--users 20] [--pause 200]

It takes wrk (Debian's package), and makes a lab of its own. Three kinds of users meanwhile: wrk
shops over keep-alive connections, three requests of ten an order; pgbench writes through the
pooler; and the witness of each run asks and orders as always. All of them, and the servers, share
this machine: pauses are longer than on hosts of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
# An environment of its own, beside those of tests and of the demo.
os.environ.setdefault("ASCENT_TEST_DOMAIN", "load.test")

from tests.support.bank import Bank  # noqa: E402
from tests.support.home import DOMAIN  # noqa: E402
from tests.support.lab import TestLab, running  # noqa: E402
from tests.support.moved import BUILD, ask, host, public_address, reports  # noqa: E402
from tests.support.playbook import succeed  # noqa: E402
from tests.support.wrk import Shoppers  # noqa: E402

STAGES = ("stage_2_split_tiers.yml", "operations/finish_move.yml", "stage_3_managed_database.yml")


@contextmanager
def standing(megabytes: int) -> Iterator[TestLab]:
    """Stage 1, with that much data in a table that nobody touches."""
    shutil.rmtree(BUILD, ignore_errors=True)
    with running("load", "198.18.4.0/24") as lab:
        succeed(lab, "stage_1_single_host.yml")
        ask(
            host(lab, "box"),
            "SET ROLE shop; CREATE TABLE filler (id bigint PRIMARY KEY, body text);"
            "INSERT INTO filler SELECT n, (SELECT string_agg(md5(n::text || k::text), '')"
            f" FROM generate_series(1, 30) k) FROM generate_series(1, {megabytes * 1000}) n;",
        )
        yield lab


def main() -> int:
    """Climb, and print a row for each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000, help="of data that lies there")
    parser.add_argument("--users", type=int, default=20, help="connections of wrk")
    parser.add_argument("--pause", type=int, default=200, help="ms between a user's requests")
    given = parser.parse_args()
    if not shutil.which("wrk"):
        print("It takes wrk: apt-get install wrk", file=sys.stderr)
        return 2
    with standing(given.megabytes) as lab:
        address = public_address(lab, "box")
        bank = Bank(host(lab, "box"))
        bank.open()
        for playbook in STAGES:
            before = reports()
            began = time.monotonic()
            shoppers = Shoppers(address, DOMAIN, given.users, given.pause)
            succeed(lab, playbook, timeout=3600)
            seen = shoppers.end()
            seconds = time.monotonic() - began
            print(f"{playbook}: {seconds:.0f} s; wrk {json.dumps(seen)}", flush=True)
            for path in sorted(reports() - before):
                report = json.loads(path.read_text())
                print(
                    f"  {report['database']} {report['from']} -> {report['at']}:"
                    f" {report['bytes'] / 1e6:.0f} MB, seconds {report['seconds']},"
                    f" pause {report['pause_ms']:.0f} ms, {report['timeline']},"
                    f" rows compared {report['verification'].get('rows')}"
                )
            newest = max(
                (BUILD / "witness").glob("*/summary.json"), key=lambda p: p.stat().st_mtime
            )
            print(f"  witness {newest.read_text()}", flush=True)
        bank.is_right()
        print(f"pgbench: no transaction failed, the sums agree; slowest {bank.slowest_ms():.0f} ms")
        bank.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
