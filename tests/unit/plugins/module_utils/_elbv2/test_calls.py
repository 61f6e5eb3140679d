"""The calls about targets, against botocore's Stubber: every request is checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import AwsFailure
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2 import calls
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    Group,
    Member,
    Target,
    TargetError,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.plan import Change

from tests.support.aws_stubs import Stubs

OWN, OTHER = "123456789012", "210987654321"
ARN = f"arn:aws:elasticloadbalancing:us-east-1:{OWN}:targetgroup/web/0123456789abcdef"
WEB = Group(ARN, "web")
IDS = [f"i-{number:08x}" for number in range(250)]


@pytest.fixture
def aws() -> Iterator[Stubs]:
    stubs = Stubs()
    yield stubs
    stubs.assert_all_asked()


def described(*names: str) -> dict[str, Any]:
    arn = ARN.partition("web")[0]
    return {
        "TargetGroups": [
            {"TargetGroupArn": f"{arn}{name}/0123456789abcdef", "TargetGroupName": name}
            for name in names
        ]
    }


def changes(*ids: str, zone: str = "") -> list[Change]:
    return [Change(ARN, "register", Target(name, 80), zone) for name in ids]


def named(ids: list[str]) -> list[dict[str, Any]]:
    return [{"Id": name, "Port": 80} for name in ids]


def test_names_and_arns_take_a_call_each_and_a_group_is_one(aws: Stubs) -> None:
    expected = {"TargetGroupArns": [ARN]}
    aws.answers("elbv2", "describe_target_groups", described("web"), **expected)
    answer = described("web", "api")
    aws.answers("elbv2", "describe_target_groups", answer, Names=["web", "api"])
    found = calls.target_groups(aws.api, ["web", "api", ARN, "web"])
    assert [group.name for group in found] == ["api", "web"]


def test_the_one_of_many_that_is_missing_is_named(aws: Stubs) -> None:
    aws.fails("elbv2", "describe_target_groups", "TargetGroupNotFound", Names=["web", "wep"])
    aws.answers("elbv2", "describe_target_groups", described("web"), Names=["web"])
    aws.fails("elbv2", "describe_target_groups", "TargetGroupNotFound", Names=["wep"])
    aws.fails("elb", "describe_load_balancers", "LoadBalancerNotFound")
    aws.fails("elbv2", "describe_load_balancers", "LoadBalancerNotFound")
    with pytest.raises(TargetError, match=r"found no target group wep\. There is none of this"):
        calls.target_groups(aws.api, ["web", "wep"])


def test_a_classic_load_balancer_is_told_apart(aws: Stubs) -> None:
    aws.fails("elbv2", "describe_target_groups", "TargetGroupNotFound")
    answer = {"LoadBalancerDescriptions": [{"LoadBalancerName": "old"}]}
    aws.answers("elb", "describe_load_balancers", answer, LoadBalancerNames=["old"])
    with pytest.raises(TargetError, match=r"A classic load balancer has this name.*elb_classic_lb"):
        calls.target_groups(aws.api, ["old"])


def test_a_load_balancer_is_told_apart_with_its_groups(aws: Stubs) -> None:
    balancer = ARN.replace("targetgroup/web", "loadbalancer/app/shop")
    aws.fails("elbv2", "describe_target_groups", "TargetGroupNotFound")
    aws.fails("elb", "describe_load_balancers", "LoadBalancerNotFound")
    answer = {"LoadBalancers": [{"LoadBalancerArn": balancer}]}
    aws.answers("elbv2", "describe_load_balancers", answer, Names=["shop"])
    answer = described("web", "api")
    aws.answers("elbv2", "describe_target_groups", answer, LoadBalancerArn=balancer)
    with pytest.raises(TargetError, match=r"A load balancer has this name.*: api, web\."):
        calls.target_groups(aws.api, ["shop"])


def test_without_the_right_to_look_further_the_group_is_still_missing(aws: Stubs) -> None:
    aws.fails("elbv2", "describe_target_groups", "TargetGroupNotFound")
    aws.fails("elb", "describe_load_balancers", "AccessDenied")
    aws.fails("elbv2", "describe_load_balancers", "AccessDenied")
    with pytest.raises(TargetError, match="There is none of this name in us-east-1"):
        calls.target_groups(aws.api, ["wep"])


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (OTHER, f"belongs to the account {OTHER}, and these credentials to {OWN}"),
        (OWN, "It was deleted, or the ARN is mistyped"),
    ],
)
def test_an_arn_of_another_account_is_told_apart(aws: Stubs, account: str, words: str) -> None:
    aws.fails("elbv2", "describe_target_groups", "TargetGroupNotFound")
    aws.answers("sts", "get_caller_identity", {"Account": OWN})
    with pytest.raises(TargetError, match=words):
        calls.target_groups(aws.api, [ARN.replace(OWN, account)])


def test_an_arn_of_another_region_takes_no_call(aws: Stubs) -> None:
    with pytest.raises(TargetError, match="set region: eu-west-1"):
        calls.target_groups(aws.api, [ARN.replace("us-east-1", "eu-west-1")])


def test_all_targets_of_a_group_are_read_by_one_call(aws: Stubs) -> None:
    answer = {
        "TargetHealthDescriptions": [
            {"Target": {"Id": name, "Port": 80}, "TargetHealth": {"State": "healthy"}}
            for name in reversed(IDS)
        ]
    }
    aws.answers("elbv2", "describe_target_health", answer, TargetGroupArn=ARN)
    found = calls.target_health(aws.api, WEB)
    assert found[0] == Member(Target(IDS[0], 80), "healthy")
    assert len(found) == len(IDS)


@pytest.mark.parametrize("operation", ["register_targets", "deregister_targets"])
def test_targets_are_written_in_batches(aws: Stubs, operation: str) -> None:
    for part in (IDS[:100], IDS[100:200], IDS[200:]):
        aws.answers("elbv2", operation, {}, TargetGroupArn=ARN, Targets=named(part))
    write = calls.register if operation == "register_targets" else calls.deregister
    write(aws.api, WEB, changes(*IDS))
    write(aws.api, WEB, [])


def test_a_zone_is_sent_where_one_is_to_be(aws: Stubs) -> None:
    target = {"Id": "10.9.0.1", "Port": 80, "AvailabilityZone": "all"}
    aws.answers("elbv2", "register_targets", {}, TargetGroupArn=ARN, Targets=[target])
    calls.register(aws.api, WEB, changes("10.9.0.1", zone="all"))


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "RequestLimitExceeded"])
def test_throttling_is_waited_out(aws: Stubs, code: str) -> None:
    for _ in range(4):
        aws.fails("elbv2", "register_targets", code)
    aws.answers("elbv2", "register_targets", {})
    calls.register(aws.api, WEB, changes(IDS[0]))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("InvalidTarget", "takes only running instances and addresses of the group's VPC"),
        ("TooManyTargets", "ask for a higher quota"),
        ("TooManyRegistrationsForTargetId", "Take it out of other groups"),
        ("TargetGroupNotFound", "has just deleted the group"),
        (
            "AccessDenied",
            r"permission elasticloadbalancing:RegisterTargets .* docs/iam/target-set\.json",
        ),
    ],
)
def test_what_aws_refuses_is_told_with_what_to_do(aws: Stubs, code: str, words: str) -> None:
    aws.fails("elbv2", "register_targets", code)
    with pytest.raises(AwsFailure, match=words) as caught:
        calls.register(aws.api, WEB, changes(IDS[0]))
    assert f"elbv2:register_targets on web, {IDS[0]} failed" in str(caught.value)
    assert caught.value.code == code


def test_instances_are_read_in_batches_and_the_unknown_are_left_out(aws: Stubs) -> None:
    for part in (IDS[:200], IDS[200:]):
        host = {
            "InstanceId": part[0],
            "State": {"Name": "running"},
            "VpcId": "vpc-1",
            "Placement": {"AvailabilityZone": "us-east-1a"},
            "PrivateIpAddress": "10.0.0.1",
        }
        expected = [{"Name": "instance-id", "Values": part}]
        answer = {"Reservations": [{"Instances": [host]}]}
        aws.answers("ec2", "describe_instances", answer, Filters=expected)
    found = calls.instances(aws.api, [*IDS, IDS[0]])
    assert sorted(found) == [IDS[0], IDS[200]]
    assert (found[IDS[0]].zone, found[IDS[0]].vpc) == ("us-east-1a", "vpc-1")
    assert calls.instances(aws.api, []) == {}


def test_without_rights_on_ec2_the_way_out_is_named(aws: Stubs) -> None:
    aws.fails("ec2", "describe_instances", "UnauthorizedOperation")
    with pytest.raises(AwsFailure, match=r"ec2:DescribeInstances.*describe_instances: false"):
        calls.instances(aws.api, IDS[:1])
