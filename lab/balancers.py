"""Load balancers' nodes: containers with HAProxy, kept as the API describes them, and their checks.

A node's health checks are made here, from inside of its network: so there is one judgement of a
target, in AWS's words, and HAProxy only hears who gets requests.
"""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import elb, haproxy, image
from lab.derived import Derived
from lab.errors import LabError
from lab.hosts import Event, Host, Order, Plan, Report
from lab.podman import Podman
from lab.probe import probe
from lab.region import Link
from lab.settings import Settings

log = logging.getLogger(__name__)

RECIPE = image.DATA / "haproxy"
RELEASE = "trixie"
_IMAGE = Derived(RECIPE, "haproxy", "haproxy-3.0")
_MEMORY, _CPUS = 512, 2  # MiB; AWS does not say what its nodes are
_PATIENCE = 3.0  # seconds for an answer of HAProxy, after which its node counts as dead
_RELOAD = 30.0  # seconds
_ROUND = 0.5  # seconds between two looks at a node that nobody asked for
_BEAT = 0.25  # seconds between two looks at what is due
_BACKLOG = Path("/proc/sys/net/unix/max_dgram_qlen")  # of the region's namespace
_PROBES = 32  # health checks at the same time


def build(settings: Settings, say: Callable[[str], None]) -> str:
    """Build the nodes' image unless it is there. Returns its tag. Raises LabError."""
    podman = Podman.of(settings)
    base = image.build(settings, RELEASE, say)
    tag = _IMAGE.tag(base)
    with image.lock(settings.cache):
        if not podman.image_exists(tag):
            say(f"building the load balancers' image {tag}")
            _IMAGE.make(podman, base)
            _IMAGE.remove_older(podman, tag)
    return tag


class Lines:
    """What a node's HAProxy writes of requests, until somebody takes it."""

    def __init__(self, path: Path) -> None:
        # A burst must find room: the kernel's own limit is ten datagrams.
        with suppress(OSError):
            _BACKLOG.write_text("4096")
        self._found: list[bytes] = []
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)  # HAProxy is nobody of consequence in its container
        threading.Thread(target=self._read, name=f"log-{path.parent.name}", daemon=True).start()

    def take(self) -> list[bytes]:
        """Return what came since the last time."""
        with self._lock:
            found, self._found = self._found, []
        return found

    def close(self) -> None:
        """Hear no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> None:
        with suppress(OSError):
            while line := self._socket.recv(65536):
                with self._lock:
                    self._found.append(line)


class Node(Host):
    """One container with HAProxy in it."""

    lines: Lines | None = None

    def __init__(self, plan: Plan, settings: Settings, report: Report) -> None:
        super().__init__(plan, settings, report)
        self.folder = settings.state / "balancers" / plan.instance

    # --- what a node is other than a host
    def _mounts(self) -> list[str]:
        return [*super()._mounts(), f"{self.folder}:{haproxy.FOLDER}"]

    def _answers(self) -> bool:
        return self.process() is not None

    def _create(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o711)  # to the socket for logs; its files are the owner's alone
        self.lines = Lines(self.folder / haproxy.LOG_SOCKET)
        self.write(haproxy.files(haproxy.Node()))
        super()._create()

    def _clean(self) -> None:
        super()._clean()
        if self.lines:
            self.lines.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- its HAProxy
    def process(self) -> str | None:
        """Return which process serves; None if none answers."""
        try:
            answer = self.say("show info")
        except OSError:
            return None
        lines = [line for line in answer.splitlines() if line.startswith("Pid:")]
        return lines[0] if lines else None

    def say(self, command: str, to: str = "admin.sock", patience: float = _PATIENCE) -> str:
        """Give a command and return the answer. Raises OSError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(self.folder / to))
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer.decode("utf-8", "replace")

    def tell_old(self, command: str) -> None:
        """Give a command to processes that only wait for their clients since a reload."""
        with suppress(OSError):
            _, _, old = self.say("show proc", "master.sock").partition("# old workers")
            for line in old.partition("# programs")[0].splitlines():
                if "worker" in line:
                    self.say(f"@!{line.split()[0]} {command}", "master.sock")

    def write(self, files: Mapping[str, str]) -> None:
        """Write the configuration; what it needs is there before, what it does not goes after."""
        for name in sorted(files, key=lambda each: each == "haproxy.cfg"):
            fresh = self.folder / f"{name}.new"
            fresh.touch(mode=0o600)
            fresh.write_text(files[name], newline="")
            fresh.replace(self.folder / name)

    def tidy(self, files: Mapping[str, str]) -> None:
        """Remove files that the configuration does not need any more."""
        for path in self.folder.iterdir():
            if path.suffix in (".pem", ".body", ".new") and path.name not in files:
                path.unlink()

    def reload(self) -> None:
        """Let HAProxy take up its files; who is connected stays so. Raises LabError, OSError."""
        answer = self.say("reload", "master.sock", _RELOAD)
        if not answer.startswith("Success=1"):
            raise LabError(f"HAProxy of {self.plan.instance} refuses its configuration:\n{answer}")


class Pilot:
    """The thread that keeps one node's HAProxy as the API describes it.

    wanted: what the node does; None if there is nothing to do any more. applied: told of each plan
    that is carried out. works: told when the node begins to serve, and when it ends.
    """

    def __init__(
        self,
        node: Node,
        wanted: Callable[[], haproxy.Node | None],
        applied: Callable[[haproxy.Node], None],
        works: Callable[[bool], None],
    ) -> None:
        self._node = node
        self._wanted = wanted
        self._applied = applied
        self._works = works
        self._last: haproxy.Node | None = None
        self._frame: haproxy.Node | None = None
        self._there: dict[tuple[str, str], haproxy.Server] = {}
        self._process: str | None = None
        self._told = False
        self._wake = threading.Event()
        self._ended = False
        name = f"pilot-{node.plan.instance}"
        self._thread = threading.Thread(target=self._fly, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look now: something changed."""
        self._wake.set()

    def end(self) -> None:
        """Look no more."""
        self._ended = True
        self._wake.set()

    def _fly(self) -> None:
        while not self._ended:
            try:
                self.round()
            except Exception:
                log.exception("%s cannot follow", self._node.plan.instance)
            self._wake.wait(_ROUND)
            self._wake.clear()

    def round(self) -> None:
        """Look once, and do what is to do."""
        process = self._node.process()
        if process != self._process:
            self._frame = None  # it is a new one, with whatever its files said
        self._process = process
        wanted = self._wanted()
        if wanted is None or self._ended:
            return
        well = process is not None
        if well:
            try:
                self._follow(wanted)
            except (LabError, OSError) as error:
                log.error("%s: %s", self._node.plan.instance, error)
                self._frame, well = None, False
        if well != self._told and not self._ended:
            self._told, self._last = well, None
            self._works(well)
        if well and wanted != self._last and not self._ended:
            self._last = wanted
            self._applied(wanted)

    def _follow(self, wanted: haproxy.Node) -> None:
        if self._frame != wanted.frame:
            files = haproxy.files(wanted)
            self._node.write(files)
            self._node.reload()
            self._node.tidy(files)
            self._process = self._node.process()
            self._frame, self._there = wanted.frame, dict(wanted.servers)
            return
        steps = haproxy.changes(self._there, wanted)
        if any(step.result is not None for step in steps):
            self._node.write(haproxy.files(wanted))
        for step in steps:
            said = self._node.say(step.command).strip()
            if step.result is not None and not step.result.ready:
                self._node.tell_old(step.command)
            if said == step.said:
                self._note(step)
            elif step.result is not None:
                raise LabError(f"HAProxy said to `{step.command}`: {said}")
            # A target that somebody still talks to is removed another time.

    def _note(self, step: haproxy.Change) -> None:
        log.info("%s: %s", self._node.plan.instance, step.command)
        if step.result is None:
            self._there.pop(step.key, None)
        else:
            self._there[step.key] = step.result


class Balancers:
    """All nodes of a lab (the physical layer of `lab.elb`)."""

    def __init__(
        self, settings: Settings, lock: threading.RLock, changed: Callable[[], None]
    ) -> None:
        self._tag = build(settings, lambda _: None)
        self._settings = settings
        self._lock = lock
        self._changed = changed
        self._nodes: dict[str, Node] = {}
        self._pilots: dict[str, Pilot] = {}
        self._next_delivery = self._end_of(time.time())
        self._probes = ThreadPoolExecutor(_PROBES, thread_name_prefix="probe")

    def start(self) -> None:
        """Begin to check targets."""
        threading.Thread(target=self._beat, name="health", daemon=True).start()

    # --- the physical layer (lab.elb.Physics)
    def now(self) -> float:
        """Return the time in seconds since some moment."""
        return time.monotonic()

    def addresses(self) -> set[str]:
        """Return the private addresses of all nodes that are not gone yet."""
        return {node.plan.address for node in self._nodes.values()}

    def launch(self, node: Any) -> None:
        """Make a node."""
        nic, key = node.interface, node.key
        plan = Plan(
            instance=key,
            image=self._tag,
            hostname=f"ip-{nic.private_ip_address.replace('.', '-')}",
            address=nic.private_ip_address,
            subnet=nic.subnet.cidr_block,
            mac=nic.mac_address,
            memory=_MEMORY,
            cpus=_CPUS,
        )
        made = Node(plan, self._settings, self.happened)
        self._nodes[key] = made
        self._pilots[key] = Pilot(
            made,
            lambda: self._wanted(key),
            lambda plan: self._applied(key, plan),
            lambda works: self._works(key, works),
        )
        made.launch()
        self._pilots[key].start()

    def remove(self, node: Any) -> None:
        """Shut a node down and remove it."""
        self._pilots.pop(node.key).end()
        self._nodes[node.key].order(Order.TERMINATE)

    # --- from the nodes to the API
    def happened(self, key: str, event: Event, reason: str) -> None:
        """Take up what a node's host reports; called by the hosts' threads."""
        log.info("%s is %s %s", key, event.value, reason)
        if event is Event.POWERED_OFF:
            self._nodes[key].order(Order.START)
        elif event in (Event.TERMINATED, Event.FAILED):
            with self._lock:
                if event is Event.TERMINATED:
                    self._nodes.pop(key, None)
                for backend in elb.backends():
                    backend.happened(key, event)
            self._changed()

    def wake(self) -> None:
        """Have all nodes follow what the API says now."""
        for pilot in list(self._pilots.values()):
            pilot.wake()

    def _wanted(self, key: str) -> haproxy.Node | None:
        with self._lock:
            return elb.as_node(key)

    def _applied(self, key: str, plan: haproxy.Node) -> None:
        with self._lock:
            before = elb.endpoints()
            for backend in elb.backends():
                backend.applied(key, plan)
            moved = elb.endpoints() != before
        if moved:
            self._changed()

    def _works(self, key: str, works: bool) -> None:
        log.info("%s %s", key, "serves" if works else "does not answer")
        event = Event.RUNNING if works else Event.IMPAIRED
        with self._lock:
            for backend in elb.backends():
                backend.happened(key, event)
        self._changed()

    # --- health checks
    def _beat(self) -> None:
        while True:
            try:
                self._look()
                self._collect()
            except Exception:
                log.exception("health checks or access logs stumbled")
            time.sleep(_BEAT)

    def _look(self) -> None:
        with self._lock:
            now = self.now()
            before = elb.endpoints()
            for backend in elb.backends():
                backend.tick(now)
            jobs = [(backend, job) for backend in elb.backends() for job in backend.due(now)]
            after = elb.endpoints()
        for backend, job in jobs:
            self._probes.submit(self._check, backend, job)
        if before != after:
            self._changed()

    # --- access logs
    def _collect(self) -> None:
        found = {
            key: lines
            for key, node in list(self._nodes.items())
            if node.lines and (lines := node.lines.take())
        }
        now = time.time()
        due = now >= self._next_delivery
        if not found and not due:
            return
        with self._lock:
            for backend in elb.backends():
                for key, lines in found.items():
                    backend.note(key, lines)
                if due:
                    backend.deliver(datetime.fromtimestamp(self._next_delivery, UTC))
        if due:
            self._next_delivery = self._end_of(now)

    def _end_of(self, now: float) -> float:
        """Return when the time ends that the next files are about."""
        interval = self._settings.elb_log_interval
        return (now // interval + 1) * interval

    def _check(self, backend: Any, job: elb.Job) -> None:
        outcome = probe(Link(self._settings, job.node), job.address, job.port, job.check)
        if outcome is None:
            return
        with self._lock:
            before = elb.endpoints()
            changed = backend.judge(job, outcome)
            moved = elb.endpoints() != before
        if moved:
            self._changed()
        if changed:
            log.info("%s sees %s: %s", job.node, job.target.name, outcome.description or "well")
            pilot = self._pilots.get(job.node)
            if pilot:
                pilot.wake()
