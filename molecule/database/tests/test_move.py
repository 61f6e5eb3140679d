"""What the role database does for the move of a database, and after it: its other entry points.

They run after what test_database.py asks, and leave the server as they have found it.
"""

from __future__ import annotations

import shlex

ROLES = ("ascent_guard", "ascent_mover", "ascent_replication")


def superuser(host, query: str, database: str = "postgres") -> str:
    """The answer of the local operator's psql."""
    return host.check_output(
        f"runuser -u postgres -- psql -XAtv ON_ERROR_STOP=1 -d {database} -c {shlex.quote(query)}"
    )


def login(host, role: str, password: str, database: str, query: str, address: str = "127.0.0.1"):
    """The result of a login with a password over TCP, with TLS."""
    return host.run(
        f"PGPASSWORD={shlex.quote(password)} psql -XAtv ON_ERROR_STOP=1 "
        f"'host={address} user={role} dbname={database} sslmode=require' -c {shlex.quote(query)}"
    )


def listening(host) -> set[str]:
    """The addresses where something listens on PostgreSQL's port."""
    lines = host.check_output("ss -Hlnt 'sport = :5432'").splitlines()
    return {line.split()[3].removesuffix(":5432") for line in lines}


def version(host) -> int:
    return {"debian-12": 15, "debian-13": 17}[host.backend.host]


def test_the_roles_of_a_move_are_open_while_there_is_one(hosts, enter, secrets):
    """On a server that listens on loopback alone, and is not restarted for it."""
    password = secrets["move_password"]
    started = "SELECT pg_postmaster_start_time()"
    before = {name: superuser(host, started) for name, host in hosts.items()}
    run = enter("move", moves=True)
    assert run.returncode == 0, run.stdout
    assert password not in run.stdout
    for host in hosts.values():
        address = host.check_output("hostname -I").split()[0]
        assert listening(host) == {"127.0.0.1", address}
        guard = login(host, "ascent_guard", password, "shop", "SELECT current_user", address)
        assert guard.stdout.strip() == "ascent_guard", guard.stderr
        elsewhere = login(host, "ascent_guard", password, "postgres", "SELECT 1", address)
        assert "no pg_hba.conf entry" in elsewhere.stderr
        rights = superuser(
            host,
            "SELECT rolname, rolcanlogin, rolsuper, rolreplication,"
            " pg_has_role(rolname, 'pg_read_all_data', 'member')"
            " FROM pg_roles WHERE rolname LIKE 'ascent%' ORDER BY 1",
        )
        assert rights.splitlines() == [
            "ascent_guard|t|f|f|f",
            "ascent_mover|t|t|f|t",
            "ascent_replication|t|f|t|t",
        ]
    run = enter("move", moves=True)
    assert not any(run.changed(name) for name in hosts), run.stdout

    run = enter("move")
    assert run.returncode == 0, run.stdout
    for name, host in hosts.items():
        assert listening(host) == {"127.0.0.1"}
        for role in ROLES:
            answer = login(host, role, password, "shop", "SELECT 1")
            assert "no pg_hba.conf entry" in answer.stderr
        closed = superuser(
            host, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ascent%' AND NOT rolcanlogin"
        )
        assert closed == "3"
        assert not host.file("/etc/systemd/system/ascent-move.socket").exists
        assert superuser(host, started) == before[name]
        for database in ("shop", "people"):
            superuser(host, f"DROP OWNED BY {', '.join(ROLES)}", database)
        superuser(host, f"DROP ROLE {', '.join(ROLES)}")


def test_backups_are_read_back_and_refused_where_they_are_damaged(hosts, enter):
    """The repository is a directory of the host here: what reads it is the same."""
    repository = "/var/lib/pgbackrest"
    try:
        for host in hosts.values():
            host.run_expect(
                [0],
                f"""set -e
                DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes pgbackrest >&2
                printf '%s\\n' '[global]' repo1-path={repository} log-level-file=off start-fast=y \\
                  '[molecule]' pg1-path=/var/lib/postgresql/{version(host)}/main \\
                  >/etc/pgbackrest.conf
                as='runuser -u postgres --'
                $as pgbackrest --stanza=molecule stanza-create >&2
                $as psql -Xqc "ALTER SYSTEM SET archive_command TO
                               'pgbackrest --stanza=molecule archive-push %p'"
                $as psql -Xqc 'SELECT pg_reload_conf()'
                $as pgbackrest --stanza=molecule --type=full backup >&2""",
            )
        run = enter("verify_backups")
        assert run.returncode == 0, run.stdout
        assert not any(run.changed(name) for name in hosts)

        for host in hosts.values():
            host.run_expect(
                [0],
                f"find {repository}/backup/molecule/*F/pg_data/base -name '*.gz' | head -1 |"
                " xargs truncate --size=-1",
            )
        run = enter("verify_backups")
        for name in hosts:
            assert run.failed(name)
            assert f"The backups of {name} are not sound" in run.told(name)
    finally:
        for host in hosts.values():
            host.run(
                "runuser -u postgres -- psql -Xqc 'ALTER SYSTEM RESET archive_command'"
                " -c 'SELECT pg_reload_conf()';"
                f" apt-get -qq purge --yes pgbackrest; rm -rf /etc/pgbackrest* {repository}"
            )


def test_a_server_that_stands_down_stays_down(hosts, enter):
    files = {name: f"/etc/postgresql/{version(host)}/main" for name, host in hosts.items()}
    starts = {
        name: host.file(f"{files[name]}/start.conf").content_string for name, host in hosts.items()
    }
    try:
        run = enter("stand_down")
        assert run.returncode == 0, run.stdout
        for host in hosts.values():
            # As at the next boot, and by somebody's hand.
            host.run(f"systemctl start postgresql postgresql@{version(host)}-main")
            assert listening(host) == set()
            assert not host.service("postgresql").is_enabled
            assert host.file(f"/var/lib/postgresql/{version(host)}/main/PG_VERSION").exists
        run = enter("stand_down")
        assert run.returncode == 0, run.stdout
    finally:
        for name, host in hosts.items():
            unit = f"postgresql@{version(host)}-main"
            host.run_expect(
                [0],
                f"cat >{files[name]}/start.conf <<'END'\n{starts[name]}END\n"
                f"systemctl reset-failed; systemctl enable postgresql;"
                f" systemctl start postgresql {unit}",
            )
            assert listening(host) == {"127.0.0.1"}
