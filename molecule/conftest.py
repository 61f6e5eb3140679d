"""What the tests of all scenarios share: the journal on failure, and further runs of the role."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
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
    """Add the host's journal to the report of a failed test."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host is not None:
        for title, command in {
            "failed units": "systemctl --failed --no-pager",
            # Without what the tests themselves leave there.
            "journal": "journalctl --no-pager --lines=500 --boot | "
            "grep -v -e ' ansible-' -e ' sudo' -e ' sshd-session' | tail -60",
        }.items():
            report.sections.append((title, host.run(command).stdout))
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


@pytest.fixture
def converge(
    host: Any, request: pytest.FixtureRequest
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the scenario's playbook on the host again, with other variables where given."""

    def run(**variables: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "ansible-playbook",
                f"--inventory={BUILD / 'inventory'}",
                f"--limit={host.backend.host}",
                f"--extra-vars={json.dumps(variables)}",
                str(Path(request.path).parent.parent / "converge.yml"),
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

    return run


@pytest.fixture
def address(host: Any) -> str:
    """The public address of the host under test."""
    inventory = yaml.safe_load((BUILD / "inventory" / "hosts.yml").read_text())
    return str(inventory["all"]["hosts"][host.backend.host]["ansible_host"])


@pytest.fixture
def ssh(host: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Log in to the host from outside, as a user does."""
    inventory = yaml.safe_load((BUILD / "inventory" / "hosts.yml").read_text())
    box = inventory["all"]["hosts"][host.backend.host]

    def run(user: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
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
