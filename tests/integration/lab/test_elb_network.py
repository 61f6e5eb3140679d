"""Network load balancers: real connections through real HAProxy."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dnslib import DNSRecord

from lab import lifecycle
from lab.settings import Settings
from tests.integration.lab.conftest import Aws, Box, eventually, opens

# As those of application load balancers: not beside all else that make test runs.
pytestmark = [pytest.mark.lab, pytest.mark.thorough]

SETTINGS = Settings.of("labnlb", "198.18.63.0/24", write_hosts_file=False)
# What runs on the targets: it says who it is, whom it sees and what it heard, as often as it hears.
APP = """
import json, socket, socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            said = {"host": socket.gethostname(), "peer": self.client_address[0],
                    "heard": data.decode("latin-1")}
            self.request.sendall(json.dumps(said).encode() + b"\\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("", 9000), Handler).serve_forever()
"""
CROSS_ZONE = "load_balancing.cross_zone.enabled"


class Talk:
    """A connection that is kept."""

    def __init__(self, address: str, port: int = 80, context: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection((address, port), 10)
        if context:
            self._socket = context.wrap_socket(self._socket, server_hostname="shop.test")

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._socket.close()

    def ask(self, text: str = "hello") -> dict[str, Any] | None:
        """Return what was answered; None if the connection ended."""
        try:
            self._socket.sendall(text.encode())
            answer = self._socket.makefile().readline()
        except OSError:
            return None
        return dict(json.loads(answer)) if answer else None


class Front:
    """A network load balancer with Elastic IPs in two zones, and a target in each."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.api = aws.client("elbv2")
        gateways = aws.ec2.describe_internet_gateways(
            Filters=[{"Name": "attachment.vpc-id", "Values": [aws.vpc]}]
        )
        gateway = gateways["InternetGateways"][0]["InternetGatewayId"]
        subnets = [
            aws.public_subnet,
            aws.subnet("10.77.2.0/24", "us-east-1b", GatewayId=gateway),
        ]
        self.certificate = str(
            aws.client("acm").request_certificate(DomainName="shop.test", ValidationMethod="DNS")[
                "CertificateArn"
            ]
        )
        security, web = aws.group("front"), aws.group("web")
        for port in (80, 443):
            aws.allow(security, port, "0.0.0.0/0")
        for port in (9000, 9001):
            aws.allow(web, port, security)
        self.boxes = [aws.launch(web, subnet=subnet) for subnet in subnets]
        self.allocations = [aws.ec2.allocate_address(Domain="vpc") for _ in subnets]
        self.addresses = [each["PublicIp"] for each in self.allocations]
        found = self.api.create_load_balancer(
            Name="front",
            Type="network",
            SecurityGroups=[security],
            SubnetMappings=[
                {"SubnetId": subnet, "AllocationId": each["AllocationId"]}
                for subnet, each in zip(subnets, self.allocations, strict=True)
            ],
        )["LoadBalancers"][0]
        self.arn, self.name = found["LoadBalancerArn"], found["DNSName"]
        self.group = self.api.create_target_group(
            Name="db", Protocol="TCP", Port=9000, VpcId=aws.vpc, HealthCheckPort="9001",
            HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2, HealthyThresholdCount=2,
            UnhealthyThresholdCount=2,
        )["TargetGroups"][0]["TargetGroupArn"]  # fmt: skip
        self.api.create_listener(
            LoadBalancerArn=self.arn,
            Protocol="TCP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": self.group}],
        )
        packed = base64.b64encode(APP.encode()).decode()
        for box in self.boxes:
            box.wait("running")
            box.run(f"echo {packed} | base64 -d > /tmp/app.py")
            box.run("sudo systemd-run --quiet --unit=app --uid=admin python3 /tmp/app.py")
            self.be_well(box)
        eventually(lambda: self.state == "active", 120)

    def be_well(self, box: Box) -> None:
        """Have health checks of a target pass."""
        box.run("sudo systemd-run --quiet --unit=well --uid=admin python3 -m http.server 9001")

    @property
    def state(self) -> str:
        found = self.api.describe_load_balancers(LoadBalancerArns=[self.arn])["LoadBalancers"]
        return str(found[0]["State"]["Code"])

    def register(self, *boxes: Box) -> None:
        self.api.register_targets(
            TargetGroupArn=self.group, Targets=[{"Id": box.id} for box in boxes]
        )

    def deregister(self, box: Box) -> None:
        self.api.deregister_targets(TargetGroupArn=self.group, Targets=[{"Id": box.id}])

    def health(self, box: Box) -> str:
        found = self.api.describe_target_health(
            TargetGroupArn=self.group, Targets=[{"Id": box.id}]
        )["TargetHealthDescriptions"][0]["TargetHealth"]
        return str(found["State"])

    def wait(self, box: Box, state: str) -> None:
        eventually(lambda: self.health(box) == state, 40)

    def all_well(self) -> None:
        self.register(*self.boxes)
        for box in self.boxes:
            self.wait(box, "healthy")

    @contextmanager
    def attribute(self, **values: str) -> Iterator[None]:
        """Change the group's attributes, and back."""
        found = self.api.describe_target_group_attributes(TargetGroupArn=self.group)
        before = {a["Key"]: a["Value"] for a in found["Attributes"]}

        def put(attributes: dict[str, str]) -> None:
            self.api.modify_target_group_attributes(
                TargetGroupArn=self.group,
                Attributes=[{"Key": k, "Value": v} for k, v in attributes.items()],
            )

        put(values)
        try:
            yield
        finally:
            put({key: before[key] for key in values})

    def resolve(self, zone: str = "", of: str = "") -> set[str]:
        """Ask the lab's names."""
        question = DNSRecord.question(zone + (of or self.name))
        answer = question.send(self.aws.settings.address, 53, timeout=5)
        return {str(record.rdata) for record in DNSRecord.parse(answer).rr}

    def hosts(self, node: int) -> set[str]:
        """Return which hosts answer by one node; nothing where a connection ends."""
        found = set()
        for _ in range(8):
            with Talk(self.addresses[node]) as talk:
                answer = talk.ask()
                found.add(answer["host"] if answer else "")
        return found


def host_of(box: Box) -> str:
    return f"ip-{box.private.replace('.', '-')}"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    lifecycle.down(SETTINGS, print)
    lifecycle.up(SETTINGS, print)
    try:
        yield Aws(SETTINGS, tmp_path_factory.mktemp("aws"))
    finally:
        lifecycle.down(SETTINGS, print)


@pytest.fixture(scope="module")
def front(aws: Aws) -> Front:
    return Front(aws)


def test_its_names_lead_to_its_elastic_ips(front: Front) -> None:
    assert front.resolve() == set(front.addresses)
    assert front.resolve("us-east-1b.") == {front.addresses[1]}
    assert front.hosts(0) == {""}  # nobody is there: a connection opens, and ends


def test_each_zone_keeps_to_itself_unless_told_otherwise(front: Front) -> None:
    front.all_well()
    for node, box in enumerate(front.boxes):
        eventually(lambda n=node, b=box: front.hosts(n) == {host_of(b)}, 10)
    with Talk(front.addresses[0]) as talk:
        answer = talk.ask("x")
        assert answer is not None
        assert answer["heard"] == "x"
        assert answer["peer"].startswith("10.77.0.")  # the node's: clients' are not preserved
        with front.attribute(**{CROSS_ZONE: "true"}):
            eventually(lambda: len(front.hosts(0)) == 2, 10)
            assert talk.ask() is not None
    eventually(lambda: front.hosts(0) == {host_of(front.boxes[0])}, 10)


def test_what_is_under_way_with_a_target_outlives_its_delay(front: Front) -> None:
    front.all_well()
    box, other = front.boxes
    delay = {"deregistration_delay.timeout_seconds": "3", CROSS_ZONE: "true"}
    with front.attribute(**delay):
        eventually(lambda: len(front.hosts(0)) == 2, 10)
        talks = [Talk(front.addresses[0]) for _ in range(12)]
        hosts = [(talk, answer["host"]) for talk in talks if (answer := talk.ask())]
        mine = [talk for talk, host in hosts if host == host_of(box)]
        assert len(hosts) == len(talks)
        assert mine
        front.deregister(box)
        eventually(lambda: front.hosts(0) == {host_of(other)}, 5)
        front.wait(box, "unused")
        time.sleep(2)
        assert all(talk.ask() for talk in mine)
        with front.attribute(**{"deregistration_delay.connection_termination.enabled": "true"}):
            front.all_well()
            eventually(lambda: len(front.hosts(0)) == 2, 10)
            late = [Talk(front.addresses[0]) for _ in range(12)]
            caught = [talk for talk in late if (talk.ask() or {}).get("host") == host_of(box)]
            front.deregister(box)
            front.wait(box, "unused")
            eventually(lambda: not any(talk.ask() for talk in caught), 10)
        for talk in (*talks, *late):
            talk.end()
    front.all_well()


def test_connections_to_an_unhealthy_target_end_and_its_zone_leaves(front: Front) -> None:
    front.all_well()
    first, second = front.addresses
    eventually(lambda: front.resolve() == {first, second}, 10)
    box, other = front.boxes
    with front.attribute(**{CROSS_ZONE: "true"}):
        talks = [Talk(first) for _ in range(8)]
        hosts = [(talk, (talk.ask() or {}).get("host")) for talk in talks]
        box.run("sudo systemctl stop well")
        front.wait(box, "unhealthy")
        eventually(lambda: front.hosts(0) == {host_of(other)}, 5)
        theirs = [talk for talk, host in hosts if host == host_of(other)]
        mine = [talk for talk, host in hosts if host == host_of(box)]
        eventually(lambda: not any(talk.ask() for talk in mine), 5)
        assert all(talk.ask() for talk in theirs)
        for talk in talks:
            talk.end()
    eventually(lambda: front.resolve() == {second}, 5)
    front.be_well(box)
    front.wait(box, "healthy")
    eventually(lambda: front.resolve() == {first, second}, 5)


def test_the_proxy_protocol_tells_of_the_client(front: Front) -> None:
    front.all_well()
    with front.attribute(**{"proxy_protocol_v2.enabled": "true"}):

        def heard() -> bytes:
            with Talk(front.addresses[0]) as talk:
                answer = talk.ask("x") or {"heard": ""}
                return str(answer["heard"]).encode("latin-1")

        found = eventually(lambda: (h := heard()).startswith(b"\r\n\r\n\x00\r\nQUIT\n") and h, 10)
        assert socket.inet_aton(front.aws.settings.machine_address) in found
        assert front.health(front.boxes[0]) == "healthy"


def test_tls_ends_at_the_load_balancer(front: Front) -> None:
    front.all_well()
    acm = front.aws.client("acm")

    def status() -> str:
        found = acm.describe_certificate(CertificateArn=front.certificate)
        return str(found["Certificate"]["Status"])

    eventually(lambda: status() == "ISSUED", 90)
    front.api.create_listener(
        LoadBalancerArn=front.arn,
        Protocol="TLS",
        Port=443,
        Certificates=[{"CertificateArn": front.certificate}],
        DefaultActions=[{"Type": "forward", "TargetGroupArn": front.group}],
    )
    chain = acm.get_certificate(CertificateArn=front.certificate)["CertificateChain"]
    eventually(lambda: opens(front.addresses[0], 443), 10)
    with Talk(front.addresses[0], 443, ssl.create_default_context(cadata=chain)) as talk:
        answer = talk.ask("secret")
        assert answer is not None
        assert answer["heard"] == "secret"


def test_without_security_groups_all_may_come(front: Front) -> None:
    found = front.api.create_load_balancer(
        Name="open", Type="network", Subnets=[front.aws.public_subnet]
    )["LoadBalancers"][0]
    group = front.api.create_target_group(
        Name="open", Protocol="TCP", Port=9000, VpcId=front.aws.vpc, HealthCheckPort="9001",
        HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2,
    )["TargetGroups"][0]["TargetGroupArn"]  # fmt: skip
    front.api.create_listener(
        LoadBalancerArn=found["LoadBalancerArn"],
        Protocol="TCP",
        Port=8000,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )
    [address] = front.resolve(of=found["DNSName"])
    eventually(lambda: opens(address, 8000), 60)
    target = [{"Id": front.boxes[0].id}]
    front.api.register_targets(TargetGroupArn=group, Targets=target)

    def health() -> tuple[str, str]:
        said = front.api.describe_target_health(TargetGroupArn=group, Targets=target)
        found = said["TargetHealthDescriptions"][0]["TargetHealth"]
        return found["State"], found.get("Reason", "")

    # The target's own groups hold nevertheless, for the node's address.
    eventually(lambda: health() == ("unhealthy", "Target.Timeout"), 60)
    web = front.boxes[0].describe()["SecurityGroups"]
    for port in (9000, 9001):
        front.aws.allow(web[0]["GroupId"], port, "10.77.0.0/24")
    eventually(lambda: health()[0] == "healthy", 60)
    with Talk(address, 8000) as talk:
        assert (talk.ask() or {}).get("host") == host_of(front.boxes[0])
    front.api.delete_load_balancer(LoadBalancerArn=found["LoadBalancerArn"])


def test_its_addresses_are_free_once_it_is_gone(front: Front) -> None:
    front.api.delete_load_balancer(LoadBalancerArn=front.arn)
    assert front.resolve() == set()

    def free() -> bool:
        found = front.aws.ec2.describe_addresses(PublicIps=front.addresses)["Addresses"]
        return not any("AssociationId" in each for each in found)

    eventually(free, 60)
    for each in front.allocations:
        front.aws.ec2.release_address(AllocationId=each["AllocationId"])
