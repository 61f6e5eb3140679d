# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a move, and how to log in there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Site:
    """A database that is moved from or to.

    `conninfo` (libpq's names) is how the mover logs in, `replication` how the other server does;
    `guard` how the guards do, and `server` where PgBouncer leads when the data is here.
    """

    name: str
    conninfo: dict[str, Any]
    replication: dict[str, Any] = field(default_factory=dict)

    def connect(self, seconds: int = 5, **more: Any) -> Connection:
        """Log in, in autocommit mode. Raises psycopg.OperationalError."""
        limits = {
            "connect_timeout": seconds,
            "tcp_user_timeout": 2000,
            "keepalives_idle": 1,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "application_name": "ascent_mover",
            # A mover whose host has vanished loses its sessions, and its lock, within seconds. What
            # row-level security would hide from it is an error.
            "options": "-c ascent_move.allow=on -c row_security=off -c lock_timeout=5000"
            " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
            " -c tcp_user_timeout=10000",
        }
        return psycopg.connect(**{**limits, **self.conninfo, **more}, autocommit=True)

    @property
    def address(self) -> str:
        """Where the side is, for messages."""
        known = {"port": 5432, **self.conninfo}
        return f"{known.get('host')}:{known['port']}, database {known.get('dbname')}"

    @property
    def slot(self) -> str:
        """The subscription that takes what is written here to the other side, and its slot.

        Slots have one name in a whole server, of small letters, digits and underscores, up to 63.
        """
        whole = f"ascent_{self.conninfo.get('dbname')}_from_{self.name}".lower()
        plain = re.sub(r"[^a-z0-9_]", "_", whole)
        if plain == whole and len(plain) <= 63:
            return plain
        return f"{plain[:54]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def site(given: dict[str, Any]) -> Site:
    """A side as a module's options name it."""
    where = {
        "host": given["host"],
        "port": given["port"],
        "dbname": given["database"],
        "sslmode": given["sslmode"],
    }
    login = {"user": given["user"], "password": given["password"]}
    replication = {"user": given["replication_user"], "password": given["replication_password"]}
    if given.get("sslrootcert"):
        login["sslrootcert"] = given["sslrootcert"]
    if given.get("replication_sslrootcert"):
        replication["sslrootcert"] = given["replication_sslrootcert"]
    return Site(given["name"], {**where, **login}, {**where, **replication})
