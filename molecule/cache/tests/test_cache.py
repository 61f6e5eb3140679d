"""What the role cache promises, asked of the host: Valkey on Debian 13, Redis on Debian 12."""

from __future__ import annotations

import shlex
from functools import partial

import pytest

ENGINES = {"debian-12": "redis", "debian-13": "valkey"}


@pytest.fixture
def engine(host):
    """What the engine of the release is called."""
    return ENGINES[host.backend.host]


@pytest.fixture
def ask(hosts, secrets):
    """Run a command of the engine on a host, with the password unless told otherwise."""

    def run(name: str, command: str, password: str = secrets["cache_test_password"]) -> str:
        return (
            hosts[name]
            .run(
                f"REDISCLI_AUTH={shlex.quote(password)} {ENGINES[name]}-cli -h 127.0.0.1"
                f" {command} 2>&1"
            )
            .stdout.strip()
        )

    return run


@pytest.fixture
def client(host, ask):
    """The same on the host under test."""
    return partial(ask, host.backend.host)


def test_it_keeps_what_a_client_with_the_password_stores(client):
    assert client("SET proof 42") == "OK"
    assert client("GET proof") == "42"


def test_it_refuses_a_wrong_password_and_none(host, client, engine):
    assert "WRONGPASS" in client("GET proof", password="wrong-wrong-wrong")
    assert host.run(f"{engine}-cli GET proof").stdout.startswith("NOAUTH")


@pytest.mark.parametrize("command", ["KEYS '*'", "FLUSHALL", "CONFIG GET dir", "ACL LIST"])
def test_a_client_may_not_administer_or_stall_it(client, command):
    assert client(command).startswith("NOPERM")


def test_it_listens_on_loopback_only(host):
    listening = host.check_output("ss -Hlnt 'sport = :6379'").splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:6379"]


def test_the_password_is_nowhere_on_the_host(host, secrets, engine):
    password = secrets["cache_test_password"]
    assert host.run(f"grep -rl {password} /etc /var/lib/{engine}").stdout == ""
    arguments = host.check_output(f"tr '\\0' ' ' < /proc/$(pidof {engine}-server)/cmdline")
    assert password not in arguments
    users = host.file(f"/etc/{engine}/users.acl")
    assert (users.user, users.group, users.mode) == ("root", engine, 0o640)


def test_the_local_operator_alone_may_do_anything(host, client, engine):
    file = f"/etc/{engine}/operator.password"
    assert host.check_output(f"stat -c '%U %a' {file}") == "root 600"
    ask = f"REDISCLI_AUTH=$(cat {file}) {engine}-cli --user operator CONFIG GET port"
    assert host.check_output(ask).split() == ["port", "6379"]
    assert host.run(f"runuser -u nobody -- cat {file}").rc != 0
    assert "WRONGPASS" in client("--user operator PING")


def test_what_is_stored_survives_a_restart(host, client, engine):
    assert client("SET kept through-the-restart") == "OK"
    # Written once a second.
    host.run_expect([0], f"sleep 1.5; systemctl kill --signal=KILL {engine}-server; sleep 0.5")
    host.run_expect([0], f"systemctl restart {engine}-server")
    assert client("GET kept") == "through-the-restart"


def test_it_stays_within_its_memory(host, client, secrets, engine):
    """A hundred values of 1 MiB into 64 MiB: all are taken, and the oldest are dropped."""
    host.run_expect(
        [0],
        f"export REDISCLI_AUTH={secrets['cache_test_password']};"
        " head -c 1048576 /dev/zero > /tmp/value;"
        f" for i in $(seq 100); do {engine}-cli -x SET fill:$i < /tmp/value; done | sort | uniq -c"
        " | grep -q '^ *100 OK$'",
    )
    facts = dict(line.split(":", 1) for line in client("INFO").splitlines() if ":" in line)
    assert int(facts["maxmemory"]) == 64 * 1024 * 1024
    assert int(facts["used_memory"]) <= 64 * 1024 * 1024
    assert int(facts["evicted_keys"]) > 0
    assert client("EXISTS fill:1") == "0"
    assert client("EXISTS fill:100") == "1"
    client("EVAL \"for i = 1, 100 do redis.call('DEL', 'fill:' .. i) end\" 0")


def each(hosts, command: str) -> dict[str, str]:
    """What a command answers on each host; {engine} is the engine's name."""
    return {
        name: host.check_output(command.replace("{engine}", ENGINES[name]))
        for name, host in hosts.items()
    }


# What follows runs the playbook again, for all hosts at once.


def test_a_password_changes_while_a_client_works(hosts, converge, ask, secrets):
    """Also: a run that was killed before it loaded the users is finished by the next."""
    before = each(hosts, "pidof {engine}-server")
    new = secrets["cache_new_password"]
    run = converge(cache_password=new, cache_passwords_also=[secrets["cache_test_password"]])
    assert run.returncode == 0, run.stdout
    assert new not in run.stdout
    for name in hosts:
        assert ask(name, "PING", new) == "PONG"
        assert ask(name, "PING") == "PONG", "the password before is refused already"

    # As a run leaves it that wrote the file and was killed.
    each(hosts, "sed -i 's/^user default on/user default off/' /etc/{engine}/users.acl")
    run = converge()
    assert run.returncode == 0, run.stdout
    for name in hosts:
        assert ask(name, "PING") == "PONG"
        assert "WRONGPASS" in ask(name, "PING", new)
    assert each(hosts, "pidof {engine}-server") == before, "it was restarted"


def test_wrong_settings_and_users_are_refused_before_they_are_written(hosts, converge):
    files = "cat /etc/{engine}/{engine}.conf /etc/{engine}/users.acl"
    saved = each(hosts, files)
    for wrong in ({"cache_settings": {"no-such-setting": 1}}, {"cache_acl_rules": "+nosuch"}):
        run = converge(start="install | Look for the engines", **wrong)
        for name in hosts:
            assert run.failed(name), run.stdout
    assert each(hosts, files) == saved


def test_it_finishes_what_an_interrupted_run_has_left(hosts, converge):
    """As a run leaves it that wrote the file and was killed before it restarted the service."""
    before = each(hosts, "pidof {engine}-server")
    each(hosts, "sleep 1; touch /etc/{engine}/{engine}.conf")
    run = converge()
    assert run.returncode == 0, run.stdout
    after = each(hosts, "pidof {engine}-server")
    for name in hosts:
        assert after[name] != before[name]
        assert run.changed(name) == {
            "service | Find settings that the server has not read yet",
            "Restart the cache",
        }
