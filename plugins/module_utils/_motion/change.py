# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes the schema of a database that is being moved: on both sides, in the order that fits.

Replication carries rows and no definitions. What adds something goes to the following side first,
so that no row arrives that has no place there; what takes something away goes there last.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import psycopg
from ansible_collections.ascent.scaling.plugins.module_utils._motion import ledger, replication
from ansible_collections.ascent.scaling.plugins.module_utils._motion.mover import MoveError, Mover
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import Connection
from psycopg import sql

# Whoever asks for a table's lock makes all others wait behind it: ask shortly, and often.
_LOCK_MS, _LOCK_TRIES, _LOCK_PAUSE_S = 200, 50, 0.5
_FOLLOWS_WITHIN_S = 60.0


def change(
    mover: Mover, statements: str, role: str, takes_away: bool, dry: bool = False
) -> list[str]:
    """Run the statements once on each side, as the role; returns what was done.

    With `dry`, what would be done. Raises MoveError, naming the side and what is there already.
    """
    name = f"change {hashlib.sha256(statements.encode()).hexdigest()[:16]}"
    origin, other = mover.connect()
    with origin, other:
        if not mover.observe(origin, other).prepared:
            raise MoveError(
                f"No move between {mover.origin.name} and {mover.other.name} is under way, so the "
                "schema is not frozen: change it as always. Nothing was changed."
            )
        found = mover.standing(origin, other)
        sides = [(found.there, "follows"), (found.here, "serves")]
        connections = {mover.origin.name: origin, mover.other.name: other}
        order = sides[::-1] if takes_away else sides
        due = [
            (site, part)
            for site, part in order
            if ledger.noted(connections[site.name], name) is None
        ]
        if dry or not due:
            return [f"would be changed: {site.name}, which {part}" for site, part in due]
        with mover.alone(origin):
            for site, part in due:
                try:
                    _run(connections[site.name], statements, role, name)
                except psycopg.Error as error:
                    before = "; ".join(mover.done)
                    raise MoveError(
                        f"{site.name}, which {part}, refused the change: {str(error).strip()}. "
                        + (
                            f"Before that: {before}. Take that back there, as the role, or mend "
                            "what stands in the way here and run the same statements again."
                            if before
                            else "Nothing was changed."
                        )
                    ) from error
                mover.done.append(f"{site.name}, which {part}, is changed")
            for connection in connections.values():
                replication.identify(connection)
                replication.publish(connection)
            here, there = connections[found.here.name], connections[found.there.name]
            # What is new is empty there, and copied from here.
            there.execute(
                sql.SQL("ALTER SUBSCRIPTION {} REFRESH PUBLICATION").format(
                    sql.Identifier(found.here.slot)
                )
            )
            _wait_until_it_follows(mover, origin, other, here)
        done: list[str] = mover.done
        return done


def _run(connection: Connection, statements: str, role: str, name: str) -> None:
    """All statements and the note of them, or nothing. Raises psycopg.Error."""
    for attempt in range(_LOCK_TRIES):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}".encode())
                connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                connection.execute(statements.encode())
                connection.execute(b"RESET ROLE")
                ledger.note(connection, name, True)
            return
        except psycopg.errors.LockNotAvailable:
            if attempt == _LOCK_TRIES - 1:
                raise
            time.sleep(_LOCK_PAUSE_S)


def _wait_until_it_follows(
    mover: Mover, origin: Connection, other: Connection, here: Connection
) -> None:
    """A row that finds no place stops the side that follows: say so now, not at the switch."""
    row: Any = here.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    deadline = time.monotonic() + _FOLLOWS_WITHIN_S
    while time.monotonic() < deadline:
        found = mover.standing(origin, other)
        arrived = here.execute(
            "SELECT FROM pg_replication_slots WHERE slot_name = %s"
            " AND confirmed_flush_lsn >= %s::pg_lsn",
            (found.here.slot, row[0]),
        )
        if arrived.rowcount and found.ready:
            return
        time.sleep(0.2)
    raise MoveError(
        "Both sides are changed, but the one that follows has not caught up within "
        f"{_FOLLOWS_WITHIN_S:.0f} s. The log of its PostgreSQL says which row it cannot take. If "
        "the change took something away, it had to begin on the other side (takes_away)."
    )
