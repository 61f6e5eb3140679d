"""moto in process, as the lab extends it, with a recorder in the place of hosts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.cloudwatch.models import Alarm
from moto.dynamodb.models.table import Table
from moto.ec2.models import (
    ec2_backends,
    elastic_ip_addresses,
    elastic_network_interfaces,
)
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.instances import Instance
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.s3.models import FakeBucket

from lab import ec2, mends
from lab.ec2 import LabEC2Backend
from lab.hosts import Event

# All that mends and the lab's EC2 replace: tests of others must find moto as it is.
REPLACED: list[tuple[Any, str]] = [
    (Alarm, "__init__"),
    (Table, "describe"),
    (LaunchTemplateBackend, "create_launch_template"),
    (Subnet, "get_available_subnet_ip"),
    (Subnet, "request_ip"),
    (elastic_network_interfaces.NetworkInterface, "__init__"),
    (elastic_network_interfaces, "random_public_ip"),
    (elastic_ip_addresses, "random_ip"),
    (Instance, "instance_status"),
    (General, "get_console_output"),
    (InstanceResponse, "stop_instances"),
    (FakeBucket, "get_permission"),
    (ec2_backends, "backend"),
]


class Recorder:
    """The physical layer's interface; says what it was told."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str]] = []
        self.images = {"trixie": "image:1"}
        self.standing: set[str] = set()
        self.well: set[str] = set()

    def image_tag(self, release: str) -> str | None:
        return self.images.get(release)

    def launch(self, instance: Any) -> None:
        self.orders.append(("launch", instance.id))
        self.standing.add(instance.private_ip)

    def start(self, instance: Any) -> None:
        self.orders.append(("start", instance.id))

    def stop(self, instance_id: str, force: bool) -> None:
        self.orders.append(("cut power" if force else "stop", instance_id))

    def reboot(self, instance_id: str) -> None:
        self.orders.append(("reboot", instance_id))

    def terminate(self, instance_id: str) -> None:
        self.orders.append(("terminate", instance_id))

    def addresses(self) -> set[str]:
        return self.standing

    def healthy(self, instance_id: str) -> bool:
        return instance_id in self.well

    def console(self, instance_id: str) -> str:
        return f"console of {instance_id}"

    def report(self, instance_id: str, event: Event, reason: str = "") -> None:
        for backend, instance in ec2.instances():
            if instance.id == instance_id:
                backend.happened(instance, event, reason)


@pytest.fixture
def physics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Extend moto for one test."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "unit")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for owner, name in REPLACED:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    had = "multi_attach_enabled" in Volume.__dict__
    recorder = Recorder()
    mends.install()
    ec2.install(
        recorder, ipaddress.IPv4Address("198.18.7.16"), ipaddress.IPv4Address("198.18.7.18")
    )
    with mock_aws():
        yield recorder
    if not had:
        delattr(Volume, "multi_attach_enabled")
    assert LabEC2Backend.physics is recorder


@pytest.fixture
def client(physics: Recorder) -> Any:
    """Make clients of the extended moto."""
    return lambda service: boto3.client(service, region_name="us-east-1")
