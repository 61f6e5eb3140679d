"""Who may take a lock, and when."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils import lease as leases

ME: leases.Process = {
    "user": "anna",
    "host": "laptop",
    "machine": "m1",
    "boot": "b1",
    "pid": 100,
    "started": "5",
}


def held(expires: float = 2000, **changes: Any) -> leases.Lease:
    holder: Any = {**ME, "user": "ben", "pid": 7, **changes}
    return {"holder": holder, "since": 500, "expires": expires, "token": "t"}


@pytest.mark.parametrize(
    ("lease", "alive", "action"),
    [
        (None, False, "take"),
        (held(user="anna", pid=100), True, "renew"),
        (held(), True, "refuse"),
        (held(), False, "retake"),
        (held(boot="b0"), True, "retake"),
        (held(user="anna", pid=100, started="9"), False, "retake"),
        (held(machine="m2"), False, "refuse"),
        (held(machine="m2", boot="b0"), False, "refuse"),
        (held(machine="m2", expires=1000), True, "retake"),
        (held(expires=999), True, "retake"),
    ],
    ids=[
        "nobody's",
        "my own",
        "another process of this machine",
        "a process of this machine that has ended",
        "a process from before the restart",
        "another process with my number",
        "another machine's",
        "another machine's, whose boot says nothing here",
        "another machine's, out of time",
        "out of time, though alive",
    ],
)
def test_decisions(lease: leases.Lease | None, alive: bool, action: str) -> None:
    assert leases.decide(lease, ME, 1000, lambda _: alive)["action"] == action


def test_a_refusal_names_holder_and_end() -> None:
    reason = leases.decide(held(machine="m2"), ME, 1000, lambda _: True)["reason"]
    assert "ben@laptop (process 7)" in reason
    assert leases.clock_time(2000) in reason


def test_another_machines_process_is_never_looked_for_here() -> None:
    def alive(_: leases.Process) -> bool:
        raise AssertionError("asked")

    leases.decide(held(machine="m2"), ME, 1000, alive)
