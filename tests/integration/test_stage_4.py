"""To stage 4 while customers shop: a load balancer, a second web host, a standby of the database.

The tests stand in the order of the climb, and go on from where the files before have ended: from
stage 3, or from stage 1 where test_stage_3.py was not run.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import aws_state
from tests.support.bank import Bank
from tests.support.customers import Customers
from tests.support.home import BUILD, DOMAIN
from tests.support.lab import ROOT, TestLab
from tests.support.moved import as_the_application, host, public_address
from tests.support.playbook import WITHOUT_ROLES, Run, play, succeed
from tests.support.probe import get, port_answers
from tests.support.wrk import Shoppers

pytestmark = [pytest.mark.lab, pytest.mark.thorough]

STAGE = "stage_4_redundant.yml"
DEPLOY, ROLLBACK = "operations/deploy.yml", "operations/rollback.yml"
ERRORS = ("status", "connect", "read", "write", "timeout")


def targets(lab: TestLab) -> dict[str, dict[str, str]]:
    """Each target's state, reason and zone, by its host's name."""
    elb, ec2 = lab.client("elbv2"), lab.client("ec2")
    (group,) = elb.describe_target_groups()["TargetGroups"]
    health = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])
    found = {}
    for one in health["TargetHealthDescriptions"]:
        (reservation,) = ec2.describe_instances(InstanceIds=[one["Target"]["Id"]])["Reservations"]
        instance = reservation["Instances"][0]
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        found[tags["ascent:name"]] = {
            "state": one["TargetHealth"]["State"],
            "reason": one["TargetHealth"].get("Reason", ""),
            "zone": instance["Placement"]["AvailabilityZone"],
        }
    return found


def stored(lab: TestLab) -> set[int]:
    return set(map(int, as_the_application(host(lab, "box"), "SELECT id FROM orders").split()))


def lost_nothing(customers: Customers, lab: TestLab) -> None:
    """No request failed, and every acknowledged order is stored."""
    assert not customers.failures, str(customers)
    assert {order for _, order in customers.orders} <= stored(lab)


def release_on(lab: TestLab, name: str) -> str:
    return host(lab, name).run("basename $(readlink -f /srv/shop/current)").strip()


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The application, with another line on its front page."""
    source = tmp_path / "app"
    shutil.copytree(ROOT / "app", source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "shop" / "banner.txt").write_text(f"A release of {tmp_path.name}\n")
    return source


def from_folder(source: Path) -> tuple[str, str]:
    return "-e", json.dumps({"ascent_source": str(source), "web_health_timeout": 20})


@pytest.fixture(scope="module")
def certificate(box: str) -> str:
    """What the box shows before anything changes."""
    return ssl.get_server_certificate((box, 443))


@pytest.fixture(scope="module")
def climbed(
    certificate: str, bank: Bank, box: str, stage_lab: TestLab
) -> Iterator[tuple[Customers, Customers, Run]]:
    """Customers by the name, and one who never asks for it again."""
    with Customers(DOMAIN, DOMAIN) as by_name, Customers(box, DOMAIN, customers=1) as by_address:
        run = succeed(stage_lab, STAGE)
        by_name.wait_for_orders(20, 60)
    yield by_name, by_address, run


@pytest.fixture(scope="module")
def closed(climbed: tuple[Customers, Customers, Run], stage_lab: TestLab) -> Run:
    """The run after the last one who came by the old way has gone."""
    with Customers(DOMAIN, DOMAIN) as customers:
        run = succeed(stage_lab, STAGE)
    lost_nothing(customers, stage_lab)
    return run


def test_the_plan_tells_what_would_be_made(stands: None, stage_lab: TestLab) -> None:
    before = aws_state.snapshot(stage_lab)
    run = succeed(stage_lab, STAGE, "--check", "--diff", *WITHOUT_ROLES)
    told = " ".join(run.output.split())
    for thing in ("load_balancer front", "target_group front", "instance web-2"):
        assert thing in told.replace("load balancer", "load_balancer").replace(
            "target group", "target_group"
        ), f"{thing}: {run.tail(100)}"
    assert aws_state.snapshot(stage_lab) == before


def test_it_comes_up_while_customers_shop(
    climbed: tuple[Customers, Customers, Run], stage_lab: TestLab
) -> None:
    for customers in climbed[:2]:
        lost_nothing(customers, stage_lab)
        assert len(customers.orders) > 50, str(customers)


def test_the_name_leads_to_the_load_balancer(
    climbed: tuple[Customers, Customers, Run], box: str, stage_lab: TestLab
) -> None:
    elb = stage_lab.client("elbv2")
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    assert len(balancer["AvailabilityZones"]) > 1
    assert stage_lab.status()["names"][DOMAIN] != box
    found = {info[4][0] for info in socket.getaddrinfo(DOMAIN, 443)}
    assert box not in found


def test_both_hosts_serve_from_a_zone_of_their_own(
    climbed: tuple[Customers, Customers, Run], stage_lab: TestLab
) -> None:
    found = targets(stage_lab)
    assert {name: one["state"] for name, one in found.items()} == {
        "box": "healthy",
        "web-2": "healthy",
    }
    assert found["box"]["zone"] != found["web-2"]["zone"]
    served = "grep -c POST /var/log/nginx/access.log"
    for name in found:
        assert int(host(stage_lab, name).run(served)) > 10


def test_the_load_balancer_shows_the_certificate_that_the_box_has_shown(
    climbed: tuple[Customers, Customers, Run], certificate: str
) -> None:
    assert ssl.get_server_certificate((DOMAIN, 443)) == certificate


def test_hosts_see_who_really_asks(
    climbed: tuple[Customers, Customers, Run], stage_lab: TestLab
) -> None:
    marker = f"/?asked-by={BUILD.name}-{id(climbed)}"
    assert get(DOMAIN, marker, host=DOMAIN)[0] == 200
    operator = stage_lab.address.rsplit(".", 1)[0] + ".1"
    look = f"cat /var/log/nginx/access.log | grep -F '{marker}' || true"
    lines = "".join(host(stage_lab, name).run(look) for name in ("box", "web-2"))
    assert json.loads(lines)["client"] == operator


def test_the_database_has_a_standby_in_another_zone(
    climbed: tuple[Customers, Customers, Run], stage_lab: TestLab
) -> None:
    (found,) = stage_lab.client("rds").describe_db_instances()["DBInstances"]
    assert found["MultiAZ"]
    assert found["SecondaryAvailabilityZone"] != found["AvailabilityZone"]


def test_the_old_way_stays_open_for_who_still_comes_by_it(
    climbed: tuple[Customers, Customers, Run],
) -> None:
    told = " ".join(climbed[2].output.split())
    assert re.search(r"[1-9]\d* requests of the last minute came by the hosts' own addresses", told)


def test_the_old_way_is_closed_once_nobody_comes_by_it(
    closed: Run, box: str, stage_lab: TestLab
) -> None:
    for port in (80, 443):
        assert not port_answers(box, port, seconds=1.0)
        assert not port_answers(public_address(stage_lab, "web-2"), port, seconds=1.0)
    assert get(DOMAIN, "/health/ready", host=DOMAIN)[0] == 200


def test_afterwards_the_stage_has_nothing_to_do(closed: Run, stage_lab: TestLab) -> None:
    assert succeed(stage_lab, STAGE).changed_tasks == []


def test_a_deploy_and_its_rollback_fail_no_request(
    closed: Run, stage_lab: TestLab, next_release: Path
) -> None:
    """Host after host leaves the load balancer, drains, and comes back with the other release."""
    before = release_on(stage_lab, "box")
    shoppers = Shoppers(DOMAIN, DOMAIN, users=40, pause=200)
    try:
        with Customers(DOMAIN, DOMAIN) as customers:
            succeed(stage_lab, DEPLOY, *from_folder(next_release))
            after = {release_on(stage_lab, name) for name in ("box", "web-2")}
            succeed(stage_lab, ROLLBACK)
    finally:
        seen = shoppers.end()
    lost_nothing(customers, stage_lab)
    assert {kind: seen[kind] for kind in ERRORS} == dict.fromkeys(ERRORS, 0), seen
    assert len(after) == 1
    assert before not in after
    assert {release_on(stage_lab, name) for name in ("box", "web-2")} == {before}
    assert {one["state"] for one in targets(stage_lab).values()} == {"healthy"}


def test_a_release_that_does_not_come_up_halts_and_leaves_the_rest_alone(
    closed: Run, stage_lab: TestLab, next_release: Path
) -> None:
    before = release_on(stage_lab, "box")
    health = next_release / "shop" / "health.py"
    health.write_text(health.read_text() + '\nraise RuntimeError("does not come up")\n')
    with Customers(DOMAIN, DOMAIN) as customers:
        run = play(stage_lab, DEPLOY, *from_folder(next_release))
    assert run.returncode != 0
    assert not customers.failures, str(customers)
    assert {release_on(stage_lab, name) for name in ("box", "web-2")} == {before}
    assert {one["state"] for one in targets(stage_lab).values()} == {"healthy"}
    # The second host was never taken out.
    assert "[web-2]" not in run.output.partition("TASK [Take the host out of the load balancer]")[2]


def test_a_controller_that_was_killed_between_drain_and_registration(
    closed: Run, stage_lab: TestLab, next_release: Path
) -> None:
    """One host serves meanwhile; the next run puts the other back and ends the deploy."""
    with Customers(DOMAIN, DOMAIN) as customers:
        killed = play(
            stage_lab,
            DEPLOY,
            *from_folder(next_release),
            kill_at=r"TASK \[Switch\]",
        )
        assert killed.killed_at, killed.tail()
        left: Any = targets(stage_lab)
        succeed(stage_lab, DEPLOY, *from_folder(next_release))
    lost_nothing(customers, stage_lab)
    assert sum(one["state"] == "healthy" for one in left.values()) == 1
    assert {one["state"] for one in targets(stage_lab).values()} == {"healthy"}
    assert len({release_on(stage_lab, name) for name in ("box", "web-2")}) == 1


def test_an_application_that_knows_nothing_of_it_has_lost_nothing(closed: Run, bank: Bank) -> None:
    bank.is_right()
