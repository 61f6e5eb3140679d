"""The schema is frozen while a database moves, with an error that says why and what to do."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.unit.plugins.module_utils._motion.conftest import Bench


def as_owner(bench: Bench, statement: str) -> None:
    """As whoever migrates the schema, without knowing of the move."""
    server = bench.where()
    with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE later (id int)",
        "ALTER TABLE ledger ADD COLUMN more text",
        "DROP TABLE log CASCADE",
        "CREATE INDEX later ON ledger (note)",
        "CREATE INDEX CONCURRENTLY later ON ledger (note)",
        "DROP INDEX CONCURRENTLY ledger_note",
        "CREATE FUNCTION later() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT 1 AS id INTO later",
    ],
)
def test_a_change_of_the_schema_is_refused(bench: Bench, statement: str) -> None:
    with pytest.raises(psycopg.errors.ObjectInUse, match="is being moved") as refused:
        as_owner(bench, statement)
    assert "change_schema.yml" in str(refused.value.diag.message_hint)
    assert bench.where().execute("SELECT to_regclass('later'), to_regproc('later')") == [
        (None, None)
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE t AS SELECT 1; DROP TABLE t",
        "CREATE TEMPORARY TABLE t (id serial PRIMARY KEY); CREATE INDEX ON t (id)",
        "CREATE TABLE IF NOT EXISTS ledger (id int)",
        "DROP TABLE IF EXISTS nothing",
        "VACUUM ANALYZE ledger",
        "REFRESH MATERIALIZED VIEW numbers_seen",
        "SET ascent_move.allow = on; CREATE TABLE t (id int); DROP TABLE t",
    ],
)
def test_what_concerns_nobody_else_goes_on(bench: Bench, statement: str) -> None:
    for part in [statement] if "VACUUM" in statement else [f"BEGIN; {statement}; COMMIT"]:
        as_owner(bench, part)


def test_a_void_door_never_opens_and_an_open_one_is_never_void(bench: Bench) -> None:
    def ask(statement: str, *values: Any) -> Any:
        return bench.where().execute(statement, *values)[0][0]

    assert ask("SELECT ascent_move.door_state('never', false)") == "closed"
    assert ask("SELECT ascent_move.door_state('never', true)") == "void"
    assert ask("SELECT ascent_move.door_state('never', false)") == "void"
    bench.where().execute(
        "INSERT INTO ascent_move.door VALUES ('over', 0, now() - interval '1 s'),"
        " ('wide', 0, now() + interval '1 h')"
    )
    assert ask("SELECT ascent_move.door_state('over', false)") == "void"
    assert ask("SELECT ascent_move.door_state('wide', false)") == "closed"
    bench.where().execute("UPDATE ascent_move.door SET opened_at = now() WHERE attempt = 'wide'")
    assert ask("SELECT ascent_move.door_state('wide', true)") == "opened"
    with pytest.raises(psycopg.errors.CheckViolation):
        bench.where().execute(
            "UPDATE ascent_move.door SET opened_at = now() WHERE attempt = 'never'"
        )


def test_the_guards_role_can_do_nothing_else(bench: Bench) -> None:
    server = bench.where()
    with psycopg.connect(**server.conninfo("ascent_guard"), autocommit=True) as guard:
        for statement in (
            "SELECT * FROM ledger",
            "UPDATE ascent_move.door SET opened_at = now()",
            "INSERT INTO ascent_move.attempt (id, peer, roles) VALUES ('x', 'y', '{postgres}')",
            "SELECT * FROM ascent_move.attempt",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                guard.execute(statement.encode())
        # What it may: ask, and end an attempt; one that is not there opens nobody's door.
        row = guard.execute("SELECT ascent_move.give_up('no such', true, '')").fetchone()
    assert row == ("aborted",)
