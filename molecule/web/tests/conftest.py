"""The host under test, the role's entry points, and traffic while they run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCENARIO = Path(__file__).parents[1]
PROJECT = SCENARIO.parents[1]
# What the profile builds takes pip, and seconds: here the live release lends its own.
QUICK = [
    "cp -r --preserve=timestamps /srv/door/current/.venv .venv",
    'sed -i "1s|^#!.*|#!$PWD/.venv/bin/python|" .venv/bin/gunicorn',
]


@dataclass
class Traffic:
    """What the clients saw, filled in when they have stopped."""

    requests: int = 0
    failed: list[str] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)
    connections: int = 0


class Site:
    """The host as an operator and as a visitor sees it."""

    def __init__(self, host: Any, inventory: str, sources: Path) -> None:
        self.host = host
        self.inventory = inventory
        self.sources = sources

    def root(self, command: str) -> Any:
        """Run a command as root; the journal of the application comes with a failure."""
        done = self.host.run(f"sudo sh -c {shlex.quote(command)}")
        if done.rc:
            journal = self.host.run('sudo journalctl -u "door*" -u nginx -n 40 --no-pager').stdout
            pytest.fail(f"{command}: {done.rc}\n{done.stdout}{done.stderr}\n{journal}")
        return done.stdout.strip()

    def curl(self, path: str = "/", *options: str) -> tuple[int, dict[str, str], str]:
        """Ask the front door by name: status, headers (lower case), body."""
        url = path if "://" in path else f"https://door.test{path}"
        names = " ".join(
            f"--resolve {name}:{port}:127.0.0.1"
            for name in ("door.test", "www.door.test", "other.test")
            for port in (80, 443)
        )
        quoted = " ".join(f"'{option}'" for option in options)
        done = self.host.run(f"curl -sk -i --http1.1 -m 20 {names} {quoted} '{url}'")
        head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
        if head.startswith("HTTP/1.1 100"):
            head, _, body = body.partition("\n\n")
        first, *rest = head.splitlines() or ["HTTP/1.1 0"]
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in rest)}
        return int(first.split()[1]), headers, body

    def told(self, path: str = "/") -> dict[str, Any]:
        """What the application tells of itself."""
        status, _, body = self.curl(path)
        assert status == 200, body
        return dict(json.loads(body))

    @property
    def serving(self) -> str:
        """What serves, as the clients of `traffic` note it."""
        told = self.told()
        return f"{told['release']} {told['colour']}"

    @property
    def live(self) -> str:
        """The live instance."""
        return str(self.root("basename $(readlink /srv/door/live)"))

    @property
    def running(self) -> list[str]:
        """Every instance that runs."""
        units = self.root('systemctl list-units --plain --no-legend "door@*" | cut -d " " -f 1')
        return [unit.removeprefix("door@").removesuffix(".service") for unit in units.split()]

    def source(self, mark: str) -> Path:
        """A copy of the application whose content differs by `mark`."""
        copy = self.sources / mark
        if not copy.exists():
            shutil.copytree(SCENARIO / "app", copy, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / "door" / "__init__.py").write_text(f"MARK = {mark!r}\n")
        return copy

    def operate(
        self, entry: str, *arguments: str, **values: Any
    ) -> tuple[int, str, dict[str, Any]]:
        """Run an entry point: exit status, output, and the module's result if it got so far.

        The build is the quick one unless another is given; an empty one is the profile's own.
        """
        values = {"web_build": QUICK, **values}
        done = subprocess.run(
            [
                *("ansible-playbook", "--inventory", self.inventory, *arguments),
                f"--limit={self.host.backend.host}",
                *("-e", json.dumps({"entry": entry, **values}), str(SCENARIO / "operate.yml")),
            ],
            capture_output=True,
            text=True,
            cwd=PROJECT,
            # Facts stay the same over the runs of one test.
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            timeout=600,
        )
        result: dict[str, Any] = {}
        for line in done.stdout.splitlines():
            if '"msg": "RESULT ' in line:
                result = json.loads(json.loads("{" + line.strip() + "}")["msg"][len("RESULT ") :])
        return done.returncode, done.stdout + done.stderr, result

    def deploy(self, mark: str, **values: Any) -> dict[str, Any]:
        """Deploy the source with that mark; it must succeed."""
        code, output, result = self.operate("deploy", web_source=str(self.source(mark)), **values)
        assert code == 0, output
        return result

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """Keep requests coming while the body runs."""
        traffic = Traffic()
        self.root("rm -f /run/load.stop /run/load.json")
        self.root(
            "systemd-run -q --unit=load --collect -p StandardOutput=file:/run/load.json "
            "python3 /root/load.py 240 /run/load.stop door.test"
        )
        try:
            yield traffic
        finally:
            self.root("touch /run/load.stop; while systemctl -q is-active load; do sleep 0.1; done")
        for key, value in json.loads(self.root("cat /run/load.json")).items():
            setattr(traffic, key, value)


@pytest.fixture(scope="module")
def site(
    host: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    inventory = request.config.getoption("--ansible-inventory")
    made = Site(host, inventory, tmp_path_factory.mktemp("sources"))
    for name in ("load.py", "killer.py"):
        text = (Path(__file__).parent / name).read_text()
        assert (
            host.run(f"sudo tee /root/{name} >/dev/null <<'END_OF_FILE'\n{text}END_OF_FILE").rc == 0
        )
    if host.run("command -v curl").rc:
        made.root("apt-get install -q -y curl >/dev/null")
    return made


@pytest.fixture
def wait() -> Callable[[Callable[[], bool], float, str], None]:
    """Wait for a condition, with a deadline and what to say when it passes."""
    import time

    def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} not within {seconds} s"
            time.sleep(0.2)

    return until
