"""From stage 1 to stage 2 while customers shop: the database goes to a host of its own, and back.

The tests stand in the order of the move, and go on from the environment of test_stage_1.py. On each
change tests/faults/test_moves.py climbs this stage, and test_stage_3.py goes to RDS and back.
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

pytestmark = [pytest.mark.lab, pytest.mark.thorough]

STAGE = "stage_2_split_tiers.yml"
BACK, FINISH = "operations/move_back.yml", "operations/finish_move.yml"


@pytest.fixture(scope="module")
def ahead(stands: None, stage_lab: TestLab) -> tuple[dict[str, Any], Run, dict[str, Any]]:
    """What stage 2 would do, and what stood before and after it was asked."""
    before = aws_state.snapshot(stage_lab)
    run = succeed(stage_lab, STAGE, "--check", "--diff")
    return before, run, aws_state.snapshot(stage_lab)


@pytest.fixture(scope="module")
def moved(ahead: object, bank: Bank, stage_lab: TestLab) -> Moved:
    """Stage 2 stands: the run that began to copy was killed, the next one ended it."""
    return under_customers(
        stage_lab, DOMAIN, STAGE, kill_at=r"TASK \[Wait until it is copied and compared"
    )


@pytest.fixture(scope="module")
def returned(moved: Moved, stage_lab: TestLab) -> Moved:
    return under_customers(stage_lab, DOMAIN, BACK)


@pytest.fixture(scope="module")
def forward(returned: Moved, stage_lab: TestLab) -> Moved:
    return under_customers(stage_lab, DOMAIN, STAGE, *WITHOUT_ROLES)


@pytest.fixture(scope="module")
def finished(forward: Moved, stage_lab: TestLab) -> Run:
    # Killed before the guards forget the move, when the old server is down already.
    killed = play(stage_lab, FINISH, kill_at=r"PLAY \[Have the guards forget the moves\]")
    assert killed.killed_at, killed.tail()
    return succeed(stage_lab, FINISH)


def orders(lab: TestLab, name: str) -> set[str]:
    return set(ask(host(lab, name), "SELECT id FROM orders").split())


def test_the_plan_tells_what_would_be_moved_and_changes_nothing(
    ahead: tuple[dict[str, Any], Run, dict[str, Any]],
) -> None:
    before, run, after = ahead
    assert "Would copy shop from box to database" in " ".join(run.output.split())
    assert after == before


def test_the_database_moves_while_customers_shop(moved: Moved, stage_lab: TestLab) -> None:
    moved.lost_nothing(orders(stage_lab, "database"))
    assert (moved.report["from"], moved.report["at"]) == ("box", "database")


def test_the_server_that_was_left_follows_and_lets_nobody_in(
    moved: Moved, stage_lab: TestLab
) -> None:
    box, database = host(stage_lab, "box"), host(stage_lab, "database")
    assert "permission denied for database" in as_the_application(box, "SELECT 1", port=5432)
    assert as_the_application(box, "SELECT 1") == "1"
    newest = ask(database, "SELECT max(id) FROM orders")
    assert ask(box, f"SELECT count(*) FROM orders WHERE id = {newest}") == "1"


def test_from_outside_the_database_is_closed(moved: Moved, stage_lab: TestLab) -> None:
    address = public_address(stage_lab, "database")
    assert port_answers(address, 22)
    for port in (80, 443, 5432, 6432, 6379):
        assert not port_answers(address, port, seconds=1.0), port


def test_the_schema_is_frozen_and_says_why(moved: Moved, stage_lab: TestLab) -> None:
    told = as_the_application(host(stage_lab, "box"), "CREATE TABLE t (id int)")
    assert "being moved to another server: its schema is frozen" in told
    assert "change_schema" in told


def test_a_change_of_the_schema_reaches_both_sides(
    moved: Moved, stage_lab: TestLab, tmp_path: Path
) -> None:
    file = tmp_path / "change.sql"
    file.write_text("ALTER TABLE orders ADD COLUMN note text NOT NULL DEFAULT 'none';")
    succeed(stage_lab, "operations/change_schema.yml", "-e", f"ascent_schema_file={file}")
    for name in ("box", "database"):
        assert ask(host(stage_lab, name), "SELECT note FROM orders LIMIT 1") == "none"


def test_passwords_are_not_rotated_meanwhile(moved: Moved, stage_lab: TestLab) -> None:
    run = play(stage_lab, "operations/rotate_secrets.yml", "-e", "ascent_rotate=database")
    assert run.returncode != 0
    assert "A database is being moved between box and database" in " ".join(run.output.split())
    assert run.changed_tasks == []


def test_a_second_run_moves_nothing(moved: Moved, stage_lab: TestLab) -> None:
    assert succeed(stage_lab, STAGE, *WITHOUT_ROLES).changed_tasks == []


def test_the_way_back_loses_nothing_either(returned: Moved, stage_lab: TestLab) -> None:
    returned.lost_nothing(orders(stage_lab, "box"))
    assert (returned.report["from"], returned.report["at"]) == ("database", "box")


def test_and_forth_again(forward: Moved, stage_lab: TestLab) -> None:
    forward.lost_nothing(orders(stage_lab, "database"))
    # What is copied and kept up to date is not copied again.
    assert "copy" not in forward.report["seconds"]


def test_a_finished_move_has_no_way_back_and_an_open_schema(
    finished: Run, stage_lab: TestLab
) -> None:
    box, database = host(stage_lab, "box"), host(stage_lab, "database")
    assert as_the_application(box, "CREATE TABLE t (id int); DROP TABLE t; SELECT 1") == "1"
    assert box.run("ss -ltnH | grep -c :5432 || true").strip() == "0"
    assert ask(database, "SELECT count(*) FROM pg_replication_slots") == "0"
    logins = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^ascent_' AND rolcanlogin"
    assert ask(database, logins) == "0"
    assert "nothing to go back from" in succeed(stage_lab, BACK).output
    assert succeed(stage_lab, FINISH).changed_tasks == []


def test_afterwards_the_stage_has_nothing_to_do(finished: Run, stage_lab: TestLab) -> None:
    assert succeed(stage_lab, STAGE).changed_tasks == []


def test_an_application_that_knows_nothing_of_it_has_lost_nothing(
    finished: Run, bank: Bank
) -> None:
    bank.is_right()
