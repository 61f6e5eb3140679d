"""The comparison of two sides that are written to, and what it finds."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion import replication
from ansible_collections.ascent.scaling.plugins.module_utils._motion.verify import (
    Query,
    Verification,
    Verifier,
    judge,
)

from tests.unit.plugins.module_utils._motion.conftest import Bench


@pytest.mark.parametrize(
    ("first", "there", "again", "differs", "moving"),
    [
        ({"1": 5}, {"1": 5}, {"1": 5}, {}, set()),
        ({"1": 5}, {}, {"1": 5}, {"1": "missing"}, set()),
        ({}, {"1": 5}, {}, {"1": "extra"}, set()),
        ({"1": 5}, {"1": 6}, {"1": 5}, {"1": "different"}, set()),
        # Written after the first look: there in time, or not yet.
        ({}, {"1": 5}, {"1": 5}, {}, set()),
        ({}, {}, {"1": 5}, {}, {"1"}),
        # Changed meanwhile: the new value is there, the old one still, or one in between.
        ({"1": 5}, {"1": 6}, {"1": 6}, {}, set()),
        ({"1": 5}, {"1": 5}, {"1": 6}, {}, {"1"}),
        ({"1": 5}, {"1": 7}, {"1": 6}, {}, {"1"}),
        # Deleted meanwhile.
        ({"1": 5}, {}, {}, {}, set()),
        ({"1": 5}, {"1": 5}, {}, {}, {"1"}),
    ],
)
def test_what_is_under_way_is_no_difference(
    first: dict[str, Any],
    there: dict[str, Any],
    again: dict[str, Any],
    differs: dict[str, str],
    moving: set[str],
) -> None:
    assert judge(first, there, again) == (differs, moving)


def verified(bench: Bench, sample: int | None = None) -> Verification:
    standing = bench.settle()
    with standing.here.connect() as source, standing.there.connect() as target:
        names = (standing.here.name, standing.there.name)
        return Verifier(source, target, names, sample=sample).run(replication.tables(source))


def test_two_sides_under_writes_are_the_same(bench: Bench) -> None:
    with bench.writers() as writers:
        time.sleep(0.5)
        found = verified(bench)
        time.sleep(0.2)
    assert writers.acknowledged
    assert found.clean, found.findings()
    assert found.tables["public.ledger"].rows > 0


def test_a_sample_finds_what_is_lost_in_bulk_and_says_that_it_is_one(bench: Bench) -> None:
    standing = bench.settle()
    here, there = bench.servers[standing.here.name], bench.servers[standing.there.name]
    here.execute("INSERT INTO ledger SELECT 98, generate_series(1, 60000), 'x'")
    try:
        with bench.writers() as writers:
            time.sleep(0.3)
            found = verified(bench, sample=1000)
            assert found.clean, found.findings()
            assert found.sampled
            assert found.tables["public.ledger"].rows >= 60_000
            # What is small, or has no key, is compared as a whole.
            assert not found.tables["public.log"].sampled
            assert not verified(bench).sampled

        assert not writers.failures
        # The newest rows, whatever the chance; then one in twenty of all; then only the number.
        for accident, told in (
            ("seq BETWEEN 59990 AND 60000", r'row \["98", "599'),
            ("seq % 20 = 0", r'row \["98", "'),
            ("seq = 30001", r"public.ledger: \d+ rows are at .*, and \d+ at "),
        ):
            there.execute(f"DELETE FROM ledger WHERE worker = 98 AND {accident}")
            found = verified(bench, sample=1000)
            assert not found.clean
            assert any(re.search(told, line) for line in found.findings()), found.findings()
            there.execute(
                "INSERT INTO ledger SELECT 98, seq, 'x' FROM generate_series(1, 60000) seq"
                f" WHERE {accident}"
            )
        assert verified(bench, sample=1000).clean
    finally:
        here.execute("DELETE FROM ledger WHERE worker = 98")
        verified(bench)


def test_rows_are_asked_for_by_their_keys_whatever_the_columns_are_called(bench: Bench) -> None:
    standing = bench.settle()
    here = bench.servers[standing.here.name]
    here.execute(
        'SET ascent_move.allow = on; CREATE SCHEMA odd; CREATE TABLE odd.names (asked bytea, "Ä b"'
        ' timestamptz, item numeric(9,2), t uuid, PRIMARY KEY (asked, "Ä b", item, t));'
        " INSERT INTO odd.names SELECT sha256(n::text::bytea), now() - n * interval '1 h', n / 7.0,"
        " gen_random_uuid() FROM generate_series(1, 3) n"
    )
    try:
        with standing.here.connect() as connection:
            query = Query.of(connection, "odd.names")
            keys = [row[0] for row in connection.execute(query.newest(2)).fetchall()]
            found = connection.execute(query.some(), {"keys": f"[{','.join(keys)}]"}).fetchall()
        assert sorted(row[0] for row in found) == sorted(keys)
        assert len(keys) == 2
    finally:
        here.execute("SET ascent_move.allow = on; DROP SCHEMA odd CASCADE")


@pytest.mark.parametrize(
    ("accident", "told"),
    [
        (
            "DELETE FROM ledger WHERE worker = 99 AND seq = 1",
            r'row \["99", "1"\] is at .*, but not',
        ),
        (
            "UPDATE ledger SET note = 'y' WHERE worker = 99 AND seq = 2",
            r'row \["99", "2"\] is anoth',
        ),
        ("INSERT INTO ledger VALUES (99, 9, 'z')", r'row \["99", "9"\] is at .*, but not at'),
        ("INSERT INTO log VALUES (99, 1)", r"public.log: a row with the hash .* is at .*, but not"),
        ("CREATE INDEX ON ledger (note)", r"index CREATE INDEX ledger_note_idx"),
    ],
)
def test_what_the_sides_do_not_share_is_told(bench: Bench, accident: str, told: str) -> None:
    standing = bench.settle()
    here, there = bench.servers[standing.here.name], bench.servers[standing.there.name]
    here.execute("INSERT INTO ledger SELECT 99, generate_series(1, 3), 'x' ON CONFLICT DO NOTHING")
    assert verified(bench).clean
    there.execute(accident)
    try:
        found = verified(bench)
        assert not found.clean
        assert any(re.search(told, line) for line in found.findings()), found.findings()
        assert len(found.findings()) == 1
    finally:
        there.execute("DROP INDEX IF EXISTS ledger_note_idx")
        there.execute("DELETE FROM log WHERE worker = 99")
        there.execute("DELETE FROM ledger WHERE worker = 99")
        there.execute("INSERT INTO ledger SELECT 99, generate_series(1, 3), 'x'")
    assert verified(bench).clean
