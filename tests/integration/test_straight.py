"""Stages that are left out: from nothing to stage 3, and from stage 1 to stage 3, in one run each.

Each in a lab of its own. That stage 2 comes straight from nothing, test_upgrade.py shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import aws_state
from tests.support.bank import Bank
from tests.support.customers import Customers
from tests.support.environment import Environment
from tests.support.lab import running
from tests.support.moved import as_the_application, public_address

pytestmark = [pytest.mark.lab, pytest.mark.thorough]

DOMAIN = "straight.test"  # of its own: each lab writes its names into this machine's hosts file
STAGE_1, STAGE_3 = "stage_1_single_host.yml", "stage_3_managed_database.yml"


@pytest.fixture
def environment() -> Iterator[Environment]:
    """An account where nothing stands."""
    with running("straight", "198.18.6.0/24") as lab:
        yield Environment.of(lab, DOMAIN)


def serves_from_rds(environment: Environment) -> None:
    """The shop takes orders, no host of ours bears a database, and nothing is left to do."""
    assert environment.hosts() == {"box"}
    address = public_address(environment.lab, "box")
    with Customers(address, DOMAIN) as customers:
        customers.wait_for_orders(10, 60)
    assert not customers.failures, str(customers)
    box = environment.host("box")
    stored = set(as_the_application(box, "SELECT id FROM orders").split())
    assert {str(order) for _, order in customers.orders} <= stored
    version = as_the_application(box, "SHOW server_version")
    (managed,) = environment.lab.client("rds").describe_db_instances()["DBInstances"]
    assert version.split()[0] == managed["EngineVersion"]
    assert environment.succeed(STAGE_3).changed_tasks == []


def test_from_nothing_to_stage_3(environment: Environment) -> None:
    before = aws_state.snapshot(environment.lab)
    environment.succeed(STAGE_3, "--check", "--diff")
    assert aws_state.snapshot(environment.lab) == before
    environment.describe(ascent_managed_database={"engine": "mysql"})
    assert "between PostgreSQL servers alone" in environment.refused(STAGE_3)
    environment.describe()
    environment.succeed(STAGE_3)
    serves_from_rds(environment)
    # Nothing was moved, so there is nothing to go back to.
    assert environment.reports() == set()


def test_from_stage_1_to_stage_3_in_one_run(environment: Environment) -> None:
    environment.succeed(STAGE_1)
    bank = Bank(environment.host("box"))
    bank.open()
    with Customers(public_address(environment.lab, "box"), DOMAIN) as customers:
        environment.succeed(STAGE_3)
    assert not customers.failures, str(customers)
    assert len(customers.orders) > 100, str(customers)
    report = environment.report(set())
    assert (report["from"], report["at"]) == ("box", "managed")
    assert report["pause_ms"] < 2000
    stored = as_the_application(environment.host("box"), "SELECT id FROM orders").split()
    assert {str(order) for _, order in customers.orders} <= set(stored)
    bank.is_right()
    bank.close()
    # The box's own server stands until the move is finished; then it goes.
    environment.succeed("operations/finish_move.yml")
    serves_from_rds(environment)
