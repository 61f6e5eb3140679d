"""Load balancers, target groups and target health, as the API tells them."""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from moto.acm.models import acm_backends

from lab import elb
from lab.elb.health import (
    DESCRIPTIONS,
    FAILED,
    PASSED,
    TIMED_OUT,
    Check,
    Health,
    Outcome,
    Situation,
    View,
    chosen,
    health,
    matches,
    mismatch,
)
from lab.haproxy import Condition, Fixed, Forward, Redirect
from lab.hosts import Event
from tests.unit.lab.conftest import BalancerRecorder, Recorder

IMAGE = "ami-0deb1300000000001"
CHECK = Check(healthy=3, unhealthy=2)
WRONG = mismatch(404)


# --- the state machine
@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], View()),
        ([PASSED], View("healthy", 1, 0, PASSED, True)),
        ([FAILED], View("initial", 0, 1, FAILED, True)),
        ([FAILED, PASSED], View("healthy", 1, 0, PASSED, True)),
        ([FAILED, FAILED], View("unhealthy", 0, 2, FAILED, True)),
        ([FAILED, TIMED_OUT], View("unhealthy", 0, 2, TIMED_OUT, True)),
        ([PASSED, FAILED], View("healthy", 0, 1, FAILED, True)),
        ([PASSED, FAILED, PASSED, FAILED], View("healthy", 0, 1, FAILED, True)),
        ([PASSED, FAILED, FAILED], View("unhealthy", 0, 2, FAILED, True)),
        ([FAILED, FAILED, PASSED], View("unhealthy", 1, 0, FAILED, True)),
        ([FAILED, FAILED, PASSED, PASSED], View("unhealthy", 2, 0, FAILED, True)),
        ([FAILED, FAILED, PASSED, PASSED, PASSED], View("healthy", 3, 0, PASSED, True)),
        ([FAILED, FAILED, PASSED, PASSED, WRONG], View("unhealthy", 0, 1, WRONG, True)),
        ([FAILED, FAILED, PASSED, WRONG, PASSED, PASSED], View("unhealthy", 2, 0, WRONG, True)),
    ],
)
def test_what_a_node_makes_of_checks(outcomes: list[Outcome], expected: View) -> None:
    view = View()
    for outcome in outcomes:
        view = view.after(outcome, CHECK)
    assert view == expected


WELL = View("healthy", 1, 0, PASSED, True)
ILL = View("unhealthy", 0, 2, TIMED_OUT, True)
AILING = View("initial", 0, 1, FAILED, True)
USED = Situation(zone="a", zones=("a", "b"))


@pytest.mark.parametrize(
    ("situation", "views", "blind", "expected"),
    [
        (USED, [], False, ("initial", "Elb.RegistrationInProgress")),
        (USED, [View()], False, ("initial", "Elb.RegistrationInProgress")),
        (USED, [AILING, View()], False, ("initial", "Elb.InitialHealthChecking")),
        (USED, [WELL, View()], False, ("initial", "Elb.InitialHealthChecking")),
        (USED, [WELL, WELL], False, ("healthy", "")),
        (USED, [WELL, ILL], False, ("unhealthy", "Target.Timeout")),
        (USED, [], True, ("unavailable", "Elb.InternalError")),
        (Situation(attached=False), [], False, ("unused", "Target.NotInUse")),
        (Situation(stopped=True), [ILL], False, ("unused", "Target.InvalidState")),
        (Situation(zone="c", zones=("a", "b")), [WELL], False, ("unused", "Target.NotInUse")),
        (Situation(zone=None, zones=("a", "b")), [WELL], False, ("healthy", "")),
        (
            Situation(draining=True, stopped=True),
            [WELL],
            False,
            ("draining", "Target.DeregistrationInProgress"),
        ),
        (
            Situation(draining=True, attached=False),
            [],
            True,
            ("draining", "Target.DeregistrationInProgress"),
        ),
    ],
)
def test_health(
    situation: Situation, views: list[View], blind: bool, expected: tuple[str, str]
) -> None:
    found = health(situation, views, blind)
    assert (found.state, found.reason) == expected
    assert bool(found.description) is bool(found.reason)


def test_descriptions_are_those_of_aws() -> None:
    assert health(Situation(zone="c"), []).description == (
        "Target is in an Availability Zone that is not enabled for the load balancer"
    )
    assert mismatch(503) == Outcome(
        "Target.ResponseCodeMismatch", "Health checks failed with these codes: [503]"
    )
    assert Health.of("unused", "Target.NotInUse").description == DESCRIPTIONS["Target.NotInUse"]


@pytest.mark.parametrize(
    ("matcher", "code", "expected"),
    [
        ("200", 200, True),
        ("200", 201, False),
        ("200-299", 204, True),
        ("200-299", 300, False),
        ("200,301-302", 302, True),
        ("200, 404", 404, True),
    ],
)
def test_codes(matcher: str, code: int, expected: bool) -> None:
    assert matches(matcher, code) is expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, set()),
        ({"a": "healthy", "b": "unhealthy", "c": "initial"}, {"a"}),
        ({"b": "unhealthy", "c": "initial"}, {"b", "c"}),
    ],
)
def test_a_group_without_healthy_targets_fails_open(
    states: dict[str, str], expected: set[str]
) -> None:
    assert chosen(states) == expected


# --- the API
class World:
    """A VPC with three zones, two of them the load balancer's, and a host in each."""

    def __init__(self, client: Any, physics: Recorder) -> None:
        self.client = client
        self.physics = physics
        self.balancers = physics.balancers
        self.ec2, self.elb = client("ec2"), client("elbv2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        self.subnets = [self.subnet(n, zone) for n, zone in enumerate("abc")]
        self.hosts = [self.host(subnet) for subnet in self.subnets]

    def subnet(self, number: int, zone: str) -> str:
        found = self.ec2.create_subnet(
            VpcId=self.vpc,
            CidrBlock=f"10.1.{number}.0/24",
            AvailabilityZone=f"us-east-1{zone}",
        )
        return str(found["Subnet"]["SubnetId"])

    def host(self, subnet: str, up: bool = True) -> str:
        found = self.ec2.run_instances(
            ImageId=IMAGE, InstanceType="t3.micro", MinCount=1, MaxCount=1, SubnetId=subnet
        )
        identifier = str(found["Instances"][0]["InstanceId"])
        if up:
            self.physics.report(identifier, Event.RUNNING)
        return identifier

    def balancer(self, name: str = "front", **more: Any) -> dict[str, Any]:
        wanted = {"Name": name, "Subnets": self.subnets[:2], **more}
        return dict(self.elb.create_load_balancer(**wanted)["LoadBalancers"][0])

    def group(self, name: str = "web", **more: Any) -> str:
        wanted = {
            "Name": name, "Protocol": "HTTP", "Port": 8080, "VpcId": self.vpc,
            "HealthCheckIntervalSeconds": 10, "HealthyThresholdCount": 3, **more,
        }  # fmt: skip
        return str(self.elb.create_target_group(**wanted)["TargetGroups"][0]["TargetGroupArn"])

    def listener(self, balancer: str, group: str, port: int = 80, **more: Any) -> str:
        wanted = {
            "LoadBalancerArn": balancer, "Protocol": "HTTP", "Port": port,
            "DefaultActions": [{"Type": "forward", "TargetGroupArn": group}], **more,
        }  # fmt: skip
        return str(self.elb.create_listener(**wanted)["Listeners"][0]["ListenerArn"])

    def stand(self) -> tuple[str, str]:
        """Have a load balancer that works, with a group; return their ARNs."""
        balancer = self.balancer()["LoadBalancerArn"]
        group = self.group()
        self.listener(balancer, group)
        self.balancers.report(Event.RUNNING)
        return balancer, group

    def set_group(self, group: str, **values: str) -> None:
        self.elb.modify_target_group_attributes(
            TargetGroupArn=group, Attributes=[{"Key": k, "Value": v} for k, v in values.items()]
        )

    def register(self, group: str, *hosts: str) -> None:
        self.elb.register_targets(TargetGroupArn=group, Targets=[{"Id": host} for host in hosts])

    def deregister(self, group: str, *hosts: str) -> None:
        self.elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": h} for h in hosts])

    def health(self, group: str, *hosts: str) -> dict[str, tuple[str, str]]:
        more = {"Targets": [{"Id": host} for host in hosts]} if hosts else {}
        found = self.elb.describe_target_health(TargetGroupArn=group, **more)
        return {
            d["Target"]["Id"]: (d["TargetHealth"]["State"], d["TargetHealth"].get("Reason", ""))
            for d in found["TargetHealthDescriptions"]
        }

    def state(self, name: str = "front") -> str:
        found = self.elb.describe_load_balancers(Names=[name])["LoadBalancers"][0]
        return str(found["State"]["Code"])

    def node(self, zone: str = "us-east-1a") -> Any:
        [key] = [node.key for node in elb.nodes() if node.zone == zone]
        return elb.as_node(key)


@pytest.fixture
def world(client: Any, physics: Recorder) -> World:
    return World(client, physics)


HEALTHY = ("healthy", "")
REGISTERING = ("initial", "Elb.RegistrationInProgress")
CHECKING = ("initial", "Elb.InitialHealthChecking")
DRAINING = ("draining", "Target.DeregistrationInProgress")
NOT_IN_USE = ("unused", "Target.NotInUse")
NOT_REGISTERED = ("unused", "Target.NotRegistered")


# --- load balancers
def test_a_load_balancer_is_active_once_a_node_stands_in_each_zone(world: World) -> None:
    found = world.balancer()
    assert found["State"]["Code"] == "provisioning"
    assert found["Scheme"] == "internet-facing"
    assert found["Type"] == "application"
    assert found["DNSName"].startswith("front-")
    assert found["DNSName"].endswith(".us-east-1.elb.amazonaws.com")
    assert [z["ZoneName"] for z in found["AvailabilityZones"]] == ["us-east-1a", "us-east-1b"]
    assert world.balancers.orders == [("launch", "us-east-1a"), ("launch", "us-east-1b")]
    world.balancers.report(Event.RUNNING, "us-east-1a")
    assert world.state() == "provisioning"
    world.balancers.report(Event.RUNNING, "us-east-1b")
    assert world.state() == "active"
    addresses = elb.endpoints()[found["DNSName"]]
    assert len(addresses) == 2
    assert all(address.startswith("198.18.7.") for address in addresses)


def test_a_node_that_cannot_be_made_fails_its_load_balancer(world: World) -> None:
    world.balancer()
    world.balancers.report(Event.FAILED, "us-east-1a")
    assert world.state() == "failed"


def test_an_internal_one_has_private_addresses(world: World) -> None:
    found = world.balancer(Scheme="internal")
    assert found["DNSName"].startswith("internal-front-")
    assert [a.rpartition(".")[0] for a in elb.endpoints()[found["DNSName"]]] == ["10.1.0", "10.1.1"]
    assert elb.public_endpoints() == {}


def test_a_node_that_dies_leaves_the_name_and_comes_back(world: World) -> None:
    name = world.balancer()["DNSName"]
    world.balancers.report(Event.RUNNING)
    first, second = elb.endpoints()[name]
    world.balancers.report(Event.IMPAIRED, "us-east-1a")
    assert elb.endpoints()[name] == (second,)
    assert world.state() == "active"
    world.balancers.report(Event.IMPAIRED, "us-east-1b")
    assert elb.endpoints()[name] == (first, second)  # as good as any other
    world.balancers.report(Event.RUNNING, "us-east-1a")
    world.balancers.check(PASSED)
    assert elb.endpoints()[name] == (first,)


def test_deletion_leaves_nothing(world: World) -> None:
    arn, _ = world.stand()
    world.elb.delete_load_balancer(LoadBalancerArn=arn)
    world.elb.delete_load_balancer(LoadBalancerArn=arn)
    assert world.elb.describe_load_balancers()["LoadBalancers"] == []
    with pytest.raises(ClientError, match="DependencyViolation"):
        world.ec2.delete_subnet(SubnetId=world.subnets[0])  # until its node is gone
    assert len(elb.nodes()) == 2
    world.balancers.report(Event.TERMINATED)
    assert elb.nodes() == []
    interfaces = world.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [i for i in interfaces if i["Description"].startswith("ELB ")] == []
    assert world.balancers.orders[2:] == [("remove", "us-east-1a"), ("remove", "us-east-1b")]


def test_deletion_protection_holds(world: World) -> None:
    arn, _ = world.stand()
    attribute = {"Key": "deletion_protection.enabled", "Value": "true"}
    world.elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[attribute])
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        world.elb.delete_load_balancer(LoadBalancerArn=arn)


def test_the_same_load_balancer_again_is_the_same(world: World) -> None:
    first = world.balancer()
    assert world.balancer()["LoadBalancerArn"] == first["LoadBalancerArn"]
    with pytest.raises(ClientError, match="DuplicateLoadBalancerName"):
        world.balancer(Scheme="internal")
    assert len(world.balancers.orders) == 2


def test_a_name_that_is_not_there_is_not_found(world: World) -> None:
    world.balancer()
    with pytest.raises(ClientError, match="LoadBalancerNotFound"):
        world.elb.describe_load_balancers(Names=["front", "other"])


def test_what_cannot_be_created(world: World) -> None:
    other = world.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    strange = world.ec2.create_subnet(
        VpcId=other, CidrBlock="10.9.0.0/24", AvailabilityZone="us-east-1b"
    )["Subnet"]["SubnetId"]
    twin = world.ec2.create_subnet(
        VpcId=world.vpc, CidrBlock="10.1.9.0/24", AvailabilityZone="us-east-1a"
    )["Subnet"]["SubnetId"]
    group = world.ec2.create_security_group(GroupName="g", Description="g", VpcId=other)["GroupId"]
    for wanted, code in (
        ({"Type": "gateway"}, "NotTrueInTheLab"),
        ({"IpAddressType": "dualstack"}, "NotTrueInTheLab"),
        ({"Scheme": "open"}, "InvalidScheme"),
        ({"Name": "internal-x"}, "ValidationError"),
        ({"Name": "a b"}, "ValidationError"),
        ({"Name": "x" * 33}, "ValidationError"),
        ({"Subnets": world.subnets[:1]}, "ValidationError.*At least two subnets"),
        ({"Subnets": [*world.subnets[:2], twin]}, "InvalidConfigurationRequest"),
        ({"Subnets": [world.subnets[0], strange]}, "InvalidSubnet"),
        ({"Subnets": [world.subnets[0], "subnet-0123"]}, "SubnetNotFound"),
        ({"SecurityGroups": ["sg-0123"]}, "InvalidSecurityGroup"),
        ({"SecurityGroups": [group]}, "InvalidConfigurationRequest"),
    ):
        with pytest.raises(ClientError, match=code):
            world.balancer(**{"Name": "front", **wanted})
    assert world.balancers.orders == []


def test_without_free_addresses_there_is_no_half_of_a_load_balancer(world: World) -> None:
    for _ in range(2):
        world.ec2.allocate_address(Domain="vpc")
    with pytest.raises(ClientError, match="InsufficientAddressCapacity"):
        world.balancer()
    assert world.elb.describe_load_balancers()["LoadBalancers"] == []
    world.balancers.report(Event.TERMINATED)
    assert elb.nodes() == []


def test_a_vpc_without_a_gateway_has_no_public_load_balancer(world: World) -> None:
    vpc = world.ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        world.ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"10.8.{n}.0/24", AvailabilityZone=f"us-east-1{zone}"
        )["Subnet"]["SubnetId"]
        for n, zone in enumerate("ab")
    ]
    with pytest.raises(ClientError, match=r"InvalidSubnet.*no internet gateway"):
        world.balancer(Subnets=subnets)
    assert world.balancer(Subnets=subnets, Scheme="internal")["VpcId"] == vpc


def test_its_security_groups_are_its_nodes(world: World) -> None:
    arn, _ = world.stand()
    answer = world.ec2.create_security_group(GroupName="g", Description="g", VpcId=world.vpc)
    group = answer["GroupId"]
    world.elb.set_security_groups(LoadBalancerArn=arn, SecurityGroups=[group])
    assert [[g.id for g in node.interface._group_set] for node in elb.nodes()] == [[group]] * 2
    with pytest.raises(ClientError, match="DependencyViolation"):
        world.ec2.delete_security_group(GroupId=group)


def test_subnets_move_its_nodes(world: World) -> None:
    arn, group = world.stand()
    world.register(group, *world.hosts)
    world.balancers.check(PASSED)
    name = world.elb.describe_load_balancers()["LoadBalancers"][0]["DNSName"]
    before = elb.endpoints()[name]
    world.elb.set_subnets(LoadBalancerArn=arn, Subnets=world.subnets[1:])
    assert world.balancers.orders[2:] == [("launch", "us-east-1c"), ("remove", "us-east-1a")]
    assert elb.endpoints()[name] == before[1:]  # the new one has seen nothing yet
    assert world.health(group)[world.hosts[0]] == NOT_IN_USE
    world.balancers.report(Event.RUNNING, "us-east-1c")
    assert world.health(group)[world.hosts[1]] == HEALTHY  # as those say that know
    world.balancers.check(PASSED)
    assert len(elb.endpoints()[name]) == 2
    assert world.health(group)[world.hosts[2]] == HEALTHY


# --- attributes
@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("idle_timeout.timeout_seconds", "30", None),
        ("idle_timeout.timeout_seconds", "0", "ValidationError"),
        ("routing.http.xff_header_processing.mode", "sometimes", "ValidationError"),
        ("routing.http2.enabled", "yes", "ValidationError"),
        ("load_balancing.cross_zone.enabled", "false", "ValidationError"),
        ("connection_logs.s3.enabled", "true", "NotTrueInTheLab"),
        ("zonal_shift.config.enabled", "true", "NotTrueInTheLab"),
        ("colour", "blue", "ValidationError"),
    ],
)
def test_attributes_of_load_balancers(world: World, key: str, value: str, code: str | None) -> None:
    arn = world.balancer()["LoadBalancerArn"]
    change = {"LoadBalancerArn": arn, "Attributes": [{"Key": key, "Value": value}]}
    if code:
        with pytest.raises(ClientError, match=code):
            world.elb.modify_load_balancer_attributes(**change)
        return
    world.elb.modify_load_balancer_attributes(**change)
    found = world.elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    assert {a["Key"]: a["Value"] for a in found}[key] == value


def test_attributes_reach_the_nodes(world: World) -> None:
    arn, _ = world.stand()
    wanted = {
        "idle_timeout.timeout_seconds": "7",
        "routing.http2.enabled": "false",
        "routing.http.xff_header_processing.mode": "preserve",
        "routing.http.drop_invalid_header_fields.enabled": "true",
    }
    world.elb.modify_load_balancer_attributes(
        LoadBalancerArn=arn, Attributes=[{"Key": k, "Value": v} for k, v in wanted.items()]
    )
    found = world.node().behaviour
    assert (found.idle, found.http2, found.forwarded_for) == (7, False, "preserve")
    assert found.drop_invalid


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"deregistration_delay.timeout_seconds": "3600"}, None),
        ({"deregistration_delay.timeout_seconds": "3601"}, "ValidationError"),
        ({"slow_start.duration_seconds": "30"}, None),
        ({"slow_start.duration_seconds": "5"}, "ValidationError"),
        ({"stickiness.type": "app_cookie"}, "NotTrueInTheLab"),
        ({"stickiness.type": "source_ip"}, "ValidationError"),
        ({"load_balancing.cross_zone.enabled": "false"}, None),
        ({"load_balancing.cross_zone.enabled": "off"}, "ValidationError"),
        (
            {"load_balancing.cross_zone.enabled": "false", "stickiness.enabled": "true"},
            "InvalidConfigurationRequest",
        ),
        ({"load_balancing.algorithm.anomaly_mitigation": "on"}, "NotTrueInTheLab"),
        (
            {"target_group_health.dns_failover.minimum_healthy_targets.count": "2"},
            "NotTrueInTheLab",
        ),
        (
            {
                "slow_start.duration_seconds": "30",
                "load_balancing.algorithm.type": "least_outstanding_requests",
            },
            "InvalidConfigurationRequest",
        ),
        ({"preserve_client_ip.enabled": "true"}, "ValidationError"),
    ],
)
def test_attributes_of_groups(world: World, attributes: dict[str, str], code: str | None) -> None:
    group = world.group()
    change = {
        "TargetGroupArn": group,
        "Attributes": [{"Key": k, "Value": v} for k, v in attributes.items()],
    }
    if code:
        with pytest.raises(ClientError, match=code):
            world.elb.modify_target_group_attributes(**change)
        return
    world.elb.modify_target_group_attributes(**change)
    found = world.elb.describe_target_group_attributes(TargetGroupArn=group)["Attributes"]
    assert {a["Key"]: a["Value"] for a in found}.items() >= attributes.items()


# --- target groups
@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"Protocol": "UDP"}, "NotTrueInTheLab"),
        ({"ProtocolVersion": "GRPC"}, "NotTrueInTheLab"),
        ({"TargetType": "alb", "Protocol": "TCP"}, "NotTrueInTheLab"),
        ({"HealthCheckEnabled": False}, "ValidationError"),
        ({"HealthCheckIntervalSeconds": 301}, "ValidationError"),
        ({"HealthCheckTimeoutSeconds": 10}, "ValidationError"),
        ({"UnhealthyThresholdCount": 11}, "ValidationError"),
        ({"HealthCheckPath": "health"}, "ValidationError"),
        ({"HealthCheckPort": "http"}, "ValidationError"),
        ({"HealthCheckProtocol": "TCP"}, "ValidationError"),
        ({"Matcher": {"HttpCode": "500"}}, "ValidationError"),
        ({"VpcId": "vpc-0123"}, "ValidationError"),
        ({"Name": "-web"}, "ValidationError"),
        ({"Port": 70000}, "ValidationError"),
    ],
)
def test_groups_that_cannot_be(world: World, wanted: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError, match=code):
        world.group(**wanted)
    assert world.elb.describe_target_groups()["TargetGroups"] == []


def test_the_same_group_again_is_the_same(world: World) -> None:
    assert world.group() == world.group()
    with pytest.raises(ClientError, match="DuplicateTargetGroupName"):
        world.group(Port=81)


def test_a_change_that_is_refused_changes_nothing(world: World) -> None:
    group = world.group()
    with pytest.raises(ClientError, match="ValidationError"):
        world.elb.modify_target_group(
            TargetGroupArn=group, HealthCheckPath="/new", HealthCheckIntervalSeconds=5
        )
    [found] = world.elb.describe_target_groups(TargetGroupArns=[group])["TargetGroups"]
    assert (found["HealthCheckPath"], found["HealthCheckIntervalSeconds"]) == ("/", 10)


def test_a_group_knows_its_load_balancer(world: World) -> None:
    balancer, group = world.stand()

    def arns() -> list[str]:
        [found] = world.elb.describe_target_groups(TargetGroupArns=[group])["TargetGroups"]
        return list(found["LoadBalancerArns"])

    assert arns() == [balancer]
    with pytest.raises(ClientError, match="ResourceInUse"):
        world.elb.delete_target_group(TargetGroupArn=group)
    other = world.balancer("other", Scheme="internal")["LoadBalancerArn"]
    with pytest.raises(ClientError, match="TargetGroupAssociationLimit"):
        world.listener(other, group)
    world.elb.delete_load_balancer(LoadBalancerArn=balancer)
    assert arns() == []
    world.elb.delete_target_group(TargetGroupArn=group)


# --- targets
def test_the_life_of_a_target(world: World) -> None:
    balancer = world.balancer()["LoadBalancerArn"]
    group = world.group()
    host, other = world.hosts[:2]
    world.register(group, host)
    assert world.health(group) == {host: NOT_IN_USE}
    world.listener(balancer, group)
    assert world.health(group) == {host: REGISTERING}
    assert world.balancers.check(PASSED) == 0  # no node yet
    world.balancers.report(Event.RUNNING)
    assert world.balancers.check(FAILED) == 2
    assert world.health(group) == {host: CHECKING}
    assert world.balancers.check(PASSED, 9) == 0
    assert world.balancers.check(PASSED, 1) == 2
    assert world.health(group) == {host: HEALTHY}
    world.balancers.check(TIMED_OUT, 10)
    assert world.health(group) == {host: HEALTHY}
    world.balancers.check(mismatch(404), 10)
    assert world.health(group) == {host: ("unhealthy", "Target.ResponseCodeMismatch")}
    for _ in range(2):
        world.balancers.check(PASSED, 10)
        assert world.health(group)[host][0] == "unhealthy"
    world.balancers.check(PASSED, 10)
    assert world.health(group) == {host: HEALTHY}
    assert world.health(group, host, other) == {host: HEALTHY, other: NOT_REGISTERED}


def test_a_target_drains_for_its_delay_and_can_come_back(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    world.register(group, host)
    world.balancers.check(PASSED)
    world.deregister(group, host)
    assert world.health(group) == {host: DRAINING}
    assert [s.ready for s in world.node().pools[0].servers] == [False]
    world.balancers.check(PASSED, 299)
    assert world.health(group) == {host: DRAINING}
    world.deregister(group, host)  # does not begin anew
    world.balancers.check(PASSED, 1)
    assert world.health(group) == {}
    assert world.health(group, host) == {host: NOT_REGISTERED}
    world.register(group, host)
    world.balancers.check(PASSED)
    world.deregister(group, host)
    world.register(group, host)
    assert world.health(group) == {host: REGISTERING}
    world.balancers.check(PASSED)
    assert world.health(group) == {host: HEALTHY}
    world.balancers.check(PASSED, 400)
    assert world.health(group) == {host: HEALTHY}


def test_a_target_is_healthy_once_it_really_gets_requests(world: World) -> None:
    _, group = world.stand()
    first, second = world.hosts[:2]
    world.register(group, first)
    world.balancers.check(PASSED)
    world.register(group, second)
    world.balancers.follows = False
    world.balancers.check(PASSED)
    assert world.health(group) == {first: HEALTHY, second: CHECKING}
    world.balancers.follow()
    assert world.health(group) == {first: HEALTHY, second: HEALTHY}
    for _ in range(2):
        world.balancers.check(lambda job: PASSED if job.target.id == first else FAILED, 10)
    world.balancers.follow()
    for _ in range(3):
        world.balancers.check(PASSED, 10)
    assert world.health(group)[second] == ("unhealthy", "Target.FailedHealthChecks")
    world.balancers.follow()
    assert world.health(group)[second] == HEALTHY


def test_a_target_that_comes_back_is_healthy_once_it_gets_requests_again(world: World) -> None:
    """What a node did with its last registration says nothing of this one."""
    _, group = world.stand()
    host = world.hosts[0]
    world.register(group, host)
    world.balancers.check(PASSED)
    world.balancers.follows = False
    world.deregister(group, host)
    world.register(group, host)
    world.balancers.check(PASSED)
    assert world.health(group) == {host: CHECKING}
    world.balancers.follow()
    assert world.health(group) == {host: HEALTHY}


def test_registering_again_changes_nothing(world: World) -> None:
    _, group = world.stand()
    world.register(group, world.hosts[0])
    world.balancers.check(PASSED)
    world.register(group, world.hosts[0])
    assert world.health(group) == {world.hosts[0]: HEALTHY}


def test_without_a_delay_a_target_is_gone_at_once(world: World) -> None:
    _, group = world.stand()
    attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": "0"}
    world.elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=[attribute])
    world.register(group, world.hosts[0])
    world.deregister(group, world.hosts[0], world.hosts[1])
    assert world.health(group) == {}


def test_a_check_that_ends_after_its_target_left_counts_for_nothing(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    world.register(group, host)
    [backend] = [b for b in elb.backends() if b.target_groups]
    job = next(iter(backend.due(world.balancers.time)))
    world.deregister(group, host)
    world.register(group, host)
    assert backend.judge(job, PASSED) is False
    assert world.health(group) == {host: REGISTERING}


def test_one_host_with_two_ports_is_two_targets(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    targets = [{"Id": host, "Port": 8080}, {"Id": host, "Port": 8081}]
    world.elb.register_targets(TargetGroupArn=group, Targets=targets)
    world.balancers.check(lambda job: PASSED if job.port == 8081 else FAILED)
    found = world.elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    assert [
        (d["Target"]["Port"], d["HealthCheckPort"], d["TargetHealth"]["State"]) for d in found
    ] == [(8080, "8080", "initial"), (8081, "8081", "healthy")]
    world.elb.deregister_targets(TargetGroupArn=group, Targets=targets[1:])
    assert {d.port for d in _targets(group) if d.until is None} == {8080}


def _targets(group: str) -> list[elb.Target]:
    return [t for b in elb.backends() for t in b.target_groups[group].registered.values()]


def test_checks_go_where_the_group_says(world: World) -> None:
    balancer = world.balancer()["LoadBalancerArn"]
    group = world.group(
        HealthCheckPort="9000", HealthCheckPath="/ready?deep=1", HealthCheckTimeoutSeconds=3,
        Matcher={"HttpCode": "200-204"},
    )  # fmt: skip
    world.listener(balancer, group)
    world.balancers.report(Event.RUNNING, "us-east-1a")
    world.register(group, world.hosts[0])
    [backend] = [b for b in elb.backends() if b.target_groups]
    [job] = backend.due(world.balancers.time)
    assert job.port == 9000
    assert (
        job.address
        == world.ec2.describe_instances(InstanceIds=[world.hosts[0]])["Reservations"][0][
            "Instances"
        ][0]["PrivateIpAddress"]
    )
    assert job.check == Check("HTTP", "/ready?deep=1", "200-204", 10, 3, 3, 2)


def test_zones_that_are_not_enabled_are_unused(world: World) -> None:
    _, group = world.stand()
    world.register(group, world.hosts[2])
    world.balancers.check(PASSED)
    assert world.health(group) == {world.hosts[2]: NOT_IN_USE}
    assert world.node().pools[0].servers == ()


def test_a_stopped_host_is_unused_and_begins_anew(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    world.register(group, host)
    world.balancers.check(PASSED)
    world.ec2.stop_instances(InstanceIds=[host])
    world.physics.report(host, Event.STOPPED)
    world.balancers.check(PASSED)
    assert world.health(group) == {host: ("unused", "Target.InvalidState")}
    world.ec2.start_instances(InstanceIds=[host])
    world.physics.report(host, Event.RUNNING)
    assert world.health(group) == {host: REGISTERING}
    world.balancers.check(PASSED)
    assert world.health(group) == {host: HEALTHY}


def test_a_terminated_host_leaves_by_itself(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    world.register(group, host)
    world.balancers.check(PASSED)
    world.ec2.terminate_instances(InstanceIds=[host])
    world.balancers.check(PASSED)
    assert world.health(group) == {host: DRAINING}
    world.physics.report(host, Event.TERMINATED)
    world.balancers.check(PASSED, 300)
    assert world.health(group) == {}


def test_targets_that_cannot_be_registered(world: World) -> None:
    _, group = world.stand()
    pending = world.host(world.subnets[0], up=False)
    other = world.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = world.ec2.create_subnet(VpcId=other, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    strange = world.host(subnet)
    for wrong, message in (
        (pending, "not in a running state"),
        (strange, "not in the target group VPC"),
        ("i-00000000000000000", "not valid instances"),
    ):
        with pytest.raises(ClientError, match=f"InvalidTarget.*{message}"):
            world.register(group, world.hosts[0], wrong)
    assert world.health(group) == {}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.1.0.200", None),
        ("192.168.3.4", None),
        ("192.0.2.1", "InvalidTarget"),
        ("10.1.0", "ValidationError"),
    ],
)
def test_addresses_as_targets(world: World, address: str, code: str | None) -> None:
    balancer, _ = world.stand()
    group = world.group("ips", TargetType="ip")
    world.listener(balancer, group, 81)
    if code:
        with pytest.raises(ClientError, match=code):
            world.register(group, address)
        return
    world.register(group, address)
    world.balancers.check(lambda job: PASSED if job.address == address else FAILED)
    assert world.health(group) == {address: HEALTHY}


def test_nodes_do_not_agree(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    world.register(group, host)
    first = elb.nodes()[0].key
    world.balancers.check(PASSED)

    def partly(job: elb.Job) -> Outcome:
        return PASSED if job.node == first else TIMED_OUT

    world.balancers.check(partly, 10)
    world.balancers.check(partly, 10)
    assert world.health(group) == {host: ("unhealthy", "Target.Timeout")}
    world.balancers.report(Event.IMPAIRED, "us-east-1b")
    assert world.health(group) == {host: HEALTHY}  # who is dead says nothing
    world.balancers.report(Event.IMPAIRED, "us-east-1a")
    assert world.health(group) == {host: ("unavailable", "Elb.InternalError")}


# --- what nodes do
def test_nodes_get_who_is_well_and_all_if_nobody_is(world: World) -> None:
    _, group = world.stand()
    first, second = world.hosts[:2]
    world.register(group, first, second)

    def ready() -> dict[str, bool]:
        [pool] = world.node().pools
        return {server.name.partition(":")[0]: server.ready for server in pool.servers}

    assert ready() == {first: True, second: True}
    names = {first: PASSED, second: FAILED}
    world.balancers.check(lambda job: names[job.target.id])
    assert ready() == {first: True, second: False}
    world.balancers.check(FAILED, 10)
    world.balancers.check(FAILED, 10)
    assert ready() == {first: True, second: True}
    world.deregister(group, first)
    assert ready() == {first: False, second: True}


# --- zones
NO_ZONE = {"load_balancing.cross_zone.enabled": "false"}


def ready_in(world: World) -> dict[str, set[str]]:
    """Return to which hosts the node of each zone passes on requests, by the hosts' zone."""
    zone = dict(zip(world.hosts, "abc", strict=True))
    return {
        where: {
            zone[server.name.partition(":")[0]]
            for server in world.node(f"us-east-1{where}").pools[0].servers
            if server.ready
        }
        for where in "ab"
    }


@pytest.mark.parametrize(
    ("cross_zone", "well", "ready", "served"),
    [
        ("true", "ab", {"a": {"a", "b"}, "b": {"a", "b"}}, "ab"),
        ("true", "b", {"a": {"b"}, "b": {"b"}}, "ab"),
        ("use_load_balancer_configuration", "b", {"a": {"b"}, "b": {"b"}}, "ab"),
        ("false", "ab", {"a": {"a"}, "b": {"b"}}, "ab"),
        ("false", "b", {"a": {"a"}, "b": {"b"}}, "b"),
        ("false", "", {"a": {"a"}, "b": {"b"}}, "ab"),
    ],
)
def test_cross_zone(
    world: World, cross_zone: str, well: str, ready: dict[str, set[str]], served: str
) -> None:
    """What each node does when only the targets of some zones are well, and who is in DNS."""
    _, group = world.stand()
    [name] = elb.endpoints()
    addresses = dict(zip("ab", elb.endpoints()[name], strict=True))
    world.set_group(group, **{"load_balancing.cross_zone.enabled": cross_zone})
    world.register(group, *world.hosts[:2])
    fit = {world.hosts["ab".index(zone)] for zone in well}
    for _ in range(2):
        world.balancers.check(lambda job: PASSED if job.target.id in fit else FAILED, 10)
    assert ready_in(world) == ready
    assert elb.endpoints()[name] == tuple(addresses[zone] for zone in served)
    states = {host: state for host, (state, _) in world.health(group).items()}
    assert {host for host, state in states.items() if state == "healthy"} == fit


def test_a_zone_without_targets_leaves_the_name_and_answers_503(world: World) -> None:
    _, group = world.stand()
    [name] = elb.endpoints()
    first, second = elb.endpoints()[name]
    world.set_group(group, **NO_ZONE)
    assert elb.endpoints()[name] == (first, second)  # an empty group: open to all
    world.register(group, world.hosts[1])
    world.balancers.check(PASSED)
    assert elb.endpoints()[name] == (second,)
    assert ready_in(world) == {"a": set(), "b": {"b"}}
    world.register(group, world.hosts[0])
    world.balancers.check(PASSED)
    assert elb.endpoints()[name] == (first, second)


def test_a_zone_serves_only_with_a_healthy_target_in_every_group(world: World) -> None:
    balancer, group = world.stand()
    other = world.group("other")
    world.listener(balancer, other, 81)
    [name] = elb.endpoints()
    first, second = elb.endpoints()[name]
    world.set_group(other, **NO_ZONE)
    world.register(group, world.hosts[0])
    world.register(other, *world.hosts[:2])
    world.balancers.check(PASSED)
    assert elb.endpoints()[name] == (first, second)
    world.deregister(other, world.hosts[0])
    assert elb.endpoints()[name] == (second,)


def test_the_node_of_its_zone_alone_says_how_a_target_is(world: World) -> None:
    _, group = world.stand()
    host = world.hosts[0]
    world.set_group(group, **NO_ZONE)
    world.register(group, host)
    first = next(node.key for node in elb.nodes() if node.zone == "us-east-1a")
    for _ in range(2):
        world.balancers.check(lambda job: PASSED if job.node == first else FAILED, 10)
    assert world.health(group) == {host: HEALTHY}
    world.balancers.report(Event.IMPAIRED, "us-east-1a")
    assert world.health(group) == {host: ("unavailable", "Elb.InternalError")}
    world.balancers.report(Event.RUNNING, "us-east-1a")
    assert world.health(group) == {host: REGISTERING}
    world.balancers.check(PASSED, 10)
    assert world.health(group) == {host: HEALTHY}


def test_targets_of_other_zones_stay_for_what_is_under_way(world: World) -> None:
    _, group = world.stand()
    world.register(group, *world.hosts[:2])
    world.balancers.check(PASSED)
    world.set_group(group, **NO_ZONE)
    [pool] = world.node().pools
    assert [server.ready for server in pool.servers] == [True, False]
    world.set_group(group, **{"load_balancing.cross_zone.enabled": "true"})
    assert ready_in(world) == {"a": {"a", "b"}, "b": {"a", "b"}}


def test_addresses_are_in_the_zone_of_their_subnet(world: World) -> None:
    balancer, _ = world.stand()
    group = world.group("ips", TargetType="ip")
    world.listener(balancer, group, 81)
    world.register(group, "192.168.3.4")
    with pytest.raises(ClientError, match=r"InvalidConfigurationRequest.*192\.168\.3\.4"):
        world.set_group(group, **NO_ZONE)
    world.deregister(group, "192.168.3.4")
    world.balancers.check(PASSED, 300)
    world.set_group(group, **NO_ZONE)
    with pytest.raises(ClientError, match="InvalidConfigurationRequest"):
        world.register(group, "192.168.3.4")
    world.register(group, "10.1.0.200", "10.1.1.200")
    assert [server.ready for server in world.node().pools[1].servers] == [True, False]


def test_a_group_as_nodes_know_it(world: World) -> None:
    _, group = world.stand()
    wanted = {
        "stickiness.enabled": "true",
        "stickiness.lb_cookie.duration_seconds": "60",
        "slow_start.duration_seconds": "30",
    }
    world.elb.modify_target_group_attributes(
        TargetGroupArn=group, Attributes=[{"Key": k, "Value": v} for k, v in wanted.items()]
    )
    [pool] = world.node().pools
    assert (pool.sticky, pool.slow_start, pool.secure) == (60, 30, False)
    assert pool.name == ".".join(group.split("/")[-2:])


def test_rules_in_the_order_of_their_priority(world: World) -> None:
    balancer, group = world.stand()
    second = world.group("second")
    [listener] = world.elb.describe_listeners(LoadBalancerArn=balancer)["Listeners"]
    weighted = {
        "Type": "forward",
        "ForwardConfig": {
            "TargetGroups": [
                {"TargetGroupArn": group, "Weight": 90},
                {"TargetGroupArn": second, "Weight": 10},
            ]
        },
    }
    for priority, conditions, action in (
        (20, [{"Field": "path-pattern", "Values": ["/api/*"]}], weighted),
        (
            10,
            [
                {
                    "Field": "query-string",
                    "QueryStringConfig": {"Values": [{"Key": "v", "Value": "2"}, {"Value": "x"}]},
                },
                {"Field": "host-header", "HostHeaderConfig": {"Values": ["a.test", "b.test"]}},
            ],
            {
                "Type": "redirect",
                "RedirectConfig": {"StatusCode": "HTTP_301", "Protocol": "HTTPS", "Port": "443"},
            },
        ),
        (
            30,
            [
                {
                    "Field": "http-header",
                    "HttpHeaderConfig": {"HttpHeaderName": "User-Agent", "Values": ["*Bot*"]},
                }
            ],
            {
                "Type": "fixed-response",
                "FixedResponseConfig": {"StatusCode": "403", "MessageBody": "no"},
            },
        ),
    ):
        world.elb.create_rule(
            ListenerArn=listener["ListenerArn"],
            Priority=priority,
            Conditions=conditions,
            Actions=[action],
        )
    [found] = world.node().listeners
    names = [".".join(arn.split("/")[-2:]) for arn in (group, second)]
    assert [rule.action for rule in found.rules] == [
        Redirect(301, "HTTPS", port="443"),
        Forward(((names[0], 90), (names[1], 10))),
        Fixed(403, "", "no"),
        Forward(((names[0], 1),)),
    ]
    assert [rule.conditions for rule in found.rules] == [
        (
            Condition("query-string", ("v=2", "x")),
            Condition("host-header", ("a.test", "b.test")),
        ),
        (Condition("path-pattern", ("/api/*",)),),
        (Condition("http-header", ("*Bot*",), "User-Agent"),),
        (),
    ]
    assert [pool.name for pool in world.node().pools] == names


def test_rules_that_cannot_be(world: World) -> None:
    balancer, group = world.stand()
    [listener] = world.elb.describe_listeners(LoadBalancerArn=balancer)["Listeners"]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    path = [{"Field": "path-pattern", "Values": ["/a"]}]
    sticky = {
        "Type": "forward",
        "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": group}],
            "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 60},
        },
    }
    oidc = {
        "Type": "authenticate-cognito",
        "AuthenticateCognitoConfig": {
            "UserPoolArn": "a", "UserPoolClientId": "b", "UserPoolDomain": "c",
        },
    }  # fmt: skip
    loop = {"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_301"}}
    source = {"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.1/8"]}}
    regex = {"Field": "path-pattern", "PathPatternConfig": {"RegexValues": ["^/a"]}}
    for conditions, actions, code in (
        (path, [sticky], "NotTrueInTheLab"),
        (path, [oidc], "NotTrueInTheLab"),
        (path, [loop], "InvalidLoadBalancerAction"),
        (path, [{"Type": "forward", "TargetGroupArn": group + "0"}], "TargetGroupNotFound"),
        ([source], forward, "ValidationError"),
        ([regex], forward, "NotTrueInTheLab|InvalidConditionValue|ValidationError"),
    ):
        with pytest.raises(ClientError, match=code):
            world.elb.create_rule(
                ListenerArn=listener["ListenerArn"],
                Priority=5,
                Conditions=conditions,
                Actions=actions,
            )
    [default] = world.elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        world.elb.delete_rule(RuleArn=default["RuleArn"])


def test_a_port_is_listened_on_once(world: World) -> None:
    balancer, group = world.stand()
    with pytest.raises(ClientError, match="DuplicateListener"):
        world.listener(balancer, group)
    second = world.listener(balancer, group, 81)
    with pytest.raises(ClientError, match="DuplicateListener"):
        world.elb.modify_listener(ListenerArn=second, Port=80)
    world.elb.modify_listener(ListenerArn=second, Port=82)
    assert [listener.port for listener in world.node().listeners] == [80, 82]


# --- certificates
def issued(world: World, *names: str) -> str:
    acm = world.client("acm")
    arn = acm.request_certificate(
        DomainName=names[0], SubjectAlternativeNames=list(names), ValidationMethod="DNS"
    )["CertificateArn"]
    bundle = acm_backends["123456789012"]["us-east-1"]._certificates[arn]
    bundle.created_at -= timedelta(hours=1)  # validated long ago
    return str(arn)


def test_a_listener_presents_the_certificate_of_acm(world: World) -> None:
    balancer, group = world.stand()
    arn = issued(world, "shop.test", "*.shop.test")
    more = {"Protocol": "HTTPS", "Certificates": [{"CertificateArn": arn}]}
    policy = "ELBSecurityPolicy-TLS13-1-3-2021-06"
    listener = world.listener(balancer, group, 443, SslPolicy=policy, **more)
    found = world.node().listeners[1]
    assert found.tls == ("TLSv1.3", "TLSv1.3")
    [pem] = found.certificates
    answer = world.client("acm").get_certificate(CertificateArn=arn)
    assert pem.startswith("-----BEGIN PRIVATE KEY-----")
    assert answer["Certificate"].strip() in pem
    leaf = x509.load_pem_x509_certificate(answer["Certificate"].encode())
    chain = x509.load_pem_x509_certificate(answer["CertificateChain"].encode())
    leaf.verify_directly_issued_by(chain)
    ssl.create_default_context(cadata=answer["CertificateChain"])
    other = issued(world, "other.test")
    world.elb.add_listener_certificates(
        ListenerArn=listener, Certificates=[{"CertificateArn": other}, {"CertificateArn": arn}]
    )
    assert len(world.node().listeners[1].certificates) == 2
    with pytest.raises(ClientError, match="ResourceInUse"):
        world.client("acm").delete_certificate(CertificateArn=other)
    world.elb.modify_listener(ListenerArn=listener, Protocol="HTTP")
    assert world.node().listeners[1].certificates == ()
    world.client("acm").delete_certificate(CertificateArn=other)


def test_a_listener_never_speaks_without_its_certificate(world: World) -> None:
    balancer, group = world.stand()
    arn = issued(world, "shop.test")
    more = {"Protocol": "HTTPS", "Certificates": [{"CertificateArn": arn}]}
    world.listener(balancer, group, 443, **more)
    certificates = acm_backends["123456789012"]["us-east-1"]._certificates
    certificates[arn].status = "EXPIRED"
    assert [listener.port for listener in world.node().listeners] == [80, 443]
    del certificates[arn]
    assert [listener.port for listener in world.node().listeners] == [80]


def test_listeners_without_a_certificate_that_serves(world: World) -> None:
    balancer, group = world.stand()
    acm = world.client("acm")
    pending = acm.request_certificate(DomainName="shop.test", ValidationMethod="DNS")
    for certificates, code in (
        ([], "ValidationError"),
        ([{"CertificateArn": pending["CertificateArn"]}], "UnsupportedCertificate"),
        (
            [{"CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/none"}],
            "CertificateNotFound",
        ),
    ):
        with pytest.raises(ClientError, match=code):
            world.listener(balancer, group, 443, Protocol="HTTPS", Certificates=certificates)


def test_others_than_load_balancing_are_as_before(
    world: World, balancers: BalancerRecorder
) -> None:
    """The address of a node is in nobody else's hands."""
    world.balancer()
    taken = {node.interface.public_ip for node in elb.nodes()}
    address = world.ec2.allocate_address(Domain="vpc")["PublicIp"]
    assert address not in taken
    [first, _] = [node.interface.id for node in elb.nodes()]
    with pytest.raises(ClientError, match="InUse"):
        world.ec2.delete_network_interface(NetworkInterfaceId=first)
