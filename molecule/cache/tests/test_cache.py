"""What the role cache promises, asked of the host."""

from __future__ import annotations

import shlex

import pytest


@pytest.fixture
def valkey(host, secrets):
    """Run a command of Valkey, with the password unless told otherwise."""

    def run(command: str, password: str = secrets["cache_test_password"]) -> str:
        return host.run(
            f"REDISCLI_AUTH={shlex.quote(password)} valkey-cli -h 127.0.0.1 {command} 2>&1"
        ).stdout.strip()

    return run


def test_it_keeps_what_a_client_with_the_password_stores(valkey):
    assert valkey("SET proof 42") == "OK"
    assert valkey("GET proof") == "42"


def test_it_refuses_a_wrong_password_and_none(host, valkey):
    assert "WRONGPASS" in valkey("GET proof", password="wrong-wrong-wrong")
    assert host.run("valkey-cli GET proof").stdout.startswith("NOAUTH")


@pytest.mark.parametrize("command", ["KEYS '*'", "FLUSHALL", "CONFIG GET dir", "ACL LIST"])
def test_a_client_may_not_administer_or_stall_it(valkey, command):
    assert valkey(command).startswith("NOPERM")


def test_it_listens_on_loopback_only(host):
    listening = host.check_output("ss -Hlnt 'sport = :6379'").splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:6379"]


def test_the_password_is_nowhere_on_the_host(host, secrets):
    password = secrets["cache_test_password"]
    assert host.run(f"grep -rl {password} /etc /var/lib/valkey").stdout == ""
    arguments = host.check_output("tr '\\0' ' ' < /proc/$(pidof valkey-server)/cmdline")
    assert password not in arguments
    users = host.file("/etc/valkey/users.acl")
    assert (users.user, users.group, users.mode) == ("root", "valkey", 0o640)


def test_what_is_stored_survives_a_restart(host, valkey):
    assert valkey("SET kept through-the-restart") == "OK"
    # Written once a second.
    host.run_expect([0], "sleep 1.5; systemctl kill --signal=KILL valkey-server; sleep 0.5")
    host.run_expect([0], "systemctl restart valkey-server")
    assert valkey("GET kept") == "through-the-restart"


def test_it_stays_within_its_memory(host, valkey, secrets):
    """A hundred values of 1 MiB into 64 MiB: all are taken, and the oldest are dropped."""
    host.run_expect(
        [0],
        f"export REDISCLI_AUTH={secrets['cache_test_password']};"
        " head -c 1048576 /dev/zero > /tmp/value;"
        " for i in $(seq 100); do valkey-cli -x SET fill:$i < /tmp/value; done | sort | uniq -c |"
        " grep -q '^ *100 OK$'",
    )
    facts = dict(line.split(":", 1) for line in valkey("INFO").splitlines() if ":" in line)
    assert int(facts["maxmemory"]) == 64 * 1024 * 1024
    assert int(facts["used_memory"]) <= 64 * 1024 * 1024
    assert int(facts["evicted_keys"]) > 0
    assert valkey("EXISTS fill:1") == "0"
    assert valkey("EXISTS fill:100") == "1"
    valkey("EVAL \"for i = 1, 100 do redis.call('DEL', 'fill:' .. i) end\" 0")


def test_it_finishes_what_an_interrupted_run_has_left(host, converge):
    """As a run leaves it that wrote the file and was killed before it restarted the service."""
    before = host.check_output("pidof valkey-server")
    host.run_expect([0], "sleep 1; touch /etc/valkey/valkey.conf")
    run = converge()
    assert run.returncode == 0, run.stdout
    assert host.check_output("pidof valkey-server") != before
