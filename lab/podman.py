"""Podman, with a storage of the lab's own: the user's containers and settings are never touched."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import shell
from lab.errors import LabError
from lab.settings import Settings

# Where podman's defaults do not work: a root without CAP_SYS_RESOURCE may not raise limits, and
# crun does not know hybrid cgroups.
_OVERRIDE = """\
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
"""


# Without systemd all containers of the machine are one group, with no more of the processors than
# any one process of it: hosts would starve beside the playbooks that work on them. So the lab's
# hosts have a group of their own, whose weight is that of eight processes (version 1 counts a
# process as 1024, version 2 as 100). Hosts of a background lab have one that weighs half of a
# process.
_GROUPS_OF_HOSTS = {
    "ascent-lab": {"cpu.shares": "8192", "cpu.weight": "800"},
    "ascent-lab-background": {"cpu.shares": "512", "cpu.weight": "50"},
}
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Podman:
    """The lab's podman: one storage for all labs of the machine."""

    cache: Path
    run: Path

    @classmethod
    def of(cls, settings: Settings) -> Podman:
        """Return the podman of these settings."""
        return cls(settings.cache, settings.run)

    @property
    def _override(self) -> Path:
        return self.run / "containers.conf"

    @property
    def _env(self) -> dict[str, str] | None:
        return {"CONTAINERS_CONF": str(self._override)} if self._override.exists() else None

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (
            "podman",
            "--root",
            str(self.cache / "storage"),
            "--runroot",
            str(self.run / "storage"),
            "--tmpdir",
            str(self.run / "libpod"),
            "--storage-driver",
            "overlay",
            "--events-backend",
            "file",
            *arguments,
        )

    def __call__(
        self, *arguments: str, timeout: float | None = 120, input_text: str | None = None
    ) -> str:
        """Run `podman ARGUMENTS`. Raises CommandError."""
        command = self._command(*arguments)
        return shell.run(*command, env=self._env, timeout=timeout, input_text=input_text)

    def succeeds(self, *arguments: str) -> bool:
        """Say whether `podman ARGUMENTS` ends well."""
        return shell.succeeds(*self._command(*arguments), env=self._env)

    def image_exists(self, tag: str) -> bool:
        """Say whether an image is in the lab's storage."""
        return self.succeeds("image", "exists", tag)

    def containers(self, lab: str | None = None) -> list[dict[str, Any]]:
        """List the lab's containers (all labs' if none is named), running or not."""
        if not (self.cache / "storage").exists():
            return []
        which = f"label=ascent-lab={lab}" if lab else "label=ascent-lab"
        found = json.loads(self("ps", "--all", "--filter", which, "--format", "json") or "[]")
        return list(found or [])

    def remove(self, names: Sequence[str]) -> None:
        """Remove containers, running or not; missing ones are no error."""
        if names:
            self("rm", "--force", "--time", "0", "--ignore", "--volumes", *names)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return a container's state. Raises CommandError if it is not there."""
        return dict(json.loads(self("container", "inspect", name))[0])

    def find_setup(self, image: str) -> str:
        """Find the set-up that starts containers here. Returns its name. Raises LabError.

        Tried for real, since what a machine allows cannot be told from its looks. The answer
        holds until the machine is rebooted.
        """
        decided = self.run / "podman-works"
        if decided.exists():
            return decided.read_text().strip()
        probe = ("run", "--rm", "--network", "none", "--systemd=always", image, "/bin/true")
        self.run.mkdir(parents=True, exist_ok=True)
        self._override.unlink(missing_ok=True)
        try:
            self(*probe)
            name = "podman's defaults"
        except shell.CommandError as first:
            self._override.write_text(_OVERRIDE)
            try:
                self(*probe)
            except shell.CommandError as second:
                self._override.unlink(missing_ok=True)
                raise LabError(
                    "podman can start no container here.\n"
                    f"  with its defaults: {first.stderr}\n"
                    f"  with runc and low limits: {second.stderr}"
                ) from second
            name = "runc with low limits"
        if self("info", "--format", "{{.Host.CgroupManager}}").strip() == "cgroupfs":
            self._own_group.touch()
        decided.write_text(name + "\n")
        return name

    @property
    def _own_group(self) -> Path:
        """The file that says that hosts have a group of the lab's own: systemd gives them one."""
        return self.run / "own-group"

    def placement(self, background: bool = False) -> tuple[str, ...]:
        """Return the options of `podman create` that place a host among the machine's processes.

        background: it gives way to all that is not of the background.
        """
        if not self._own_group.exists():
            return ("--cpu-shares", "128") if background else ()
        return ("--cgroup-parent", "/ascent-lab-background" if background else "/ascent-lab")

    def weigh(self) -> None:
        """Give the groups of hosts their weights; each is there once a host of it was started."""
        if self._own_group.exists():
            for group in _groups():
                for name, weight in _GROUPS_OF_HOSTS[group.name].items():
                    if (group / name).exists():
                        (group / name).write_text(weight)

    def reset(self) -> None:
        """Remove the storage with all images."""
        if (self.cache / "storage").exists():
            self("system", "reset", "--force")
        self.forget()

    def forget(self) -> None:
        """Release what podman keeps mounted and remove its runtime files and groups."""
        for group in _groups():
            for folder in (group / "conmon", group):
                # It is not there, or somebody's process is still in it.
                with suppress(OSError):
                    folder.rmdir()
        for mounted in (self.cache / "storage" / "overlay", self.run / "storage" / "overlay"):
            if os.path.ismount(mounted):
                shell.run("umount", str(mounted))


def _groups() -> list[Path]:
    """Return the folders of the hosts' groups: one each, or one for each version 1 controller."""
    return [
        folder
        for name in _GROUPS_OF_HOSTS
        for folder in (_GROUPS / name, *_GROUPS.glob(f"*/{name}"))
        if folder.is_dir()
    ]
