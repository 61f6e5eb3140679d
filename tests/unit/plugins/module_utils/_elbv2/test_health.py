"""What a user reads about a target that is not healthy: AWS's words, and what to do."""

from __future__ import annotations

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.health import (
    absent,
    is_stuck,
    report,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    Group,
    HealthCheck,
    Member,
    Target,
)

WEB = Target("i-0123456789abcdef0", 8000)
GROUP = Group("arn:web", "web", check=HealthCheck(path="/ready", matcher="200-299", interval=10))
CODES = "Health checks failed with these codes: [404]"


@pytest.mark.parametrize(
    ("state", "reason", "description", "words"),
    [
        (
            "unhealthy",
            "Target.ResponseCodeMismatch",
            CODES,
            ("HTTP /ready at port 8000", "takes 200-299", CODES),
        ),
        ("unhealthy", "Target.Timeout", "Request timed out", ("within 5 s", "security group")),
        ("unhealthy", "Target.FailedHealthChecks", "", ("port is right", "security group")),
        ("unused", "Target.NotInUse", "", ("No listener forwards", "us-east-1a")),
        ("unused", "Target.InvalidState", "", ("stopped or terminated",)),
        ("unused", "Target.IpUnusable", "", ("load balancer uses this address",)),
        ("initial", "Elb.InitialHealthChecking", "", ("50 s at least (5 checks", "raise timeout")),
        ("initial", "Elb.RegistrationInProgress", "", ("50 s at least", "run again")),
        ("draining", "Target.DeregistrationInProgress", "", ("Somebody else",)),
        ("unavailable", "Target.HealthCheckDisabled", "", ("wait: false",)),
        ("unavailable", "Elb.InternalError", "", ("AWS Health Dashboard",)),
        ("unhealthy", "Target.OfTomorrow", "", ("EC2 console",)),
    ],
)
def test_every_reason_has_its_advice(
    state: str, reason: str, description: str, words: tuple[str, ...]
) -> None:
    line = report(GROUP, Member(WEB, state, reason, description, "us-east-1a"))
    for word in (f"{WEB} in web is {state} ({reason}", *words):
        assert word in line


def test_the_check_may_have_a_port_of_its_own() -> None:
    group = Group("arn:web", "web", check=HealthCheck(protocol="TCP", port="9000"))
    assert "TCP at port 9000" in report(group, Member(WEB, "unhealthy", "Target.Timeout"))


def test_what_aws_does_not_list_is_not_registered() -> None:
    member = absent(WEB)
    assert is_stuck(member)
    assert not member.registered
    assert "Somebody else has deregistered it" in report(GROUP, member)


@pytest.mark.parametrize(
    ("state", "stuck"),
    [("unused", True), ("draining", True), ("initial", False), ("unhealthy", False)],
)
def test_only_what_no_check_changes_is_stuck(state: str, stuck: bool) -> None:
    assert is_stuck(Member(WEB, state)) is stuck
