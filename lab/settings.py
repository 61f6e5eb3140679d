"""What a lab is called, where its addresses lie, and where its files are."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

API_PORT = 4566
ADMIN_PORT = 4567
TLS_PORT = 443
DNS_PORT = 53
METADATA_ADDRESS = "169.254.169.254"
RESOLVER_ADDRESS = "169.254.169.253"
ACCESS_KEY = "ascentlab"
SECRET_KEY = "ascentlab"  # noqa: S105 - any key is accepted; this one is printed
ACCOUNT = "123456789012"
DEFAULT_NAME = "ascent"
DEFAULT_SUBNET = "198.18.0.0/24"

_SUBNET = ipaddress.IPv4Network(DEFAULT_SUBNET)
# No hyphen: names of namespaces are `ascent-<lab>-<host>`, and no lab may own another's.
_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")


@dataclass(frozen=True)
class Settings:
    """A lab's name and uplink subnet, from which everything else follows, and how it behaves.

    background: under load its hosts give way to those of other labs.
    rds_delay: seconds that a database's change of state takes in addition to its real work;
    rds_failover_delay: that a failover does.
    elb_log_interval: seconds between two files of a load balancer's access log (AWS: 300).
    """

    name: str = DEFAULT_NAME
    subnet: ipaddress.IPv4Network = _SUBNET
    write_hosts_file: bool = True
    background: bool = False
    rds_delay: float = 0.0
    rds_failover_delay: float = 0.0
    elb_log_interval: float = 300.0
    cache: Path = Path("/var/lib/ascent-lab")
    run: Path = Path("/run/ascent-lab")

    @classmethod
    def of(
        cls,
        name: str,
        subnet: str,
        write_hosts_file: bool = True,
        background: bool = False,
        rds_delay: float = 0.0,
        rds_failover_delay: float = 0.0,
        elb_log_interval: float = 300.0,
    ) -> Settings:
        """Check what a user typed. Raises LabError."""
        if not _NAME.fullmatch(name):
            raise LabError(
                f"'{name}' is no name for a lab: use 1 to 16 small letters and digits, "
                "a letter first, no hyphen."
            )
        try:
            network = ipaddress.IPv4Network(subnet)
        except ValueError as error:
            raise LabError(f"'{subnet}' is no subnet for a lab: {error}") from error
        if network.prefixlen != 24:
            raise LabError(f"The lab's subnet must be a /24, not {network}; e.g. {DEFAULT_SUBNET}.")
        for delay in (rds_delay, rds_failover_delay):
            if delay < 0:
                raise LabError(f"A delay of {delay} seconds cannot be; use 0 or more.")
        if elb_log_interval < 1:
            raise LabError(
                f"Access logs cannot be written every {elb_log_interval} seconds; use 1 or more."
            )
        return cls(
            name,
            network,
            write_hosts_file,
            background,
            rds_delay,
            rds_failover_delay,
            elb_log_interval,
        )

    # --- addresses
    @property
    def machine_address(self) -> str:
        """The machine's end of the uplink: the operator's address as hosts see it."""
        return str(self.subnet[1])

    @property
    def address(self) -> str:
        """The lab's end: API, names and admin listen here."""
        return str(self.subnet[2])

    @property
    def public_pool(self) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
        """First and last public address that the lab hands out."""
        return self.subnet[16], self.subnet[250]

    @property
    def endpoint(self) -> str:
        """What AWS_ENDPOINT_URL must be."""
        return f"http://{self.address}:{API_PORT}"

    @property
    def admin(self) -> str:
        """The lab's own interface; playbooks do not know it."""
        return f"http://{self.address}:{ADMIN_PORT}"

    # --- names of things in the kernel
    @property
    def namespace(self) -> str:
        """The network namespace that holds all of the lab's network."""
        return f"ascent-{self.name}"

    @property
    def table(self) -> str:
        """The nftables table in the machine's own namespace."""
        return f"ascent_{self.name}"

    @property
    def uplink(self) -> str:
        """The machine's end of the uplink (interface names have at most 15 characters)."""
        return f"asc-{self.name}"[:15] if len(self.name) <= 11 else f"asc{_short_hash(self.name)}"

    # --- files
    @property
    def state(self) -> Path:
        """Runtime state: gone after down, and after a reboot of the machine."""
        return self.run / self.name

    @property
    def databases(self) -> Path:
        """What databases store, and their backups: on the disk, and gone after down."""
        return self.cache / "databases" / self.name

    @property
    def log(self) -> Path:
        """What the server said."""
        return self.state / "server.log"

    @property
    def pid_file(self) -> Path:
        """The server's process: id and start time."""
        return self.state / "server.pid"

    @property
    def settings_file(self) -> Path:
        """The settings that a lab was started with, for the other verbs."""
        return self.state / "settings.json"


def _short_hash(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:12]
