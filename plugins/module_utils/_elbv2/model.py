# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What target groups, their targets and a wish about them are (pure)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

INSTANCE = re.compile(r"i-[0-9a-f]{8}(?:[0-9a-f]{9})?")
ARN = re.compile(
    r"arn:(?P<partition>[^:]+):elasticloadbalancing:(?P<region>[^:]*):(?P<account>[^:]*):"
    r"(?P<resource>.+)"
)
# Not registered, in AWS's own words for it (DescribeTargetHealth).
NOT_REGISTERED = "Target.NotRegistered"


class TargetError(Exception):
    """A wish that cannot or may not be met; `result` is what the module returns beside the text."""

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


@dataclass(frozen=True, order=True)
class Target:
    """One registration: a host at a port. The same host at two ports is two targets."""

    id: str
    port: int

    def __str__(self) -> str:
        return f"[{self.id}]:{self.port}" if ":" in self.id else f"{self.id}:{self.port}"


@dataclass(frozen=True)
class Wanted:
    """A host that a wish is about; without a port it is the group's."""

    id: str
    port: int | None = None
    zone: str = ""
    address: str = ""

    @property
    def kind(self) -> str:
        """The target type of AWS that takes it: instance or ip."""
        return "instance" if INSTANCE.fullmatch(self.id) else "ip"


@dataclass(frozen=True)
class Member:
    """A target as DescribeTargetHealth tells it."""

    target: Target
    state: str
    reason: str = ""
    description: str = ""
    zone: str = ""

    @property
    def registered(self) -> bool:
        return self.state != "draining" and self.reason != NOT_REGISTERED

    @property
    def healthy(self) -> bool:
        return self.state == "healthy"


@dataclass(frozen=True)
class HealthCheck:
    """How a group asks its targets; times are in seconds."""

    protocol: str = "HTTP"
    port: str = "traffic-port"
    path: str = ""
    matcher: str = ""
    interval: int = 30
    timeout: int = 5
    threshold: int = 5


@dataclass(frozen=True)
class Group:
    """A target group."""

    arn: str
    name: str
    kind: str = "instance"
    port: int = 80
    vpc: str = ""
    attached: bool = True
    check: HealthCheck = field(default_factory=HealthCheck)


@dataclass(frozen=True)
class Instance:
    """What EC2 knows of an instance."""

    id: str
    state: str
    vpc: str
    zone: str
    address: str


@dataclass(frozen=True)
class Wish:
    """What a task asks of every one of its groups."""

    targets: tuple[Wanted, ...]
    absent: bool = False
    exact: bool = False
    wait: bool = True
    minimum: int = 1
    minimum_per_zone: int = 0


def wanted(item: dict[str, Any]) -> Wanted:
    """Return one of the module's targets. Raises TargetError."""
    name, port = str(item.get("id") or ""), item.get("port")
    if not INSTANCE.fullmatch(name):
        try:
            name = ipaddress.ip_address(name).compressed
        except ValueError:
            raise TargetError(
                f"the target '{name}' is neither an instance id (i-0123456789abcdef0) nor an "
                "address (10.0.1.5). Nothing was changed. Correct its id; of a host in the "
                "inventory it is often the variable instance_id"
            ) from None
    if port is not None and not 1 <= port <= 65535:
        raise TargetError(
            f"the target {name} cannot listen at port {port}. Nothing was changed. Give 1 to "
            "65535, or none for the group's own port"
        )
    return Wanted(name, port, item.get("zone") or "", item.get("address") or "")


def wish(options: dict[str, Any]) -> Wish:
    """Return the wish that the module's options state. Raises TargetError."""
    absent = options["state"] == "absent"
    if options["exact"] and absent:
        raise TargetError(
            "exact asks for the whole set that is to be registered, and state is absent. Nothing "
            "was changed. Leave one of them out"
        )
    if options["exact"] and not options["targets"]:
        raise TargetError(
            "targets is empty and exact is true: this would take every target out. Nothing was "
            "changed. If a variable came out empty, look into it; if it is meant, name the targets "
            "with state: absent"
        )
    for name in ("minimum_healthy", "minimum_healthy_per_zone", "timeout"):
        if options[name] < 0:
            raise TargetError(f"{name} is {options[name]}: it is a number from 0 on")
    return Wish(
        targets=tuple(dict.fromkeys(wanted(item) for item in options["targets"])),
        absent=absent,
        exact=options["exact"],
        wait=options["wait"],
        minimum=options["minimum_healthy"],
        minimum_per_zone=options["minimum_healthy_per_zone"],
    )


def reference_problem(reference: str, region: str) -> str:
    """Return why `reference`, a name or an ARN, cannot be a target group of `region`; or nothing.

    A classic load balancer's ARN has no kind between `loadbalancer/` and its name (Service
    Authorization Reference, Elastic Load Balancing).
    """
    if not reference:
        return "a target group without a name: give its name or its ARN"
    if not reference.startswith("arn:"):
        return ""
    parts = ARN.fullmatch(reference)
    kind, _, rest = (parts["resource"] if parts else "").partition("/")
    if kind == "loadbalancer":
        if "/" in rest:
            return (
                f"{reference} is a load balancer, and targets are registered in its target "
                "groups: give one of those"
            )
        return (
            f"{reference} is a classic load balancer, which has no target groups: use "
            "amazon.aws.elb_classic_lb for it, or make an application load balancer"
        )
    if not parts or kind != "targetgroup":
        return f"{reference} is not the ARN of a target group (arn:aws:…:targetgroup/name/id)"
    if region and parts["region"] != region:
        return (
            f"{reference} is in the region {parts['region']}, and this task talks to {region}: set "
            f"region: {parts['region']}, or name a group of {region}"
        )
    return ""


def account_of(arn: str) -> str:
    """Return the account in an ARN of Elastic Load Balancing."""
    parts = ARN.fullmatch(arn)
    return parts["account"] if parts else ""


def group_of(answer: dict[str, Any]) -> Group:
    """Return a target group from an item of DescribeTargetGroups."""
    matcher = answer.get("Matcher") or {}
    return Group(
        arn=str(answer["TargetGroupArn"]),
        name=str(answer["TargetGroupName"]),
        kind=str(answer.get("TargetType", "instance")),
        port=int(answer.get("Port") or 0),
        vpc=str(answer.get("VpcId", "")),
        attached=bool(answer.get("LoadBalancerArns")),
        check=HealthCheck(
            protocol=str(answer.get("HealthCheckProtocol", "")),
            port=str(answer.get("HealthCheckPort", "traffic-port")),
            path=str(answer.get("HealthCheckPath") or ""),
            matcher=str(matcher.get("HttpCode") or matcher.get("GrpcCode") or ""),
            interval=int(answer.get("HealthCheckIntervalSeconds") or 30),
            timeout=int(answer.get("HealthCheckTimeoutSeconds") or 5),
            threshold=int(answer.get("HealthyThresholdCount") or 5),
        ),
    )


def member_of(answer: dict[str, Any]) -> Member:
    """Return a target from an item of DescribeTargetHealth."""
    target, health = answer["Target"], answer.get("TargetHealth", {})
    name = str(target["Id"])
    if ":" in name and not name.startswith("arn:"):
        name = ipaddress.ip_address(name).compressed
    zone = str(target.get("AvailabilityZone") or "")
    return Member(
        target=Target(name, int(target.get("Port") or 0)),
        state=str(health.get("State", "")),
        reason=str(health.get("Reason") or ""),
        description=str(health.get("Description") or ""),
        zone="" if zone == "all" else zone,
    )


def instance_of(answer: dict[str, Any]) -> Instance:
    """Return an instance from an item of DescribeInstances."""
    return Instance(
        id=str(answer["InstanceId"]),
        state=str(answer["State"]["Name"]),
        vpc=str(answer.get("VpcId", "")),
        zone=str(answer.get("Placement", {}).get("AvailabilityZone", "")),
        address=str(answer.get("PrivateIpAddress", "")),
    )


def in_words(items: Iterable[object], most: int = 5) -> str:
    """Return a list for a sentence, the first `most` of it."""
    words = [str(item) for item in items]
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest
