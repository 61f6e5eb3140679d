# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The critical section of a move: from the pause of the poolers to their going on elsewhere.

One process with all connections open. Whenever it dies, the guards (`guard.py`) end what it leaves
behind, by what stands in the ledgers (`ledger.py`), and the next run goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from ansible_collections.ascent.scaling.plugins.module_utils._motion.ledger import (
    SCHEMA,
    TOLD,
)
from ansible_collections.ascent.scaling.plugins.module_utils._motion.plan import MARGIN
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import (
    Connection,
    Site,
)
from psycopg import sql

# The named points of a switch, in their order: where it may die, and what its figures are taken at.
POINTS = (
    "armed", "paused", "fenced", "caught_up", "sequences", "compared", "reversed", "committing",
    "opened", "resumed",
)  # fmt: skip


# Sessions of the roles' members; superusers are members of everything, and so is who moves.
_OF_THE_APPLICATION = (
    "usename <> current_user AND usename IN (SELECT m.rolname FROM pg_roles m, unnest(%s::text[]) r"
    " WHERE NOT m.rolsuper AND pg_has_role(m.oid, r::name, 'MEMBER'))"
)


class CutoverError(Exception):
    """The switch was not made, and everything is as before; the text says why and what to do."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds from the moment at which the poolers are told to pause.

    `pause` until every pooler has come to rest; `lease` until the commit point; `bound` until the
    guards ask how it stands; `hard` until they resume in any case.
    """

    hard: float = 2.0

    @property
    def pause(self) -> float:
        """Until every pooler has come to rest."""
        return 0.4 * self.hard

    @property
    def lease(self) -> float:
        """Until the door is open, by its own server's clock."""
        return 0.6 * self.hard

    @property
    def bound(self) -> float:
        """Until a guard asks for itself: what remains is enough to ask both sides."""
        return 0.65 * self.hard


@dataclass
class Plan:
    """What a switch concerns.

    `roles` are those that the application's logins are members of; `forward` is the subscription
    at the target, `reverse` the slot that is made there for the way back. `margin` is how many
    values of each sequence are left out.
    """

    leaves: str
    goes_to: str
    poolers: Sequence[str]
    roles: Sequence[str]
    forward: str
    reverse: str
    margin: int = MARGIN
    limits: Limits = field(default_factory=Limits)


@dataclass
class Timeline:
    """When each point was reached, in milliseconds from the pause."""

    points: dict[str, float] = field(default_factory=dict)
    poolers: dict[str, str] = field(default_factory=dict)

    @property
    def pause_ms(self) -> float:
        """How long the poolers were paused, as seen from here."""
        return self.points.get("resumed", 0.0)


class Cutover:
    """One attempt to take the traffic from the source to the target.

    `source` and `target` lead to the moved database with the rights of the ledger's owner; all
    connections are open before anything begins. `compare` looks, while everything is at rest,
    at what verification could not settle, and returns what differs. `at` is called at each of
    `POINTS`.
    """

    def __init__(
        self,
        plan: Plan,
        source: Site,
        target: Site,
        compare: Callable[[Connection, Connection], Sequence[str]] = lambda source, target: (),
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        self.plan = plan
        self.id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"
        self.timeline = Timeline()
        self._sites = {plan.leaves: source, plan.goes_to: target}
        self._compare = compare
        self._at = at
        self._began = 0.0
        self._source: Connection
        self._target: Connection

    def run(self) -> Timeline:
        """Switch. Raises CutoverError if it was not made; then the source serves as before."""
        with contextlib.ExitStack() as stack:
            source, target = (self._sites[name] for name in (self.plan.leaves, self.plan.goes_to))
            self._source, self._target = (
                stack.enter_context(site.connect()) for site in (source, target)
            )
            try:
                self._arm()
                self._pause()
                self._fence()
                self._wait_for_the_mark()
                self._advance_sequences()
                self._compare_what_is_hot()
                self._reverse()
                self._commit()
            except (psycopg.Error, CutoverError, OSError) as error:
                self._take_back(str(error).strip())
            self._resume()
        return self.timeline

    # --- the steps

    def _arm(self) -> None:
        plan = self.plan
        row = self._source.execute(f"SELECT {SCHEMA}.standing()").fetchone()
        epoch = (row[0] if row else None) or 1
        self._target.execute(
            f"INSERT INTO {SCHEMA}.door (attempt, epoch, until)"
            " VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))",
            (self.id, epoch + 1, plan.limits.lease),
        )
        self._source.execute(
            f"INSERT INTO {SCHEMA}.attempt (id, peer, roles) VALUES (%s, %s, %s)",
            (self.id, plan.goes_to, list(plan.roles)),
        )
        self._reach("armed")

    def _pause(self) -> None:
        limits = self.plan.limits
        self._began = time.monotonic()
        self._tell(
            self._source,
            {
                "do": "pause",
                "attempt": self.id,
                "goes_to": self.plan.goes_to,
                "bound_s": limits.bound,
                "hard_s": limits.hard,
            },
        )
        said = self._hear(self._source, "paused", limits.pause)
        late = sorted(set(self.plan.poolers) - set(said))
        wrong = {who: text for who, text in self.timeline.poolers.items() if text != "paused"}
        if late or wrong:
            raise CutoverError(
                f"within {limits.pause:.1f} s these poolers have not come to rest: "
                + ", ".join(f"{who} ({wrong.get(who, 'no answer')})" for who in late)
                + self._blockers()
            )
        self._reach("paused")

    def _fence(self) -> None:
        with self._source.transaction():
            if not self._source.execute(
                f"UPDATE {SCHEMA}.attempt SET state = 'fencing' WHERE id = %s AND state = 'armed'",
                (self.id,),
            ).rowcount:
                raise CutoverError("a guard has ended the attempt before the source was closed")
            self._connect_right(self._source, "REVOKE {} FROM {}")
        # A session that is just logging in has no name yet. Twice none, and none is left.
        quiet = 0
        while quiet < 2:
            row = self._source.execute(
                # One without a name only a superuser may end: it ends itself, or gets a name.
                "SELECT count(*), count(CASE WHEN usename IS NOT NULL OR (SELECT rolsuper"
                " FROM pg_roles WHERE rolname = current_user) THEN pg_terminate_backend(pid) END)"
                " FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                f" AND ({_OF_THE_APPLICATION}"
                " OR usename IS NULL AND backend_type = 'client backend')",
                (list(self.plan.roles),),
            ).fetchone()
            quiet = quiet + 1 if row and row[0] == 0 else 0
            self._in_time("sessions of the application do not end")
            time.sleep(0.002)
        row = self._source.execute(
            "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
        ).fetchone()
        if row and row[0]:
            raise CutoverError(
                f"{row[0]} prepared transactions are open at the source and could be committed "
                "after the switch. Commit or roll them back (pg_prepared_xacts)"
            )
        self._source.execute(f"INSERT INTO {SCHEMA}.mark (attempt) VALUES (%s)", (self.id,))
        self._reach("fenced")

    def _wait_for_the_mark(self) -> None:
        """Changes are applied as they were committed: with the mark, all before it is there."""
        while not self._target.execute(
            f"SELECT FROM {SCHEMA}.mark WHERE attempt = %s", (self.id,)
        ).rowcount:
            self._in_time("the target has not caught up")
            time.sleep(0.002)
        self._reach("caught_up")

    def _advance_sequences(self) -> None:
        rows = self._source.execute(
            "SELECT schemaname, sequencename, coalesce(last_value, start_value), increment_by,"
            " min_value, max_value, last_value IS NOT NULL FROM pg_sequences"
            " WHERE schemaname NOT IN ('pg_catalog', %s)",
            (SCHEMA,),
        ).fetchall()
        with self._target.transaction():
            for schema, name, last, step, least, most, called in rows:
                value = last + step * self.plan.margin if called else last
                self._target.execute(
                    "SELECT setval(format('%%I.%%I', %s::text, %s::text)::regclass, %s, %s)",
                    (schema, name, min(max(value, least), most), called),
                )
        self._reach("sequences")

    def _compare_what_is_hot(self) -> None:
        differs = self._compare(self._source, self._target)
        if differs:
            raise CutoverError("the sides differ: " + "; ".join(differs[:10]))
        self._reach("compared")

    def _reverse(self) -> None:
        """Keep all that the target will write, for the way back."""
        forward = sql.Identifier(self.plan.forward)
        self._target.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(forward))
        self._target.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE slot_name = %s",
            (self.plan.reverse,),
        )
        self._target.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.plan.reverse,)
        )
        self._reach("reversed")

    def _commit(self) -> None:
        if not self._source.execute(
            f"UPDATE {SCHEMA}.attempt SET state = 'committing' WHERE id = %s AND state = 'fencing'",
            (self.id,),
        ).rowcount:
            raise CutoverError("a guard has ended the attempt, because it took too long")
        self._reach("committing")
        with self._target.transaction():
            if not self._target.execute(
                f"UPDATE {SCHEMA}.door SET opened_at = clock_timestamp() WHERE attempt = %s"
                " AND opened_at IS NULL AND voided_at IS NULL AND until > clock_timestamp()",
                (self.id,),
            ).rowcount:
                raise CutoverError("the time for the switch was over at the target")
            self._connect_right(self._target, "GRANT {} TO {}")
            self._tell(self._target, {"do": "switch", "attempt": self.id})
        self._reach("opened")

    def _resume(self) -> None:
        """Nothing can go wrong any more but that it takes longer: the guards follow the door."""
        with contextlib.suppress(psycopg.Error, OSError):
            self._hear(self._target, "switched", self.plan.limits.hard)
        with contextlib.suppress(psycopg.Error, OSError):
            self._source.execute(
                f"UPDATE {SCHEMA}.attempt SET state = 'switched' WHERE id = %s", (self.id,)
            )
        self._reach("resumed")

    def _take_back(self, why: str) -> None:
        """Take everything back and raise CutoverError, unless the door is open after all.

        Where a side cannot be asked, the guards do it.
        """
        state, left = "unknown", ""
        with contextlib.suppress(psycopg.Error, OSError), self._anew(self.plan.goes_to) as target:
            row = target.execute(f"SELECT {SCHEMA}.door_state(%s, true)", (self.id,)).fetchone()
            state = row[0] if row else state
        if state == "opened":
            return
        with contextlib.suppress(psycopg.Error, OSError), self._anew(self.plan.leaves) as source:
            row = source.execute(
                f"SELECT {SCHEMA}.give_up(%s, %s, %s)", (self.id, state == "void", why)
            ).fetchone()
            left = row[0] if row else ""
            if left == "aborted":
                self._tell(source, {"do": "resume", "attempt": self.id})
        # However long this took: the guards have ended the pause.
        took = min(time.monotonic() - self._began, self.plan.limits.hard)
        pause = f"at most {took * 1000:.0f} ms" if self._began else "none"
        if left not in ("aborted", "armed"):
            raise CutoverError(
                f"Whether the switch from {self.plan.leaves} to {self.plan.goes_to} was made "
                f"cannot be told, because they cannot be asked (attempt {self.id}): {why}. Nothing "
                "is lost: the guards follow as soon as they can ask, and the next run goes on."
            )
        raise CutoverError(
            f"The switch from {self.plan.leaves} to {self.plan.goes_to} was given up, and "
            f"{self.plan.leaves} serves as before (attempt {self.id}, pause {pause}): {why}. "
            "Run again: it goes on from here."
        )

    # --- aids

    def _connect_right(self, connection: Connection, statement: str) -> None:
        """Take the right to connect from the application's roles, or give it to them."""
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        right = sql.SQL("CONNECT ON DATABASE {}").format(sql.Identifier(row[0]))
        for role in self.plan.roles:
            connection.execute(sql.SQL(statement).format(right, sql.Identifier(role)))

    def _anew(self, side: str) -> Connection:
        """A connection of its own: the one that failed may be in any state."""
        return self._sites[side].connect(seconds=2)

    def _reach(self, point: str) -> None:
        if self._began:
            self.timeline.points[point] = round((time.monotonic() - self._began) * 1000, 1)
        self._at(point)

    def _in_time(self, trouble: str) -> None:
        if time.monotonic() - self._began > self.plan.limits.lease:
            raise CutoverError(f"{trouble} within {self.plan.limits.lease:.1f} s of the pause")

    @staticmethod
    def _tell(connection: Connection, what: dict[str, Any]) -> None:
        connection.execute("SELECT pg_notify(%s, %s)", (TOLD, json.dumps(what)))

    def _hear(self, side: Connection, word: str, seconds: float) -> list[str]:
        """Return which poolers have said the word, once all have or the time is over.

        It looks, and is not told: PostgreSQL wakes all who listen to anything for each word that
        anybody says, and of many poolers each would wake all.
        """
        deadline = time.monotonic() + seconds
        heard: set[str] = set()
        while True:
            rows = side.execute(
                f"SELECT name, said, detail FROM {SCHEMA}.pooler WHERE attempt = %s", (self.id,)
            ).fetchall()
            self.timeline.poolers.update(
                {who: f"{said}: {detail}" if detail else said for who, said, detail in rows}
            )
            heard |= {who for who, said, _ in rows if said == word}
            if (
                set(self.plan.poolers) <= heard
                or any(said in ("failed", "refused") for _, said, _ in rows)
                or time.monotonic() > deadline
            ):
                return sorted(heard)
            time.sleep(0.002)

    def _blockers(self) -> str:
        """The transactions that kept the poolers from coming to rest, longest first."""
        rows = self._source.execute(
            "SELECT pid, usename, state, extract(epoch FROM now() - xact_start), left(query, 120)"
            " FROM pg_stat_activity WHERE datname = current_database()"
            f" AND {_OF_THE_APPLICATION} AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 3",
            (list(self.plan.roles),),
        ).fetchall()
        if not rows:
            return ""
        return (
            ". What was running: "
            + "; ".join(
                f"process {pid} of {who}, {state} for {age:.1f} s: {' '.join(query.split())}"
                for pid, who, state, age, query in rows
            )
            + ". Let it end, or end it (pg_terminate_backend)"
        )
