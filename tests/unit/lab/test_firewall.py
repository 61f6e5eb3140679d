"""Security groups, addresses and routes as nftables rules."""

from __future__ import annotations

import re

import pytest

from lab.firewall import compile_rules, moved
from lab.network import Group, Interface, Network, Rule, Vpc
from lab.settings import Settings
from lab.world import OPEN

LAB = Settings.of("unit", "198.18.7.0/24")
VPC = Vpc("vpc-1", ("10.1.0.0/16",))


def host(number: int, *groups: str, public: str | None = None, **more: str) -> Interface:
    return Interface(
        instance=f"i-{number}",
        device=f"h{number}",
        private=f"10.1.0.{number}",
        vpc="vpc-1",
        groups=groups,
        public=public,
        translated=more.get("translated", public),
    )


def network(*interfaces: Interface, ingress: tuple[Rule, ...] = (), **more: object) -> Network:
    egress = more.get("egress", (Rule("-1", None, None, ("0.0.0.0/0",)),))
    assert isinstance(egress, tuple)
    groups = (Group("sg-a", ingress, egress), Group("sg-b", (), ()))
    return Network(interfaces, groups, (VPC,), ("10.1.0.2",))


def chain(script: str, name: str) -> list[str]:
    """Return the rules of a chain; fail if there is none."""
    found = re.search(rf"^  chain {name} {{\n(.*?)^  }}", script, re.DOTALL | re.MULTILINE)
    assert found, f"no chain {name}"
    return [line.strip() for line in found.group(1).splitlines()]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("tcp", 22, 22, ("192.0.2.0/24",)), ["ip saddr 192.0.2.0/24 tcp dport 22 accept"]),
        (
            Rule("udp", 1000, 2000, ("0.0.0.0/0",)),
            ["ip saddr 0.0.0.0/0 udp dport 1000-2000 accept"],
        ),
        (Rule("tcp", 0, 65535, ("0.0.0.0/0",)), ["ip saddr 0.0.0.0/0 meta l4proto tcp accept"]),
        (Rule("-1", None, None, ("10.0.0.0/8",)), ["ip saddr 10.0.0.0/8 accept"]),
        (Rule("icmp", -1, -1, ("0.0.0.0/0",)), ["ip saddr 0.0.0.0/0 ip protocol icmp accept"]),
        (Rule("icmp", 8, -1, ("0.0.0.0/0",)), ["ip saddr 0.0.0.0/0 icmp type 8 accept"]),
        (Rule("icmp", 3, 4, ("0.0.0.0/0",)), ["ip saddr 0.0.0.0/0 icmp type 3 icmp code 4 accept"]),
        (Rule("50", None, None, ("0.0.0.0/0",)), ["ip saddr 0.0.0.0/0 ip protocol 50 accept"]),
        (Rule("icmpv6", -1, -1, ("0.0.0.0/0",)), []),
        (Rule("tcp", 1, 1), []),
        (
            Rule("tcp", 5432, 5432, groups=("sg-b",)),
            ["ip saddr { 10.1.0.5 } tcp dport 5432 accept"],
        ),
        (Rule("tcp", 5432, 5432, groups=("sg-nobody",)), []),
    ],
)
def test_an_ingress_rule(rule: Rule, expected: list[str]) -> None:
    script = compile_rules(network(host(4, "sg-a"), host(5, "sg-b"), ingress=(rule,)), LAB)
    assert chain(script, "sg_a_in") == expected


def test_egress_asks_for_the_address_that_the_sender_wrote() -> None:
    egress = (
        Rule("tcp", 443, 443, ("198.51.100.0/24",)),
        Rule("tcp", 5432, 5432, groups=("sg-b",)),
    )
    script = compile_rules(network(host(4, "sg-a"), host(5, "sg-b"), egress=egress), LAB)
    assert chain(script, "sg_a_out") == [
        "ct original ip daddr 198.51.100.0/24 tcp dport 443 accept",
        "ct status & dnat == 0 ip daddr { 10.1.0.5 } tcp dport 5432 accept",
    ]


def test_through_a_public_address_only_public_addresses_match() -> None:
    ingress = (
        Rule("tcp", 80, 80, ("198.18.7.20/32",)),
        Rule("tcp", 81, 81, ("10.1.0.0/16",)),
        Rule("tcp", 82, 82, groups=("sg-a",)),
    )
    inside = host(4, "sg-a", public="198.18.7.20")
    script = compile_rules(network(inside, host(5, "sg-a"), ingress=ingress), LAB)
    assert chain(script, "sg_a_hairpin") == ["ip saddr { 10.1.0.4 } tcp dport 80 accept"]


def test_everything_is_closed_by_default() -> None:
    script = compile_rules(Network(), LAB)
    for name in ("leaving", "entering", "services"):
        assert chain(script, name)[0].endswith("policy drop")
    assert "vmap" not in script


def test_each_interface_asks_all_its_groups() -> None:
    script = compile_rules(network(host(4, "sg-a", "sg-b")), LAB)
    assert chain(script, "h4_out") == ["jump sg_a_out", "jump sg_b_out"]
    assert chain(script, "h4_in")[1:] == ["jump sg_a_in", "jump sg_b_in"]
    assert 'iifname vmap { "h4" : jump h4_out }' in chain(script, "leaving")
    assert 'oifname vmap { "h4" : jump h4_in }' in chain(script, "entering")


def test_private_addresses_lead_into_the_own_vpc_and_its_peers() -> None:
    peered = Network((host(4),), (), (Vpc("vpc-1", ("10.1.0.0/16",), ("10.9.0.0/16",)),))
    assert "ip daddr != { 10.1.0.0/16, 10.9.0.0/16 } drop" in "".join(
        chain(compile_rules(peered, LAB), "h4_vpc")
    )


def test_only_who_has_a_way_out_gets_out() -> None:
    script = compile_rules(
        network(host(4, public="198.18.7.20"), host(5), host(6, translated="198.18.7.21")),
        LAB,
    )
    assert 'oifname "uplink" ip saddr != { 10.1.0.4, 10.1.0.6 } drop' in chain(script, "leaving")
    assert "elements = { 198.18.7.20 : 10.1.0.4 }" in script
    assert "elements = { 10.1.0.4 : 198.18.7.20, 10.1.0.6 : 198.18.7.21 }" in script


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((host(4, public="198.18.7.20"),), (host(4, public="198.18.7.20"),), []),
        ((host(4, public="198.18.7.20"),), (host(5, public="198.18.7.20"),), ["198.18.7.20"]),
        ((host(4, public="198.18.7.20"),), (host(4),), ["198.18.7.20"]),
        ((host(4),), (host(4, public="198.18.7.20"),), []),
        ((host(4, translated="198.18.7.9"),), (host(4),), ["198.18.7.9"]),
        ((host(4, translated="198.18.7.9"),), (), ["198.18.7.9"]),
    ],
)
def test_flows_are_forgotten_of_addresses_that_moved(
    before: tuple[Interface, ...], after: tuple[Interface, ...], expected: list[str]
) -> None:
    assert moved(Network(before), Network(after)) == expected


def test_hosts_reach_the_api_and_s3_by_tls_and_nothing_else_of_the_lab() -> None:
    rules = chain(compile_rules(network(host(4, "sg-a")), LAB), "services")
    assert "ip daddr != 198.18.7.2 drop" in rules
    assert "tcp dport != { 4566, 443 } drop" in rules
    assert rules.index("tcp dport != { 4566, 443 } drop") < len(rules) - 1, "the groups come last"


def test_who_has_no_security_groups_lets_in_and_sends_all() -> None:
    """As a network load balancer that was created without any."""
    script = compile_rules(Network((host(4, OPEN.id),), (OPEN,), (VPC,)), LAB)
    assert "ip saddr 0.0.0.0/0 accept" in chain(script, "sg_open_in")
    assert "ct original ip daddr 0.0.0.0/0 accept" in chain(script, "sg_open_out")
