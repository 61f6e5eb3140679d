"""Kills everything that deploys, some time after a release began to be built.

Runs on the host: killer.py SECONDS. What deploys is whatever holds the lock of the application.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

RELEASES, LOCK = Path("/srv/door/releases"), "/srv/door/.lock"


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


before = set(RELEASES.iterdir())
while set(RELEASES.iterdir()) <= before:
    time.sleep(0.05)
time.sleep(float(sys.argv[1]))
while victims := holders():
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
print("killed", time.time())
