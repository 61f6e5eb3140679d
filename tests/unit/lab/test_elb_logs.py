"""Access logs of load balancers: entries, keys, policies, and what the API makes of them."""

from __future__ import annotations

import gzip
import json
import shlex
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lab import elb
from lab.balancers import Lines
from lab.elb import logs
from lab.elb.logs import Source, Unjudged, entry, key, may_write, trial_key
from lab.hosts import Event
from tests.unit.lab.conftest import BalancerRecorder, Recorder

ARN = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"
SOURCE = Source(ARN, "123456789012", "us-east-1")
GROUPS = {"web.73e2": "arn:aws:tg/web"}
CERTIFICATES = {"AB12": "arn:aws:acm:certificate/1"}
SAID = {
    "now": 1795838442825167, "born": 1795838442823462, "client": "192.0.2.7", "client_port": 2817,
    "address": "10.1.0.9", "port": 80, "target": "10.1.0.4", "target_port": 8080,
    "target_status": 200, "received_ms": 0, "queued_ms": 1, "connected_ms": 2, "answered_ms": 40,
    "status": 200, "state": "--", "received": 34, "sent": 366, "method": "GET", "uri": "/a?b=c",
    "version": "HTTP/1.1", "host": "shop.test", "agent": "curl/7.46.0", "trace": "Root=1-a-b",
    "cipher": "", "tls": "", "sni": "", "certificate": "", "resumed": False, "pool": "web.73e2",
    "priority": 0, "location": "", "connection": "7c7569c8-5a38-4f7a-8126-a9c2e58322ab",
}  # fmt: skip
# Of HAProxy's own answers: nobody was asked.
OWN = {
    "target": "", "target_port": "", "target_status": 0, "queued_ms": -1, "connected_ms": -1,
    "answered_ms": -1, "state": "LR",
}  # fmt: skip
FRONT = {**OWN, "pool": "listener-80"}
TLS = {
    "cipher": "TLS_AES_256_GCM_SHA384", "tls": "TLSv1.3", "sni": "shop.test",
    "certificate": "AB12", "port": 443,
}  # fmt: skip
NAMES = """
type time elb client target request_time target_time response_time elb_status target_status received
sent request agent cipher protocol group trace domain certificate priority created actions redirect
error targets target_statuses classification reason connection host uri transform
""".split()  # noqa: SIM905 - as a list they would take a page


def fields(**more: Any) -> dict[str, str]:
    line = json.dumps({**SAID, **more}, ensure_ascii=False).encode("latin-1")
    found = entry(line, SOURCE, GROUPS, CERTIFICATES)
    return dict(zip(NAMES, _split(found), strict=True))


def _split(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.quotes = True, "", '"'
    return list(lexer)


def test_an_entry() -> None:
    assert entry(json.dumps(SAID).encode(), SOURCE, GROUPS, CERTIFICATES) == (
        "http 2026-11-28T04:00:42.825167Z app/front/50dc6c495c0c9188 192.0.2.7:2817 10.1.0.4:8080"
        ' 0.003 0.040 0.000 200 200 34 366 "GET http://shop.test:80/a?b=c HTTP/1.1" "curl/7.46.0"'
        ' - - arn:aws:tg/web "Root=1-a-b" "-" "-" 0 2026-11-28T04:00:42.823462Z "forward" "-" "-"'
        ' "10.1.0.4:8080" "200" "-" "-" TID_7c7569c85a384f7a8126a9c2e58322ab "-" "-" "-"'
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (TLS, {
            "type": "https", "request": "GET https://shop.test:443/a?b=c HTTP/1.1",
            "cipher": "TLS_AES_256_GCM_SHA384", "protocol": "TLSv1.3", "domain": "shop.test",
            "certificate": "arn:aws:acm:certificate/1",
        }),
        ({**TLS, "resumed": True}, {"certificate": "session-reused"}),
        ({**TLS, "version": "HTTP/2.0"}, {"type": "h2"}),
        ({"status": 101, "target_status": 101}, {"type": "ws", "elb_status": "101"}),
        ({**TLS, "status": 101, "target_status": 101}, {"type": "wss"}),
        ({"host": "shop.test:8000"}, {"request": "GET http://shop.test:8000/a?b=c HTTP/1.1"}),
        ({"host": ""}, {"request": "GET http://10.1.0.9:80/a?b=c HTTP/1.1"}),
        ({"agent": 'a "b" \x01\xe9'}, {"agent": "a \\x22b\\x22 \\x01\\xE9"}),
        ({"agent": "x" * 9000}, {"agent": "x" * 8192}),
        ({"location": "/x"}, {"actions": "forward", "redirect": "-"}),
        # what a load balancer says itself
        ({**FRONT, "status": 410, "priority": 6}, {
            "actions": "fixed-response", "priority": "6", "target": "-", "targets": "-",
            "elb_status": "410", "target_status": "-", "group": "-", "request_time": "-1",
            "target_time": "-1", "response_time": "-1",
        }),
        ({**FRONT, "status": 301, "location": "https://shop.test:443/"}, {
            "actions": "redirect", "redirect": "https://shop.test:443/", "elb_status": "301",
        }),
        ({**OWN, "status": 503}, {
            "actions": "forward", "elb_status": "503", "target": "-", "group": "arn:aws:tg/web",
        }),
        # trouble with targets
        ({"target_status": 0, "status": 503, "state": "SC", "connected_ms": -1, "answered_ms": -1},
         {"elb_status": "502", "target": "10.1.0.4:8080", "target_status": "-",
          "request_time": "-1", "target_time": "-1"}),
        ({"target_status": 0, "status": 503, "state": "sC", "connected_ms": -1, "answered_ms": -1},
         {"elb_status": "504"}),
        ({"target_status": 0, "status": 504, "state": "sH", "answered_ms": -1},
         {"elb_status": "504", "request_time": "0.003", "target_time": "-1"}),
        ({"target_status": 0, "status": 400, "state": "CH", "answered_ms": -1},
         {"elb_status": "460"}),
        ({**FRONT, "status": 400, "state": "PR", "version": "<BADREQ>", "method": "<BADREQ>",
          "uri": "", "host": "", "agent": "", "trace": "", "priority": "", "born": ""},
         {"request": "- - - ", "actions": "-", "elb_status": "400", "priority": "-",
          "created": "2026-11-28T04:00:42.825167Z"}),
    ],
)  # fmt: skip
def test_entries(said: dict[str, Any], expected: dict[str, str]) -> None:
    found = fields(**said)
    assert {name: found[name] for name in expected} == expected


def test_what_is_no_entry() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        entry(b"Proxy listener-80 started.\n", SOURCE, GROUPS, CERTIFICATES)


@pytest.mark.parametrize(("prefix", "before"), [("", ""), ("front", "front/"), ("a/b", "a/b/")])
def test_keys(prefix: str, before: str) -> None:
    end = datetime(2026, 3, 4, 23, 40, tzinfo=UTC)
    assert key(prefix, SOURCE, end, "198.51.100.7", "20sg8hgm") == (
        f"{before}AWSLogs/123456789012/elasticloadbalancing/us-east-1/2026/03/04/123456789012_"
        "elasticloadbalancing_us-east-1_app.front.50dc6c495c0c9188_20260304T2340Z_198.51.100.7_"
        "20sg8hgm.log.gz"
    )
    assert trial_key(prefix, SOURCE) == f"{before}AWSLogs/123456789012/ELBAccessLogTestFile"


SERVICE = {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"}
ALLOW: dict[str, Any] = {
    "Effect": "Allow", "Principal": SERVICE, "Action": "s3:PutObject",
    "Resource": "arn:aws:s3:::shop-logs/AWSLogs/123456789012/*",
}  # fmt: skip
DENY = {**ALLOW, "Effect": "Deny"}


def under(**condition: Any) -> dict[str, Any]:
    return {"Condition": condition}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([ALLOW], True),
        (ALLOW, True),
        ([], False),
        (None, False),
        ([{**ALLOW, "Principal": {"AWS": "arn:aws:iam::127311923021:root"}}], True),
        ([{**ALLOW, "Principal": {"AWS": ["127311923021"]}}], True),
        ([{**ALLOW, "Principal": {"AWS": "arn:aws:iam::054676820928:root"}}], False),
        ([{**ALLOW, "Principal": {"Service": "delivery.logs.amazonaws.com"}}], False),
        ([{**ALLOW, "Principal": "*"}], True),
        ([{**ALLOW, "Action": ["s3:GetObject", "s3:Put*"]}], True),
        ([{**ALLOW, "Action": "s3:GetObject"}], False),
        ([{**ALLOW, "Resource": "arn:aws:s3:::shop-logs/*"}], True),
        ([{**ALLOW, "Resource": "arn:aws:s3:::shop-logs/other/*"}], False),
        ([{**ALLOW, "Resource": "arn:aws:s3:::shop-logs"}], False),
        ([ALLOW, DENY], False),
        ([ALLOW, {**DENY, "Principal": "*", **under(Bool={"aws:SecureTransport": "false"})}], True),
        ([{**ALLOW, **under(StringEquals={"aws:SourceAccount": "123456789012"})}], True),
        ([{**ALLOW, **under(StringEquals={"aws:SourceAccount": ["999999999999"]})}], False),
        ([{**ALLOW, **under(ArnLike={"aws:SourceArn": "arn:aws:elasticloadbalancing:*"})}], True),
        ([{**ALLOW, **under(ArnLike={"aws:SourceArn": "arn:aws:s3:*"})}], False),
    ],
)
def test_policies(statements: Any, expected: bool) -> None:
    policy = None if statements is None else json.dumps({"Statement": statements})
    name = "AWSLogs/123456789012/ELBAccessLogTestFile"
    assert may_write(policy, "shop-logs", name, SOURCE) is expected


@pytest.mark.parametrize(
    "more",
    [
        under(IpAddress={"aws:SourceIp": "192.0.2.0/24"}),
        under(StringNotEquals={"aws:SourceAccount": "1"}),
        {"NotAction": "s3:GetObject"},
    ],
)
def test_policies_that_the_lab_cannot_judge(more: dict[str, Any]) -> None:
    policy = json.dumps({"Statement": [{**ALLOW, **more}]})
    with pytest.raises(Unjudged):
        may_write(policy, "shop-logs", "AWSLogs/123456789012/ELBAccessLogTestFile", SOURCE)


# --- the API
class Bucket:
    """A bucket for logs, and a load balancer that works."""

    def __init__(self, client: Any, balancers: BalancerRecorder) -> None:
        self.s3, self.elb = client("s3"), client("elbv2")
        self.s3.create_bucket(Bucket="shop-logs")
        ec2 = client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(
                VpcId=vpc, CidrBlock=f"10.1.{n}.0/24", AvailabilityZone=f"us-east-1{zone}"
            )["Subnet"]["SubnetId"]
            for n, zone in enumerate("ab")
        ]
        self.arn = self.elb.create_load_balancer(Name="front", Subnets=subnets, Scheme="internal")[
            "LoadBalancers"
        ][0]["LoadBalancerArn"]
        balancers.report(Event.RUNNING)
        [self.backend] = [b for b in elb.backends() if b.load_balancers]

    def allow(self, prefix: str = "") -> None:
        resource = f"arn:aws:s3:::shop-logs/{prefix}AWSLogs/123456789012/*"
        policy = {"Version": "2012-10-17", "Statement": [{**ALLOW, "Resource": resource}]}
        self.s3.put_bucket_policy(Bucket="shop-logs", Policy=json.dumps(policy))

    def enable(self, **more: str) -> None:
        wanted = {"enabled": "true", "bucket": "shop-logs", **more}
        self.elb.modify_load_balancer_attributes(
            LoadBalancerArn=self.arn,
            Attributes=[{"Key": f"access_logs.s3.{k}", "Value": v} for k, v in wanted.items()],
        )

    @property
    def attributes(self) -> dict[str, str]:
        found = self.elb.describe_load_balancer_attributes(LoadBalancerArn=self.arn)
        return {a["Key"]: a["Value"] for a in found["Attributes"]}

    def note(self, node: int, **said: Any) -> None:
        line = json.dumps({**SAID, **said}).encode()
        self.backend.note(elb.nodes()[node].key, [line])

    @property
    def keys(self) -> list[str]:
        found = self.s3.list_objects_v2(Bucket="shop-logs").get("Contents", [])
        return [each["Key"] for each in found]

    def read(self, name: str) -> str:
        return gzip.decompress(
            self.s3.get_object(Bucket="shop-logs", Key=name)["Body"].read()
        ).decode()


@pytest.fixture
def bucket(client: Any, physics: Recorder) -> Bucket:
    return Bucket(client, physics.balancers)


def test_enabling_logs_tries_the_bucket(bucket: Bucket) -> None:
    bucket.allow("front/")
    bucket.enable(prefix="front")
    assert bucket.keys == ["front/AWSLogs/123456789012/ELBAccessLogTestFile"]
    assert bucket.attributes[logs.ENABLED] == "true"
    key = elb.nodes()[0].key
    node = elb.as_node(key)
    assert node is not None
    assert node.behaviour.logs
    bucket.enable(enabled="false")
    node = elb.as_node(key)
    assert node is not None
    assert not node.behaviour.logs


def test_buckets_that_logs_cannot_go_to(bucket: Bucket) -> None:
    boto3.client("s3", region_name="eu-west-1").create_bucket(
        Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    denied = "InvalidConfigurationRequest.*Access Denied for bucket: shop-logs"
    with pytest.raises(ClientError, match=denied):
        bucket.enable()
    bucket.allow("other/")
    for more, message in (
        ({}, denied),
        ({"bucket": ""}, "ValidationError"),
        ({"bucket": "none"}, "InvalidConfigurationRequest.*'none'.*does not exist"),
        ({"bucket": "far"}, "InvalidConfigurationRequest.*eu-west-1.*us-east-1"),
        ({"prefix": "AWSLogs/x"}, "InvalidConfigurationRequest.*AWSLogs"),
    ):
        with pytest.raises(ClientError, match=message):
            bucket.enable(**more)
    condition = under(IpAddress={"aws:SourceIp": "192.0.2.0/24"})
    policy = {"Version": "2012-10-17", "Statement": [{**ALLOW, **condition}]}
    bucket.s3.put_bucket_policy(Bucket="shop-logs", Policy=json.dumps(policy))
    with pytest.raises(ClientError, match=r"NotTrueInTheLab.*IpAddress aws:SourceIp"):
        bucket.enable()
    bucket.allow()
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    bucket.s3.put_bucket_encryption(
        Bucket="shop-logs", ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    with pytest.raises(ClientError, match=denied):
        bucket.enable()
    assert bucket.attributes[logs.ENABLED] == "false"
    assert bucket.keys == []


def test_each_node_has_files_of_its_own(bucket: Bucket) -> None:
    bucket.allow()
    bucket.enable()
    trial = bucket.keys
    end = datetime(2026, 11, 28, 4, 5, tzinfo=UTC)
    bucket.backend.deliver(end)
    assert bucket.keys == trial  # nothing came, nothing is written
    bucket.note(0, uri="/1")
    bucket.note(0, uri="/2")
    bucket.note(1, uri="/3")
    bucket.backend.note(elb.nodes()[1].key, [b"nonsense"])
    bucket.backend.deliver(end)
    names = [name for name in bucket.keys if name not in trial]
    folder = "AWSLogs/123456789012/elasticloadbalancing/us-east-1/2026/11/28/"
    assert all(name.startswith(folder) and "_20261128T0405Z_" in name for name in names)
    by_node = {name.split("_")[5]: bucket.read(name).splitlines() for name in names}
    addresses = [node.address for node in elb.nodes()]
    assert [len(by_node[address]) for address in addresses] == [2, 1]
    assert "/3 HTTP/1.1" in by_node[addresses[1]][0]
    bucket.backend.deliver(end)
    assert len(bucket.keys) == len(trial) + 2


def test_what_was_noted_is_written_where_it_was_wanted(bucket: Bucket) -> None:
    bucket.allow("*")
    bucket.enable(prefix="a")
    bucket.note(0)
    bucket.enable(prefix="b")
    bucket.note(0)
    bucket.enable(enabled="false")
    bucket.note(0)
    bucket.backend.deliver(datetime.now(UTC))
    written = [name for name in bucket.keys if name.endswith(".gz")]
    assert [name[0] for name in written] == ["a", "b"]


def test_a_load_balancer_that_goes_leaves_its_logs(bucket: Bucket) -> None:
    bucket.allow()
    bucket.enable()
    bucket.note(0)
    bucket.elb.delete_load_balancer(LoadBalancerArn=bucket.arn)
    assert len([name for name in bucket.keys if name.endswith(".gz")]) == 1


def test_who_may_not_write_any_more_loses_entries(bucket: Bucket) -> None:
    bucket.allow()
    bucket.enable()
    trial = bucket.keys
    bucket.note(0)
    bucket.s3.delete_bucket_policy(Bucket="shop-logs")
    bucket.backend.deliver(datetime.now(UTC))
    assert bucket.keys == trial


# --- from a node
def test_lines_wait_until_they_are_taken(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(tmp_path / "log.sock"))
        for number in range(5):
            client.send(b"%d" % number)
    found: list[bytes] = []
    deadline = time.monotonic() + 10
    while len(found) < 5 and time.monotonic() < deadline:
        found += lines.take()
    assert found == [b"0", b"1", b"2", b"3", b"4"]
    lines.close()
