# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the schema of a database to another server, by PostgreSQL's own programs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._motion import ledger
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import (
    Connection,
    Site,
)

PROGRAMS = Path("/usr/lib/postgresql")
_ENVIRONMENT = {
    "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD",
    "dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
}  # fmt: skip


class SchemaError(Exception):
    """The schema could not be brought over; the text holds what PostgreSQL said."""


def programs(version: int, root: Path = PROGRAMS) -> Path:
    """The directory of PostgreSQL's client programs that can read a server of a major version.

    The oldest that will do. Raises SchemaError with what is there.
    """
    found = sorted(
        (int(path.parts[-3]), path.parent)
        for path in root.glob("*/bin/pg_dump")
        if path.parts[-3].isdigit()
    )
    for major, directory in found:
        if major >= version:
            return directory
    there = ", ".join(str(major) for major, _ in found) or "none"
    raise SchemaError(
        f"pg_dump of PostgreSQL {version} or newer is needed to read the schema; installed is: "
        f"{there}. Install the package postgresql-client-{version}."
    )


def copy(source: Site, target: Site, connection: Connection) -> bool:
    """Bring all objects but the data from the source to the target: all of them, or none.

    `connection` leads to the target. Returns False if they are there already.
    """
    if ledger.noted(connection, "schema") is not None:
        return False
    with source.connect() as reading:
        directory = programs(reading.info.server_version // 10000)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        dump, contents, script = place / "dump", place / "contents", place / "script.sql"
        _run(
            [
                *(str(directory / "pg_dump"), "--format=custom", "--schema-only"),
                *("--no-publications", "--no-subscriptions", "--no-tablespaces"),
                *(f"--exclude-schema={ledger.SCHEMA}", f"--file={dump}"),
            ],
            source,
        )
        listed = _run([str(directory / "pg_restore"), "--list", str(dump)])
        # The freeze is the source's own.
        contents.write_text(
            "".join(
                f"{line}\n"
                for line in listed.splitlines()
                if f"EVENT TRIGGER - {ledger.SCHEMA}_" not in line
            )
        )
        _run(
            [
                *(str(directory / "pg_restore"), f"--use-list={contents}"),
                *(f"--file={script}", str(dump)),
            ]
        )
        with script.open("a") as stream:
            stream.write(f"\nINSERT INTO {ledger.SCHEMA}.note VALUES ('schema', 'true');\n")
        _run(
            [
                *(str(directory / "psql"), "--no-psqlrc", "--quiet", "--output=/dev/null"),
                *("--set=ON_ERROR_STOP=1", "--single-transaction", f"--file={script}"),
            ],
            target,
        )
    return True


def _run(command: list[str], site: Site | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment["PGCONNECT_TIMEOUT"] = "10"
    if site:
        known: dict[str, Any] = site.conninfo
        environment |= {_ENVIRONMENT[key]: str(known[key]) for key in _ENVIRONMENT if key in known}
        environment["PGOPTIONS"] = "-c ascent_move.allow=on"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        where = f" of {site.name} ({site.address})" if site else ""
        raise SchemaError(
            f"{Path(command[0]).name} failed with {done.returncode} on the schema{where}: "
            f"{done.stderr.strip()[-2000:]}"
        )
    return done.stdout
