"""Looks for planted secrets wherever they must not be."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.conftest import Environment
    from tests.support.host import Host
    from tests.support.playbook import Run

CORE = re.compile(r"plant[0-9a-f]{16}")

# Reads every process of this machine, those in the lab's hosts too: a few times when it is young,
# as a program takes over a process later than it appears. Ends with its standard input.
SAMPLER = r"""
import json, os, select, sys, time
needles = [needle.encode() for needle in json.loads(sys.stdin.readline())]
ages, found, looks = {}, {}, 0
def text(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
def user(pid):
    try:
        uid = str(os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return "?"
    for line in text(pid, "root/etc/passwd").decode(errors="replace").splitlines():
        if line.split(":")[2:3] == [uid]:
            return line.split(":")[0]
    return uid
while not select.select([sys.stdin], [], [], 0.02)[0]:
    now, pids = time.monotonic(), {name for name in os.listdir("/proc") if name.isdigit()}
    for gone in ages.keys() - pids:
        del ages[gone]
    for pid in pids - {str(os.getpid())}:
        first, done = ages.setdefault(pid, (now, 0))
        if done < 4 and now - first >= (0, 0.03, 0.2, 1)[done]:
            ages[pid] = (first, done + 1)
            looks += 1
            for where in ("cmdline", "environ"):
                content = text(pid, where)
                for needle in needles:
                    if needle in content:
                        program = text(pid, "cmdline").replace(needle, b"***")[:300]
                        program = program.replace(b"\0", b" ").decode(errors="replace")
                        key = (where, user(pid), program)
                        found[key] = found.get(key, 0) + 1
print(json.dumps({"looks": looks, "found": [[*key] for key in found]}))
"""


def needles(secrets: Iterable[str]) -> list[str]:
    """The part of each secret that no quoting changes, as it is and as base64 shows it."""
    found = []
    for secret in secrets:
        core = CORE.findall(secret)[0]
        found.append(core)
        for offset in range(3):
            shifted = base64.b64encode(b"\0" * offset + core.encode()).decode()
            # The first and the last characters depend on what stands around it.
            found.append(shifted[(0, 2, 3)[offset] + 2 : -4])
    return found


@dataclass
class Searched:
    """A run that was watched: what was seen of processes, and what remains to be searched."""

    needles: list[str]
    since: float
    looks: int = 0
    processes: list[tuple[str, str, str]] = field(default_factory=list)
    run: Run = None  # type: ignore[assignment]

    def on_host(self, host: Host) -> dict[str, str]:
        """Files of a host that hold a needle: path -> mode and owner; the journal as `journal`."""
        script = r"""
        patterns=$(cat)
        grep -rlaF -D skip --exclude-dir=proc --exclude-dir=sys -f <(printf '%s\n' "$patterns") / \
            2>/dev/null | while read -r path; do stat -c '%n|%A %U:%G' "$path"; done
        journalctl --no-pager -o export | grep -qaF -f <(printf '%s\n' "$patterns") \
            && echo 'journal|'
        true
        """
        answer = host.run(script, data="\n".join(self.needles), seconds=300)
        lines = [line.partition("|") for line in answer.splitlines()]
        return {path: rest for path, _, rest in lines}

    def in_files(self, folders: Iterable[Path], ours: Iterable[Path]) -> list[str]:
        """Files of the controller that hold a needle, of those written since the run began."""
        exceptions = {path.resolve() for path in ours}
        found = []
        for folder in folders:
            inner = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
            for path in inner if folder.is_dir() else [folder]:
                try:
                    told = path.lstat()
                    recent = told.st_mtime >= self.since and told.st_size < 50_000_000
                    if path.is_symlink() or not path.is_file() or not recent:
                        continue
                    content = path.read_bytes()
                except OSError:
                    continue
                if path.resolve() not in exceptions and self.holds(content):
                    found.append(str(path))
        return found

    def holds(self, content: bytes | str) -> list[str]:
        """The needles that a text holds."""
        data = content.encode() if isinstance(content, str) else content
        return [needle for needle in self.needles if needle.encode() in data]


@contextmanager
def watched(environment: Environment) -> Iterator[Searched]:
    """Look at all processes while the block runs."""
    searched = Searched(needles(environment.secrets.values()), time.time())
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    sampler = subprocess.Popen(
        [*root, sys.executable, "-c", SAMPLER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sampler.stdin
    sampler.stdin.write(json.dumps(searched.needles) + "\n")
    sampler.stdin.flush()
    try:
        yield searched
    finally:
        answer = json.loads(sampler.communicate("\n", timeout=30)[0])
        searched.looks = answer["looks"]
        searched.processes = [(where, user, program) for where, user, program in answer["found"]]
