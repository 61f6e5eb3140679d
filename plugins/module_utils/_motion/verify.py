# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the two sides of a move while the application writes.

Each table is read once on each side, and its rows are hashed into buckets by their key; a bucket
is the same where the number of its rows and the sum of their hashes are. No order of keys is
needed, so that neither collations nor versions of the servers matter.

Where buckets differ, their rows are read at the source, at the target once that has all the source
had then, and at the source again. A row that the source has the same way both times, and the target
in another way, differs: nothing that is under way explains it. A row that the source has changed
meanwhile is in motion, and asked for again; what never comes to rest is left to the moment of
the switch, when everything is.

A sample is for tables that are too large to be read as a whole: all rows are counted on both sides,
and some are compared by their keys, picked at random at each side, and the newest ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.ascent.scaling.plugins.module_utils._motion import ledger
from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import Connection

# Rows of a bucket, about; and the most buckets of a table.
ROWS_A_BUCKET, MOST_BUCKETS = 500, 65536
# Rows that are compared one by one at a time, about.
ROWS_AT_A_TIME = 200_000
# How often rows in motion are asked for again, and how many are left to the switch.
ROUNDS, MOST_IN_MOTION = 5, 1000
MOST_TOLD = 20
# Rows of a sample that are asked for by their keys at a time.
KEYS_AT_A_TIME = 5000

# The same text for the same value on every server.
_SAME_TEXT = (
    "SET extra_float_digits = 3; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601';"
    " SET timezone = 'UTC'; SET bytea_output = 'hex'; SET xmlbinary = 'base64';"
    " SET lc_monetary = 'C'; SET statement_timeout = 0"
)

_KEYS = """
WITH k AS (
  SELECT format('%%I', a.attname) AS name, format_type(a.atttypid, a.atttypmod) AS kind, place
  FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid,
       unnest(x.indkey) WITH ORDINALITY AS u(number, place),
       pg_attribute a
  WHERE c.oid = %s::regclass AND a.attrelid = c.oid AND a.attnum = u.number
    AND (c.relreplident = 'i' AND x.indisreplident OR c.relreplident <> 'i' AND x.indisprimary)
)
SELECT array(SELECT name FROM k ORDER BY place), array(SELECT kind FROM k ORDER BY place)
"""

_SHAPE = """
SELECT format('table %%I.%%I column %%s %%I %%s%%s', n.nspname, c.relname,
              row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname,
              format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' END)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid = ANY(%(tables)s::regclass[])
UNION ALL
SELECT format('index %%s', indexdef) FROM pg_indexes
WHERE format('%%I.%%I', schemaname, tablename)::regclass = ANY(%(tables)s::regclass[])
UNION ALL
SELECT format('constraint %%I of %%s: %%s', conname, conrelid::regclass,
              pg_get_constraintdef(oid))
FROM pg_constraint WHERE conrelid = ANY(%(tables)s::regclass[]) AND contype <> 'n'
UNION ALL
SELECT pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgrelid = ANY(%(tables)s::regclass[]) AND NOT tgisinternal
"""

Row = dict[str, Any]


class VerifyError(Exception):
    """The sides could not be compared; the text says what was tried and what to do."""


@dataclass
class Table:
    """What was found of one table. `moving` holds keys that did not come to rest."""

    name: str
    rows: int = 0
    differs: list[str] = field(default_factory=list)
    differing: int = 0
    moving: list[str] = field(default_factory=list)
    sampled: bool = False


@dataclass
class Verification:
    """A comparison of all tables. `seconds` is how long it took."""

    tables: dict[str, Table]
    shape: list[str]
    seconds: float

    @property
    def sampled(self) -> bool:
        """Whether of some table only a sample was compared."""
        return any(table.sampled for table in self.tables.values())

    @property
    def clean(self) -> bool:
        """Whether nothing differs, and what is left for the switch is little enough."""
        return not self.shape and all(
            not table.differs and len(table.moving) <= MOST_IN_MOTION
            for table in self.tables.values()
        )

    def findings(self) -> list[str]:
        """What differs, a line each."""
        found = [f"only {line}" for line in self.shape]
        for table in self.tables.values():
            found += [f"{table.name}: {line}" for line in table.differs]
            if table.differing > len(table.differs):
                found.append(f"{table.name}: {table.differing} rows differ in all")
            if len(table.moving) > MOST_IN_MOTION:
                found.append(
                    f"{table.name}: {len(table.moving)} rows changed at each look; compare it "
                    "when fewer are written"
                )
        return found


def judge(
    first: dict[str, Any], there: dict[str, Any], again: dict[str, Any]
) -> tuple[dict[str, Literal["missing", "extra", "different"]], set[str]]:
    """Compare the rows of some buckets by key (pure).

    `first` and `again` are what the source had before and after `there` was read at the target:
    key to hash. Returns what differs, and the keys in motion.
    """
    differs: dict[str, Literal["missing", "extra", "different"]] = {}
    moving: set[str] = set()
    for key in first.keys() | there.keys() | again.keys():
        before, after, found = first.get(key), again.get(key), there.get(key)
        if found == after:
            continue
        if before != after:
            moving.add(key)
        elif found is None:
            differs[key] = "missing"
        else:
            differs[key] = "extra" if after is None else "different"
    return differs, moving


class Verifier:
    """Compares a source with the target that follows it; both are read at the same time.

    `sample`: of tables with more rows than that, and a key, only about so many are compared.
    """

    def __init__(
        self,
        source: Connection,
        target: Connection,
        names: tuple[str, str],
        say: Callable[[str], None] = lambda _: None,
        patience: float = 60.0,
        sample: int | None = None,
    ) -> None:
        self._source, self._target = source, target
        self._names = names
        self._say = say
        self._patience = patience
        self._sample = sample

    def run(self, tables: Iterable[str]) -> Verification:
        """Compare the tables. Raises VerifyError where that is not possible."""
        began = time.monotonic()
        wanted = list(tables)
        for connection in (self._source, self._target):
            for statement in _SAME_TEXT.split(";"):
                connection.execute(statement.encode())
        shapes = [
            {row[0] for row in connection.execute(_SHAPE, {"tables": wanted})}
            for connection in (self._source, self._target)
        ]
        shape = [
            f"at {self._names[side]}: {line}"
            for side, other in ((0, 1), (1, 0))
            for line in sorted(shapes[side] - shapes[other])
        ]
        found = {name: self._table(name) for name in wanted}
        return Verification(found, shape, time.monotonic() - began)

    def _table(self, name: str) -> Table:
        query = Query.of(self._source, name)
        table = Table(name)
        if self._sample is not None and query.key and query.size > self._sample:
            self._count(table, query)
        if self._sample is not None and table.rows > self._sample:
            self._some(table, query, self._sample)
        else:
            self._all(table, query)
        self._say(f"{name}: {table.rows} rows, {table.differing} differ")
        return table

    def _all(self, table: Table, query: Query) -> None:
        source, target = self._both(query.sums())
        table.rows = sum(count for count, _ in source.values())
        suspects = sorted(
            bucket
            for bucket in source.keys() | target.keys()
            if source.get(bucket) != target.get(bucket)
        )
        at_a_time = max(1, ROWS_AT_A_TIME // max(1, table.rows // query.buckets))
        for start in range(0, len(suspects), at_a_time):
            buckets = {"buckets": suspects[start : start + at_a_time]}
            self._rows(table, query, query.rows(), buckets)

    def _some(self, table: Table, query: Query, sample: int) -> None:
        table.sampled = True
        picked: set[str] = set()
        for statement in (query.picks(sample / table.rows), query.newest(sample // 10)):
            for found in self._both(statement):
                picked |= found.keys()
        keys = sorted(picked)
        for start in range(0, len(keys), KEYS_AT_A_TIME):
            wanted = {"keys": f"[{','.join(keys[start : start + KEYS_AT_A_TIME])}]"}
            self._rows(table, query, query.some(), wanted)

    def _count(self, table: Table, query: Query) -> None:
        """Count the rows: at the target they are between what the source has before and after.

        So it cannot tell of fewer rows than are written while it counts.
        """
        for _ in range(ROUNDS):
            before = self._number(self._source, query)
            self._catch_up()
            there = self._number(self._target, query)
            table.rows = self._number(self._source, query)
            if min(before, table.rows) <= there <= max(before, table.rows):
                return
        source, target = self._names
        table.differing += abs(there - table.rows)
        table.differs.append(f"{table.rows} rows are at {source}, and {there} at {target}")

    def _rows(self, table: Table, query: Query, statement: bytes, values: Row) -> None:
        only: set[str] | None = None
        for _ in range(ROUNDS):
            first = self._read(self._source, statement, values, only)
            self._catch_up()
            there = self._read(self._target, statement, values, only)
            again = self._read(self._source, statement, values, only)
            differs, moving = judge(first, there, again)
            table.differing += len(differs)
            for key, how in sorted(differs.items()):
                if len(table.differs) < MOST_TOLD:
                    table.differs.append(self._tell(query, key, how))
            if not moving:
                return
            only = moving
        table.moving += sorted(only or ())

    def _tell(self, query: Query, key: str, how: str) -> str:
        source, target = self._names
        row = f"row {key}" if query.key else f"a row with the hash {key}"
        if how == "different":
            return f"{row} is another at {target} than at {source}"
        here, away = (source, target) if how == "missing" else (target, source)
        return f"{row} is at {here}, but not at {away}"

    @staticmethod
    def _read(
        connection: Connection, statement: bytes, values: Row, only: set[str] | None
    ) -> dict[str, Any]:
        rows = connection.execute(statement, values).fetchall()
        return {key: value for key, value in rows if only is None or key in only}

    @staticmethod
    def _number(connection: Connection, query: Query) -> int:
        row = connection.execute(query.number()).fetchone()
        return int(row[0]) if row else 0

    def _both(self, statement: bytes) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Ask both sides at the same time: the first column to the others."""

        def read(connection: Connection) -> dict[Any, Any]:
            return {row[0]: row[1:] for row in connection.execute(statement)}

        with ThreadPoolExecutor(2) as pool:
            source, target = pool.map(read, (self._source, self._target))
        return source, target

    def _catch_up(self) -> None:
        """Wait until the target has all that the source has at this moment."""
        if ledger.lag(self._source, self._target, self._patience) is None:
            raise VerifyError(
                f"{self._names[1]} did not catch up with {self._names[0]} within "
                f"{self._patience:.0f} s, so they cannot be compared. Look at "
                f"pg_stat_subscription and the log of {self._names[1]}."
            )


@dataclass(frozen=True)
class Query:
    """How a table is read. Without a key a row is its own, and equal rows are counted.

    `size` is about how many rows it has.
    """

    table: str
    key: tuple[str, ...]
    types: tuple[str, ...]
    size: int

    @property
    def buckets(self) -> int:
        """Into how many its rows are hashed: a power of two."""
        return max(16, min(MOST_BUCKETS, 1 << (self.size // ROWS_A_BUCKET).bit_length()))

    @classmethod
    def of(cls, connection: Connection, table: str) -> Query:
        """Look at a table: its key, and how large it is."""
        row = connection.execute(_KEYS, (table,)).fetchone()
        key, types = (tuple(row[0]), tuple(row[1])) if row else ((), ())
        size = connection.execute(
            "SELECT greatest(reltuples, pg_relation_size(oid) / 200)::bigint FROM pg_class"
            " WHERE oid = %s::regclass",
            (table,),
        ).fetchone()
        return cls(table, key, types, int(size[0]) if size else 0)

    def _key(self) -> str:
        return f"json_build_array({', '.join(f't.{name}::text' for name in self.key)})::text"

    def _bucket(self) -> str:
        of = f"ROW({', '.join(f't.{name}' for name in self.key)})" if self.key else "t"
        return f"(hashtextextended({of}::text, 0) & {self.buckets - 1})"

    def sums(self) -> bytes:
        """Bucket, number of rows, sum of their hashes."""
        return (
            f"SELECT {self._bucket()}, count(*), sum(hashtextextended(t::text, 1))"
            f" FROM ONLY {self.table} t GROUP BY 1"
        ).encode()

    def rows(self) -> bytes:
        """Key and hash of the rows of some buckets; without a key, hash and how often."""
        where = f"FROM ONLY {self.table} t WHERE {self._bucket()} = ANY(%(buckets)s)"
        if self.key:
            return f"SELECT {self._key()}, hashtextextended(t::text, 1) {where}".encode()
        return f"SELECT hashtextextended(t::text, 1)::text, count(*) {where} GROUP BY 1".encode()

    def some(self) -> bytes:
        """Key and hash of the rows with the given keys (JSON arrays of texts), by the index."""
        names = ", ".join(f"t.{name}" for name in self.key)
        # Qualified: a table may have a column of any name.
        values = ", ".join(
            f"(asked.item ->> {place})::{kind}" for place, kind in enumerate(self.types)
        )
        return (
            f"SELECT {self._key()}, hashtextextended(t::text, 1) FROM ONLY {self.table} t"
            f" WHERE ({names}) IN"
            f" (SELECT {values} FROM jsonb_array_elements(%(keys)s::jsonb) AS asked (item))"
        ).encode()

    def number(self) -> bytes:
        """How many rows there are."""
        return f"SELECT count(*) FROM ONLY {self.table}".encode()

    def picks(self, share: float) -> bytes:
        """Keys of a share of the rows: those of pages that are picked at random."""
        return (
            f"SELECT {self._key()} FROM ONLY {self.table} t TABLESAMPLE SYSTEM ({100 * share:.6f})"
        ).encode()

    def newest(self, rows: int) -> bytes:
        """Keys of the rows that come last in the order of the key."""
        order = ", ".join(f"t.{name} DESC" for name in self.key)
        return (
            f"SELECT {self._key()} FROM ONLY {self.table} t ORDER BY {order} LIMIT {rows}".encode()
        )
