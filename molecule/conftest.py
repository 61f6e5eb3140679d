"""What the tests of all scenarios share: the journal on failure, and further runs of the role."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml

MOLECULE = Path(__file__).parent
BUILD = Path(os.environ["ASCENT_MOLECULE_DIRECTORY"])


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask all hosts, or those alone that the module names in testinfra_hosts."""
    # A --hosts of the command line would win over what a module names.
    if not hasattr(metafunc.module, "testinfra_hosts"):
        metafunc.module.testinfra_hosts = ["all"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, Any, Any]:
    """Add the journal of the host, or of all that were asked, to the report of a failed test."""
    report = yield
    given = getattr(item, "funcargs", {})
    asked = [given["host"]] if "host" in given else [*given.get("hosts", {}).values()]
    if report.when == "call" and report.failed:
        for host in asked:
            for title, command in {
                "failed units": "systemctl --failed --no-pager",
                # Without what the tests themselves leave there.
                "journal": "journalctl --no-pager --lines=500 --boot | "
                "grep -v -e ' ansible-' -e ' sudo' -e ' sshd-session' | tail -60",
            }.items():
                report.sections.append((f"{title}: {host.backend.host}", host.run(command).stdout))
    return report


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """The passwords that the scenarios use."""
    found = yaml.safe_load((MOLECULE / "shared" / "vars" / "passwords.yml").read_text())
    return {key: value for key, value in found.items() if "{{" not in value}


@pytest.fixture
def release(host: Any) -> int:
    """The release of Debian that the host under test runs."""
    return int(str(host.backend.host).removeprefix("debian-"))


@pytest.fixture(scope="session")
def hosts() -> dict[str, Any]:
    """All hosts by name, for a test that asks them together: one run of a playbook serves all."""
    found = testinfra.get_hosts(
        ["ansible://all"], ansible_inventory=str(BUILD / "inventory"), sudo=True
    )
    return {str(host.backend.host): host for host in found}


@dataclass(frozen=True)
class Run:
    """What a run of a playbook has told."""

    returncode: int
    stdout: str

    def _results(self) -> Generator[tuple[str, str, str, str]]:
        """Each line about a host: the host, what became of the task, the task, the line."""
        task, result, host = "", "", ""
        for line in self.stdout.splitlines():
            if found := re.match(r"(?:TASK|RUNNING HANDLER) \[(?:[\w.]+ : )?(.*?)\] \**$", line):
                task, host = found[1], ""
            elif found := re.match(r"([a-z]+): \[([\w.-]+)", line):
                result, host = found[1], found[2]
            elif line.startswith(("PLAY", "[ERROR]", "[WARNING]")):
                host = ""
            if host:
                yield host, result, task, line

    def told(self, name: str) -> str:
        """What was told of a host, in one line."""
        return " ".join(
            " ".join(line for host, *_, line in self._results() if host == name).split()
        )

    def changed(self, name: str) -> set[str]:
        """The tasks that changed something on a host."""
        return {
            task for host, result, task, _ in self._results() if (host, result) == (name, "changed")
        }

    def failed(self, name: str) -> bool:
        """Whether a task failed on a host."""
        return any(
            (host, result) in ((name, "fatal"), (name, "failed"))
            for host, result, *_ in self._results()
        )


def play(playbook: Path, on: str, start: str | None, variables: dict[str, Any]) -> Run:
    """Run a playbook on the hosts of the lane."""
    done = subprocess.run(
        [
            "ansible-playbook",
            f"--inventory={BUILD / 'inventory'}",
            f"--limit={on}",
            *([f"--start-at-task={start}"] if start else []),
            f"--extra-vars={json.dumps(variables)}",
            str(playbook),
        ],
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        # Shared with ssh it could be non-blocking, which Ansible refuses.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return Run(done.returncode, done.stdout)


@pytest.fixture
def converge(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """Run the scenario's playbook again on all hosts at once, with other variables where given.

    What depends on the variables alone is asked `on` one host. From a task on (`start`) runs what a
    whole run would do no differently before.
    """

    def run(*, on: str = "all", start: str | None = None, **variables: Any) -> Run:
        return play(Path(request.path).parent.parent / "converge.yml", on, start, variables)

    return run


@pytest.fixture
def enter(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """Run another entry point of the role, as the scenario's enter.yml calls it."""

    def run(entry: str, *, on: str = "all", **variables: Any) -> Run:
        playbook = Path(request.path).parent.parent / "enter.yml"
        return play(playbook, on, None, {"entry": entry, **variables})

    return run


@pytest.fixture
def address(host: Any) -> str:
    """The public address of the host under test."""
    inventory = yaml.safe_load((BUILD / "inventory" / "hosts.yml").read_text())
    return str(inventory["all"]["hosts"][host.backend.host]["ansible_host"])


@pytest.fixture(scope="session")
def log_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Log in to a host from outside, as a user does."""
    inventory = yaml.safe_load((BUILD / "inventory" / "hosts.yml").read_text())

    def run(name: str, user: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        box = inventory["all"]["hosts"][name]
        return subprocess.run(
            [
                "ssh",
                "-F/dev/null",
                f"-i{BUILD / 'id_ed25519'}",
                "-oIdentitiesOnly=yes",
                "-oBatchMode=yes",
                "-oControlPath=none",
                f"-oUserKnownHostsFile={box['known_hosts']}",
                "-oStrictHostKeyChecking=yes",
                *options,
                f"{user}@{box['ansible_host']}",
                command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def ssh(
    host: Any, log_in: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Log in to the host under test from outside."""
    return partial(log_in, str(host.backend.host))
