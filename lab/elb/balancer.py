"""A load balancer and its nodes, as the API describes them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from moto.elbv2 import models
from moto.elbv2.ssl_policies import SSL_POLICIES

from lab import haproxy
from lab.elb import logs
from lab.elb.rules import balancer_attributes, groups_of, priority_of, rule_of
from lab.hosts import Event


class NodeState(Enum):
    """Where a node is in its life."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    LEAVING = "leaving"
    FAILED = "failed"


class Physics(Protocol):
    """The physical layer as the API sees it."""

    def now(self) -> float:
        """Return the time in seconds since some moment."""

    def addresses(self) -> set[str]:
        """Return the private addresses of all nodes that are not gone yet."""

    def launch(self, node: Any) -> None:
        """Make a node."""

    def remove(self, node: Any) -> None:
        """Shut a node down and remove it."""


class BalancerNode:
    """What stands in one subnet for a load balancer.

    joined: it has seen all targets once; until then it serves nobody while others do. passing: to
    which targets, by group, name in the data plane and registration, it really passes on requests.
    allocation: of its Elastic IP, if it has one.
    """

    def __init__(self, subnet: Any, interface: Any, allocation: str | None = None) -> None:
        self.key = "lb-" + secrets.token_hex(9)[:17]
        self.subnet = subnet
        self.interface = interface
        self.allocation = allocation
        self.state = NodeState.STARTING
        self.joined = False
        self.passing: frozenset[tuple[str, str, int]] = frozenset()

    @property
    def works(self) -> bool:
        """Say whether it passes on requests."""
        return self.state is NodeState.UP

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return str(self.interface.public_ip or self.interface.private_ip_address)

    @property
    def open(self) -> bool:
        """Say whether it has no security groups, so that all may come."""
        return not self.interface._group_set

    @property
    def zone(self) -> str:
        """Its Availability Zone."""
        return str(self.subnet.availability_zone)


@dataclass(frozen=True)
class Place:
    """Where entries of an access log go: a node's, since each has files of its own."""

    bucket: str
    prefix: str
    address: str


class LabLoadBalancer(models.FakeLoadBalancer):
    """moto's load balancer, of nodes. entries: what its access logs will have to say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.nodes: list[BalancerNode] = []
        self.entries: dict[Place, list[str]] = {}
        self.was_active = False
        self.attrs = {key: a.default for key, a in balancer_attributes(self.type).items()}

    @property
    def allocations(self) -> dict[str, str]:
        """The Elastic IPs of its nodes, by subnet."""
        return {node.subnet.id: node.allocation for node in self.nodes if node.allocation}

    @property
    def network(self) -> bool:
        """Say whether it passes on connections instead of requests."""
        return self.type == "network"

    @property
    def availability_zones(self) -> Any:
        """Its zones; of a network load balancer with the addresses of one's own choice."""
        zones: list[Any] = [models.AvailabilityZone(subnet) for subnet in self.subnets]
        for zone in zones:
            for node in self.nodes:
                if node.subnet.id == zone.subnet_id and node.allocation:
                    zone.load_balancer_addresses = [
                        {"IpAddress": node.address, "AllocationId": node.allocation}
                    ]
        return zones

    def activate(self) -> None:
        """Do nothing: it is active when its nodes are."""

    @property
    def groups(self) -> list[str]:
        """The target groups that its rules pass on to."""
        found = (
            arn
            for listener in self.listeners.values()
            for rule in listener.rules.values()
            for action in rule.actions
            for arn in groups_of(action.data)
        )
        return list(dict.fromkeys(found))

    @property
    def source(self) -> logs.Source:
        """How its access logs name it."""
        region, account = self.arn.split(":")[3:5]
        return logs.Source(self.arn, account, region)

    @property
    def target_groups(self) -> list[Any]:
        """The target groups that its rules pass on to, themselves."""
        source = self.source
        known: Any = models.elbv2_backends[source.account][source.region].target_groups
        return [known[arn] for arn in self.groups if arn in known]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its name leads: to the nodes in service; to all if none is.

        A zone is in DNS while its node has a healthy target in each group; if that is true of no
        zone, all are (Application Load Balancers user guide, "Target group health"). Zones only
        differ where cross-zone load balancing is off.
        """
        serving = [node for node in self.nodes if node.works and node.joined]
        groups = self.target_groups
        fit = [node for node in serving if all(group.serves(node) for group in groups)]
        return tuple(node.address for node in fit or serving or self.nodes)

    def take_up(self, node: BalancerNode, event: Event) -> None:
        """Take up what a node reports."""
        if event is Event.FAILED:
            node.state = NodeState.FAILED
        elif node.state is not NodeState.LEAVING:
            node.state = NodeState.UP if event is Event.RUNNING else NodeState.DOWN
        if not node.works:
            node.joined, node.passing = False, frozenset()
        if self.state == "provisioning":
            if any(n.state is NodeState.FAILED for n in self.nodes):
                self.state = "failed"
            elif self.nodes and all(n.works for n in self.nodes):
                self.state, self.was_active = "active", True
                for each in self.nodes:
                    each.joined = True

    # --- its data plane
    def as_node(self, backend: Any, key: str) -> haproxy.Node:
        """Return what a node does."""
        groups = self.target_groups
        [node] = [node for node in self.nodes if node.key == key]
        pools = {group.arn: group.pool for group in groups}
        return haproxy.Node(
            listeners=tuple(
                made
                for listener in sorted(self.listeners.values(), key=lambda each: int(each.port))
                if (made := self._listener(backend, listener, pools))
            ),
            pools=tuple(group.as_pool(node) for group in groups),
            behaviour=self._behaviour(),
        )

    def _listener(
        self, backend: Any, listener: models.FakeListener, pools: dict[str, str]
    ) -> haproxy.Listener | None:
        """Return a listener; None if it has no certificate left, for it never speaks without."""
        rules = sorted(
            listener.rules.values(),
            key=lambda rule: (rule.priority == "default", priority_of(rule)),
        )
        secure = listener.protocol in ("HTTPS", "TLS")
        certificates = tuple(filter(None, map(backend.pem, listener.certificates)))
        if secure and not certificates:
            return None
        versions = sorted(SSL_POLICIES[listener.ssl_policy]["ssl_protocols"]) if secure else []
        # What is older than 1.2 the data plane's TLS library does not speak any more.
        modern = [v if v != "TLSv1" else "TLSv1.0" for v in versions]
        return haproxy.Listener(
            port=int(listener.port),
            rules=tuple(rule_of(rule, pools) for rule in rules),
            certificates=certificates if secure else (),
            tls=(min(modern), max(modern)) if modern else ("TLSv1.2", "TLSv1.3"),
            tcp=self.network,
        )

    def _behaviour(self) -> haproxy.Behaviour:
        if self.network:
            return haproxy.Behaviour()
        http = "routing.http."

        def on(name: str) -> bool:
            return self.attrs[name] == "true"

        return haproxy.Behaviour(
            idle=int(self.attrs["idle_timeout.timeout_seconds"]),
            http2=on("routing.http2.enabled"),
            forwarded_for=self.attrs[f"{http}xff_header_processing.mode"],
            client_port=on(f"{http}xff_client_port.enabled"),
            drop_invalid=on(f"{http}drop_invalid_header_fields.enabled"),
            tls_headers=on(f"{http}x_amzn_tls_version_and_cipher_suite.enabled"),
            logs=on(logs.ENABLED),
        )
