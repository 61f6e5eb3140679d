"""What the role database promises, asked of the host."""

from __future__ import annotations

import shlex
import time

import pytest

# The role's file of settings: Debian 12 has PostgreSQL 15, Debian 13 has 17.
CONF = {
    "debian-12": "/etc/postgresql/15/main/conf.d/ascent.conf",
    "debian-13": "/etc/postgresql/17/main/conf.d/ascent.conf",
}


def superuser(host, query: str, database: str = "postgres") -> str:
    """The answer of the local operator's psql."""
    return host.check_output(
        f"runuser -u postgres -- psql -XAtv ON_ERROR_STOP=1 -d {database} -c {shlex.quote(query)}"
    )


def login(host, role: str, password: str, database: str, query: str, address: str = "127.0.0.1"):
    """The result of a login with a password, as the application's."""
    return host.run(
        f"PGPASSWORD={shlex.quote(password)} psql -XAtv ON_ERROR_STOP=1 "
        f"'host={address} user={role} dbname={database} sslmode=require' -c {shlex.quote(query)}"
    )


def setting(host, name: str) -> str:
    return superuser(host, f"SHOW {name}")


def wait_for_setting(host, name: str, value: str) -> None:
    """Return once it is in force: a server that was told to reload does so a moment later."""
    for _ in range(100):
        if setting(host, name) == value:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} is {setting(host, name)}, not {value}")


def test_a_role_logs_in_and_owns_its_database(host, secrets):
    answer = login(
        host,
        "shop",
        secrets["shop_password"],
        "shop",
        "CREATE TABLE proof (id int PRIMARY KEY); DROP TABLE proof;"
        "SELECT current_user, current_database(), pg_get_userbyid(datdba)"
        " FROM pg_database WHERE datname = current_database()",
    )
    assert answer.stdout.splitlines()[-1] == "shop|shop|shop", answer.stderr


def test_a_wrong_password_is_refused(host):
    answer = login(host, "shop", "wrong", "shop", "SELECT 1")
    assert answer.rc != 0
    assert "password authentication failed" in answer.stderr


@pytest.mark.parametrize("database", ["people", "postgres", "template1"])
def test_a_role_does_not_reach_another_database(host, secrets, database):
    answer = login(host, "shop", secrets["shop_password"], database, "SELECT 1")
    assert answer.rc != 0
    assert "no pg_hba.conf entry" in answer.stderr


def test_a_database_is_closed_to_everyone_but_its_role(host):
    granted = superuser(
        host, "SELECT has_database_privilege('shop', 'people', 'CONNECT, TEMPORARY, CREATE')"
    )
    assert granted == "f"


def test_a_role_has_no_right_beyond_its_database(host):
    rights = superuser(
        host,
        "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,"
        " rolconnlimit FROM pg_roles WHERE rolname IN ('shop', 'people') ORDER BY 1",
    )
    assert rights.splitlines() == ["people|f|f|f|f|f|80", "shop|f|f|f|f|f|80"]


def test_another_user_of_the_host_is_not_the_operator(host):
    answer = host.run("runuser -u nobody -- psql -X -U postgres -d postgres -c 'SELECT 1'")
    assert answer.rc != 0
    assert "Peer authentication failed" in answer.stderr


def test_it_listens_on_loopback_only(host):
    listening = host.check_output("ss -Hlnt 'sport = :5432'").splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:5432"]


def test_passwords_are_kept_as_scram_secrets(host):
    secrets = superuser(
        host, "SELECT rolpassword FROM pg_authid WHERE rolname IN ('shop', 'people')"
    )
    assert all(line.startswith("SCRAM-SHA-256$4096:") for line in secrets.splitlines())
    assert len(set(secrets.splitlines())) == 2


def test_connections_over_tcp_are_encrypted(host, secrets):
    answer = login(
        host,
        "shop",
        secrets["shop_password"],
        "shop",
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    )
    assert answer.stdout.strip() == "t", answer.stderr


def test_the_settings_are_in_force(host):
    expected = {
        "data_checksums": "on",
        "effective_cache_size": "256MB",
        "idle_in_transaction_session_timeout": "5min",
        "effective_io_concurrency": "200",
        "max_replication_slots": "20",
        # A tenth and a fifth of the disk that is stated, 20 GiB.
        "max_slot_wal_keep_size": "4GB",
        "max_wal_size": "2GB",
        "max_wal_senders": "20",
        "password_encryption": "scram-sha-256",
        "server_encoding": "UTF8",
        "shared_buffers": "128MB",
        "shared_preload_libraries": "pg_stat_statements",
        "ssl": "on",
        "wal_level": "logical",
    }
    names = ", ".join(f"'{name}'" for name in expected)
    rows = superuser(
        host, f"SELECT name, current_setting(name) FROM pg_settings WHERE name IN ({names})"
    )
    assert dict(row.split("|") for row in rows.splitlines()) == expected


def test_every_line_of_the_file_is_applied(host):
    conf = CONF[host.backend.host]
    rows = superuser(
        host, f"SELECT name FROM pg_file_settings WHERE sourcefile = '{conf}' AND NOT applied"
    )
    assert rows == ""


def test_a_database_has_its_encoding_and_locale(host):
    found = superuser(
        host,
        "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'shop'",
    )
    assert found == "UTF8|C.UTF-8"


def test_changes_can_be_streamed_to_another_server(host):
    made = superuser(
        host,
        "SELECT slot_name FROM pg_create_logical_replication_slot('proof', 'pgoutput', true)",
        "shop",
    )
    assert made == "proof"


def test_the_database_has_its_extensions(host):
    made = superuser(host, "SELECT extname FROM pg_extension ORDER BY 1", "shop")
    assert made.splitlines() == ["pg_trgm", "plpgsql"]
    assert superuser(host, "SELECT extname FROM pg_extension", "people") == "plpgsql"


def test_the_monitoring_role_sees_statistics_and_no_data(host):
    """The local user of the same name, without a password: peer."""
    host.run_expect([0], "id monitor || useradd --system monitor")

    def ask(query: str, database: str = "shop"):
        return host.run(
            f"runuser -u monitor -- psql -XAtv ON_ERROR_STOP=1 -d {database}"
            f" -c {shlex.quote(query)}"
        )

    seen = ask("SELECT count(*) > 0 FROM pg_stat_activity WHERE query IS NOT NULL", "people")
    assert seen.stdout.strip() == "t", seen.stderr
    host.run_expect([0], "runuser -u postgres -- psql -Xqd shop -c 'CREATE TABLE data (id int)'")
    try:
        refused = ask("SELECT * FROM data")
    finally:
        host.run("runuser -u postgres -- psql -Xqd shop -c 'DROP TABLE data'")
    assert "permission denied for table data" in refused.stderr
    stranger = host.run("runuser -u nobody -- psql -X -U monitor -d shop -c 'SELECT 1'")
    assert "Peer authentication failed" in stranger.stderr


# What follows runs the playbook again, for all hosts at once.


def test_a_change_is_loaded_without_a_restart_and_what_needs_one_is_reported(hosts, converge):
    """Also: a run that died before it told the server is finished by the next."""
    asked = "SELECT pg_postmaster_start_time()"
    started = {name: superuser(host, asked) for name, host in hosts.items()}
    saved = {name: host.file(CONF[name]).content_string for name, host in hosts.items()}
    run = converge(
        database_log_min_duration_statement="700ms",
        database_settings={"max_locks_per_transaction": 128},
    )
    assert run.returncode == 0, run.stdout
    for name, host in hosts.items():
        told = run.told(name)
        assert "WARNING: these settings of PostgreSQL wait for a restart" in told
        assert "max_locks_per_transaction" in told
        wait_for_setting(host, "log_min_duration_statement", "700ms")
        assert setting(host, "max_locks_per_transaction") == "64"
        assert superuser(host, asked) == started[name]
        # As a run leaves it that wrote the file and was killed.
        host.run_expect([0], f"cat > {CONF[name]} <<'END'\n{saved[name]}END")
        assert host.file(CONF[name]).content_string == saved[name]

    run = converge()
    assert run.returncode == 0, run.stdout
    for name, host in hosts.items():
        assert "Reload postgresql" in run.changed(name)
        wait_for_setting(host, "log_min_duration_statement", "500ms")
        assert "WARNING: these settings" not in run.told(name)
        assert superuser(host, asked) == started[name]


def test_a_wrong_setting_is_refused_before_it_is_written(hosts, converge):
    saved = {name: host.file(CONF[name]).content_string for name, host in hosts.items()}
    run = converge(
        start="install | Look for the cluster", database_settings={"no_such_setting": "1"}
    )
    for name, host in hosts.items():
        assert run.failed(name)
        assert 'unrecognized configuration parameter "no_such_setting"' in run.told(name)
        assert host.file(CONF[name]).content_string == saved[name]


def test_a_new_certificate_is_loaded_and_an_extension_that_is_not_there_refused(hosts, converge):
    """Two in one run: the role comes to the extensions after the certificate."""
    host = hosts["debian-13"]
    host.run_expect([0], "make-ssl-cert generate-default-snakeoil --force-overwrite")
    run = converge(
        on="debian-13",
        start="install | Look for the cluster",
        database_extensions={"main": ["postgis"]},
    )
    shown = (
        "openssl s_client -starttls postgres -connect 127.0.0.1:5432 </dev/null 2>/dev/null"
        " | openssl x509 -noout -fingerprint"
    )
    there = "openssl x509 -noout -fingerprint -in /etc/ssl/certs/ssl-cert-snakeoil.pem"
    assert host.check_output(shown) == host.check_output(there)

    assert run.failed("debian-13")
    assert "has no extension postgis. Those that it has:" in run.told("debian-13")
    assert "pg_trgm," in run.told("debian-13")


def test_poolers_that_ask_for_more_than_there_is_are_refused(converge):
    run = converge(on="debian-13", database_pooler_connections=50)
    assert run.failed("debian-13")
    told = run.told("debian-13")
    assert "50 connections for each of 2 functions, 100 together" in told
    assert "all together 85" in told


def test_a_clear_password_is_refused_before_it_reaches_the_host(converge):
    run = converge(
        on="debian-13",
        database_functions=[
            {"name": "main", "database": "shop", "role": "shop", "secret": "in-the-clear"}
        ],
    )
    assert run.failed("debian-13")
    assert not run.changed("debian-13")
    assert "in-the-clear" not in run.stdout
