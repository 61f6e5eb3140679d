"""Answers from hosted zones."""

from __future__ import annotations

import pytest
from dnslib import DNSRecord

from lab.names import (
    Answer,
    RecordSet,
    Resolver,
    Zone,
    belongs_to_aws,
    ec2_name,
    lookup,
    record_sets,
    resolve_public,
)
from lab.settings import Settings

LAB = Settings.of("unit", "198.18.7.0/24")
PUBLIC = Zone(
    "shop.test",
    None,
    (
        RecordSet("shop.test", "A", 60, ("192.0.2.1",)),
        RecordSet("www.shop.test", "CNAME", 30, ("shop.test",)),
        RecordSet("out.shop.test", "CNAME", 30, ("www.other.test.",)),
        RecordSet("alias.shop.test", "A", 60, alias="shop.test"),
        RecordSet("loop.shop.test", "CNAME", 30, ("loop.shop.test",)),
        RecordSet("*.wild.shop.test", "A", 30, ("192.0.2.2",)),
        RecordSet("a.b.shop.test", "A", 30, ("192.0.2.3",)),
        RecordSet("shop.test", "TXT", 30, ('"v=1"',)),
        RecordSet("two.shop.test", "A", 30, ("192.0.2.4", "192.0.2.5")),
        RecordSet("db.shop.test", "CNAME", 30, ("main.c0.us-east-1.rds.amazonaws.com",)),
        RecordSet("lb.shop.test", "A", 60, alias="dualstack.Front-1.us-east-1.elb.amazonaws.com"),
        RecordSet("lb.shop.test", "AAAA", 60, alias="front-1.us-east-1.elb.amazonaws.com"),
        RecordSet("old.shop.test", "A", 60, alias="gone-1.us-east-1.elb.amazonaws.com"),
        RecordSet("cname.shop.test", "CNAME", 30, ("front-1.us-east-1.elb.amazonaws.com",)),
    ),
)
OTHER = Zone("other.test", None, (RecordSet("www.other.test", "A", 30, ("192.0.2.9",)),))
SUB = Zone("api.shop.test", None, (RecordSet("api.shop.test", "A", 30, ("192.0.2.7",)),))
PRIVATE = Zone("shop.test", ("vpc-1",), (RecordSet("shop.test", "A", 60, ("10.1.0.4",)),))
ZONES = [PUBLIC, OTHER, SUB, PRIVATE]
MAIN = "main.c0.us-east-1.rds.amazonaws.com"
FRONT = "front-1.us-east-1.elb.amazonaws.com"
NETWORK = "net-0123456789abcdef.elb.us-east-1.amazonaws.com"
ENDPOINTS = {
    MAIN: ("10.1.1.4",),
    FRONT: ("192.0.2.50", "192.0.2.51"),
    NETWORK: ("192.0.2.60",),
    f"us-east-1a.{NETWORK}": ("192.0.2.60",),
}


def values(name: str, kind: str = "A", vpc: str | None = None) -> list[str] | str | None:
    answer = lookup(ZONES, name, kind, vpc, ENDPOINTS)
    if answer is None:
        return None
    return [value for *_, value in answer.records] if answer.code == "NOERROR" else answer.code


@pytest.mark.parametrize(
    ("name", "kind", "vpc", "expected"),
    [
        ("shop.test.", "A", None, ["192.0.2.1"]),
        ("SHOP.test", "A", None, ["192.0.2.1"]),
        ("shop.test", "TXT", None, ['"v=1"']),
        ("shop.test", "AAAA", None, []),
        ("www.shop.test", "A", None, ["shop.test.", "192.0.2.1"]),
        ("www.shop.test", "CNAME", None, ["shop.test"]),
        ("out.shop.test", "A", None, ["www.other.test.", "192.0.2.9"]),
        ("alias.shop.test", "A", None, ["192.0.2.1"]),
        ("loop.shop.test", "A", None, "SERVFAIL"),
        ("x.wild.shop.test", "A", None, ["192.0.2.2"]),
        ("x.y.wild.shop.test", "A", None, ["192.0.2.2"]),
        ("wild.shop.test", "A", None, []),
        ("b.shop.test", "A", None, []),
        ("none.shop.test", "A", None, "NXDOMAIN"),
        ("none.b.shop.test", "A", None, "NXDOMAIN"),
        ("two.shop.test", "A", None, ["192.0.2.4", "192.0.2.5"]),
        ("lb.shop.test", "A", None, ["192.0.2.50", "192.0.2.51"]),
        ("lb.shop.test", "AAAA", None, []),
        ("old.shop.test", "A", None, []),
        ("api.shop.test", "A", None, ["192.0.2.7"]),
        ("shop.test", "A", "vpc-1", ["10.1.0.4"]),
        ("shop.test", "A", "vpc-2", ["192.0.2.1"]),
        ("www.shop.test", "A", "vpc-1", "NXDOMAIN"),
        ("example.org", "A", None, None),
        ("myshop.test", "A", None, None),
    ],
)
def test_lookup(name: str, kind: str, vpc: str | None, expected: list[str] | str | None) -> None:
    assert values(name, kind, vpc) == expected


def test_the_ttl_is_the_records() -> None:
    answer = lookup(ZONES, "www.shop.test", "A", None)
    assert answer is not None
    assert [ttl for _, _, ttl, _ in answer.records] == [30, 60]


def test_the_machine_learns_addresses_of_public_names_alone() -> None:
    assert resolve_public(ZONES) == {
        "a.b.shop.test": "192.0.2.3",
        "alias.shop.test": "192.0.2.1",
        "api.shop.test": "192.0.2.7",
        "out.shop.test": "192.0.2.9",
        "shop.test": "192.0.2.1",
        "two.shop.test": "192.0.2.4",
        "www.other.test": "192.0.2.9",
        "www.shop.test": "192.0.2.1",
    }


def test_the_machine_learns_aliases_of_load_balancers() -> None:
    assert resolve_public(ZONES, ENDPOINTS)["lb.shop.test"] == "192.0.2.50"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ip-10-1-0-4.ec2.internal", "10.1.0.4"),
        ("ip-10-1-0-4.eu-west-1.compute.internal.", "10.1.0.4"),
        ("ec2-198-18-7-20.compute-1.amazonaws.com", "10.1.0.9"),
        ("ec2-198-18-7-21.eu-west-1.compute.amazonaws.com", "198.18.7.21"),
        ("shop.test", None),
    ],
)
def test_names_of_ec2(name: str, expected: str | None) -> None:
    assert ec2_name(name, {"198.18.7.20": "10.1.0.9"}.get) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sts.amazonaws.com.", True),
        ("bucket.s3.eu-west-1.amazonaws.com", True),
        ("S3.AMAZONAWS.COM", True),
        ("lambda.us-east-1.api.aws", True),
        ("notamazonaws.com", False),
        ("amazonaws.com.example.org", False),
    ],
)
def test_names_of_aws(name: str, expected: bool) -> None:
    assert belongs_to_aws(name) is expected


class Client:
    """What dnslib hands over of a client."""

    client_address = ("10.1.0.4", 4242)


def resolver() -> Resolver:
    return Resolver(LAB, lambda: ZONES, lambda _: None, lambda *_: None, lambda: ENDPOINTS)


def test_a_reply_on_the_wire() -> None:
    reply = resolver().resolve(DNSRecord.question("www.shop.test"), Client())
    again = DNSRecord.parse(reply.pack())
    assert [str(record.rdata) for record in again.rr] == ["shop.test.", "192.0.2.1"]
    assert again.header.aa == 1


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (MAIN, "A", [(MAIN, "A", 5, "10.1.1.4")]),
        (MAIN.upper() + ".", "A", [(MAIN, "A", 5, "10.1.1.4")]),
        (MAIN, "AAAA", []),
        (
            "db.shop.test",
            "A",
            [("db.shop.test", "CNAME", 30, MAIN + "."), (MAIN, "A", 5, "10.1.1.4")],
        ),
        ("db.shop.test", "CNAME", [("db.shop.test", "CNAME", 30, MAIN)]),
        ("other.c0.us-east-1.rds.amazonaws.com", "A", "NXDOMAIN"),
        (FRONT, "A", [(FRONT, "A", 60, "192.0.2.50"), (FRONT, "A", 60, "192.0.2.51")]),
        (FRONT, "AAAA", []),
        ("other-1.us-east-1.elb.amazonaws.com", "A", "NXDOMAIN"),
        (NETWORK, "A", [(NETWORK, "A", 60, "192.0.2.60")]),
        (f"us-east-1a.{NETWORK}", "A", [(f"us-east-1a.{NETWORK}", "A", 60, "192.0.2.60")]),
        (f"us-east-1b.{NETWORK}", "A", "NXDOMAIN"),
        (
            "cname.shop.test",
            "A",
            [
                ("cname.shop.test", "CNAME", 30, FRONT + "."),
                (FRONT, "A", 60, "192.0.2.50"),
                (FRONT, "A", 60, "192.0.2.51"),
            ],
        ),
    ],
)
def test_names_of_services_lead_to_what_is_behind_them(
    name: str, kind: str, expected: object
) -> None:
    answer = resolver().answer(name, kind, "10.1.0.4")
    assert answer is not None
    found = list(answer.records) if answer.code == "NOERROR" else answer.code
    assert found == expected


def test_several_values_take_turns() -> None:
    one = resolver()
    first = [
        str(one.resolve(DNSRecord.question("two.shop.test"), Client()).rr[0].rdata)
        for _ in range(4)
    ]
    assert first == ["192.0.2.4", "192.0.2.5"] * 2


def test_what_is_not_there_is_denied_for_a_short_while() -> None:
    reply = resolver().resolve(DNSRecord.question("none.shop.test"), Client())
    assert reply.header.rcode == 3
    assert [record.ttl for record in reply.auth] == [5]


def test_a_name_of_aws_is_the_labs() -> None:
    assert resolver().answer("sts.amazonaws.com", "A", "10.1.0.4") == Answer(
        (("sts.amazonaws.com", "A", 60, LAB.address),)
    )
    assert resolver().answer("sts.amazonaws.com", "AAAA", "10.1.0.4") == Answer()


def test_what_the_lab_does_not_know_goes_upstream() -> None:
    assert resolver().answer("example.org", "A", "10.1.0.4") is None
    assert resolver().answer("no.ec2.internal", "A", "10.1.0.4") == Answer(code="NXDOMAIN")


def test_motos_record_sets() -> None:
    class Moto:
        def __init__(self, name: str, **more: object) -> None:
            self.name, self.type, self.ttl = name, "A", more.get("ttl", "60")
            self.records = more.get("records", [])
            self.alias_target = more.get("alias")

    assert record_sets(
        [
            Moto("Shop.test.", records=["192.0.2.1"]),
            Moto("w.shop.test", records=[{"Value": "192.0.2.2"}], ttl=5),
            Moto("\\052.shop.test.", ttl=None, alias={"DNSName": "shop.test."}),
        ]
    ) == (
        RecordSet("shop.test", "A", 60, ("192.0.2.1",)),
        RecordSet("w.shop.test", "A", 5, ("192.0.2.2",)),
        RecordSet("*.shop.test", "A", 60, alias="shop.test"),
    )
