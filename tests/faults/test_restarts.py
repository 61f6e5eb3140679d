"""A host goes down and comes again, in each way there is."""

from __future__ import annotations

import contextlib
import errno
import http.client
import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import DOMAIN
from tests.support.customers import Customers
from tests.support.lab import TestLab
from tests.support.probe import get

pytestmark = pytest.mark.lab


def wait_until_it_is_down(address: str, seconds: float) -> None:
    """Return once it takes no connections: a reboot is taken at once, done later.

    A slow answer or an error is no sign: a busy host that is up gives them, too.
    """
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            get(address, "/health/ready", host=DOMAIN, seconds=2)
        except http.client.HTTPException:
            pass
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                return
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


@pytest.mark.parametrize(
    "how",
    [
        "reboot by the API",
        pytest.param("stop and start", marks=pytest.mark.thorough),
        "power failure",
    ],
)
def test_a_restarted_host_serves_again_without_hands(
    how: str,
    box: str,
    fault_lab: TestLab,
    shoppers: Callable[[], Customers],
    stored: Callable[[], set[int]],
    figure: Callable[[str], None],
) -> None:
    ec2 = fault_lab.client("ec2")
    instance = fault_lab.status()["hosts"][0]["id"]
    ec2.get_waiter("instance_running").wait(
        InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    with shoppers() as customers:
        customers.wait_for_orders(20, 30)
        if how == "reboot by the API":
            ec2.reboot_instances(InstanceIds=[instance])
            # The request is taken at once, the host goes down a moment later.
            wait_until_it_is_down(box, 60)
        else:
            ec2.stop_instances(InstanceIds=[instance], Force=how == "power failure")
            ec2.get_waiter("instance_stopped").wait(
                InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
            )
            ec2.start_instances(InstanceIds=[instance])
        seconds = wait_until_it_serves(box, 120)
        customers.wait_for_orders(3, 60)
    acknowledged = {number for _, number in customers.orders}
    assert acknowledged - stored() == set(), str(customers)
    figure(f"ready {seconds:.1f} s after its start; {customers.pause_of_orders():.1f} s no order")
    figure(str(customers))
