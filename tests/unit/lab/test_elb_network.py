"""Network load balancers, as the API tells them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import elb
from lab.elb.health import FAILED, PASSED
from lab.haproxy import Forward
from lab.hosts import Event
from tests.unit.lab.conftest import Recorder
from tests.unit.lab.test_elb import HEALTHY, World, issued


class Network(World):
    """A network load balancer in two zones."""

    def balancer(self, name: str = "front", **more: Any) -> dict[str, Any]:
        return super().balancer(name, **{"Type": "network", **more})

    def group(self, name: str = "web", **more: Any) -> str:
        return super().group(name, **{"Protocol": "TCP", **more})

    def listener(self, balancer: str, group: str, port: int = 80, **more: Any) -> str:
        return super().listener(balancer, group, port, **{"Protocol": "TCP", **more})

    def describe(self) -> dict[str, Any]:
        return dict(self.elb.describe_load_balancers()["LoadBalancers"][0])

    def set_balancer(self, arn: str, **values: str) -> None:
        self.elb.modify_load_balancer_attributes(
            LoadBalancerArn=arn, Attributes=[{"Key": k, "Value": v} for k, v in values.items()]
        )

    def addresses(self, count: int) -> list[dict[str, Any]]:
        return [self.ec2.allocate_address(Domain="vpc") for _ in range(count)]

    def mappings(self, *allocations: str) -> dict[str, Any]:
        pairs = zip(self.subnets, allocations, strict=False)
        return {
            "Subnets": [],
            "SubnetMappings": [{"SubnetId": s, "AllocationId": a} for s, a in pairs],
        }


@pytest.fixture
def network(client: Any, physics: Recorder) -> Network:
    return Network(client, physics)


CROSS_ZONE = "load_balancing.cross_zone.enabled"


# --- load balancers
def test_its_names(network: Network) -> None:
    found = network.balancer()
    kind, name, word = found["LoadBalancerArn"].partition("loadbalancer/")[2].split("/")
    assert (kind, name, found["Type"]) == ("net", "front", "network")
    assert found["DNSName"] == f"front-{word}.elb.us-east-1.amazonaws.com"
    network.balancers.report(Event.RUNNING)
    assert network.state() == "active"
    whole = elb.endpoints()[found["DNSName"]]
    assert len(whole) == 2
    zones = tuple(elb.endpoints()[f"us-east-1{zone}.{found['DNSName']}"] for zone in "ab")
    assert zones == tuple((address,) for address in whole)


def test_one_zone_is_enough(network: Network) -> None:
    network.balancer(Subnets=network.subnets[:1])
    assert len(elb.nodes()) == 1


def test_the_same_again_is_the_same_and_its_kind_counts(network: Network) -> None:
    first = network.balancer(Tags=[{"Key": "a", "Value": "b"}])["LoadBalancerArn"]
    assert network.balancer()["LoadBalancerArn"] == first
    tags = network.elb.describe_tags(ResourceArns=[first])["TagDescriptions"][0]["Tags"]
    assert tags == [{"Key": "a", "Value": "b"}]
    with pytest.raises(ClientError, match="DuplicateLoadBalancerName"):
        network.balancer(Type="application")
    network.elb.delete_load_balancer(LoadBalancerArn=first)
    assert network.elb.describe_load_balancers()["LoadBalancers"] == []


def test_without_security_groups_it_is_open(network: Network) -> None:
    arn = network.balancer()["LoadBalancerArn"]
    assert network.describe().get("SecurityGroups", []) == []
    assert all(node.open for node in elb.nodes())
    group = network.ec2.create_security_group(GroupName="g", Description="g", VpcId=network.vpc)[
        "GroupId"
    ]
    with pytest.raises(ClientError, match="InvalidConfigurationRequest"):
        network.elb.set_security_groups(LoadBalancerArn=arn, SecurityGroups=[group])
    other = network.balancer("other", SecurityGroups=[group], Scheme="internal")
    assert other["SecurityGroups"] == [group]
    assert [node.open for node in elb.nodes()] == [True, True, False, False]


# --- addresses of one's own
def test_elastic_ips_are_where_its_name_leads(network: Network) -> None:
    first, second = network.addresses(2)
    wanted = network.mappings(first["AllocationId"], second["AllocationId"])
    found = network.balancer(**wanted)
    network.balancers.report(Event.RUNNING)
    assert elb.endpoints()[found["DNSName"]] == (first["PublicIp"], second["PublicIp"])
    zones = network.describe()["AvailabilityZones"]
    assert [zone["LoadBalancerAddresses"] for zone in zones] == [
        [{"IpAddress": a["PublicIp"], "AllocationId": a["AllocationId"]}] for a in (first, second)
    ]
    assert network.balancer(**wanted)["LoadBalancerArn"] == found["LoadBalancerArn"]
    [address] = network.ec2.describe_addresses(PublicIps=[first["PublicIp"]])["Addresses"]
    for call, more in (
        ("disassociate_address", {"AssociationId": address["AssociationId"]}),
        ("release_address", {"AllocationId": first["AllocationId"]}),
        (
            "associate_address",
            {"AllocationId": first["AllocationId"], "InstanceId": network.hosts[0],
             "AllowReassociation": True},
        ),
    ):  # fmt: skip
        with pytest.raises(ClientError, match="AuthFailure"):
            getattr(network.ec2, call)(**more)
    network.elb.delete_load_balancer(LoadBalancerArn=found["LoadBalancerArn"])
    network.balancers.report(Event.TERMINATED)
    for address in (first, second):
        network.ec2.release_address(AllocationId=address["AllocationId"])


def test_addresses_that_cannot_be(network: Network) -> None:
    [address] = network.addresses(1)
    allocation = address["AllocationId"]
    both = network.mappings(allocation, allocation)
    private = [{"SubnetId": network.subnets[0], "PrivateIPv4Address": "10.1.0.9"}]
    for more, code in (
        ({**network.mappings(allocation), "Scheme": "internal"}, "InvalidConfigurationRequest"),
        (network.mappings("eipalloc-0123"), "AllocationIdNotFound"),
        (both, "InvalidConfigurationRequest"),
        ({"Subnets": [], "SubnetMappings": private}, "NotTrueInTheLab"),
        ({**network.mappings(allocation), "Type": "application"}, "NotTrueInTheLab"),
    ):
        with pytest.raises(ClientError, match=code):
            network.balancer(**more)
    network.ec2.associate_address(AllocationId=allocation, InstanceId=network.hosts[0])
    with pytest.raises(ClientError, match=r"InvalidConfigurationRequest.*in use"):
        network.balancer(**network.mappings(allocation))
    assert elb.nodes() == []


# --- attributes
@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (CROSS_ZONE, "true", None),
        ("deletion_protection.enabled", "true", None),
        ("access_logs.s3.enabled", "true", "NotTrueInTheLab"),
        ("dns_record.client_routing_policy", "availability_zone_affinity", "NotTrueInTheLab"),
        ("secondary_ips.auto_assigned.per_subnet", "2", "NotTrueInTheLab"),
        ("idle_timeout.timeout_seconds", "30", "ValidationError"),
    ],
)
def test_attributes_of_load_balancers(
    network: Network, key: str, value: str, code: str | None
) -> None:
    arn = network.balancer()["LoadBalancerArn"]
    if code:
        with pytest.raises(ClientError, match=code):
            network.set_balancer(arn, **{key: value})
        return
    network.set_balancer(arn, **{key: value})
    found = network.elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    assert {a["Key"]: a["Value"] for a in found}[key] == value


CUT = "target_health_state.unhealthy.connection_termination.enabled"
WAIT = "target_health_state.unhealthy.draining_interval_seconds"


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"proxy_protocol_v2.enabled": "true"}, None),
        ({"preserve_client_ip.enabled": "false"}, None),
        ({"preserve_client_ip.enabled": "true"}, "NotTrueInTheLab"),
        ({"deregistration_delay.connection_termination.enabled": "true"}, None),
        ({"stickiness.enabled": "true", "stickiness.type": "source_ip"}, None),
        ({"stickiness.type": "lb_cookie"}, "ValidationError"),
        ({"slow_start.duration_seconds": "30"}, "ValidationError"),
        ({CUT: "false"}, None),
        ({WAIT: "30"}, "InvalidConfigurationRequest"),
        ({CUT: "false", WAIT: "30"}, "NotTrueInTheLab"),
    ],
)
def test_attributes_of_groups(
    network: Network, attributes: dict[str, str], code: str | None
) -> None:
    group = network.group()
    if code:
        with pytest.raises(ClientError, match=code):
            network.set_group(group, **attributes)
        return
    network.set_group(group, **attributes)
    found = network.elb.describe_target_group_attributes(TargetGroupArn=group)["Attributes"]
    assert {a["Key"]: a["Value"] for a in found}.items() >= attributes.items()


# --- target groups
@pytest.mark.parametrize(
    ("wanted", "protocol", "timeout", "path", "codes"),
    [
        ({}, "TCP", 10, None, None),
        ({"HealthCheckProtocol": "HTTP"}, "HTTP", 6, "/", "200-399"),
        (
            {"HealthCheckProtocol": "HTTPS", "HealthCheckPath": "/up",
             "Matcher": {"HttpCode": "599"}, "HealthCheckTimeoutSeconds": 3},
            "HTTPS", 3, "/up", "599",
        ),
    ],
)  # fmt: skip
def test_health_checks(
    network: Network, wanted: dict[str, Any], protocol: str, timeout: int, path: str, codes: str
) -> None:
    group = network.group(**wanted)
    [found] = network.elb.describe_target_groups(TargetGroupArns=[group])["TargetGroups"]
    assert found["HealthCheckProtocol"] == protocol
    assert found["HealthCheckTimeoutSeconds"] == timeout
    assert found.get("HealthCheckPath") == path
    assert found.get("Matcher", {}).get("HttpCode") == codes


def test_health_checks_change(network: Network) -> None:
    group = network.group()
    network.elb.modify_target_group(
        TargetGroupArn=group, HealthCheckProtocol="HTTP", HealthCheckPath="/up",
        HealthCheckTimeoutSeconds=5,
    )  # fmt: skip
    [found] = network.elb.describe_target_groups(TargetGroupArns=[group])["TargetGroups"]
    assert (found["HealthCheckPath"], found["Matcher"]["HttpCode"]) == ("/up", "200-399")


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"Protocol": "UDP"}, "NotTrueInTheLab"),
        ({"TargetType": "alb"}, "NotTrueInTheLab"),
        ({"ProtocolVersion": "HTTP1"}, "ValidationError"),
        ({"HealthCheckProtocol": "TLS"}, "ValidationError"),
        ({"HealthCheckTimeoutSeconds": 11}, "ValidationError"),
    ],
)
def test_groups_that_cannot_be(network: Network, wanted: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError, match=code):
        network.group(**wanted)


# --- listeners
def test_listeners_and_groups_fit(network: Network) -> None:
    arn = network.balancer()["LoadBalancerArn"]
    web, tcp, tls = (network.group(name, Protocol=name.upper()) for name in ("http", "tcp", "tls"))
    certificate = [{"CertificateArn": issued(network, "shop.test")}]
    for group, more, code in (
        (web, {}, "IncompatibleProtocols"),
        (tls, {}, "IncompatibleProtocols"),
        (tcp, {"Protocol": "HTTP"}, "ValidationError"),
        (tcp, {"Protocol": "UDP"}, "NotTrueInTheLab"),
        (tcp, {"Protocol": "TLS"}, "ValidationError"),
        (tcp, {"Certificates": certificate}, "ValidationError"),
        (
            tcp,
            {"Protocol": "TLS", "Certificates": certificate, "AlpnPolicy": ["HTTP2Only"]},
            "NotTrueInTheLab",
        ),
        (
            tcp,
            {"DefaultActions": [
                {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}
            ]},
            "InvalidLoadBalancerAction",
        ),
    ):  # fmt: skip
        with pytest.raises(ClientError, match=code):
            network.listener(arn, group, **more)
    listener = network.listener(arn, tcp)
    network.listener(arn, tls, 443, Protocol="TLS", Certificates=certificate)
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        network.elb.create_rule(
            ListenerArn=listener,
            Priority=1,
            Conditions=[{"Field": "path-pattern", "Values": ["/a"]}],
            Actions=[{"Type": "forward", "TargetGroupArn": tcp}],
        )
    plain, secure = network.node().listeners
    assert (plain.port, plain.tcp, plain.certificates) == (80, True, ())
    assert (secure.port, secure.tcp, len(secure.certificates)) == (443, True, 1)
    assert secure.rules[0].action == Forward(((network.node().pools[1].name, 1),))
    assert [pool.secure for pool in network.node().pools] == [False, True]
    application = network.balancer("app", Type="application", Scheme="internal")
    with pytest.raises(ClientError, match="IncompatibleProtocols"):
        network.listener(application["LoadBalancerArn"], tcp, Protocol="HTTP")


def test_a_listener_changes_to_tls_and_back(network: Network) -> None:
    arn, _ = network.stand()
    [listener] = network.elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    certificate = [{"CertificateArn": issued(network, "shop.test")}]
    change = {"ListenerArn": listener["ListenerArn"]}
    network.elb.modify_listener(**change, Protocol="TLS", Certificates=certificate, Port=443)
    [found] = network.node().listeners
    assert (found.port, len(found.certificates)) == (443, 1)
    network.elb.modify_listener(**change, Protocol="TCP")
    assert network.node().listeners[0].certificates == ()
    [listener] = network.elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    assert listener["Protocol"] == "TCP"
    assert "SslPolicy" not in listener


# --- targets
@pytest.mark.parametrize(
    ("balancer", "group", "crosses"),
    [
        ("false", "use_load_balancer_configuration", False),
        ("true", "use_load_balancer_configuration", True),
        ("true", "false", False),
        ("false", "true", True),
    ],
)
def test_cross_zone(network: Network, balancer: str, group: str, crosses: bool) -> None:
    arn, target_group = network.stand()
    network.set_balancer(arn, **{CROSS_ZONE: balancer})
    network.set_group(target_group, **{CROSS_ZONE: group})
    network.register(target_group, *network.hosts[:2])
    network.balancers.check(PASSED)
    [pool] = network.node().pools
    assert [server.ready for server in pool.servers] == [True, crosses]


def test_zones_keep_to_themselves_by_default(network: Network) -> None:
    _, group = network.stand()
    name = network.describe()["DNSName"]
    first, second = elb.endpoints()[name]
    network.register(group, *network.hosts[:2])
    for _ in range(2):
        network.balancers.check(
            lambda job: PASSED if job.target.id == network.hosts[1] else FAILED, 10
        )
    assert elb.endpoints()[name] == (second,)
    assert elb.endpoints()[f"us-east-1a.{name}"] == (first,)
    assert network.health(group)[network.hosts[1]] == HEALTHY


@pytest.mark.parametrize(("cut", "expected"), [("true", True), ("false", False)])
def test_connections_to_unhealthy_targets_end(network: Network, cut: str, expected: bool) -> None:
    _, group = network.stand()
    network.set_group(group, **{CROSS_ZONE: "true", CUT: cut})
    network.register(group, *network.hosts[:2])
    network.balancers.check(PASSED)
    assert not any(server.cut for server in network.node().pools[0].servers)
    for _ in range(2):
        network.balancers.check(
            lambda job: PASSED if job.target.id == network.hosts[1] else FAILED, 10
        )
    first, second = network.node().pools[0].servers
    assert (first.ready, first.cut) == (False, expected)
    assert (second.ready, second.cut) == (True, False)
    for _ in range(2):
        network.balancers.check(FAILED, 10)
    assert [(s.ready, s.cut) for s in network.node().pools[0].servers] == [(True, False)] * 2


def test_a_group_as_nodes_know_it(network: Network) -> None:
    _, group = network.stand()
    [pool] = network.node().pools
    assert (pool.tcp, pool.algorithm, pool.proxy, pool.cuts) == (True, "flow_hash", False, False)
    network.set_group(
        group,
        **{
            "stickiness.enabled": "true",
            "proxy_protocol_v2.enabled": "true",
            "deregistration_delay.connection_termination.enabled": "true",
        },
    )
    [pool] = network.node().pools
    assert (pool.algorithm, pool.proxy, pool.cuts) == ("source_ip", True, True)
    network.register(group, network.hosts[0])
    [backend] = [b for b in elb.backends() if b.target_groups]
    assert all(job.check.proxy for job in backend.due(network.balancers.time))
