"""What the role cache promises of memcached, on a host that had another engine before."""

from __future__ import annotations

import shlex

import pytest

ASK = """
import socket, sys
server = socket.create_connection(("127.0.0.1", 11211), 5)
server.sendall(sys.argv[1].encode().decode("unicode_escape").encode("latin-1"))
answer = b""
while not answer.endswith((b"STORED\\r\\n", b"END\\r\\n", b"ERROR\\r\\n")):
    answer += server.recv(65536)
print(answer.decode())
"""


@pytest.fixture
def ask(host):
    """What memcached answers to a request of its protocol."""

    def run(request: str) -> list[str]:
        return host.check_output(
            f"python3 -c {shlex.quote(ASK)} {shlex.quote(request)}"
        ).splitlines()

    return run


def test_it_keeps_what_is_stored(ask):
    assert ask(r"set proof 0 60 2\r\n42\r\n")[0] == "STORED"
    assert ask(r"get proof\r\n")[:2] == ["VALUE proof 0 2", "42"]


def test_it_has_its_limits(ask):
    stats = dict(line.split()[1:3] for line in ask(r"stats settings\r\n") if len(line.split()) == 3)
    assert int(stats["maxbytes"]) == 64 * 1024 * 1024
    assert int(stats["maxconns"]) == 4000
    assert stats["evictions"] == "on"


def test_it_listens_on_loopback_only_and_not_to_udp(host):
    listening = host.check_output("ss -Hlntu 'sport = :11211'").splitlines()
    assert [(line.split()[0], line.split()[4]) for line in listening] == [
        ("tcp", "127.0.0.1:11211")
    ]


def test_it_comes_back_at_boot_and_the_engine_before_does_not(host, release):
    before = {12: "redis-server", 13: "valkey-server"}[release]
    assert host.service("memcached").is_running
    assert host.service("memcached").is_enabled
    assert not host.service(before).is_running
    assert not host.service(before).is_enabled


def test_what_it_cannot_do_is_refused(converge):
    run = converge(on="debian-13", cache_persistence="append", cache_listen_addresses=["0.0.0.0"])
    assert run.failed("debian-13")
    assert "memcached knows neither users nor TLS" in run.told("debian-13")


def test_a_second_run_finishes_what_an_interrupted_one_has_left_and_no_more(hosts, converge):
    before = {name: host.check_output("pidof memcached") for name, host in hosts.items()}
    for host in hosts.values():
        host.run_expect([0], "sleep 1; touch /etc/memcached.conf")
    run = converge()
    assert run.returncode == 0, run.stdout
    for name, host in hosts.items():
        assert host.check_output("pidof memcached") != before[name]
        assert run.changed(name) == {
            "service | Find settings that the server has not read yet",
            "Restart the cache",
        }
