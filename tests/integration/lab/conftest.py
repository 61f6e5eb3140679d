"""A lab of the tests' own, and hosts in it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from lab import lifecycle
from lab.settings import ACCESS_KEY, SECRET_KEY, Settings

# Name and subnet of the tests' own lab: another one for who runs them beside others.
_NAME, _SUBNET = os.environ.get("ASCENT_LAB_TESTS", "labtest 198.18.1.0/24").split()
SETTINGS = Settings.of(_NAME, _SUBNET)
IMAGE = "ami-0deb1300000000001"


_BOOT = "systemctl show --property=UserspaceTimestampMonotonic --value"


def eventually(condition: Callable[[], Any], deadline: float = 240.0) -> Any:
    """Wait until a condition holds and return its value; fail with its last value otherwise."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"did not come true within {deadline} s; last value: {value!r}")
        time.sleep(0.1)


def opens(address: str, port: int = 22, timeout: float = 1.0) -> bool:
    """Say whether a TCP connection opens."""
    import socket

    try:
        socket.create_connection((address, port), timeout).close()
    except OSError:
        return False
    return True


@dataclass
class Box:
    """A host under test."""

    aws: Aws
    id: str
    key: Path
    address: str = ""

    def describe(self) -> dict[str, Any]:
        answer = self.aws.ec2.describe_instances(InstanceIds=[self.id])
        return answer["Reservations"][0]["Instances"][0]

    @property
    def state(self) -> str:
        return self.describe()["State"]["Name"]

    @property
    def private(self) -> str:
        return self.describe()["PrivateIpAddress"]

    @property
    def public(self) -> str:
        return self.address or self.describe()["PublicIpAddress"]

    def wait(self, state: str, deadline: float = 120.0) -> Box:
        eventually(lambda: self.state == state, deadline)
        return self

    def try_run(self, command: str) -> subprocess.CompletedProcess[str]:
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "5",
            "BatchMode": "yes",
        }
        return subprocess.run(
            [
                *("ssh", "-i", str(self.key)),
                *(f"-o{key}={value}" for key, value in options.items()),
                *(f"admin@{self.public}", command),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, command: str) -> str:
        done = self.try_run(command)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def boot(self) -> str:
        """Return what changes with each boot."""
        return self.run(_BOOT)

    def booted_since(self, boot: str) -> bool:
        """Say whether the host answers, and not as the boot that is given."""
        done = self.try_run(_BOOT)
        return done.returncode == 0 and done.stdout.strip() != boot


class Aws:
    """Clients of one lab, and a network in it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.ec2 = self.client("ec2")
        self.key = folder / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True
        )
        public = self.key.with_suffix(".pub").read_bytes()
        self.ec2.import_key_pair(KeyName="labtest", PublicKeyMaterial=public)
        self.vpc = self.ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        self.public_subnet = self.subnet("10.77.0.0/24", "us-east-1a", GatewayId=gateway)
        self.private_subnet = self.subnet("10.77.1.0/24", "us-east-1b")
        self.ssh_group = self.group("ssh")
        self.allow(self.ssh_group, 22, f"{settings.machine_address}/32")

    def client(self, service: str, retries: int = 0) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.settings.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"max_attempts": retries}, read_timeout=30),
        )

    def subnet(self, block: str, zone: str, **route: str) -> str:
        subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=block, AvailabilityZone=zone)
        identifier = str(subnet["Subnet"]["SubnetId"])
        table = self.ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        self.ec2.associate_route_table(RouteTableId=table, SubnetId=identifier)
        if route:
            self.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **route)
        return identifier

    def group(self, name: str) -> str:
        answer = self.ec2.create_security_group(
            GroupName=f"{name}-{time.monotonic_ns()}", Description=name, VpcId=self.vpc
        )
        return str(answer["GroupId"])

    def allow(self, group: str, port: int, source: str, protocol: str = "tcp") -> dict[str, Any]:
        rule: dict[str, Any] = {"IpProtocol": protocol, "FromPort": port, "ToPort": port}
        if source.startswith("sg-"):
            rule["UserIdGroupPairs"] = [{"GroupId": source}]
        else:
            rule["IpRanges"] = [{"CidrIp": source}]
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        return rule

    def launch(
        self,
        *groups: str,
        subnet: str = "",
        public: bool = True,
        size: str = "t3.micro",
        **more: Any,
    ) -> Box:
        interface = {
            "DeviceIndex": 0,
            "SubnetId": subnet or self.public_subnet,
            "AssociatePublicIpAddress": public,
            "Groups": [self.ssh_group, *groups],
        }
        answer = self.ec2.run_instances(
            **{
                "ImageId": IMAGE,
                "InstanceType": size,
                "MinCount": 1,
                "MaxCount": 1,
                "KeyName": "labtest",
                "NetworkInterfaces": [interface],
                **more,
            }
        )
        return Box(self, answer["Instances"][0]["InstanceId"], self.key)

    def terminate(self, *boxes: Box) -> None:
        self.ec2.terminate_instances(InstanceIds=[box.id for box in boxes])
        for box in boxes:
            box.wait("terminated")


@pytest.fixture(scope="session")
def lab() -> Iterator[Settings]:
    """Bring a fresh lab up, and take it down."""
    if os.geteuid() != 0:
        pytest.skip("the lab makes namespaces and containers and needs root")
    lifecycle.down(SETTINGS, print)
    lifecycle.up(SETTINGS, print)
    yield SETTINGS
    lifecycle.down(SETTINGS, print)


@pytest.fixture(scope="session")
def aws(lab: Settings, tmp_path_factory: pytest.TempPathFactory) -> Aws:
    """Clients of the lab, and a network in it."""
    return Aws(lab, tmp_path_factory.mktemp("aws"))


@pytest.fixture(scope="session")
def pair(aws: Aws) -> Iterator[tuple[Box, Box]]:
    """Two small hosts that several tests share."""
    boxes = aws.launch(), aws.launch()
    for box in boxes:
        box.wait("running")
    yield boxes
    aws.terminate(*boxes)
