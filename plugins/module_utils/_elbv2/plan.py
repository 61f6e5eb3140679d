# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans which targets are registered and deregistered, or says why nothing may be (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    Group,
    Instance,
    Member,
    Target,
    Wanted,
    Wish,
    in_words,
)

Members = Mapping[str, Sequence[Member]]
REGISTER, DEREGISTER = "register", "deregister"


@dataclass(frozen=True, order=True)
class Change:
    """One registration that is made or ended; zone is what RegisterTargets is told, if any."""

    group: str
    action: str
    target: Target
    zone: str = ""


@dataclass
class Plan:
    """Changes, by the ARN of their group.

    told: the targets that the wish names in each group; leaving: those that shall be gone from it,
    of which some may drain already. With refusals nothing may be changed.
    """

    changes: list[Change] = field(default_factory=list)
    told: dict[str, set[Target]] = field(default_factory=dict)
    leaving: dict[str, set[Target]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def of(self, group: str, action: str) -> list[Change]:
        return [item for item in self.changes if (item.group, item.action) == (group, action)]


def zones_of(
    wanted: Iterable[Wanted], members: Members, instances: Mapping[str, Instance]
) -> dict[str, str]:
    """Return the zone of each host, where one is known: EC2's word first, then AWS's, then ours."""
    zones = {item.id: item.zone for item in wanted if item.zone not in ("", "all")}
    zones |= {m.target.id: m.zone for found in members.values() for m in found if m.zone}
    return zones | {item.id: item.zone for item in instances.values() if item.zone}


def targets_of(group: Group, members: Sequence[Member], wish: Wish) -> dict[Target, Wanted]:
    """Return the targets that a wish means in a group.

    A host without a port is registered at the group's, and deregistered at each that it has there.
    """
    found: dict[Target, Wanted] = {}
    for item in wish.targets:
        ports = [item.port or group.port]
        if wish.absent and item.port is None:
            ports = [m.target.port for m in members if m.target.id == item.id] or ports
        found |= {Target(item.id, port): item for port in ports}
    return found


def draw(
    groups: Sequence[Group],
    members: Members,
    wish: Wish,
    zones: Mapping[str, str],
    instances: Mapping[str, Instance] | None = None,
) -> Plan:
    """Return what is to be done in every group.

    members: what DescribeTargetHealth tells, by the group's ARN; zones: by the host's id;
    instances: what EC2 tells, by id, or None when it was not asked.
    """
    plan = Plan()
    for group in groups:
        found = members[group.arn]
        named = targets_of(group, found, wish)
        problems = misfits(group, wish, instances)
        registered = {m.target for m in found if m.registered}
        draining = {m.target for m in found if m.state == "draining"}
        joining = set() if wish.absent else set(named) - registered
        if wish.absent:
            leaving, gone = set(named) & (registered | draining), set(named) & registered
        else:
            leaving = gone = registered - set(named) if wish.exact else set()
        plan.told[group.arn], plan.leaving[group.arn] = set(named), leaving
        plan.changes += [
            Change(group.arn, REGISTER, target, named[target].zone if group.kind == "ip" else "")
            for target in sorted(joining)
        ]
        plan.changes += [Change(group.arn, DEREGISTER, target) for target in sorted(gone)]
        # Whoever waits, deregisters only after all that the wish names are healthy.
        promised = set(named) if wish.wait and not wish.absent else set()
        plan.refusals += problems or shortfalls(group, found, gone, promised, zones, wish)
        plan.warnings += strays(group, found, named, wish)
    return plan


def misfits(group: Group, wish: Wish, instances: Mapping[str, Instance] | None = None) -> list[str]:
    """Return why the hosts of a wish cannot be targets of a group."""
    if group.kind in ("lambda", "alb"):
        what = "one Lambda function" if group.kind == "lambda" else "one load balancer"
        return [
            f"{group.name} is a group of the type {group.kind}, whose target is {what}, and no "
            "host: manage it with community.aws.elb_target_group"
        ]
    wrong = [item.id for item in wish.targets if item.kind != group.kind]
    if wrong:
        takes = {"instance": "instance ids", "ip": "addresses"}
        return [
            f"{group.name} is a group of the type {group.kind}, which takes "
            f"{takes.get(group.kind, group.kind)}, and not {in_words(wrong)}: give those, or a "
            "group of the other type (the type of a group cannot be changed)"
        ]
    if wish.absent:
        return []
    lines = []
    if wish.wait and wish.targets and not group.attached:
        lines.append(
            f"{group.name} has no load balancer, so that its targets stay 'unused' and are never "
            "checked: to wait for their health would never end. Let a listener forward to the "
            "group first, or set wait: false"
        )
    if instances is None or group.kind != "instance":
        return lines
    for name in dict.fromkeys(item.id for item in wish.targets):
        lines += unfit(group, name, instances.get(name))
    return lines


def unfit(group: Group, name: str, instance: Instance | None) -> list[str]:
    """Return why an instance cannot be registered in a group."""
    if instance is None:
        return [
            f"EC2 knows no instance {name} in this region and account: correct its id, or leave it "
            "out if it was terminated"
        ]
    if group.vpc and instance.vpc != group.vpc:
        return [
            f"the instance {name} is in {instance.vpc or 'no VPC'}, and {group.name} takes "
            f"those of {group.vpc}: give an instance of that VPC, or its address to a group of "
            "the type ip"
        ]
    if instance.state != "running":
        return [
            f"the instance {name} is {instance.state}, and only a running one can be registered: "
            "start it and wait until it runs"
        ]
    return []


def shortfalls(
    group: Group,
    members: Sequence[Member],
    leaving: set[Target],
    promised: set[Target],
    zones: Mapping[str, str],
    wish: Wish,
) -> list[str]:
    """Return why `leaving` would leave a group, or a zone of it, with too few healthy targets.

    promised: targets that will be healthy before the first one leaves. What takes out no healthy
    target is never too much: a broken host must not be kept in.
    """
    healthy = {m.target for m in members if m.healthy}
    lost = healthy & leaving
    if not lost:
        return []
    kept = (healthy - leaving) | promised
    whole = {m.target for m in members if m.registered} | promised
    who = f"to deregister {in_words(sorted(lost))} from {group.name}"
    lines = []
    if wish.minimum > len(whole):
        lines.append(
            f"minimum_healthy is {wish.minimum}, and {group.name} has only {len(whole)} targets, "
            "so that none could ever be deregistered: lower it to at most "
            f"{len(whole) - len(lost)}, or register more first"
        )
    elif len(kept) < wish.minimum:
        lines.append(
            f"{who} would leave {len(kept)} healthy of at least {wish.minimum} (minimum_healthy): "
            "bring others into service first, take fewer at a time, or lower the minimum"
        )
    if not wish.minimum_per_zone:
        return lines
    homeless = sorted({target.id for target in lost | kept if not zones.get(target.id)})
    unknown = (
        f". The zone of {in_words(homeless)} is not known: leave describe_instances on"
        if homeless
        else ""
    )
    for zone in sorted({zones.get(target.id, "") for target in lost}):
        stay = sum(1 for target in kept if zone and zones.get(target.id) == zone)
        if stay < wish.minimum_per_zone:
            lines.append(
                f"{who} would leave {stay} healthy in {zone or 'an unknown zone'} of at least "
                f"{wish.minimum_per_zone} (minimum_healthy_per_zone): bring others of that zone "
                f"into service first, or lower the minimum{unknown}"
            )
    return lines


def strays(
    group: Group, members: Sequence[Member], named: Mapping[Target, Wanted], wish: Wish
) -> list[str]:
    """Return warnings about hosts that serve at another port of a group than the one named."""
    if wish.exact:
        return []
    lines = []
    for target, item in sorted(named.items()):
        others = sorted(
            m.target.port
            for m in members
            if m.registered and m.target.id == target.id and m.target not in named
        )
        if others:
            state = "goes on to serve" if wish.absent else "serves as well"
            port = target.port if item.port else f"{target.port}, the group's own"
            lines.append(
                f"{target.id} {state} at port {in_words(others)} of {group.name}; this task is "
                f"about port {port}"
            )
    return lines


def after(plan: Plan, group: str, members: Sequence[Member]) -> set[Target]:
    """Return the targets that are registered in a group once the plan is carried out."""
    joined = {item.target for item in plan.of(group, REGISTER)}
    left = {item.target for item in plan.of(group, DEREGISTER)}
    return ({m.target for m in members if m.registered} | joined) - left


def balance(
    registered: Iterable[Target], healthy: Iterable[Target], zones: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Return the number of targets, and of healthy ones, in each zone (`unknown` without one)."""
    sound, counts = set(healthy), dict[str, dict[str, int]]()
    for target in registered:
        zone = counts.setdefault(zones.get(target.id) or "unknown", {"targets": 0, "healthy": 0})
        zone["targets"] += 1
        zone["healthy"] += target in sound
    return dict(sorted(counts.items()))


def is_balanced(counts: Mapping[str, Mapping[str, int]]) -> bool:
    """Tell whether no zone has two targets more than another; unknown zones are none."""
    sizes = [count["targets"] for zone, count in counts.items() if zone != "unknown"]
    return max(sizes, default=0) - min(sizes, default=0) <= 1
