"""Up, status, down: from nothing to a lab that serves, and back to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import balancers, engine, hosts, image, shell
from lab.errors import LabError
from lab.machine import Machine, require_programs, require_root
from lab.podman import Podman
from lab.region import Region
from lab.settings import Settings

READY_DEADLINE = 60.0
_HERE = Path(__file__).parent.parent
Say = Callable[[str], None]

# How long what a server has begun may go on after its end.
PATIENCE_S = 10.0


class Server:
    """The server's process, known by its id and start time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, region: Region) -> None:
        """Start it inside the region, in a session of its own."""
        settings = self._settings
        process = shell.start_detached(
            *region.command(
                sys.executable, "-m", "lab.server", settings.name, str(settings.subnet),
                *(["hosts-file"] if settings.write_hosts_file else []),
                *(["background"] if settings.background else []),
                f"rds-delay={settings.rds_delay}",
                f"rds-failover-delay={settings.rds_failover_delay}",
                f"elb-log-interval={settings.elb_log_interval}",
            ),
            output=settings.log,
            env={"PYTHONPATH": str(_HERE), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        settings.pid_file.write_text(f"{process} {hosts.start_time(process)}\n")

    def process(self) -> int | None:
        """Return the server's process id if it is alive, and ours."""
        try:
            process, started = map(int, self._settings.pid_file.read_text().split())
            return process if hosts.start_time(process) == started else None
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        """End it, with what it has just begun; no error if it is dead."""
        process = self.process()
        if process is None:
            return
        handle = os.pidfd_open(process)
        try:
            for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
                signal.pidfd_send_signal(handle, number)
                if _wait(lambda: self.process() is None, patience):
                    break
            else:
                raise LabError(f"The lab's server (process {process}) does not end.")
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)
        _end_group(process)

    def status(self) -> dict[str, Any] | None:
        """Ask the server; None if it does not answer."""
        return ask(self._settings, "GET", "/_ascent/status")


def up(settings: Settings, say: Say, release: str = "trixie") -> dict[str, Any]:
    """Bring the lab up. Returns its status. Raises LabError."""
    require_root()
    require_programs(building=True)
    machine, server, region = Machine(settings), Server(settings), Region(settings)
    tag = image.build(settings, release, say)
    with machine.lock():
        standing = _standing(settings)
        if server.process() is not None:
            if standing != str(settings.subnet):
                raise LabError(
                    f"The lab '{settings.name}' stands on {standing}. "
                    f"Take it down first: python -m lab down --name {settings.name}"
                )
            status = server.status()
            if status is not None:
                say("the lab stands already")
                return status
        _refuse_overlap(settings)
        if standing is not None or region.exists() or settings.databases.exists():
            if standing is not None:
                say("the lab's server died; its state is gone; starting afresh")
            _remove(settings, say)
        podman = Podman.of(settings)
        say(f"podman works with {podman.find_setup(tag)}")
        engine.build(settings, say)
        balancers.build(settings, say)
        settings.state.mkdir(parents=True)
        settings.settings_file.write_text(
            json.dumps({"name": settings.name, "subnet": str(settings.subnet)})
        )
        try:
            say(f"making the network namespace {settings.namespace}")
            region.up()
            machine.up()
            say("starting the API, names and metadata")
            server.start(region)
            if not _wait(lambda: bool(server.status()) or server.process() is None, READY_DEADLINE):
                raise LabError(f"The server does not answer. Its log: {settings.log}")
            status = server.status()
            if status is None:
                raise LabError("The server ended:\n" + _tail(settings.log))
        except BaseException:
            kept = settings.run / f"{settings.name}-failed.log"
            if settings.log.exists():
                shutil.copy(settings.log, kept)
            _remove(settings, lambda _: None)
            raise
    say(f"ready: {settings.endpoint}")
    return status


def down(settings: Settings, say: Say, images: bool = False) -> None:
    """Take the lab down; nothing of it stays but the image, and not even that if asked so."""
    require_root()
    machine = Machine(settings)
    with machine.lock():
        _remove(settings, say)
        if not others(settings):
            machine.restore_sysctls()
            podman = Podman.of(settings)
            if images:
                say("removing the host image")
                podman.reset()
                shutil.rmtree(settings.cache, ignore_errors=True)
            else:
                podman.forget()
            shutil.rmtree(settings.run, ignore_errors=True)
        elif images:
            say("other labs stand, so the host image stays")
    say("down")


def status(settings: Settings) -> dict[str, Any]:
    """Return what stands. Raises LabError if nothing does."""
    server = Server(settings)
    found = server.status()
    if found is not None:
        return found
    if _standing(settings) is not None:
        raise LabError(
            f"The server of the lab '{settings.name}' is dead. "
            "`python -m lab up` starts afresh, `python -m lab down` cleans up."
        )
    raise LabError(f"No lab '{settings.name}' stands. Start it with: python -m lab up")


def ask(
    settings: Settings, method: str, path: str, data: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Ask the lab's own interface; None if nobody answers. Raises LabError if it refuses."""
    body = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(settings.admin + path, data=body, method=method)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise LabError(str(json.load(error).get("error", error))) from error
    except OSError:
        return None


def kill_database(settings: Settings, database: str, role: str = "primary") -> None:
    """Let the primary or the standby of a database lose its power, without a word to anybody.

    Raises LabError if there is no such server, or no lab.
    """
    wish = {"database": database, "role": role}
    if ask(settings, "POST", "/_ascent/kill-db", wish) is None:
        raise LabError(f"No lab '{settings.name}' stands. Start it with: python -m lab up")


def others(settings: Settings) -> list[str]:
    """Return the names of other labs that stand, or of which something is left."""
    found = {file.parent.name for file in settings.run.glob("*/settings.json")}
    return sorted(found - {settings.name})


def subnet_of(name: str, run: Path = Settings.run) -> str | None:
    """Return the subnet that a lab was started with."""
    file = run / name / "settings.json"
    try:
        return str(json.loads(file.read_text())["subnet"])
    except (OSError, ValueError, KeyError):
        return None


def _standing(settings: Settings) -> str | None:
    return subnet_of(settings.name, settings.run)


def _refuse_overlap(settings: Settings) -> None:
    for name in others(settings):
        if subnet_of(name, settings.run) == str(settings.subnet):
            raise LabError(
                f"The lab '{name}' has the subnet {settings.subnet}. "
                "Choose another: --subnet 198.18.<n>.0/24"
            )
    routes = shell.run("ip", "-4", "route", "show", "root", str(settings.subnet)).strip()
    foreign = [line for line in routes.splitlines() if f"dev {settings.uplink}" not in line]
    if foreign:
        raise LabError(
            f"This machine uses {settings.subnet} already ({foreign[0].strip()}). "
            "Choose another: --subnet 198.18.<n>.0/24"
        )


def _remove(settings: Settings, say: Say) -> None:
    """Remove all that bears the lab's name, in whatever state it is."""
    Server(settings).stop()
    podman = Podman.of(settings)
    left = podman.containers(settings.name)
    if left:
        say(f"removing {len(left)} host(s)")
    podman.remove([str(container["Id"]) for container in left])
    Region(settings).down()
    Machine(settings).down()
    shutil.rmtree(settings.state, ignore_errors=True)
    shutil.rmtree(settings.databases, ignore_errors=True)
    with contextlib.suppress(OSError):
        settings.databases.parent.rmdir()  # unless another lab has some


def _end_group(leader: int) -> None:
    """Wait for what a dead process has begun, such as a start of a container, or end it.

    Else what they make would come to be after the lab has gone.
    """
    if not _wait(lambda: not _alive_in(leader), PATIENCE_S):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        _wait(lambda: not _alive_in(leader), PATIENCE_S)


def _alive_in(group: int) -> bool:
    """Whether a process group has a member that is more than an entry of the dead."""
    for entry in Path("/proc").glob("[0-9]*"):
        process = int(entry.name)
        with contextlib.suppress(OSError):
            if os.getpgid(process) == group:
                hosts.start_time(process)
                return True
    return False


def _wait(condition: Callable[[], bool], deadline: float) -> bool:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _tail(file: Path, lines: int = 15) -> str:
    return "\n".join(file.read_text().splitlines()[-lines:]) if file.exists() else "(no log)"
