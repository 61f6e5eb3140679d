"""Addresses are those that the API states, and lead where it says."""

from __future__ import annotations

import http.server
import ipaddress
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from tests.integration.lab.conftest import Aws, Box, eventually, opens

pytestmark = pytest.mark.lab

WHO = (
    "import http.server, socket\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        b = (socket.gethostname() + ' ' + self.client_address[0]).encode()\n"
    "        self.send_response(200); self.send_header('Content-Length', str(len(b)))\n"
    "        self.end_headers(); self.wfile.write(b)\n"
    "http.server.ThreadingHTTPServer(('', 8000), H).serve_forever()\n"
)


@pytest.fixture(scope="module")
def web(aws: Aws, pair: tuple[Box, Box]) -> str:
    """A group that opens port 8000, and something that answers there on both hosts."""
    group = aws.group("web")
    aws.allow(group, 8000, f"{aws.settings.machine_address}/32")
    for box in pair:
        aws.ec2.modify_instance_attribute(InstanceId=box.id, Groups=[aws.ssh_group, group])
        box.run(f"cat > who.py <<'E'\n{WHO}E\nsudo systemd-run -q -u who python3 $PWD/who.py")
        eventually(lambda box=box: opens(box.public, 8000))
    return group


@pytest.fixture
def outside(aws: Aws) -> Iterator[tuple[str, list[str]]]:
    """A server on the machine, which is the internet to hosts; it notes who comes."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.client_address[0])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = http.server.ThreadingHTTPServer((aws.settings.machine_address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{aws.settings.machine_address}:{server.server_port}/", seen
    server.shutdown()
    server.server_close()


def ask(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}:8000/", timeout=3) as answer:
        return answer.read().decode().split()[0]


def test_the_host_has_the_address_that_the_api_states(pair: tuple[Box, Box]) -> None:
    for box in pair:
        assert box.run("hostname -I").split() == [box.private]


def test_aws_keeps_five_addresses_of_a_subnet(aws: Aws) -> None:
    subnet = ipaddress.IPv4Network("10.77.0.0/24")
    for reserved in (*range(4), 255):
        with pytest.raises(ClientError, match="InvalidParameterValue"):
            aws.ec2.run_instances(
                ImageId="ami-0deb1300000000001", MinCount=1, MaxCount=1, InstanceType="t3.micro",
                SubnetId=aws.public_subnet, PrivateIpAddress=str(subnet[reserved]),
            )  # fmt: skip


def test_public_addresses_come_from_the_pool(aws: Aws, pair: tuple[Box, Box]) -> None:
    first, last = aws.settings.public_pool
    for box in pair:
        assert first <= ipaddress.IPv4Address(box.public) <= last


def test_no_way_leads_from_the_machine_to_private_addresses(
    aws: Aws, pair: tuple[Box, Box]
) -> None:
    """Asked of the routes: a packet could reach a stranger who has the same private address."""
    private, public = (
        json.loads(
            subprocess.run(
                ["ip", "-json", "route", "get", address], capture_output=True, check=False
            ).stdout
            or "[{}]"
        )[0].get("dev")
        for address in (pair[0].private, pair[0].public)
    )
    assert public == aws.settings.uplink
    assert private != aws.settings.uplink


def test_a_host_reaches_the_internet_as_its_public_address(
    pair: tuple[Box, Box], outside: tuple[str, list[str]]
) -> None:
    url, seen = outside
    pair[0].run(f"curl -sf --max-time 5 {url}")
    assert seen == [pair[0].public]


def test_without_a_way_out_there_is_none(aws: Aws, outside: tuple[str, list[str]]) -> None:
    """No public address: no internet, until the subnet has a route to a NAT gateway."""
    url, seen = outside
    address = aws.ec2.allocate_address(Domain="vpc")
    nat = aws.ec2.create_nat_gateway(
        SubnetId=aws.public_subnet, AllocationId=address["AllocationId"]
    )["NatGateway"]["NatGatewayId"]
    closed = aws.launch(
        subnet=aws.private_subnet,
        public=False,
        UserData=f"#!/bin/sh\ntouch /begun\nuntil curl -sf -m 2 {url}; do sleep 0.2; done\n",
    ).wait("running")
    try:
        time.sleep(2)
        assert seen == []
        table = aws.ec2.describe_route_tables(
            Filters=[{"Name": "association.subnet-id", "Values": [aws.private_subnet]}]
        )["RouteTables"][0]["RouteTableId"]
        aws.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat)
        eventually(lambda: seen)
        assert seen[0] == address["PublicIp"]
        aws.ec2.delete_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")
    finally:
        aws.terminate(closed)
        aws.ec2.delete_nat_gateway(NatGatewayId=nat)


def test_an_elastic_address_moves_under_traffic(aws: Aws, pair: tuple[Box, Box], web: str) -> None:
    address = aws.ec2.allocate_address(Domain="vpc")
    first, second = pair
    names = [f"ip-{box.private.replace('.', '-')}" for box in pair]
    answers: list[str] = []
    failures: list[tuple[float, float]] = []
    moves: list[tuple[float, float]] = []
    end = threading.Event()

    def traffic() -> None:
        while not end.is_set():
            began = time.monotonic()
            try:
                answers.append(ask(address["PublicIp"]))
            except OSError:
                failures.append((began, time.monotonic()))

    own = first.public
    aws.ec2.associate_address(InstanceId=first.id, AllocationId=address["AllocationId"])
    assert first.public == address["PublicIp"]
    assert not opens(own, 8000), "the address that was there before leads nowhere"
    clients = [threading.Thread(target=traffic) for _ in range(4)]
    for client in clients:
        client.start()
    for target in (second, first, second):
        time.sleep(0.5)
        began = time.monotonic()
        aws.ec2.associate_address(
            InstanceId=target.id, AllocationId=address["AllocationId"], AllowReassociation=True
        )
        moves.append((began, time.monotonic()))
    time.sleep(0.5)
    end.set()
    for client in clients:
        client.join()

    # What is under way while the address moves may break, as on AWS; nothing else may fail.
    stray = [f for f in failures if not any(f[0] <= m[1] and m[0] <= f[1] for m in moves)]
    assert stray == []
    assert len(failures) <= len(moves) * len(clients)
    assert set(answers) == set(names)
    assert ask(address["PublicIp"]) == names[1]
    assert len(answers) > 50
    aws.ec2.disassociate_address(PublicIp=address["PublicIp"])
    assert not opens(address["PublicIp"], 8000)
    aws.ec2.release_address(AllocationId=address["AllocationId"])
    # Both have public addresses of their own again.
    assert ask(first.public) == names[0]
    assert ask(second.public) == names[1]


def test_hosts_meet_at_public_addresses_as_strangers(
    aws: Aws, pair: tuple[Box, Box], web: str
) -> None:
    """Through a public address the sender is its public address, and groups do not match."""
    first, second = pair
    call = f"curl -sf --max-time 2 http://{second.public}:8000/"
    rule = aws.allow(web, 8000, web)
    assert first.try_run(call).returncode != 0
    aws.ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=[rule])
    rule = aws.allow(web, 8000, f"{first.public}/32")
    assert first.run(call).split()[1] == first.public
    aws.ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=[rule])
    assert first.try_run(call).returncode != 0
