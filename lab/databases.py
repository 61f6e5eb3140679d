"""Databases: the containers that RDS instances are, their storage and their backups.

An instance's storage lies on the machine and outlives the container's processes; a snapshot is a
physical copy of it, taken by `pg_basebackup` from the running server. The archive holds closed
segments of the write-ahead log, from which a restore to a point in time is made.

A Multi-AZ instance has two of them, the second one a standby that PostgreSQL keeps; who watches
over both is in `lab.pairs`.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import engine, postgres, rds, shell
from lab.authority import Authority
from lab.errors import LabError
from lab.hosts import BOOT_DEADLINE, STOP_DEADLINE, Event, Host, Order, Plan, Report
from lab.pairs import Pilot
from lab.session import Session
from lab.settings import Settings

log = logging.getLogger(__name__)

_UNIT, _MEMBERSHIP = "ascent-rds.service", "ascent-rds-membership.service"
_PROGRAMS = "/usr/libexec/ascent-rds/bin"
_BACKUP_LIMIT = 3600.0  # seconds
_PROMOTION_LIMIT = 60  # seconds
# A server that ended so often within so many seconds has a configuration that it refuses.
_PATIENCE, _ENDS = 5.0, 5


@dataclass(frozen=True)
class DatabasePlan(Plan):
    """A database as the API describes it; `place` is its place in a Multi-AZ instance."""

    port: int = 5432
    endpoint: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    archive: str = ""
    archives: bool = True
    place: postgres.Place | None = None

    @property
    def follows(self) -> bool:
        """Say whether it is a standby."""
        return self.place is not None and self.place.follows


class Database(Host):
    """One container with PostgreSQL in it, from creation to deletion.

    original: the storage that a standby is a copy of; it becomes the standby's.
    """

    plan: DatabasePlan

    def __init__(
        self,
        plan: DatabasePlan,
        settings: Settings,
        report: Report,
        sql: str,
        source: rds.Source | None,
        original: Path | None = None,
    ) -> None:
        super().__init__(plan, settings, report)
        self._sql = sql
        self._source = source
        self._original = original
        self._size = (0, 0)
        self._writing = threading.Lock()
        # It ended by itself, and stays so until the watch over its pair says what shall be.
        self.ended = False

    @property
    def folder(self) -> Path:
        """The instance's storage."""
        return self._settings.databases / self.plan.instance

    def session(self) -> Session:
        """Return a superuser's session, for one thread."""
        return Session(self.folder / "out" / f".s.PGSQL.{self.plan.port}")

    # --- what a database is other than a host
    def _mounts(self) -> list[str]:
        shelf = archive(self._settings, self.plan.archive)
        return [
            *super()._mounts(),
            f"{self.folder}:{postgres.HOME}",
            f"{shelf}:{postgres.HOME}/wal",
        ]

    def _answers(self) -> bool:
        hello = postgres.startup(postgres.ADMIN, postgres.ADMIN)
        reply = self._link.ask(self.plan.address, self.plan.port, hello)
        return postgres.follows(reply) if self.plan.follows else postgres.serves(reply)

    def _interrupted(self) -> bool:
        if any(isinstance(order, Order) for order in tuple(self._orders)):
            return True
        if self._orders:
            time.sleep(0.1)  # jobs wait for the answer, and their alarm keeps ringing
        return False

    def _wait_for_answer(self, patience: float) -> bool | None:
        deadline = time.monotonic() + patience
        while True:
            left = deadline - time.monotonic()
            answers = super()._wait_for_answer(min(left, _PATIENCE))
            if answers is not False or left <= _PATIENCE or self._fails():
                return answers

    def _fails(self) -> bool:
        """Say whether the server ends again and again: then it is of no use to wait for it."""
        shown = ("systemctl", "show", "--value", "--property=NRestarts", _UNIT)
        try:
            return int(self._inside(*shown)) >= _ENDS
        except (LabError, ValueError):
            return False

    def _settle(self) -> None:
        if self._sql:
            self.run_sql(self._sql)
            self._sql = ""
        shutil.rmtree(self.folder / "restore", ignore_errors=True)
        if self.plan.follows:
            self._inside("systemctl", "stop", _MEMBERSHIP)  # it serves nobody
        self.linger()

    def _create(self) -> None:
        self._lay_out()
        super()._create()

    def _start(self) -> None:
        self._configure()
        self._size = (self.plan.memory, self.plan.cpus)
        self._link.mend(self.plan.address)
        self.ended = False
        super()._start()

    def _ended(self) -> None:
        """Tell its pair's watch, if it has one: another server may have taken its place."""
        if self.plan.place is None:
            super()._ended()
            return
        self._unwatch()
        log.warning("%s ended by itself", self.plan.instance)
        self.ended = True

    def _stop(self, seconds: int = STOP_DEADLINE) -> None:
        super()._stop(seconds)
        self.linger()

    def _reboot(self) -> None:
        """Start the server anew, as RDS does; the host as well if its class is another."""
        if self._pidfd is None or self._size != (self.plan.memory, self.plan.cpus):
            super()._reboot()
            return
        self._inside("systemctl", "stop", _UNIT)
        self._configure()
        self._inside("systemctl", "start", "--no-block", _UNIT)
        self._welcome(self._wait_for_answer(BOOT_DEADLINE))

    def _clean(self) -> None:
        super()._clean()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.linger()

    # --- jobs; they run in the database's thread
    def next_sql(self, sql: str) -> None:
        """Let the next start run this, before anybody hears of it."""
        self._sql += sql

    def run_sql(self, sql: str) -> None:
        """Let the superuser run a script. Raises LabError."""
        self._inside(
            f"{_PROGRAMS}/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1",
            "-U", postgres.ADMIN, "-d", "postgres", "-f", "-",
            input_text=sql,
        )  # fmt: skip

    def reload(self) -> None:
        """Let the server read its configuration again. Raises LabError."""
        self._configure()
        if self._pidfd is not None:
            self._inside("systemctl", "reload", _UNIT)

    def back_up(self, name: str) -> None:
        """Copy the storage into a backup; of a stopped server its files alone. Raises LabError."""
        target = backup(self._settings, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._pidfd is None:
            _copy(self.folder / "db", target)
            return
        self._copy_running(name)
        (self.folder / "out" / name).rename(target)

    # --- what the watch over a pair does; in its own thread
    def copy(self, name: str) -> Path:
        """Copy the storage of a running server for a standby; return where. Raises LabError."""
        self._copy_running(name)
        return self.folder / "out" / name

    def vanish(self) -> None:
        """Let the server end as if its host had lost power: nobody hears a word of it."""
        self._link.cut(self.plan.address)
        self.kill()

    def kill(self) -> None:
        """End everything on the server at once; no error if it has ended. Raises LabError."""
        self._podman("stop", "--time", "0", self.container)

    def promote(self, plan: DatabasePlan, afresh: bool) -> None:
        """Make a standby the primary; `afresh`: with parameters that need a start.

        Raises LabError; then it is a standby still, or the promotion is under way.
        """
        if afresh:
            self._inside("systemctl", "stop", _UNIT)
            self._configure()
            self._inside("systemctl", "start", _UNIT)
        if not self._promoted():
            seconds = str(_PROMOTION_LIMIT)
            self._inside(
                "runuser", "--user=postgres", "--", f"{_PROGRAMS}/pg_ctl", "promote",
                "--pgdata", f"{postgres.HOME}/db", "--wait", "--timeout", seconds,
            )  # fmt: skip
        self.plan = plan
        self.reload()
        self._inside("systemctl", "start", "--no-block", _MEMBERSHIP)

    def _promoted(self) -> bool:
        return not (self.folder / "db" / "standby.signal").exists()

    def linger(self) -> None:
        """Take as much longer as the lab's user wants."""
        time.sleep(self._settings.rds_delay)

    def _copy_running(self, name: str) -> None:
        self._inside(
            "runuser", "--user=postgres", "--", f"{_PROGRAMS}/pg_basebackup",
            "-U", postgres.ADMIN, "-D", f"{postgres.HOME}/out/{name}",
            "--wal-method=stream", "--checkpoint=fast", "--no-sync",
            timeout=_BACKUP_LIMIT,
        )  # fmt: skip

    # --- its files
    def _inside(
        self, *command: str, input_text: str | None = None, timeout: float | None = 120
    ) -> str:
        interactive = ("--interactive",) if input_text is not None else ()
        port = ("--env", f"PGPORT={self.plan.port}")
        return self._podman(
            "exec", *interactive, *port, self.container, *command,
            input_text=input_text, timeout=timeout,
        )  # fmt: skip

    def _lay_out(self) -> None:
        """Make the storage: its certificate, and the data of its source."""
        # What databases hold is root's to see.
        self._settings.databases.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "config").mkdir(parents=True)
        archive(self._settings, self.plan.archive).mkdir(parents=True, exist_ok=True)
        self._certify()
        data = self.folder / "db"
        if self._original is not None:
            self._original.rename(data)
            (data / "standby.signal").touch()
        if self._source is None:
            return
        _copy(backup(self._settings, self._source.backup), data)
        # Nothing but the lab writes this file: ALTER SYSTEM is not for the master user.
        recovery = data / "postgresql.auto.conf"
        recovery.write_text("")
        if self._source.archive:
            old = archive(self._settings, self._source.archive)
            # Segments in an archive never change, so that they need no second copy.
            shell.run("cp", "--archive", "--link", str(old), str(self.folder / "restore"))
            recovery.write_text(postgres.recovery(self._source.until))
            (data / "recovery.signal").touch()

    def _certify(self) -> None:
        """Give the server a certificate for its endpoint."""
        key, certificate = Authority(self._settings.cache).issue([self.plan.endpoint])
        config = self.folder / "config"
        (config / "server.key").touch(mode=0o600)
        (config / "server.key").write_bytes(key)
        (config / "server.crt").write_bytes(certificate)

    def _configure(self) -> None:
        with self._writing:
            self._write_configuration()

    def _write_configuration(self) -> None:
        plan, copied = self.plan, self._original is not None
        values = dict(plan.parameters)
        files = postgres.configuration(values, plan.port, plan.archives, plan.place, copied)
        files["environment"] = f"PGPORT={plan.port}\n"
        config = self.folder / "config"
        for name, content in files.items():
            fresh = config / f"{name}.new"
            fresh.write_text(content)
            fresh.replace(config / name)
        mark = config / "archives"
        if plan.archives and not plan.follows:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)


class Databases:
    """All databases of a lab (the physical layer of `lab.rds`)."""

    def __init__(
        self, settings: Settings, lock: threading.RLock, changed: Callable[[], None]
    ) -> None:
        self.engine = engine.load(settings)
        self.settings = settings
        self.lock = lock
        self.changed = changed
        self._all: dict[str, Database] = {}
        # Those that have answered since the last order that they do not answer to.
        self._well: set[str] = set()
        self._pilots: dict[str, Pilot] = {}

    def addresses(self) -> set[str]:
        """Return the private addresses of all databases that are not gone yet."""
        return {database.plan.address for database in self._all.values()}

    def launch(self, instance: Any, sql: str, source: rds.Source | None) -> None:
        """Make a database of an instance; `sql` makes it ready."""
        plan = self.plan(instance, instance.primary)
        self._launch(Database(plan, self.settings, self.happened, sql, source))

    def _launch(self, database: Database) -> None:
        self._all[database.plan.instance] = database
        database.launch()

    def order(self, instance: Any, order: Order, sql: str = "") -> None:
        """Start, stop, reboot or remove a database as the API describes it now."""
        self._all[instance.key].next_sql(sql)
        for server in (instance.primary, instance.standby):
            database = self._all.get(server.key) if server else None
            if database:
                self._well.discard(server.key)
                database.order(order, self.plan(instance, server))

    def reload(self, instance: Any, done: rds.Done) -> None:
        """Let a server read its configuration, as the API describes it now."""
        if instance.standby and instance.standby.key in self._all:
            standby = self._all[instance.standby.key]
            standby.plan = self.plan(instance, instance.standby)
            self._perform(standby, Database.reload, lambda _: None)
        self._all[instance.key].plan = self.plan(instance, instance.primary)
        self._perform(self._all[instance.key], Database.reload, done)

    def run_sql(self, instance: Any, sql: str, done: rds.Done) -> None:
        """Let a server's superuser run a script."""
        self._perform(self._all[instance.key], lambda database: database.run_sql(sql), done)

    def back_up(self, instance: Any, name: str, done: rds.Done) -> None:
        """Copy a database's storage into a backup."""
        self._perform(self._all[instance.key], lambda database: database.back_up(name), done)

    def remove_backup(self, name: str) -> None:
        """Remove a backup; a missing one is no error."""
        shutil.rmtree(backup(self.settings, name), ignore_errors=True)

    def remove_archive(self, name: str) -> None:
        """Remove an archive; a missing one is no error."""
        shelf = archive(self.settings, name)
        shutil.rmtree(shelf, ignore_errors=True)
        with contextlib.suppress(OSError):
            shelf.parent.rmdir()  # unless it holds others

    def restorable(self, name: str) -> datetime.datetime | None:
        """Return until when all that was committed lies in an archive; None if it has nothing."""
        return restorable(self.settings, name)

    # --- the two servers of a Multi-AZ instance
    def pair(self, instance: Any) -> None:
        """Keep a standby beside a database for as long as the API wants one."""
        pilot = self._pilots.get(instance.dbi_resource_id)
        if pilot is None or pilot.over:
            pilot = Pilot(self, instance.dbi_resource_id)
            self._pilots[instance.dbi_resource_id] = pilot
            pilot.start()

    def fail_over(self, instance: Any) -> None:
        """Let the standby take over, with the parameters that the API describes now."""
        self._pilots[instance.dbi_resource_id].fail_over()

    def remove(self, server: rds.Server) -> None:
        """Shut down a server that is no instance's primary, and remove it."""
        if server.key in self._all:
            self._all[server.key].order(Order.TERMINATE)

    def kill(self, name: str, role: str) -> None:
        """Let a server of an instance lose its power: a test's wish. Raises LabError."""
        with self.lock:
            found = rds.find(name)
            if found is None:
                raise LabError(f"There is no database '{name}'.")
            server = {"primary": found[1].primary, "standby": found[1].standby}.get(role)
            database = self._all.get(server.key) if server else None
            if database is None:
                raise LabError(f"The database '{name}' has no {role} now.")
        database.vanish()

    def at(self, server: rds.Server) -> Database | None:
        """Return what a server is; None if it is not there yet, or no more."""
        return self._all.get(server.key)

    def is_well(self, server: rds.Server) -> bool:
        """Say whether a server has answered, and was ordered to do nothing since."""
        return server.key in self._well

    def launch_standby(self, plan: DatabasePlan, original: Path) -> None:
        """Make a standby of a copy of its primary."""
        self._launch(Database(plan, self.settings, self.happened, "", None, original))

    def happened(self, key: str, event: Event, reason: str) -> None:
        """Take up what a database reports; called by the databases' threads."""
        log.info("%s is %s %s", key, event.value, reason)
        with self.lock:
            if event is Event.RUNNING:
                self._well.add(key)
            else:
                self._well.discard(key)
            if event is Event.TERMINATED:
                self._all.pop(key, None)
            elif event is Event.POWERED_OFF:
                self._all[key].order(Order.START)
                return
            for backend, instance in rds.instances():
                if key not in {server.key for server in instance.servers}:
                    continue
                if instance.key == key:
                    backend.happened(instance, event, reason)
                elif event is Event.TERMINATED:
                    backend.gone(instance, key)
        self.changed()

    def _perform(
        self, database: Database, work: Callable[[Database], None], done: rds.Done
    ) -> None:
        def job() -> None:
            trouble = ""
            try:
                work(database)
                database.linger()
            except LabError as error:
                log.error("%s: %s", database.plan.instance, error)
                trouble = str(error)
            with self.lock:
                done(trouble)

        database.order(job)

    def plan(self, instance: Any, server: rds.Server) -> DatabasePlan:
        """Return one of an instance's servers as the API describes it."""
        nic = server.interface
        kind = rds.class_of(instance.future("db_instance_class"))
        return DatabasePlan(
            instance=server.key,
            image=self.engine.tag,
            hostname=f"ip-{nic.private_ip_address.replace('.', '-')}",
            address=nic.private_ip_address,
            subnet=nic.subnet.cidr_block,
            mac=nic.mac_address,
            memory=kind.memory,
            cpus=kind.cpus,
            port=int(instance.future("port")),
            endpoint=instance.address,
            parameters=tuple(instance.running.items()),
            archive=instance.archive,
            archives=instance.future("backup_retention_period") > 0,
            place=_place(instance, server),
        )


def _place(instance: Any, server: rds.Server) -> postgres.Place | None:
    if not (instance.paired or instance.standby):
        return None
    primary, standby = instance.primary, instance.standby
    if server is not primary:
        return postgres.Place(server.key, primary.address, True, "", instance.word)
    guard = standby.key if standby and instance.guarded else ""
    return postgres.Place(server.key, standby.address if standby else "", False, guard)


def backup(settings: Settings, name: str) -> Path:
    """Return where a backup lies."""
    return settings.databases / "backups" / name


def archive(settings: Settings, name: str) -> Path:
    """Return where the archive of a write-ahead log lies."""
    return settings.databases / "archives" / name


def restorable(settings: Settings, name: str) -> datetime.datetime | None:
    """Return until when all that was committed lies in an archive; None if it has nothing."""
    try:
        seconds = float((archive(settings, name) / "latest").read_text())
    except (OSError, ValueError):
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _copy(source: Path, target: Path) -> None:
    shell.run("cp", "--archive", "--reflink=auto", str(source), str(target), timeout=_BACKUP_LIMIT)
