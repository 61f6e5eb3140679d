# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves a database: looks at what is there, and goes on from it.

Nothing is remembered but in the two databases. Every step can be cut off at any point, and is then
found half done, or not begun, by the next run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from ansible_collections.ascent.scaling.plugins.module_utils._motion import (
    ledger,
    replication,
    schema,
)
from ansible_collections.ascent.scaling.plugins.module_utils._motion.cutover import (
    Cutover,
    CutoverError,
    Limits,
    Plan,
    Timeline,
)
from ansible_collections.ascent.scaling.plugins.module_utils._motion.plan import Observed
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import (
    Connection,
    Site,
)
from ansible_collections.ascent.scaling.plugins.module_utils._motion.verify import (
    Query,
    Verification,
    Verifier,
)
from psycopg import sql

# The lock of a mover, held by its session at the origin for as long as it lives.
_LOCK = 4_717_246_310_852_153_921
# How long ago a guard may have been seen by both databases to count as there.
_SEEN_S = 5.0
# How long a guard may take to find a move that has just begun.
_GUARDS_WITHIN_S = 15.0
# How fast a change must arrive for a switch, and how long that is waited for: as long as PostgreSQL
# takes to notice that a connection is dead (wal_receiver_timeout), and to begin anew.
_CLOSE_S, _CLOSE_WITHIN_S = 0.3, 120.0
# A table without a slot for so long is stranded; in its last moment it has none, either.
_STRANDED_S = 3.0
# How often a copy without progress is begun anew in one run.
_ANEW_AT_MOST = 2


class MoveError(Exception):
    """Something that the user must know; the text says what was tried and what to do."""


@dataclass(frozen=True)
class Standing:
    """Where the data is: at `here`, while the other side `follows` or does not (yet)."""

    here: Site
    there: Site
    epoch: int
    follows: replication.Subscription | None

    @property
    def ready(self) -> bool:
        """Whether every table of the following side is copied and kept up to date."""
        found = self.follows
        return found is not None and found.enabled and set(found.tables.values()) == {"r"}


class Mover:
    """One database with its two sides; `origin` is where it was at first.

    `sample`: of how many rows of larger tables a comparison may consist; all of them without it.
    """

    def __init__(
        self,
        origin: Site,
        other: Site,
        say: Callable[[str], None] = lambda _: None,
        sample: int | None = None,
    ) -> None:
        self.origin, self.other = origin, other
        self._say = say
        self._sample = sample
        self.done: list[str] = []

    def connect(self) -> tuple[Connection, Connection]:
        """Log in at both sides; the origin comes first. Raises MoveError, naming the side."""
        found = []
        for site in (self.origin, self.other):
            try:
                found.append(site.connect())
            except psycopg.OperationalError as error:
                for connection in found:
                    connection.close()
                raise MoveError(
                    f"Cannot log in to the side {site.name} ({site.address}): "
                    f"{str(error).strip()}. Nothing was changed."
                ) from error
        return found[0], found[1]

    def standing(self, origin: Connection, other: Connection) -> Standing:
        """Find out where the data is."""
        epochs = [self._epoch(connection) for connection in (origin, other)]
        if (epochs[1] or 0) > (epochs[0] or 1):
            here, there, epoch = self.other, self.origin, epochs[1] or 0
            follower = origin
        else:
            here, there, epoch = self.origin, self.other, epochs[0] or 1
            follower = other
        return Standing(here, there, epoch, replication.subscription(follower, here.slot))

    def prepare(self, origin: Connection, other: Connection, roles: Sequence[str]) -> None:
        """Lay the ledgers on both sides, and say where the data is at first.

        The other side is closed to the application, which has nothing there yet.
        """
        for connection in (origin, other):
            known = ledger.noted(connection, "move")
            if self._is_anothers(connection) and not ledger.noted(connection, "finished"):
                raise MoveError(
                    f"Another move of this database, from {known['origin']} to {known['other']}, "
                    "is not finished. Finish it, or return from it, before this one."
                )
        for connection in (origin, other):
            with connection.transaction():
                if self._is_anothers(connection):
                    connection.execute(f"DROP SCHEMA {ledger.SCHEMA} CASCADE".encode())
                for text in (ledger.TABLES, ledger.FUNCTIONS, ledger.RIGHTS):
                    connection.execute(text.encode())
                ledger.note(connection, "move", self._identity())
                self._let_in(connection)
        if self._epoch(other) is None:
            self._close(other, roles)
        if self._epoch(origin) is None and self._epoch(other) is None:
            origin.execute(
                f"INSERT INTO {ledger.SCHEMA}.door (attempt, epoch, until, opened_at)"
                " VALUES ('origin', 1, clock_timestamp(), clock_timestamp())"
                " ON CONFLICT DO NOTHING"
            )

    def settle(self, origin: Connection, other: Connection) -> Standing:
        """Have the side without the data follow the one that has it, and not the other way.

        What a switch that was cut off, or given up, has left is taken away or brought to its end.
        """
        found = self.standing(origin, other)
        here, there = (origin, other) if found.here is self.origin else (other, origin)
        if replication.unsubscribe(here, found.there):
            self._note(f"{found.here.name} follows {found.there.name} no more")
        # Of a switch that was given up, or of the way that was gone before.
        if replication.drop_slot(there, found.there.slot):
            self._note(f"{found.there.name} keeps nothing for {found.here.name} any more")
        if found.follows and not found.follows.enabled:
            there.execute(
                sql.SQL("ALTER SUBSCRIPTION {} ENABLE").format(sql.Identifier(found.here.slot))
            )
            self._note(f"{found.there.name} follows {found.here.name} again")
        if found.follows is None and found.epoch > 1:
            if not replication.slot_exists(here, found.here.slot):
                raise MoveError(
                    f"{found.there.name} cannot follow {found.here.name} any more: the "
                    f"replication slot {found.here.slot} is gone, and with it what was written "
                    "since the switch. There is no way back to it without a new copy."
                )
            replication.subscribe(there, found.here, copy=False)
            self._note(f"{found.there.name} follows {found.here.name}: the way back is open")
        return self.standing(origin, other)

    def copy(self, origin: Connection, other: Connection, patience: float) -> Standing:
        """Bring the whole of the data to the other side, and keep it up to date there.

        `patience`: seconds without any progress until a stuck copy is begun anew.
        """
        found = self.standing(origin, other)
        if found.epoch == 1 and not found.ready:
            self.done += replication.identify(origin)
            self._freeze(origin, self.origin)
            if schema.copy(self.origin, self.other, other):
                self._note("the schema is copied")
            self._freeze(other, self.other)
            for connection, site in ((origin, self.origin), (other, self.other)):
                added = replication.publish(connection)
                if added:
                    self._note(f"{site.name} publishes {len(added)} more tables")
            if found.follows is None:
                self._begin_copy(origin, other)
        deadline = time.monotonic() + patience
        before: object = None
        begun_anew = 0
        while not (found := self.settle(origin, other)).ready:
            now = _progress(other if found.here is self.origin else origin)
            stranded = found.epoch == 1 and self._is_stranded(origin, other)
            if now != before and not stranded:
                before, deadline = now, time.monotonic() + patience
                self._say(now)
            elif stranded or time.monotonic() > deadline:
                if found.epoch > 1:
                    raise MoveError(f"{found.there.name} does not follow {found.here.name}: {now}")
                if begun_anew == _ANEW_AT_MOST:
                    raise MoveError(
                        f"The copy to {self.other.name} makes no progress ({now}), although it was "
                        f"begun anew {begun_anew} times. The log of PostgreSQL at "
                        f"{self.other.name} says what it cannot do: is its disk full, does a "
                        "constraint refuse a row that is there? Mend that and run again."
                    )
                begun_anew += 1
                why = "lost its way in a crash" if stranded else "made no progress"
                self._note(f"the copy {why} and is begun anew")
                self._begin_copy(origin, other)
                deadline = time.monotonic() + patience
            time.sleep(0.2)
        return found

    def _is_stranded(self, origin: Connection, other: Connection) -> bool:
        """Whether a table will never be ready: PostgreSQL asks for ever for what is not there."""
        lost = replication.stranded(origin, other, self.origin.slot)
        if not lost:
            return False
        time.sleep(_STRANDED_S)
        return bool(set(lost) & set(replication.stranded(origin, other, self.origin.slot)))

    @contextlib.contextmanager
    def alone(self, origin: Connection, patience: float = 0) -> Iterator[bool]:
        """Be the only mover of this database; yields whether another one was waited for.

        Raises MoveError, naming the other one, if it has not ended within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        waited = False
        while not self._lock(origin):
            if time.monotonic() >= deadline:
                raise MoveError(
                    "A move of this database is in progress already: "
                    f"{self._who_holds_the_lock(origin)}. Nothing was changed. Wait until it ends; "
                    "if its controller is dead, its work still goes on: run again then."
                )
            if not waited:
                self._say(f"waits for another mover: {self._who_holds_the_lock(origin)}")
            waited = True
            time.sleep(0.5)
        try:
            yield waited
        finally:
            with contextlib.suppress(psycopg.Error):
                origin.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    @staticmethod
    def _lock(origin: Connection) -> bool:
        row = origin.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        return bool(row and row[0])

    @staticmethod
    def _who_holds_the_lock(origin: Connection) -> str:
        row = origin.execute(
            "SELECT format('process %%s from %%s, since %%s', a.pid,"
            " coalesce(host(client_addr), 'this host'), a.backend_start::timestamptz(0))"
            " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'"
            " AND l.granted AND (l.classid::bigint << 32) | l.objid::bigint = %s LIMIT 1",
            (_LOCK,),
        ).fetchone()
        return row[0] if row else "it has just ended"

    def observe(self, origin: Connection, other: Connection) -> Observed:
        """Look at how far the move is. Changes nothing."""
        prepared = all(
            ledger.noted(connection, "move") == self._identity() for connection in (origin, other)
        )
        found = self.standing(origin, other)
        here, there = (origin, other) if found.here is self.origin else (other, origin)
        left = replication.subscription(here, found.there.slot) is not None
        left = left or replication.slot_exists(there, found.there.slot)
        left = left or (found.follows is not None and not found.follows.enabled)
        left = left or (found.epoch > 1 and found.follows is None)
        finished = prepared and ledger.noted(origin, "finished") is not None
        verified = None
        result = ledger.noted(here, "verification") if prepared else None
        enough = self._sample is not None or not (result or {}).get("sampled")
        if result and result["clean"] and result["epoch"] == found.epoch and enough:
            verified = ledger.age(here, "verification")
        return Observed(
            at="origin" if found.here is self.origin else "other",
            prepared=prepared,
            follows=found.ready,
            settled=finished or not left,
            finished=finished,
            verified_s=verified,
        )

    def verify(self, origin: Connection, other: Connection) -> Verification:
        """Compare both sides, and note the result, with its date, where the data is.

        Before that the side that follows gets its statistics, so that it is not slow at first.
        """
        found = self.standing(origin, other)
        here, there = (origin, other) if found.here is self.origin else (other, origin)
        tables = replication.tables(here)
        if lacking := sorted(set(tables) - set(replication.tables(there))):
            raise MoveError(
                f"{found.there.name} lacks {', '.join(lacking[:10])}, which {found.here.name} has: "
                "the schema was changed past the move, and their rows are nowhere else. Nothing "
                f"was switched. Drop them at {found.here.name}, make them by "
                "operations/change_schema.yml, which does so on both sides, and run again; or "
                "stay, and finish the move."
            )
        replication.relax(there, found.here.slot)
        analyzed, refused = replication.analyze(there)
        if analyzed:
            self._note(f"{len(analyzed)} tables of {found.there.name} are analyzed")
        if refused:
            self._note(
                f"{found.there.name} does not let this role analyze {', '.join(refused[:10])}: "
                "queries on them may be slow until autovacuum has been there"
            )
        with found.here.connect() as source, found.there.connect() as target:
            names = (found.here.name, found.there.name)
            verifier = Verifier(source, target, names, self._say, sample=self._sample)
            result = verifier.run(tables)
        ledger.note(
            here,
            "verification",
            {
                "clean": result.clean,
                "epoch": found.epoch,
                "seconds": round(result.seconds, 1),
                "rows": sum(table.rows for table in result.tables.values()),
                "tables": len(result.tables),
                "sampled": result.sampled,
                "findings": result.findings()[:100],
                "moving": {
                    table.name: table.moving for table in result.tables.values() if table.moving
                },
            },
        )
        self._note(
            f"{found.here.name} and {found.there.name} "
            + ("are the same" if result.clean else "differ")
            + (", as far as a sample tells" if result.sampled else "")
        )
        return result

    def switch(
        self,
        origin: Connection,
        other: Connection,
        poolers: Sequence[str],
        roles: Sequence[str],
        limits: Limits,
    ) -> Timeline:
        """Take the traffic to the side where it is not. Raises MoveError; then it stays."""
        found = self.standing(origin, other)
        here, there = (origin, other) if found.here is self.origin else (other, origin)
        self._poolers_are_there(here, there, found.here.name, poolers)
        self._end_old_attempts(here, there)
        self._is_close(here, there, found)
        result = ledger.noted(here, "verification") or {}
        self._refresh_views(here, there)
        plan = Plan(
            leaves=found.here.name,
            goes_to=found.there.name,
            poolers=list(poolers),
            roles=list(roles),
            forward=found.here.slot,
            reverse=found.there.slot,
            limits=limits,
        )
        try:
            timeline = Cutover(
                plan, found.here, found.there, compare=_compare(result.get("moving", {}))
            ).run()
        except CutoverError as error:
            raise MoveError(str(error)) from error
        self._note(f"the poolers lead to {found.there.name}")
        return timeline

    def finish(self, origin: Connection, other: Connection) -> None:
        """Give up the way back. The origin keeps its data, and stays closed to the application."""
        if replication.unsubscribe(origin, self.other):
            self._note(f"{self.origin.name} follows {self.other.name} no more")
        if replication.drop_slot(other, self.other.slot):
            self._note(f"{self.other.name} keeps nothing for {self.origin.name} any more")
        for connection, site in ((origin, self.origin), (other, self.other)):
            connection.execute(ledger.THAW.encode())
            connection.execute(f"DROP PUBLICATION IF EXISTS {replication.PUBLICATION}".encode())
            ledger.note(connection, "finished", True)
            self._note(f"the move is finished at {site.name}")

    # --- aids

    @staticmethod
    def _close(connection: Connection, roles: Sequence[str]) -> None:
        """Take the right to connect from everyone but who moves, before anything is there."""
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        database = sql.Identifier(row[0])
        for who in (sql.SQL("PUBLIC"), *(sql.Identifier(role) for role in roles)):
            connection.execute(
                sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(database, who)
            )

    def _let_in(self, connection: Connection) -> None:
        """Everyone else was locked out of the databases: these roles may connect."""
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        users = {str(site.replication["user"]) for site in (self.origin, self.other)}
        users.add(connection.info.user)
        for user in sorted({ledger.GUARD} | users):
            connection.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    sql.Identifier(row[0]), sql.Identifier(user)
                )
            )

    def _epoch(self, connection: Connection) -> int | None:
        """The epoch of the last door that this move has opened here; None if it has opened none."""
        if ledger.noted(connection, "move") != self._identity():
            return None
        row = connection.execute(f"SELECT {ledger.SCHEMA}.standing()".encode()).fetchone()
        return row[0] if row else None

    def _is_anothers(self, connection: Connection) -> bool:
        """Whether the ledger that is there belongs to a move between other servers."""
        return ledger.noted(connection, "move") not in (None, self._identity())

    def _identity(self) -> dict[str, str]:
        return {"origin": self.origin.name, "other": self.other.name}

    @staticmethod
    def _poolers_are_there(
        here: Connection, there: Connection, at: str, poolers: Sequence[str]
    ) -> None:
        """Raises MoveError unless each pooler's guard sees both sides, and leads to the data."""
        deadline = time.monotonic() + _GUARDS_WITHIN_S
        while silent := _silent(here, there, at, poolers):
            if time.monotonic() > deadline:
                told = ", ".join(f"{name} ({why})" for name, why in sorted(silent.items()))
                raise MoveError(
                    f"These poolers are not ready for the switch: {told}. Nothing was switched. "
                    "Ask the host: systemctl status ascent-guard pgbouncer; journalctl -u "
                    "ascent-guard. It must reach PostgreSQL on both sides."
                )
            time.sleep(0.2)

    @staticmethod
    def _is_close(here: Connection, there: Connection, found: Standing) -> None:
        """Wait until changes arrive at once: a pause that is given up for a lag is one for nothing.

        Raises MoveError where they do not.
        """
        deadline = time.monotonic() + _CLOSE_WITHIN_S
        while (
            lag := ledger.lag(here, there, deadline - time.monotonic())
        ) is None or lag > _CLOSE_S:
            if lag is None or time.monotonic() > deadline:
                raise MoveError(
                    f"{found.there.name} lags behind {found.here.name}: within "
                    f"{_CLOSE_WITHIN_S:.0f} s no change arrived in less than {_CLOSE_S} s. Nothing "
                    f"was switched. Look at pg_stat_subscription and the log of "
                    f"{found.there.name}, or wait until less is written, and run again."
                )

    @staticmethod
    def _end_old_attempts(here: Connection, there: Connection) -> None:
        """Whatever a dead mover has begun is ended, as the guards do it."""
        for (attempt,) in here.execute(
            f"SELECT id FROM {ledger.SCHEMA}.attempt"
            " WHERE state IN ('armed', 'fencing', 'committing')".encode()
        ).fetchall():
            row = there.execute(
                f"SELECT {ledger.SCHEMA}.door_state(%s, true)".encode(), (attempt,)
            ).fetchone()
            if row and row[0] == "void":
                here.execute(
                    f"SELECT {ledger.SCHEMA}.give_up(%s, true, 'the next run')".encode(),
                    (attempt,),
                )

    def _freeze(self, connection: Connection, site: Site) -> None:
        """Refuse changes of the schema, where event triggers are this role's to make."""
        try:
            connection.execute(ledger.FREEZE.encode())
        except psycopg.errors.InsufficientPrivilege:
            self._note(
                f"{site.name} does not let this role freeze its schema: who changes it while "
                f"{site.name} serves stops the other side from following, and the way back"
            )

    def _refresh_views(self, here: Connection, there: Connection) -> None:
        """Views that store data are not replicated: they are made anew before they are asked."""
        for (view,) in here.execute(
            "SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews WHERE ispopulated"
        ).fetchall():
            there.execute(f"REFRESH MATERIALIZED VIEW {view}".encode())
            there.execute(f"ANALYZE {view}".encode())
            self._note(f"{view} is made anew")

    def _begin_copy(self, origin: Connection, other: Connection) -> None:
        """Copy from the beginning: whatever an earlier copy has brought is removed first."""
        if self._epoch(other) is not None:
            raise MoveError(f"{self.other.name} was in use already, so nothing there is removed.")
        replication.unsubscribe(other, self.origin)
        replication.drop_slot(origin, self.origin.slot)
        other.execute(f"DELETE FROM {ledger.SCHEMA}.note WHERE name = 'verification'".encode())
        names = [*replication.tables(other), f"{ledger.SCHEMA}.mark"]
        other.execute(f"TRUNCATE {', '.join(names)}".encode())
        replication.subscribe(other, self.origin, copy=True)
        self._note(f"{self.other.name} copies from {self.origin.name}")

    def _note(self, what: str) -> None:
        self.done.append(what)
        self._say(what)


def _progress(follower: Connection) -> str:
    """How far a copy is, in words that change when it goes on."""
    states = dict(
        follower.execute(
            "SELECT srsubstate, count(*) FROM pg_subscription_rel GROUP BY 1"
        ).fetchall()
    )
    copying: list[tuple[Any, ...]] = follower.execute(
        "SELECT relid::regclass::text, bytes_processed, tuples_processed"
        " FROM pg_stat_progress_copy WHERE type = 'CALLBACK'"
    ).fetchall()
    parts = [f"{states.get('r', 0)} of {sum(states.values())} tables are ready"]
    parts += [f"{name}: {rows} rows, {size / 1e6:.0f} MB" for name, size, rows in copying]
    return "; ".join(parts)


def _silent(here: Connection, there: Connection, at: str, poolers: Sequence[str]) -> dict[str, str]:
    """The poolers that cannot take part in a switch from `at`, each with the reason."""
    silent: dict[str, str] = {}
    for connection in (here, there):
        seen = {
            name: (seconds, server)
            for name, seconds, server in connection.execute(
                "SELECT name, extract(epoch FROM clock_timestamp() - seen)::float8, server"
                f" FROM {ledger.SCHEMA}.pooler".encode()
            )
        }
        for name in poolers:
            if name not in seen:
                silent.setdefault(name, "was never seen")
            elif seen[name][0] > _SEEN_S:
                silent.setdefault(name, f"was last seen {seen[name][0]:.0f} s ago")
            elif connection is here and seen[name][1] not in (at, ""):
                silent.setdefault(name, f"leads to {seen[name][1]}")
    return silent


def _compare(moving: dict[str, list[str]]) -> Callable[[Connection, Connection], list[str]]:
    """A look, while everything is at rest, at the rows that verification left open."""

    def compare(source: Connection, target: Connection) -> list[str]:
        differs = []
        for table, keys in moving.items():
            query = Query.of(source, table)
            if not query.key:
                continue
            asked = {"keys": f"[{','.join(keys)}]"}
            found = [
                dict(side.execute(query.some(), asked).fetchall()) for side in (source, target)
            ]
            differs += [
                f"{table}: row {key}" for key in keys if found[0].get(key) != found[1].get(key)
            ]
        return differs

    return compare
