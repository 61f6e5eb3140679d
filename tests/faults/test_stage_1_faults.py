"""What can go wrong around stage 1, done for real: each case says what must hold afterwards.

The tests stand in an order: the first builds the stage from nothing with the controller killed in
every phase, the others take it from there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator

import pytest

from tests.support import aws_state
from tests.support.lab import TestLab
from tests.support.playbook import Run, play, succeed
from tests.support.probe import get, get_json, post_json

STAGE = "stage_1_single_host.yml"
DOMAIN = "shop.test"
pytestmark = pytest.mark.lab

# Where the controller dies, in the order of a run: the line at which it is printed.
KILLS = {
    "preflight, the lock just taken": r"TASK \[Read the recorded stage",
    "provision, network half made": r"TASK \[ascent\.scaling\.backup_bucket : ",
    "provision, an instance without its address": r"TASK \[ascent\.scaling\.dns : ",
    "configure, PostgreSQL not set up": r"TASK \[ascent\.scaling\.database : functions",
    "configure, a release being built": r"TASK \[ascent\.scaling\.web : release \| Deploy",
    "move": r"PLAY \[Move\]",
    "check, the witness running": r"PLAY \[Check from within\]",
    "audit": r"TASK \[ascent\.scaling\.witness : Audit \| Judge\]",
    "record": r"TASK \[Write the stage down\]",
}
# What a run that was never killed leaves behind: nothing may stand twice.
ONE_OF_EACH = ("instances", "addresses", "zones", "buckets", "key_pairs", "volumes")


@pytest.fixture(scope="module")
def killed(fault_lab: TestLab) -> dict[str, Run]:
    return {where: play(fault_lab, STAGE, kill_at=line) for where, line in KILLS.items()}


@pytest.fixture(scope="module")
def mended(fault_lab: TestLab) -> Run:
    """The run after the kills; from nothing where only some of these tests are run."""
    return succeed(fault_lab, STAGE)


@pytest.fixture(scope="module")
def box(mended: Run, fault_lab: TestLab) -> str:
    return str(fault_lab.client("ec2").describe_addresses()["Addresses"][0]["PublicIp"])


def wait_until_it_is_down(address: str, seconds: float) -> None:
    """Return once it refuses connections: a reboot is taken at once, done later.

    A slow answer or an error is no sign: a busy host that is up gives them, too.
    """
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            get(address, "/health/ready", host=DOMAIN, seconds=2)
        except ConnectionRefusedError:
            return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError(f"{address} still took connections {seconds} s after its reboot was asked")


def wait_until_it_serves(address: str, seconds: float) -> float:
    """Seconds until the application is ready; fails after `seconds`."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if get(address, "/health/ready", host=DOMAIN, seconds=2)[0] == 200:
                return time.monotonic() - start
        time.sleep(0.2)
    raise AssertionError(f"{address} did not serve within {seconds} s")


@pytest.mark.parametrize("where", KILLS)
def test_the_controller_was_killed_there(killed: dict[str, Run], where: str) -> None:
    assert killed[where].killed_at, killed[where].tail()


def test_the_next_run_ends_what_killed_ones_began(
    killed: dict[str, Run], mended: Run, box: str
) -> None:
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


def test_throttling_is_waited_out_and_nothing_was_left_to_do(
    mended: Run, fault_lab: TestLab
) -> None:
    fault_lab.fault("RequestLimitExceeded", service="ec2", count=6)
    fault_lab.fault("ThrottlingException", service="ssm", count=2)
    fault_lab.fault("ProvisionedThroughputExceededException", service="dynamodb", count=2)
    fault_lab.fault("InternalError", service="ec2", action="DescribeInstances", count=2)
    run = succeed(fault_lab, STAGE)
    assert run.changed_tasks == [], "the run before it had left something undone"
    assert fault_lab.status()["faults"] == [], "the run did not meet all the faults"


def test_an_api_that_stays_broken_ends_in_a_clear_error(mended: Run, fault_lab: TestLab) -> None:
    before = aws_state.counts(aws_state.snapshot(fault_lab))
    fault_lab.fault("InternalError", service="ssm")
    started = time.monotonic()
    run = play(fault_lab, STAGE)
    took = time.monotonic() - started
    fault_lab.clear_faults()
    assert run.returncode != 0
    assert took < 300, f"it took {took:.0f} s to give up"
    assert "InternalError" in run.output, run.tail()
    assert "/ascent/lab/stage" in run.output, "the error does not name the resource"
    assert "Traceback" not in run.output
    assert aws_state.counts(aws_state.snapshot(fault_lab)) == before


@pytest.fixture
def orders(box: str) -> Iterator[tuple[str, list[str]]]:
    """A guest and the orders that were acknowledged to it before the fault."""
    status, answer = post_json(box, "/api/guests", {}, host=DOMAIN)
    assert status == 201, answer
    token = answer["token"]
    placed = []
    for number in range(20):
        status, order = post_json(
            box,
            "/api/orders",
            {"items": [{"product_id": 1 + number % 12, "quantity": 1}]},
            host=DOMAIN,
            headers={
                "Authorization": f"Bearer {token}",
                "Idempotency-Key": f"fault-{number:04d}-{time.time_ns()}",
            },
        )
        assert status == 201, order
        placed.append(str(order["order"]["id"]))
    yield token, placed


def found(box: str, token: str) -> set[str]:
    status, _, body = get(
        box, "/api/orders", host=DOMAIN, headers={"Authorization": f"Bearer {token}"}
    )
    assert status == 200, body
    return {str(order["id"]) for order in json.loads(body)["orders"]}


@pytest.mark.parametrize("how", ["reboot by the API", "stop and start", "power failure"])
def test_a_restarted_host_serves_again_without_hands(
    how: str, box: str, fault_lab: TestLab, orders: tuple[str, list[str]]
) -> None:
    ec2 = fault_lab.client("ec2")
    instance = fault_lab.status()["hosts"][0]["id"]
    token, placed = orders
    if how == "reboot by the API":
        ec2.reboot_instances(InstanceIds=[instance])
        wait_until_it_is_down(box, 60)
    elif how == "stop and start":
        ec2.stop_instances(InstanceIds=[instance])
        ec2.get_waiter("instance_stopped").wait(
            InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        ec2.start_instances(InstanceIds=[instance])
    else:
        ec2.stop_instances(InstanceIds=[instance], Force=True)
        ec2.get_waiter("instance_stopped").wait(
            InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        ec2.start_instances(InstanceIds=[instance])
    seconds = wait_until_it_serves(box, 120)
    print(f"\n{how}: serves again after {seconds:.1f} s")
    assert set(placed) <= found(box, token)


def test_after_the_restarts_a_run_is_clean(box: str, fault_lab: TestLab) -> None:
    succeed(fault_lab, STAGE)
