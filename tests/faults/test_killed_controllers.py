"""The stage is built from nothing, with the controller killed in every phase of it."""

from __future__ import annotations

import pytest

from tests.faults.conftest import DOMAIN, KILLS, QUICK_KILLS
from tests.support import aws_state
from tests.support.lab import TestLab
from tests.support.playbook import Run
from tests.support.probe import get_json

pytestmark = pytest.mark.lab

# What a run that was never killed leaves behind: nothing may stand twice.
ONE_OF_EACH = ("instances", "addresses", "zones", "buckets", "key_pairs", "volumes")


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(where, marks=() if where in QUICK_KILLS else pytest.mark.thorough)
        for where in KILLS
    ],
)
def test_the_controller_was_killed_there(killed: dict[str, Run], where: str) -> None:
    assert killed[where].killed_at, killed[where].tail()


def test_the_next_run_ends_what_killed_ones_began(
    killed: dict[str, Run], mended: Run, box: str
) -> None:
    assert "the lock of lab was taken over" in mended.output
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"


def test_nothing_stands_twice_after_all_kills(
    killed: dict[str, Run], mended: Run, fault_lab: TestLab
) -> None:
    state = aws_state.snapshot(fault_lab)
    assert {kind: len(state[kind]) for kind in ONE_OF_EACH} == dict.fromkeys(ONE_OF_EACH, 1)
    ours = [vpc for vpc in state["vpcs"] if not vpc["IsDefault"]]
    assert len(ours) == 1
    names = [group["GroupName"] for group in state["security_groups"]]
    assert len(names) - names.count("default") == len(set(names) - {"default"})
