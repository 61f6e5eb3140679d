# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the releases of a host and carries out a plan: everything that touches the disk.

Safe to be killed at any point. Nothing that serves is changed in place: a release counts as
built once its marker file is there, an instance is renamed into place as a whole, and the switch
is one rename of one link, `live`, to which every other path leads. A run that follows sees what
stands and goes on from there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ansible_collections.ascent.scaling.plugins.module_utils._release import health, instance
from ansible_collections.ascent.scaling.plugins.module_utils._release.plan import (
    Desired,
    Found,
    Instance,
    Plan,
    Release,
    Step,
)

MARKER = ".ascent-release.json"
_MIGRATED = ".ascent-migrated"
CREATING = ".creating-"
# Below the ports that kernels give to clients (ip_local_port_range begins at 32768) and above
# those of the services that hosts run.
_PORTS = range(20000, 21000)
# The switch leads new connections away at once; one that was under way shows within
# microseconds. Idle three times in a row, 50 ms apart, is idle.
_IDLE_LOOKS, _IDLE_PAUSE = 3, 0.05
_GATE_PAUSE = 0.2
_HEALTHY_IN_A_ROW = 2
_DEATHS_UNTIL_HOPELESS = 3
_TAIL_LINES = 40


# The cause stands where the first attempt broke; what the restarts after it say comes last.
_FIRST_LINES, _LAST_LINES = 60, 15


def excerpt(text: str) -> str:
    """Return the first and the last lines of a long text, and how many are left out."""
    lines = text.splitlines()
    left_out = len(lines) - _FIRST_LINES - _LAST_LINES
    if left_out <= 0:
        return text
    return "\n".join([*lines[:_FIRST_LINES], f"… {left_out} lines …", *lines[-_LAST_LINES:]])


class HostError(Exception):
    """A step failed; the message says what still serves."""


@dataclass(frozen=True)
class Layout:
    """Where everything of an application stands."""

    application: str
    root: Path = Path("/")

    @property
    def base(self) -> Path:
        """Return the folder of the application."""
        return self.root / "srv" / self.application

    @property
    def live(self) -> Path:
        """Return the link that names the live instance."""
        return self.base / "live"

    def release(self, name: str) -> Path:
        """Return the folder of a release."""
        return self.base / "releases" / name

    def instance(self, name: str) -> Path:
        """Return the folder of an instance."""
        return self.base / "instances" / name

    def socket(self, name: str) -> Path:
        """Return the socket of an instance."""
        return self.root / "run" / self.application / "instances" / f"{name}.sock"

    def unit(self, name: str) -> str:
        """Return the unit of an instance."""
        return f"{self.application}@{name}.service"


@dataclass(frozen=True)
class Settings:
    """How to carry out the steps."""

    user: str
    build: tuple[str, ...] = ()
    build_environment: Mapping[str, str] = field(default_factory=dict)
    build_timeout: float = 1800
    migrate: str = ""
    migrate_timeout: float = 1800
    migrate_environment: Mapping[str, str] = field(default_factory=dict)
    start: str = ""
    listen: str = "socket"
    path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secret: tuple[str, ...] = ()  # the names of those that are secret
    archive: str = ""
    health_path: str = "/"
    health_host: str = "localhost"
    health_timeout: float = 60
    drain_timeout: float = 60


@contextmanager
def locked(layout: Layout, timeout: float) -> Iterator[IO[str]]:
    """Hold the only right to change the releases of an application on this host.

    The lock ends with the last process that holds its file: builds and migrations inherit it,
    so that one left over by a killed run is waited for, never joined by a second.
    Raises HostError when it is not free in time.
    """
    layout.base.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with (layout.base / ".lock").open("a+", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    lock.seek(0)
                    holder = lock.read().strip() or "without a name"
                    raise HostError(
                        f"Another deployment ({holder}) holds {lock.name} and did not end within "
                        f"{timeout:.0f} s; nothing was changed"
                    ) from None
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} since {time.strftime('%FT%TZ', time.gmtime())}\n")
        lock.flush()
        yield lock


def read(layout: Layout) -> Found:
    """Return what stands on the host; a host without the application is empty."""
    releases, instances, litter = {}, {}, []
    for folder in folders_of(layout.base / "releases"):
        releases[folder.name] = _read_release(folder)
    for folder in folders_of(layout.base / "instances"):
        found = None if folder.name.startswith(CREATING) else _read_instance(folder)
        if found is None:
            litter.append(f"instances/{folder.name}")
        else:
            instances[folder.name] = found
    live = Path(os.readlink(layout.live)).name if layout.live.is_symlink() else ""  # noqa: PTH115
    return Found(
        releases=releases,
        instances=instances,
        live=live,
        running=frozenset(_running(layout)),
        litter=tuple(litter),
        in_use=frozenset(
            Path(os.readlink(link)).name  # noqa: PTH115
            for link in layout.base.glob("workers/*/*/release")
        ),
    )


def read_environment(layout: Layout, name: str) -> dict[str, str]:
    """Return the environment of an instance, but for what is its own."""
    path = layout.instance(name) / "environment"
    if not name or not path.exists():
        return {}
    values = instance.parse_environment(path.read_text(encoding="utf-8"))
    own = {*instance.RESERVED}
    if (path.parent / "port").exists():
        own |= {"PORT"} | ({"HOST"} if values.get("HOST") == instance.LOOPBACK else set())
    return {key: value for key, value in values.items() if key not in own}


def folders_of(parent: Path) -> list[Path]:
    """Return the folders in a folder, which need not be there."""
    if not parent.is_dir():
        return []
    return sorted(item for item in parent.iterdir() if item.is_dir() and not item.is_symlink())


def _read_release(folder: Path) -> Release:
    marker = folder / MARKER
    try:
        told = json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return Release(folder.name, built=False)
    return Release(
        folder.name,
        digest=told["digest"],
        migrated=(folder / _MIGRATED).exists(),
        used_at=marker.stat().st_mtime,
    )


def _read_instance(folder: Path) -> Instance | None:
    try:
        told = json.loads((folder / "instance.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    lists = {key: tuple(told.pop(key, ())) for key in ("path", "secret")}
    return Instance(folder.name, **told, **lists)


def _running(layout: Layout) -> list[str]:
    prefix, suffix = f"{layout.application}@", ".service"
    listed = systemctl(
        "list-units", "--all", "--plain", "--no-legend", "--full", f"{prefix}*{suffix}"
    ).stdout
    return [
        columns[0][len(prefix) : -len(suffix)]
        for line in listed.splitlines()
        if (columns := line.split())[2] not in ("inactive", "failed")
    ]


def systemctl(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run systemctl; with `check` a failure raises HostError."""
    # No deadline here: systemd has its own for each job.
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise HostError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done


def read_journal(unit: str, since: float) -> str:
    """Return what a unit wrote since a moment (epoch), the middle left out if it is long."""
    subprocess.run(["journalctl", "--sync"], capture_output=True, check=False, timeout=60)
    command = ["journalctl", "--no-pager", "--quiet", "--output=short-iso", f"--unit={unit}"]
    command += ["--lines=2000", f"--since=@{since:.6f}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return excerpt(done.stdout.strip())


class Deployment:
    """Carries out a plan. Each action of a `Step` is a method of its name."""

    def __init__(
        self,
        layout: Layout,
        desired: Desired,
        settings: Settings,
        plan: Plan,
        found: Found,
        lock: IO[str],
    ) -> None:
        self.layout = layout
        self.desired = desired
        self.settings = settings
        self.plan = plan
        self.found = found
        self.lock = lock
        self.begun = time.time()
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self._actions: dict[str, Callable[[str], None]] = {
            "discard": self.discard,
            "build": self.build,
            "migrate": self.migrate,
            "create": self.create,
            "start": self.start,
            "gate": self.gate,
            "switch": self.switch,
            "drain": self.drain,
            "stop": self.stop,
            "remove": self.remove,
            "prune": self.prune,
        }

    def apply(self) -> None:
        """Do every step in its order; raises HostError at the first that fails."""
        for step in self.plan.steps:
            self._do(step)

    def _do(self, step: Step) -> None:
        begun = time.monotonic()
        try:
            self._actions[step.action](step.target)
        except (OSError, LookupError) as error:
            raise HostError(f"{step}: {error}. {self._serving()}") from error
        seconds = self.facts.setdefault("seconds", {})
        seconds[step.action] = round(seconds.get(step.action, 0.0) + time.monotonic() - begun, 3)

    def discard(self, path: str) -> None:
        """Remove what a killed run left."""
        shutil.rmtree(self.layout.base / path)

    def build(self, name: str) -> None:
        """Unpack and build a release where it will stand (a venv knows its own path)."""
        folder = self.layout.release(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o755)
        shutil.chown(folder, self.settings.user, self.settings.user)
        try:
            self._run(
                ["tar", "-xzf", "-", "--no-same-owner"],
                "unpacking the source",
                folder,
                self._build_environment(name),
                self.settings.build_timeout,
                source=Path(self.settings.archive),
            )
            for command in self.settings.build:
                self._run(
                    ["/bin/sh", "-c", command],
                    f"the build command `{command}`",
                    folder,
                    self._build_environment(name),
                    self.settings.build_timeout,
                )
        except HostError:
            shutil.rmtree(folder)
            raise
        _give_to_root(folder)
        told = {"release": name, "digest": self.desired.digest, "built_at": time.time()}
        os.sync()  # the marker must not survive a power cut that its release did not
        write_file(folder / MARKER, json.dumps(told) + "\n", 0o644)

    def migrate(self, name: str) -> None:
        """Run the release's migration once, while the old release serves."""
        self._run(
            ["/bin/sh", "-c", self.settings.migrate],
            f"the migration `{self.settings.migrate}`",
            self.layout.release(name),
            self._process_environment(name)
            | dict(self.settings.environment)
            | dict(self.settings.migrate_environment)
            | {"RELEASE": name},
            self.settings.migrate_timeout,
        )
        write_file(self.layout.release(name) / _MIGRATED, "", 0o644)

    def create(self, name: str) -> None:
        """Lay down the instance, whole or not at all."""
        layout, release = self.layout, self.desired.release
        final = layout.instance(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=CREATING, dir=final.parent))
        made.chmod(0o755)
        values = {
            **self.settings.environment,
            "RELEASE": release,
            "SOCKET": str(layout.socket(name)),
        }
        if self.settings.listen == "port":
            port = _free_port(layout)
            values = {"HOST": instance.LOOPBACK, **values, "PORT": str(port)}
            write_file(made / "port", f"PORT={port}\n", 0o644)
        (made / "release").symlink_to(f"../../releases/{release}")
        (made / "socket").symlink_to(layout.socket(name))
        write_file(
            made / "environment", instance.render_environment(values), 0o640, self.settings.user
        )
        start = instance.render_start(
            self.settings.start, self.settings.path, str(layout.release(release))
        )
        write_file(made / "start", start, 0o755)
        live = self.found.live_instance
        told = {
            "release": release,
            "checksum": self.desired.checksum,
            "previous": self.plan.previous,
            "rolled_back": self.desired.rollback
            or bool(live and live.release == release and live.rolled_back),
            "path": self.settings.path,
            "secret": self.settings.secret,
        }
        write_file(made / "instance.json", json.dumps(told) + "\n", 0o600)
        made.rename(final)

    def start(self, name: str) -> None:
        """Start the unit of an instance beside the one that serves."""
        unit = self.layout.unit(name)
        systemctl("reset-failed", unit)
        if "yes" in systemctl("show", "-P", "NeedDaemonReload", unit).stdout:
            systemctl("daemon-reload", check=True)
        done = systemctl("start", unit)
        if done.returncode:
            self._give_up(name, f"its unit did not start: {done.stderr.strip()}")

    def gate(self, name: str) -> None:
        """Let an instance pass once it answers healthy, twice in a row."""
        settings = self.settings
        begun = time.monotonic()
        good, answer, deaths = 0, health.Answer(False, "it was not asked"), 0
        while good < _HEALTHY_IN_A_ROW:
            left = settings.health_timeout - (time.monotonic() - begun)
            if left <= 0:
                self._give_up(
                    name,
                    f"{settings.health_path} did not answer healthy within "
                    f"{settings.health_timeout:.0f} s; its last answer: {answer.text}",
                )
            if deaths >= _DEATHS_UNTIL_HOPELESS:
                self._give_up(
                    name, f"it died {deaths} times while starting; its last answer: {answer.text}"
                )
            answer = health.ask(
                str(self.layout.socket(name)),
                settings.health_path,
                settings.health_host,
                min(max(left, 1.0), 10.0),
            )
            good = good + 1 if answer.healthy else 0
            if good < _HEALTHY_IN_A_ROW:
                time.sleep(_GATE_PAUSE)
                shown = systemctl("show", "-P", "NRestarts", self.layout.unit(name)).stdout
                deaths = int(shown.strip() or 0)

    def switch(self, name: str) -> None:
        """Lead everything to the instance: one rename of one link."""
        os.utime(self.layout.release(self.desired.release) / MARKER)
        fresh = self.layout.base / ".live.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f"instances/{name}")
        fresh.rename(self.layout.live)
        self.facts["switched_at"] = time.time()

    def drain(self, name: str) -> None:
        """Wait until no connection of an instance is left."""
        path = str(self.layout.socket(name))
        deadline = time.monotonic() + self.settings.drain_timeout
        idle = 0
        while idle < _IDLE_LOOKS:
            left = health.open_connections(path)
            idle = 0 if left else idle + 1
            if left and time.monotonic() > deadline:
                self.warnings.append(
                    f"{self.layout.unit(name)} still had {left} connection(s) open after "
                    f"{self.settings.drain_timeout:.0f} s and was stopped"
                )
                return
            time.sleep(_IDLE_PAUSE)

    def stop(self, name: str) -> None:
        """Stop the unit of an instance gracefully."""
        systemctl("stop", self.layout.unit(name), check=True)
        systemctl("reset-failed", self.layout.unit(name))

    def remove(self, name: str) -> None:
        """Remove an instance that no longer runs, with the secrets in its environment."""
        # Out of the namespace first, so that a killed run leaves litter and not half an instance.
        gone = self.layout.base / "instances" / f"{CREATING}{name}-removed"
        self.layout.instance(name).rename(gone)
        shutil.rmtree(gone)
        self.layout.socket(name).unlink(missing_ok=True)

    def prune(self, name: str) -> None:
        """Remove a release that is no longer kept: its marker first."""
        (self.layout.release(name) / MARKER).unlink()
        shutil.rmtree(self.layout.release(name))

    def _give_up(self, name: str, why: str) -> None:
        """Take a failed instance away, say why and what serves."""
        unit = self.layout.unit(name)
        result = systemctl("show", "-P", "Result", unit).stdout.strip()
        journal = read_journal(unit, self.begun)
        if name != self.found.live:
            with suppress(HostError):
                self.stop(name)
            self.remove(name)
        raise HostError(
            f"Release {self.desired.release} did not come up as {unit}"
            f"{'' if result == 'success' else f' ({result})'}: {why}. {self._serving()} "
            f"Its journal:\n{journal or '(empty)'}"
        )

    def _serving(self) -> str:
        live = self.found.live_instance
        if "switched_at" in self.facts:
            return f"Release {self.desired.release} is live."
        if live is None:
            return "No release is live yet."
        if live.name == self.plan.instance:
            return f"Release {live.release} is the live one, so nothing serves."
        return f"Release {live.release} goes on serving, nothing was switched."

    def _process_environment(self, name: str) -> dict[str, str]:
        folders = [str(self.layout.release(name) / part) for part in self.settings.path]
        home = self.layout.root / "var" / "cache" / self.layout.application
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": ":".join([*folders, system]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "XDG_CACHE_HOME": str(home),
        }

    def _build_environment(self, name: str) -> dict[str, str]:
        given = dict(self.settings.build_environment)
        return self._process_environment(name) | given | {"RELEASE": name}

    def _run(
        self,
        command: Sequence[str],
        what: str,
        folder: Path,
        environment: Mapping[str, str],
        timeout: float,
        source: Path | None = None,
    ) -> None:
        """Run a command as the application's user; raises HostError with the end of its words."""
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output,
            (source or Path("/dev/null")).open("rb") as stdin,
        ):
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                user=self.settings.user,
                group=self.settings.user,
                extra_groups=[],
                umask=0o022,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[self.lock.fileno()],
            )
            try:
                code: int | str = process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = f"no end within {timeout:.0f} s"
            finally:
                # What it left in the background would hold the lock.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            tail = "".join(output.readlines()[-_TAIL_LINES:]).strip()
        if code != 0:
            raise HostError(
                f"Release {self.desired.release}: {what} failed ({code}). {self._serving()} "
                f"The end of its output:\n{tail or '(nothing)'}"
            )


def _free_port(layout: Layout) -> int:
    """Return a port of the loopback address that no instance has, of any application here."""
    noted = (layout.root / "srv").glob("*/instances/*/port")
    taken = {path.read_text(encoding="utf-8").strip().partition("=")[2] for path in noted}
    for port in _PORTS:
        if str(port) in taken:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((instance.LOOPBACK, port))
            return port
    raise HostError(f"No port from {_PORTS[0]} to {_PORTS[-1]} is free at {instance.LOOPBACK}")


def write_file(path: Path, text: str, mode: int, group: str | None = None) -> None:
    """Write a file whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    if group:
        shutil.chown(fresh, group=group)
    fresh.chmod(mode)
    fresh.rename(path)


def _give_to_root(folder: Path) -> None:
    """Make a release unchangeable for the application that runs it."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files, "."):
            path = Path(parent) / name
            os.chown(path, 0, 0, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755 | 0o444)
