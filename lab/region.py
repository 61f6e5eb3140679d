"""The region: one network namespace that holds all of a lab's network.

    machine                        namespace ascent-<name>                 ascent-<name>-<host>
    <subnet>.1 --- uplink veth --- <subnet>.2  API, DNS, admin
                                   169.254.169.254 metadata, .253 DNS
                                   nftables: groups, addresses, routes
                                   veth with the subnet's gateway ------- eth0, private address

Hosts hang on veths of their own, so that each packet between two of them is routed here, where
the rules see it. `ip netns delete` takes all of it away.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from lab import shell
from lab.settings import METADATA_ADDRESS, RESOLVER_ADDRESS, Settings

_NAMESPACES = Path("/run/netns")
# Of the thread that asks.
_OWN_NAMESPACE = Path("/proc/thread-self/ns/net")
_LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # A host may only send from its own address.
    "net.ipv4.conf.all.rp_filter": "1",
    "net.ipv4.conf.default.rp_filter": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
# What Debian sets at boot, which a container may not: everyone may ping.
_HOST_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647"}


def namespaces() -> list[str]:
    """List the machine's named network namespaces."""
    return sorted(path.name for path in _NAMESPACES.iterdir()) if _NAMESPACES.is_dir() else []


class Region:
    """Makes and removes the namespaces of one lab."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def path(self) -> Path:
        """The file that names the namespace."""
        return _NAMESPACES / self._settings.namespace

    def exists(self) -> bool:
        """Say whether the namespace is there."""
        return self.path.exists()

    def up(self) -> None:
        """Make the namespace, its uplink and its addresses."""
        settings = self._settings
        name, uplink = settings.namespace, settings.uplink
        source = f"src {settings.machine_address}"
        shell.run("ip", "netns", "add", name)
        for key, value in _SYSCTLS.items():
            if Path("/proc/sys", *key.split(".")).exists():
                self._inside("sysctl", "-q", "-w", f"{key}={value}")
        shell.run("ip", "link", "add", uplink, "type", "veth", "peer", "uplink", "netns", name)
        _batch(
            (
                f"address add {settings.machine_address}/32 dev {uplink}",
                f"link set {uplink} up",
                f"route add {settings.address} dev {uplink} {source}",
                f"route add {settings.subnet} via {settings.address} {source}",
            )
        )
        _batch(
            (
                "link set lo up",
                f"address add {settings.address}/32 dev uplink",
                "link set uplink up",
                f"route add {settings.machine_address} dev uplink src {settings.address}",
                f"route add default via {settings.machine_address} src {settings.address}",
                f"address add {METADATA_ADDRESS}/32 dev lo",
                f"address add {RESOLVER_ADDRESS}/32 dev lo",
            ),
            name,
        )

    def down(self) -> None:
        """Remove every namespace and link of the lab; missing ones are no error."""
        own = re.compile(re.escape(self._settings.namespace) + r"(-[0-9a-f]{10})?")
        for name in namespaces():
            if own.fullmatch(name):
                shell.run("ip", "netns", "delete", name)
        shell.succeeds("ip", "link", "delete", self._settings.uplink)

    def command(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs inside the namespace.

        Not `ip netns exec`: that mounts /sys anew and hides the control groups.
        """
        return ("nsenter", f"--net={self.path}", *command)

    def _inside(self, *command: str) -> str:
        return shell.run(*self.command(*command))


class Link:
    """A host's own namespace and the veth that ties it to the region.

    Runs inside the region's namespace.
    """

    def __init__(self, settings: Settings, instance: str) -> None:
        short = instance[-10:]
        self.namespace = f"{settings.namespace}-{short}"
        self.device = f"h{short}"

    @property
    def path(self) -> Path:
        """The file that names the namespace."""
        return _NAMESPACES / self.namespace

    def up(self, address: str, subnet: str, mac: str) -> None:
        """Make the namespace with eth0 as the API describes it."""
        network = ipaddress.IPv4Network(subnet)
        gateway = network[1]
        shell.run("ip", "netns", "add", self.namespace)
        for key, value in _HOST_SYSCTLS.items():
            shell.run("nsenter", f"--net={self.path}", "sysctl", "-q", "-w", f"{key}={value}")
        shell.run(
            "ip", "link", "add", self.device, "type", "veth",
            "peer", "eth0", "address", mac, "netns", self.namespace,
        )  # fmt: skip
        _batch(
            (
                "link set lo up",
                f"address add {address}/{network.prefixlen} dev eth0 noprefixroute",
                "link set eth0 up",
                f"route add {gateway} dev eth0 scope link src {address}",
                f"route add default via {gateway} src {address}",
            ),
            self.namespace,
        )
        _batch(
            (
                f"address add {gateway}/32 dev {self.device}",
                f"link set {self.device} up",
                # A host that was cut off may have had the address.
                f"route replace {address}/32 dev {self.device}",
            )
        )

    def cut(self, address: str) -> None:
        """Let the host vanish without a word: what it sends and what is sent to it is lost."""
        shell.run("ip", "route", "replace", "blackhole", f"{address}/32")

    def mend(self, address: str) -> None:
        """Undo a cut; no error if there was none."""
        shell.run("ip", "route", "replace", f"{address}/32", "dev", self.device)

    def greets(self, address: str) -> bool:
        """Say whether SSH answers at an address, asked from inside of the host's namespace.

        From outside a host's own packet filter may let in its operators alone.
        """
        return self.ask(address, 22).startswith(b"SSH-")

    def ask(self, address: str, port: int, message: bytes = b"") -> bytes:
        """Return the first that a server says, or answers; nothing if it does not."""
        try:
            with self.open_socket() as connection:
                connection.settimeout(2)
                connection.connect((address, port))
                if message:
                    connection.sendall(message)
                return connection.recv(1024)
        except OSError:
            return b""

    def open_socket(self) -> socket.socket:
        """Return a TCP socket of the host's: it stays in the namespace that it was made in."""
        with self.path.open() as there, _OWN_NAMESPACE.open() as here:
            _enter(there.fileno())
            try:
                return socket.socket()
            finally:
                _enter(here.fileno())

    def down(self) -> None:
        """Remove the namespace, and the veth with it; a missing one is no error."""
        if self.path.exists():
            shell.run("ip", "netns", "delete", self.namespace)
        shell.succeeds("ip", "link", "delete", self.device)


def _enter(namespace: int) -> None:
    """Take this thread, and no other, into a network namespace (Python 3.12 has `os.setns`)."""
    any_kind = 0
    if _LIBC.setns(namespace, any_kind):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _batch(lines: Iterable[str], namespace: str | None = None) -> None:
    where = ("-n", namespace) if namespace else ()
    shell.run("ip", *where, "-batch", "-", input_text="\n".join(lines) + "\n")
