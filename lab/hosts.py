"""Hosts: the containers that EC2 instances are, each driven by a thread of its own.

A database is a host as well, of another kind (`lab.databases`): what differs are methods here.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lab import shell
from lab.errors import LabError
from lab.podman import Podman
from lab.region import Link
from lab.settings import Settings

log = logging.getLogger(__name__)

BOOT_DEADLINE = 120.0  # seconds until a host that does not answer counts as impaired
_BOOT_TURN = 20.0  # seconds after which a slow boot lets the next one begin
_ENDS_LIMIT, _ENDS_WINDOW = 5, 60.0  # who ends more often within so many seconds stays down
_CONSOLE = 64 * 1024  # AWS keeps the last 64 KB of a console
_MEMORY_INTERVAL = 5.0  # seconds between two looks at a host's use of memory
STOP_DEADLINE = 30  # seconds until a host that does not shut down is killed
# SYS_ADMIN: without it systemd leaves out the sandbox of a unit without a word. SYS_BOOT: to tell
# a reboot from a shutdown. NET_ADMIN: a host may filter its packets; the groups lie outside.
_CAPABILITIES = "SYS_ADMIN,SYS_BOOT,SYS_NICE,SYS_PTRACE,NET_ADMIN,NET_RAW,IPC_LOCK,AUDIT_WRITE"
# reboot(2) in a PID namespace ends its PID 1 by SIGHUP to start again, by SIGINT to stay down.
_HALTED = 128 + signal.SIGINT


class Event(Enum):
    """What a host tells the API."""

    RUNNING = "running"
    IMPAIRED = "impaired"
    STOPPED = "stopped"
    POWERED_OFF = "powered off"
    TERMINATED = "terminated"
    FAILED = "failed"


class Order(Enum):
    """What the API tells a host."""

    START = "start"
    STOP = "stop"
    CUT_POWER = "cut power"
    REBOOT = "reboot"
    TERMINATE = "terminate"


@dataclass(frozen=True)
class Plan:
    """A host as the API describes it. Memory in MiB."""

    instance: str
    image: str
    hostname: str
    address: str
    subnet: str
    mac: str
    memory: int
    cpus: int


Report = Callable[[str, Event, str], None]
Job = Callable[[], None]


class Host:
    """One container with its own network namespace, from launch to termination."""

    # Two cores boot four hosts at a time fastest; more only wait for each other.
    _booting = threading.Semaphore(max(4, 2 * (os.cpu_count() or 2)))

    def __init__(self, plan: Plan, settings: Settings, report: Report) -> None:
        self.plan = plan
        self._settings = settings
        self._podman = Podman.of(settings)
        self._report = report
        self._link = Link(settings, plan.instance)
        self._orders: deque[Order | Job] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self._pidfd: int | None = None
        self._process = 0
        self._created_size = (plan.memory, plan.cpus)
        self._ends: list[float] = []
        self._thread = threading.Thread(target=self._drive, name=plan.instance, daemon=True)

    @property
    def container(self) -> str:
        """The container's name."""
        return self._link.namespace

    def launch(self) -> None:
        """Begin the host's life."""
        self._thread.start()

    def order(self, order: Order | Job, plan: Plan | None = None) -> None:
        """Ask for a change or any other job; `plan` says what the host shall be from now on."""
        if plan:
            self.plan = plan
        self._orders.append(order)
        os.write(self._wake_write, b".")

    def console(self) -> str:
        """Return the end of the host's journal since its boot; nothing if it is down."""
        command = ("journalctl", "--boot", "--no-pager", "--output=short", "--lines=1000")
        try:
            return self._podman("exec", self.container, *command)[-_CONSOLE:]
        except LabError:
            return ""

    # --- what kinds of hosts differ in
    def _mounts(self) -> list[str]:
        """Return what of the machine the host sees, as podman's `--volume` takes it."""
        return [f"{self._meminfo}:/proc/meminfo:ro"]

    def _answers(self) -> bool:
        """Say whether the host does what it is there for."""
        return self._link.greets(self.plan.address)

    def _interrupted(self) -> bool:
        """Say whether an order came that does not wait for an answer."""
        return bool(self._orders)

    def _settle(self) -> None:
        """Do what is left to do once the host answers, before anybody hears of it."""

    def _reboot(self) -> None:
        """Shut down and start."""
        self._stop()
        self._start()

    def _clean(self) -> None:
        """Remove the host's files."""
        self._meminfo.unlink(missing_ok=True)

    # --- the thread
    def _drive(self) -> None:
        try:
            self._create()
            self._start()
        except LabError as error:
            log.error("%s cannot be launched: %s", self.plan.instance, error)
            self._report(self.plan.instance, Event.FAILED, str(error))
        while True:
            order = self._next()
            try:
                if order is None:
                    self._ended()
                elif order is Order.TERMINATE:
                    self._terminate()
                    return
                elif isinstance(order, Order):
                    self._obey(order)
                else:
                    order()
            except LabError as error:
                log.error("%s: %s", self.plan.instance, error)
                self._report(self.plan.instance, Event.IMPAIRED, str(error))

    def _obey(self, order: Order) -> None:
        if order is Order.START:
            self._start()
        elif order in (Order.STOP, Order.CUT_POWER):
            self._stop(STOP_DEADLINE if order is Order.STOP else 0)
            self._report(self.plan.instance, Event.STOPPED, "")
        elif order is Order.REBOOT:
            self._reboot()

    def _create(self) -> None:
        plan = self.plan
        self._link.up(plan.address, plan.subnet, plan.mac)
        self._write_meminfo()
        with self._booting:
            self._podman(
                "create",
                "--name", self.container,
                "--label", f"ascent-lab={self._settings.name}",
                "--label", f"ascent-instance={plan.instance}",
                "--hostname", plan.hostname,
                "--network", f"ns:{self._link.path}",
                "--dns", "none",
                "--no-hosts",
                "--systemd", "always",
                "--cap-add", _CAPABILITIES,
                "--security-opt", "apparmor=unconfined",
                "--security-opt", "label=disable",
                "--memory", f"{plan.memory}m",
                "--cpus", str(_cpus(plan)),
                *self._podman.placement(self._settings.background),
                "--pids-limit", "-1",
                "--stop-timeout", str(STOP_DEADLINE),
                *(f"--volume={mount}" for mount in self._mounts()),
                plan.image,
                "/lib/systemd/systemd",
            )  # fmt: skip

    def _start(self) -> None:
        self._write_meminfo()
        with self._booting:
            self._podman("start", self.container)
            self._podman.weigh()
            self._resize()
            self._watch()
            answers = self._wait_for_answer(_BOOT_TURN)
        if answers is False:
            answers = self._wait_for_answer(BOOT_DEADLINE - _BOOT_TURN)
        self._welcome(answers)

    def _welcome(self, answers: bool | None) -> None:
        """Tell of a host that answers, or does not. None: it ended, or an order came first."""
        if answers is None:
            return  # both are handled by the loop
        if answers:
            self._settle()
        self._report(self.plan.instance, Event.RUNNING if answers else Event.IMPAIRED, "")

    def _resize(self) -> None:
        """Apply the plan's size: a container starts with the limits of its creation."""
        plan = self.plan
        if (plan.memory, plan.cpus) == self._created_size:
            return
        limit = f"{plan.memory}m"
        sizes = ("--memory", limit, "--cpus", str(_cpus(plan)))
        try:
            self._podman("update", *sizes, "--memory-swap", limit, self.container)
        except shell.CommandError:  # a kernel that does not count swap
            self._podman("update", *sizes, self.container)

    def _stop(self, seconds: int = STOP_DEADLINE) -> None:
        """Shut down within a time; in none, all processes are killed without a word."""
        self._unwatch()
        self._podman("stop", "--time", str(seconds), self.container, timeout=seconds + 60)

    def _terminate(self) -> None:
        self._unwatch()
        for step in (
            lambda: self._podman("stop", "--time", "10", "--ignore", self.container),
            lambda: self._podman.remove([self.container]),
            self._link.down,
        ):
            try:
                step()
            except LabError as error:
                log.error("%s: %s", self.plan.instance, error)
        self._clean()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._report(self.plan.instance, Event.TERMINATED, "")

    def _ended(self) -> None:
        """The container ended by itself: a reboot and a crash start it again."""
        self._unwatch()
        status = int(self._podman("wait", self.container).strip() or 0)
        log.info("%s ended by itself with status %s", self.plan.instance, status)
        if status < 128 or status == _HALTED:
            self._report(self.plan.instance, Event.POWERED_OFF, "")
            return
        now = time.monotonic()
        self._ends = [end for end in self._ends if now - end < _ENDS_WINDOW] + [now]
        if len(self._ends) > _ENDS_LIMIT:
            raise LabError(f"it ended {len(self._ends)} times within {_ENDS_WINDOW:.0f} s")
        self._start()

    # --- waiting
    def _watch(self) -> None:
        self._unwatch()
        process = int(self._podman.inspect(self.container)["State"]["Pid"])
        try:
            self._pidfd = os.pidfd_open(process) if process else None
            self._process = process
        except ProcessLookupError:
            self._pidfd = None
        if self._pidfd is None:
            raise LabError(f"host {self.plan.instance} ended while it started")

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _next(self) -> Order | Job | None:
        """Wait for an order; None says that the container ended."""
        while True:
            if self._poll(_MEMORY_INTERVAL):
                return None
            try:
                return self._orders.popleft()
            except IndexError:
                self._write_meminfo()

    def _poll(self, timeout: float, consume: bool = True) -> bool:
        """Wait until something happens; say whether it is the container's end."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        if self._pidfd is not None:
            poller.register(self._pidfd, select.POLLIN)
        ready = [fd for fd, _ in poller.poll(timeout * 1000)]
        if self._wake_read in ready:
            if consume:
                os.read(self._wake_read, 1)
            return False
        return self._pidfd is not None and self._pidfd in ready

    def _wait_for_answer(self, patience: float) -> bool | None:
        """Wait until it answers. None: the host ended, or an order came first."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._answers():
                return True
            if self._poll(0.1, consume=False) or self._interrupted():
                return None
        return False

    # --- memory as the host sees it
    @property
    def _meminfo(self) -> Path:
        return self._settings.state / "hosts" / f"{self.plan.instance}.meminfo"

    def _write_meminfo(self) -> None:
        """Tell the host its own size: containers see the machine's memory otherwise.

        Written in place, for the file is mounted into the host.
        """
        self._meminfo.parent.mkdir(parents=True, exist_ok=True)
        use = memory_use(self._process) if self._pidfd is not None else MemoryUse()
        self._meminfo.write_text(meminfo(self.plan.memory, use))


@dataclass(frozen=True)
class MemoryUse:
    """What a host's control group holds, in KiB."""

    processes: int = 0
    files: int = 0


def meminfo(memory: int, use: MemoryUse) -> str:
    """Return /proc/meminfo of a host with so much memory (MiB) and use of it."""
    total = memory * 1024
    values = {
        "MemTotal": total,
        "MemFree": max(total - use.processes - use.files, 0),
        "MemAvailable": max(total - use.processes, 0),
        "Buffers": 0,
        "Cached": use.files,
        "SwapCached": 0,
        "Active": use.processes,
        "Inactive": use.files,
        "SwapTotal": 0,
        "SwapFree": 0,
        "Dirty": 0,
        "AnonPages": use.processes,
        "Shmem": 0,
        "Slab": 0,
        "SReclaimable": 0,
    }
    lines = [f"{key + ':':<16}{value:>8} kB\n" for key, value in values.items()]
    return "".join(lines) + "HugePages_Total:       0\nHugepagesize:       2048 kB\n"


def memory_use(process: int) -> MemoryUse:
    """Read the use of memory of a process's control group, of either version."""
    try:
        groups = Path(f"/proc/{process}/cgroup").read_text().splitlines()
        for line in groups:
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                folder, name = Path(f"/sys/fs/cgroup/memory{path}"), "memory.usage_in_bytes"
            elif controllers == "":
                folder, name = Path(f"/sys/fs/cgroup{path}"), "memory.current"
            else:
                continue
            # systemd in the host moves itself into a group below the container's.
            while not (folder / name).exists() or folder.name in ("init.scope", "system.slice"):
                if folder == folder.parent:
                    break
                folder = folder.parent
            if not (folder / name).exists():
                continue
            used = int((folder / name).read_text()) // 1024
            stat = dict(
                entry.split() for entry in (folder / "memory.stat").read_text().splitlines()
            )
            files = int(stat.get("total_cache", stat.get("file", 0))) // 1024
            return MemoryUse(max(used - files, 0), files)
    except (OSError, ValueError):
        pass
    return MemoryUse()


def _cpus(plan: Plan) -> int:
    """Return the processors of a host: no more than the machine has, else podman refuses."""
    return min(plan.cpus, os.cpu_count() or 1)


def remove_all(settings: Settings) -> None:
    """Remove every container of the lab, whoever made it."""
    podman = Podman.of(settings)
    podman.remove([str(c["Id"]) for c in podman.containers(settings.name)])


def start_time(process: int) -> int:
    """Return when a process started, in clock ticks since boot: with its id, its full name.

    Raises OSError if it is not there, or dead and not yet buried.
    """
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(process)
    return int(fields[19])
