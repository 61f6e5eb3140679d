"""Names: Route 53's zones, EC2's, RDS's, load balancers' own, and those of resolvers outside."""

from __future__ import annotations

import itertools
import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dnslib import QTYPE, RCODE, RR, DNSRecord
from dnslib.server import DNSLogger, DNSServer

from lab.settings import DNS_PORT, RESOLVER_ADDRESS, Settings

log = logging.getLogger(__name__)

# The resolvers behind systemd-resolved, whose own address lives on the machine's loopback.
_RESOLV_CONFS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
_AWS_SUFFIXES = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".aws.amazon.com")
_INTERNAL = re.compile(r"ip-(\d+)-(\d+)-(\d+)-(\d+)\.(?:ec2|[a-z0-9-]+\.compute)\.internal")
_PUBLIC = re.compile(
    r"ec2-(\d+)-(\d+)-(\d+)-(\d+)\.(?:compute-1|[a-z0-9-]+\.compute)\.amazonaws\.com"
)
# Names of databases, of application and of network load balancers.
_DATABASES = re.compile(r".+\.rds\.amazonaws\.com")
_BALANCERS = re.compile(r".+\.elb\.([a-z0-9-]+\.)?amazonaws\.com")
_DUALSTACK = "dualstack."  # a prefix of load balancers' names; here it stands for the same
_TTL_EC2 = 60
_TTL_RDS = 5
_TTL_ELB = 60
_NEGATIVE_TTL = 5
_MAX_ALIASES = 8


@dataclass(frozen=True)
class RecordSet:
    """Records of one name and type; an alias has a target instead of values."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...] = ()
    alias: str | None = None


@dataclass(frozen=True)
class Zone:
    """A hosted zone; a private one has the VPCs that see it."""

    name: str
    vpcs: tuple[str, ...] | None
    records: tuple[RecordSet, ...]

    def holds(self, name: str) -> bool:
        """Say whether a name lies in the zone."""
        return name == self.name or name.endswith(f".{self.name}")


@dataclass(frozen=True)
class Answer:
    """What is known of a name: lines of a zone file, or a code if there is none."""

    records: tuple[tuple[str, str, int, str], ...] = ()
    code: str = "NOERROR"
    zone: Zone | None = None


def record_sets(rrsets: Iterable[Any]) -> tuple[RecordSet, ...]:
    """Turn moto's record sets into plain ones."""
    return tuple(
        RecordSet(
            name=_plain(rrset.name),
            type=str(rrset.type),
            ttl=int(rrset.ttl or 60),
            values=tuple(
                value["Value"] if isinstance(value, dict) else str(value)
                for value in rrset.records or ()
            ),
            alias=_plain(rrset.alias_target["DNSName"]) if rrset.alias_target else None,
        )
        for rrset in rrsets
    )


# Names that AWS's services made, and where each leads now.
Endpoints = Mapping[str, tuple[str, ...]]


def lookup(
    zones: Sequence[Zone],
    name: str,
    kind: str,
    vpc: str | None,
    endpoints: Endpoints = MappingProxyType({}),
) -> Answer | None:
    """Answer from the hosted zones that a client sees; None if none of them holds the name.

    The most specific zone answers, a private one before a public one (Route 53 developer guide,
    "Considerations when working with a private hosted zone").
    """
    name = _plain(name)
    seen = [z for z in zones if z.holds(name) and (z.vpcs is None or vpc in z.vpcs)]
    if not seen:
        return None
    zone = max(seen, key=lambda z: (len(z.name), z.vpcs is not None))
    records: list[tuple[str, str, int, str]] = []
    further: Answer | None
    owner = name
    for _ in range(_MAX_ALIASES):
        found = _matching(zone, owner)
        if not found:
            code = "NOERROR" if records or _exists(zone, owner) else "NXDOMAIN"
            return Answer(tuple(records), code, zone)
        exact = [r for r in found if r.type == kind]
        if exact:
            alias = next((r.alias for r in exact if r.alias), None)
            if alias is None:
                records += [(owner, kind, r.ttl, value) for r in exact for value in r.values]
                return Answer(tuple(records), zone=zone)
            if _is_endpoint(_plain(alias)):
                further = endpoint(_plain(alias), kind, endpoints)
            else:
                further = lookup(zones, alias, kind, vpc, endpoints)
            values = further.records if further else ()
            records += [(owner, t, ttl, value) for _, t, ttl, value in values if t == kind]
            return Answer(tuple(records), zone=zone)
        canonical = next((r for r in found if r.type == "CNAME" and r.values), None)
        if canonical is None:
            return Answer(tuple(records), zone=zone)
        target = _plain(canonical.values[0])
        records.append((owner, "CNAME", canonical.ttl, target + "."))
        if not zone.holds(target):
            further = lookup(zones, target, kind, vpc, endpoints)
            return Answer((*records, *(further.records if further else ())), zone=zone)
        owner = target
    return Answer(tuple(records), "SERVFAIL", zone)


def endpoint(name: str, kind: str, endpoints: Endpoints) -> Answer:
    """Return where the name of a database or a load balancer leads now."""
    balancer = _BALANCERS.fullmatch(name)
    addresses = endpoints.get(name.removeprefix(_DUALSTACK) if balancer else name)
    if addresses is None:
        return Answer(code="NXDOMAIN")
    ttl = _TTL_ELB if balancer else _TTL_RDS
    return Answer(tuple((name, "A", ttl, a) for a in addresses) if kind == "A" else ())


def _is_endpoint(name: str) -> bool:
    return bool(_DATABASES.fullmatch(name) or _BALANCERS.fullmatch(name))


def ec2_name(name: str, private_of: Callable[[str], str | None]) -> str | None:
    """Return the address that an EC2 name stands for; inside the VPC the private one."""
    name = _plain(name)
    if match := _INTERNAL.fullmatch(name):
        return ".".join(match.groups())
    if match := _PUBLIC.fullmatch(name):
        public = ".".join(match.groups())
        return private_of(public) or public
    return None


def belongs_to_aws(name: str) -> bool:
    """Say whether a name is one of AWS's own, which no client of the lab may reach."""
    return f".{_plain(name)}".endswith(_AWS_SUFFIXES)


def resolve_public(
    zones: Sequence[Zone], endpoints: Endpoints = MappingProxyType({})
) -> dict[str, str]:
    """Return the names that the machine shall know: address records of public zones.

    Aliases of load balancers are among them if `endpoints` has their names.
    """
    names: dict[str, str] = {}
    for zone in zones:
        if zone.vpcs is not None:
            continue
        for record in zone.records:
            if record.type not in ("A", "CNAME") or record.name.startswith("*"):
                continue
            answer = lookup(zones, record.name, "A", None, endpoints)
            address = (
                next((v for _, t, _, v in answer.records if t == "A"), None) if answer else None
            )
            if address:
                names[record.name] = address
    return names


def upstreams() -> list[str]:
    """Return the machine's real resolvers."""
    for file in _RESOLV_CONFS:
        if file.exists():
            found = re.findall(r"^nameserver\s+(\d[\d.]+)", file.read_text(), re.MULTILINE)
            real = [address for address in found if not address.startswith("127.")]
            if real:
                return real
    return []


class Resolver:
    """Answers each question for the host that asks it."""

    def __init__(
        self,
        settings: Settings,
        zones: Callable[[], Sequence[Zone]],
        vpc_of: Callable[[str], str | None],
        private_of: Callable[[str, str], str | None],
        endpoints: Callable[[], Endpoints],
    ) -> None:
        self._settings = settings
        self._zones = zones
        self._vpc_of = vpc_of
        self._private_of = private_of
        self._endpoints = endpoints
        self._turn = itertools.count()

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        """Answer one request (called by dnslib)."""
        client = handler.client_address[0]
        name = str(request.q.qname)
        kind = QTYPE.get(request.q.qtype)
        answer = self.answer(name, kind, client)
        if answer is None:
            return self._forward(request)
        reply = request.reply()
        reply.header.aa = 1
        reply.header.ra = 1
        records = list(answer.records)
        aliases = [r for r in records if r[1] == "CNAME"]
        values = [r for r in records if r[1] != "CNAME"]
        if values:
            turn = next(self._turn) % len(values)
            values = values[turn:] + values[:turn]
        for owner, record_type, ttl, value in (*aliases, *values):
            reply.add_answer(*RR.fromZone(f"{owner}. {ttl} IN {record_type} {value}"))
        reply.header.rcode = RCODE.reverse[answer.code]
        if not values and answer.zone:
            origin = answer.zone.name
            reply.add_auth(
                *RR.fromZone(
                    f"{origin}. {_NEGATIVE_TTL} IN SOA ns.{origin}. hostmaster.{origin}. "
                    f"1 7200 900 1209600 {_NEGATIVE_TTL}"
                )
            )
        return reply

    def answer(self, name: str, kind: str, client: str) -> Answer | None:
        """Return what the lab itself knows of a name; None: ask upstream."""
        vpc = self._vpc_of(client)
        found = lookup(self._zones(), name, kind, vpc, self._endpoints())
        if found is not None:
            return self._followed(found, kind)
        if _is_endpoint(_plain(name)):
            return endpoint(_plain(name), kind, self._endpoints())
        address = ec2_name(name, lambda public: self._private_of(public, client))
        if address is not None:
            records = ((_plain(name), "A", _TTL_EC2, address),) if kind == "A" else ()
            return Answer(records)
        if belongs_to_aws(name):
            # Nobody here may ever reach a real account.
            own = ((_plain(name), "A", _TTL_EC2, self._settings.address),)
            return Answer(own if kind == "A" else ())
        if _plain(name).endswith(".internal"):
            return Answer(code="NXDOMAIN")
        return None

    def _followed(self, answer: Answer, kind: str) -> Answer:
        """Go on where an answer's CNAME leads to the name of a database or a load balancer."""
        if kind != "CNAME" and answer.records and answer.records[-1][1] == "CNAME":
            target = _plain(answer.records[-1][3])
            if _is_endpoint(target):
                further = endpoint(target, kind, self._endpoints())
                return replace(answer, records=(*answer.records, *further.records))
        return answer

    def _forward(self, request: DNSRecord) -> DNSRecord:
        packet = request.pack()
        for upstream in upstreams():
            for tcp in (False, True):
                try:
                    reply = DNSRecord.parse(_ask(packet, upstream, tcp))
                except (OSError, EOFError) as error:
                    log.warning("resolver %s: %s", upstream, error)
                    break
                if not reply.header.tc:
                    return reply
        reply = request.reply()
        reply.header.rcode = RCODE.SERVFAIL
        return reply


def serve(settings: Settings, resolver: Resolver) -> list[DNSServer]:
    """Start the DNS server, by UDP and TCP, inside the region's namespace."""
    quiet = DNSLogger(log="-request,-reply,-truncated,-error", prefix=False)
    servers = [
        DNSServer(resolver, port=DNS_PORT, address=address, tcp=tcp, logger=quiet)
        for address in (settings.address, RESOLVER_ADDRESS)
        for tcp in (False, True)
    ]
    for server in servers:
        server.start_thread()
    return servers


def _ask(packet: bytes, server: str, tcp: bool) -> bytes:
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as connection:
        connection.settimeout(3)
        connection.connect((server, 53))
        if not tcp:
            connection.send(packet)
            return connection.recv(65535)
        connection.sendall(len(packet).to_bytes(2, "big") + packet)
        length = int.from_bytes(_read(connection, 2), "big")
        return _read(connection, length)


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise EOFError("the resolver closed the connection")
        data += piece
    return data


def _matching(zone: Zone, name: str) -> list[RecordSet]:
    exact = [r for r in zone.records if r.name == name]
    if exact or _exists(zone, name):
        return exact
    labels = name.split(".")
    for start in range(1, len(labels)):
        parent = ".".join(labels[start:])
        wild = [r for r in zone.records if r.name == f"*.{parent}"]
        if wild:
            return wild
        if parent == zone.name or _exists(zone, parent):
            return []
    return []


def _exists(zone: Zone, name: str) -> bool:
    return any(r.name == name or r.name.endswith(f".{name}") for r in zone.records)


def _plain(name: str) -> str:
    # Route 53 writes an asterisk as \052.
    return name.rstrip(".").lower().replace("\\052", "*")
