"""Errors on purpose, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from lab.errors import LabError
from lab.faults import Fault, Faults
from lab.honesty import reads, refusal


def test_a_fault_strikes_so_often() -> None:
    faults = Faults()
    faults.arm(Fault.of({"code": "Throttling", "service": "ec2", "count": 2}))
    assert faults.strike("s3", "PutObject") is None
    struck = [faults.strike("ec2", "RunInstances") for _ in range(3)]
    assert [fault and fault.code for fault in struck] == ["Throttling", "Throttling", None]
    assert faults.armed() == []


def test_a_fault_strikes_at_a_rate() -> None:
    chances = iter([0.1, 0.6, 0.49, 0.5])
    faults = Faults(chance=lambda: next(chances))
    faults.arm(Fault.of({"code": "InternalError", "action": "DescribeVpcs", "rate": 0.5}))
    assert [bool(faults.strike("ec2", "DescribeVpcs")) for _ in range(4)] == [
        True, False, True, False,
    ]  # fmt: skip
    faults.clear()
    assert faults.strike("ec2", "DescribeVpcs") is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"code": "Throttling"}, 400),
        ({"code": "RequestLimitExceeded"}, 503),
        ({"code": "InternalError"}, 500),
        ({"code": "Throttling", "status": 429}, 429),
    ],
)
def test_a_faults_status(data: dict[str, Any], status: int) -> None:
    assert Fault.of(data).status == status


@pytest.mark.parametrize(
    "data",
    [{}, {"code": ""}, {"code": "X", "rate": 2}, {"code": "X", "count": 0}, {"code": "X", "a": 1},
     {"code": "X", "count": "many"}],
)  # fmt: skip
def test_no_fault(data: dict[str, Any]) -> None:
    with pytest.raises(LabError):
        Fault.of(data)


@pytest.mark.parametrize(
    ("service", "action", "parameters", "refused"),
    [
        ("ec2", "RunInstances", {}, False),
        ("ec2", "CreateImage", {}, True),
        ("ec2", "CreateVpc", {"AmazonProvidedIpv6CidrBlock": "true"}, True),
        ("ec2", "CreateVpc", {"AmazonProvidedIpv6CidrBlock": "false"}, False),
        ("ec2", "CreateVpcEndpoint", {"VpcEndpointType": "Gateway"}, False),
        ("ec2", "CreateVpcEndpoint", {"VpcEndpointType": "Interface"}, True),
        ("elasticloadbalancing", "CreateLoadBalancer", {"Version": "2015-12-01"}, False),
        ("elasticloadbalancing", "CreateLoadBalancer", {"Version": "2012-06-01"}, True),
        ("elasticloadbalancing", "CreateTrustStore", {"Version": "2015-12-01"}, True),
        ("elasticloadbalancing", "ModifyListenerAttributes", {"Version": "2015-12-01"}, True),
        ("elasticloadbalancing", "DescribeLoadBalancers", {}, False),
        ("rds", "DeleteDBInstance", {}, False),
        ("rds", "DescribeDBClusters", {}, False),
        ("rds", "CreateDBCluster", {}, True),
        ("rds", "CreateDBInstanceReadReplica", {}, True),
        ("rds", "RebootDBInstance", {"ForceFailover": "false"}, False),
        ("rds", "RebootDBInstance", {"ForceFailover": "true"}, False),
        ("autoscaling", "CreateAutoScalingGroup", {}, True),
        ("s3", "PutObject", {}, False),
        ("anything", "DoIt", {}, True),
    ],
)
def test_refusals(service: str, action: str, parameters: dict[str, str], refused: bool) -> None:
    reason = refusal(service, action, parameters)
    assert bool(reason) is refused
    if reason:
        assert action in reason
        assert "docs/lab.md" in reason


def test_reading_changes_nothing() -> None:
    assert all(
        reads(action) for action in ("DescribeVpcs", "GetObject", "ListTables", "HeadBucket")
    )
    assert not any(reads(action) for action in ("CreateVpc", "Get"[:2], "Put", "ResetList"))
