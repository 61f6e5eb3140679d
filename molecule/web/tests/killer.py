"""Kills everything that deploys, at a given moment of a deployment.

Runs on the host: killer.py build|create|gate|switch. What deploys is whatever holds the lock of
the application.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

BASE, LOCK = Path("/srv/door"), "/srv/door/.lock"
MOMENTS: dict[str, Callable[[], object]] = {
    "build": lambda: sorted(os.listdir(BASE / "releases")),
    "create": lambda: [name for name in os.listdir(BASE / "instances") if name[0] != "."],
    "gate": lambda: sorted(os.listdir("/run/door/instances")),
    "switch": lambda: os.readlink(BASE / "live"),
}


def holders() -> list[int]:
    """The processes that have the lock open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == LOCK:
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return sorted(found)


look = MOMENTS[sys.argv[1]]
before = look()
while look() == before:
    time.sleep(0.002)
while victims := holders():
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
