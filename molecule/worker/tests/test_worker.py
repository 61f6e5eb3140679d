"""Background processes follow the release: after the switch, never before it, and back again."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

SCENARIO = Path(__file__).parents[1]
Root = Callable[[str], str]
NOTES = "/srv/clerk/shared/uploads/notes"


def succeed(host: Any, command: str) -> str:
    """Run a command as root that must succeed."""
    done = host.run(command)
    assert done.rc == 0, f"{command}: {done.rc}\n{done.stdout}{done.stderr}"
    return str(done.stdout.strip())


@pytest.fixture
def root(host: Any) -> Root:
    """Run a command as root on the host under test."""
    return partial(succeed, host)


@pytest.fixture
def roots(hosts: dict[str, Any]) -> dict[str, Root]:
    """The same on each host, for tests that deploy to both at once."""
    return {name: partial(succeed, host) for name, host in hosts.items()}


@pytest.fixture
def operate() -> Callable[..., tuple[int, str]]:
    """Deploy or roll back on all hosts, as operations do: the web role, then the worker role."""

    def run(entry: str, *arguments: str, **values: Any) -> tuple[int, str]:
        inventory = Path(os.environ["ASCENT_MOLECULE_DIRECTORY"]) / "inventory"
        done = subprocess.run(
            [
                *("ansible-playbook", "--inventory", str(inventory)),
                *arguments,
                *("-e", json.dumps({"entry": entry, **values}), str(SCENARIO / "operate.yml")),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def processes(root: Root, worker: str = "writer") -> list[str]:
    """The processes of a worker that run."""
    prefix = f"clerk-worker-{worker}@"
    units = root(f"systemctl list-units --plain --no-legend --state=active '{prefix}*'")
    return sorted(line.split()[0].removeprefix(prefix) for line in units.splitlines())


def notes(root: Root, since: float = 0) -> list[tuple[float, str, str, str]]:
    """What the processes noted: time, begin or end, release, process."""
    lines = (line.split() for line in root(f"cat {NOTES}").splitlines())
    return [(float(at), *rest[:3]) for at, *rest in lines if float(at) > since]  # type: ignore[misc]


def live(root: Root) -> str:
    """The live release."""
    return root("basename $(readlink -f /srv/clerk/current)")


def now(root: Root) -> float:
    return float(root("date +%s.%N"))


def wait(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {seconds} s"
        time.sleep(0.2)


def test_as_many_as_asked_for_run_the_live_release(root: Root) -> None:
    assert len(processes(root)) == 2
    began = now(root)
    wait(lambda: len({note[3] for note in notes(root, began)}) == 2, "both have noted something")
    assert {note[2] for note in notes(root, began)} == {live(root)}


def test_they_are_in_the_same_sandbox_with_the_secrets(root: Root) -> None:
    unit = f"clerk-worker-writer@{processes(root)[0]}"
    status = root(f"cat /proc/$(systemctl show -P MainPID {unit})/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert root(f"systemctl show -P User {unit}") == "clerk"
    # It notes its token itself; nothing else does.
    assert "token-of-the-test" in root(f"tail -n 1 {NOTES}")
    for command in ("systemctl cat 'clerk-worker-writer@*'", "ps -eo args", "journalctl -q"):
        told = root(
            f"{command} --no-pager | grep -v sudo || true" if command[0] != "p" else command
        )
        assert "token-of-the-test" not in told, command
    folder = f"/srv/clerk/workers/writer/{processes(root)[0].removesuffix('.service')}"
    assert root(f"stat -c '%a %U %G' {folder}/environment") == "640 root clerk"


def test_a_crash_is_over_within_seconds(root: Root) -> None:
    unit = f"clerk-worker-writer@{processes(root)[0]}"
    pid = root(f"systemctl show -P MainPID {unit}")
    root(f"kill -KILL {pid}")
    wait(
        lambda: root(f"systemctl show -P MainPID {unit}") not in (pid, "0"), "it runs once more", 10
    )


def test_they_come_back_with_a_boot(root: Root) -> None:
    """What a boot does: nothing runs, the enabled units start."""
    # The one that the test before has killed may still be on its way up.
    wait(lambda: len(processes(root)) == 2, "both run")
    before = processes(root)
    root("systemctl stop clerk-workers")
    assert processes(root) == []
    root("systemctl start multi-user.target clerk-workers")
    wait(lambda: processes(root) == before, "they run")


def test_the_application_behind_uvicorn_knows_how_it_was_asked(root: Root) -> None:
    told = json.loads(
        root("curl -skf --resolve clerk.test:443:127.0.0.1 https://clerk.test/ || true")
    )
    assert (told["scheme"], told["client"]) == ("https", "127.0.0.1")


def test_they_follow_the_release_there_and_back(
    roots: dict[str, Root], operate: Callable[..., tuple[int, str]]
) -> None:
    old = {name: live(root) for name, root in roots.items()}
    began = {name: now(root) for name, root in roots.items()}
    code, output = operate("deploy", mark="second")
    assert code == 0, output
    for name, root in roots.items():
        new = live(root)
        assert new != old[name]
        assert len(processes(root)) == 2
        seen = notes(root, began[name])
        first = min(at for at, what, release, _ in seen if release == new)
        # Every job of the old release was ended, before the first one of the new release.
        open_jobs = {process for at, what, release, process in seen if release == old[name]}
        assert open_jobs
        for process in open_jobs:
            last = [note for note in seen if note[3] == process][-1]
            assert last[1] == "end"
            assert last[0] < first
        # The old ones worked on until the switch.
        switched = float(root("stat -c %.Y /srv/clerk/live"))
        assert first > switched
        assert max(at for at, _, release, _ in seen if release == old[name]) > switched - 2

    code, output = operate("rollback")
    assert code == 0, output
    for name, root in roots.items():
        assert live(root) == old[name]
        since = now(root)
        wait(lambda root=root, since=since: bool(notes(root, since)), "something is noted")
        assert {note[2] for note in notes(root, since)} == {old[name]}


def each(roots: dict[str, Root], command: str) -> dict[str, str]:
    """What a command answers on each host."""
    return {name: root(command) for name, root in roots.items()}


def test_a_release_that_does_not_go_live_leaves_them_alone(
    roots: dict[str, Root], operate: Callable[..., tuple[int, str]]
) -> None:
    before = each(roots, "pgrep -f '[c]lerk.writer'")
    code, output = operate(
        "deploy",
        mark="bad",
        web_secret_environment={"TOKEN": "x" * 20, "HEALTH": "bad"},
        web_health_timeout=5,
    )
    assert code == 2, output
    assert output.count("goes on serving") >= len(roots)
    assert each(roots, "pgrep -f '[c]lerk.writer'") == before


def test_those_that_do_not_stay_up_give_way_to_the_old_ones(
    roots: dict[str, Root], operate: Callable[..., tuple[int, str]]
) -> None:
    before = {name: processes(root) for name, root in roots.items()}
    workers = {
        "writer": {"command": "python -c 'import sys; sys.exit(\"broken\")'", "processes": 2},
        "other": {"command": "sleep 1000"},
    }
    code, output = operate("deploy", workers=workers)
    assert code == 2
    for words in ("The worker writer of release", "does not stay up", "broken", "run again"):
        assert output.count(words) >= len(roots), output
    for name, root in roots.items():
        assert processes(root) == before[name]
        # The failure of one is not the failure of the others.
        assert len(processes(root, "other")) == 1


def test_one_that_is_taken_out_is_gone_and_numbers_may_change(
    roots: dict[str, Root], operate: Callable[..., tuple[int, str]]
) -> None:
    kept = {name: root("pgrep -f '[c]lerk.writer'").split() for name, root in roots.items()}
    code, output = operate(
        "deploy", workers={"writer": {"command": "python -m clerk.writer", "processes": 3}}
    )
    assert code == 0, output
    for name, root in roots.items():
        assert set(kept[name]) < set(root("pgrep -f '[c]lerk.writer'").split())
        assert len(processes(root)) == 3
        assert processes(root, "other") == []
        assert root("ls /srv/clerk/workers") == "start\nwriter"
        assert root("ls /etc/systemd/system | grep clerk-worker-").split() == [
            "clerk-worker-writer@.service"
        ]
