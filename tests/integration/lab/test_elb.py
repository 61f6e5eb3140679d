"""Load balancers: real HAProxy, real health checks, and what happens when a part fails."""

from __future__ import annotations

import base64
import collections
import gzip
import http.client
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from dnslib import DNSRecord

from lab import lifecycle
from lab.podman import Podman
from lab.region import Link, namespaces
from lab.settings import Settings
from tests.integration.lab.conftest import Aws, Box, eventually, opens

# Minutes of health checks that a starved machine fails: not beside all else that make test runs.
pytestmark = [pytest.mark.lab, pytest.mark.thorough]

SETTINGS = Settings.of("labelb", "198.18.62.0/24", write_hosts_file=False, elb_log_interval=5)
# What runs on the targets. /health says what /tmp/code says; a POST waits as its header says.
APP = """
import http.server, json, os, socket, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        time.sleep(float(self.headers.get("X-Sleep") or 0))
        code = 200
        if self.path.startswith("/health") and os.path.exists("/tmp/code"):
            code = int(open("/tmp/code").read())
        if self.command == "POST":
            with open("/tmp/posts", "a") as file:
                file.write(body + "\\n")
        found = json.dumps({"host": socket.gethostname(), "method": self.command,
                            "path": self.path, "headers": dict(self.headers)}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)
    do_GET = do_POST = answer
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", 8080), Handler).serve_forever()
"""


class Front:
    """A load balancer in two zones, and a target in each."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.api = aws.client("elbv2")
        gateways = aws.ec2.describe_internet_gateways(
            Filters=[{"Name": "attachment.vpc-id", "Values": [aws.vpc]}]
        )
        gateway = gateways["InternetGateways"][0]["InternetGatewayId"]
        self.subnets = [
            aws.public_subnet,
            aws.subnet("10.77.2.0/24", "us-east-1b", GatewayId=gateway),
        ]
        self.security, self.web = aws.group("front"), aws.group("web")
        aws.allow(self.security, 80, "0.0.0.0/0")
        aws.allow(self.security, 443, "0.0.0.0/0")
        aws.allow(self.web, 8080, self.security)
        self.boxes = [aws.launch(self.web, subnet=subnet) for subnet in self.subnets]
        began = time.monotonic()
        found = self.api.create_load_balancer(
            Name="front", Subnets=self.subnets, SecurityGroups=[self.security]
        )["LoadBalancers"][0]
        assert found["State"]["Code"] == "provisioning"
        self.arn, self.name = found["LoadBalancerArn"], found["DNSName"]
        self.group = self.make_group("web")
        self.listener = self.api.create_listener(
            LoadBalancerArn=self.arn,
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": self.group}],
        )["Listeners"][0]["ListenerArn"]
        eventually(lambda: self.state == "active", 120)
        self.took = time.monotonic() - began
        for box in self.boxes:
            box.wait("running")
            self.start(box)

    def make_group(self, name: str, **more: Any) -> str:
        found = self.api.create_target_group(
            **{
                "Name": name, "Protocol": "HTTP", "Port": 8080, "VpcId": self.aws.vpc,
                "HealthCheckPath": "/health", "HealthCheckIntervalSeconds": 5,
                "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2,
                "UnhealthyThresholdCount": 2, **more,
            }
        )  # fmt: skip
        return str(found["TargetGroups"][0]["TargetGroupArn"])

    @property
    def state(self) -> str:
        found = self.api.describe_load_balancers(LoadBalancerArns=[self.arn])["LoadBalancers"]
        return str(found[0]["State"]["Code"])

    # --- targets
    def start(self, box: Box) -> None:
        packed = base64.b64encode(APP.encode()).decode()
        box.run(f"echo {packed} | base64 -d > /tmp/app.py; sudo systemctl reset-failed app || true")
        box.run("sudo systemd-run --quiet --unit=app --uid=admin python3 /tmp/app.py")

    def stop(self, box: Box) -> None:
        box.run("sudo systemctl kill --signal=KILL app; sudo systemctl reset-failed app || true")

    def register(self, *boxes: Box, group: str = "") -> None:
        self.api.register_targets(
            TargetGroupArn=group or self.group, Targets=[{"Id": box.id} for box in boxes]
        )

    def deregister(self, *boxes: Box) -> None:
        self.api.deregister_targets(
            TargetGroupArn=self.group, Targets=[{"Id": box.id} for box in boxes]
        )

    def health(self, box: Box) -> tuple[str, str, str]:
        found = self.api.describe_target_health(
            TargetGroupArn=self.group, Targets=[{"Id": box.id}]
        )["TargetHealthDescriptions"][0]["TargetHealth"]
        return found["State"], found.get("Reason", ""), found.get("Description", "")

    def wait(self, box: Box, state: str, deadline: float = 40.0) -> tuple[str, str, str]:
        eventually(lambda: self.health(box)[0] == state, deadline)
        return self.health(box)

    def all_well(self) -> None:
        self.register(*self.boxes)
        for box in self.boxes:
            self.wait(box, "healthy")

    @contextmanager
    def attribute(self, **values: str) -> Iterator[None]:
        """Change the group's attributes, and back."""
        found = self.api.describe_target_group_attributes(TargetGroupArn=self.group)
        before = {a["Key"]: a["Value"] for a in found["Attributes"]}
        wanted = {key.replace("__", "."): value for key, value in values.items()}

        def put(attributes: dict[str, str]) -> None:
            self.api.modify_target_group_attributes(
                TargetGroupArn=self.group,
                Attributes=[{"Key": k, "Value": v} for k, v in attributes.items()],
            )

        put(wanted)
        try:
            yield
        finally:
            put({key: before[key] for key in wanted})

    # --- nodes
    @property
    def nodes(self) -> list[dict[str, Any]]:
        [found] = [
            b for b in lifecycle.status(self.aws.settings)["balancers"] if b["id"] == "front"
        ]
        return list(found["nodes"])

    @property
    def addresses(self) -> list[str]:
        return [node["public_address"] for node in self.nodes]

    def resolve(self) -> set[str]:
        """Ask the lab's names."""
        answer = DNSRecord.question(self.name).send(self.aws.settings.address, 53, timeout=5)
        return {str(record.rdata) for record in DNSRecord.parse(answer).rr}

    def podman(self, verb: str, node: int) -> None:
        Podman.of(self.aws.settings)(
            verb, Link(self.aws.settings, self.nodes[node]["id"]).namespace
        )

    # --- requests
    def ask(
        self, path: str = "/", node: int = 0, method: str = "GET", body: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:  # fmt: skip
        """Send one request to one node."""
        connection = http.client.HTTPConnection(self.addresses[node], timeout=30)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body=body, headers=named)
        return answer_of(connection)

    def hosts_by(self, node: int) -> set[str]:
        """Return which hosts answer by one node, and its own answers' codes."""
        answers = [self.ask(node=node) for _ in range(6)]
        return {found["host"] if code == 200 else str(code) for code, _, found in answers}


def answer_of(connection: http.client.HTTPConnection) -> tuple[int, dict[str, str], Any]:
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    try:
        found = json.loads(content)
    except ValueError:
        found = content.decode()
    return answer.status, {k.title(): v for k, v in answer.getheaders()}, found


class Load:
    """Clients that keep their connections and never stop asking; each POST bears its own name."""

    def __init__(self, front: Front, clients: int = 10) -> None:
        self.addresses = front.addresses
        self.hosts: collections.Counter[str] = collections.Counter()
        self.trouble: list[str] = []
        self.posts: list[str] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        address = self.addresses[number % len(self.addresses)]
        connection = http.client.HTTPConnection(address, timeout=20)
        turn = number
        while not self._end.is_set():
            turn += 1
            name = uuid.uuid4().hex if turn % 10 < 3 else ""
            try:
                if name:
                    connection.request("POST", "/", body=name)
                else:
                    connection.request("GET", "/")
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    raise OSError(f"{answer.status} {content[:200]!r}")
                with self._lock:
                    self.hosts[json.loads(content)["host"]] += 1
                    if name:
                        self.posts.append(name)
                if answer.getheader("Connection", "").lower() == "close":
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.trouble.append(f"{'POST' if name else 'GET'} {error!r}")
                connection.close()
            time.sleep(0.01)

    @property
    def total(self) -> int:
        return sum(self.hosts.values())


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """In a lab of their own, so that its end is a test as well."""
    lifecycle.down(SETTINGS, print)
    lifecycle.up(SETTINGS, print)
    try:
        yield Aws(SETTINGS, tmp_path_factory.mktemp("aws"))
    finally:
        lifecycle.down(SETTINGS, print)
    assert Podman.of(SETTINGS).containers(SETTINGS.name) == []
    assert not [name for name in namespaces() if name.startswith(SETTINGS.namespace)]
    assert not SETTINGS.state.exists()


@pytest.fixture(scope="module")
def front(aws: Aws) -> Front:
    return Front(aws)


@pytest.fixture(scope="module")
def certificate(aws: Aws) -> str:
    """A certificate of ACM; asked for early, since it takes a while to be issued."""
    answer = aws.client("acm").request_certificate(DomainName="shop.test", ValidationMethod="DNS")
    return str(answer["CertificateArn"])


# --- the way through
def test_it_is_active_and_its_name_leads_to_its_nodes(front: Front, certificate: str) -> None:
    assert front.took < 60
    assert [node["zone"] for node in front.nodes] == ["us-east-1a", "us-east-1b"]
    assert front.resolve() == set(front.addresses)


def test_without_targets_it_says_503(front: Front) -> None:
    status, headers, body = front.ask()
    assert (status, headers["Server"]) == (503, "awselb/2.0")
    assert "503 Service Temporarily Unavailable" in body


def test_requests_reach_all_healthy_targets_by_every_node(front: Front) -> None:
    assert front.health(front.boxes[0])[:2] == ("unused", "Target.NotRegistered")
    front.register(*front.boxes)
    assert front.health(front.boxes[0])[0] == "initial"
    for box in front.boxes:
        assert front.wait(box, "healthy") == ("healthy", "", "")
    for node in (0, 1):
        hosts = {front.ask(node=node)[2]["host"] for _ in range(6)}
        assert len(hosts) == 2


def test_targets_hear_of_the_client(front: Front) -> None:
    operator = front.aws.settings.machine_address
    headers = {k.title(): v for k, v in front.ask("/x?a=1")[2]["headers"].items()}
    assert headers["X-Forwarded-For"] == operator
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-Port"] == "80"
    assert headers["X-Amzn-Trace-Id"].startswith("Root=1-")
    answer = front.ask("/", X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https")[2]
    headers = {k.title(): v for k, v in answer["headers"].items()}
    assert headers["X-Forwarded-For"] == f"192.0.2.1, {operator}"
    assert headers["X-Forwarded-Proto"] == "http"


def test_hosts_reach_it_by_its_name(front: Front) -> None:
    said = json.loads(front.boxes[0].run(f"curl -s --max-time 5 http://{front.name}/"))
    assert said["headers"]["X-Forwarded-For"] == front.boxes[0].public


def test_an_alias_of_route_53_leads_to_it(front: Front) -> None:
    dns = front.aws.client("route53")
    zone = dns.create_hosted_zone(Name="shop.test", CallerReference="1")["HostedZone"]["Id"]
    record = {
        "Name": "www.shop.test",
        "Type": "A",
        "AliasTarget": {
            "HostedZoneId": "Z35SXDOTRQ7X7K",
            "DNSName": f"dualstack.{front.name}",
            "EvaluateTargetHealth": False,
        },
    }
    dns.change_resource_record_sets(
        HostedZoneId=zone,
        ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]},
    )
    found = front.boxes[0].run("getent ahostsv4 www.shop.test | awk '{print $1}' | sort -u")
    assert set(found.split()) == set(front.addresses)


# --- health
def test_health_says_why(front: Front) -> None:
    front.all_well()
    box, other = front.boxes
    box.run("echo 503 > /tmp/code")
    assert front.wait(box, "unhealthy") == (
        "unhealthy",
        "Target.ResponseCodeMismatch",
        "Health checks failed with these codes: [503]",
    )
    eventually(lambda: {front.ask()[2]["host"] for _ in range(6)} == {host_of(other)}, 5)
    box.run("rm /tmp/code")
    front.wait(box, "healthy")
    front.stop(box)
    assert front.wait(box, "unhealthy")[1] == "Target.FailedHealthChecks"
    front.start(box)
    front.wait(box, "healthy")
    rule = {
        "IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080,
        "UserIdGroupPairs": [{"GroupId": front.security}],
    }  # fmt: skip
    front.aws.ec2.revoke_security_group_ingress(GroupId=front.web, IpPermissions=[rule])
    assert front.wait(box, "unhealthy") == ("unhealthy", "Target.Timeout", "Request timed out")
    front.aws.allow(front.web, 8080, front.security)
    front.wait(box, "healthy")


def test_it_fails_open(front: Front) -> None:
    front.all_well()
    for box in front.boxes:
        box.run("echo 500 > /tmp/code")
    for box in front.boxes:
        front.wait(box, "unhealthy")
    eventually(lambda: len({front.ask()[2]["host"] for _ in range(8)}) == 2, 5)
    for box in front.boxes:
        box.run("rm /tmp/code")
    front.all_well()


def test_errors_of_targets_are_those_of_a_load_balancer(front: Front) -> None:
    front.all_well()
    box, other = front.boxes
    front.deregister(other)
    eventually(lambda: {front.ask()[2]["host"] for _ in range(6)} == {host_of(box)}, 5)
    attribute = [{"Key": "idle_timeout.timeout_seconds", "Value": "2"}]
    front.api.modify_load_balancer_attributes(LoadBalancerArn=front.arn, Attributes=attribute)
    eventually(lambda: front.ask(X_Sleep="4")[0] == 504, 20)
    attribute[0]["Value"] = "60"
    front.api.modify_load_balancer_attributes(LoadBalancerArn=front.arn, Attributes=attribute)
    eventually(lambda: front.ask(X_Sleep="3")[0] == 200, 20)
    front.stop(box)
    status, headers, body = front.ask()
    assert (status, headers["Server"]) == (502, "awselb/2.0")
    assert "502 Bad Gateway" in body
    status, _, _ = front.ask(method="POST", body="refused")
    assert status == 502
    front.start(box)
    front.all_well()


# --- coming and going
def test_a_target_drains_and_can_come_back(front: Front) -> None:
    front.all_well()
    box, other = front.boxes
    answers: list[Any] = []

    def slow() -> None:
        answers.append(front.ask(method="POST", body=f"slow-{len(answers)}", X_Sleep="6"))

    threads = [threading.Thread(target=slow) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    front.deregister(box)
    assert front.health(box)[:2] == ("draining", "Target.DeregistrationInProgress")
    eventually(lambda: {front.ask()[2]["host"] for _ in range(6)} == {host_of(other)}, 5)
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200}
    assert {answer["host"] for _, _, answer in answers} == {host_of(box), host_of(other)}
    assert front.health(box)[0] == "draining"  # until its delay is over, whoever is connected
    front.register(box)
    front.wait(box, "healthy", 10)
    eventually(lambda: len({front.ask()[2]["host"] for _ in range(6)}) == 2, 5)


def test_its_delay_ends_what_drains(front: Front) -> None:
    front.all_well()
    box = front.boxes[0]
    with front.attribute(deregistration_delay__timeout_seconds="4"):
        trouble: list[Any] = []

        def endless() -> None:
            try:
                trouble.append(front.ask(method="POST", body="endless", X_Sleep="25")[0])
            except (OSError, http.client.HTTPException) as error:
                trouble.append(error)

        threads = [threading.Thread(target=endless) for _ in range(4)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(1)
        front.deregister(box)
        front.wait(box, "unused", 10)
        eventually(lambda: any(t != 200 for t in trouble), 10)
        assert time.monotonic() - began < 20
        for thread in threads:
            thread.join()
    front.all_well()


def test_nobody_notices_targets_that_come_and_go(front: Front) -> None:
    front.all_well()
    for box in front.boxes:
        box.run("rm -f /tmp/posts")
    with Load(front) as load:
        for _ in range(2):
            for box in front.boxes:
                time.sleep(1)
                front.deregister(box)
                time.sleep(2)
                box.run("sudo systemctl stop app; true")
                front.start(box)
                front.register(box)
                front.wait(box, "healthy")
    assert load.trouble == []
    assert load.total > 300
    done = "\n".join(box.run("cat /tmp/posts") for box in front.boxes).split()
    assert sorted(set(done) & set(load.posts)) == sorted(load.posts)
    assert max(collections.Counter(done).values()) == 1  # never replayed
    print(f"{load.total} requests, {len(load.posts)} of them POST")


def test_nobody_notices_a_reload(front: Front) -> None:
    front.all_well()
    with Load(front) as load:
        for priority in range(1, 5):
            time.sleep(1)
            rule = front.api.create_rule(
                ListenerArn=front.listener,
                Priority=priority,
                Conditions=[{"Field": "path-pattern", "Values": [f"/rule-{priority}/*"]}],
                Actions=[
                    {
                        "Type": "fixed-response",
                        "FixedResponseConfig": {
                            "StatusCode": "410", "ContentType": "text/plain",
                            "MessageBody": f"rule {priority}",
                        },
                    }
                ],
            )["Rules"][0]["RuleArn"]  # fmt: skip
            eventually(lambda n=priority: front.ask(f"/rule-{n}/x")[::2] == (410, f"rule {n}"), 10)
            front.api.delete_rule(RuleArn=rule)
            eventually(lambda n=priority: front.ask(f"/rule-{n}/x")[0] == 200, 10)
    assert load.trouble == []
    assert load.total > 100


def test_a_killed_target_costs_what_was_under_way(front: Front) -> None:
    front.all_well()
    box, other = front.boxes
    with Load(front) as load:
        time.sleep(1)
        front.stop(box)
        front.wait(box, "unhealthy")
        before = len(load.trouble)
        seen = load.hosts[host_of(box)]
        time.sleep(2)
        assert len(load.trouble) == before
        assert load.hosts[host_of(box)] == seen
    assert load.hosts[host_of(other)] > 0
    front.start(box)
    front.wait(box, "healthy")


def test_stickiness(front: Front) -> None:
    front.all_well()
    with front.attribute(stickiness__enabled="true"):
        _, headers, first = eventually(
            lambda: (lambda a: a if "Set-Cookie" in a[1] else None)(front.ask()), 10
        )
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert cookie.startswith("AWSALB=")
        hosts = [front.ask(node=n % 2, Cookie=cookie)[2]["host"] for n in range(6)]
        assert set(hosts) == {first["host"]}
        box = next(b for b in front.boxes if host_of(b) == first["host"])
        front.deregister(box)
        eventually(lambda: front.ask(Cookie=cookie)[2]["host"] != first["host"], 5)
        front.register(box)
        front.wait(box, "healthy")
    eventually(lambda: "Set-Cookie" not in front.ask()[1], 10)


# --- zones
def test_cross_zone_off_keeps_each_zone_to_itself(front: Front) -> None:
    front.all_well()
    zones = [node["zone"] for node in front.nodes]
    boxes = dict(zip(zones, front.boxes, strict=True))
    first, second = front.addresses
    with front.attribute(load_balancing__cross_zone__enabled="false"):
        for number, zone in enumerate(zones):
            mine = {host_of(boxes[zone])}
            eventually(lambda n=number, m=mine: front.hosts_by(n) == m, 10)
        assert front.resolve() == {first, second}
        boxes[zones[0]].run("echo 503 > /tmp/code")
        front.wait(boxes[zones[0]], "unhealthy")
        assert front.health(boxes[zones[1]])[0] == "healthy"
        eventually(lambda: front.resolve() == {second}, 5)
        assert front.hosts_by(0) == {host_of(boxes[zones[0]])}  # who comes nevertheless
        front.deregister(boxes[zones[0]])
        eventually(lambda: front.ask(node=0)[0] == 503, 5)
        assert front.ask(node=1)[0] == 200
        boxes[zones[0]].run("rm /tmp/code")
        front.all_well()
        eventually(lambda: front.resolve() == {first, second}, 5)
    everybody = {host_of(box) for box in front.boxes}
    eventually(lambda: front.hosts_by(0) == everybody, 10)


def test_nobody_notices_cross_zone_being_turned_off_and_on(front: Front) -> None:
    front.all_well()
    with Load(front) as load:
        for _ in range(3):
            with front.attribute(load_balancing__cross_zone__enabled="false"):
                time.sleep(2)
            time.sleep(1)
    assert load.trouble == []
    assert load.total > 100


# --- TLS and rules
def test_https_with_a_certificate_of_acm(front: Front, certificate: str) -> None:
    acm = front.aws.client("acm")
    eventually(
        lambda: (
            acm.describe_certificate(CertificateArn=certificate)["Certificate"]["Status"]
            == "ISSUED"
        ),
        90,
    )
    front.all_well()
    front.api.create_listener(
        LoadBalancerArn=front.arn,
        Protocol="HTTPS",
        Port=443,
        SslPolicy="ELBSecurityPolicy-TLS13-1-2-2021-06",
        Certificates=[{"CertificateArn": certificate}],
        DefaultActions=[{"Type": "forward", "TargetGroupArn": front.group}],
    )
    answer = acm.get_certificate(CertificateArn=certificate)
    context = ssl.create_default_context(cadata=answer["CertificateChain"])
    address = eventually(lambda: opens(front.addresses[1], 443) and front.addresses[1], 10)

    class Connection(http.client.HTTPSConnection):
        def connect(self) -> None:
            http.client.HTTPConnection.connect(self)
            self.sock = context.wrap_socket(self.sock, server_hostname="shop.test")

    connection = Connection(address, timeout=10, context=context)
    connection.request("GET", "/")
    status, _, found = answer_of(connection)
    headers = {k.title(): v for k, v in found["headers"].items()}
    assert (status, headers["X-Forwarded-Proto"], headers["X-Forwarded-Port"]) == (
        200, "https", "443",
    )  # fmt: skip


def test_rules_redirect(front: Front) -> None:
    rule = front.api.create_rule(
        ListenerArn=front.listener,
        Priority=7,
        Conditions=[{"Field": "host-header", "Values": ["*.shop.test"]}],
        Actions=[
            {
                "Type": "redirect",
                "RedirectConfig": {"StatusCode": "HTTP_301", "Protocol": "HTTPS", "Port": "443"},
            }
        ],
    )["Rules"][0]["RuleArn"]
    _, headers, _ = eventually(
        lambda: (lambda a: a if a[0] == 301 else None)(front.ask("/a/b?c=d", Host="www.shop.test")),
        10,
    )
    assert headers["Location"] == "https://www.shop.test:443/a/b?c=d"
    assert front.ask("/", Host="shop.test.example")[0] == 200
    front.api.delete_rule(RuleArn=rule)


# --- access logs
def test_requests_are_written_to_s3(front: Front) -> None:
    front.all_well()
    s3 = front.aws.client("s3")
    s3.create_bucket(Bucket="shop-logs")
    enable = {
        "access_logs.s3.enabled": "true", "access_logs.s3.bucket": "shop-logs",
        "access_logs.s3.prefix": "front",
    }  # fmt: skip

    def put(values: dict[str, str]) -> None:
        front.api.modify_load_balancer_attributes(
            LoadBalancerArn=front.arn,
            Attributes=[{"Key": k, "Value": v} for k, v in values.items()],
        )

    with pytest.raises(ClientError, match="Access Denied for bucket: shop-logs"):
        put(enable)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::shop-logs/front/AWSLogs/123456789012/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3.put_bucket_policy(Bucket="shop-logs", Policy=json.dumps(policy))
    put(enable)

    def keys() -> list[str]:
        found = s3.list_objects_v2(Bucket="shop-logs", Prefix="front/AWSLogs/123456789012/")
        return [each["Key"] for each in found["Contents"]]

    def entries() -> list[str]:
        read = (
            gzip.decompress(s3.get_object(Bucket="shop-logs", Key=key)["Body"].read())
            for key in keys()
            if key.endswith(".log.gz")
        )
        return "".join(part.decode() for part in read).splitlines()

    assert keys() == ["front/AWSLogs/123456789012/ELBAccessLogTestFile"]
    with Load(front) as load:  # which no reload disturbs, and of which nothing is forgotten
        eventually(lambda: front.ask("/logged") and entries(), 30)
        time.sleep(3)
    assert load.trouble == []
    for node in (0, 1):
        front.ask(f"/by-{node}?a=b", node=node, User_Agent='says "hello"')
    front.ask(method="POST", body="x" * 1000, node=1)
    wanted = load.total // 2  # those before the reload are not in it
    eventually(lambda: any("/by-1" in line for line in entries()), 30)
    found = entries()
    assert sum('"GET http://' in line or '"POST http://' in line for line in found) > wanted
    for node, address in enumerate(front.addresses):
        [line] = [each for each in found if f"/by-{node}?a=b" in each]
        words = line.split(" ")
        assert words[0] == "http"
        assert words[2] == front.arn.partition("loadbalancer/")[2]
        assert words[3].startswith(f"{front.aws.settings.machine_address}:")
        assert words[4] in {f"{box.private}:8080" for box in front.boxes}
        assert words[8:10] == ["200", "200"]
        assert f'"GET http://{address}:80/by-{node}?a=b HTTP/1.1" "says \\x22hello\\x22"' in line
        assert f" {front.group} " in line
        assert '"forward"' in line
        assert any(f"Z_{address}_" in key for key in keys())
    put({"access_logs.s3.enabled": "false"})


# --- what is closed, and what fails
def test_what_its_security_group_closes_is_closed(front: Front) -> None:
    rule = {
        "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    }  # fmt: skip
    assert opens(front.addresses[0], 80)
    front.aws.ec2.revoke_security_group_ingress(GroupId=front.security, IpPermissions=[rule])
    assert not any(opens(address, 80) for address in front.addresses)
    front.aws.allow(front.security, 80, "0.0.0.0/0")
    assert all(opens(address, 80) for address in front.addresses)
    assert not opens(front.addresses[0], 22)


def test_a_node_that_hangs_leaves_the_name_and_comes_back(front: Front) -> None:
    front.all_well()
    first, second = front.addresses
    front.podman("pause", 0)
    try:
        eventually(lambda: front.resolve() == {second}, 15)
        assert front.ask(node=1)[0] == 200
        assert front.state == "active"
        assert [node["state"] for node in front.nodes] == ["down", "up"]
        assert front.health(front.boxes[0])[0] == "healthy"
    finally:
        front.podman("unpause", 0)
    eventually(lambda: front.resolve() == {first, second}, 15)
    assert front.ask(node=0)[0] == 200


def test_a_node_that_is_killed_is_replaced(front: Front) -> None:
    front.all_well()
    address = front.addresses[0]
    with Load(front, 4) as load:
        load.addresses[:] = [front.addresses[1]]
        front.podman("kill", 0)
        eventually(lambda: front.resolve() == {front.addresses[1]}, 15)
        eventually(lambda: front.resolve() == set(front.addresses), 60)
    assert front.addresses[0] == address
    assert front.ask(node=0)[0] == 200
    assert load.total > 0


def test_a_zone_that_is_taken_away_and_given_back(front: Front) -> None:
    front.all_well()
    gateways = front.aws.ec2.describe_internet_gateways()["InternetGateways"]
    gateway = next(
        g["InternetGatewayId"]
        for g in gateways
        if any(a["VpcId"] == front.aws.vpc for a in g["Attachments"])
    )
    third = front.aws.subnet("10.77.3.0/24", "us-east-1c", GatewayId=gateway)
    front.api.set_subnets(LoadBalancerArn=front.arn, Subnets=[front.subnets[0], third])
    assert front.health(front.boxes[1])[:2] == ("unused", "Target.NotInUse")
    eventually(lambda: {n["zone"] for n in front.nodes} == {"us-east-1a", "us-east-1c"})
    eventually(lambda: front.resolve() == set(front.addresses), 60)
    assert {front.ask(node=1)[2]["host"] for _ in range(4)} == {host_of(front.boxes[0])}
    front.api.set_subnets(LoadBalancerArn=front.arn, Subnets=front.subnets)
    front.wait(front.boxes[1], "healthy", 60)
    eventually(lambda: front.resolve() == set(front.addresses), 60)


def test_deletion_leaves_nothing(front: Front) -> None:
    nodes = front.nodes
    front.api.delete_load_balancer(LoadBalancerArn=front.arn)
    assert front.resolve() == set()
    assert front.health(front.boxes[0])[:2] == ("unused", "Target.NotInUse")

    def gone() -> bool:
        names = {name for c in Podman.of(SETTINGS).containers(SETTINGS.name) for name in c["Names"]}
        return not names & {Link(SETTINGS, node["id"]).namespace for node in nodes}

    eventually(gone, 60)
    interfaces = front.aws.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert not [i for i in interfaces if i["Description"].startswith("ELB ")]
    assert not list((SETTINGS.state / "balancers").iterdir())


def host_of(box: Box) -> str:
    return f"ip-{box.private.replace('.', '-')}"
