"""To stage 3 while customers shop: the database goes to RDS, and back.

The tests stand in the order of the move, and go on from where the files before have ended: from
stage 1, or from stage 2 where test_stage_2.py was run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import aws_state
from tests.support.bank import Bank
from tests.support.home import DOMAIN
from tests.support.lab import TestLab
from tests.support.moved import (
    Moved,
    as_the_application,
    ask,
    host,
    public_address,
    under_customers,
)
from tests.support.playbook import WITHOUT_ROLES, Run, play, succeed
from tests.support.probe import port_answers

pytestmark = pytest.mark.lab

STAGE = "stage_3_managed_database.yml"
BACK, FINISH = "operations/move_back.yml", "operations/finish_move.yml"
INSTANCE = "ascent-lab-managed"


def managed(lab: TestLab) -> dict[str, Any]:
    """The RDS instance as AWS describes it."""
    (found,) = lab.client("rds").describe_db_instances(DBInstanceIdentifier=INSTANCE)["DBInstances"]
    return dict(found)


def orders_as_served(lab: TestLab) -> set[str]:
    return set(as_the_application(host(lab, "box"), "SELECT id FROM orders").split())


@pytest.fixture(scope="module")
def source(stands: None, stage_lab: TestLab) -> str:
    """The host that has the data before: its own, or the one box."""
    own = [{"Name": "tag:ascent:name", "Values": ["database"]}]
    found = stage_lab.client("ec2").describe_addresses(Filters=own)["Addresses"]
    return "database" if found else "box"


@pytest.fixture(scope="module")
def moved(source: str, bank: Bank, stage_lab: TestLab) -> Moved:
    return under_customers(stage_lab, DOMAIN, STAGE)


@pytest.fixture(scope="module")
def returned(moved: Moved, stage_lab: TestLab) -> Moved:
    return under_customers(stage_lab, DOMAIN, BACK)


@pytest.fixture(scope="module")
def forward(returned: Moved, stage_lab: TestLab) -> Moved:
    return under_customers(stage_lab, DOMAIN, STAGE, *WITHOUT_ROLES)


@pytest.fixture(scope="module")
def finished(forward: Moved, stage_lab: TestLab) -> Run:
    # Killed while the copy that is restored to be read stands, and costs.
    killed = play(stage_lab, FINISH, kill_at=r"PLAY \[Take away what was restored\]")
    assert killed.killed_at, killed.tail()
    return succeed(stage_lab, FINISH)


def test_the_plan_tells_what_would_be_made_and_moved(source: str, stage_lab: TestLab) -> None:
    before = aws_state.snapshot(stage_lab)
    run = succeed(stage_lab, STAGE, "--check", "--diff", *WITHOUT_ROLES)
    told = " ".join(run.output.split())
    assert f"Would copy shop from {source} to managed" in told
    assert "create db instance managed" in told
    assert aws_state.snapshot(stage_lab) == before
    assert stage_lab.client("rds").describe_db_instances()["DBInstances"] == []


def test_the_database_moves_while_customers_shop(
    moved: Moved, source: str, stage_lab: TestLab
) -> None:
    moved.lost_nothing(orders_as_served(stage_lab))
    assert (moved.report["from"], moved.report["at"]) == (source, "managed")


def test_it_is_made_as_it_should_be(moved: Moved, stage_lab: TestLab) -> None:
    found = managed(stage_lab)
    assert found["StorageEncrypted"]
    assert found["DeletionProtection"]
    assert not found["PubliclyAccessible"]
    assert found["BackupRetentionPeriod"] > 0
    assert found["PerformanceInsightsEnabled"]
    assert set(found["EnabledCloudwatchLogsExports"]) == {"postgresql", "upgrade"}
    (group,) = found["DBParameterGroups"]
    assert group["ParameterApplyStatus"] == "in-sync"


def test_the_box_reaches_it_and_nobody_outside_does(moved: Moved, stage_lab: TestLab) -> None:
    endpoint = managed(stage_lab)["Endpoint"]
    box = host(stage_lab, "box")
    script = f"timeout 3 bash -c '</dev/tcp/{endpoint['Address']}/{endpoint['Port']}' && echo open"
    assert box.run(script).strip() == "open"
    address = box.run(f"getent hosts {endpoint['Address']}").split()[0]
    assert address.startswith("10.42.")


def test_poolers_speak_to_it_by_tls_alone(moved: Moved, stage_lab: TestLab) -> None:
    box = host(stage_lab, "box")
    mine = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    # Of its session only the login itself may know that, not the role that it acts as.
    assert as_the_application(box, f"BEGIN; SET LOCAL ROLE NONE; {mine}; COMMIT") == "t|TLSv1.3"


def test_the_server_that_was_left_follows(moved: Moved, source: str, stage_lab: TestLab) -> None:
    newest = as_the_application(host(stage_lab, "box"), "SELECT max(id) FROM orders")
    left = host(stage_lab, source)
    assert ask(left, f"SELECT count(*) FROM orders WHERE id = {newest}") == "1"


def test_the_schema_is_frozen_where_it_can_be_and_says_why(
    moved: Moved, source: str, stage_lab: TestLab
) -> None:
    """RDS lets no role freeze its schema, and the run has said so."""
    told = ask(host(stage_lab, source), "SET ROLE shop; CREATE TABLE t (id int)")
    assert "being moved to another server: its schema is frozen" in told
    assert "change_schema" in told
    assert "managed does not let this role freeze its schema" in str(moved.report["steps"])


def test_a_change_of_the_schema_reaches_both_sides(
    moved: Moved, source: str, stage_lab: TestLab, tmp_path: Path
) -> None:
    file = tmp_path / "change.sql"
    file.write_text("ALTER TABLE orders ADD COLUMN colour text NOT NULL DEFAULT 'none';")
    succeed(stage_lab, "operations/change_schema.yml", "-e", f"ascent_schema_file={file}")
    one = "SELECT colour FROM orders LIMIT 1"
    assert as_the_application(host(stage_lab, "box"), one) == "none"
    assert ask(host(stage_lab, source), one) == "none"


def test_the_way_back_loses_nothing_either(
    returned: Moved, source: str, stage_lab: TestLab
) -> None:
    stored = ask(host(stage_lab, source), "SELECT id FROM orders").split()
    returned.lost_nothing(set(stored))
    assert (returned.report["from"], returned.report["at"]) == ("managed", source)


def test_and_forth_again(forward: Moved, stage_lab: TestLab) -> None:
    forward.lost_nothing(orders_as_served(stage_lab))
    assert "copy" not in forward.report["seconds"]


def test_a_finished_move_has_left_a_snapshot_that_was_read(
    finished: Run, source: str, stage_lab: TestLab
) -> None:
    rds = stage_lab.client("rds")
    assert [one["DBInstanceIdentifier"] for one in rds.describe_db_instances()["DBInstances"]] == [
        INSTANCE
    ]
    assert rds.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    left = host(stage_lab, source)
    assert left.run("ss -ltnH | grep -c :5432 || true").strip() == "0"
    assert not port_answers(public_address(stage_lab, source), 5432, seconds=1.0)


def test_poolers_check_its_certificate_from_then_on(finished: Run, stage_lab: TestLab) -> None:
    settings = host(stage_lab, "box").run("cat /etc/pgbouncer/pgbouncer.ini")
    assert "server_tls_sslmode = verify-full" in settings
    assert managed(stage_lab)["Endpoint"]["Address"] in host(stage_lab, "box").run(
        "cat /etc/pgbouncer/databases.ini"
    )


def test_the_schema_may_change_again(finished: Run, stage_lab: TestLab) -> None:
    change = "CREATE TABLE t (id int); DROP TABLE t; SELECT 1"
    assert as_the_application(host(stage_lab, "box"), change) == "1"


def test_afterwards_the_stage_has_nothing_to_do(finished: Run, stage_lab: TestLab) -> None:
    assert succeed(stage_lab, STAGE).changed_tasks == []


def test_an_application_that_knows_nothing_of_it_has_lost_nothing(
    finished: Run, bank: Bank
) -> None:
    bank.is_right()
