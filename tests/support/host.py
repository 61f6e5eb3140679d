"""A host of the lab, as its operator reaches it: by SSH, with sudo."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """One host. Secrets go to its commands by standard input, never by an argument."""

    address: str
    key: Path
    user: str = "admin"

    def run(self, script: str, *, check: bool = True, seconds: float = 120, data: str = "") -> str:
        """Run a script as root; its output, both streams. `data` is its standard input."""
        done = subprocess.run(
            [*self.command(), f"sudo bash -c {_quoted(script)}"],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{script}: {done.stdout[-3000:]}"
        return done.stdout

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a script as root; it reads from `stdin` and is read from `stdout`."""
        return subprocess.Popen(
            [*self.command(), f"sudo python3 -c {_quoted(script)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self) -> list[str]:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += ["LogLevel=ERROR", "IdentitiesOnly=yes", "ConnectTimeout=10"]
        arguments = [part for option in options for part in ("-o", option)]
        return ["ssh", "-i", str(self.key), *arguments, f"{self.user}@{self.address}"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
