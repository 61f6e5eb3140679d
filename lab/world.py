"""The world: what the API says, and the hosts, packet filter and names that make it true."""

from __future__ import annotations

import ipaddress
import logging
import threading
from dataclasses import replace
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.route53.models import route53_backends

from lab import ec2, elb, image, rds
from lab.authority import Authority
from lab.balancers import Balancers
from lab.databases import Databases
from lab.errors import LabError
from lab.firewall import Firewall
from lab.hosts import Event, Host, Order, Plan
from lab.machine import write_names
from lab.names import Zone, record_sets, resolve_public
from lab.network import Group, Interface, Network, Rule, Vpc
from lab.podman import Podman
from lab.region import Link
from lab.settings import Settings

log = logging.getLogger(__name__)

# What a load balancer has that has no security groups: it lets in and sends all.
_ALL = (Rule("-1", None, None, ("0.0.0.0/0",)),)
OPEN = Group("sg-open", _ALL, _ALL)
_UP = ("pending", "running", "stopping", "shutting-down")


class World:
    """Holds the one lock of moto's state and carries changes over to the machine."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self._applying = threading.Lock()
        self._firewall = Firewall(settings)
        self._podman = Podman.of(settings)
        self._hosts: dict[str, Host] = {}
        self._healthy: set[str] = set()
        self._names: dict[str, str] = {}
        # As they were when the server started: its source may change under its feet.
        self._amis = {ami.id: ami for ami in image.amis()}
        authority = Authority(settings.cache).certificate
        self._tags = {name: image.recipe(name, authority).tag for name in image.releases()}
        self.databases = Databases(settings, self.lock, self._follow)
        self.balancers = Balancers(settings, self.lock, self._follow)

    # --- from the API to the machine
    def sync(self) -> None:
        """Make packet filter, load balancers and the machine's names say what the API says."""
        with self._applying:
            with self.lock:
                network, names = self.network(), self.names()
            self._firewall.apply(network)
            self.balancers.wake()
            if self.settings.write_hosts_file and names != self._names:
                write_names(self.settings.name, names)
                self._names = names

    def network(self) -> Network:
        """Return the network as the API describes it."""
        interfaces, vpcs = [], {}
        groups: dict[str, Group] = {}
        resolvers = set()
        up = [
            (backend, instance.id, instance.nics[0])
            for backend, instance in ec2.instances()
            if instance.state in _UP
        ]
        up += [
            (server.interface.ec2_backend, server.key, server.interface)
            for _, instance in rds.instances()
            for server in instance.servers
        ]
        up += [(node.interface.ec2_backend, node.key, node.interface) for node in elb.nodes()]
        opened = {node.key for node in elb.nodes() if node.open}
        for backend, key, nic in up:
            interface = _interface(self.settings, backend, key, nic)
            if key in opened:
                interface = replace(interface, groups=(OPEN.id,))
                groups[OPEN.id] = OPEN
            interfaces.append(interface)
            vpcs[interface.vpc] = _vpc(backend, interface.vpc)
            resolvers.add(str(ipaddress.IPv4Network(vpcs[interface.vpc].cidrs[0])[2]))
            for group in nic._group_set:
                groups.setdefault(group.id, _group(backend, group))
        for _, instance in rds.instances():
            if instance.standby:
                # RDS's own way between the two, which no group of the user's closes.
                pair = _pair(instance)
                groups[pair.id] = pair
                both = {instance.primary.key, instance.standby.key}
                interfaces = [
                    replace(i, groups=(*i.groups, pair.id)) if i.instance in both else i
                    for i in interfaces
                ]
        return Network(
            tuple(interfaces),
            tuple(groups.values()),
            tuple(vpcs.values()),
            tuple(sorted(resolvers)),
        )

    def zones(self) -> list[Zone]:
        """Return Route 53's zones."""
        backends: list[Any] = [backend for _, _, backend in route53_backends.iter_backends()]
        return [
            Zone(
                name=zone.name.rstrip(".").lower(),
                vpcs=tuple(v.get("vpc_id", "") for v in zone.vpcs) if zone.private_zone else None,
                records=record_sets(zone.rrsets),
            )
            for backend in backends
            for zone in backend.zones.values()
        ]

    def names(self) -> dict[str, str]:
        """Return the names that the machine knows."""
        balancers = elb.public_endpoints()
        own = {name: addresses[0] for name, addresses in balancers.items() if addresses}
        return {**own, **resolve_public(self.zones(), self.endpoints())}

    def endpoints(self) -> dict[str, tuple[str, ...]]:
        """Return the names that AWS's services made, and where each leads."""
        databases = {name: (address,) for name, address in rds.endpoints().items()}
        return {**databases, **elb.endpoints()}

    def instance_at(self, address: str) -> tuple[Any, Any] | None:
        """Return backend and instance of a private address."""
        for backend, instance in ec2.instances():
            if instance.state in _UP and instance.private_ip == address:
                return backend, instance
        return None

    def vpc_at(self, address: str) -> str | None:
        """Return the VPC of a private address: a host's, a database's or a load balancer's."""
        found = self.instance_at(address)
        if found:
            return str(found[1].vpc_id)
        for _, instance in rds.instances():
            if address in {server.address for server in instance.servers}:
                return str(instance.interface.subnet.vpc_id)
        for node in elb.nodes():
            if node.interface.private_ip_address == address:
                return str(node.subnet.vpc_id)
        return None

    # --- the physical layer (lab.ec2.Physics)
    def image_tag(self, release: str) -> str | None:
        """Return the image of a release, if it was built."""
        tag = self._tags[release]
        return tag if self._podman.image_exists(tag) else None

    def launch(self, instance: Any) -> None:
        """Make a host of a pending instance."""
        host = Host(self._plan(instance), self.settings, self.happened)
        self._hosts[instance.id] = host
        host.launch()

    def start(self, instance: Any) -> None:
        """Start the host of a stopped instance."""
        self._hosts[instance.id].order(Order.START, self._plan(instance))

    def stop(self, instance_id: str, force: bool) -> None:
        """Shut a host down, or end all that runs on it at once."""
        self._hosts[instance_id].order(Order.CUT_POWER if force else Order.STOP)

    def reboot(self, instance_id: str) -> None:
        """Shut a host down and start it."""
        self._hosts[instance_id].order(Order.REBOOT)

    def terminate(self, instance_id: str) -> None:
        """Shut a host down and remove it."""
        self._hosts[instance_id].order(Order.TERMINATE)

    def addresses(self) -> set[str]:
        """Return the private addresses of all that stands and is not gone yet."""
        hosts = {host.plan.address for host in self._hosts.values()}
        return hosts | self.databases.addresses() | self.balancers.addresses()

    def healthy(self, instance_id: str) -> bool:
        """Say whether a host answered when it booted and stands since."""
        return instance_id in self._healthy

    def console(self, instance_id: str) -> str:
        """Return what a host says of its boot."""
        host = self._hosts.get(instance_id)
        return host.console() if host else ""

    # --- from the hosts to the API
    def happened(self, instance_id: str, event: Event, reason: str) -> None:
        """Take up what a host reports; called by the hosts' threads."""
        log.info("%s is %s %s", instance_id, event.value, reason)
        with self.lock:
            if event is Event.RUNNING:
                self._healthy.add(instance_id)
            else:
                self._healthy.discard(instance_id)
            if event is Event.TERMINATED:
                self._hosts.pop(instance_id, None)
            for backend, instance in ec2.instances():
                if instance.id == instance_id:
                    backend.happened(instance, event, reason)
        self._follow()

    def _follow(self) -> None:
        """Take up what changed without a call."""
        try:
            self.sync()
        except LabError:
            log.exception("the packet filter could not follow")

    def _plan(self, instance: Any) -> Plan:
        nic = instance.nics[0]
        kind = INSTANCE_TYPES[instance.instance_type]
        return Plan(
            instance=instance.id,
            image=self._tags[self._amis[instance.image_id].release],
            hostname=f"ip-{nic.private_ip_address.replace('.', '-')}",
            address=nic.private_ip_address,
            subnet=nic.subnet.cidr_block,
            mac=nic.mac_address,
            memory=int(kind["MemoryInfo"]["SizeInMiB"]),
            cpus=int(kind["VCpuInfo"]["DefaultVCpus"]),
        )


def _interface(settings: Settings, backend: Any, key: str, nic: Any) -> Interface:
    public = nic.public_ip or None
    way, nat = _way_out(backend, nic.subnet)
    online = public if way else None
    return Interface(
        instance=key,
        device=Link(settings, key).device,
        private=nic.private_ip_address,
        vpc=nic.subnet.vpc_id,
        groups=tuple(group.id for group in nic._group_set),
        public=online,
        translated=online or nat,
    )


def _way_out(backend: Any, subnet: Any) -> tuple[bool, str | None]:
    """Say whether a subnet's default route leads to the internet; or a NAT gateway's address."""
    for route in _routes(backend, subnet):
        if route.destination_cidr_block != "0.0.0.0/0":
            continue
        gateway, nat = route.gateway, route.nat_gateway
        if gateway is not None and getattr(gateway, "vpc", None) is not None:
            return gateway.vpc.id == subnet.vpc_id, None
        if nat is not None and nat.state == "available":
            address = next((a.get("publicIp") for a in nat.address_set), None)
            there, _ = _way_out(backend, backend.get_subnet(nat.subnet_id))
            return False, address if there else None
    return False, None


def _routes(backend: Any, subnet: Any) -> list[Any]:
    tables = [t for t in backend.route_tables.values() if t.vpc_id == subnet.vpc_id]
    for table in tables:
        if subnet.id in table._associations.values():
            return list(table.routes)
    return [r for t in tables if t.main_association_id is not None for r in t.routes]


def _vpc(backend: Any, vpc_id: str) -> Vpc:
    vpc = backend.get_vpc(vpc_id)
    blocks = [a["cidr_block"] for a in vpc.get_cidr_block_association_set()]
    peers = [
        route.destination_cidr_block
        for table in backend.route_tables.values()
        if table.vpc_id == vpc_id
        for route in table.routes
        if route.vpc_pcx is not None and route.vpc_pcx._status.code == "active"
    ]
    return Vpc(vpc_id, tuple(blocks), tuple(sorted(set(peers))))


def _pair(instance: Any) -> Group:
    """Return the group that lets the two servers of a Multi-AZ instance speak to each other."""
    name, port = f"pair-{instance.key}", int(instance.future("port"))
    rule = Rule("tcp", port, port, (), (name,))
    return Group(name, (rule,), (rule,))


def _group(backend: Any, group: Any) -> Group:
    return Group(
        group.id,
        tuple(_rule(backend, rule) for rule in group.ingress_rules),
        tuple(_rule(backend, rule) for rule in group.egress_rules),
    )


def _rule(backend: Any, rule: Any) -> Rule:
    cidrs = [rule.cidr_ipv4] if rule.cidr_ipv4 else []
    if rule.prefix_list_id:
        prefixes = backend.managed_prefix_lists[rule.prefix_list_id]
        cidrs += [entry["Cidr"] for entry in prefixes.entries[prefixes.version]]
    source = rule.source_group.get("GroupId") if rule.source_group else None
    return Rule(
        rule.ip_protocol, rule.from_port, rule.to_port, tuple(cidrs), (source,) if source else ()
    )
