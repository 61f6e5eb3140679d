"""What the role database changes on a host that it made otherwise before."""

from __future__ import annotations

import shlex


def superuser(host, query: str, database: str = "postgres") -> str:
    """The answer of the local operator's psql."""
    return host.check_output(
        f"runuser -u postgres -- psql -XAtv ON_ERROR_STOP=1 -d {database} -c {shlex.quote(query)}"
    )


def login(host, role: str, password: str, database: str, query: str, connection: str = ""):
    """The result of a login with a password over TCP."""
    target = f"host=127.0.0.1 user={role} dbname={database} {connection}"
    return host.run(
        f"PGPASSWORD={shlex.quote(password)} psql -XAtv ON_ERROR_STOP=1 '{target}'"
        f" -c {shlex.quote(query)}"
    )


def test_the_new_settings_are_in_force_those_that_need_a_restart_too(host):
    expected = {
        "effective_io_concurrency": "2",
        "log_min_duration_statement": "-1",
        "max_connections": "60",
        "max_slot_wal_keep_size": "20GB",
        "max_wal_size": "3GB",
        "random_page_cost": "4",
        "shared_buffers": "192MB",
    }
    names = ", ".join(f"'{name}'" for name in expected)
    rows = superuser(
        host, f"SELECT name, current_setting(name) FROM pg_settings WHERE name IN ({names})"
    )
    assert dict(row.split("|") for row in rows.splitlines()) == expected


def test_a_role_has_its_new_limit(host):
    limits = superuser(
        host, "SELECT rolconnlimit FROM pg_roles WHERE rolname IN ('shop', 'people')"
    )
    assert limits.splitlines() == ["20", "20"]


def test_the_server_proves_itself_by_its_own_certificate(host, secrets):
    proved = "sslmode=verify-full sslrootcert=/etc/ssl/molecule/database/ca.pem"
    answer = login(host, "shop", secrets["shop_password"], "shop", "SELECT 1", proved)
    assert answer.stdout.strip() == "1", answer.stderr
    strange = "sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt"
    answer = login(host, "shop", secrets["shop_password"], "shop", "SELECT 1", strange)
    assert "certificate verify failed" in answer.stderr


def test_other_hosts_log_in_with_tls_only(host, secrets):
    """From the host's own address in the network, as another host would."""
    address = host.check_output("hostname -I").split()[0]
    for mode, expected in (("require", ""), ("disable", "no encryption")):
        answer = login(
            host,
            "shop",
            secrets["shop_password"],
            "shop",
            "SELECT 1",
            f"host={address} sslmode={mode}",
        )
        assert expected in answer.stderr
        assert (answer.rc == 0) is (mode == "require"), answer.stderr


def test_databases_have_their_extensions(host):
    found = {
        name: superuser(host, "SELECT extname FROM pg_extension ORDER BY 1", name).splitlines()
        for name in ("shop", "people")
    }
    assert found == {"shop": ["pg_trgm", "plpgsql", "unaccent"], "people": ["citext", "plpgsql"]}


def test_the_monitoring_role_logs_in_with_its_password(host, secrets):
    answer = login(
        host,
        "monitor",
        secrets["monitor_password"],
        "people",
        "SELECT pg_has_role('pg_monitor', 'MEMBER'), rolsuper FROM pg_roles"
        " WHERE rolname = current_user",
        "sslmode=require",
    )
    assert answer.stdout.strip() == "t|f", answer.stderr


def test_plans_of_slow_statements_are_logged(host, secrets, release):
    version = {12: 15, 13: 17}[release]
    login(host, "shop", secrets["shop_password"], "shop", "SELECT pg_sleep(0.2), 'seen by explain'")
    log = host.file(f"/var/log/postgresql/postgresql-{version}-main.log").content_string
    assert "Query Text: SELECT pg_sleep(0.2), 'seen by explain'" in log
    assert "Result  (cost=" in log


def test_a_certificate_that_would_end_each_login_is_refused(hosts, converge):
    """libpq binds no password to Ed25519."""
    hosts["debian-13"].run_expect(
        [0],
        "openssl req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=localhost"
        " -keyout /tmp/ed25519.key -out /tmp/ed25519.pem",
    )
    run = converge(
        on="debian-13",
        database_tls_certificate="/tmp/ed25519.pem",
        database_tls_key="/tmp/ed25519.key",
    )
    assert run.failed("debian-13")
    assert not run.changed("debian-13")
    assert "is signed with Ed25519 or Ed448" in run.told("debian-13")
