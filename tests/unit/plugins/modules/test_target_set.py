"""Targets come and go: against moto where AWS's own answers do, else against a list of answers.

The load balancer of moto finds every target healthy at once and ends every drain at once; what
needs other states is told answer by answer, which also proves that no other call is made.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api, AwsFailure
from ansible_collections.ascent.scaling.plugins.module_utils._aws.permissions import permissions
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import TargetError
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.wait import Pace
from ansible_collections.ascent.scaling.plugins.modules import target_set
from moto import mock_aws

from tests.support.aws_stubs import Stubs

ROOT = Path(__file__).parents[4]
REGION = "us-east-1"
WRITES = ("register_targets", "deregister_targets")


def options(**more: Any) -> dict[str, Any]:
    """The module's parameters as Ansible makes them: what is not given has its default."""
    drain = {key: spec.get("default") for key, spec in target_set.DRAIN.items()}
    targets = [
        dict.fromkeys(target_set.TARGET) | ({"id": item} if isinstance(item, str) else item)
        for item in more.pop("targets")
    ]
    defaults = {key: spec.get("default") for key, spec in target_set.SPEC.items()}
    return {**defaults, **more, "targets": targets, "drain": {**drain, **more.get("drain", {})}}


def pace() -> Pace:
    """Waiting that costs no time."""
    now = [0.0]
    return Pace(
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
        chance=lambda: 0.5,
    )


def converge(api: Api, dry: bool = False, **more: Any) -> dict[str, Any]:
    return target_set.converge(api, options(**more), dry, pace())


# --- against moto ----------------------------------------------------------------------------


class Recording(Api):
    """The Api, which remembers its calls."""

    def __init__(self) -> None:
        super().__init__(lambda service: boto3.client(service, region_name=REGION))
        self.called: list[str] = []

    def _guarded(self, call: Any, operation: str, *more: Any) -> Any:
        self.called.append(operation)
        return super()._guarded(call, operation, *more)

    @property
    def written(self) -> list[str]:
        names = [name.partition(":")[2] for name in self.called]
        return [name for name in names if name in WRITES]


class Shop:
    """A VPC of two zones, an application load balancer, two groups behind it and four hosts."""

    def __init__(self) -> None:
        self.api = Recording()
        self.ec2, self.elb = self.api.client("ec2"), self.api.client("elbv2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [self.subnet(self.vpc, f"10.0.{n}.0/24", f"{REGION}{z}") for n, z in
                        enumerate("ab")]  # fmt: skip
        self.hosts = [self.host(self.subnets[n]) for n in (0, 0, 1, 1)]
        balancer = self.elb.create_load_balancer(Name="shop", Subnets=self.subnets)
        self.balancer = balancer["LoadBalancers"][0]["LoadBalancerArn"]
        self.arns = {name: self.group(name) for name in ("web", "api")}
        for port, arn in zip((80, 81), self.arns.values(), strict=True):
            self.elb.create_listener(
                LoadBalancerArn=self.balancer,
                Protocol="HTTP",
                Port=port,
                DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
            )
        self.api.called.clear()

    def subnet(self, vpc: str, cidr: str, zone: str) -> str:
        made = self.ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=zone)
        return str(made["Subnet"]["SubnetId"])

    def host(self, subnet: str) -> str:
        made = self.ec2.run_instances(
            ImageId="ami-0deb1300000000001",
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
        )
        return str(made["Instances"][0]["InstanceId"])

    def group(self, name: str, **more: Any) -> str:
        wanted = more or {"Protocol": "HTTP", "Port": 8000, "VpcId": self.vpc}
        made = self.elb.create_target_group(Name=name, **wanted)
        return str(made["TargetGroups"][0]["TargetGroupArn"])

    def registered(self, name: str = "web") -> list[str]:
        found = self.elb.describe_target_health(TargetGroupArn=self.arns[name])
        return sorted(item["Target"]["Id"] for item in found["TargetHealthDescriptions"])


@pytest.fixture(autouse=True)
def nobodys_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with mock_aws():
        yield Shop()


def test_targets_are_registered_once(shop: Shop) -> None:
    hosts = shop.hosts[:3]
    found = converge(shop.api, target_groups=["web"], targets=hosts)
    assert found["changed"]
    assert {item["action"] for item in found["changes"]} == {"register"}
    assert {row["id"]: row["state"] for row in found["targets"]} == dict.fromkeys(hosts, "healthy")
    assert shop.registered() == sorted(hosts)
    again = converge(shop.api, target_groups=["web"], targets=hosts)
    assert not again["changed"]
    assert again["changes"] == []
    assert shop.api.written == ["register_targets"]


def test_groups_are_named_by_arn_as_well(shop: Shop) -> None:
    groups = [shop.arns["web"], "api", "web"]
    found = converge(shop.api, target_groups=groups, targets=shop.hosts[:1])
    assert [item["group"] for item in found["changes"]] == ["api", "web"]


def test_zones_and_their_balance_are_reported(shop: Shop) -> None:
    found = converge(shop.api, target_groups=["web"], targets=shop.hosts[:3])
    group = found["groups"][0]
    assert (group["targets"], group["healthy"], group["balanced"]) == (3, 3, True)
    assert group["zones"] == {
        "us-east-1a": {"targets": 2, "healthy": 2},
        "us-east-1b": {"targets": 1, "healthy": 1},
    }
    assert {row["zone"] for row in found["targets"]} == {"us-east-1a", "us-east-1b"}


def test_targets_are_deregistered_once_and_others_are_left_alone(shop: Shop) -> None:
    converge(shop.api, target_groups=["web"], targets=shop.hosts)
    wish = {"target_groups": ["web"], "targets": shop.hosts[:2], "state": "absent"}
    found = converge(shop.api, **wish)
    assert {row["drained_by"] for row in found["targets"]} == {"deregistered"}
    assert {row["reason"] for row in found["targets"]} == {"Target.NotRegistered"}
    assert found["groups"][0]["zones"] == {"us-east-1b": {"targets": 2, "healthy": 2}}
    assert shop.registered() == sorted(shop.hosts[2:])
    assert not converge(shop.api, **wish)["changed"]


def test_what_is_missing_is_nothing_to_deregister(shop: Shop) -> None:
    found = converge(shop.api, target_groups=["web"], targets=["i-00000000"], state="absent")
    assert not found["changed"]
    assert found["targets"][0]["reason"] == "Target.NotRegistered"


def test_an_empty_list_changes_nothing(shop: Shop) -> None:
    converge(shop.api, target_groups=["web"], targets=shop.hosts[:1])
    for state in ("present", "absent"):
        assert not converge(shop.api, target_groups=["web"], targets=[], state=state)["changed"]
    with pytest.raises(TargetError, match="would take every target out"):
        converge(shop.api, target_groups=["web"], targets=[], exact=True)
    assert shop.registered() == shop.hosts[:1]


def test_an_exact_set_comes_before_the_rest_goes(shop: Shop) -> None:
    converge(shop.api, target_groups=["web"], targets=shop.hosts[:2])
    wish = {"target_groups": ["web"], "targets": shop.hosts[1:3], "exact": True}
    found = converge(shop.api, minimum_healthy=2, **wish)
    assert [item["action"] for item in found["changes"]] == ["register", "deregister"]
    assert shop.registered() == sorted(shop.hosts[1:3])
    assert shop.api.written == ["register_targets", "register_targets", "deregister_targets"]
    assert not converge(shop.api, minimum_healthy=2, **wish)["changed"]


@pytest.mark.parametrize("state", ["present", "absent", "exact"])
def test_check_mode_and_diff_tell_the_truth(shop: Shop, state: str) -> None:
    converge(shop.api, target_groups=["web", "api"], targets=shop.hosts[:2])
    wish: dict[str, Any] = {"target_groups": ["web", "api"], "targets": shop.hosts[1:3]}
    wish |= {"exact": True} if state == "exact" else {"state": state}
    written = len(shop.api.written)
    planned = converge(shop.api, dry=True, **wish)
    assert len(shop.api.written) == written, "check mode writes nothing"
    made = converge(shop.api, **wish)
    for key in ("changed", "changes", "diff", "groups", "warnings"):
        if key != "groups" or state == "absent":
            assert planned[key] == made[key], key
    sizes = [[group["targets"] for group in found["groups"]] for found in (planned, made)]
    assert sizes[0] == sizes[1]
    assert made["diff"]["before"]["web"] == [f"{name}:8000" for name in sorted(shop.hosts[:2])]
    assert made["diff"]["after"]["web"] == [f"{name}:8000" for name in shop.registered()]
    idle = converge(shop.api, dry=True, **wish)
    assert not idle["changed"]
    assert idle["diff"]["before"] == idle["diff"]["after"]


@pytest.mark.parametrize(
    ("leaving", "more", "words"),
    [
        ([0, 1, 2, 3], {}, "would leave 0 healthy of at least 1"),
        ([0, 1], {"minimum_healthy": 3}, "would leave 2 healthy of at least 3"),
        ([0], {"minimum_healthy": 5}, "web has only 4 targets"),
        ([0, 1], {"minimum_healthy_per_zone": 1}, "leave 0 healthy in us-east-1a of at least 1"),
        ([0, 2], {"minimum_healthy_per_zone": 2}, "in us-east-1b of at least 2"),
    ],
)
def test_too_few_healthy_targets_are_refused_before_any_change(
    shop: Shop, leaving: list[int], more: dict[str, Any], words: str
) -> None:
    converge(shop.api, target_groups=["web", "api"], targets=shop.hosts)
    written = len(shop.api.written)
    targets = [shop.hosts[number] for number in leaving]
    for dry in (True, False):
        with pytest.raises(TargetError, match=words) as caught:
            converge(
                shop.api, dry, target_groups=["api", "web"], targets=targets, state="absent", **more
            )
        assert str(caught.value).startswith("nothing was changed: ")
    assert len(shop.api.written) == written
    assert shop.registered() == shop.registered("api") == sorted(shop.hosts)


def other_vpc(shop: Shop) -> str:
    vpc = shop.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    return shop.host(shop.subnet(vpc, "10.9.0.0/24", f"{REGION}a"))


def stopped(shop: Shop) -> str:
    shop.ec2.stop_instances(InstanceIds=[shop.hosts[3]])
    return shop.hosts[3]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda shop: "i-0123456789abcdef0", "EC2 knows no instance i-0123456789abcdef0"),
        (other_vpc, "and web takes those of vpc-"),
        (stopped, "is stopped, and only a running one can be registered"),
        (lambda shop: "10.0.0.9", "takes instance ids, and not 10.0.0.9"),
        (lambda shop: "web-1", "'web-1' is neither an instance id"),
        (lambda shop: {"id": shop.hosts[0], "port": 80808}, "cannot listen at port 80808"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_any_change(
    shop: Shop, target: Any, words: str
) -> None:
    targets = [shop.hosts[0], target(shop)]
    with pytest.raises(TargetError, match=words):
        converge(shop.api, target_groups=["web"], targets=targets)
    assert shop.api.written == []


def test_a_classic_load_balancer_is_none_of_ours(shop: Shop) -> None:
    shop.api.client("elb").create_load_balancer(
        LoadBalancerName="old",
        Listeners=[{"Protocol": "HTTP", "LoadBalancerPort": 80, "InstancePort": 80}],
        AvailabilityZones=[f"{REGION}a"],
    )
    for name, words in (
        ("old", "A classic load balancer has this name"),
        ("shop", "targets are registered in its target groups: api, web"),
        (shop.balancer, "is a load balancer, and targets are registered in its target groups"),
        ("nothing", "There is none of this name in us-east-1"),
        (shop.arns["web"].replace("us-east-1", "eu-west-1"), "set region: eu-west-1"),
        (shop.arns["web"].replace("123456789012", "210987654321"), "belongs to the account 2109"),
    ):
        with pytest.raises(TargetError, match=words):
            converge(shop.api, target_groups=["web", name], targets=shop.hosts[:1])
    assert shop.api.written == []


def test_a_group_without_a_load_balancer_is_not_waited_for(shop: Shop) -> None:
    shop.group("lonely")
    wish = {"target_groups": ["lonely"], "targets": shop.hosts[:1]}
    with pytest.raises(TargetError, match="to wait for their health would never end"):
        converge(shop.api, **wish)
    assert shop.api.written == []
    assert converge(shop.api, wait=False, **wish)["changed"]


def test_groups_of_addresses_and_of_functions(shop: Shop) -> None:
    arn = shop.group("boxes", TargetType="ip", Protocol="HTTP", Port=80, VpcId=shop.vpc)
    shop.elb.create_listener(
        LoadBalancerArn=shop.balancer,
        Protocol="HTTP",
        Port=82,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
    )
    with pytest.raises(TargetError, match="type ip, which takes addresses, and not i-"):
        converge(shop.api, target_groups=["boxes"], targets=shop.hosts[:1])
    shop.group("function", TargetType="lambda")
    with pytest.raises(TargetError, match="type lambda, whose target is one Lambda function"):
        converge(shop.api, target_groups=["function"], targets=shop.hosts[:1])
    assert shop.api.written == []


@pytest.mark.parametrize("policy", ["target-set", "target-set-host"])
def test_the_policies_have_the_rights_that_are_used_and_no_more(shop: Shop, policy: str) -> None:
    described = policy == "target-set"
    for state in ("present", "absent"):
        converge(
            shop.api,
            target_groups=["web"],
            targets=shop.hosts[:2],
            state=state,
            minimum_healthy=0,
            describe_instances=described,
        )
    needed = {right for call in shop.api.called for right in permissions(iam_name(call))}
    written = json.loads((ROOT / f"docs/iam/{policy}.json").read_text())
    allowed = {right for part in written["Statement"] for right in part["Action"]}
    explaining = {"elasticloadbalancing:DescribeLoadBalancers"} if described else set()
    assert needed == allowed - explaining


def iam_name(call: str) -> str:
    """The operation of a recorded call, `elbv2:RegisterTargets` for elbv2:register_targets."""
    service, _, method = call.partition(":")
    return f"{service}:{method.title().replace('_', '')}"


# --- against a list of answers ---------------------------------------------------------------

ARN = f"arn:aws:elasticloadbalancing:{REGION}:123456789012:targetgroup"
ARNS = {name: f"{ARN}/{name}/0123456789abcdef" for name in ("web", "api")}
A, B, C = "i-aaaaaaaa", "i-bbbbbbbb", "i-cccccccc"
REASONS = {
    "initial": "Elb.InitialHealthChecking",
    "draining": "Target.DeregistrationInProgress",
    "unhealthy": "Target.ResponseCodeMismatch",
}
CODES = "Health checks failed with these codes: [404]"


class Balancer(Stubs):
    """A list of answers about the group web, whose targets are at port 80."""

    def known(self, *names: str) -> None:
        groups = [
            {
                "TargetGroupArn": ARNS[name],
                "TargetGroupName": name,
                "Port": 80,
                "TargetType": "instance",
                "LoadBalancerArns": ["arn"],
                "HealthCheckProtocol": "HTTP",
                "HealthCheckPath": "/ready",
                "Matcher": {"HttpCode": "200-299"},
            }
            for name in names
        ]
        self.answers("elbv2", "describe_target_groups", {"TargetGroups": groups})

    def health(self, group: str = "web", **states: str) -> None:
        """Tell the targets once, such as a="healthy"; the call must be for all of the group."""
        names = {"a": A, "b": B, "c": C}
        answer = []
        for key, state in states.items():
            health = {"State": state}
            if state in REASONS:
                health |= {"Reason": REASONS[state], "Description": CODES}
            answer.append({"Target": {"Id": names[key], "Port": 80}, "TargetHealth": health})
        self.answers(
            "elbv2",
            "describe_target_health",
            {"TargetHealthDescriptions": answer},
            TargetGroupArn=ARNS[group],
        )

    def writes(self, operation: str, *ids: str, group: str = "web") -> None:
        targets = [{"Id": name, "Port": 80} for name in ids]
        self.answers("elbv2", operation, {}, TargetGroupArn=ARNS[group], Targets=targets)

    def converge(self, *ids: str, **more: Any) -> dict[str, Any]:
        wish = {"target_groups": ["web"], "describe_instances": False, **more}
        return converge(self.api, targets=list(ids), **wish)


@pytest.fixture
def aws() -> Iterator[Balancer]:
    balancer = Balancer()
    yield balancer
    balancer.assert_all_asked()


def test_fault_of_elb_target_one_id_a_task(aws: Balancer) -> None:
    """Any number of hosts in any number of groups is one call a group."""
    aws.known("api", "web")
    aws.health("api", a="healthy")
    aws.health("web")
    aws.writes("register_targets", B, group="api")
    aws.writes("register_targets", A, B, group="web")
    aws.health("api", a="healthy", b="healthy")
    aws.health("web", a="healthy", b="healthy")
    found = aws.converge(A, B, target_groups=["web", "api"])
    assert [(item["group"], item["id"]) for item in found["changes"]] == [
        ("api", B),
        ("web", A),
        ("web", B),
    ]


def test_fault_of_elb_target_it_ignores_a_draining_target(aws: Balancer) -> None:
    aws.known("web")
    aws.health(a="draining")
    aws.writes("register_targets", A)
    aws.health(a="draining")
    aws.health(a="initial")
    aws.health(a="healthy")
    found = aws.converge(A)
    assert found["changed"]
    assert found["diff"] == {"before": {"web": []}, "after": {"web": [f"{A}:80"]}}


def test_fault_of_elb_target_no_wait_if_already_registered(aws: Balancer) -> None:
    aws.known("web")
    for state in ("initial", "initial", "unhealthy", "healthy"):
        aws.health(a=state)
    found = aws.converge(A)
    assert not found["changed"]
    assert found["targets"][0]["state"] == "healthy"


def test_fault_of_elb_target_it_polls_each_host(aws: Balancer) -> None:
    """Four hundred hosts: one read a poll, a hundred a write; the Stubber allows no other call."""
    ids = [f"i-{number:08x}" for number in range(400)]

    def tell(state: str) -> None:
        answer = [
            {"Target": {"Id": name, "Port": 80}, "TargetHealth": {"State": state}} for name in ids
        ]
        aws.answers("elbv2", "describe_target_health", {"TargetHealthDescriptions": answer})

    aws.known("web")
    aws.health()
    for start in range(0, 400, 100):
        aws.writes("register_targets", *ids[start : start + 100])
    for state in ("initial", "initial", "healthy"):
        tell(state)
    assert aws.converge(*ids)["groups"][0]["healthy"] == 400


def test_fault_of_elb_target_polling_ends_in_rate_exceeded(aws: Balancer) -> None:
    aws.known("web")
    aws.health(a="initial")
    for _ in range(3):
        aws.fails("elbv2", "describe_target_health", "Throttling")
    aws.health(a="healthy")
    assert aws.converge(A)["targets"][0]["state"] == "healthy"


def test_fault_of_elb_target_no_check_mode(aws: Balancer) -> None:
    aws.known("web")
    aws.health(a="draining", b="healthy")
    found = aws.converge(A, dry=True)
    assert found["changed"]
    assert found["targets"][0]["state"] == "draining", "it waits for nothing"


def test_fault_of_elb_target_group_it_replaces_the_whole_set(aws: Balancer) -> None:
    aws.known("web")
    aws.health(b="healthy")
    aws.writes("register_targets", A)
    aws.health(a="healthy", b="healthy")
    found = aws.converge(A)
    assert found["diff"]["after"]["web"] == [f"{A}:80", f"{B}:80"]


def test_fault_of_elb_target_group_it_waits_for_the_first_only(aws: Balancer) -> None:
    aws.known("web")
    aws.health()
    aws.writes("register_targets", A, B, C)
    aws.health(a="healthy", b="initial", c="initial")
    aws.health(a="healthy", b="healthy", c="initial")
    aws.health(a="healthy", b="healthy", c="healthy")
    assert aws.converge(A, B, C)["groups"][0]["healthy"] == 3


def test_who_does_not_get_healthy_is_told_with_awss_reason(aws: Balancer) -> None:
    aws.known("web")
    aws.health(b="healthy")
    aws.writes("register_targets", A)
    for _ in range(2):
        aws.health(a="unhealthy", b="healthy")
    with pytest.raises(TargetError) as caught:
        aws.converge(A, B, timeout=1)
    for words in (
        "1 of 2 targets are not healthy after 1 s",
        f"{A}:80 in web is unhealthy (Target.ResponseCodeMismatch: {CODES})",
        "The health check asks for HTTP /ready at port 80 and takes 200-299",
    ):
        assert words in str(caught.value)
    result = caught.value.result
    assert result["changed"]
    assert [row["state"] for row in result["targets"]] == ["unhealthy", "healthy"]
    assert result["targets"][0]["description"] == CODES


def test_an_exact_set_that_does_not_get_healthy_takes_nothing_out(aws: Balancer) -> None:
    aws.known("web")
    aws.health(b="healthy")
    aws.writes("register_targets", A)
    aws.health(a="unhealthy", b="healthy")
    with pytest.raises(TargetError, match=r"Nothing was deregistered\.") as caught:
        aws.converge(A, exact=True, timeout=0)
    assert [item["action"] for item in caught.value.result["changes"]] == ["register"]
    assert caught.value.result["diff"]["after"]["web"] == [f"{A}:80", f"{B}:80"]


def test_without_wait_nothing_is_read_but_the_outcome(aws: Balancer) -> None:
    aws.known("web")
    aws.health()
    aws.writes("register_targets", A)
    aws.health(a="initial")
    assert aws.converge(A, wait=False)["targets"][0]["state"] == "initial"


def test_from_the_host_itself_ec2_is_not_asked(aws: Balancer) -> None:
    """The Stubber has no answer of EC2, so a question to it would be an error."""
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    aws.writes("deregister_targets", A)
    aws.health(b="healthy")
    aws.health(b="healthy")
    found = aws.converge({"id": A, "zone": "us-east-1a"}, state="absent")
    assert found["targets"][0]["zone"] == "us-east-1a"
    assert list(found["groups"][0]["zones"]) == ["unknown"]


def test_without_ec2_a_minimum_of_a_zone_is_refused_rather_than_guessed(aws: Balancer) -> None:
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    with pytest.raises(TargetError, match=rf"The zone of {B} is not known: leave describe_inst"):
        aws.converge({"id": A, "zone": "z"}, state="absent", minimum_healthy_per_zone=1)


def test_what_fails_while_others_are_waited_for_keeps_the_rest_in(aws: Balancer) -> None:
    """The new target of api was healthy, and no longer is when the old one would go."""
    aws.known("api", "web")
    aws.health("api", b="healthy")
    aws.health("web")
    aws.writes("register_targets", A, group="api")
    aws.writes("register_targets", A, group="web")
    aws.health("api", a="healthy", b="healthy")
    aws.health("web", a="initial")
    aws.health("web", a="healthy")
    aws.health("api", a="unhealthy", b="healthy")
    aws.health("web", a="healthy")
    with pytest.raises(TargetError, match="nothing was deregistered, as others") as caught:
        aws.converge(A, exact=True, target_groups=["api", "web"])
    assert f"to deregister {B}:80 from api would leave 0 healthy" in str(caught.value)
    assert {item["action"] for item in caught.value.result["changes"]} == {"register"}


def test_what_nobody_asked_ec2_about_is_refused_by_aws(aws: Balancer) -> None:
    aws.known("web")
    aws.health()
    aws.fails("elbv2", "register_targets", "InvalidTarget")
    with pytest.raises(AwsFailure, match="takes only running instances"):
        aws.converge(A)


def test_another_port_of_the_host_is_pointed_out(aws: Balancer) -> None:
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    found = aws.converge({"id": A, "port": 8080}, state="absent")
    assert not found["changed"]
    assert "goes on to serve at port 80 of web" in found["warnings"][0]


# --- drains ----------------------------------------------------------------------------------


class Stub(BaseHTTPRequestHandler):
    """nginx's stub_status, which tells one number of requests in flight after the other."""

    counts: list[int] = []

    def do_GET(self) -> None:
        count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"Reading: 0 Writing: {count + 1} Waiting: 7".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nginx() -> Iterator[dict[str, Any]]:
    server = HTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://{{address}}:{server.server_address[1]}/"
    yield {"check": "nginx", "url": url, "quiet": 2, "timeout": 30}
    server.shutdown()
    server.server_close()
    thread.join()


HERE = {"id": A, "address": "127.0.0.1"}


def test_a_drain_ends_when_nothing_is_in_flight(aws: Balancer, nginx: dict[str, Any]) -> None:
    Stub.counts = [5, 4, 1, 0]
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    aws.writes("deregister_targets", A)
    for _ in range(5):  # four polls, and the outcome
        aws.health(a="draining", b="healthy")
    row = aws.converge(HERE, state="absent", drain=nginx)["targets"][0]
    assert (row["drained_by"], row["in_flight"], row["state"]) == ("idle", 0, "draining")
    assert row["drain_seconds"] == pytest.approx(4.75, abs=0.1)


def test_a_drain_that_takes_too_long_is_no_failure(aws: Balancer, nginx: dict[str, Any]) -> None:
    Stub.counts = [5]
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    aws.writes("deregister_targets", A)
    for _ in range(3):
        aws.health(a="draining", b="healthy")
    row = aws.converge(HERE, state="absent", drain={**nginx, "timeout": 1})["targets"][0]
    assert (row["drained_by"], row["in_flight"]) == ("timeout", 5)


def test_a_target_that_drains_already_is_waited_for(aws: Balancer, nginx: dict[str, Any]) -> None:
    Stub.counts = [3]
    aws.known("web")
    aws.health(a="draining", b="healthy")
    aws.health(a="draining", b="healthy")
    aws.health(b="healthy")
    aws.health(b="healthy")
    found = aws.converge(HERE, state="absent", drain=nginx)
    assert not found["changed"]
    assert found["targets"][0]["drained_by"] == "deregistered"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"url": "http://{address}:1/"}, "i-aaaaaaaa: http://127.0.0.1:1/: ConnectionRefusedError"),
        ({"check": "haproxy"}, "the answer is none of HAProxy's statistics as CSV"),
    ],
)
def test_a_healthy_host_that_does_not_tell_is_refused_before_any_change(
    aws: Balancer, nginx: dict[str, Any], more: dict[str, str], words: str
) -> None:
    Stub.counts = [0]
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    with pytest.raises(TargetError, match=f"nothing was changed: .*{words}"):
        aws.converge(HERE, state="absent", drain={**nginx, **more})


@pytest.mark.parametrize("name", ["quiet", "timeout"])
def test_a_drain_takes_no_negative_time(aws: Balancer, name: str) -> None:
    aws.known("web")
    with pytest.raises(TargetError, match=rf"drain\.{name} is -1"):
        aws.converge(A, state="absent", drain={name: -1})


def test_a_broken_host_need_not_tell(aws: Balancer, nginx: dict[str, Any]) -> None:
    aws.known("web")
    aws.health(a="unhealthy", b="healthy")
    aws.writes("deregister_targets", A)
    aws.health(b="healthy")
    aws.health(b="healthy")
    row = aws.converge(A, state="absent", drain=nginx)["targets"][0]
    assert row["drained_by"] == "deregistered"
    assert "its address is not known" in row["drain_error"]


def test_a_healthy_host_without_an_address_is_refused(aws: Balancer, nginx: dict[str, Any]) -> None:
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    with pytest.raises(TargetError, match=r"nothing was changed: .*its address is not known"):
        aws.converge(A, state="absent", drain=nginx)


def test_somebody_who_registers_it_again_is_told(aws: Balancer) -> None:
    aws.known("web")
    aws.health(a="healthy", b="healthy")
    aws.writes("deregister_targets", A)
    for _ in range(6):
        aws.health(a="healthy", b="healthy")
    with pytest.raises(TargetError, match=f"somebody else has registered {A}:80 in web again"):
        aws.converge(A, state="absent")


# --- the module itself -----------------------------------------------------------------------


def test_documentation_and_arguments_say_the_same() -> None:
    documented = yaml.safe_load(target_set.DOCUMENTATION)["options"]
    assert set(documented) == set(target_set.SPEC)
    for part, spec in (("drain", target_set.DRAIN), ("targets", target_set.TARGET)):
        written = documented[part]["suboptions"]
        assert {
            key: (item["type"], item.get("default"), item.get("choices"))
            for key, item in written.items()
        } == {
            key: (item["type"], item.get("default"), item.get("choices"))
            for key, item in spec.items()
        }


def test_every_result_is_documented(shop: Shop) -> None:
    found = converge(shop.api, target_groups=["web"], targets=shop.hosts[:2])
    gone = converge(shop.api, target_groups=["web"], targets=shop.hosts[:1], state="absent")
    returned = yaml.safe_load(target_set.RETURN)
    assert set(returned) == set(found) - {"changed", "diff", "warnings"}
    assert set(returned["targets"]["contains"]) == set(gone["targets"][0])
    assert set(returned["groups"]["contains"]) == set(found["groups"][0])


@pytest.mark.parametrize(
    "task", yaml.safe_load(target_set.EXAMPLES), ids=lambda task: task["name"].replace(" ", "-")
)
def test_every_example_is_a_wish(task: dict[str, Any]) -> None:
    written = task["ascent.scaling.target_set"]
    written.pop("region", None)
    assert set(written) <= set(target_set.SPEC)
    assert set(written.get("drain", {})) <= set(target_set.DRAIN)
    for item in written["targets"]:
        assert set(item) <= set(target_set.TARGET)
        item["id"] = A if "{{" in item["id"] else item["id"]
    wish = options(**written)
    assert target_set.wish(wish).targets
    target_set.question(wish["drain"])
