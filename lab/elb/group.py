"""A target group, and what is registered with it."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from moto.ec2.models import ec2_backends
from moto.elbv2 import models

from lab import haproxy
from lab.elb.health import NOT_REGISTERED, Health, Situation, View, chosen, health
from lab.elb.rules import (
    CROSS_ZONE,
    CUT_DRAINED,
    CUT_UNHEALTHY,
    PROXY,
    group_attributes,
    is_network,
)

Key = tuple[str, int]
_registrations = itertools.count(1)


class Target:
    """One registration: a host or an address, and a port.

    views: what each node has seen of it. before: what it was for a node until it became healthy.
    due: when each node looks again. until: when it is gone, if it is draining.
    """

    def __init__(self, identifier: str, port: int) -> None:
        self.id = identifier
        self.port = port
        self.views: dict[str, View] = {}
        self.before: dict[str, View] = {}
        self.due: dict[str, float] = {}
        self.until: float | None = None
        self.registration = next(_registrations)

    @property
    def key(self) -> Key:
        """What tells it from others in its group."""
        return self.id, self.port

    @property
    def name(self) -> str:
        """Its name in the data plane."""
        return f"{self.id}:{self.port}"

    def forget(self) -> None:
        """Begin anew with health checks."""
        for seen in (self.views, self.before, self.due):
            seen.clear()


class LabTargetGroup(models.FakeTargetGroup):
    """moto's target group whose targets are really checked."""

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        self.attributes: Any = {
            key: attribute.default for key, attribute in group_attributes(self.protocol).items()
        }
        if self.health_check_protocol == "TCP":
            self.matcher: Any = None
        self.registered: dict[Key, Target] = {}
        self.asked: dict[str, Any] = {}

    # moto only ever adds to it.
    @property
    def load_balancer_arns(self) -> list[str]:
        """The load balancers that use the group."""
        backend: Any = models.elbv2_backends[self.account_id][self.region_name]
        return [
            balancer.arn
            for balancer in backend.load_balancers.values()
            if self.arn in balancer.groups
        ]

    @load_balancer_arns.setter
    def load_balancer_arns(self, _: list[str]) -> None: ...

    @property
    def balancer(self) -> Any:
        """The load balancer that uses the group, if there is one."""
        backend: Any = models.elbv2_backends[self.account_id][self.region_name]
        return next((backend.load_balancers[arn] for arn in self.load_balancer_arns), None)

    @property
    def network(self) -> bool:
        """Say whether it is of network load balancers."""
        return is_network(self.protocol)

    @property
    def pool(self) -> str:
        """The group's name in the data plane."""
        return ".".join(self.arn.split("/")[-2:])

    @property
    def delay(self) -> int:
        """How many seconds a target drains."""
        return int(self.attributes["deregistration_delay.timeout_seconds"])

    # --- registration
    def enter(self, target: Target) -> None:
        """Register a target; one that is draining comes back as a new one."""
        before = self.registered.get(target.key)
        if before is None or before.until is not None:
            self.registered[target.key] = target

    def leave(self, key: Key, now: float) -> None:
        """Deregister a target: it drains if anybody could still be talking to it."""
        target = self.registered.get(key)
        if target is None or target.until is not None:
            return
        if self.delay and self.situation(target).unused is None:
            target.until = now + self.delay
        else:
            del self.registered[key]

    def expire(self, now: float) -> None:
        """Forget what has drained."""
        for key, target in list(self.registered.items()):
            if target.until is not None and now >= target.until:
                del self.registered[key]

    def deregister_terminated_instances(self, instance_ids: list[str]) -> None:
        """Leave it to the backend: moto keeps them draining for ever."""

    # --- zones
    @property
    def cross_zone(self) -> bool:
        """Say whether nodes pass on requests to targets of other zones.

        The group's own word counts before its load balancer's (Application Load Balancers user
        guide, "Cross-zone load balancing for target groups").
        """
        own = self.attributes[CROSS_ZONE]
        if own == "use_load_balancer_configuration":
            balancer = self.balancer
            return balancer is None or balancer.attrs[CROSS_ZONE] == "true"
        return bool(own == "true")

    def zone(self, target: Target) -> str | None:
        """Return a target's zone; None if it is in none, as an address outside of the VPC."""
        if self.target_type == "instance":
            instance = self.instance(target)
            return str(instance.placement.zone) if instance else None
        address = ipaddress.IPv4Address(target.id)
        for subnet in self._ec2.describe_subnets(filters={"vpc-id": [self.vpc_id]}):
            if address in ipaddress.IPv4Network(subnet.cidr_block):
                return str(subnet.availability_zone)
        return None

    def reaches(self, node: Any, target: Target) -> bool:
        """Say whether a node may pass on requests to a target."""
        return self.cross_zone or self.zone(target) in (None, node.zone)

    def serves(self, node: Any) -> bool:
        """Say whether a node passes on requests to a target that it has seen to be healthy."""
        return any(
            self.reaches(node, target) and self.seen(target, node).state == "healthy"
            for target in self.usable()
        )

    # --- health
    def instance(self, target: Target) -> Any:
        """Return a target's instance, if it is one."""
        if self.target_type != "instance":
            return None
        return self._ec2.get_instance_by_id(target.id)

    def address(self, target: Target) -> str | None:
        """Return where a target is."""
        if self.target_type != "instance":
            return target.id
        instance = self.instance(target)
        address = instance.private_ip if instance else None
        return str(address) if address else None

    def situation(self, target: Target) -> Situation:
        """Return what the API knows of a target."""
        balancer, instance = self.balancer, self.instance(target)
        gone = self.target_type == "instance" and instance is None
        return Situation(
            draining=target.until is not None,
            attached=balancer is not None,
            stopped=gone or (instance is not None and instance.state in ("stopped", "terminated")),
            zone=self.zone(target) if instance else None,
            zones=[subnet.availability_zone for subnet in balancer.subnets] if balancer else (),
        )

    def health_of(self, key: Key) -> Health:
        """Return a target's health as the API tells it."""
        target = self.registered.get(key)
        if target is None:
            return NOT_REGISTERED
        balancer = self.balancer
        nodes = self._seeing(target)
        views = [self.seen(target, node) for node in nodes]
        blind = balancer is not None and balancer.was_active and not nodes
        return health(self.situation(target), views, blind)

    def _seeing(self, target: Target) -> list[Any]:
        """Return the nodes whose view of a target counts: those in service, or all that work."""
        balancer = self.balancer
        nodes = balancer.nodes if balancer else []
        working = [node for node in nodes if node.works and self.reaches(node, target)]
        return [node for node in working if node.joined] or working

    def seen(self, target: Target, node: Any) -> View:
        """Return a node's view of a target, but healthy only once it gets requests."""
        view = target.views.get(node.key, View())
        passing = (self.pool, target.name, target.registration) in node.passing
        if view.state == "healthy" and not passing:
            return target.before.get(node.key, view)
        return view

    def usable(self) -> Iterator[Target]:
        """Yield targets that get checks, and requests if they pass."""
        for target in self.registered.values():
            if self.situation(target).unused is None:
                yield target

    def as_pool(self, node: Any) -> haproxy.Pool:
        """Return the group as one node knows it.

        Targets of other zones are there even if they get nothing: what is under way with them when
        cross-zone load balancing is turned off ends well.
        """
        usable = list(self.usable())
        live = {t.name for t in usable}
        ready = chosen(
            {t.name: t.views.get(node.key, View()).state for t in usable if self.reaches(node, t)}
        )
        cut = self.attributes.get(CUT_UNHEALTHY) == "true"
        servers = tuple(
            haproxy.Server(
                target.name,
                address,
                target.port,
                ready=target.name in ready,
                cut=cut and ill(target, node) and target.name not in ready,
                registration=target.registration,
            )
            for target in self.registered.values()
            if target.name in live or target.until is not None
            if (address := self.address(target)) is not None
        )
        return self._network_pool(servers) if self.network else self._pool(servers)

    def _pool(self, servers: tuple[haproxy.Server, ...]) -> haproxy.Pool:
        attributes = self.attributes
        sticky = attributes["stickiness.enabled"] == "true"
        seconds = int(attributes["stickiness.lb_cookie.duration_seconds"])
        return haproxy.Pool(
            name=self.pool,
            secure=self.protocol == "HTTPS",
            algorithm=attributes["load_balancing.algorithm.type"],
            sticky=seconds if sticky else 0,
            slow_start=int(attributes["slow_start.duration_seconds"]),
            servers=servers,
        )

    def _network_pool(self, servers: tuple[haproxy.Server, ...]) -> haproxy.Pool:
        sticky = self.attributes["stickiness.enabled"] == "true"
        return haproxy.Pool(
            name=self.pool,
            secure=self.protocol == "TLS",
            algorithm="source_ip" if sticky else "flow_hash",
            tcp=True,
            proxy=self.attributes[PROXY] == "true",
            cuts=self.attributes[CUT_DRAINED] == "true",
            servers=servers,
        )

    def health_port(self, target: Target | Key) -> int:
        """Return the port at which a target is checked."""
        port = target[1] if isinstance(target, tuple) else target.port
        own = str(self.health_check_port)
        return port if own == "traffic-port" else int(own)

    @property
    def _ec2(self) -> Any:
        return ec2_backends[self.account_id][self.region_name]


def ill(target: Target, node: Any) -> bool:
    """Say whether a node has seen that a target is unhealthy."""
    return target.until is None and target.views.get(node.key, View()).state == "unhealthy"


def keys(group: LabTargetGroup, targets: Iterable[dict[str, Any]]) -> list[Key]:
    """Return the targets that a request names; without a port the group's is meant."""
    return [(t["Id"], int(t.get("Port") or group.port)) for t in targets]
