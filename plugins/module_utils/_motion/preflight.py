# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what would hurt a move, from the facts of both sides (pure), each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._motion.plan import MARGIN

Facts = dict[str, Any]

LONG_TRANSACTION_S = 60.0
CLOCK_OFF_S = 5.0
MOST_NAMED = 10


@dataclass(frozen=True)
class Finding:
    """Something that the user must know before a move.

    What `stops` is refused before anything is changed; the rest is told, and done.
    """

    stops: bool
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}"


@dataclass(frozen=True)
class Asked:
    """What the user asks for, as far as it decides.

    `roles` are those that the application's logins are members of, `poolers` the addresses that
    its sessions come from, `room_bytes` the free space of the target's disk, `reads_as` the login
    by which the target reads the source; the last two where they are known.
    """

    roles: Sequence[str]
    poolers: Sequence[str]
    allow_unlogged: bool = False
    room_bytes: int | None = None
    reads_as: str = ""


def findings(source: Facts, target: Facts, asked: Asked) -> list[Finding]:
    """All that is found, what stops the move first."""
    found = [
        *_servers(source, target),
        *_what_is_not_replicated(source, asked),
        *_roles(source, target, asked),
        *_extensions(source, target),
        *_room(source, asked),
        *_wal("source", source),
        *_wal("target", target),
        *_what_is_under_way(source, asked),
    ]
    return sorted(found, key=lambda finding: not finding.stops)


def of_the_source(source: Facts, asked: Asked) -> list[Finding]:
    """What is found at the source alone, before there is a target."""
    found = [
        *_server("source", source),
        *_what_is_not_replicated(source, asked),
        *_roles_of_the_source(source, asked),
        *_room(source, asked),
        *_wal("source", source),
        *_what_is_under_way(source, asked),
    ]
    return sorted(found, key=lambda finding: not finding.stops)


def under_way(source: Facts, asked: Asked) -> list[Finding]:
    """What stands in the way at this moment alone: for a move that has been begun."""
    return sorted(_what_is_under_way(source, asked), key=lambda finding: not finding.stops)


def _is_the_application(session: Facts, source: Facts, asked: Asked) -> bool:
    """Superusers, and who moves, are members of everything."""
    if session["user"] in (source["user"], *source["superusers"]):
        return False
    return bool(set(session["roles"]) & set(asked.roles))


def _names(items: Sequence[Any]) -> str:
    told = ", ".join(str(item) for item in items[:MOST_NAMED])
    return told + (f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else "")


def _setting(facts: Facts, name: str) -> int:
    return int(facts["settings"].get(name, 0))


def _servers(source: Facts, target: Facts) -> Iterator[Finding]:
    if (source["system"], source["database"]) == (target["system"], target["database"]):
        yield Finding(
            True,
            f"Source and target are the same database ({source['database']})",
            "Name another server as the target.",
        )
        return
    majors = [_setting(facts, "server_version_num") // 10000 for facts in (source, target)]
    if majors[1] < majors[0]:
        yield Finding(
            True,
            f"The target is older (PostgreSQL {majors[1]}) than the source ({majors[0]})",
            f"Use a target with PostgreSQL {majors[0]} or newer.",
        )
    if target["tables"] and not target["copied"]:
        yield Finding(
            True,
            f"The target is not empty: it has {_names(target['tables'])}",
            "Drop what is there, or use an empty database: nothing of it is removed by a move.",
        )
    yield from _server("source", source)
    yield from _server("target", target)
    if source["encoding"] != target["encoding"]:
        yield Finding(
            True,
            f"The source's encoding is {source['encoding']}, the target's {target['encoding']}",
            "Make the target's database with the source's encoding.",
        )
    if (source["collate"], source["ctype"]) != (target["collate"], target["ctype"]):
        yield Finding(
            False,
            f"The source sorts by {source['collate']}, the target by {target['collate']}",
            "Texts may come in another order. Make the target's database with the source's "
            "LC_COLLATE and LC_CTYPE if that matters.",
        )
    elif None not in (versions := [side["collation_version"] for side in (source, target)]) and (
        versions[0] != versions[1]
    ):
        yield Finding(
            False,
            f"Both sort by {source['collate']}, the source by version {versions[0]} of its rules, "
            f"the target by {versions[1]}",
            "Texts may come in another order. The copy builds every index anew by the target's "
            "rules: nothing is to be reindexed.",
        )
    lacking = [name for name in source["collations"] if name not in target["known_collations"]]
    if lacking:
        yield Finding(
            True,
            f"Columns use collations that the target does not have: {_names(lacking)}",
            "Install the locales there and run pg_import_system_collations(), or change the "
            "columns.",
        )


def _server(name: str, facts: Facts) -> Iterator[Finding]:
    if facts["in_recovery"]:
        yield Finding(True, f"The {name} is a standby, which takes no writes", "Name its primary.")
    if facts["settings"].get("wal_level") != "logical":
        yield Finding(
            True,
            f"wal_level is {facts['settings'].get('wal_level')} at the {name}",
            "Set wal_level = logical (on RDS rds.logical_replication = 1 in the parameter "
            "group) and restart it once: both sides send changes, one there, one back.",
        )
    if _setting(facts, "max_replication_slots") - facts["slots"] < 2:
        yield Finding(
            True,
            f"The {name} has {facts['slots']} of {_setting(facts, 'max_replication_slots')} "
            "replication slots in use; a move needs two",
            "Raise max_replication_slots (a restart), or drop slots that nobody uses.",
        )
    if _setting(facts, "max_wal_senders") - facts["senders"] < 2:
        yield Finding(
            True,
            f"The {name} has {facts['senders']} of {_setting(facts, 'max_wal_senders')} WAL "
            "senders in use; a move needs two",
            "Raise max_wal_senders (a restart).",
        )
    for setting in ("max_logical_replication_workers", "max_worker_processes"):
        if _setting(facts, setting) < 2:
            yield Finding(
                True,
                f"{setting} is {_setting(facts, setting)} at the {name}; a move needs two, one to "
                "copy and one to keep up to date",
                "Set it to 4 or more (a restart).",
            )
    if abs(facts["clock_off_s"]) > CLOCK_OFF_S:
        yield Finding(
            False,
            f"The clock of the {name} is {facts['clock_off_s']:+.0f} s off from this host's",
            "The move does not rest on it, but logs and times of rows will not fit: look at "
            "its time service.",
        )


def _what_is_not_replicated(source: Facts, asked: Asked) -> Iterator[Finding]:
    if source["large_objects"]:
        yield Finding(
            True,
            f"The source holds {source['large_objects']} large objects, which replication leaves "
            "out",
            "Move them into bytea columns or to S3 first (lo_get), and lo_unlink them.",
        )
    if source["unlogged"] and not asked.allow_unlogged:
        yield Finding(
            True,
            f"Unlogged tables would arrive empty: {_names(source['unlogged'])}",
            "ALTER TABLE … SET LOGGED, or say that they may (allow_unlogged: true).",
        )
    if source["incomparable"]:
        yield Finding(
            True,
            "These tables have no key, and a column that cannot be compared, so that changes to "
            f"their rows cannot be applied: {_names(source['incomparable'])}",
            "Give them a primary key, or change json to jsonb.",
        )
    if source["foreign_tables"]:
        yield Finding(
            False,
            f"Foreign tables are copied as definitions: {_names(source['foreign_tables'])}",
            "Make sure that the target reaches their servers.",
        )
    if source["views_with_data"]:
        yield Finding(
            False,
            f"Materialized views are made anew at the target: {_names(source['views_with_data'])}",
            "They are as old there as the moment before the switch.",
        )
    full = [name for name, index in source["keyless"].items() if index is None]
    if full:
        yield Finding(
            False,
            f"Tables without a key get REPLICA IDENTITY FULL: {_names(full)}",
            "Each change of a row searches the whole table at the target: give large ones a "
            "primary key.",
        )
    if source["always_triggers"]:
        yield Finding(
            True,
            "Triggers that also fire for replicated rows would act twice: "
            f"{_names(source['always_triggers'])}",
            "ALTER TABLE … ENABLE TRIGGER (neither ALWAYS nor REPLICA) for the time of the move.",
        )
    if source["event_triggers"]:
        yield Finding(
            False,
            f"Event triggers are copied: {_names(source['event_triggers'])}",
            "They need a superuser: on RDS make them by hand.",
        )
    if source["short_sequences"]:
        yield Finding(
            False,
            f"Sequences jump by {MARGIN:,} at each switch, and these come near their end: "
            f"{_names(source['short_sequences'])}",
            "Make them larger first (ALTER SEQUENCE … AS bigint MAXVALUE …, and their columns).",
        )
    if source["virtual_columns"]:
        yield Finding(
            False,
            f"Virtual columns are computed at the target: {_names(source['virtual_columns'])}",
            "Nothing is to be done.",
        )


def _roles(source: Facts, target: Facts, asked: Asked) -> Iterator[Finding]:
    lacking = [name for name in source["needed_roles"] if name not in target["roles"]]
    if lacking:
        yield Finding(
            True,
            f"Roles that own or may use something are lacking at the target: {_names(lacking)}",
            "Create them there, or take their rights away at the source.",
        )
    absent = [name for name in asked.roles if name not in target["roles"]]
    if absent:
        yield Finding(
            True,
            f"The target has no role {_names(absent)}",
            "Create it there, with its logins, and without CONNECT on the database.",
        )
    if source["row_security_forced"] and target["user"] not in target["bypassing"]:
        yield Finding(
            True,
            "Row-level security is forced for the owner, in whose name the target applies changes, "
            f"of {_names(source['row_security_forced'])}",
            "ALTER TABLE … NO FORCE ROW LEVEL SECURITY until the move is finished.",
        )
    yield from _roles_of_the_source(source, asked)


def _roles_of_the_source(source: Facts, asked: Asked) -> Iterator[Finding]:
    unknown = [name for name in asked.roles if name not in source["roles"]]
    if unknown:
        yield Finding(
            True,
            f"The source has no role {_names(unknown)}",
            "Name the roles that the application's logins are members of.",
        )
    if source["open_to_all"]:
        yield Finding(
            True,
            "Everyone may connect to the source's database, so it cannot be closed to the "
            "application alone",
            "Grant it to the roles that need it, then REVOKE CONNECT ON DATABASE … FROM PUBLIC.",
        )
    if source["row_security"] and asked.reads_as not in ("", *source["bypassing"]):
        yield Finding(
            True,
            f"Row-level security would hide rows of {_names(source['row_security'])} from "
            f"{asked.reads_as}, which copies them",
            f"ALTER ROLE {asked.reads_as} BYPASSRLS; where you may not, as on RDS, ALTER TABLE … "
            "DISABLE ROW LEVEL SECURITY until the move is finished.",
        )


def _extensions(source: Facts, target: Facts) -> Iterator[Finding]:
    available = {line.rsplit(" ", 1)[0] for line in target["available"]}
    known = {line.rsplit(" ", 1)[0] for line in target["extensions"]}
    lacking = [
        line for line in source["extensions"] if line.rsplit(" ", 1)[0] not in available | known
    ]
    if lacking:
        yield Finding(
            True,
            f"The target cannot have these extensions: {_names(lacking)}",
            "Install their packages there (on RDS choose a version that offers them), or drop "
            "them at the source.",
        )

    # A copy makes them by CREATE EXTENSION, without a version, where a role has not done so before.
    coming = dict(line.rsplit(" ", 1) for line in target["offered"] + target["extensions"])
    others = [
        f"{line} becomes {coming[name]}"
        for line in source["extensions"]
        for name, version in [line.rsplit(" ", 1)]
        if coming.get(name, version) != version
    ]
    if others:
        yield Finding(
            False,
            f"Extensions have another version at the target: {_names(others)}",
            "They are made anew there, so nothing is to be updated; read what is new in them.",
        )


def wal_room(source: Facts, seconds: float, rate: float) -> list[Finding]:
    """Whether the source keeps enough WAL for a copy of `seconds`, at `rate` bytes a second."""
    kept = _setting(source, "max_slot_wal_keep_size")
    if kept <= 0 or rate * seconds <= kept * 1_048_576:
        return []
    return [
        Finding(
            True,
            f"The copy takes about {seconds:.0f} s, in which about {rate * seconds / 1e9:.1f} GB "
            f"of WAL are written at the pace of now, and the source keeps {kept / 1024:.1f} GiB "
            "(max_slot_wal_keep_size)",
            "Raise that to what the disk can spare, or move when less is written.",
        )
    ]


def _room(source: Facts, asked: Asked) -> Iterator[Finding]:
    if asked.room_bytes is not None and asked.room_bytes < 1.5 * source["bytes"]:
        yield Finding(
            True,
            f"The target has {asked.room_bytes / 1e9:.1f} GB of room, and "
            f"{source['bytes'] / 1e9:.1f} GB are to be copied, with indexes and WAL half as much "
            "again",
            "Give it a larger disk.",
        )


def _wal(name: str, facts: Facts) -> Iterator[Finding]:
    if _setting(facts, "max_slot_wal_keep_size") == 0:
        yield Finding(
            True,
            f"max_slot_wal_keep_size is 0 at the {name}: a slow copy loses its way at once",
            "Set it to what the disk can spare, or to -1.",
        )


def _what_is_under_way(source: Facts, asked: Asked) -> Iterator[Finding]:
    if source["prepared"]:
        yield Finding(
            True,
            f"Prepared transactions are open: {_names(source['prepared'])}",
            "Commit or roll them back: they could be committed after the switch.",
        )
    long = [item for item in source["transactions"] if item["seconds"] > LONG_TRANSACTION_S]
    if long:
        yield Finding(
            True,
            "Transactions have been open for long, and a copy waits for all that are older than "
            "itself: "
            + _names(
                [
                    f"process {item['pid']} of {item['user']} ({item['seconds']:.0f} s): "
                    f"{item['query']}"
                    for item in long
                ]
            ),
            "Let them end, or end them (pg_terminate_backend).",
        )
    if source["locks"]:
        yield Finding(
            True,
            f"The schema is being changed: {_names(source['locks'])}",
            "Wait until that has ended.",
        )
    others = [
        f"{item['count']} of {item['user']} from {item['address']} ({item['application']})"
        for item in source["sessions"]
        if _is_the_application(item, source, asked) and item["address"] not in asked.poolers
    ]
    if others:
        yield Finding(
            True,
            f"Sessions of the application come from elsewhere than the poolers: {_names(others)}",
            "They would be cut off by the switch, and not be led to the target. Have them go "
            "through PgBouncer.",
        )
    strangers = sorted(
        {
            f"{item['user']} from {item['address']} ({item['application']})"
            for item in source["sessions"]
            if not _is_the_application(item, source, asked)
            and item["user"] not in source["superusers"]
            and not str(item["application"]).startswith("ascent_")
        }
    )
    if strangers:
        yield Finding(
            False,
            f"Sessions of other roles stay at the source after the switch: {_names(strangers)}",
            "What they write there is not moved: they must not write.",
        )
    if source["role_settings"]:
        yield Finding(
            False,
            "Settings of this database are set at the target, too: "
            f"{_names(source['role_settings'])}",
            "Nothing is to be done.",
        )
