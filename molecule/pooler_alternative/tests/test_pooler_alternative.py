"""What the role pooler changes on a host that it made otherwise before."""

from __future__ import annotations

import shlex

import pytest


def login(host, role: str, password: str, alias: str, query: str, address: str = "127.0.0.1"):
    """The result of a login through PgBouncer, as the application's."""
    return host.run(
        f"PGPASSWORD={shlex.quote(password)} psql -XAtv ON_ERROR_STOP=1 "
        f"-h {address} -p 6432 -U {role} -d {alias} -c {shlex.quote(query)}"
    )


@pytest.fixture
def settings(host) -> dict[str, str]:
    """What PgBouncer runs with."""
    lines = host.check_output(
        "runuser -u postgres -- psql -XAt -h /var/run/postgresql -p 6432 -U pgbouncer -d pgbouncer"
        " -c 'SHOW CONFIG'"
    ).splitlines()
    return {line.split("|")[0]: line.split("|")[1] for line in lines}


def test_it_reaches_a_server_that_has_proved_itself(host, secrets):
    answer = login(host, "shop", secrets["shop_password"], "main", "SELECT current_database()")
    assert answer.stdout.strip() == "shop", answer.stderr


def test_an_alias_has_its_new_name_and_the_old_one_is_gone(host, secrets):
    answer = login(host, "people", secrets["people_password"], "people", "SELECT 1")
    assert answer.stdout.strip() == "1", answer.stderr
    answer = login(host, "people", secrets["people_password"], "users", "SELECT 1")
    assert "no such database" in answer.stderr


def test_it_listens_on_the_hosts_addresses_after_a_restart_that_was_allowed(host, secrets):
    address = host.check_output("hostname -I").split()[0]
    answer = login(host, "shop", secrets["shop_password"], "main", "SELECT 1", address)
    assert answer.stdout.strip() == "1", answer.stderr


def test_a_database_never_gets_more_connections_than_its_pools_have(settings):
    """Each login has a pool of its own; their sum is bounded too."""
    assert settings["default_pool_size"] == "4"
    assert settings["reserve_pool_size"] == "2"
    assert settings["max_db_connections"] == "6"
    assert settings["max_client_conn"] == "5000"
    assert settings["query_wait_timeout"] == "10"
    assert settings["log_connections"] == "1"


def test_prepared_statements_are_off(settings, release):
    assert settings.get("max_prepared_statements") == {12: None, 13: "0"}[release]


def test_it_refuses_a_server_that_cannot_prove_itself(hosts, converge, secrets):
    """127.0.0.2 is no name of the certificate. An alias of its own: others lead where they led."""
    function = {"name": "stranger", "database": "shop", "host": "127.0.0.2", "port": 5432}
    begin = "install | Look for PgBouncer"
    try:
        run = converge(
            start=begin,
            pooler_functions=[function | {"role": "shop", "secret": "{{ shop_secret }}"}],
        )
        assert run.returncode == 0, run.stdout
        for host in hosts.values():
            answer = login(host, "shop", secrets["shop_password"], "stranger", "SELECT 1")
            assert answer.rc != 0
            journal = host.check_output("journalctl -u pgbouncer --since=-60s --no-pager")
            assert "name" in journal
            assert "not present in server certificate" in journal
    finally:
        run = converge(start=begin)
    assert run.returncode == 0, run.stdout
    for host in hosts.values():
        answer = login(host, "shop", secrets["shop_password"], "main", "SELECT 1")
        assert answer.stdout.strip() == "1", answer.stderr
