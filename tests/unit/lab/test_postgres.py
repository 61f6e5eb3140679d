"""The server's configuration, its roles as SQL, and how it greets."""

from __future__ import annotations

import pytest

from lab import postgres


def error(code: str) -> bytes:
    fields = f"SFATAL\0C{code}\0Mno\0\0".encode()
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"", False),
        (error("57P03"), False),
        (error("28000"), True),
        (error("53300"), True),
        (b"R\0\0\0\x08\0\0\0\0", True),
        (b"HTTP/1.1 400", False),
    ],
)
def test_who_answers_serves_unless_it_says_not_yet(reply: bytes, expected: bool) -> None:
    assert postgres.serves(reply) is expected


def test_the_first_message_names_user_and_database() -> None:
    message = postgres.startup("me", "shop")
    assert int.from_bytes(message[:4], "big") == len(message)
    assert message[4:] == b"\0\3\0\0user\0me\0database\0shop\0\0"


def test_without_tls_nobody_comes_in_unless_it_is_allowed() -> None:
    assert "hostssl all all all scram-sha-256" in postgres.access(force_ssl=True)
    assert "\nhost all all all scram-sha-256" in postgres.access(force_ssl=False)


@pytest.mark.parametrize("force_ssl", [True, False])
def test_the_superuser_is_local_and_nobody_replicates_physically(force_ssl: bool) -> None:
    lines = postgres.access(force_ssl).splitlines()
    assert lines.index("host all rdsadmin all reject") < len(lines) - 1
    assert "host replication all all reject" in lines
    assert [
        line for line in lines if line.startswith("local") and " rdsadmin peer" not in line
    ] == []


def test_the_configuration_follows_the_parameters() -> None:
    values = {"rds.logical_replication": "on", "rds.force_ssl": "off", "work_mem": "64"}
    files = postgres.configuration(values, 5433, archives=True)
    lines = files["postgresql.conf"].splitlines()
    assert "wal_level = 'logical'" in lines
    assert "port = '5433'" in lines
    assert "work_mem = '64'" in lines
    assert any(line.startswith("archive_command = 'gzip") for line in lines)
    assert "\nhost all all" in files["pg_hba.conf"]
    plain = postgres.configuration({}, 5432, archives=False)["postgresql.conf"].splitlines()
    assert "wal_level = 'replica'" in plain
    assert "archive_command = '/bin/true'" in plain


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (postgres.identifier, 'a"b', '"a""b"'),
        (postgres.literal, "it's \\ so", "'it''s \\ so'"),
        (postgres.quoted, "it's \\ so", "'it''s \\\\ so'"),
    ],
)
def test_quoting(function: object, value: str, expected: str) -> None:
    assert callable(function)
    assert function(value) == expected


def test_the_master_user_is_no_superuser() -> None:
    sql = postgres.roles("boss", "word'word", "shop")
    assert "CREATE ROLE \"boss\" LOGIN CREATEDB CREATEROLE PASSWORD 'word''word'" in sql
    assert 'GRANT rds_superuser TO "boss"' in sql
    assert 'CREATE DATABASE "shop" OWNER "boss"' in sql
    assert " SUPERUSER" not in sql
    for dangerous in ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"):
        assert dangerous not in sql


def test_passwords_are_not_logged() -> None:
    for sql in (postgres.roles("boss", "word", None), postgres.password("boss", "word")):
        assert sql.index("log_statement = 'none'") < sql.index("'word'")


def test_a_restore_goes_on_to_a_time_or_to_the_end() -> None:
    assert "recovery_target_time = '2026-01-01 00:00:00+00:00'" in postgres.recovery(
        "2026-01-01 00:00:00+00:00"
    )
    assert "recovery_target_time" not in postgres.recovery(None)


# --- a primary and its standby
PEER = "10.1.2.5"
STANDBY = postgres.Place("db-2", "10.1.1.4", follows=True, word="word")


def lines_of(place: postgres.Place | None, copied: bool = False) -> list[str]:
    files = postgres.configuration({"work_mem": "64"}, 5433, True, place, copied)
    return files["postgresql.conf"].splitlines()


def test_commits_wait_for_the_standby_that_is_named() -> None:
    alone, guarded = (postgres.Place("db-1", PEER, guard=guard) for guard in ("", "db-2"))
    assert "synchronous_standby_names = ''" in lines_of(alone)
    assert "synchronous_standby_names = 'FIRST 1 (\"db-2\")'" in lines_of(guarded)
    assert not [line for line in lines_of(None) if line.startswith("synchronous")]


def test_a_standby_follows_its_primary_by_tls_and_answers_nobody() -> None:
    lines = lines_of(STANDBY)
    [primary] = [line for line in lines if line.startswith("primary_conninfo")]
    assert "host=10.1.1.4 port=5433 user=rdsrepladmin password=word" in primary
    assert "application_name=db-2 sslmode=require" in primary
    assert "hot_standby = 'off'" in lines
    assert "word" not in repr(STANDBY)


def test_both_servers_archive_and_neither_writes_what_the_other_writes() -> None:
    parts = set()
    for place, copied in ((postgres.Place("db-1", PEER), False), (STANDBY, True)):
        lines = lines_of(place, copied)
        assert f"archive_mode = '{'always' if copied else 'on'}'" in lines
        [command] = [line for line in lines if line.startswith("archive_command")]
        parts.add(command.partition("&&")[0])
    assert len(parts) == 2


def test_the_peer_alone_copies_the_cluster() -> None:
    lines = postgres.access(True, PEER).splitlines()
    allowed = "hostssl replication rdsrepladmin 10.1.2.5/32 scram-sha-256"
    assert lines.index(allowed) < lines.index("host replication all all reject")
    assert "host all rdsrepladmin all reject" in lines
    assert not [line for line in postgres.access(True).splitlines() if "hostssl repl" in line]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(b"", False), (error("57P03"), True), (b"R\0\0\0\x08\0\0\0\0", True)],
)
def test_a_standby_is_there_if_it_says_that_it_serves_nobody(reply: bytes, expected: bool) -> None:
    assert postgres.follows(reply) is expected


def test_what_a_session_reads() -> None:
    assert postgres.message(b"Q", b"SELECT 1\0") == b"Q\0\0\0\x0dSELECT 1\0"
    body = b"\0\x03" + b"\0\0\0\x02ab" + b"\xff\xff\xff\xff" + b"\0\0\0\0"
    assert postgres.row(body) == ("ab", None, "")
    fatal = b"SFATAL\0VFATAL\0C57P01\0Mended\0\0"
    assert (postgres.complaint(fatal), postgres.is_fatal(fatal)) == ("ended", True)
    assert not postgres.is_fatal(b"SFEHLER\0VERROR\0C42601\0Mno\0\0")


def test_places_in_the_log_are_ordered() -> None:
    places = ["A/1", "0/A0", "0/9", "1/0", "0/0"]
    assert sorted(places, key=postgres.position) == ["0/0", "0/9", "0/A0", "1/0", "A/1"]
    assert postgres.position("1/2") == 2**32 + 2
