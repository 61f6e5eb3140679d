"""Every program that the lab runs is run here."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

log = logging.getLogger(__name__)


class CommandError(LabError):
    """A program that failed; `stderr` holds what it said."""

    def __init__(self, command: Sequence[str], status: int, stderr: str) -> None:
        self.command = list(command)
        self.status = status
        self.stderr = stderr.strip()
        super().__init__(f"`{' '.join(command)}` ended with status {status}: {self.stderr}")


def run(
    *command: str,
    input_text: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = 120,
) -> str:
    """Run a program to its end and return its output. Raises CommandError."""
    log.debug("run %s", " ".join(command))
    try:
        done = subprocess.run(
            command,
            input=input_text,
            env={**os.environ, **env} if env else None,
            stdin=None if input_text is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"`{command[0]}` is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(command, -1, f"no end after {timeout} s") from error
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def succeeds(*command: str, env: Mapping[str, str] | None = None) -> bool:
    """Run a program and say whether it ended well."""
    try:
        run(*command, env=env)
    except CommandError:
        return False
    return True


def stream(
    *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start a program whose output is read line by line (stdout and stderr together)."""
    return subprocess.Popen(
        command,
        env={**os.environ, **env} if env else None,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_detached(*command: str, output: Path, env: Mapping[str, str] | None = None) -> int:
    """Start a program in a session of its own, that outlives the terminal. Returns its id."""
    with output.open("ab") as sink:
        process = subprocess.Popen(
            command,
            env={**os.environ, **env} if env else None,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    return process.pid
