"""A lab for tests, with a name and a subnet of its own: a developer's lab stands untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"


@dataclass(frozen=True)
class TestLab:
    """One lab: how to start and stop it, and where its API answers."""

    __test__ = False
    name: str
    subnet: str

    @property
    def address(self) -> str:
        """The machine's own address in this lab, as its hosts see it."""
        return self.subnet.split("/")[0].rsplit(".", 1)[0] + ".1"

    @property
    def endpoint(self) -> str:
        return "http://" + self.subnet.split("/")[0].rsplit(".", 1)[0] + ".2:4566"

    @property
    def environment(self) -> dict[str, str]:
        """The process environment of a controller that works in this lab."""
        return {
            **os.environ,
            "ASCENT_LAB_ENDPOINT": self.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        }

    def command(self, *arguments: str, timeout: float = 600) -> str:
        """Run `python -m lab VERB --name … --subnet …` as root; the output."""
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        done = subprocess.run(
            [*root, sys.executable, "-m", "lab", *arguments, "--name", self.name]
            + (["--subnet", self.subnet] if arguments[0] == "up" else []),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"lab {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def inside(self, *command: str) -> str:
        """Run a command as root in the lab's network, where all hosts' packets pass."""
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        done = subprocess.run(
            [*root, "nsenter", f"--net=/run/netns/ascent-{self.name}", *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="ascentlab",
            aws_secret_access_key="ascentlab",
        )

    def fault(self, code: str, **options: object) -> None:
        """Make the API answer with an error: service, action, count or rate."""
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        self.command("fault", "--code", code, *words)

    def clear_faults(self) -> None:
        self.command("fault", "--clear")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.command("status", "--json"))
        return status


@contextmanager
def running(name: str, subnet: str) -> Iterator[TestLab]:
    """A lab that is up inside the block and gone after it; with KEEP=1 it stays, to look at."""
    lab = TestLab(name, subnet)
    lab.command("up")
    try:
        yield lab
    finally:
        if not os.environ.get("KEEP"):
            lab.command("down")
