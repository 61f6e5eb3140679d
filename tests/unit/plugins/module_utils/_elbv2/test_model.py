"""What a task may ask for, and what AWS's answers become."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    Target,
    TargetError,
    group_of,
    in_words,
    member_of,
    reference_problem,
    wish,
)

ID = "i-0123456789abcdef0"
ELB = "arn:aws:elasticloadbalancing:us-east-1:123456789012"
OPTIONS = {
    "targets": [{"id": ID}],
    "state": "present",
    "exact": False,
    "wait": True,
    "timeout": 300,
    "minimum_healthy": 1,
    "minimum_healthy_per_zone": 0,
}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": [{"id": "web-1"}]}, "'web-1' is neither an instance id"),
        ({"targets": [{"id": "i-123"}]}, "'i-123' is neither"),
        ({"targets": [{"id": "I-0123456789ABCDEF0"}]}, "is neither"),
        ({"targets": [{"id": "10.0.1.500"}]}, "is neither"),
        ({"targets": [{"id": ""}]}, "'' is neither"),
        ({"targets": [{"id": ID, "port": 0}]}, "cannot listen at port 0"),
        ({"targets": [{"id": ID, "port": 65536}]}, "cannot listen at port 65536"),
        ({"targets": [{"id": ID, "port": -1}]}, "cannot listen at port -1"),
        ({"exact": True, "targets": []}, "would take every target out"),
        ({"exact": True, "state": "absent"}, "Leave one of them out"),
        ({"minimum_healthy": -1}, "minimum_healthy is -1"),
        ({"minimum_healthy_per_zone": -1}, "minimum_healthy_per_zone is -1"),
        ({"timeout": -1}, "timeout is -1"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        wish({**OPTIONS, **options})


def test_addresses_are_compared_in_one_writing() -> None:
    targets = [{"id": "FD00:0::1"}, {"id": "fd00::1"}, {"id": "10.0.0.1", "port": 81}]
    found = wish({**OPTIONS, "targets": targets})
    assert [(item.id, item.port, item.kind) for item in found.targets] == [
        ("fd00::1", None, "ip"),
        ("10.0.0.1", 81, "ip"),
    ]
    listed = member_of({"Target": {"Id": "fd00:0:0:0:0:0:0:1", "Port": 80}})
    assert listed.target == Target("fd00::1", 80)
    assert str(listed.target) == "[fd00::1]:80"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("web", ""),
        (f"{ELB}:targetgroup/web/0123456789abcdef", ""),
        ("", "without a name"),
        (f"{ELB}:loadbalancer/web", "is a classic load balancer"),
        (f"{ELB}:loadbalancer/app/web/0123456789abcdef", "is a load balancer, and targets"),
        (f"{ELB}:listener/app/web/0123456789abcdef/01", "is not the ARN of a target group"),
        ("arn:aws:s3:::bucket", "is not the ARN of a target group"),
        (
            f"{ELB.replace('us-east-1', 'eu-west-1')}:targetgroup/web/01",
            "is in the region eu-west-1, and this task talks to us-east-1",
        ),
    ],
)
def test_what_is_no_target_group_is_told_apart(reference: str, words: str) -> None:
    problem = reference_problem(reference, "us-east-1")
    assert words in problem
    assert bool(problem) == bool(words)


def test_a_group_is_read_with_its_health_check() -> None:
    group = group_of(
        {
            "TargetGroupArn": f"{ELB}:targetgroup/web/01",
            "TargetGroupName": "web",
            "Protocol": "HTTP",
            "Port": 8000,
            "VpcId": "vpc-1",
            "TargetType": "ip",
            "LoadBalancerArns": [],
            "HealthCheckProtocol": "HTTP",
            "HealthCheckPort": "8080",
            "HealthCheckPath": "/ready",
            "HealthCheckIntervalSeconds": 10,
            "HealthCheckTimeoutSeconds": 3,
            "HealthyThresholdCount": 2,
            "Matcher": {"HttpCode": "200-299"},
        }
    )
    assert (group.kind, group.port, group.vpc, group.attached) == ("ip", 8000, "vpc-1", False)
    check = group.check
    assert (check.port, check.path, check.matcher) == ("8080", "/ready", "200-299")
    assert (check.interval, check.timeout, check.threshold) == (10, 3, 2)


@pytest.mark.parametrize(
    ("state", "reason", "registered"),
    [
        ("healthy", "", True),
        ("unhealthy", "Target.Timeout", True),
        ("unhealthy.draining", "Target.Timeout", True),
        ("unused", "Target.NotInUse", True),
        ("unused", "Target.NotRegistered", False),
        ("unavailable", "Target.NotRegistered", False),
        ("draining", "Target.DeregistrationInProgress", False),
    ],
)
def test_who_is_registered(state: str, reason: str, registered: bool) -> None:
    health = {"State": state, "Reason": reason}
    member = member_of({"Target": {"Id": ID, "Port": 80}, "TargetHealth": health})
    assert member.registered is registered


def test_long_lists_are_cut() -> None:
    assert in_words("abc") == "a, b, c"
    assert in_words("abcdefg") == "a, b, c, d, e and 2 more"
