"""What the role cache changes on a host that it made otherwise before: TLS, users, no eviction."""

from __future__ import annotations

import shlex

import pytest

TLS = "--tls --cacert /etc/ssl/molecule/cache/ca.pem"


@pytest.fixture
def engine(release):
    """What the engine of the release is called."""
    return {12: "redis", 13: "valkey"}[release]


@pytest.fixture
def client(host, secrets, engine):
    """Run a command of the engine as a user, over TLS."""

    def run(command: str, user: str = "default", password: str = "cache_new_password") -> str:
        return host.run(
            f"REDISCLI_AUTH={shlex.quote(secrets[password])} {engine}-cli {TLS} -h 127.0.0.1"
            f" --user {user} --no-auth-warning {command} 2>&1"
        ).stdout.strip()

    return run


def test_clients_use_tls_and_the_server_proves_itself(host, client, engine):
    assert client("PING") == "PONG"
    plain = host.run(f"timeout 5 {engine}-cli -h 127.0.0.1 PING 2>&1")
    assert "PONG" not in plain.stdout
    assert "NOAUTH" not in plain.stdout
    stranger = host.run(
        f"{engine}-cli --tls --cacert /etc/ssl/certs/ca-certificates.crt -h 127.0.0.1 PING 2>&1"
    )
    assert "certificate verify failed" in stranger.stdout + stranger.stderr


def test_two_passwords_are_valid_while_one_changes(client):
    assert client("PING", password="cache_test_password") == "PONG"


def test_a_user_does_what_it_may_and_nothing_else(client):
    assert "used_memory" in client("INFO", "metrics", "cache_metrics_password")
    assert client("GET proof", "metrics", "cache_metrics_password").startswith("NOPERM")
    assert client("SET jobs:1 waiting", "jobs", "cache_jobs_password") == "OK"
    assert client("GET proof", "jobs", "cache_jobs_password").startswith("NOPERM")
    assert "WRONGPASS" in client("PING", "jobs", "cache_metrics_password")


def test_a_full_memory_refuses_writes_and_drops_nothing(host, client, secrets, engine):
    assert client("SET first kept") == "OK"
    host.run_expect([0], "head -c 1048576 /dev/zero > /tmp/value")
    auth = f"REDISCLI_AUTH={secrets['cache_new_password']}"
    answers = host.check_output(
        f"export {auth}; for i in $(seq 40); do"
        f" {engine}-cli {TLS} -h 127.0.0.1 -x SET fill:$i < /tmp/value 2>&1; done"
    )
    assert "OOM command not allowed" in answers
    assert client("GET first") == "kept"
    client("EVAL \"for i = 1, 40 do redis.call('DEL', 'fill:' .. i) end\" 0")


def test_snapshots_take_the_place_of_the_log(host, engine):
    ask = f"REDISCLI_AUTH=$(cat /etc/{engine}/operator.password) {engine}-cli {TLS} --user operator"
    assert host.check_output(f"{ask} CONFIG GET appendonly").split()[-1] == "no"
    assert "3600 1 300 100" in host.check_output(f"{ask} CONFIG GET save")


def test_the_engine_of_the_other_release_is_refused(hosts, converge):
    run = converge(
        cache_engine="{{ 'valkey' if ansible_facts['distribution_major_version'] == '12'"
        " else 'redis' }}"
    )
    for name in hosts:
        assert run.failed(name), run.stdout
        assert "Debian 12 with Redis and Debian 13 with Valkey" in run.told(name)
