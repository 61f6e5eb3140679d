"""The two servers of a Multi-AZ instance: a standby is made and kept, and takes over if it must.

What is to be done next is decided from what is seen (`decide`, pure). A thread for each instance
looks and does it. The standby is PostgreSQL's own: a copy of the primary that follows it, and that
commits wait for. Without one that follows, the primary goes on alone, as on RDS, and nobody may
take over: what was acknowledged meanwhile is on the primary only.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from lab import postgres, rds
from lab.errors import LabError
from lab.hosts import Order
from lab.session import Row, Session, SessionError

if TYPE_CHECKING:
    from lab.databases import Database, Databases

log = logging.getLogger(__name__)

_ROUND = 0.5  # seconds between two looks
# Seconds for which a primary may be silent until its standby takes over; for which a standby may be
# away until commits do not wait for it any more, and until another one is made.
SILENCE, PATIENCE, GIVE_UP = 20.0, 5.0, 45.0
_CATCH_UP = 20.0  # seconds for a standby that follows to have all that was committed before
_COPY_LIMIT = 60.0  # seconds for statements that wait for the disk
# In these states of an instance somebody watches over it; in others it is not to run, or does not.
_WATCHED = frozenset(
    {
        "available",
        "backing-up",
        "creating",
        "incompatible-parameters",
        "modifying",
        "rebooting",
        "resetting-master-credentials",
    }
)


class Step(Enum):
    """What is to be done next."""

    WATCH = "watch"
    FAIL_OVER = "fail over"
    REBOOT = "reboot the primary, as it cannot fail over"
    START = "start the primary again"
    BUILD = "make a standby"
    SECURE = "let commits wait for the standby"
    GO_ALONE = "let commits wait for nobody"
    REPLACE = "remove the standby"


@dataclass(frozen=True)
class Sight:
    """What is seen of a pair. Times in seconds.

    ready: the primary is expected to answer; silent: for how long it has not; away: for how long
    the standby has not followed; asked: somebody asked for a failover.
    """

    ready: bool = True
    ended: bool = False
    silent: float = 0.0
    standby: bool = True
    standby_ended: bool = False
    away: float = 0.0
    guarded: bool = True
    synchronous: bool = True
    asked: bool = False


def decide(sight: Sight) -> Step:
    """Return what is to be done next."""
    able = sight.synchronous and sight.standby and not sight.standby_ended
    if sight.asked:
        return Step.FAIL_OVER if able else Step.REBOOT
    if sight.ended:
        return Step.FAIL_OVER if able else Step.START
    if not sight.ready:
        return Step.WATCH
    if sight.silent > 0:
        return Step.FAIL_OVER if able and sight.silent >= SILENCE else Step.WATCH
    if not sight.standby:
        return Step.BUILD
    if sight.standby_ended or sight.away >= GIVE_UP:
        return Step.REPLACE
    if sight.away >= PATIENCE:
        return Step.GO_ALONE if sight.guarded else Step.WATCH
    return Step.SECURE if sight.away == 0 and not sight.synchronous else Step.WATCH


class Pilot:
    """Watches over one instance, in a thread of its own."""

    def __init__(self, databases: Databases, resource: str) -> None:
        self._databases = databases
        self._resource = resource
        self._wake = threading.Event()
        self._asked = False
        self._session: Session | None = None
        self._watched: tuple[str, str] = ("", "")
        self._answered = self._followed = 0.0
        self.over = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._fly, name=f"pair-{self._resource}", daemon=True).start()

    def fail_over(self) -> None:
        """Let the standby take over, as somebody asked for it."""
        self._asked = True
        self._wake.set()

    def _fly(self) -> None:
        while not self.over:
            try:
                self._round()
            except LabError as error:
                log.error("the pair %s: %s", self._resource, error)
            except Exception:
                log.exception("the pair %s cannot be kept", self._resource)
            self._wake.wait(_ROUND)
            self._wake.clear()

    def _find(self) -> tuple[Any, Any] | None:
        return next((f for f in rds.instances() if f[1].dbi_resource_id == self._resource), None)

    def _round(self) -> None:
        """Look once, and do what is to do."""
        with self._databases.lock:
            found = self._find()
            if found is None or not (found[1].paired or found[1].standby):
                self._end()
                return
            backend, instance = found
            primary = self._databases.at(instance.primary)
            standby = instance.standby
            if instance.status not in _WATCHED or not instance.paired or primary is None:
                return
            other = self._databases.at(standby) if standby else None
            sight = Sight(
                ready=self._databases.is_well(instance.primary),
                ended=primary.ended,
                standby=other is not None,
                standby_ended=other is not None and other.ended,
                guarded=instance.guarded,
                synchronous=instance.synchronous,
                asked=self._asked,
            )
            self._begin_watch(primary, standby.key if standby else "", sight.ready)
        if sight.ready and not sight.ended and not sight.asked:
            sight = self._look(sight, standby.key if standby else "")
        step = decide(sight)
        if step is Step.WATCH:
            return
        log.info("%s: %s", instance.db_instance_identifier, step.value)
        self._steps()[step](backend, instance, primary)

    def _steps(self) -> dict[Step, Callable[[Any, Any, Database], None]]:
        return {
            Step.FAIL_OVER: self._fail_over,
            Step.REBOOT: self._reboot,
            Step.START: self._start_again,
            Step.BUILD: self._build,
            Step.SECURE: self._secure,
            Step.GO_ALONE: self._go_alone,
            Step.REPLACE: self._replace,
        }

    def _end(self) -> None:
        self.over = True
        if self._session:
            self._session.close()

    # --- looking
    def _begin_watch(self, primary: Database, standby: str, ready: bool) -> None:
        """Begin to count anew where a server is another one, or is not expected to answer."""
        now = time.monotonic()
        before, self._watched = self._watched, (primary.plan.instance, standby)
        if before[0] != self._watched[0] or not ready or self._session is None:
            if self._session:
                self._session.close()
            self._session = primary.session()
            self._answered = self._followed = now
        if before[1] != standby:
            self._followed = now

    def _look(self, sight: Sight, standby: str) -> Sight:
        """Ask the primary how it is, and how its standby follows."""
        assert self._session is not None
        now = time.monotonic()
        try:
            rows = self._session.ask(postgres.following(standby))
        except SessionError as error:
            log.warning("%s", error)
            return replace(sight, silent=max(now - self._answered, _ROUND))
        self._answered = now
        if rows and float(rows[0][0] or 0) < PATIENCE:
            self._followed = now
        return replace(sight, away=now - self._followed)

    # --- steps
    def _fail_over(self, backend: Any, instance: Any, primary: Database) -> None:
        """Make sure that the primary is dead, and let the standby take its place."""
        databases = self._databases
        with databases.lock:
            standby = databases.at(instance.standby)
            plan = databases.plan(instance, instance.standby)
            instance.add_event(rds.FAILOVER)
        assert standby is not None
        afresh = self._asked and plan.parameters != standby.plan.parameters
        primary.kill()
        time.sleep(databases.settings.rds_failover_delay)
        standby.plan = plan
        alone = replace(plan, place=postgres.Place(plan.instance))
        standby.promote(alone, afresh)
        with databases.lock:
            self._asked = False
            backend.failed_over(instance)
        databases.changed()

    def _reboot(self, backend: Any, instance: Any, primary: Database) -> None:
        self._asked = False
        with self._databases.lock:
            self._databases.order(instance, Order.REBOOT)

    def _start_again(self, backend: Any, instance: Any, primary: Database) -> None:
        primary.ended = False
        primary.order(Order.START)

    def _build(self, backend: Any, instance: Any, primary: Database) -> None:
        """Copy the primary, and let the copy follow it."""
        databases = self._databases
        with databases.lock:
            server = backend.add_standby(instance)
            plan = databases.plan(instance, server)
        databases.changed()
        try:
            self._configure(instance, primary)
            self._fresh(primary, postgres.replicator(instance.word))
            original = primary.copy(server.key)
        except LabError:
            shutil.rmtree(primary.folder / "out" / server.key, ignore_errors=True)
            with databases.lock:
                if server in instance.servers:
                    backend.gone(instance, server.key)
            raise
        with databases.lock:
            if instance.standby is server and instance.status in _WATCHED:
                databases.launch_standby(plan, original)
                return
            if server in instance.servers:
                backend.gone(instance, server.key)
        shutil.rmtree(original, ignore_errors=True)

    def _secure(self, backend: Any, instance: Any, primary: Database) -> None:
        """Let commits wait for the standby, and make sure that it has what was there before."""
        databases = self._databases
        with databases.lock:
            server = instance.standby
            instance.guarded = True
        self._configure(instance, primary)
        deadline = time.monotonic() + _CATCH_UP
        setting = f'FIRST 1 ("{server.key}")'
        # A new session has what the server's first process has read, and all others were told.
        while self._fresh(primary, "SHOW synchronous_standby_names") != setting:
            _wait(deadline)
        # The checkpointer is the one that lets sessions wait: after this it has read it as well.
        position = self._fresh(primary, "CHECKPOINT; SELECT pg_current_wal_flush_lsn()")
        while not self._has(primary, server.key, str(position)):
            _wait(deadline)
        with databases.lock:
            if instance.standby is server and instance.guarded:
                backend.secured(instance)
        databases.changed()

    def _go_alone(self, backend: Any, instance: Any, primary: Database) -> None:
        with self._databases.lock:
            instance.guarded = instance.synchronous = False
        self._configure(instance, primary)

    def _replace(self, backend: Any, instance: Any, primary: Database) -> None:
        """Let commits wait for nobody, and the next look make another standby."""
        self._go_alone(backend, instance, primary)
        with self._databases.lock:
            backend.dismiss_standby(instance)
        self._databases.changed()

    def _configure(self, instance: Any, primary: Database) -> None:
        with self._databases.lock:
            primary.plan = self._databases.plan(instance, instance.primary)
        primary.reload()

    def _fresh(self, primary: Database, sql: str) -> str | None:
        session = primary.session()
        try:
            rows: list[Row] = session.ask(sql, timeout=_COPY_LIMIT)
        finally:
            session.close()
        return rows[-1][0] if rows else None

    def _has(self, primary: Database, standby: str, position: str) -> bool:
        session = primary.session()
        try:
            rows = session.ask(postgres.following(standby))
        finally:
            session.close()
        if not rows or rows[0][1] != "t" or rows[0][2] is None:
            return False
        return postgres.position(rows[0][2]) >= postgres.position(position)


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise LabError("the standby did not catch up")
    time.sleep(0.1)
