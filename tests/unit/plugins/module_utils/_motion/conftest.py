"""A move between two real servers of this machine, with poolers, guards and writers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion.mover import Mover, Standing
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import Site

from tests.support.lab import ROOT
from tests.support.motion import ROLE, Host, Server, Stage, Writers, folder, staged
from tests.support.postgres import binaries, pooler

HARD_S = 2.0


@dataclass
class Bench:
    """A copied database, kept up to date on the other side, and what tells of it."""

    stage: Stage
    servers: dict[str, Server]
    sites: dict[str, Site]
    mover: Mover
    _rounds: Iterator[int]

    def settle(self) -> Standing:
        """What the next run does first."""
        with self._connected() as (origin, other):
            return self.mover.copy(origin, other, 10)

    def _connected(self) -> Any:
        return _Both(self.mover)

    @property
    def hosts(self) -> list[Host]:
        return self.stage.hosts

    def writers(self, count: int = 8, rate: float = 100) -> Writers:
        return Writers(self.stage.ports, count, rate, first=100_000 * next(self._rounds))

    def attempt(self, hard: float = HARD_S, **hooks: Any) -> subprocess.Popen[str]:
        """Begin to switch to the side where the data is not, with poolers paused for `hard` s."""
        here = self.settle()
        plan = {
            "leaves": here.here.name,
            "goes_to": here.there.name,
            "poolers": [host.name for host in self.hosts],
            "roles": [ROLE],
            "forward": here.here.slot,
            "reverse": here.there.slot,
        }
        asked = {
            "plan": plan, "source": vars(here.here), "target": vars(here.there), "hard": hard,
            **hooks,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.cutover", json.dumps(asked)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def where(self) -> Server:
        return self.servers[self.settle().here.name]

    def lead_to(self, server: Server, seconds: float = 5) -> bool:
        deadline = time.monotonic() + seconds
        while any(host.leads_to() != server.port for host in self.hosts):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


class _Both:
    def __init__(self, mover: Mover) -> None:
        self._mover = mover

    def __enter__(self) -> tuple[Any, Any]:
        self._both = self._mover.connect()
        return self._both

    def __exit__(self, *_: object) -> None:
        for connection in self._both:
            connection.close()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    if not binaries() or not pooler():
        pytest.skip("needs the packages postgresql and pgbouncer (make setup)")
    with folder() as directory, staged(directory / "stage") as stage:
        servers = {"box": stage.source, "db": stage.target}
        sites = {
            name: Site(name, server.conninfo(), server.conninfo())
            for name, server in servers.items()
        }
        mover = Mover(sites["box"], sites["db"])
        bench = Bench(stage, servers, sites, mover, itertools.count(1))
        with _Both(mover) as (origin, other):
            mover.prepare(origin, other, [ROLE])
            mover.copy(origin, other, 20)
        for host in stage.hosts:
            host.start_guard()
        _until_guarded(bench)
        yield bench


def _until_guarded(bench: Bench) -> None:
    names = {host.name for host in bench.hosts}
    deadline = time.monotonic() + 10
    for server in bench.servers.values():
        while {row[0] for row in server.execute("SELECT name FROM ascent_move.pooler")} != names:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def freeze(server: Server, on: bool) -> None:
    """Stop every process of a server, as a cut network or a hanging machine does, or go on."""
    listed = subprocess.run(
        ["pgrep", "--parent", str(server.pid)], capture_output=True, text=True, check=False
    )
    for pid in (server.pid, *map(int, listed.stdout.split())):
        os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)
