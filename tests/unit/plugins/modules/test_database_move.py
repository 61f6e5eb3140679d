"""The module over two real servers: each state from nothing, again, back, and what it refuses."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion import replication
from ansible_collections.ascent.scaling.plugins.module_utils._motion.change import change
from ansible_collections.ascent.scaling.plugins.module_utils._motion.mover import (
    MoveError,
    Mover,
)
from ansible_collections.ascent.scaling.plugins.module_utils._motion.plan import (
    Impossible,
    Observed,
    steps,
)
from ansible_collections.ascent.scaling.plugins.modules import database_move

from tests.support.motion import ROLE, Server, Stage, Writers, folder, staged
from tests.support.postgres import binaries, pooler


def observed(**changes: Any) -> Observed:
    nothing = {
        "at": "origin", "prepared": False, "follows": False, "settled": True, "finished": False,
        "verified_s": None,
    }  # fmt: skip
    return Observed(**{**nothing, **changes})


# No row is written twice.
ROUNDS = itertools.count(100_000, 10_000)
COPIED = {"prepared": True, "follows": True}
MOVED = {**COPIED, "at": "other"}


@pytest.mark.parametrize(
    ("there", "wanted", "due"),
    [
        ({}, "copied", ["prepare", "copy"]),
        ({}, "switched", ["prepare", "copy", "verify", "switch", "settle"]),
        ({"prepared": True}, "verified", ["copy", "verify"]),
        (COPIED, "copied", []),
        ({**COPIED, "verified_s": 5.0}, "verified", []),
        ({**COPIED, "verified_s": 5.0}, "switched", ["switch", "settle"]),
        ({**COPIED, "verified_s": 500.0}, "switched", ["verify", "switch", "settle"]),
        ({**COPIED, "settled": False, "follows": False}, "copied", ["settle", "copy"]),
        (MOVED, "switched", []),
        (MOVED, "copied", []),
        ({**MOVED, "settled": False, "follows": False}, "switched", ["settle", "copy"]),
        (MOVED, "returned", ["verify", "switch", "settle"]),
        (COPIED, "returned", []),
        (MOVED, "finished", ["finish"]),
        ({**MOVED, "finished": True, "follows": False}, "finished", []),
        ({**MOVED, "finished": True, "follows": False}, "switched", []),
    ],
)
def test_what_is_left_to_do(there: dict[str, Any], wanted: Any, due: list[str]) -> None:
    assert steps(observed(**there), wanted, fresh_s=60) == due


@pytest.mark.parametrize(
    ("there", "wanted"),
    [(COPIED, "finished"), ({**MOVED, "finished": True}, "returned")],
)
def test_what_cannot_be(there: dict[str, Any], wanted: Any) -> None:
    with pytest.raises(Impossible):
        steps(observed(**there), wanted, fresh_s=60)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    if not binaries() or not pooler():
        pytest.skip("needs the packages postgresql and pgbouncer (make setup)")
    with folder() as directory, staged(directory / "stage") as stage:
        for host in stage.hosts:
            host.start_guard()
        yield stage


def params(stage: Stage, state: str, **changes: Any) -> dict[str, Any]:
    def side(name: str, server: Server) -> dict[str, Any]:
        return {
            "name": name, "host": "127.0.0.1", "port": server.port, "database": "shop",
            "user": "postgres", "password": "", "replication_user": "postgres",
            "replication_password": "", "sslmode": "disable",
        }  # fmt: skip

    found = {
        "state": state,
        "origin": side("box", stage.source),
        "other": side("db", stage.target),
        "roles": [ROLE],
        "poolers": [host.name for host in stage.hosts],
        "pooler_addresses": ["127.0.0.1"],
        # Ample, as these tests share their processors with others.
        "max_pause": 10.0,
        "verified_within": 3600,
        "compare": "full",
        "sample_rows": 20_000,
        "patience": 30,
        "allow_unlogged": False,
        "room_mb": None,
        "backup": "",
    }
    for key, value in changes.items():
        if isinstance(value, dict):
            found[key] = {**found[key], **value}
        else:
            found[key] = value
    return found


def tables(server: Server) -> list[Any]:
    return server.execute("SELECT relname, relnamespace FROM pg_class ORDER BY 1, 2")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"other": {"port": None}}, "the same database"),
        ({"other": {"port": 1}}, r"Cannot log in to the side db \(127.0.0.1:1"),
        ({"other": {"database": "nowhere"}}, 'database "nowhere" does not exist'),
        ({"origin": {"user": "nobody"}}, 'role "nobody" does not exist'),
        ({"roles": ["shop_x"]}, "has no role shop_x"),
        ({"room_mb": 1}, "GB of room"),
        ({"other": {"replication_user": "nobody"}}, "box cannot log in at db as a subscriber"),
        ({"pooler_addresses": ["10.0.0.9"]}, "from elsewhere than the poolers"),
    ],
)
def test_bad_input_changes_nothing(stage: Stage, change: dict[str, Any], told: str) -> None:
    if change.get("other", {}).get("port", 0) is None:
        change = {"other": {"port": stage.source.port}}
    before = tables(stage.source), tables(stage.target)
    with (
        Writers(stage.ports, count=2, rate=20, first=next(ROUNDS)) as writers,
        pytest.raises((database_move.Refused, MoveError), match=told),
    ):
        deadline = time.monotonic() + 10
        while not writers.acknowledged and time.monotonic() < deadline:
            time.sleep(0.05)
        database_move.run(params(stage, "switched", **change), dry=False)
    assert (tables(stage.source), tables(stage.target)) == before


@pytest.mark.parametrize(
    ("trouble", "told", "remedy"),
    [
        ("CREATE UNLOGGED TABLE t (id int)", "public.t", "DROP TABLE t"),
        ("SELECT lo_create(4711)", "large objects", "SELECT lo_unlink(4711)"),
        ("CREATE TABLE t (j json)", r"public.t \(json\)", "DROP TABLE t"),
        (
            "CREATE ROLE owner; CREATE TABLE t (id int); ALTER TABLE t OWNER TO owner",
            "lacking at the target: owner",
            "DROP TABLE t; DROP ROLE owner",
        ),
    ],
)
def test_what_would_be_lost_is_found_first(
    stage: Stage, trouble: str, told: str, remedy: str
) -> None:
    stage.source.execute(trouble)
    try:
        with pytest.raises(database_move.Refused, match=told):
            database_move.run(params(stage, "copied"), dry=True)
    finally:
        stage.source.execute(remedy)


def test_rows_that_row_level_security_hides_are_not_left_behind(stage: Stage) -> None:
    stage.source.execute(
        "CREATE ROLE reader LOGIN REPLICATION; GRANT CONNECT ON DATABASE shop TO reader;"
        f"SET ROLE {ROLE}; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);"
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY"
    )
    asked = params(stage, "copied", origin={"replication_user": "reader"})
    try:
        with pytest.raises(database_move.Refused, match=r"hide rows of public.t from reader"):
            database_move.run(asked, dry=True)
        stage.source.execute("ALTER ROLE reader BYPASSRLS")
        assert database_move.run(asked, dry=True)["due"] == ["prepare", "copy"]
        # Nor does a comparison by such a login take what it is shown for all there is.
        stage.source.execute("ALTER ROLE reader NOBYPASSRLS; GRANT SELECT ON t TO reader")
        given = params(stage, "copied", origin={"user": "reader"})["origin"]
        with (
            database_move.site(given).connect() as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
        ):
            connection.execute("SELECT count(*) FROM t")
    finally:
        stage.source.execute("DROP TABLE t; DROP OWNED BY reader; DROP ROLE reader")


def test_before_there_is_another_server_there_is_a_look_at_the_first(stage: Stage) -> None:
    alone = {**params(stage, "switched"), "other": None}
    ahead = database_move.run(alone, dry=True)
    assert ahead["bytes"] > 1_000_000
    assert any("copy 3 tables" in line for line in ahead["steps"])
    with pytest.raises(database_move.Refused, match="there is only a look"):
        database_move.run(alone, dry=False)
    stage.source.execute("SELECT lo_create(4711)")
    try:
        with pytest.raises(database_move.Refused, match="1 large objects"):
            database_move.run(alone, dry=True)
    finally:
        stage.source.execute("SELECT lo_unlink(4711)")


def change_the_schema(stage: Stage) -> None:
    """While the database is at `db`: a new column and table, and a column less, under writers."""
    given = params(stage, "switched")

    def apply(statements: str, takes_away: bool = False, dry: bool = False) -> list[str]:
        mover = Mover(database_move.site(given["origin"]), database_move.site(given["other"]))
        return change(mover, statements, ROLE, takes_away, dry)

    more = (
        "ALTER TABLE counters ADD COLUMN note text NOT NULL DEFAULT 'x'; CREATE TABLE more (id int)"
    )
    told = ["would be changed: box, which follows", "would be changed: db, which serves"]
    assert apply(more, dry=True) == told
    assert apply(more) == ["box, which follows, is changed", "db, which serves, is changed"]
    assert apply(more) == []
    stage.target.execute("INSERT INTO more VALUES (4711)")
    eventually(lambda: stage.source.execute("SELECT id FROM more") == [(4711,)])
    assert stage.source.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'more'") == [
        (ROLE,)
    ]
    with pytest.raises(MoveError, match=r"box, which follows, refused the change: .* Nothing was"):
        apply("DROP TABLE nowhere")
    less = apply("ALTER TABLE counters DROP COLUMN note; DROP TABLE more", takes_away=True)
    assert less == ["db, which serves, is changed", "box, which follows, is changed"]


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def guessed(server: Server) -> list[Any]:
    """The application's tables of which the planner knows nothing."""
    return server.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND reltuples = -1"
        " AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )


def test_statistics_are_made_once_by_the_owner_of_the_database_who_is_no_superuser(
    stage: Stage,
) -> None:
    server = stage.target
    server.execute("CREATE ROLE master LOGIN", database="postgres")
    server.execute("CREATE DATABASE sold OWNER master", database="postgres")
    try:
        server.execute(
            "CREATE TABLE plain AS SELECT generate_series(1, 1000) AS id;"
            f"ALTER TABLE plain OWNER TO {ROLE};"
            "CREATE TABLE parted (id int) PARTITION BY RANGE (id);"
            "CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (10);"
            "INSERT INTO parted VALUES (1)",
            database="sold",
        )
        login = server.conninfo("master", "sold")
        with psycopg.connect(**login, autocommit=True) as connection:
            made = ["public.parted", "public.plain"]
            assert replication.analyze(connection) == (made, [])
            assert replication.analyze(connection) == ([], [])
            # Begun anew, as a copy is that was stuck: what was true of it before is so no more.
            server.execute("INSERT INTO plain SELECT generate_series(1, 9000)", database="sold")
            eventually(lambda: replication.analyze(connection) == (["public.plain"], []))
            server.execute("CREATE TABLE others ()", database="sold")
            server.execute("ALTER DATABASE sold OWNER TO postgres", database="postgres")
            assert replication.analyze(connection) == ([], ["public.others"])
    finally:
        server.execute("DROP DATABASE sold (FORCE)", database="postgres")
        server.execute("DROP ROLE master", database="postgres")


def test_a_slot_is_dropped_once_who_reads_it_has_ended(stage: Stage) -> None:
    """On a busy machine the session of a subscription that was just dropped lives on a moment."""
    server = stage.source
    server.execute("SELECT pg_create_logical_replication_slot('read', 'test_decoding')")
    programs = binaries()
    assert programs
    place = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", "shop"]
    reader = subprocess.Popen(
        [str(programs / "pg_recvlogical"), *place, "--slot=read", "--start", "-n", "-f", "-"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        holds = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'read'"
        eventually(lambda: server.execute(holds) != [(None,)])
        [(sender,)] = server.execute(holds)
        os.kill(sender, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (sender, signal.SIGCONT)).start()
        with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
            assert replication.drop_slot(connection, "read")
            assert not replication.drop_slot(connection, "read")
    finally:
        reader.kill()
        reader.wait()


def test_a_move_from_nothing_there_and_back_and_to_its_end(stage: Stage) -> None:
    plan = database_move.run(params(stage, "switched"), dry=True)
    assert plan["changed"]
    assert plan["at"] == "box"
    (copy,) = [line for line in plan["steps"] if "copy 3 tables" in line]
    assert re.search(r"about \d+ s at 16 MB/s; box keeps its WAL meanwhile, \d+ MB at the", copy)
    assert stage.source.execute("SELECT to_regnamespace('ascent_move')") == [(None,)]

    with Writers(stage.ports, rate=100, first=1000) as writers:
        time.sleep(0.3)
        moved = database_move.run(params(stage, "switched"), dry=False)
        assert moved["at"] == "db"
        assert moved["pause_ms"] < 10_000
        assert moved["verification"]["clean"]
        assert "3 tables of db are analyzed" in moved["steps"]
        assert guessed(stage.target) == []
        again = database_move.run(params(stage, "switched"), dry=False)
        assert not again["changed"], again
        sampled = params(stage, "verified", compare="sampled", sample_rows=10)
        assert database_move.run(sampled, dry=False)["verification"]["sampled"]
        assert not database_move.run(sampled, dry=False)["changed"]
        # Who wants all rows compared is not content with a sample of them.
        assert database_move.run(params(stage, "verified"), dry=True)["due"] == ["verify"]
        change_the_schema(stage)
        # As on RDS, where no role can freeze a schema.
        past = f"SET ascent_move.allow = on; SET ROLE {ROLE};"
        stage.target.execute(f"{past} CREATE TABLE stray (id int)")
        with pytest.raises(MoveError, match=r"box lacks public\.stray, which db has: .*change_sch"):
            database_move.run(params(stage, "returned"), dry=False)
        stage.target.execute(f"{past} DROP TABLE stray")
        time.sleep(0.3)
        back = database_move.run(params(stage, "returned"), dry=False)
        assert back["at"] == "box"
        assert not database_move.run(params(stage, "returned"), dry=False)["changed"]
        with pytest.raises(Impossible, match="at the source still"):
            database_move.run(params(stage, "finished", backup="b1"), dry=False)
        assert database_move.run(params(stage, "switched"), dry=False)["at"] == "db"
        with pytest.raises(database_move.Refused, match="without a verified backup"):
            database_move.run(params(stage, "finished"), dry=False)
        database_move.run(params(stage, "finished", backup="b1"), dry=False)
        assert not database_move.run(params(stage, "finished", backup="b1"), dry=False)["changed"]
        with pytest.raises(Impossible, match="is finished"):
            database_move.run(params(stage, "returned"), dry=False)
        time.sleep(0.3)
    assert not writers.failures
    assert not writers.lost(stage.target)
    assert stage.target.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]


def test_a_finished_move_is_in_the_way_of_no_other(stage: Stage) -> None:
    """What was moved to `db`, and finished, goes on from there: to a server that is empty again."""
    given = params(stage, "switched")
    onward = {**given, "origin": given["other"], "other": given["origin"]}
    with pytest.raises(database_move.Refused, match="target is not empty"):
        database_move.run(onward, dry=False)
    stage.source.execute(f"DROP OWNED BY {ROLE}; DROP SCHEMA ascent_move CASCADE")
    with Writers(stage.ports, rate=100, first=500_000) as writers:
        time.sleep(0.3)
        assert database_move.run(onward, dry=True)["at"] == "db"
        moved = database_move.run(onward, dry=False)
        assert moved["at"] == "box"
        assert not database_move.run(onward, dry=False)["changed"]
        time.sleep(0.3)
    assert not writers.failures
    assert not writers.lost(stage.source)
    # The move that was before it is not taken up again.
    with pytest.raises(MoveError, match="from db to box, is not finished"):
        database_move.run(params(stage, "switched"), dry=False)


def test_a_copy_that_can_never_end_says_where_to_look() -> None:
    """A constraint would refuse a row, had it been asked; or a crash has cut the copy off."""
    if not binaries() or not pooler():
        pytest.skip("needs the packages postgresql and pgbouncer (make setup)")
    with folder() as directory, staged(directory / "stage", poolers=0) as stage:
        stage.source.execute("INSERT INTO log VALUES (1, -1)")
        stage.source.execute("ALTER TABLE log ADD CHECK (seq > 0) NOT VALID")
        asked = params(stage, "copied", patience=2, pooler_addresses=["127.0.0.1", "local"])
        with pytest.raises(MoveError, match=r"begun anew 2 times. The log of PostgreSQL at db"):
            database_move.run(asked, dry=False)
        stage.source.execute("DELETE FROM log WHERE seq < 0")
        assert database_move.run(asked, dry=False)["at"] == "box"

        # What a crash leaves of a table that has just given its slot back.
        stage.target.execute(
            "SET allow_system_table_mods = on; UPDATE pg_subscription_rel"
            " SET srsubstate = 'f', srsublsn = NULL WHERE srrelid = 'log'::regclass"
        )
        again = database_move.run({**asked, "patience": 300}, dry=False)
        assert "the copy lost its way in a crash and is begun anew" in again["steps"]


def test_a_second_mover_waits_for_the_first_or_names_it(stage: Stage) -> None:
    given = params(stage, "copied")
    mover = Mover(database_move.site(given["origin"]), database_move.site(given["other"]))
    (first, _), (second, _) = mover.connect(), mover.connect()
    with first, second, mover.alone(first) as waited:
        assert not waited
        with (
            pytest.raises(MoveError, match=r"in progress already: process .*127.0.0.1, since 20"),
            mover.alone(second),
        ):
            pass
        ends = threading.Timer(1.0, first.execute, ["SELECT pg_advisory_unlock_all()"])
        ends.start()
        with mover.alone(second, patience=10) as waited:
            assert waited
        ends.join()
