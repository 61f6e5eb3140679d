# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publications, subscriptions and slots of a move: observed, and brought to what is wanted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ansible_collections.ascent.scaling.plugins.module_utils._motion import ledger
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import (
    Connection,
    Site,
)
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

PUBLICATION = "ascent_move"
# How long a session that reads a slot may take to end.
SLOT_S = 15.0

# Ordinary tables of the application, partitions included: what can be in a publication.
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ascent_move')
  AND n.nspname !~ '^pg_(toast|temp)'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1
"""

# The tables that an UPDATE could not be told of by a key, with a unique index that would do.
_KEYLESS = """
SELECT format('%%I.%%I', n.nspname, c.relname),
       (SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate
          AND x.indpred IS NULL AND x.indexprs IS NULL
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
                          AND a.attnum = ANY(x.indkey) AND NOT a.attnotnull)
        ORDER BY i.relname LIMIT 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%s::regclass[])
  AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS
       (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indimmediate))
ORDER BY 1
"""


# Tables, partitioned ones first, that the planner knows nothing of, or not what they are now. Of a
# partitioned one only ANALYZE itself makes statistics: autovacuum leaves it out.
_UNKNOWN_TO_THE_PLANNER = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ascent_move')
  AND n.nspname !~ '^pg_(toast|temp)'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
  AND (s.last_analyze IS NULL AND s.last_autoanalyze IS NULL
       OR c.relkind = 'r' AND s.n_mod_since_analyze > 50 + 0.1 * s.n_live_tup)
ORDER BY c.relkind <> 'p', c.relispartition, 1
"""


@dataclass(frozen=True)
class Subscription:
    """A subscription as it stands.

    `tables` maps each table to its state: `i` waits, `d` is copied, `f` was copied, `s` catches
    up, `r` is ready (pg_subscription_rel). `running` tells whether its worker lives.
    """

    enabled: bool
    tables: dict[str, str]
    running: bool


def tables(connection: Connection) -> list[str]:
    """The application's tables, as quoted names with their schema."""
    return [row[0] for row in connection.execute(_TABLES)]


def analyze(connection: Connection) -> tuple[list[str], list[str]]:
    """Make the statistics that a copy does not bring; returns the tables, and those not allowed.

    Without them every plan is a guess until autovacuum has come by. What is made already, by an
    earlier run or by autovacuum, is not made again. It needs no superuser: a table's owner, the
    database's owner (the master user of RDS) and members of pg_maintain may.
    """
    tried: list[str] = []
    refused: list[str] = []

    def told(notice: errors.Diagnostic) -> None:
        # ANALYZE leaves out what it may not do, with a warning.
        if notice.severity_nonlocalized == "WARNING":
            refused.append(tried[-1])

    connection.add_notice_handler(told)
    try:
        while True:
            found = [row[0] for row in connection.execute(_UNKNOWN_TO_THE_PLANNER.encode())]
            table = next((name for name in found if name not in tried), None)
            if table is None:
                return [name for name in tried if name not in refused], sorted(set(refused))
            tried.append(table)
            connection.execute(f"ANALYZE {table}".encode())
    finally:
        connection.remove_notice_handler(told)


def keyless(connection: Connection) -> dict[str, str | None]:
    """The tables without a replica identity, each with an index that could be it."""
    found = connection.execute(_KEYLESS, (tables(connection),))
    return {row[0]: row[1] for row in found}


# Whoever asks for a table's lock makes all others wait behind it: ask shortly, and often.
_LOCK_MS, _LOCK_TRIES = 100, 100


def identify(connection: Connection) -> list[str]:
    """Give every table a replica identity; returns what was done.

    Before it is published: a published table without one refuses UPDATE and DELETE. Raises
    psycopg.errors.LockNotAvailable where the application never leaves a table alone.
    """
    done = []
    for table, index in keyless(connection).items():
        kind = f"USING INDEX {sql.Identifier(index).as_string(connection)}" if index else "FULL"
        for attempt in range(_LOCK_TRIES):
            try:
                with connection.transaction():
                    connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}".encode())
                    connection.execute(f"ALTER TABLE {table} REPLICA IDENTITY {kind}".encode())
                break
            except errors.LockNotAvailable:
                if attempt == _LOCK_TRIES - 1:
                    raise
                time.sleep(0.2)
        done.append(f"{table}: replica identity {kind}")
    return done


def publish(connection: Connection) -> list[str]:
    """Publish every table and the mark; returns the tables that were not published before."""
    wanted = [*tables(connection), f"{ledger.SCHEMA}.mark"]
    row = connection.execute(
        "SELECT array(SELECT format('%%I.%%I', schemaname, tablename) FROM pg_publication_tables"
        " WHERE pubname = %s) FROM pg_publication WHERE pubname = %s",
        (PUBLICATION, PUBLICATION),
    ).fetchone()
    missing = [table for table in wanted if row is None or table not in row[0]]
    if row is None:
        connection.execute(
            f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {', '.join(wanted)}".encode()
        )
    elif missing:
        connection.execute(
            f"ALTER PUBLICATION {PUBLICATION} ADD TABLE {', '.join(missing)}".encode()
        )
    return missing


def subscription(connection: Connection, name: str) -> Subscription | None:
    """Look at a subscription of this database; None if there is none of the name."""
    row = connection.execute(
        "SELECT oid, subenabled FROM pg_subscription WHERE subname = %s"
        " AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (name,),
    ).fetchone()
    if row is None:
        return None
    states = connection.execute(
        "SELECT srrelid::regclass::text, srsubstate FROM pg_subscription_rel WHERE srsubid = %s",
        (row[0],),
    ).fetchall()
    worker = connection.execute(
        "SELECT FROM pg_stat_subscription WHERE subid = %s AND relid IS NULL AND pid IS NOT NULL",
        (row[0],),
    )
    return Subscription(bool(row[1]), dict(states), worker.rowcount > 0)


def slot_exists(connection: Connection, name: str) -> bool:
    """Whether the server keeps WAL for a subscriber of this name."""
    found = connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (name,))
    return bool(found.rowcount)


def subscribe(subscriber: Connection, publisher: Site, copy: bool) -> None:
    """Take what is written at the publisher from now on; with `copy`, what is there as well.

    Without `copy` the slot is there already (`Cutover`), so that nothing is left out between.
    """
    # A table that is copied gives its slot back. If the subscriber forgets in a crash that it has,
    # it asks for that slot for ever (`stranded`): so it flushes at once what it has done.
    durable = "on" if copy else "off"
    subscriber.execute(
        sql.SQL(
            "CREATE SUBSCRIPTION {name} CONNECTION {source} PUBLICATION {publication} WITH ("
            "copy_data = {copy}, create_slot = {copy}, slot_name = {slot}, enabled = true,"
            " synchronous_commit = {durable})"
        ).format(
            name=sql.Identifier(publisher.slot),
            source=sql.Literal(make_conninfo(**publisher.replication)),
            publication=sql.Identifier(PUBLICATION),
            copy=sql.Literal(copy),
            slot=sql.Literal(publisher.slot),
            durable=sql.Literal(durable),
        )
    )


def stranded(publisher: Connection, subscriber: Connection, name: str) -> list[str]:
    """Tables that were copied and have no slot to catch up from, as a crash may leave them.

    The last moment of a table that is about to be ready looks the same: look twice.
    """
    copied = subscriber.execute(
        "SELECT r.srrelid::regclass::text, format('pg_%%s_sync_%%s_', c.oid, r.srrelid)"
        " FROM pg_subscription c JOIN pg_subscription_rel r ON r.srsubid = c.oid"
        " WHERE c.subname = %s AND r.srsubstate = 'f' ORDER BY 1",
        (name,),
    ).fetchall()
    slots = [row[0] for row in publisher.execute("SELECT slot_name FROM pg_replication_slots")]
    return [table for table, slot in copied if not any(it.startswith(slot) for it in slots)]


def relax(subscriber: Connection, name: str) -> None:
    """Let a subscriber that has copied all tables apply changes without a flush for each.

    Its worker takes that over with the next transaction, and goes on.
    """
    strict = "SELECT FROM pg_subscription WHERE subname = %s AND subsynccommit <> 'off'"
    if subscriber.execute(strict, (name,)).rowcount:
        statement = sql.SQL("ALTER SUBSCRIPTION {} SET (synchronous_commit = off)")
        subscriber.execute(statement.format(sql.Identifier(name)))


def unsubscribe(subscriber: Connection, publisher: Site) -> bool:
    """Drop the subscription without asking the publisher, who may be away; False if none."""
    if subscription(subscriber, publisher.slot) is None:
        return False
    name = sql.Identifier(publisher.slot)
    for statement in (
        "ALTER SUBSCRIPTION {} DISABLE",
        "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
        "DROP SUBSCRIPTION {}",
    ):
        subscriber.execute(sql.SQL(statement).format(name))
    return True


def drop_slot(connection: Connection, name: str) -> bool:
    """Stop keeping WAL for a subscriber; False if there is no slot of this name."""
    if not slot_exists(connection, name):
        return False
    deadline = time.monotonic() + SLOT_S
    while True:
        # Who reads it holds it until its session has ended, which takes a moment.
        connection.execute(
            "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active_pid IS NOT NULL",
            (name,),
        )
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
        except errors.UndefinedObject:
            return True
        except errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
        else:
            return True
