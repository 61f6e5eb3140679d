"""The next major version of PostgreSQL while customers shop: from Debian 12's to Debian 13's.

A lab and an environment of these tests alone: straight from nothing to stage 2, then to a new host,
and the old one retires. The tests stand in the order of the upgrade.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import aws_state
from tests.support.customers import Customers
from tests.support.environment import Environment
from tests.support.lab import running
from tests.support.moved import public_address
from tests.support.playbook import Run

pytestmark = [pytest.mark.lab, pytest.mark.thorough]

DOMAIN = "upgrade.test"  # of its own: each lab writes its names into this machine's hosts file
BOOKWORM = "ami-0deb1200000000001"
STAGE = "stage_2_split_tiers.yml"
UPGRADE, FINISH = "operations/upgrade_database.yml", "operations/finish_move.yml"
RETIRE = "operations/retire_host.yml"


NEW = {"ascent_database_host": "database-17", "ascent_sizes": {"database-17": "t3.small"}}


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    name, _, subnet = os.environ.get("ASCENT_UPGRADE_LAB", "upgrade 198.18.5.0/24").partition(" ")
    with running(name, subnet) as lab:
        lab.command("image", "--release", "bookworm", timeout=1200)
        yield Environment.of(lab, DOMAIN)


@pytest.fixture(scope="module")
def stands(environment: Environment) -> Environment:
    """Stage 2 from nothing, its database on Debian 12; with KEEP=1 what stood is taken as it is."""
    environment.describe(ascent_images={"database": BOOKWORM})
    if not os.environ.get("KEEP") or not environment.recorded:
        environment.succeed(STAGE)
    return environment


@dataclass(frozen=True)
class Upgraded:
    """What the upgrade left: its report, and what customers saw meanwhile."""

    customers: Customers
    report: dict[str, Any]


@pytest.fixture(scope="module")
def upgraded(stands: Environment) -> Upgraded:
    """The run that began to copy was killed, the next one ended it."""
    stands.describe(**NEW)
    before = stands.reports()
    with Customers(public_address(stands.lab, "box"), DOMAIN) as customers:
        killed = stands.play(UPGRADE, kill_at=r"TASK \[Wait until it is copied and compared")
        assert killed.killed_at, killed.tail()
        stands.succeed(UPGRADE)
    return Upgraded(customers, stands.report(before))


@pytest.fixture(scope="module")
def finished(upgraded: Upgraded, stands: Environment) -> Run:
    return stands.succeed(FINISH)


def test_before_stage_2_there_is_nothing_to_upgrade(environment: Environment) -> None:
    if environment.recorded:
        pytest.skip("the environment stands already (KEEP=1)")
    environment.describe(**NEW)
    told = environment.refused(UPGRADE)
    assert "is at stage 0" in told
    assert "stage_2_split_tiers.yml" in told


def test_straight_to_stage_2_with_the_version_of_the_image(stands: Environment) -> None:
    assert stands.hosts() == {"box", "database"}
    assert stands.ask("database", "SHOW server_version").startswith("15.")


def test_a_name_that_is_described_already_is_no_upgrade(stands: Environment) -> None:
    stands.describe(ascent_images={"database": BOOKWORM})
    told = stands.refused(UPGRADE)
    assert "there is nothing to upgrade" in told
    assert "Write the name of a new server there" in told


def test_the_same_version_is_no_upgrade(stands: Environment) -> None:
    stands.describe(**NEW, ascent_images={"database-17": BOOKWORM})
    told = stands.refused(UPGRADE)
    assert "PostgreSQL 15 serves, and database-17 would have 15 (image debian-12-" in told
    assert "ascent_images: {database-17: ami-...}" in told


def test_a_stage_does_not_upgrade(stands: Environment) -> None:
    stands.describe(**NEW)
    told = stands.refused(STAGE)
    assert "at database, and ascent_database_host of this inventory wants it at database-17" in told
    assert "operations/upgrade_database.yml" in told


def test_the_host_of_the_data_does_not_retire(stands: Environment) -> None:
    told = stands.refused(RETIRE, "-e", "ascent_host=database")
    assert "The poolers of box lead to database: it has the data" in told
    assert "one of stage 2" in stands.refused(RETIRE, "-e", "ascent_host=box")


def test_the_plan_tells_what_would_be_done_and_changes_nothing(stands: Environment) -> None:
    stands.describe(**NEW)
    before = aws_state.snapshot(stands.lab)
    run = stands.succeed(UPGRADE, "--check", "--diff")
    told = " ".join(run.output.split())
    assert "goes from PostgreSQL 15 at database to 17 at database-17" in told
    assert "create instance database-17" in told
    assert "Would copy shop from database to database-17" in told
    assert aws_state.snapshot(stands.lab) == before


def test_the_database_is_upgraded_while_customers_shop(
    upgraded: Upgraded, stands: Environment
) -> None:
    customers = upgraded.customers
    assert not customers.failures, str(customers)
    assert len(customers.orders) > 100, str(customers)
    assert stands.ask("database-17", "SHOW server_version").startswith("17.")
    found = set(stands.ask("database-17", "SELECT id FROM orders").split())
    assert {str(order) for _, order in customers.orders} <= found
    assert (upgraded.report["from"], upgraded.report["at"]) == ("database", "database-17")
    assert upgraded.report["pause_ms"] < 2000
    assert upgraded.report["verification"]["clean"]


def test_the_new_server_knows_its_tables_before_it_serves(
    upgraded: Upgraded, stands: Environment
) -> None:
    unknown = (
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples = -1"
        " AND relnamespace = 'public'::regnamespace"
    )
    assert stands.ask("database-17", unknown) == ""


def test_the_old_server_follows(upgraded: Upgraded, stands: Environment) -> None:
    newest = stands.ask("database-17", "SELECT max(id) FROM orders")
    assert stands.ask("database", f"SELECT count(*) FROM orders WHERE id = {newest}") == "1"


def test_a_second_run_changes_nothing(upgraded: Upgraded, stands: Environment) -> None:
    run = stands.succeed(UPGRADE)
    assert run.changed_tasks == []
    assert "is at database-17 already" in " ".join(run.output.split())


def test_the_way_back_does_not_retire(upgraded: Upgraded, stands: Environment) -> None:
    told = stands.refused(RETIRE, "-e", "ascent_host=database")
    assert "A move of a database between database and database-17 is not finished" in told


def test_an_older_inventory_moves_nothing_back(upgraded: Upgraded, stands: Environment) -> None:
    stands.describe(ascent_images={"database": BOOKWORM})
    told = stands.refused(STAGE)
    stands.describe(**NEW)
    assert "write ascent_database_host: database-17" in told


def test_the_end_of_the_move_names_what_bears_nothing(finished: Run, stands: Environment) -> None:
    told = " ".join(finished.output.split())
    assert "database bears nothing any more" in told
    assert "retire_host.yml" in told
    assert stands.ask("database-17", "SELECT count(*) FROM pg_replication_slots") == "0"


def test_an_older_version_is_no_upgrade(finished: Run, stands: Environment) -> None:
    stands.describe(ascent_database_host="database-15", ascent_images={"database-15": BOOKWORM})
    told = stands.refused(UPGRADE)
    stands.describe(**NEW)
    assert "PostgreSQL 17 serves, and database-15 would have 15" in told
    assert "which is older" in told


def test_the_old_host_retires(finished: Run, stands: Environment) -> None:
    before = aws_state.snapshot(stands.lab)
    told = stands.succeed(RETIRE, "-e", "ascent_host=database", "--check").output
    assert "Would be removed: elastic ip database" in " ".join(told.split())
    assert aws_state.snapshot(stands.lab) == before
    killed = stands.play(RETIRE, "-e", "ascent_host=database", kill_at=r"TASK \[Remove it")
    assert killed.killed_at, killed.tail()
    stands.succeed(RETIRE, "-e", "ascent_host=database")
    assert stands.hosts() == {"box", "database-17"}
    assert len(aws_state.snapshot(stands.lab)["addresses"]) == 2
    again = stands.succeed(RETIRE, "-e", "ascent_host=database")
    assert again.changed_tasks == []
    assert "database is not there" in " ".join(again.output.split())


def test_afterwards_the_stage_has_nothing_to_do(stands: Environment, finished: Run) -> None:
    assert stands.succeed(STAGE).changed_tasks == []
