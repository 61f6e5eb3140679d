"""moto in process, as the lab extends it, with a recorder in the place of hosts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.acm.models import AWSCertificateManagerBackend, CertBundle
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
from moto.elbv2 import models as elbv2
from moto.rds.models import Event as RDSEvent
from moto.rds.models import MasterUserSecret, rds_backends
from moto.rds.responses import RDSResponse
from moto.s3.models import FakeBucket

from lab import acm, ec2, elb, mends, rds
from lab.authority import Authority
from lab.ec2 import LabEC2Backend
from lab.engine import Engine
from lab.hosts import Event, Order
from lab.parameters import catalogue

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
    (MasterUserSecret, "_generate_secret_string"),
    (RDSResponse, "describe_db_parameters"),
    (RDSResponse, "describe_orderable_db_instance_options"),
    (RDSResponse, "reboot_db_instance"),
    (RDSEvent, "EVENT_MAP"),
    (rds_backends, "backend"),
    (elbv2.elbv2_backends, "backend"),
    (elbv2, "FakeLoadBalancer"),
    (elbv2, "FakeTargetGroup"),
    (AWSCertificateManagerBackend, "delete_certificate"),
    (CertBundle, "generate_cert"),
]
# What the lab adds to moto.
ADDED = [(RDSResponse, "reset_db_parameter_group"), (RDSResponse, "describe_db_engine_versions")]


def setting(name: str, context: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    """Return a row of `pg_settings`."""
    row = {"name": name, "context": context, "vartype": kind, "short_desc": f"Sets {name}."}
    return {**row, "min_val": None, "max_val": None, "enumvals": None, **more}


SETTINGS = [
    setting("TimeZone", "user"),
    setting("block_size", "internal", "integer", min_val="8192", max_val="8192"),
    setting("jit", "user", "bool"),
    setting("log_statement", "superuser", "enum", enumvals=["none", "ddl", "mod", "all"]),
    setting("max_connections", "postmaster", "integer", min_val="1", max_val="262143"),
    setting("random_page_cost", "user", "real", min_val="0", max_val="1.8e308"),
    setting("shared_buffers", "postmaster", "integer", min_val="16", max_val="1073741823"),
    setting("wal_level", "postmaster", "enum", enumvals=["minimal", "replica", "logical"]),
    setting("work_mem", "user", "integer", min_val="64", max_val="2147483647"),
]
ENGINE = Engine("postgres:1", "17.6", catalogue(SETTINGS))


class DatabaseRecorder:
    """The interface of the physical layer of RDS; says what it was told, and when it is done."""

    engine = ENGINE

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.sql: list[str] = []
        self.sources: list[rds.Source | None] = []
        self.jobs: list[rds.Done] = []
        self.removed: list[str] = []
        self.archives_removed: list[str] = []
        self.servers_removed: list[rds.Server] = []
        self.until: Any = None

    def addresses(self) -> set[str]:
        return set()

    def launch(self, instance: Any, sql: str, source: rds.Source | None) -> None:
        self.orders.append("launch")
        self.sql.append(sql)
        self.sources.append(source)

    def order(self, instance: Any, order: Order, sql: str = "") -> None:
        self.orders.append(order.value)
        self.sql.append(sql)

    def reload(self, instance: Any, done: rds.Done) -> None:
        self.orders.append("reload")
        self.jobs.append(done)

    def run_sql(self, instance: Any, sql: str, done: rds.Done) -> None:
        self.orders.append("sql")
        self.sql.append(sql)
        self.jobs.append(done)

    def back_up(self, instance: Any, name: str, done: rds.Done) -> None:
        self.orders.append("back up")
        self.jobs.append(done)

    def remove_backup(self, name: str) -> None:
        self.removed.append(name)

    def remove_archive(self, name: str) -> None:
        self.archives_removed.append(name)

    def restorable(self, archive: str) -> Any:
        return self.until

    def pair(self, instance: Any) -> None:
        self.orders.append("pair")

    def fail_over(self, instance: Any) -> None:
        self.orders.append("fail over")

    def remove(self, server: rds.Server) -> None:
        self.servers_removed.append(server)

    def finish(self, trouble: str = "") -> None:
        """Let the oldest job be done."""
        self.jobs.pop(0)(trouble)

    def report(self, identifier: str, event: Event, reason: str = "") -> None:
        for backend, instance in rds.instances():
            if instance.db_instance_identifier == identifier:
                backend.happened(instance, event, reason)


class BalancerRecorder:
    """The interface of the physical layer of load balancing; its time is what a test says."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str]] = []
        self.time = 1000.0
        self.follows = True

    def now(self) -> float:
        return self.time

    def addresses(self) -> set[str]:
        return set()

    def launch(self, node: elb.BalancerNode) -> None:
        self.orders.append(("launch", node.zone))

    def remove(self, node: elb.BalancerNode) -> None:
        self.orders.append(("remove", node.zone))

    def report(self, event: Event, *zones: str) -> None:
        """Let nodes report; all of them if no zones are named."""
        for node in elb.nodes():
            if not zones or node.zone in zones:
                for backend in elb.backends():
                    backend.happened(node.key, event)

    def check(self, answers: Any, seconds: float = 0.0) -> int:
        """Let time pass and have what is due checked; say how many checks that were."""
        self.time += seconds
        jobs = []
        for backend in elb.backends():
            backend.tick(self.time)
            jobs += [(backend, job) for job in backend.due(self.time)]
        for backend, job in jobs:
            backend.judge(job, answers(job) if callable(answers) else answers)
        if self.follows:
            self.follow()
        return len(jobs)

    def follow(self) -> None:
        """Let nodes do what the API says."""
        for node in elb.nodes():
            plan = elb.as_node(node.key)
            for backend in elb.backends() if plan and node.works else []:
                backend.applied(node.key, plan)
        for backend in elb.backends():
            backend.tick(self.time)


class Recorder:
    """The physical layer's interface; says what it was told."""

    balancers: BalancerRecorder
    databases: DatabaseRecorder

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
def physics(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorder]:
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
    databases = DatabaseRecorder()
    recorder.databases = databases
    rds.install(databases)
    recorder.balancers = BalancerRecorder()
    elb.install(recorder.balancers)
    authority = Authority(tmp_path_factory.mktemp("authority"), "acm", only_aws=False)
    acm.install(authority, elb.presents)
    with mock_aws():
        yield recorder
    for owner, name in ADDED:
        delattr(owner, name)
    if not had:
        delattr(Volume, "multi_attach_enabled")
    assert LabEC2Backend.physics is recorder


@pytest.fixture
def databases(physics: Recorder) -> DatabaseRecorder:
    """The physical layer of RDS."""
    return physics.databases


@pytest.fixture
def balancers(physics: Recorder) -> BalancerRecorder:
    """The physical layer of load balancing."""
    return physics.balancers


@pytest.fixture
def client(physics: Recorder) -> Any:
    """Make clients of the extended moto."""
    return lambda service: boto3.client(service, region_name="us-east-1")
