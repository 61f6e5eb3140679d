"""Security groups, Elastic IPs and routes as one nftables table in the region's namespace.

`compile_rules` is pure. The table is replaced as a whole in one transaction, so that no packet
ever meets half of a change.

Two base chains look at every forwarded packet: `leaving` asks the sender's groups, `entering`
those of the receiver; each drops what it does not know. What a host sends to a public address
of the lab comes back to the region as on AWS: the sender's egress rules see the public address,
the receiver's ingress rules see the sender's public address, and groups do not match.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from lab import shell
from lab.network import Group, Interface, Network, Rule
from lab.settings import API_PORT, METADATA_ADDRESS, RESOLVER_ADDRESS, TLS_PORT, Settings

UPLINK = "uplink"
TABLE = "lab"
_ANYWHERE = "0.0.0.0/0"


def compile_rules(network: Network, settings: Settings) -> str:
    """Return the script for `nft -f` that makes the network true."""
    vpcs = {vpc.id: vpc for vpc in network.vpcs}
    members = {
        group.id: [i.private for i in network.interfaces if group.id in i.groups]
        for group in network.groups
    }
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    for group in network.groups:
        lines += _group_chains(group, members, network.interfaces)
    for interface in network.interfaces:
        vpc = vpcs[interface.vpc]
        lines += _interface_chains(interface, (*vpc.cidrs, *vpc.peers))
    lines += _translation(network)
    lines += _base_chains(network, settings)
    lines.append("}")
    return "\n".join(lines) + "\n"


def moved(before: Network, after: Network) -> list[str]:
    """Return public addresses that no longer lead where they led."""
    now = after.translations
    gone = {public for public, private in before.translations.items() if now.get(public) != private}
    senders = {i.private: i.translated for i in after.interfaces}
    gone |= {
        i.translated
        for i in before.interfaces
        if i.translated and senders.get(i.private) != i.translated
    }
    return sorted(gone)


class Firewall:
    """The region's table; runs inside the region's namespace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._script = ""
        self._network = Network()

    def apply(self, network: Network) -> None:
        """Make the network true at once; flows of addresses that moved away are forgotten."""
        script = compile_rules(network, self._settings)
        if script != self._script:
            shell.run("nft", "-f", "-", input_text=script)
            for address in moved(self._network, network):
                for direction in ("--orig-dst", "--reply-dst"):
                    # Status 1 says that there was no such flow.
                    shell.succeeds("conntrack", "-D", direction, address)
            self._script = script
        self._network = network


def _group_chains(
    group: Group, members: dict[str, list[str]], interfaces: Iterable[Interface]
) -> Iterator[str]:
    publics = [(i.private, i.translated) for i in interfaces if i.translated]
    ingress, hairpin, egress = [], [], []
    for rule in group.ingress:
        for match in _matches(rule):
            ingress += [f"ip saddr {cidr} {match}" for cidr in rule.cidrs]
            ingress += [
                f"ip saddr {_set(members[source])} {match}"
                for source in rule.groups
                if members.get(source)
            ]
            # A sender that came by a public address is seen under its own public address.
            seen = [
                private
                for private, public in publics
                if any(_within(public, cidr) for cidr in rule.cidrs)
            ]
            if seen:
                hairpin.append(f"ip saddr {_set(seen)} {match}")
    for rule in group.egress:
        for match in _matches(rule):
            egress += [f"ct original ip daddr {cidr} {match}" for cidr in rule.cidrs]
            egress += [
                f"ct status & dnat == 0 ip daddr {_set(members[target])} {match}"
                for target in rule.groups
                if members.get(target)
            ]
    name = group.id.replace("-", "_")
    for kind, rules in (("in", ingress), ("hairpin", hairpin), ("out", egress)):
        yield f"  chain {name}_{kind} {{"
        yield from (f"    {' '.join(rule.split())} accept" for rule in dict.fromkeys(rules))
        yield "  }"


def _matches(rule: Rule) -> list[str]:
    """Return what a rule's protocol and ports are in nftables; nothing for what is not IPv4."""
    start, end = rule.from_port, rule.to_port
    if rule.protocol == "-1":
        return [""]
    if rule.protocol in ("tcp", "udp"):
        if start is None or end is None or start < 0 or (start, end) == (0, 65535):
            return [f"meta l4proto {rule.protocol}"]
        ports = f"{start}" if start == end else f"{start}-{end}"
        return [f"{rule.protocol} dport {ports}"]
    if rule.protocol == "icmp":
        if start is None or start < 0:
            return ["ip protocol icmp"]
        code = f" icmp code {end}" if end is not None and end >= 0 else ""
        return [f"icmp type {start}{code}"]
    return [f"ip protocol {rule.protocol}"] if rule.protocol.isdigit() else []


def _interface_chains(interface: Interface, inside: tuple[str, ...]) -> Iterator[str]:
    names = [group.replace("-", "_") for group in interface.groups]
    device = interface.device
    yield f"  chain {device}_vpc {{"
    # Private addresses lead into the own VPC and its peers only.
    yield f'    oifname != "{UPLINK}" ct status & dnat == 0 ip daddr != {_set(inside)} drop'
    yield "  }"
    yield f"  chain {device}_out {{"
    yield from (f"    jump {name}_out" for name in names)
    yield "  }"
    yield f"  chain {device}_in {{"
    yield f'    iifname != "{UPLINK}" ct status & dnat != 0 goto {device}_hairpin'
    yield from (f"    jump {name}_in" for name in names)
    yield "  }"
    yield f"  chain {device}_hairpin {{"
    yield from (f"    jump {name}_hairpin" for name in names)
    yield "  }"


def _translation(network: Network) -> Iterator[str]:
    """Yield the 1:1 translation of public addresses, both ways."""
    for name, pairs in (
        ("public", network.translations),
        ("translated", {i.private: i.translated for i in network.interfaces if i.translated}),
    ):
        yield f"  map {name} {{"
        yield "    type ipv4_addr : ipv4_addr"
        if pairs:
            elements = ", ".join(f"{key} : {value}" for key, value in sorted(pairs.items()))
            yield f"    elements = {{ {elements} }}"
        yield "  }"
    yield "  chain prerouting {"
    yield "    type nat hook prerouting priority dstnat"
    if network.resolvers:
        yield (
            f"    ip daddr {_set(network.resolvers)} meta l4proto {{ tcp, udp }} th dport 53"
            f" dnat to {RESOLVER_ADDRESS}"
        )
    yield "    dnat to ip daddr map @public"
    yield "  }"
    yield "  chain output {"
    yield "    type nat hook output priority -100"
    yield "    dnat to ip daddr map @public"
    yield "  }"
    yield "  chain postrouting {"
    yield "    type nat hook postrouting priority srcnat"
    yield f'    oifname "{UPLINK}" snat to ip saddr map @translated'
    yield "    ct status & dnat != 0 snat to ip saddr map @translated"
    yield "  }"


def _base_chains(network: Network, settings: Settings) -> Iterator[str]:
    devices = [i.device for i in network.interfaces]
    online = [i.private for i in network.interfaces if i.translated]
    leaving = _verdicts("iifname", devices, "out")
    yield "  chain leaving {"
    yield "    type filter hook forward priority filter; policy drop"
    yield f'    iifname "{UPLINK}" oifname "{UPLINK}" drop'
    # From outside only what was addressed to a public address; private ones lead nowhere.
    yield f'    iifname "{UPLINK}" ct state new ct status & dnat == 0 drop'
    yield f'    iifname "{UPLINK}" accept'
    yield "    ct state established,related accept"
    if online:
        yield f'    oifname "{UPLINK}" ip saddr != {_set(online)} drop'
    else:
        yield f'    oifname "{UPLINK}" drop'
    yield from _verdicts("iifname", devices, "vpc")
    yield from leaving
    yield "  }"
    yield "  chain entering {"
    yield "    type filter hook forward priority filter + 10; policy drop"
    yield "    ct state established,related accept"
    yield f'    oifname "{UPLINK}" accept'
    yield from _verdicts("oifname", devices, "in")
    yield "  }"
    yield "  chain services {"
    yield "    type filter hook input priority filter; policy drop"
    yield f'    iifname {{ "lo", "{UPLINK}" }} accept'
    yield "    ct state established,related accept"
    # As on AWS, metadata and names are not subject to security groups; the API is.
    yield f"    ip daddr {METADATA_ADDRESS} tcp dport 80 accept"
    yield f"    ip daddr {RESOLVER_ADDRESS} meta l4proto {{ tcp, udp }} th dport 53 accept"
    yield f"    ip daddr != {settings.address} drop"
    yield f"    tcp dport != {{ {API_PORT}, {TLS_PORT} }} drop"
    yield from leaving
    yield "  }"


def _verdicts(key: str, devices: list[str], suffix: str) -> Iterable[str]:
    if not devices:
        return []
    pairs = ", ".join(f'"{device}" : jump {device}_{suffix}' for device in devices)
    return [f"    {key} vmap {{ {pairs} }}"]


def _within(address: str | None, cidr: str) -> bool:
    return address is not None and ipaddress.IPv4Address(address) in ipaddress.IPv4Network(cidr)


def _set(values: Iterable[str]) -> str:
    """Return an anonymous set; blocks that lie in others are merged, as nftables demands."""
    networks = ipaddress.collapse_addresses(
        ipaddress.IPv4Network(value, strict=False) for value in values
    )
    texts = [str(n.network_address) if n.prefixlen == 32 else str(n) for n in networks]
    return "{ " + ", ".join(texts) + " }"
