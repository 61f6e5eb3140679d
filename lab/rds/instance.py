"""An instance of RDS, as the API describes it, and what the API asks of its physical layer."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from moto.rds import models

from lab import parameters
from lab.engine import Engine
from lab.hosts import Order
from lab.rds.rules import class_of, endpoint_part

Done = Callable[[str], None]

_PENDING_NAMES = {
    "allocated_storage": "AllocatedStorage",
    "backup_retention_period": "BackupRetentionPeriod",
    "db_instance_class": "DBInstanceClass",
    "iops": "Iops",
    "multi_az": "MultiAZ",
    "port": "Port",
    "storage_throughput": "StorageThroughput",
    "storage_type": "StorageType",
}


@dataclass(frozen=True)
class Source:
    """What a new instance's data come from: a backup, and an archive if it goes on from there."""

    backup: str
    archive: str = ""
    until: str | None = None


@dataclass(eq=False)
class Server:
    """One server of an instance: its database's key, and its place in the network."""

    key: str
    interface: Any

    @property
    def zone(self) -> str:
        """The zone that it stands in."""
        return str(self.interface.subnet.availability_zone)

    @property
    def address(self) -> str:
        """Its private address."""
        return str(self.interface.private_ip_address)


class Physics(Protocol):
    """The physical layer as the API sees it."""

    engine: Engine

    def addresses(self) -> set[str]:
        """Return the private addresses of all databases that are not gone yet."""

    def launch(self, instance: Any, sql: str, source: Source | None) -> None:
        """Make a database of an instance; `sql` makes it ready."""

    def order(self, instance: Any, order: Order, sql: str = "") -> None:
        """Start, stop, reboot or remove a database as the API describes it now."""

    def pair(self, instance: Any) -> None:
        """Keep a standby beside a database for as long as the API wants one."""

    def fail_over(self, instance: Any) -> None:
        """Let the standby take over, with the parameters that the API describes now."""

    def remove(self, server: Server) -> None:
        """Shut down a server that is no instance's primary, and remove it."""

    def reload(self, instance: Any, done: Done) -> None:
        """Let a server read its configuration, as the API describes it now."""

    def run_sql(self, instance: Any, sql: str, done: Done) -> None:
        """Let a server's superuser run a script."""

    def back_up(self, instance: Any, name: str, done: Done) -> None:
        """Copy a database's storage into a backup."""

    def remove_backup(self, name: str) -> None:
        """Remove a backup; a missing one is no error."""

    def remove_archive(self, name: str) -> None:
        """Remove an archive; a missing one is no error."""

    def restorable(self, archive: str) -> datetime.datetime | None:
        """Return until when a database can be restored to any point in time."""


class DBInstance(models.DBInstance):
    """moto's instance, as a database that has its own address, parameters and states.

    `running` are the parameters that the server has, or is given by what is under way; `confirmed`
    those with which it has answered. `changing` is what a modification under way will have changed.

    A Multi-AZ instance has two servers. `guarded` is whether the primary's commits wait for the
    standby, `synchronous` whether it is sure that the standby has all that was ever acknowledged:
    only then may it take over. `leaving` are servers that are no more its own, and not gone yet.
    """

    backend: Any

    def __init__(self, backend: Any, interface: Any, **kwargs: Any) -> None:
        super().__init__(backend, **kwargs)
        alphabet = string.ascii_uppercase + string.digits
        self.dbi_resource_id = "db-" + "".join(secrets.choice(alphabet) for _ in range(26))
        self._servers_made = 0
        self.primary = self.new_server(interface)
        self.standby: Server | None = None
        self.leaving: list[Server] = []
        self.guarded = self.synchronous = self.ended = False
        self.archive = self.primary.key
        # With it the standby logs in at the primary.
        self.word = secrets.token_hex(16)
        self.status = "creating"
        if not self.option_group_supplied:
            # Option groups are a major version's; moto makes them a minor one's.
            self.option_group_name = f"default:{self.engine}-{self.engine_version.split('.')[0]}"
        self.created_once = False
        self.pending: dict[str, Any] = {}
        self.changing: dict[str, Any] = {}
        self.running_group = self.group.name
        self.running = self.desired()
        self.confirmed: dict[str, str] = {}
        self.performance_insights_enabled = bool(kwargs.get("enable_performance_insights"))
        if self.performance_insights_enabled:
            self.performance_insights_retention_period = (
                kwargs.get("performance_insights_retention_period") or 7
            )

    def new_server(self, interface: Any) -> Server:
        """Return a server with a key that none had before."""
        name = self.dbi_resource_id + (f" {self._servers_made}" if self._servers_made else "")
        self._servers_made += 1
        return Server("db-" + hashlib.sha256(name.encode()).hexdigest()[:17], interface)

    @property
    def key(self) -> str:
        """The primary's key."""
        return self.primary.key

    @property
    def interface(self) -> Any:
        """The primary's place in the network."""
        return self.primary.interface

    @property
    def servers(self) -> list[Server]:
        """All servers that are there, the primary first."""
        own = [] if self.ended else [self.primary]
        return [*own, *([self.standby] if self.standby else []), *self.leaving]

    @property
    def paired(self) -> bool:
        """Say whether it is to have a standby, now or once what is under way is done."""
        return bool(self.future("multi_az"))

    @property
    def secondary_availability_zone(self) -> str | None:
        """The standby's zone."""
        return self.standby.zone if self.standby and self.multi_az else None

    @property
    def group(self) -> Any:
        """The parameter group."""
        return self.db_parameter_groups()[0]

    def future(self, name: str) -> Any:
        """Return an attribute as it will be when what is under way is done."""
        return self.changing.get(name, getattr(self, name))

    def desired(self) -> dict[str, str]:
        """Return the parameters with which the server would start now."""
        kind = class_of(self.future("db_instance_class"))
        chosen = {name: p["ParameterValue"] for name, p in self.group.parameters.items()}
        known = self.backend.engine.parameters
        return parameters.effective(known, chosen, kind.memory * 2**20, kind.cpus)

    @property
    def address(self) -> str:
        """The endpoint's name."""
        part = endpoint_part(self.account_id, self.region)
        return f"{self.db_instance_identifier}.{part}.{self.region}.rds.amazonaws.com"

    @property
    def endpoint(self) -> Any:
        """The endpoint; there is none until the instance was available once."""
        return {"Address": self.address, "Port": self.port} if self.created_once else None

    @property
    def latest_restorable_time(self) -> Any:
        """Until when the archive reaches."""
        if not self.backup_retention_period:
            return None
        return self.backend.physics.restorable(self.archive)

    @property
    def pending_modified_values(self) -> dict[str, Any]:
        """What was asked for and is not in force yet."""
        waiting = {**self.pending, **self.changing}
        return {_PENDING_NAMES[name]: value for name, value in waiting.items()}

    @property
    def db_parameter_group_status_list(self) -> list[dict[str, str]]:
        """The parameter group, and whether the server runs with it."""
        group, desired = self.group, self.desired()
        if group.name != self.running_group or parameters.differing(self.running, desired):
            status = "pending-reboot"
        else:
            status = "in-sync" if self.confirmed == self.running else "applying"
        return [{"DBParameterGroupName": group.name, "ParameterApplyStatus": status}]
