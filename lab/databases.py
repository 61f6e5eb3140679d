"""Databases: the containers that RDS instances are, their storage and their backups.

An instance's storage lies on the machine and outlives the container's processes; a snapshot is a
physical copy of it, taken by `pg_basebackup` from the running server. The archive holds closed
segments of the write-ahead log, from which a restore to a point in time is made.
"""

from __future__ import annotations

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
from lab.settings import Settings

log = logging.getLogger(__name__)

_UNIT = "ascent-rds.service"
_PROGRAMS = "/usr/libexec/ascent-rds/bin"
_BACKUP_LIMIT = 3600.0  # seconds
# A server that ended so often within so many seconds has a configuration that it refuses.
_PATIENCE, _ENDS = 5.0, 5


@dataclass(frozen=True)
class DatabasePlan(Plan):
    """A database as the API describes it."""

    port: int = 5432
    endpoint: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    archives: bool = True


class Database(Host):
    """One container with PostgreSQL in it, from creation to deletion."""

    plan: DatabasePlan

    def __init__(
        self,
        plan: DatabasePlan,
        settings: Settings,
        report: Report,
        sql: str,
        source: rds.Source | None,
    ) -> None:
        super().__init__(plan, settings, report)
        self._sql = sql
        self._source = source
        self._size = (0, 0)

    @property
    def folder(self) -> Path:
        """The instance's storage."""
        return self._settings.databases / self.plan.instance

    # --- what a database is other than a host
    def _mounts(self) -> list[str]:
        return [*super()._mounts(), f"{self.folder}:{postgres.HOME}"]

    def _answers(self) -> bool:
        hello = postgres.startup(postgres.ADMIN, postgres.ADMIN)
        return postgres.serves(self._link.ask(self.plan.address, self.plan.port, hello))

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
        self.linger()

    def _create(self) -> None:
        self._lay_out()
        super()._create()

    def _start(self) -> None:
        self._configure()
        self._size = (self.plan.memory, self.plan.cpus)
        super()._start()

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
        self._inside(
            "runuser", "--user=postgres", "--", f"{_PROGRAMS}/pg_basebackup",
            "-U", postgres.ADMIN, "-D", f"{postgres.HOME}/out/{name}",
            "--wal-method=stream", "--checkpoint=fast", "--no-sync",
            timeout=_BACKUP_LIMIT,
        )  # fmt: skip
        (self.folder / "out" / name).rename(target)

    def linger(self) -> None:
        """Take as much longer as the lab's user wants."""
        time.sleep(self._settings.rds_delay)

    def restorable(self) -> datetime.datetime | None:
        """Return until when all that was committed lies in the archive; None if there is none."""
        try:
            seconds = float((self.folder / "wal" / "latest").read_text())
        except (OSError, ValueError):
            return None
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

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
        self._certify()
        if self._source is None:
            return
        data = self.folder / "db"
        _copy(backup(self._settings, self._source.backup), data)
        # Nothing but the lab writes this file: ALTER SYSTEM is not for the master user.
        recovery = data / "postgresql.auto.conf"
        recovery.write_text("")
        if self._source.archive:
            archive = self._settings.databases / self._source.archive / "wal"
            # Segments in an archive never change, so that they need no second copy.
            shell.run("cp", "--archive", "--link", str(archive), str(self.folder / "restore"))
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
        plan = self.plan
        files = postgres.configuration(dict(plan.parameters), plan.port, plan.archives)
        files["environment"] = f"PGPORT={plan.port}\n"
        config = self.folder / "config"
        for name, content in files.items():
            fresh = config / f"{name}.new"
            fresh.write_text(content)
            fresh.replace(config / name)
        mark = config / "archives"
        if plan.archives:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)


class Databases:
    """All databases of a lab (the physical layer of `lab.rds`)."""

    def __init__(
        self, settings: Settings, lock: threading.RLock, changed: Callable[[], None]
    ) -> None:
        self.engine = engine.load(settings)
        self._settings = settings
        self._lock = lock
        self._changed = changed
        self._all: dict[str, Database] = {}

    def addresses(self) -> set[str]:
        """Return the private addresses of all databases that are not gone yet."""
        return {database.plan.address for database in self._all.values()}

    def launch(self, instance: Any, sql: str, source: rds.Source | None) -> None:
        """Make a database of an instance; `sql` makes it ready."""
        plan = self._plan(instance)
        database = Database(plan, self._settings, self.happened, sql, source)
        self._all[instance.key] = database
        database.launch()

    def order(self, instance: Any, order: Order, sql: str = "") -> None:
        """Start, stop, reboot or remove a database as the API describes it now."""
        database = self._all[instance.key]
        database.next_sql(sql)
        database.order(order, self._plan(instance))

    def reload(self, instance: Any, done: rds.Done) -> None:
        """Let a server read its configuration, as the API describes it now."""
        self._all[instance.key].plan = self._plan(instance)
        self._perform(instance, Database.reload, done)

    def run_sql(self, instance: Any, sql: str, done: rds.Done) -> None:
        """Let a server's superuser run a script."""
        self._perform(instance, lambda database: database.run_sql(sql), done)

    def back_up(self, instance: Any, name: str, done: rds.Done) -> None:
        """Copy a database's storage into a backup."""
        self._perform(instance, lambda database: database.back_up(name), done)

    def remove_backup(self, name: str) -> None:
        """Remove a backup; a missing one is no error."""
        shutil.rmtree(backup(self._settings, name), ignore_errors=True)

    def restorable(self, key: str) -> datetime.datetime | None:
        """Return until when a database can be restored to any point in time."""
        database = self._all.get(key)
        return database.restorable() if database else None

    def happened(self, key: str, event: Event, reason: str) -> None:
        """Take up what a database reports; called by the databases' threads."""
        log.info("%s is %s %s", key, event.value, reason)
        with self._lock:
            if event is Event.TERMINATED:
                self._all.pop(key, None)
            elif event is Event.POWERED_OFF:
                self._all[key].order(Order.START)
                return
            for backend, instance in rds.instances():
                if instance.key == key:
                    backend.happened(instance, event, reason)
        self._changed()

    def _perform(self, instance: Any, work: Callable[[Database], None], done: rds.Done) -> None:
        database = self._all[instance.key]

        def job() -> None:
            trouble = ""
            try:
                work(database)
                database.linger()
            except LabError as error:
                log.error("%s: %s", database.plan.instance, error)
                trouble = str(error)
            with self._lock:
                done(trouble)

        database.order(job)

    def _plan(self, instance: Any) -> DatabasePlan:
        nic = instance.interface
        kind = rds.class_of(instance.future("db_instance_class"))
        return DatabasePlan(
            instance=instance.key,
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
            archives=instance.future("backup_retention_period") > 0,
        )


def backup(settings: Settings, name: str) -> Path:
    """Return where a backup lies."""
    return settings.databases / "backups" / name


def _copy(source: Path, target: Path) -> None:
    shell.run("cp", "--archive", "--reflink=auto", str(source), str(target), timeout=_BACKUP_LIMIT)
