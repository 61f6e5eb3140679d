"""One lab and one environment for all tests that look at a stage that stands.

Files run by their names: what needs stage 1 stands before test_stage_2.py, which climbs on, and
test_teardown.py takes the environment away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import aws_state
from tests.support.bank import Bank
from tests.support.home import BUILD
from tests.support.host import Host
from tests.support.lab import TestLab, running
from tests.support.moved import public_address
from tests.support.playbook import Run, succeed

STAGE = "stage_1_single_host.yml"


@pytest.fixture(scope="session")
def stage_lab() -> Iterator[TestLab]:
    """A lab of these tests alone: empty, or as KEEP=1 left it."""
    name, _, subnet = os.environ.get("ASCENT_TEST_LAB", "test 198.18.9.0/24").partition(" ")
    with running(name, subnet) as lab:
        yield lab


@pytest.fixture(scope="session")
def plan(stage_lab: TestLab) -> tuple[dict[str, Any], Run, dict[str, Any]]:
    """The plan of an empty account, and what stood before and after it was made."""
    before = aws_state.snapshot(stage_lab)
    run = succeed(stage_lab, STAGE, "--check", "--diff")
    return before, run, aws_state.snapshot(stage_lab)


@pytest.fixture(scope="session")
def stands(request: pytest.FixtureRequest, stage_lab: TestLab) -> None:
    """The stage stands, by a first run; with KEEP=1 what stood already is taken as it is."""
    if os.environ.get("KEEP") and stage_lab.client("ec2").describe_addresses()["Addresses"]:
        return
    request.getfixturevalue("plan")
    succeed(stage_lab, STAGE)


@pytest.fixture(scope="session")
def box(stands: None, stage_lab: TestLab) -> str:
    """The public address of the one host."""
    return public_address(stage_lab, "box")


@pytest.fixture(scope="session")
def bank(stands: None, stage_lab: TestLab) -> Iterator[Bank]:
    """An application that nobody here wrote, which writes through the pooler all the time."""
    found = Bank(Host(public_address(stage_lab, "box"), BUILD / "ssh" / "id_ed25519"))
    found.open()
    try:
        yield found
    finally:
        found.close()
