# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a database what decides whether it can be moved. Changes nothing."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from ansible_collections.ascent.scaling.plugins.module_utils._motion import ledger, replication
from ansible_collections.ascent.scaling.plugins.module_utils._motion.plan import MARGIN
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import (
    Connection,
    Site,
)
from psycopg import sql
from psycopg.conninfo import make_conninfo

Facts = dict[str, Any]

_SETTINGS = (
    "server_version_num", "wal_level", "max_replication_slots", "max_wal_senders",
    "max_logical_replication_workers", "max_worker_processes", "max_slot_wal_keep_size",
    "max_prepared_transactions", "default_table_access_method",
)  # fmt: skip

# The application's own objects: neither the system's, nor an extension's, nor the move's.
_OURS = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema', 'ascent_move')"
    " AND n.nspname !~ '^pg_(toast|temp)' AND NOT EXISTS"
    " (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"
    " AND d.deptype = 'e')"
)
_RELATIONS = (
    "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE " + _OURS + " AND "
)

# Each one row a finding's detail; read in one transaction, so that they fit together.
_LISTS = {
    "tables": _RELATIONS + "c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1",
    "unlogged": _RELATIONS + "c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1",
    "foreign_tables": _RELATIONS + "c.relkind = 'f' ORDER BY 1",
    "views_with_data": _RELATIONS + "c.relkind = 'm' ORDER BY 1",
    "row_security": _RELATIONS + "c.relrowsecurity ORDER BY 1",
    "row_security_forced": _RELATIONS + "c.relrowsecurity AND c.relforcerowsecurity ORDER BY 1",
    "bypassing": "SELECT rolname FROM pg_roles WHERE rolsuper OR rolbypassrls ORDER BY 1",
    # Sequences that a jump brings to their end, with how many values each has left.
    "short_sequences": (
        "SELECT format('%I.%I (%s left)', schemaname, sequencename, room) FROM (SELECT *,"
        " (CASE WHEN increment_by > 0 THEN max_value - coalesce(last_value, start_value)"
        " ELSE coalesce(last_value, start_value) - min_value END) / abs(increment_by) AS room"
        " FROM pg_sequences WHERE schemaname <> 'ascent_move' AND NOT cycle) AS s"
        f" WHERE room < 10 * {MARGIN} ORDER BY 1"
    ),
    "extensions": "SELECT extname || ' ' || extversion FROM pg_extension ORDER BY 1",
    "available": "SELECT name || ' ' || version FROM pg_available_extension_versions ORDER BY 1",
    "offered": (
        "SELECT name || ' ' || default_version FROM pg_available_extensions"
        " WHERE default_version IS NOT NULL ORDER BY 1"
    ),
    "roles": "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1",
    "superusers": "SELECT rolname FROM pg_roles WHERE rolsuper ORDER BY 1",
    # Owners, and whoever has been granted something, on tables and the like, schemas, functions.
    "needed_roles": (
        "SELECT DISTINCT pg_get_userbyid(oid) FROM ("
        " SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE {_OURS} UNION"
        " SELECT (aclexplode(c.relacl)).grantee FROM pg_class c"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS} UNION"
        " SELECT n.nspowner FROM pg_namespace n WHERE n.nspname !~ '^(pg_|ascent_move$)'"
        "   AND n.nspname <> 'information_schema' UNION"
        " SELECT (aclexplode(n.nspacl)).grantee FROM pg_namespace n"
        "   WHERE n.nspname !~ '^(pg_|ascent_move$)' AND n.nspname <> 'information_schema' UNION"
        " SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
        "   WHERE n.nspname !~ '^(pg_|ascent_move$)' AND n.nspname <> 'information_schema'"
        "   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"
        ") AS who (oid) WHERE oid <> 0 AND pg_get_userbyid(oid) !~ '^pg_' ORDER BY 1"
    ),
    # A table without a key is compared row by row as a whole: what cannot be compared stops it.
    "incomparable": (
        "SELECT DISTINCT format('%I.%I (%s)', n.nspname, c.relname, t.typname) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid"
        " JOIN pg_type t ON t.oid = a.atttypid WHERE " + _OURS + " AND c.relkind = 'r'"
        " AND c.relpersistence = 'p' AND a.attnum > 0 AND NOT a.attisdropped"
        " AND t.typname IN ('json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon',"
        " 'circle') AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid"
        " AND x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL"
        " AND x.indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_attribute k"
        " WHERE k.attrelid = c.oid AND k.attnum = ANY(x.indkey) AND NOT k.attnotnull)) ORDER BY 1"
    ),
    "always_triggers": (
        "SELECT format('%I on %s', tgname, tgrelid::regclass) FROM pg_trigger"
        " WHERE NOT tgisinternal AND tgenabled IN ('A', 'R') ORDER BY 1"
    ),
    "event_triggers": (
        "SELECT evtname FROM pg_event_trigger WHERE evtname !~ '^ascent_move_' ORDER BY 1"
    ),
    "virtual_columns": (
        "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE " + _OURS + " AND a.attgenerated = 'v' ORDER BY 1"
    ),
    "collations": (
        "SELECT DISTINCT format('%I.%I', cn.nspname, o.collname) FROM pg_attribute a"
        " JOIN pg_collation o ON o.oid = a.attcollation JOIN pg_namespace cn"
        " ON cn.oid = o.collnamespace JOIN pg_class c ON c.oid = a.attrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE " + _OURS + " AND a.attnum > 0"
        " AND cn.nspname = 'pg_catalog' ORDER BY 1"
    ),
    "known_collations": (
        "SELECT format('pg_catalog.%I', collname) FROM pg_collation"
        " WHERE collnamespace = 'pg_catalog'::regnamespace"
        " AND collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding())) ORDER BY 1"
    ),
    "prepared": (
        "SELECT format('%s of %s, since %s', gid, owner, prepared::timestamptz(0))"
        " FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared"
    ),
    "locks": (
        "SELECT format('process %s of %s on %s: %s', a.pid, a.usename, l.relation::regclass,"
        " left(a.query, 120)) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.mode IN ('AccessExclusiveLock', 'ShareUpdateExclusiveLock')"
        " AND l.locktype = 'relation' AND a.backend_type = 'client backend'"
        " AND a.application_name <> 'ascent_mover' AND l.relation >= 16384"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " ORDER BY 1"
    ),
    "role_settings": (
        "SELECT format('%s: %s', coalesce(pg_get_userbyid(nullif(setrole, 0)), 'every role'),"
        " array_to_string(setconfig, ', ')) FROM pg_db_role_setting"
        " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " ORDER BY 1"
    ),
}


def read(connection: Connection) -> Facts:
    """What there is to know of one side; lists are of texts that a user can read."""
    found: Facts = {}
    before = time.time()
    with connection.transaction():
        row = connection.execute(
            "SELECT current_database(), extract(epoch FROM clock_timestamp())::float8,"
            " pg_is_in_recovery(), pg_encoding_to_char(encoding), datcollate, datctype,"
            " pg_database_size(oid), current_user,"
            " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),"
            " (SELECT count(*) FROM pg_largeobject_metadata),"
            " (SELECT count(*) FROM pg_replication_slots WHERE slot_name !~ '^ascent_'),"
            " (SELECT count(*) FROM pg_stat_replication WHERE application_name !~ '^ascent_'),"
            " (SELECT system_identifier::text FROM pg_control_system()),"
            " datacl IS NULL OR EXISTS (SELECT FROM aclexplode(datacl)"
            " WHERE grantee = 0 AND privilege_type = 'CONNECT')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        assert row is not None
        names = (
            "database", "clock", "in_recovery", "encoding", "collate", "ctype", "bytes", "user",
            "superuser", "large_objects", "slots", "senders", "system", "open_to_all",
        )  # fmt: skip
        found.update(zip(names, row, strict=True))
        found["clock_off_s"] = found["clock"] - (before + time.time()) / 2
        found["settings"] = dict(
            connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(_SETTINGS),)
            ).fetchall()
        )
        for name, query in _LISTS.items():
            found[name] = [line[0] for line in connection.execute(query.encode())]
        found["transactions"] = [
            {"pid": pid, "user": who, "seconds": float(age), "query": " ".join(text.split())}
            for pid, who, age, text in connection.execute(
                "SELECT pid, usename, extract(epoch FROM clock_timestamp() - xact_start),"
                " left(query, 120) FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND xact_start IS NOT NULL"
                " AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 10"
            )
        ]
        found["sessions"] = [
            {
                "user": who,
                "roles": roles,
                "address": address or "local",
                "application": name,
                "count": count,
            }
            for who, roles, address, name, count in connection.execute(
                "SELECT usename, array(SELECT rolname::text FROM pg_roles r"
                " WHERE pg_has_role(usesysid, r.oid, 'MEMBER')),"
                " host(client_addr), application_name, count(*)"
                " FROM pg_stat_activity WHERE datname = current_database() AND usesysid IS NOT NULL"
                " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                " GROUP BY usename, usesysid, 3, 4 ORDER BY 1, 3, 4"
            )
        ]
    # Of the database's own collation; none for those that never change, such as C.
    found["collation_version"] = None
    if connection.info.server_version >= 150000:
        row = connection.execute(
            "SELECT pg_database_collation_actual_version(oid) FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
        found["collation_version"] = row[0] if row else None
    found["keyless"] = replication.keyless(connection)
    found["copied"] = ledger.noted(connection, "schema") is not None
    found["move"] = ledger.noted(connection, "move")
    return found


def wal_rate(connection: Connection, seconds: float = 1.0) -> float:
    """How much WAL a primary writes at this moment, in bytes a second; takes `seconds`."""
    position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
    began = time.monotonic()
    (before,) = connection.execute(position).fetchone() or (0,)
    time.sleep(seconds)
    (after,) = connection.execute(position).fetchone() or (0,)
    return float(after - before) / (time.monotonic() - began)


def reaches(subscriber: Connection, publisher: Site) -> str:
    """Have one server log in at the other as a subscriber; returns why not, or nothing.

    The subscription that it takes is rolled back before it is there.
    """
    name = f"{ledger.SCHEMA}_tries_{publisher.name}"
    try:
        with subscriber.transaction(force_rollback=True):
            subscriber.execute("SET LOCAL client_min_messages = error")
            subscriber.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION ascent_move_tries"
                    " WITH (create_slot = false, enabled = false, copy_data = false)"
                ).format(
                    sql.Identifier(name),
                    sql.Literal(make_conninfo(**{"connect_timeout": 5, **publisher.replication})),
                )
            )
    except psycopg.Error as error:
        return str(error).strip().splitlines()[0]
    return ""
