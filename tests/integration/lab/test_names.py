"""Names of Route 53 resolve in hosts and on the machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import DNSRecord

from lab.settings import Settings
from tests.integration.lab.conftest import SETTINGS, Aws, Box

pytestmark = pytest.mark.lab


class Zone:
    """A hosted zone and its records."""

    def __init__(self, aws: Aws, name: str, **options: object) -> None:
        self.route53 = aws.client("route53")
        self.id = self.route53.create_hosted_zone(Name=name, CallerReference=name, **options)[
            "HostedZone"
        ]["Id"]

    def change(self, action: str, name: str, kind: str, *values: str, **more: object) -> None:
        record: dict[str, object] = {"Name": name, "Type": kind, **more}
        if values:
            record |= {"TTL": 30, "ResourceRecords": [{"Value": value} for value in values]}
        self.route53.change_resource_record_sets(
            HostedZoneId=self.id,
            ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]},
        )


@pytest.fixture(scope="module")
def zone(aws: Aws, pair: tuple[Box, Box]) -> Iterator[Zone]:
    zone = Zone(aws, "shop.example")
    zone.change("CREATE", "shop.example", "A", pair[0].public)
    zone.change("CREATE", "www.shop.example", "CNAME", "shop.example")
    zone.change("CREATE", "both.shop.example", "A", *(box.private for box in pair))
    zone.change("CREATE", "*.wild.shop.example", "TXT", '"any"')
    zone.change("CREATE", "_sip._tcp.shop.example", "SRV", "1 2 5060 www.shop.example")
    zone.change("CREATE", "shop.example", "MX", "10 mail.shop.example")
    zone.change(
        "CREATE",
        "alias.shop.example",
        "A",
        AliasTarget={
            "HostedZoneId": zone.id,
            "DNSName": "shop.example",
            "EvaluateTargetHealth": False,
        },
    )
    yield zone


def ask(lab: Settings, name: str, kind: str = "A", tcp: bool = False) -> list[str]:
    reply = DNSRecord.parse(
        DNSRecord.question(name, kind).send(lab.address, 53, tcp=tcp, timeout=5)
    )
    return [str(record.rdata) for record in reply.rr]


def test_the_dns_server_answers(aws: Aws, pair: tuple[Box, Box], zone: Zone) -> None:
    lab, public = aws.settings, pair[0].public
    for tcp in (False, True):
        assert ask(lab, "shop.example", tcp=tcp) == [public]
    assert ask(lab, "www.shop.example") == ["shop.example.", public]
    assert ask(lab, "alias.shop.example") == [public]
    assert ask(lab, "a.wild.shop.example", "TXT") == ['"any"']
    assert ask(lab, "_sip._tcp.shop.example", "SRV") == ["1 2 5060 www.shop.example."]
    assert ask(lab, "shop.example", "MX") == ["10 mail.shop.example."]
    assert ask(lab, "shop.example", "AAAA") == []
    assert len(ask(lab, "shop.example", "NS")) == 4
    turns = {tuple(ask(lab, "both.shop.example")) for _ in range(4)}
    assert len(turns) == 2, "several values take turns"
    missing = DNSRecord.parse(
        DNSRecord.question("no.shop.example").send(lab.address, 53, timeout=5)
    )
    assert missing.header.rcode == 3


def test_hosts_resolve_them(pair: tuple[Box, Box], zone: Zone) -> None:
    box = pair[1]
    assert box.run("getent ahostsv4 www.shop.example").split()[0] == pair[0].public
    # Also the VPC's own resolver answers, at base + 2.
    answer = box.run("grep nameserver /etc/resolv.conf; nc -z -w1 10.77.0.2 53 && echo vpc")
    assert answer.split() == ["nameserver", "169.254.169.253", "vpc"]


def test_the_machine_resolves_them_and_follows_changes(pair: tuple[Box, Box], zone: Zone) -> None:
    assert socket.gethostbyname("www.shop.example") == pair[0].public
    zone.change("UPSERT", "shop.example", "A", pair[1].public)
    assert socket.gethostbyname("shop.example") == pair[1].public
    assert Path("/etc/hosts").read_text().count(f"# BEGIN ascent lab {SETTINGS.name}\n") == 1
    zone.change("UPSERT", "shop.example", "A", pair[0].public)


def test_ec2_names_lead_inside_from_inside(aws: Aws, pair: tuple[Box, Box]) -> None:
    private = pair[0].describe()["PrivateDnsName"]
    assert pair[1].run(f"getent ahostsv4 {private}").split()[0] == pair[0].private
    public = "ec2-{}.compute-1.amazonaws.com".format(pair[0].public.replace(".", "-"))
    assert pair[1].run(f"getent ahostsv4 {public}").split()[0] == pair[0].private
    assert ask(aws.settings, public) == [pair[0].public]


def test_a_private_zone_is_seen_by_its_vpc_alone(aws: Aws, pair: tuple[Box, Box]) -> None:
    zone = Zone(
        aws,
        "internal.example",
        VPC={"VPCRegion": "us-east-1", "VPCId": aws.vpc},
        HostedZoneConfig={"PrivateZone": True},
    )
    zone.change("CREATE", "db.internal.example", "A", pair[0].private)
    assert pair[1].run("getent ahostsv4 db.internal.example").split()[0] == pair[0].private
    assert "internal.example" not in Path("/etc/hosts").read_text()
