"""What the role managed_database makes in a server whose master user is no superuser.

The server plays a managed one: RDS has PostgreSQL 17, and so does Debian 13.
"""

from __future__ import annotations

import shlex

import pytest

testinfra_hosts = ["debian-13"]

HBA = "/etc/postgresql/17/main/pg_hba.conf"


def superuser(host, *queries: str, database: str = "postgres") -> str:
    """The answers of the local operator's psql."""
    asked = " ".join(f"-c {shlex.quote(query)}" for query in queries)
    return host.check_output(
        f"runuser -u postgres -- psql -XAtqv ON_ERROR_STOP=1 -d {database} {asked}"
    )


@pytest.fixture
def server(host, secrets):
    """The server with what RDS has in one: its master user, and rds_replication."""
    saved = host.file(HBA).content_string
    superuser(
        host,
        "CREATE ROLE rds_replication",
        f"CREATE ROLE ascent LOGIN CREATEDB CREATEROLE PASSWORD '{secrets['managed_password']}'",
        "GRANT rds_replication, pg_read_all_data TO ascent WITH ADMIN OPTION",
    )
    try:
        host.run_expect(
            [0],
            f"for net in 127.0.0.1/32 ::1/128; do echo hostssl all all $net scram-sha-256; done"
            f" >>{HBA}; systemctl reload postgresql@17-main",
        )
        yield host
    finally:
        host.run_expect([0], f"cat >{HBA} <<'END'\n{saved}END\nsystemctl reload postgresql@17-main")
        superuser(
            host,
            "DROP DATABASE IF EXISTS shelf",
            "DROP ROLE IF EXISTS shelf_a, shelf, ascent_guard, ascent_replication",
            "DROP ROLE ascent, rds_replication",
        )


def test_logins_are_made_by_a_master_user_and_a_move_decides_who_connects(server, enter, secrets):
    def login(role: str, password: str, query: str):
        return server.run(
            f"PGPASSWORD={shlex.quote(password)} psql -XAtv ON_ERROR_STOP=1"
            f" 'host=localhost user={role} dbname=shelf sslmode=require' -c {shlex.quote(query)}"
        )

    run = enter("functions", on="debian-13", moves=True)
    assert run.returncode == 0, run.stdout
    for password in ("shop_password", "move_password", "managed_password"):
        assert secrets[password] not in run.stdout
    closed = login("shelf_a", secrets["shop_password"], "SELECT 1")
    assert "permission denied for database" in closed.stderr
    guard = login("ascent_guard", secrets["move_password"], "SELECT current_user")
    assert guard.stdout.strip() == "ascent_guard", guard.stderr
    member = "SELECT pg_has_role('ascent_replication', 'rds_replication', 'member')"
    assert superuser(server, member) == "t"
    run = enter("functions", on="debian-13", moves=True)
    assert run.changed("debian-13") == set(), run.stdout

    run = enter("functions", on="debian-13")
    assert run.returncode == 0, run.stdout
    made = login(
        "shelf_a",
        secrets["shop_password"],
        "CREATE TABLE book (id int PRIMARY KEY); SELECT tableowner FROM pg_tables"
        " WHERE tablename = 'book'",
    )
    assert made.stdout.splitlines()[-1:] == ["shelf"], made.stderr
    refused = login("ascent_guard", secrets["move_password"], "SELECT 1")
    assert "not permitted to log in" in refused.stderr
