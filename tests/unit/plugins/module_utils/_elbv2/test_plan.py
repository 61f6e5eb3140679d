"""The plan for target groups, by table: what is there, what is wanted, minima -> changes or no."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    Group,
    Instance,
    Member,
    Target,
    Wanted,
    Wish,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.plan import (
    Plan,
    after,
    balance,
    draw,
    is_balanced,
    zones_of,
)

A, B, C, D = (f"i-0000000{letter}" for letter in "abcd")
ZONES = {A: "us-east-1a", B: "us-east-1a", C: "us-east-1b", D: "us-east-1b"}
WEB = Group("arn:web", "web", port=80, vpc="vpc-1")
IP = Group("arn:ip", "ip", kind="ip", port=80, vpc="vpc-1")


def members(**states: str) -> list[Member]:
    """Targets at port 80 by letter, such as a="healthy"."""
    names = {"a": A, "b": B, "c": C, "d": D}
    return [Member(Target(names[key], 80), state) for key, state in states.items()]


def drawn(
    found: list[Member], *wanted: str | Wanted, group: Group = WEB, zones: Any = None, **more: Any
) -> Plan:
    wishes = [item if isinstance(item, Wanted) else Wanted(item) for item in wanted]
    instances = more.pop("instances", None)
    return draw(
        [group],
        {group.arn: found},
        Wish(tuple(wishes), **more),
        ZONES if zones is None else zones,
        instances,
    )


def lines(plan: Plan) -> list[str]:
    return [f"{item.action} {item.target}" for item in plan.changes]


UP = "healthy"


@pytest.mark.parametrize(
    ("found", "wanted", "more", "changes"),
    [
        ({}, [A], {}, [f"register {A}:80"]),
        ({"a": UP}, [A], {}, []),
        ({"a": "unhealthy"}, [A], {}, []),
        ({"a": "initial"}, [A], {}, []),
        ({"a": "draining"}, [A], {}, [f"register {A}:80"]),
        ({"a": UP}, [A, B], {}, [f"register {B}:80"]),
        ({"a": UP}, [Wanted(A, 81)], {}, [f"register {A}:81"]),
        ({"a": UP, "b": UP}, [], {}, []),
        ({"a": UP, "b": UP}, [A, A], {}, []),
        # Others are left alone unless the set is exact.
        ({"a": UP, "b": UP}, [A], {"exact": True}, [f"deregister {B}:80"]),
        (
            {"a": UP, "b": UP},
            [A, C],
            {"exact": True},
            [f"register {C}:80", f"deregister {B}:80"],
        ),
        ({"a": UP, "b": "draining"}, [A], {"exact": True}, []),
        ({"a": UP, "b": UP}, [A], {"absent": True}, [f"deregister {A}:80"]),
        ({"a": "draining", "b": UP}, [A], {"absent": True}, []),
        ({"b": UP}, [A], {"absent": True}, []),
        ({"a": "unused", "b": UP}, [A], {"absent": True}, [f"deregister {A}:80"]),
        ({"a": UP}, [A], {"absent": True, "minimum": 0}, [f"deregister {A}:80"]),
    ],
)
def test_changes(
    found: dict[str, str], wanted: list[Any], more: dict[str, Any], changes: list[str]
) -> None:
    plan = drawn(members(**found), *wanted, **more)
    assert (lines(plan), plan.refusals) == (changes, [])


@pytest.mark.parametrize(
    ("found", "wanted", "more", "refusal"),
    [
        # The group's minimum.
        ("a+", [A], {"absent": True}, "would leave 0 healthy of at least 1 (minimum_healthy)"),
        ("a+ b+", [A], {"absent": True}, ""),
        ("a+ b+", [A, B], {"absent": True}, "would leave 0 healthy"),
        ("a+ b+", [A, B], {"absent": True, "minimum": 0}, ""),
        ("a+ b-", [A], {"absent": True}, "would leave 0 healthy"),
        ("a+ b?", [A], {"absent": True}, "would leave 0 healthy"),
        ("a+ b+ c+", [A], {"absent": True, "minimum": 2}, ""),
        ("a+ b+ c+", [A], {"absent": True, "minimum": 3}, "would leave 2 healthy of at least 3"),
        # One that is not healthy may always go, one that is on its way already, too.
        ("a- b+", [A], {"absent": True}, ""),
        ("a- b-", [A], {"absent": True}, ""),
        ("a- b+", [A], {"absent": True, "minimum": 2}, ""),
        ("a~ b+", [A], {"absent": True}, ""),
        # More than there are.
        ("a+ b+", [A], {"absent": True, "minimum": 3}, "minimum_healthy is 3, and web has only 2"),
        ("a+ b+", [A], {"absent": True, "minimum": 9}, "lower it to at most 1, or register more"),
        # The zone's minimum: a and b are in one zone, c and d in the other.
        ("a+ b+ c+", [A], {"absent": True, "minimum_per_zone": 1}, ""),
        (
            "a+ b+ c+",
            [C],
            {"absent": True, "minimum_per_zone": 1},
            "would leave 0 healthy in us-east-1b of at least 1 (minimum_healthy_per_zone)",
        ),
        (
            "a+ c+ d-",
            [C],
            {"absent": True, "minimum_per_zone": 1},
            "would leave 0 healthy in us-ea",
        ),
        ("a+ c- d-", [C], {"absent": True, "minimum_per_zone": 1}, ""),
        # The new ones count where their health is waited for, and only there.
        ("a+", [B], {"exact": True}, ""),
        ("a+", [B], {"exact": True, "wait": False}, "would leave 0 healthy"),
        ("a+ b+", [C], {"exact": True, "minimum": 2}, "would leave 1 healthy of at least 2"),
        ("a+ b+", [C, D], {"exact": True, "minimum": 2}, ""),
        ("a+ b-", [B], {"exact": True}, ""),
        ("a+ b-", [B], {"exact": True, "wait": False}, "would leave 0 healthy"),
        (
            "a+ c+",
            [A, B],
            {"exact": True, "minimum_per_zone": 1},
            "would leave 0 healthy in us-east-1b",
        ),
        ("a+ c+", [B, D], {"exact": True, "minimum_per_zone": 1}, ""),
    ],
)
def test_minima(found: str, wanted: list[Any], more: dict[str, Any], refusal: str) -> None:
    states = {"+": UP, "-": "unhealthy", "?": "initial", "~": "draining"}
    plan = drawn(members(**{item[0]: states[item[1]] for item in found.split()}), *wanted, **more)
    if refusal:
        assert len(plan.refusals) == 1
        assert refusal in plan.refusals[0]
    else:
        assert plan.refusals == []


def test_a_zone_that_nobody_knows_is_not_counted_and_told() -> None:
    found = members(a=UP, b=UP)
    more: dict[str, Any] = {"absent": True, "minimum_per_zone": 1}
    plan = drawn(found, A, zones={A: "us-east-1a"}, **more)
    assert "leave 0 healthy in us-east-1a" in plan.refusals[0]
    assert f"The zone of {B} is not known" in plan.refusals[0]
    plan = drawn(found, A, zones={}, **more)
    assert "in an unknown zone" in plan.refusals[0]
    assert f"The zone of {A}, {B} is not known" in plan.refusals[0]


def test_minima_hold_in_each_group_by_itself() -> None:
    other = Group("arn:api", "api")
    found = {WEB.arn: members(a=UP, b=UP), other.arn: members(a=UP)}
    plan = draw([WEB, other], found, Wish((Wanted(A),), absent=True), ZONES)
    assert [line.split(" would")[0] for line in plan.refusals] == [f"to deregister {A}:80 from api"]


@pytest.mark.parametrize(
    ("group", "wanted", "more", "words"),
    [
        (Group("arn:f", "f", kind="lambda"), [A], {}, ("type lambda", "one Lambda function")),
        (Group("arn:f", "f", kind="alb"), [A], {}, ("type alb", "one load balancer")),
        (IP, [A], {}, ("type ip, which takes addresses", A)),
        (WEB, ["10.0.0.1"], {}, ("type instance, which takes instance ids", "10.0.0.1")),
        (WEB, [A, "10.0.0.1"], {"absent": True}, ("takes instance ids, and not 10.0.0.1",)),
        (
            Group("arn:w", "w", attached=False),
            [A],
            {},
            ("no load balancer", "'unused'", "would never end", "wait: false"),
        ),
        (Group("arn:w", "w", attached=False), [A], {"wait": False}, ()),
        (Group("arn:w", "w", attached=False), [A], {"absent": True}, ()),
    ],
)
def test_misfits(
    group: Group, wanted: list[str], more: dict[str, Any], words: tuple[str, ...]
) -> None:
    plan = drawn([], *wanted, group=group, **more)
    assert len(plan.refusals) == (1 if words else 0)
    for word in words:
        assert word in plan.refusals[0]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "EC2 knows no instance"),
        ({"vpc": "vpc-2"}, "is in vpc-2, and web takes those of vpc-1"),
        ({"vpc": ""}, "is in no VPC"),
        ({"state": "stopped"}, "is stopped, and only a running one"),
        ({"state": "pending"}, "is pending, and only a running one"),
        ({"state": "running"}, ""),
    ],
)
def test_instances(known: dict[str, str], words: str) -> None:
    facts = {"state": "running", "vpc": "vpc-1", "zone": "", "address": "", **known}
    instances = {A: Instance(A, **facts)} if known else {}
    plan = drawn([], A, instances=instances)
    if words:
        assert words in plan.refusals[0]
    else:
        assert plan.refusals == []
    # What nobody asked EC2 about is AWS's to refuse, and what goes need not be known.
    assert drawn([], A, instances=None).refusals == []
    assert drawn([], A, instances=instances, absent=True).refusals == []


def test_all_refusals_are_told_at_once() -> None:
    assert len(drawn([], A, B, instances={}).refusals) == 2


def test_a_host_without_a_port_goes_from_every_port() -> None:
    found = [*members(b=UP), Member(Target(A, 81), UP), Member(Target(A, 82), "draining")]
    plan = drawn(found, A, absent=True)
    assert lines(plan) == [f"deregister {A}:81"]
    assert plan.leaving[WEB.arn] == {Target(A, 81), Target(A, 82)}
    assert plan.warnings == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"absent": True}, "goes on to serve at port 80 of web; this task is about port 81"),
        ({}, "serves as well at port 80"),
        ({"exact": True}, ""),
    ],
)
def test_another_port_is_pointed_out(more: dict[str, Any], words: str) -> None:
    plan = drawn(members(a=UP, b=UP), Wanted(A, 81), **more)
    assert bool(plan.warnings) == bool(words)
    assert not words or words in plan.warnings[0]


def test_only_addresses_have_a_zone_for_aws() -> None:
    plan = drawn([], Wanted("10.9.0.1", zone="all"), group=IP)
    assert plan.changes[0].zone == "all"
    assert drawn([], Wanted(A, zone="us-east-1a")).changes[0].zone == ""


def test_zones_come_from_ec2_then_from_aws_then_from_the_task() -> None:
    wanted = [Wanted(A, zone="told"), Wanted("10.0.0.1", zone="all"), Wanted(C, zone="told")]
    found = {"g": [Member(Target(B, 80), UP, zone="listed"), Member(Target(C, 80), UP, zone="l")]}
    known = {C: Instance(C, "running", "vpc-1", "ec2", "")}
    assert zones_of(wanted, found, known) == {A: "told", B: "listed", C: "ec2"}


def test_the_plan_tells_what_will_stand() -> None:
    found = members(a=UP, b=UP, c="draining")
    plan = drawn(found, A, C, exact=True)
    assert after(plan, WEB.arn, found) == {Target(A, 80), Target(C, 80)}


@pytest.mark.parametrize(
    ("names", "sizes", "even"),
    [
        ([], {}, True),
        ([A], {"us-east-1a": 1}, True),
        ([A, B, C], {"us-east-1a": 2, "us-east-1b": 1}, True),
        ([A, B], {"us-east-1a": 2}, True),
        ([A, "i-a1", "i-a2", C], {"us-east-1a": 3, "us-east-1b": 1}, False),
        ([A, "i-x1", "i-x2", "i-x3"], {"unknown": 3, "us-east-1a": 1}, True),
    ],
)
def test_balance(names: list[str], sizes: dict[str, int], even: bool) -> None:
    zones = {**ZONES, "i-a1": "us-east-1a", "i-a2": "us-east-1a"}
    targets = [Target(name, 80) for name in names]
    counts = balance(targets, targets[:1], zones)
    assert {zone: count["targets"] for zone, count in counts.items()} == sizes
    assert sum(count["healthy"] for count in counts.values()) == len(targets[:1])
    assert is_balanced(counts) is even
