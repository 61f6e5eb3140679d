"""What the API says of the network, as plain data: the firewall and the names are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """One permission of a security group. Ports are a type and a code for ICMP; -1 is any."""

    protocol: str
    from_port: int | None
    to_port: int | None
    cidrs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """A security group."""

    id: str
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


@dataclass(frozen=True)
class Interface:
    """The network interface of a host that is up.

    `public` is set if the internet reaches the host, so only with a route to a gateway;
    `translated` is the address under which the host reaches the internet, its own or that
    of a NAT gateway.
    """

    instance: str
    device: str
    private: str
    vpc: str
    groups: tuple[str, ...]
    public: str | None = None
    translated: str | None = None


@dataclass(frozen=True)
class Vpc:
    """Blocks of a VPC, and those that its peering connections and routes lead to."""

    id: str
    cidrs: tuple[str, ...]
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Network:
    """All that hosts may reach, and from where."""

    interfaces: tuple[Interface, ...] = ()
    groups: tuple[Group, ...] = ()
    vpcs: tuple[Vpc, ...] = ()
    resolvers: tuple[str, ...] = field(default=())

    @property
    def translations(self) -> dict[str, str]:
        """Public address -> private address."""
        return {i.public: i.private for i in self.interfaces if i.public}
