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
