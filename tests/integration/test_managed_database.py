"""The role managed_database by itself: a database becomes Multi-AZ, and single again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import TestLab, running
from tests.support.playbook import Run, succeed
from tests.unit.plugins.description import DESCRIPTION, MANAGED

pytestmark = [pytest.mark.lab, pytest.mark.thorough]

PLAYBOOK = "../tests/integration/playbooks/managed_database.yml"
INSTANCE = "ascent-lab-managed"


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running("multiaz", "198.18.46.0/24") as lab:
        yield lab


def bring(lab: TestLab, folder: Path, multi_az: bool, *arguments: str) -> Run:
    """Run the role with a description that asks for a standby, or for none."""
    [database] = MANAGED["managed_databases"]
    description = {
        **DESCRIPTION,
        **MANAGED,
        "hosts": [],
        "front_door": [],
        "managed_databases": [{**database, "multi_az": multi_az, "size": "db.t4g.micro"}],
    }
    file = folder / "description.json"
    file.write_text(json.dumps({"description": description}))
    inventory = folder / "hosts.ini"
    inventory.write_text(f"localhost ansible_python_interpreter={sys.executable}\n")
    return succeed(lab, PLAYBOOK, "-e", f"@{file}", *arguments, inventory=inventory)


def described(lab: TestLab) -> dict[str, Any]:
    found = lab.client("rds").describe_db_instances(DBInstanceIdentifier=INSTANCE)
    return dict(found["DBInstances"][0])


@pytest.fixture(scope="module")
def stands(lab: TestLab, tmp_path_factory: pytest.TempPathFactory) -> None:
    bring(lab, tmp_path_factory.mktemp("single"), False)


def test_the_plan_says_so_and_changes_nothing(stands: None, lab: TestLab, tmp_path: Path) -> None:
    run = bring(lab, tmp_path, True, "--check", "--diff")
    assert '+  "multi_az": true' in run.output
    assert '-  "multi_az": false' in run.output
    found = described(lab)
    assert (found["MultiAZ"], found["PendingModifiedValues"]) == (False, {})


@pytest.mark.parametrize("multi_az", [True, False])
def test_it_is_so_when_the_run_ends_and_a_second_one_has_nothing_to_do(
    stands: None, lab: TestLab, tmp_path: Path, multi_az: bool
) -> None:
    bring(lab, tmp_path, multi_az)
    found = described(lab)
    assert (found["DBInstanceStatus"], found["MultiAZ"]) == ("available", multi_az)
    assert found["PendingModifiedValues"] == {}
    assert ("SecondaryAvailabilityZone" in found) is multi_az
    assert bring(lab, tmp_path, multi_az).changed_tasks == []


def test_what_a_run_that_was_killed_began_is_waited_for(
    stands: None, lab: TestLab, tmp_path: Path
) -> None:
    rds = lab.client("rds")
    rds.modify_db_instance(DBInstanceIdentifier=INSTANCE, MultiAZ=True, ApplyImmediately=True)
    assert described(lab)["DBInstanceStatus"] == "modifying"
    assert bring(lab, tmp_path, True).changed_tasks == []
    assert described(lab)["MultiAZ"] is True
