"""What the lab touches of moto is what it was written against.

`moto_symbols.json` holds each symbol with its signature. If moto is raised and this fails: read
what changed, adapt the lab, and write the new signature down.
"""

from __future__ import annotations

import importlib
import inspect
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

SYMBOLS: dict[str, str] = json.loads((Path(__file__).parent / "moto_symbols.json").read_text())
# Attributes that only an instance has.
ATTRIBUTES = {
    "moto.ec2.models.elastic_network_interfaces.NetworkInterface": {
        "_group_set", "private_ip_address", "public_ip", "delete_on_termination", "mac_address",
        "requester_managed", "requester_id", "status",
    },
    "moto.ec2.models.security_groups.SecurityGroup": {"ingress_rules", "egress_rules"},
    "moto.ec2.models.security_groups.SecurityGroupRule": {
        "ip_protocol", "from_port", "to_port", "source_group", "prefix_list_id",
    },
    "moto.ec2.models.route_tables.RouteTable": {"_associations", "main_association_id"},
    "moto.ec2.models.subnets.Subnet": {"_subnet_ips", "_unused_ips", "_reserved_ips"},
    "moto.ec2.models.elastic_ip_addresses.ElasticAddress": {
        "eni", "instance", "association_id", "allocation_id", "public_ip",
    },
    "moto.acm.models.CertBundle": {"cert", "key", "chain", "status", "created_at"},
    "moto.elbv2.models.ELBv2Backend": {"load_balancers", "target_groups"},
    "moto.elbv2.models.FakeListener": {
        "load_balancer_arn", "port", "protocol", "ssl_policy", "certificate", "certificates",
    },
    "moto.elbv2.models.FakeLoadBalancer": {
        "name", "scheme", "security_groups", "subnets", "vpc_id", "listeners", "dns_name", "state",
        "attrs", "type",
    },
    "moto.elbv2.models.FakeTargetGroup": {
        "name", "arn", "vpc_id", "protocol", "port", "target_type", "attributes", "matcher",
        "load_balancer_arns", "health_check_protocol", "health_check_port", "health_check_path",
        "health_check_interval_seconds", "health_check_timeout_seconds",
        "healthy_threshold_count", "unhealthy_threshold_count",
    },
    "moto.rds.models.DBInstance": {
        "status", "master_user_secret", "manage_master_user_password", "dbi_resource_id",
    },
    "moto.rds.models.DBParameterGroup": {"name", "parameters"},
    "moto.rds.models.DBSnapshot": {
        "database", "status", "snapshot_type", "dbi_resource_id", "allocated_storage",
    },
    "moto.rds.models.DBSubnetGroup": {"name", "_subnets", "vpc_id"},
    "moto.rds.models.RDSBackend": {
        "databases", "database_snapshots", "db_parameter_groups", "subnet_groups",
    },
    "moto.s3.models.FakeBucket": {"policy", "region_name", "encryption"},
    "moto.route53.models.RecordSet": {"name", "type", "ttl", "records", "alias_target"},
    "moto.route53.models.FakeZone": {"name", "vpcs", "private_zone", "rrsets"},
}  # fmt: skip


def find(path: str) -> Any:
    """Return what a dotted path names."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ImportError(path)


def test_the_version_is_the_pinned_one() -> None:
    assert version("moto") == "5.2.5"


@pytest.mark.parametrize("path", SYMBOLS)
def test_a_symbol_is_as_it_was(path: str) -> None:
    assert str(inspect.signature(find(path))) == SYMBOLS[path]


@pytest.mark.parametrize("path", ATTRIBUTES)
def test_instances_have_the_attributes(path: str) -> None:
    source = inspect.getsource(find(path).__init__)
    assert {name for name in ATTRIBUTES[path] if f"self.{name}" not in source} == set()
