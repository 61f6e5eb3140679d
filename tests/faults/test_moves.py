"""Whatever breaks while a database moves: nothing is lost, and the next run ends the move.

The table: `ROWS` says what is struck, and in which step, while customers shop. Rows that are not
`quick` run with `make faults` alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.conftest import DOMAIN, Environment
from tests.support.customers import Customers
from tests.support.host import Host
from tests.support.moving import (
    BALLAST,
    KILL_MOVER,
    KILL_POSTGRESQL,
    OTHER,
    WHOLE,
    Moving,
    strike,
)

pytestmark = pytest.mark.lab

# Every pooler goes on after 2 s; what an order takes beside that, on a machine with other work.
LONGEST_PAUSE_S = 2 + 2


@dataclass(frozen=True)
class Row:
    """What is struck, and in which step of a move to `to`.

    `fails`: why requests may fail while it is broken, if they may. `by`: what runs (`Moving.run`).
    The module by itself does all that can break here, and ends a row in half a minute: only some
    rows need the playbooks around it.
    """

    what: str
    step: str
    to: str = "database"
    fails: str = ""
    quick: bool = False
    by: str = "module"

    def __str__(self) -> str:
        back = ", back" if self.to == "box" else ""
        return f"{self.what}, {self.step}{back}" + (f" ({self.by})" if self.by != "module" else "")


COPYING = ("copy", "verification")
SWITCHING = ("armed", "paused", "fenced", "committing", "opened")
IS_WEB = "the pooler's host bears the web server, too"
KNOWS = "the target alone knows whether its door is open"
SERVES = "the target serves already"

ROWS = [
    *(Row("controller killed", step, by="short") for step in ("verification", *SWITCHING)),
    Row("controller killed", "copy", quick=True, by="short"),
    Row("controller killed", "fenced", to="box", by="short"),
    *(Row("mover killed", step) for step in (*COPYING, *SWITCHING)),
    Row("mover killed", "fenced", by="short", quick=True),
    Row("mover killed", "fenced", to="box", by="whole"),
    *(Row("mover killed", step, to="box") for step in ("paused", "committing")),
    *(Row("PostgreSQL killed at the target", step) for step in COPYING),
    *(Row("PostgreSQL killed at the target", step) for step in ("armed", "paused")),
    Row("PostgreSQL killed at the target", "fenced", quick=True),
    Row("PostgreSQL killed at the target", "committing", fails=KNOWS),
    Row("PostgreSQL killed at the target", "opened", fails=SERVES),
    *(Row("power of the target lost", step) for step in (*COPYING, "fenced")),
    Row("power of the target lost", "committing", fails=KNOWS),
    *(Row("power of the pooler's host lost", step, fails=IS_WEB) for step in ("copy", "fenced")),
    Row("power of the pooler's host lost", "fenced", to="box", fails=IS_WEB),
    *(Row("network between the sides cut", step, quick=step == "fenced")
      for step in (*COPYING, "armed", "paused", "fenced")),
    Row("network between the sides cut", "committing", fails=KNOWS),
    Row("network between the sides cut", "opened", fails=SERVES),
    *(Row("network from the controller to the box cut", step) for step in (*COPYING, *SWITCHING)),
    *(Row("network from the controller to the database's host cut", step)
      for step in ("copy", "fenced")),
]  # fmt: skip


def thorough(row: Row) -> Any:
    return pytest.param(row, id=str(row), marks=() if row.quick else pytest.mark.thorough)


@pytest.mark.parametrize("row", [thorough(row) for row in ROWS])
def test_the_next_run_ends_what_was_broken_off(
    row: Row, moving: Moving, figure: Callable[[str], None]
) -> None:
    start(moving, row)
    with shopping(moving) as customers:
        customers.wait_for_orders(10, 30)
        slow = moving.slow_network() if row.step == "copy" else contextlib.nullcontext()
        with moving.held(row.step, OTHER[row.to]), slow:
            blow, heal = BLOWS[row.what](moving)
            broken = strike(moving, row.to, row.step, blow, by=row.by)
            took = time.monotonic() - broken.at
            heal()
        figure(f"the run ended {took:.1f} s after the blow, with {broken.run.returncode}")
        if row.by == "module" and broken.run.returncode == 1:
            figure(" ".join(broken.run.output.split()))
        customers.wait_for_orders(5, 60)
        begun = time.monotonic()
        ended = moving.run(row.to, row.by)
        assert ended.returncode == 0, ended.tail()
        figure(f"the next run took {time.monotonic() - begun:.1f} s")
        customers.wait_for_orders(10, 30)
    if broken.run.returncode in (1, 2):
        assert re.search("[Rr]un again|next run goes on", broken.run.output), broken.run.tail()
    if row.fails:
        nothing_is_lost(moving, customers, row.to)
        figure(str(customers))
    else:
        without_a_failure(moving, customers, row.to, figure)


def start(moving: Moving, row: Row) -> None:
    """Bring the data to where the row begins: before the move, or with both sides the same."""
    if row.step in COPYING:
        moving.fresh(row.by)
    elif moving.leads_to() != OTHER[row.to]:
        moving.bring(OTHER[row.to])


def shopping(moving: Moving) -> Customers:
    return Customers(moving.hosts["box"].address, DOMAIN)


def nothing_is_lost(moving: Moving, customers: Customers, at: str) -> None:
    """The poolers lead to the one side that lets in, which has what was acknowledged, once."""
    assert moving.leads_to() == at
    assert moving.lets_in() == [at]
    stored = moving.orders(at)
    acknowledged = [number for _, number in customers.orders]
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) - set(stored) == set(), str(customers)
    assert len(stored) == len(set(stored))
    twice = "SELECT idempotency_key FROM orders GROUP BY 1 HAVING count(*) > 1"
    assert moving.ask(at, twice) == ""


# --- what strikes, and what heals it before the next run; without a blow the controller is killed

Fault = tuple[Callable[[], None] | None, Callable[[], None]]


def nothing() -> None:
    """Nothing is to be mended."""


def power(moving: Moving, side: str) -> Fault:
    def heal() -> None:
        moving.give_power(side)
        moving.wait_for(side)

    return (moving.ready_to_cut_power(side), heal)


def network(moving: Moving, one: str, another: str) -> Fault:
    """It is mended after eight seconds, while the run goes on, or after it if that was sooner."""

    def blow() -> None:
        moving.cut(one, another)
        time.sleep(8)
        moving.mend()

    return (blow, nothing)


BLOWS: dict[str, Callable[[Moving], Fault]] = {
    "controller killed": lambda moving: (None, nothing),
    "mover killed": lambda moving: (moving.ready_to("box", KILL_MOVER), nothing),
    "PostgreSQL killed at the target": lambda moving: (
        moving.ready_to("database", KILL_POSTGRESQL), lambda: moving.wait_for("database"),
    ),
    "power of the target lost": lambda moving: power(moving, "database"),
    "power of the pooler's host lost": lambda moving: power(moving, "box"),
    "network between the sides cut": lambda moving: network(moving, "box", "database"),
    "network from the controller to the box cut": lambda moving: network(
        moving, "controller", "box"
    ),
    "network from the controller to the database's host cut": lambda moving: network(
        moving, "controller", "database"
    ),
}  # fmt: skip


# --- what is not a blow in one step


def test_a_transaction_that_outlives_the_pause_ends_the_switch_and_is_named(
    moving: Moving, figure: Callable[[str], None]
) -> None:
    here = moving.leads_to()
    with shopping(moving) as customers:
        customers.wait_for_orders(10, 30)
        with moving.application("BEGIN; SELECT count(*) FROM order_items;"):
            run = moving.run(OTHER[here], "module")
            customers.wait_for_orders(5, 30)
        assert run.returncode != 0, run.output
        assert moving.leads_to() == here
        ended = moving.run(OTHER[here], "module")
        assert ended.returncode == 0, ended.output
        customers.wait_for_orders(5, 30)
    told = " ".join(run.output.split())
    assert "these poolers have not come to rest: box (no answer)" in told, told
    assert "of shop_a, idle in transaction for" in told, told
    assert "SELECT count(*) FROM order_items" in told, told
    assert "end it (pg_terminate_backend)" in told, told
    without_a_failure(moving, customers, OTHER[here], figure)


@pytest.mark.thorough
def test_a_copy_whose_disk_is_full_goes_on_once_there_is_room(
    moving: Moving, figure: Callable[[str], None]
) -> None:
    """Room is made while the run waits, or before the next one where the server has died of it."""
    target = moving.hosts["database"]
    moving.fresh("module")
    target.run(SMALL_DISK)
    try:
        with shopping(moving) as customers:
            customers.wait_for_orders(10, 30)
            full: list[float] = []

            def make_room() -> None:
                told = "grep -q 'No space left' /var/log/postgresql/*.log"
                target.run(f"until {told}; do sleep 0.2; done")
                full.append(customers.now)
                time.sleep(10)
                target.run(MORE_ROOM)
                moving.wait_for("database")

            room = threading.Thread(target=make_room)
            room.start()
            run = moving.run("database", "module")
            room.join(120)
            assert full, run.output
            figure(f"the run that met it ended with {run.returncode}: {run.output[:300]}")
            ended = moving.run("database", "module")
            assert ended.returncode == 0, ended.output
            customers.wait_for_orders(10, 30)
        without_a_failure(moving, customers, "database", figure)
    finally:
        target.run(LARGE_DISK)
        moving.wait_for("database")


SMALL_DISK = """set -e
systemctl stop 'postgresql@*'
rm -f /var/log/postgresql/*.log
data=$(echo /var/lib/postgresql/*/main)
size=$(($(du -sm "$data" | cut -f1) + 64))m
install -d /mnt/small
mount -t tmpfs -o size=$size,mode=0700,uid=postgres,gid=postgres tmpfs /mnt/small
cp -a "$data"/. /mnt/small/
mount --bind /mnt/small "$data"
systemctl start postgresql"""
MORE_ROOM = """used=$(df -m --output=used /mnt/small | tail -1)
mount -o remount,size=$((used + 1200))m /mnt/small"""
LARGE_DISK = """set -e
systemctl stop postgresql 'postgresql@*'
data=$(echo /var/lib/postgresql/*/main)
umount "$data"
find "$data" -mindepth 1 -delete
cp -a /mnt/small/. "$data"/
umount /mnt/small
systemctl start postgresql"""


@pytest.mark.thorough
def test_a_clock_that_is_a_minute_off_changes_nothing(
    moving: Moving, figure: Callable[[str], None]
) -> None:
    """PostgreSQL of one side lives in another minute: each time is judged by one side's clock."""
    side = moving.hosts["database"]
    side.run("apt-get -q update && apt-get -qy install libfaketime", seconds=300)
    for shift in ("+60s", "-60s"):
        side.run(OTHER_CLOCK.format(shift=shift))
        moving.wait_for("database")
        try:
            off = float(moving.ask("database", "SELECT extract(epoch FROM clock_timestamp())"))
            assert 50 < abs(off - time.time()) < 70
            for _ in range(2):
                to = OTHER[moving.leads_to()]
                with shopping(moving) as customers:
                    customers.wait_for_orders(10, 30)
                    run = moving.run(to, "module")
                    assert run.returncode == 0, run.output
                    customers.wait_for_orders(5, 30)
                without_a_failure(moving, customers, to, figure)
        finally:
            if moving.leads_to() == "database":
                moving.bring("box")
            side.run(RIGHT_CLOCK)
            moving.wait_for("database")


OTHER_CLOCK = """set -e
cd /etc/postgresql/*/main
cp -n environment environment.right
echo "LD_PRELOAD = '$(echo /usr/lib/*/faketime/libfaketime.so.1)'" >> environment
echo "FAKETIME = '{shift}'" >> environment
echo "FAKETIME_DONT_FAKE_MONOTONIC = '1'" >> environment
systemctl restart 'postgresql@*'"""
RIGHT_CLOCK = """cd /etc/postgresql/*/main && mv environment.right environment
systemctl restart 'postgresql@*'"""

# Where the controller dies, in the order of a run: every task that changes something, or waits.
TASKS = {
    "database": (
        r"TASK \[Join where the poolers lead",
        r"TASK \[ascent\.scaling\.database : move \| Render who may log in",
        r"TASK \[ascent\.scaling\.database : move \| Listen for the other server",
        r"TASK \[ascent\.scaling\.pooler : move \| Describe the move",
        r"TASK \[Look how far",
        r"TASK \[Copy and compare shop",
        r"TASK \[Bring the database to where it is wanted",
        r"TASK \[Keep the report on the controller",
    ),
    "box": (
        r"TASK \[Have them go back",
        r"TASK \[ascent\.scaling\.pooler : move \| Describe the move",
        r"TASK \[Bring the database to where it is wanted",
        r"PLAY \[Audit what the change did",
    ),
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("to", TASKS)
def test_the_controller_dies_at_each_task_in_turn(
    moving: Moving, to: str, figure: Callable[[str], None]
) -> None:
    """By what a user runs; each run goes on from where the one before was killed."""
    if to == "database":
        moving.fresh()
    else:
        moving.bring("database")
    by = "short" if to == "database" else "whole"
    with shopping(moving) as customers:
        customers.wait_for_orders(10, 30)
        for task in TASKS[to]:
            run = moving.run(to, by, kill_at=task)
            assert run.killed_at, f"{task} was not met: {run.tail()}"
        ended = moving.run(to, "whole")
        assert ended.returncode == 0, ended.tail()
        customers.wait_for_orders(10, 30)
    without_a_failure(moving, customers, to, figure)


def without_a_failure(
    moving: Moving, customers: Customers, at: str, figure: Callable[[str], None]
) -> None:
    nothing_is_lost(moving, customers, at)
    figure(f"{customers}, longest time without an order {customers.pause_of_orders():.1f} s")
    assert not customers.failures, str(customers)
    assert customers.pause_of_orders() < LONGEST_PAUSE_S, str(customers)


# --- the environment


@pytest.fixture(scope="session")
def moving(environment: Environment, box: str) -> Moving:
    """At stage 2, with much in its database; with KEEP=1 what stood already is taken as it is."""
    ec2 = environment.lab.client("ec2")
    if not os.environ.get("KEEP") or len(ec2.describe_addresses()["Addresses"]) < 2:
        environment.succeed(WHOLE["database"])
    moving = stands(environment)
    moving.mend()
    at = moving.leads_to()
    if moving.ask(at, "SELECT to_regclass('ballast')") != "ballast":
        moving.fresh()
        moving.ask("box", f"SET ROLE shop; {BALLAST}")
    return moving


def stands(environment: Environment) -> Moving:
    """What stands, as the API tells it."""
    ec2 = environment.lab.client("ec2")
    running_ones = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = {
        next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == "ascent:name"): instance
        for reservation in ec2.describe_instances(Filters=running_ones)["Reservations"]
        for instance in reservation["Instances"]
    }
    key = environment.build / "ssh" / "id_ed25519"
    return Moving(
        environment.lab,
        environment.inventory,
        environment.build,
        {name: Host(found[name]["PublicIpAddress"], key) for name in OTHER},
        {name: found[name]["InstanceId"] for name in OTHER},
        {name: found[name]["PrivateIpAddress"] for name in OTHER},
    )
