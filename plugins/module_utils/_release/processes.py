# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the background processes of a host and carries out their plan: what touches the disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ansible_collections.ascent.scaling.plugins.module_utils._release import instance
from ansible_collections.ascent.scaling.plugins.module_utils._release.host import (
    CREATING,
    HostError,
    Layout,
    folders_of,
    read_journal,
    systemctl,
    write_file,
)
from ansible_collections.ascent.scaling.plugins.module_utils._release.plan import Instance
from ansible_collections.ascent.scaling.plugins.module_utils._release.workers import (
    Standing,
    Step,
    Wanted,
)

_LOOK_PAUSE = 0.2
_MARKER = "worker.json"


class Places:
    """Where the workers of an application stand."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.base = layout.base / "workers"

    def process(self, worker: str, process: str) -> Path:
        """Return the folder of a process."""
        return Path(self.base / worker / process)

    def unit(self, worker: str, process: str = "") -> str:
        """Return the unit of a process, or of all of a worker's."""
        return f"{self.layout.application}-worker-{worker}@{process}.service"

    def unit_file(self, worker: str) -> Path:
        """Return the file of a worker's unit."""
        return Path(self.layout.root / "etc" / "systemd" / "system" / self.unit(worker))

    def read(self) -> dict[str, Standing]:
        """Return what stands on the host."""
        found = {}
        for folder in folders_of(self.base):
            file = self.unit_file(folder.name)
            inside = [item.name for item in folders_of(folder)]
            whole = [name for name in inside if (folder / name / _MARKER).exists()]
            active = self._active(folder.name)
            found[folder.name] = Standing(
                unit=file.read_text(encoding="utf-8") if file.exists() else "",
                processes={name: name in active for name in whole},
                litter=tuple(sorted(set(inside) - set(whole))),
            )
        return found

    def _active(self, worker: str) -> set[str]:
        prefix, suffix = self.unit(worker).split("@")
        listed = systemctl(
            "list-units", "--all", "--plain", "--no-legend", "--full", f"{prefix}@*{suffix}"
        ).stdout
        return {
            columns[0][len(prefix) + 1 : -len(suffix)]
            for line in listed.splitlines()
            if (columns := line.split())[2] not in ("inactive", "failed")
        }


class Change:
    """Carries out the steps of one worker after the other; each action is a method of its name."""

    def __init__(
        self,
        places: Places,
        live: Instance,
        environment: Mapping[str, str],
        wanted: Mapping[str, Wanted],
        settle: float,
    ) -> None:
        self.places = places
        self.live = live
        self.environment = {**environment, "RELEASE": live.release}
        self.wanted = wanted
        self.seconds = settle
        self.begun = time.time()

    def apply(self, plan: Mapping[str, Sequence[Step]]) -> None:
        """Do all; a worker that fails is given back its old processes and stops no other.

        Raises HostError at the end, with every failure.
        """
        failures = []
        for worker, steps in plan.items():
            try:
                for step in steps:
                    getattr(self, step.action)(worker, step.processes)
            except (HostError, OSError) as error:
                failures.append(f"{error}{self._take_back(worker, steps)}")
        if failures:
            raise HostError("\n".join(failures))

    def discard(self, worker: str, names: Sequence[str]) -> None:
        """Remove what a killed run left."""
        for name in names:
            shutil.rmtree(self.places.process(worker, name))

    def describe(self, worker: str, _: Sequence[str]) -> None:
        """Write the unit."""
        (self.places.base / worker).mkdir(parents=True, exist_ok=True)
        write_file(self.places.unit_file(worker), self.wanted[worker].unit, 0o644)
        systemctl("daemon-reload", check=True)

    def create(self, worker: str, names: Sequence[str]) -> None:
        """Lay down processes, each whole or not at all."""
        application, release = self.places.layout.application, self.live.release
        command = self.wanted[worker].command
        for name in names:
            final = self.places.process(worker, name)
            made = Path(tempfile.mkdtemp(prefix=CREATING, dir=final.parent))
            made.chmod(0o755)
            (made / "release").symlink_to(f"../../../releases/{release}")
            text = instance.render_environment(self.environment)
            write_file(made / "environment", text, 0o640, application)
            folder = str(self.places.layout.release(release))
            start = instance.render_start(command, self.live.path, folder)
            write_file(made / "start", start, 0o755)
            write_file(made / _MARKER, "{}\n", 0o644)
            made.rename(final)

    def stop(self, worker: str, names: Sequence[str]) -> None:
        """Let processes end their jobs, all at the same time."""
        units = [self.places.unit(worker, name) for name in names]
        systemctl("stop", *units, check=True)
        systemctl("reset-failed", *units)

    def start(self, worker: str, names: Sequence[str]) -> None:
        """Start processes; what does not even start is told by `settle`."""
        systemctl("start", *(self.places.unit(worker, name) for name in names))

    def settle(self, worker: str, names: Sequence[str]) -> None:
        """Wait until processes have run for a while without dying."""
        deadline = time.monotonic() + self.seconds
        while True:
            for name in names:
                unit = self.places.unit(worker, name)
                told = systemctl("show", "--property=ActiveState,NRestarts", unit).stdout
                shown = dict(line.split("=", 1) for line in told.splitlines())
                state, restarts = shown["ActiveState"], shown["NRestarts"]
                if restarts != "0" or state != "active":
                    raise HostError(
                        f"The worker {worker} of release {self.live.release} does not stay up: "
                        f"{unit} is {state}, after {restarts} restart(s). Its journal:\n"
                        f"{read_journal(unit, self.begun) or '(empty)'}\n"
                    )
            if time.monotonic() > deadline:
                return
            time.sleep(_LOOK_PAUSE)

    def remove(self, worker: str, names: Sequence[str]) -> None:
        """Remove processes that no longer run, with the secrets in their environment."""
        for name in names:
            (self.places.process(worker, name) / _MARKER).unlink()
            shutil.rmtree(self.places.process(worker, name))

    def forget(self, worker: str, _: Sequence[str]) -> None:
        """Remove what is left of a worker."""
        self.places.unit_file(worker).unlink(missing_ok=True)
        shutil.rmtree(self.places.base / worker)
        systemctl("daemon-reload", check=True)

    def _take_back(self, worker: str, steps: Sequence[Step]) -> str:
        """Let the old processes run again; returns what then stands."""
        new = {name for step in steps if step.action == "create" for name in step.processes}
        old = [name for step in steps if step.action == "stop" for name in step.processes]
        with suppress(HostError, OSError):
            if old and new:
                self.stop(worker, sorted(new))
                self.remove(worker, sorted(new))
                self.start(worker, old)
                return f"The worker's old processes run again ({', '.join(old)})."
        return (
            f"It is started again and again (systemctl status '{self.places.unit(worker, '*')}')."
        )
