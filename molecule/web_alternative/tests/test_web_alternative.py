"""Node.js from a repository, at a port, without TLS and without limits."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

Root = Callable[[str], str]
SCENARIO = Path(__file__).parents[1]


def succeed(host: Any, command: str) -> str:
    """Run a command as root that must succeed."""
    done = host.run(command)
    assert done.rc == 0, f"{command}: {done.rc}\n{done.stdout}{done.stderr}"
    return str(done.stdout.strip())


@pytest.fixture
def root(host: Any) -> Root:
    """Run a command as root on the host under test."""
    return partial(succeed, host)


def ask(root: Root, path: str = "/") -> dict[str, Any]:
    """What the application tells at the front door."""
    told = root(f"curl -sf -m 30 --resolve board.test:80:127.0.0.1 'http://board.test{path}'")
    return dict(json.loads(told))


def wait_for_units(root: Root, *names: str) -> None:
    """Return once these units are loaded and no others: what stopped takes a moment to be gone."""
    for _ in range(100):
        loaded = root("systemctl list-units --plain --no-legend 'board*' | cut -d ' ' -f 1").split()
        if sorted(loaded) == list(names):
            return
        time.sleep(0.2)
    raise AssertionError(loaded)


def live(root: Root) -> str:
    return root("basename $(readlink /srv/board/live)")


def test_it_is_what_the_tag_holds(root: Root) -> None:
    """The release is named by the commit, and holds the folder of the repository alone."""
    sources = Path(os.environ["ASCENT_MOLECULE_DIRECTORY"]) / "sources"
    commit = subprocess.run(
        ["git", "-C", str(sources / "repository-web_alternative"), "rev-parse", "v1.0.0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    told = ask(root)
    assert told["release"].startswith(f"{commit[:12]}-")
    assert root("ls -A /srv/board/current/").split() == [
        ".ascent-release.json",
        "package.json",
        "server.js",
    ]


def test_it_starts_as_its_package_says(root: Root) -> None:
    told = ask(root)
    assert (told["zone"], told["mode"], told["client"]) == ("two-words", "production", "127.0.0.1")
    main = root(f"systemctl show -P MainPID board@{live(root)}")
    assert root(f"tr '\\0' ' ' < /proc/{main}/cmdline").strip() == "node server.js"


def test_it_listens_at_loopback_alone_and_nginx_at_the_socket(host: Any, root: Root) -> None:
    port = ask(root)["port"]
    assert root(f"ss -Hlnt 'sport = :{port}'").split()[3] == f"127.0.0.1:{port}"
    question = "curl -s --unix-socket /run/board/current.sock http://board.test/"
    assert host.run(f"runuser -u www-data -- {question}").rc == 0
    assert host.run(f"runuser -u nobody -- {question}").rc != 0


def test_plain_http_and_no_limits(host: Any, root: Root) -> None:
    assert host.run("ss -Hlnt 'sport = :443'").stdout == ""
    text = root("cat /etc/nginx/nginx.conf")
    assert "limit_req" not in text
    assert "limit_conn" not in text


def test_its_memory_is_limited(root: Root) -> None:
    assert root(f"systemctl show -P MemoryMax board@{live(root)}") == str(256 * 1024 * 1024)


def test_a_crash_is_over_within_seconds(host: Any, root: Root) -> None:
    root(f"systemctl kill --kill-whom=all -s KILL board@{live(root)}")
    wait = (
        "for i in $(seq 300); do curl -sf -o /dev/null --resolve board.test:80:127.0.0.1 "
        "http://board.test/ && exit 0; sleep 0.1; done; exit 1"
    )
    assert host.run(wait).rc == 0


def test_no_request_is_lost_when_ports_change(
    hosts: dict[str, Any], converge: Callable[..., Any]
) -> None:
    """The new one gets a port of its own; a request to the old one is answered by the old one."""
    roots = {name: partial(succeed, host) for name, host in hosts.items()}
    old = {name: ask(root) for name, root in roots.items()}
    answers: dict[str, dict[str, Any]] = {}
    threads = [
        threading.Thread(
            target=lambda name, root: answers.update({name: ask(root, "/?seconds=25")}), args=item
        )
        for item in roots.items()
    ]
    for root in roots.values():
        root("rm -f /tmp/stop /tmp/codes")
        root(
            "systemd-run -q --unit=asking --collect sh -c 'while ! test -e /tmp/stop; do"
            ' curl -s -m 20 -o /dev/null -w "%{http_code}\\n" --resolve board.test:80:127.0.0.1'
            " http://board.test/ >> /tmp/codes; sleep 0.05; done'"
        )
    for thread in threads:
        thread.start()
    changed = converge(
        start="release | Deploy and switch",
        web_environment={"COLOUR": "blue", "EXTRA": "new"},
    )
    for root in roots.values():
        root("touch /tmp/stop; while systemctl -q is-active asking; do sleep 0.1; done")
    for thread in threads:
        thread.join()
    assert changed.returncode == 0, changed.stdout
    assert answers == old
    for name, root in roots.items():
        new = ask(root)
        assert new["file"] == "new"
        assert new["port"] != old[name]["port"]
        codes = root("cat /tmp/codes").split()
        assert set(codes) == {"200"}
        assert len(codes) > 100
        instance = live(root)
        wait_for_units(
            root,
            f"board-port@{instance}.service",
            f"board-port@{instance}.socket",
            "board-unready.service",
            "board.service",
            f"board@{instance}.service",
        )


def test_a_load_balancer_is_believed_and_nobody_else(root: Root) -> None:
    ask_from = "curl -sf --interface {} -H 'X-Forwarded-For: 203.0.113.9' -H 'Host: board.test' http://127.0.0.1/"
    assert json.loads(root(ask_from.format("127.0.0.2")))["client"] == "203.0.113.9"
    assert json.loads(root(ask_from.format("127.0.0.1")))["client"] == "127.0.0.1"


def test_it_tells_what_is_in_flight(root: Root) -> None:
    assert root("curl -sf http://127.0.0.1:8081/status").startswith("Active connections:")


def test_it_is_unready_while_it_serves_on_and_then_stops(host: Any, root: Root) -> None:
    by_address = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/up"
    assert root(by_address) == "200"
    root("systemctl stop --no-block nginx")
    try:
        root(f"timeout 5 sh -c 'until test $({by_address}) = 503; do sleep 0.1; done'")
        assert ask(root)["mode"] == "production"
        root("timeout 30 sh -c 'while systemctl is-active -q nginx; do sleep 0.2; done'")
    finally:
        root("systemctl start nginx board-unready")
    assert root(by_address) == "200"
