"""The way back from whatever stage stands: it takes the environment away, and the backups stay."""

from __future__ import annotations

import pytest

from tests.support import aws_state
from tests.support.lab import TestLab
from tests.support.playbook import play, succeed

pytestmark = pytest.mark.lab


def snapshots(lab: TestLab) -> set[str]:
    """The snapshots of managed databases that stay until somebody deletes them."""
    found = lab.client("rds").describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    return {snapshot["DBSnapshotIdentifier"] for snapshot in found}


def test_a_teardown_asks_for_the_name_and_leaves_only_the_backups(
    stands: None, stage_lab: TestLab
) -> None:
    before = aws_state.snapshot(stage_lab)
    taken = snapshots(stage_lab)
    backed_up = aws_state.objects(stage_lab, before["buckets"][0])
    assert any(key.endswith("backup.info") for key in backed_up)
    refused = play(stage_lab, "operations/teardown.yml", "-e", "confirm=production")
    assert refused.returncode != 0
    assert "Nothing was removed" in refused.output
    listed = succeed(stage_lab, "operations/teardown.yml", "-e", "confirm=lab", "--check")
    assert "lab-box" in listed.output or "box" in listed.output
    assert aws_state.counts(aws_state.snapshot(stage_lab)) == aws_state.counts(before)

    succeed(stage_lab, "operations/teardown.yml", "-e", "confirm=lab")
    after = aws_state.snapshot(stage_lab)
    assert after["instances"] == after["addresses"] == after["volumes"] == []
    assert after["zones"] == after["key_pairs"] == after["parameters"] == []
    assert [vpc for vpc in after["vpcs"] if not vpc["IsDefault"]] == []
    assert after["buckets"] == before["buckets"], "the backups stay unless told"
    assert backed_up <= aws_state.objects(stage_lab, after["buckets"][0])
    assert after["secrets"] == ["ascent/lab/backup_passphrase"], "and what they are read with"
    assert stage_lab.client("rds").describe_db_instances()["DBInstances"] == []
    kept = snapshots(stage_lab)
    assert kept > taken, "and the managed database has a last snapshot"
    assert succeed(stage_lab, "operations/teardown.yml", "-e", "confirm=lab").changed_tasks == []


def test_told_to_a_teardown_removes_the_backups_too(stands: None, stage_lab: TestLab) -> None:
    succeed(
        stage_lab,
        "operations/teardown.yml",
        "-e",
        "confirm=lab",
        "-e",
        "ascent_delete_backups=true",
    )
    after = aws_state.snapshot(stage_lab)
    assert after["buckets"] == after["secrets"] == []
    assert snapshots(stage_lab) == set()
