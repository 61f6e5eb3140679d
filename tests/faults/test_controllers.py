"""The controller and its way to AWS and to the hosts: throttled, broken, refused, cut."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.faults.conftest import DOMAIN, STAGE, Environment
from tests.support import aws_state
from tests.support.host import Host
from tests.support.lab import TestLab
from tests.support.playbook import Run
from tests.support.probe import get_json

pytestmark = pytest.mark.lab

# All but the poolers': what comes before them is not gone through on the way.
OTHER_ROLES = "common,database,cache,web,worker"

Figure = Callable[[str], None]


@contextmanager
def dropped(lab: TestLab, rule: str) -> Iterator[None]:
    """A rule of this machine's packet filter for what it sends into the lab, taken away after."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    table = f"cut_{lab.name}"
    rules = f"table ip {table} {{ chain out {{ type filter hook output priority 0; {rule}; }}\n}}\n"
    subprocess.run([*root, "nft", "-f", "-"], input=rules, text=True, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run([*root, "nft", "delete", "table", "ip", table], check=True, timeout=30)


def message(run: Run) -> str:
    """What the run said, in one line: Ansible breaks long ones."""
    return re.sub(r"\s+", " ", run.output)


def test_an_api_that_stays_broken_ends_in_a_clear_error(
    mended: Run, environment: Environment, fault_lab: TestLab, figure: Figure
) -> None:
    before = aws_state.counts(aws_state.snapshot(fault_lab))
    fault_lab.fault("InternalError", service="ssm")
    started = time.monotonic()
    run = environment.play(STAGE)
    took = time.monotonic() - started
    fault_lab.clear_faults()
    assert run.returncode != 0
    assert took < 300, f"it took {took:.0f} s to give up"
    assert "InternalError" in run.output, run.tail()
    assert "/ascent/lab/stage" in run.output, "the error does not name the resource"
    assert "Traceback" not in run.output
    assert aws_state.counts(aws_state.snapshot(fault_lab)) == before
    figure(f"the run gave up after {took:.0f} s")


def test_refused_ssh_ends_in_a_clear_error_with_nothing_half_done(
    box: str, environment: Environment, fault_lab: TestLab, figure: Figure
) -> None:
    started = time.monotonic()
    with dropped(fault_lab, f"ip daddr {box} tcp dport 22 reject with tcp reset"):
        run = environment.play(STAGE, "-e", "ascent_ssh_timeout=10")
    assert run.returncode != 0
    assert f"box ({box}) did not let in by SSH within 10 s" in message(run), run.tail()
    assert "Connection refused" in message(run)
    assert "ascent_operator_cidrs" in message(run), "it does not say what to do"
    assert run.changed_tasks == []
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
    figure(f"the run gave up after {time.monotonic() - started:.0f} s")


def test_a_run_whose_network_is_cut_half_way_ends_and_says_so(
    box: str, host: Host, environment: Environment, fault_lab: TestLab, figure: Figure
) -> None:
    """The cut lasts until the run has given up. Meanwhile the host serves on, as its log shows."""
    cut = dropped(fault_lab, f"ip daddr {fault_lab.subnet} drop")
    since: list[float] = []

    def watch(line: str) -> None:
        if "PLAY [Configure the poolers]" in line and not since:
            cut.__enter__()
            since.append(time.monotonic())

    try:
        run = environment.play(STAGE, "--skip-tags", OTHER_ROLES, on_line=watch)
    finally:
        if since:
            cut.__exit__(None, None, None)
    assert since, "the run never came so far"
    took = time.monotonic() - since[0]
    assert run.returncode != 0
    assert "UNREACHABLE" in run.output, run.tail()
    assert "Traceback" not in run.output
    assert took < 240
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
    figure(f"the run gave up {took:.0f} s after the cut")


def test_throttling_is_waited_out_and_the_run_ends_what_was_cut(
    box: str, environment: Environment, fault_lab: TestLab
) -> None:
    """The run after all faults: nothing is left to do, and the lock of a dead one is no hurdle."""
    fault_lab.fault("RequestLimitExceeded", service="ec2", count=6)
    fault_lab.fault("ThrottlingException", service="ssm", count=2)
    fault_lab.fault("ProvisionedThroughputExceededException", service="dynamodb", count=2)
    fault_lab.fault("InternalError", service="ec2", action="DescribeInstances", count=2)
    run = environment.succeed(STAGE)
    assert "the lock of lab was taken over" in message(run)
    assert run.changed_tasks == [], "the runs and faults before it had left something undone"
    assert fault_lab.status()["faults"] == [], "the run did not meet all the faults"
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
