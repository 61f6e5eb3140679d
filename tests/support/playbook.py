"""One run of ansible-playbook: its output, its recap, and a way to kill it at a given line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.home import INVENTORY
from tests.support.lab import ROOT, TestLab

RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)"
)

# A stage without what configures its hosts: what a run before it has configured is left alone.
WITHOUT_ROLES = ("--skip-tags", "common,database,pooler,cache,web,worker")


@dataclass
class Run:
    """What one run left: exit status, output, and the recap's figures a host."""

    returncode: int
    output: str
    killed_at: str | None = None
    changed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for line in self.output.splitlines():
            if match := RECAP.match(line):
                self.changed[match["host"]] = int(match[3])

    @property
    def changed_tasks(self) -> list[str]:
        """The names of the tasks that reported a change."""
        task, found = "", []
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line.split("[", 1)[1].rsplit("]", 1)[0]
            elif line.startswith("changed:"):
                found.append(task)
        return found

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.output.splitlines()[-lines:])


def play(
    lab: TestLab,
    playbook: str,
    *arguments: str,
    kill_at: str | None = None,
    timeout: float = 900,
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    began: Callable[[subprocess.Popen[str]], None] | None = None,
    inventory: Path = INVENTORY,
) -> Run:
    """Run a playbook of `playbooks/`; with `kill_at`, SIGKILL it where that pattern is printed.

    `on_line` sees each line of the output as it comes, `began` the process once it runs.

    The whole process group is killed, as when the controller's machine dies.
    """
    log = ROOT / "build" / "tests" / f"{lab.name}-{Path(playbook).stem}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        ["ansible-playbook", f"playbooks/{playbook}", "-i", str(inventory), *arguments],
        cwd=ROOT,
        env={**lab.environment, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    if began:
        began(process)
    lines: list[str] = []
    killed_at = None
    try:
        with log.open("a", buffering=1) as file:
            file.write(f"\n=== {playbook} {' '.join(arguments)}\n")
            for line in process.stdout:
                lines.append(line)
                file.write(f"{time.monotonic() - begun:6.1f} {line}")
                if on_line:
                    on_line(line)
                if kill_at and killed_at is None and re.search(kill_at, line):
                    killed_at = line.strip()
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=timeout)
            took = time.monotonic() - begun
            file.write(f"=== ended with {process.returncode} after {took:.0f} s\n")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Run(process.returncode, "".join(lines), killed_at)


def succeed(lab: TestLab, playbook: str, *arguments: str, **options: object) -> Run:
    """Run a playbook that must succeed; the end of its output is the failure's message."""
    run = play(lab, playbook, *arguments, **options)  # type: ignore[arg-type]
    assert run.returncode == 0, run.tail()
    return run
