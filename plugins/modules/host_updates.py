#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which updates a Debian host lacks, and what still runs with replaced files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_updates
short_description: Tell which updates a Debian host lacks, and what runs with replaced files
version_added: 0.1.0
description:
  - Asks apt which packages it would upgrade, and which of them interrupt what serves.
  - Looks at the processes that run for files that an upgrade has replaced since they started, and
    names their units.
  - It reads only. The lists of packages must be fresh (M(ansible.builtin.apt), C(update_cache)).
options:
  security_only:
    description: Whether only updates from Debian's security archive count.
    type: bool
    default: true
attributes:
  check_mode:
    description: It reads only.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Ask for security updates
  ascent.scaling.host_updates:
  register: updates
"""

RETURN = r"""
updates:
  description: The packages that would be upgraded.
  returned: always
  type: list
  elements: dict
  contains:
    package: {description: Its name., type: str}
    installed: {description: The version that is there., type: str}
    available: {description: The version that would be., type: str}
    interrupts:
      description:
        - V(reboot) - it takes effect with a reboot of the host alone. V(restart) - its installation
          restarts a server that holds connections. Empty - neither.
      type: str
reboot_needed:
  description: Why the host needs a reboot now; empty if it does not.
  returned: always
  type: str
  sample: the kernel 6.12.48 runs, 6.12.57 is installed
outdated_units:
  description: Units with a process that still uses files that were replaced.
  returned: always
  type: list
  elements: str
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# `Inst openssl [3.5.1-1] (3.5.1-1+deb13u1 Debian-Security:13/stable-security [amd64])`, and more
# origins, separated by commas.
INST = re.compile(r"^Inst (\S+) (?:\[(\S+)\] )?\((\S+) (.*?) \[\S+\]\)")
SECURITY = re.compile(r"Debian-Security:|/\S+-security(?:,|$)")
# Debian's maintainer scripts restart these servers when they are upgraded.
RESTARTS = re.compile(r"(postgresql-\d+|pgbouncer|valkey-server|redis-server|memcached)$")
REBOOTS = re.compile(r"(linux-image-.*|libc6|systemd|dbus)$")
UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")


def interruption(package: str) -> str:
    """Return what the upgrade of a package interrupts."""
    if REBOOTS.match(package):
        return "reboot"
    return "restart" if RESTARTS.match(package) else ""


def parse(text: str, security_only: bool) -> list[dict[str, str]]:
    """Return the upgrades that apt's simulation tells; new packages are none."""
    found = []
    for line in text.splitlines():
        match = INST.match(line)
        if not match or not match[2]:
            continue
        if security_only and not SECURITY.search(match[4]):
            continue
        found.append(
            {
                "package": match[1],
                "installed": match[2],
                "available": match[3],
                "interrupts": interruption(match[1].split(":")[0]),
            }
        )
    return sorted(found, key=lambda item: item["package"])


def newer(kernels: list[str], running: str) -> str:
    """Return the newest installed kernel if it is another one than runs, else nothing."""

    def order(name: str) -> list[tuple[int, Any]]:
        parts = re.findall(r"\d+|[^\d]+", name)
        return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]

    newest = max(kernels, key=order, default="")
    return newest if running in kernels and newest != running else ""


def reboot_needed(root: Path, running: str) -> str:
    """Return why a reboot is needed, nothing if none is."""
    if (root / "run/reboot-required").exists():
        try:
            packages = (root / "run/reboot-required.pkgs").read_text().split()
        except OSError:
            packages = []
        return f"packages ask for it: {', '.join(sorted(set(packages))) or 'no names given'}"
    kernels = [path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")]
    newest = newer(kernels, running)
    return f"the kernel {running} runs, {newest} is installed" if newest else ""


def outdated_units(proc: Path) -> list[str]:
    """Return the units of processes that have a replaced program or library mapped."""
    units = set()
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            maps = (folder / "maps").read_text()
            group = (folder / "cgroup").read_text()
        except OSError:  # it has ended meanwhile
            continue
        replaced = re.search(r" r?.x\S* .* /(?:usr|lib|bin|sbin)\S* \(deleted\)$", maps, re.M)
        match = UNIT.search(group)
        if replaced and match:
            units.add(match[1])
    return sorted(units)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"security_only": {"type": "bool", "default": True}},
        supports_check_mode=True,
    )
    done = subprocess.run(
        ["apt-get", "--simulate", "--quiet=2", "dist-upgrade"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        module.fail_json(
            msg="apt cannot tell what it would upgrade: "
            f"{done.stderr.strip()}. Mend the packages of the host first (apt-get check)"
        )
    module.exit_json(
        changed=False,
        updates=parse(done.stdout, module.params["security_only"]),
        reboot_needed=reboot_needed(Path("/"), os.uname().release),
        outdated_units=outdated_units(Path("/proc")),
    )


if __name__ == "__main__":
    main()
