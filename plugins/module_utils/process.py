# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process this is, whether another one still runs, and what one prints.

Linux by /proc, else by signal.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.ascent.scaling.plugins.module_utils.lease import Process

PROC = Path("/proc")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the command's name (proc(5))."""
    return _text(PROC / str(pid) / "stat").rpartition(")")[2].split()


def started(pid: int) -> str:
    """Return the start of a process in ticks since boot (proc(5), field 22), else an empty text."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def controller() -> int:
    """Return the number of the run's main process.

    Ansible forks its workers, and a fork keeps its parent's command line: the main process is
    the oldest ancestor with the same one.
    """
    pid = os.getpid()
    own = _text(PROC / str(pid) / "cmdline")
    while own:
        fields = _stat(pid)
        parent = int(fields[1]) if len(fields) > 1 else 0
        if parent <= 1 or _text(PROC / str(parent) / "cmdline") != own:
            break
        pid = parent
    return pid


def this_run() -> Process:
    """Return the run of Ansible that this is called in."""
    pid = controller()
    host = socket.gethostname()
    identity = _text(Path("/etc/machine-id"))
    try:
        namespace = str((PROC / "self/ns/pid").readlink())
    except OSError:
        namespace = ""
    machine = hashlib.sha256(f"{identity} {host} {namespace}".encode()).hexdigest()[:16]
    return {
        "user": getpass.getuser(),
        "host": host,
        "machine": machine,
        "boot": _text(PROC / "sys/kernel/random/boot_id"),
        "pid": pid,
        "started": started(pid),
    }


def runs(process: Process) -> bool:
    """Tell whether a process of this machine and this boot still runs."""
    pid = process["pid"]
    if process["started"]:
        fields = _stat(pid)
        # A zombie has ended; only its parent has not noticed.
        return bool(fields) and fields[0] != "Z" and started(pid) == process["started"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def lines_of(command: list[str]) -> Iterator[bytes]:
    """Return the lines that a command prints, as they come. Raises OSError.

    AnsibleModule.run_command would hold all of them in memory.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        yield from process.stdout
