"""What is found before a move, from facts alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion.preflight import (
    Asked,
    Finding,
    findings,
    of_the_source,
    wal_room,
)

SETTINGS = {
    "server_version_num": "170005", "wal_level": "logical", "max_replication_slots": "10",
    "max_wal_senders": "10", "max_logical_replication_workers": "4", "max_worker_processes": "8",
    "max_slot_wal_keep_size": "-1",
}  # fmt: skip
EMPTY: dict[str, Any] = {
    "database": "shop", "system": "1", "clock_off_s": 0.01, "in_recovery": False,
    "encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C.UTF-8", "bytes": 10**9,
    "superuser": True, "large_objects": 0, "slots": 0, "senders": 0, "settings": SETTINGS,
    "tables": [],
    "unlogged": [], "foreign_tables": [], "views_with_data": [], "row_security": [],
    "row_security_forced": [], "bypassing": ["postgres", "ascent_replication"],
    "short_sequences": [], "extensions": ["plpgsql 1.0"], "available": ["plpgsql 1.0"],
    "offered": ["plpgsql 1.0"], "collation_version": None,
    "roles": ["postgres", "shop", "shop_a"], "superusers": ["postgres"], "user": "postgres",
    "open_to_all": False,
    "needed_roles": ["shop"], "incomparable": [], "always_triggers": [], "event_triggers": [],
    "virtual_columns": [], "collations": ["pg_catalog.default"],
    "known_collations": ["pg_catalog.default"], "prepared": [], "locks": [], "role_settings": [],
    "transactions": [], "sessions": [], "keyless": {}, "copied": False,
    "move": None,
}  # fmt: skip
ASKED = Asked(roles=["shop"], poolers=["127.0.0.1"], reads_as="ascent_replication")


SESSION = {"address": "10.0.0.9", "application": "x", "count": 2}


def found(source: dict[str, Any], target: dict[str, Any], asked: Asked = ASKED) -> list[Finding]:
    def side(system: str, changes: dict[str, Any]) -> dict[str, Any]:
        facts = {**copy.deepcopy(EMPTY), "system": system}
        facts["settings"] |= changes.pop("settings", {})
        return {**facts, **changes}

    base = {"tables": ["public.orders"]}
    return findings(side("1", {**base, **source}), side("2", dict(target)), asked)


def test_what_fits_has_no_findings() -> None:
    assert found({}, {}) == []
    assert found({"row_security": ["public.r"], "row_security_forced": ["public.r"]}, {}) == []


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ({}, {"system": "1"}, "the same database"),
        ({}, {"settings": {"server_version_num": "150010"}}, r"target is older \(PostgreSQL 15\)"),
        ({}, {"tables": ["public.x"]}, "target is not empty: it has public.x"),
        ({}, {"in_recovery": True}, "target is a standby"),
        ({"settings": {"wal_level": "replica"}}, {}, "wal_level is replica at the source"),
        ({}, {"settings": {"wal_level": "replica"}}, "rds.logical_replication = 1"),
        ({"slots": 9}, {}, "9 of 10 replication slots"),
        ({"senders": 9}, {}, "source has 9 of 10 WAL senders in use"),
        (
            {},
            {"settings": {"max_logical_replication_workers": "0"}},
            "max_logical_replication_workers is 0 at the target",
        ),
        ({}, {"settings": {"max_worker_processes": "1"}}, "max_worker_processes is 1 at the"),
        ({}, {"encoding": "LATIN1"}, "the target's LATIN1"),
        ({"collations": ["pg_catalog.sv_SE"]}, {}, "does not have: pg_catalog.sv_SE"),
        ({"large_objects": 3}, {}, "3 large objects"),
        ({"unlogged": ["public.u"]}, {}, "arrive empty: public.u"),
        ({"incomparable": ["public.t (json)"]}, {}, "change json to jsonb"),
        ({"always_triggers": ["a on t"]}, {}, "act twice: a on t"),
        ({"needed_roles": ["shop", "report"]}, {}, "lacking at the target: report"),
        ({"roles": ["postgres"]}, {}, "The source has no role shop"),
        (
            {"needed_roles": []},
            {"roles": ["postgres"]},
            "The target has no role shop. Create it there",
        ),
        (
            {"row_security": ["public.r"], "bypassing": ["postgres"]},
            {},
            "would hide rows of public.r from ascent_replication",
        ),
        (
            {"row_security": ["public.r"], "row_security_forced": ["public.r"]},
            {"user": "master"},
            "NO FORCE ROW LEVEL SECURITY",
        ),
        ({"open_to_all": True}, {}, "REVOKE CONNECT ON DATABASE … FROM PUBLIC"),
        ({"extensions": ["plpgsql 1.0", "postgis 3.5"]}, {}, "cannot have .*: postgis 3.5"),
        ({"settings": {"max_slot_wal_keep_size": "0"}}, {}, "loses its way at once"),
        ({"prepared": ["gid of shop"]}, {}, "Prepared transactions are open: gid"),
        (
            {"transactions": [{"pid": 7, "user": "x", "seconds": 61.0, "query": "SELECT 1"}]},
            {},
            r"process 7 of x \(61 s\): SELECT 1",
        ),
        ({"locks": ["process 7"]}, {}, "schema is being changed: process 7"),
        (
            {"sessions": [{**SESSION, "user": "shop_a", "roles": ["shop_a", "shop"]}]},
            {},
            "2 of shop_a from 10.0.0.9",
        ),
    ],
)
def test_what_would_hurt_stops_it(source: dict[str, Any], target: Any, told: str) -> None:
    import re

    stopping = [finding for finding in found(source, target) if finding.stops]
    assert len(stopping) == 1, stopping
    assert re.search(told, str(stopping[0])), stopping[0]
    assert stopping[0].remedy


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ({"clock_off_s": -61.0}, {}, "clock of the source is -61 s off"),
        ({"collate": "de_DE.UTF-8"}, {}, "sorts by de_DE.UTF-8"),
        (
            {"collation_version": "2.36"},
            {"collation_version": "2.41"},
            "version 2.36 of its rules, the target by 2.41",
        ),
        (
            {"extensions": ["plpgsql 1.0", "pgcrypto 1.3"]},
            {"offered": ["plpgsql 1.0", "pgcrypto 1.4"], "available": ["pgcrypto 1.4"]},
            "another version at the target: pgcrypto 1.3 becomes 1.4$",
        ),
        ({"foreign_tables": ["public.f"]}, {}, "copied as definitions: public.f"),
        ({"views_with_data": ["public.m"]}, {}, "made anew at the target: public.m"),
        ({"keyless": {"public.k": None, "public.u": "u_key"}}, {}, "IDENTITY FULL: public.k$"),
        ({"short_sequences": ["public.s (7 left)"]}, {}, r"near their end: public.s \(7 left\)"),
        ({"event_triggers": ["e"]}, {}, "Event triggers are copied: e"),
        (
            {"sessions": [{**SESSION, "user": "bi", "roles": ["bi"]}]},
            {},
            "stay at the source after the switch: bi from 10.0.0.9",
        ),
    ],
)
def test_what_is_only_told(source: dict[str, Any], target: Any, told: str) -> None:
    import re

    [finding] = found(source, target)
    assert not finding.stops
    assert re.search(told, finding.what), finding


def test_a_disk_that_is_too_small_is_refused() -> None:
    [finding] = found({}, {}, Asked(["shop"], ["127.0.0.1"], room_bytes=10**9))
    assert finding.stops
    assert "1.0 GB of room" in finding.what
    assert not found({}, {}, Asked(["shop"], ["127.0.0.1"], room_bytes=2 * 10**9))

    source = {**copy.deepcopy(EMPTY), "tables": ["public.orders"]}
    asked = Asked(["shop"], ["127.0.0.1"], room_bytes=10**9)
    assert [finding.stops for finding in of_the_source(source, asked)] == [True]


@pytest.mark.parametrize(
    ("kept", "rate", "refused"),
    [("-1", 1e9, False), ("1024", 5e6, False), ("1024", 20e6, True), ("0", 1e9, False)],
)
def test_a_copy_that_outlives_the_wal_that_is_kept_is_refused(
    kept: str, rate: float, refused: bool
) -> None:
    found = wal_room({"settings": {"max_slot_wal_keep_size": kept}}, 100, rate)
    assert [finding.stops for finding in found] == [True] * refused
    if refused:
        assert "2.0 GB of WAL are written" in found[0].what
        assert "keeps 1.0 GiB (max_slot_wal_keep_size)" in found[0].what


def test_long_lists_are_cut() -> None:
    [finding] = found({"unlogged": [f"public.t{number}" for number in range(12)]}, {})
    assert "public.t9 and 2 more" in finding.what


def test_the_source_alone_is_looked_at_before_there_is_a_target() -> None:
    source = {**copy.deepcopy(EMPTY), "tables": ["public.orders"]}
    assert of_the_source(source, ASKED) == []
    source |= {"large_objects": 3, "open_to_all": True, "prepared": ["x of shop"], "roles": []}
    source["settings"] = {**SETTINGS, "wal_level": "replica", "max_slot_wal_keep_size": "0"}
    told = " ".join(str(finding) for finding in of_the_source(source, ASKED))
    for words in (
        "3 large objects", "Everyone may connect", "Prepared transactions", "has no role shop",
        "wal_level is replica", "loses its way at once",
    ):  # fmt: skip
        assert words in told
