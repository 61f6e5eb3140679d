"""Elastic Load Balancing made true: moto's backend, subclassed, with nodes and health checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from moto.ec2.exceptions import InvalidSubnetIdError
from moto.ec2.models import ec2_backends
from moto.elbv2 import models
from moto.elbv2.exceptions import (
    DuplicateLoadBalancerName,
    DuplicateTargetGroupName,
    ELBClientError,
    InvalidConfigurationRequest,
    LoadBalancerNotFoundError,
    SubnetNotFoundError,
    ValidationError,
)

from lab.elb import logs, rules
from lab.elb.balancer import BalancerNode, LabLoadBalancer, NodeState, Physics
from lab.elb.delivery import Delivery
from lab.elb.group import LabTargetGroup, Target, keys
from lab.elb.health import Check, Outcome, View
from lab.elb.rules import not_true
from lab.haproxy import Node
from lab.hosts import Event

_Models: Any = models
# How targets of a network load balancer are checked by HTTP unless the group says otherwise (API
# reference, "CreateTargetGroup"; Network Load Balancers user guide, "Health check settings").
_HTTP_CHECK: Mapping[str, Any] = {
    "healthcheck_path": "/",
    "healthcheck_timeout_seconds": 6,
    "matcher": {"HttpCode": "200-399"},
}


@dataclass(frozen=True)
class Job:
    """A health check that is due: which node looks at which target, where and how."""

    node: str
    group: Any
    target: Target
    address: str
    port: int
    check: Check


class LabELBv2Backend(Delivery):
    """moto's Elastic Load Balancing whose load balancers pass on requests."""

    __module__ = "moto.elbv2.models"  # moto finds a backend's URLs by its module's name
    physics: ClassVar[Physics]

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.leaving: dict[str, BalancerNode] = {}

    @property
    def _ec2(self) -> Any:
        return ec2_backends[self.account_id][self.region_name]

    # --- load balancers
    def create_load_balancer(
        self,
        name: str,
        security_groups: list[str],
        subnet_ids: list[str],
        subnet_mappings: list[dict[str, str]] | None = None,
        scheme: str = "internet-facing",
        loadbalancer_type: str | None = None,
        ip_address_type: str = "ipv4",
        tags: list[dict[str, str]] | None = None,
    ) -> Any:
        """Create a load balancer; `provisioning` until a node serves in each of its subnets."""
        scheme = scheme or "internet-facing"
        kind = loadbalancer_type or "application"
        if kind not in ("application", "network"):
            raise not_true(f"a load balancer of the type {kind}: there are application and network")
        if ip_address_type != "ipv4":
            raise not_true(f"a load balancer of the address type {ip_address_type}")
        if scheme not in ("internet-facing", "internal"):
            raise ELBClientError("InvalidScheme", "The requested scheme is not valid")
        rules.check_name(name, "Load balancer")
        if name.startswith("internal-"):
            raise ValidationError(
                f"Load balancer name '{name}' cannot begin with the prefix 'internal-'"
            )
        allocations = self._allocations(kind, scheme, subnet_mappings)
        subnets = self._subnets(kind, subnet_ids, subnet_mappings)
        groups = self._security_groups(kind, subnets[0].vpc_id, security_groups)
        if known := next((b for b in self.load_balancers.values() if b.name == name), None):
            same = (
                {s.id for s in known.subnets} == {s.id for s in subnets}
                and set(known.security_groups) == {g.id for g in groups}
                and (known.scheme, known.type) == (scheme, kind)
                and known.allocations == allocations
            )
            if same:
                return known
            raise DuplicateLoadBalancerName()
        if scheme == "internet-facing":
            self._check_gateway(subnets[0].vpc_id)
        balancer: Any = super().create_load_balancer(
            name, [g.id for g in groups], [s.id for s in subnets], None, scheme, kind
        )
        self._give_name(balancer)
        self.tagging_service.tag_resource(balancer.arn, tags)
        try:
            for subnet in subnets:
                self._add_node(balancer, subnet, groups, allocations.get(subnet.id))
        except BaseException:
            self._delete(balancer)
            raise
        return balancer

    def _give_name(self, balancer: LabLoadBalancer) -> None:
        """Name it as AWS does; moto takes all for application load balancers."""
        if balancer.network:
            del self.load_balancers[balancer.arn]
            balancer.arn = balancer.arn.replace(":loadbalancer/app/", ":loadbalancer/net/")
            self.load_balancers[balancer.arn] = balancer
            word = balancer.arn.rpartition("/")[2]
            balancer.dns_name = f"{balancer.name}-{word}.elb.{self.region_name}.amazonaws.com"
            return
        number = int(hashlib.sha256(balancer.arn.encode()).hexdigest()[:12], 16) % 10**10
        prefix = "internal-" if balancer.scheme == "internal" else ""
        name = f"{prefix}{balancer.name}-{number}"
        balancer.dns_name = f"{name}.{self.region_name}.elb.amazonaws.com"

    def delete_load_balancer(self, arn: str) -> None:
        """Remove a load balancer with its listeners; a missing one is no error."""
        balancer = self.load_balancers.get(arn)
        if balancer is None:
            return
        if balancer.attrs["deletion_protection.enabled"] == "true":
            raise ELBClientError(
                "OperationNotPermitted",
                f"Load balancer '{arn}' cannot be deleted because deletion protection is enabled",
            )
        self._delete(balancer)

    def _delete(self, balancer: LabLoadBalancer) -> None:
        for node in list(balancer.nodes):
            self._remove_node(balancer, node)
        self.deliver_of(balancer, datetime.now(UTC))
        del self.load_balancers[balancer.arn]

    def describe_load_balancers(self, arns: list[str] | None, names: list[str] | None) -> list[Any]:
        """Return the load balancers that are named, or all."""
        balancers = list(self.load_balancers.values())
        if not arns and not names:
            return balancers
        found = []
        for attribute, wanted in (("arn", arns), ("name", names)):
            for value in wanted or []:
                match = [b for b in balancers if getattr(b, attribute) == value]
                if not match:
                    raise LoadBalancerNotFoundError()
                found += [b for b in match if b not in found]
        return found

    def set_subnets(
        self, arn: str, subnets: list[str], subnet_mappings: list[dict[str, Any]]
    ) -> Any:
        """Put nodes into other subnets."""
        balancer = self._balancer(arn)
        wanted = self._subnets(balancer.type, subnets, subnet_mappings)
        allocations = self._allocations(balancer.type, balancer.scheme, subnet_mappings)
        if wanted[0].vpc_id != balancer.vpc_id:
            raise ELBClientError("InvalidSubnet", "The subnets are of another VPC")
        groups = self._security_groups(balancer.type, balancer.vpc_id, balancer.security_groups)
        there = {node.subnet.id: node for node in balancer.nodes}
        for subnet in wanted:
            node = there.get(subnet.id)
            address = allocations.get(subnet.id)
            if node is None:
                self._add_node(balancer, subnet, groups, address)
            elif address not in (None, node.allocation):
                raise InvalidConfigurationRequest(
                    f"The address of the load balancer in the subnet '{subnet.id}' cannot change"
                )
        kept = {subnet.id for subnet in wanted}
        for node in list(balancer.nodes):
            if node.subnet.id not in kept:
                self._remove_node(balancer, node)
        balancer.subnets = wanted
        return balancer.availability_zones

    def set_security_groups(self, arn: str, sec_groups: list[str]) -> None:
        """Let others in."""
        balancer = self._balancer(arn)
        if balancer.network and not balancer.security_groups:
            raise InvalidConfigurationRequest(
                "A network load balancer that was created without security groups cannot get any"
            )
        if balancer.network and not sec_groups:
            raise InvalidConfigurationRequest("At least one security group must be specified")
        groups = self._security_groups(balancer.type, balancer.vpc_id, sec_groups)
        balancer.security_groups = [group.id for group in groups]
        for node in balancer.nodes:
            node.interface._group_set = groups

    def set_ip_address_type(self, arn: str, ip_type: str) -> None:
        """Keep the address type: there is one."""
        if ip_type != "ipv4":
            raise not_true(f"a load balancer of the address type {ip_type}")
        super().set_ip_address_type(arn, ip_type)

    def modify_load_balancer_attributes(self, arn: str, attrs: dict[str, Any]) -> dict[str, Any]:
        """Change attributes."""
        balancer = self._balancer(arn)
        known = rules.balancer_attributes(balancer.type)
        wanted = rules.check_attributes(known, attrs, "Load balancer")
        if wanted.keys() & {logs.ENABLED, logs.BUCKET, logs.PREFIX}:
            self.try_bucket(balancer, {**balancer.attrs, **wanted})
        return super().modify_load_balancer_attributes(arn, wanted)

    # --- nodes
    def _add_node(
        self,
        balancer: LabLoadBalancer,
        subnet: Any,
        groups: list[Any],
        allocation: str | None = None,
    ) -> None:
        taken = self._ec2.physics.addresses()
        name = balancer.arn.partition("loadbalancer/")[2]
        interface = self._ec2.create_network_interface(
            subnet, [], group_ids=[g.id for g in groups], description=f"ELB {name}"
        )
        interface.requester_managed, interface.requester_id = True, "amazon-elb"
        interface.status = "in-use"
        interface._group_set = groups
        if interface.private_ip_address in taken:
            _release(interface)
            raise not_true(
                f"a load balancer with the address {interface.private_ip_address}: VPCs with the "
                "same block cannot stand side by side"
            )
        if allocation:
            self._ec2.associate_address(eni=interface, allocation_id=allocation)
        elif balancer.scheme == "internet-facing":
            interface.public_ip = self._ec2.pool.take()
        node = BalancerNode(subnet, interface, allocation)
        balancer.nodes.append(node)
        self.physics.launch(node)

    def _remove_node(self, balancer: LabLoadBalancer, node: BalancerNode) -> None:
        balancer.nodes.remove(node)
        node.state = NodeState.LEAVING
        self.leaving[node.key] = node
        self.physics.remove(node)

    def happened(self, key: str, event: Event) -> None:
        """Take up what a node reports."""
        if event is Event.TERMINATED:
            gone = self.leaving.pop(key, None)
            if gone:
                _release(gone.interface)
            return
        for balancer in self.load_balancers.values():
            for node in balancer.nodes:
                if node.key == key:
                    worked = node.works
                    balancer.take_up(node, event)
                    if worked and not node.works:
                        self._forget(key)

    def _forget(self, key: str) -> None:
        """A node that comes back has seen nothing."""
        for group in self.target_groups.values():
            for target in group.registered.values():
                for seen in (target.views, target.before, target.due):
                    seen.pop(key, None)

    # --- target groups
    def create_target_group(self, name: str, **kwargs: Any) -> Any:
        """Create a target group; the same again is the same."""
        rules.check_group({"name": name, **kwargs})
        known = next((g for g in self.target_groups.values() if g.name == name), None)
        if known:
            given = {key: value for key, value in kwargs.items() if key != "tags"}
            if known.asked == given:
                return known
            raise DuplicateTargetGroupName()
        asked = {key: value for key, value in kwargs.items() if key != "tags"}
        by_http = kwargs.get("healthcheck_protocol") in ("HTTP", "HTTPS")
        if rules.is_network(kwargs.get("protocol")) and by_http:
            for key, value in _HTTP_CHECK.items():
                kwargs[key] = kwargs.get(key) or value
        group: Any = super().create_target_group(name, **kwargs)
        group.asked = asked
        try:
            rules.check_health_settings(group)
        except ELBClientError:
            del self.target_groups[group.arn]
            raise
        return group

    def modify_target_group(self, arn: str, *args: Any, **kwargs: Any) -> Any:
        """Change how targets are checked; from the next check on."""
        group = self._group(arn)
        if str(kwargs.get("health_check_enabled", "true")).lower() == "false":
            raise ValidationError("Health checks cannot be disabled for this target type")
        before = dict(group.__dict__, matcher=dict(group.matcher) if group.matcher else None)
        if group.matcher is None:
            group.matcher = dict(_HTTP_CHECK["matcher"])
        super().modify_target_group(arn, *args, **kwargs)
        try:
            rules.check_health_settings(group)
        except ELBClientError:
            group.__dict__.update(before)
            raise
        if group.health_check_protocol == "TCP":
            group.matcher = None
        for target in group.registered.values():
            target.due.clear()
        return group

    def modify_target_group_attributes(
        self, target_group_arn: str, attributes: dict[str, Any]
    ) -> None:
        """Change attributes."""
        group = self._group(target_group_arn)
        known = rules.group_attributes(group.protocol)
        wanted = rules.check_attributes(known, attributes, "Target group")
        rules.check_group_attributes({**group.attributes, **wanted})
        if wanted.get(rules.CROSS_ZONE) == "false":
            self._check_zones(group, list(group.registered.values()))
        group.attributes.update(wanted)

    def register_targets(self, target_group_arn: str, instances: list[Any]) -> None:
        """Register targets: all that are named, or none."""
        group = self._group(target_group_arn)
        wanted = keys(group, instances)
        self._check_targets(group, [identifier for identifier, _ in wanted])
        for _, port in wanted:
            if not 1 <= port <= 65535:
                raise ValidationError(f"Port '{port}' must be in the range 1-65535")
        if group.attributes[rules.CROSS_ZONE] == "false":
            self._check_zones(group, [Target(*key) for key in wanted])
        for identifier, port in wanted:
            group.enter(Target(identifier, port))

    def deregister_targets(self, target_group_arn: str, instances: list[dict[str, Any]]) -> None:
        """Deregister targets; missing ones are no error."""
        group = self._group(target_group_arn)
        for key in keys(group, instances):
            group.leave(key, self.physics.now())

    def describe_target_health(
        self, target_group_arn: str, targets: list[dict[str, Any]]
    ) -> list[Any]:
        """Return how targets are: those that are named, or all."""
        group = self._group(target_group_arn)
        found = []
        for key in keys(group, targets) if targets else list(group.registered):
            health = group.health_of(key)
            parts = {"State": health.state, "Reason": health.reason}
            parts["Description"] = health.description
            found.append(
                {
                    "Target": {"Id": key[0], "Port": key[1]},
                    "HealthCheckPort": str(group.health_port(key)),
                    "TargetHealth": {name: text for name, text in parts.items() if text},
                }
            )
        return found

    def _check_targets(self, group: LabTargetGroup, identifiers: list[str]) -> None:
        if group.target_type == "ip":
            vpc = self._ec2.get_vpc(group.vpc_id)
            blocks = [a["cidr_block"] for a in vpc.get_cidr_block_association_set()]
            for address in identifiers:
                rules.check_address(address, blocks)
            return
        unknown, elsewhere, down = [], [], []
        for identifier in identifiers:
            instance = self._ec2.get_instance_by_id(identifier)
            if instance is None or instance.state == "terminated":
                unknown.append(identifier)
            elif instance.vpc_id != group.vpc_id:
                elsewhere.append(identifier)
            elif instance.state != "running":
                down.append(identifier)
        for found, why in (
            (unknown, "are not valid instances"),
            (elsewhere, f"are not in the target group VPC '{group.vpc_id}'"),
            (down, "are not in a running state and cannot be registered"),
        ):
            if found:
                names = ", ".join(f"'{identifier}'" for identifier in found)
                raise ELBClientError("InvalidTarget", f"The following targets {why}: {names}")

    def _check_zones(self, group: LabTargetGroup, targets: list[Target]) -> None:
        """Raise if targets are in no zone, which AWS calls `all`, so that each node would do."""
        for target in targets:
            if not group.network and group.zone(target) is None:
                raise InvalidConfigurationRequest(
                    f"The target '{target.id}' of the target group '{group.arn}' is in no "
                    "Availability Zone of its VPC, so cross-zone load balancing cannot be off"
                )

    # --- checks
    def _allocations(
        self, kind: str, scheme: str, mappings: list[dict[str, Any]] | None
    ) -> dict[str, str]:
        """Return the Elastic IPs that are wanted, by subnet. Raises ELBClientError."""
        found: dict[str, str] = {}
        for mapping in mappings or []:
            chosen = mapping.keys() - {"SubnetId"}
            if chosen and (chosen != {"AllocationId"} or kind != "network"):
                raise not_true(
                    f"a load balancer of the type {kind} with {', '.join(sorted(chosen))}"
                )
            if not chosen:
                continue
            if scheme != "internet-facing":
                raise InvalidConfigurationRequest(
                    "Elastic IP addresses can only be specified for internet-facing load balancers"
                )
            wanted = mapping["AllocationId"]
            known = [a for a in self._ec2.addresses if a.allocation_id == wanted]
            if not known:
                raise ELBClientError(
                    "AllocationIdNotFound", f"The allocation ID '{wanted}' does not exist"
                )
            mine = any(
                node.allocation == wanted and node.subnet.id == mapping["SubnetId"]
                for balancer in self.load_balancers.values()
                for node in balancer.nodes
            )
            if (known[0].eni is not None and not mine) or wanted in found.values():
                raise InvalidConfigurationRequest(
                    f"The Elastic IP address of the allocation ID '{wanted}' is in use"
                )
            found[mapping["SubnetId"]] = wanted
        return found

    def _subnets(
        self, kind: str, ids: list[str], mappings: list[dict[str, Any]] | None
    ) -> list[Any]:
        wanted = [*(ids or []), *(m["SubnetId"] for m in mappings or [])]
        found = []
        for identifier in wanted:
            try:
                found.append(self._ec2.get_subnet(identifier))
            except InvalidSubnetIdError:
                raise SubnetNotFoundError() from None
        zones = [subnet.availability_zone for subnet in found]
        if not found:
            raise ValidationError("At least one subnet must be specified")
        if len(set(zones)) < 2 and kind == "application":
            raise ValidationError(
                "At least two subnets in two different Availability Zones must be specified"
            )
        if len(set(zones)) < len(zones):
            raise InvalidConfigurationRequest(
                "A load balancer cannot be attached to multiple subnets in the same Availability "
                "Zone"
            )
        if len({subnet.vpc_id for subnet in found}) > 1:
            raise ELBClientError("InvalidSubnet", "All subnets must belong to the same VPC")
        return found

    def _security_groups(self, kind: str, vpc: str, wanted: list[str] | None) -> list[Any]:
        if not wanted and kind == "network":
            return []  # all may come
        if not wanted:
            return [self._ec2.get_default_security_group(vpc)]
        found = []
        for identifier in wanted:
            group = self._ec2.get_security_group_from_id(identifier)
            if group is None:
                raise ELBClientError(
                    "InvalidSecurityGroup", f"Security group '{identifier}' does not exist"
                )
            if group.vpc_id != vpc:
                raise InvalidConfigurationRequest(
                    "One or more security groups are invalid: "
                    f"'{identifier}' is not in the VPC '{vpc}'"
                )
            found.append(group)
        return found

    def _check_gateway(self, vpc: str) -> None:
        gateways = self._ec2.internet_gateways.values()
        if not any(gateway.vpc is not None and gateway.vpc.id == vpc for gateway in gateways):
            raise ELBClientError("InvalidSubnet", f"VPC {vpc} has no internet gateway")

    # --- time
    def tick(self, now: float) -> None:
        """Take up what came with time or happened to targets' hosts."""
        for group in self.target_groups.values():
            group.expire(now)
            for target in list(group.registered.values()):
                instance = group.instance(target)
                ended = instance is None or instance.state in ("shutting-down", "terminated")
                if group.target_type == "instance" and ended:
                    group.leave(target.key, now)
                unused = group.situation(target).unused
                if unused and unused.state == "unused":
                    target.forget()
        for balancer in self.load_balancers.values():
            for node in balancer.nodes:
                if node.works and not node.joined:
                    node.joined = self._has_seen_all(balancer, node)

    def _has_seen_all(self, balancer: LabLoadBalancer, node: BalancerNode) -> bool:
        """Say whether a node knows all targets, and passes on to those that are healthy."""
        return all(
            target.views.get(node.key, View()).checked
            and (group.seen(target, node) is target.views[node.key])
            for group in balancer.target_groups
            for target in group.usable()
            if group.reaches(node, target)
        )

    def due(self, now: float) -> Iterator[Job]:
        """Yield the health checks that are due; each is due once an interval."""
        for balancer in self.load_balancers.values():
            working = [node for node in balancer.nodes if node.works]
            for group in balancer.target_groups if working else []:
                check = rules.check_of(group)
                for target in group.usable():
                    address = group.address(target)
                    for node in working:
                        if address and now >= target.due.get(node.key, 0.0):
                            target.due[node.key] = now + check.interval
                            port = group.health_port(target)
                            yield Job(node.key, group, target, address, port, check)

    def applied(self, key: str, plan: Node) -> None:
        """A node does what was planned: note to whom it passes on requests."""
        for balancer in self.load_balancers.values():
            for node in balancer.nodes:
                if node.key == key:
                    node.passing = frozenset(
                        (pool, name, server.registration)
                        for (pool, name), server in plan.servers.items()
                        if server.ready
                    )

    def judge(self, job: Job, outcome: Outcome) -> bool:
        """Take up how a check ended; say whether the target's state is another now."""
        target = job.target
        current = job.group.registered.get(target.key) is target
        if not current or job.node not in target.due or target.until is not None:
            return False  # it left, or everything began anew, while it was looked at
        before = target.views.get(job.node, View())
        after = before.after(outcome, job.check)
        target.views[job.node] = after
        if after.state == "healthy" and before.state != "healthy":
            target.before[job.node] = replace(before, checked=True)
        return (after.state, after.checked) != (before.state, before.checked)


def balancers() -> Iterator[tuple[Any, Any]]:
    """Yield all load balancers with their backends."""
    for backend in backends():
        for balancer in list(backend.load_balancers.values()):
            yield backend, balancer


def backends() -> list[Any]:
    """Return the backends that are in use, one a region."""
    return [backend for _, _, backend in models.elbv2_backends.iter_backends()]


def nodes() -> list[BalancerNode]:
    """Return all nodes, also those that are leaving."""
    standing = [node for _, balancer in balancers() for node in balancer.nodes]
    return standing + [node for backend in backends() for node in backend.leaving.values()]


def as_node(key: str) -> Node | None:
    """Return what a node does; None if it serves no load balancer any more."""
    for backend, balancer in balancers():
        if any(node.key == key for node in balancer.nodes):
            plan: Node = balancer.as_node(backend, key)
            return plan
    return None


def endpoints() -> Mapping[str, tuple[str, ...]]:
    """Return the names of load balancers, and where each leads.

    A network load balancer has one for each of its zones as well.
    """
    found = {balancer.dns_name.lower(): balancer.addresses for _, balancer in balancers()}
    for _, balancer in balancers():
        for node in balancer.nodes if balancer.network else []:
            found[f"{node.zone}.{balancer.dns_name}".lower()] = (node.address,)
    return found


def public_endpoints() -> Mapping[str, tuple[str, ...]]:
    """Return the names that lead to public addresses."""
    return {
        balancer.dns_name.lower(): balancer.addresses
        for _, balancer in balancers()
        if balancer.scheme == "internet-facing"
    }


def presents(certificate: str) -> bool:
    """Say whether any listener presents a certificate."""
    return any(
        certificate in listener.certificates
        for _, balancer in balancers()
        for listener in balancer.listeners.values()
    )


def install(physics: Physics) -> None:
    """Put the lab's Elastic Load Balancing in the place of moto's."""
    LabELBv2Backend.physics = physics
    models.elbv2_backends.backend = LabELBv2Backend
    _Models.FakeTargetGroup = LabTargetGroup
    _Models.FakeLoadBalancer = LabLoadBalancer


def _release(interface: Any) -> None:
    interface.requester_managed = False
    for address in interface.ec2_backend.addresses:
        if address.eni is interface:
            address.eni = address.instance = address.association_id = None
    interface.public_ip = None
    interface.delete()
