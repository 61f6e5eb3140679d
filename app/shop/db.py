"""Connections to the databases.

They go through PgBouncer in transaction pooling, so nothing may live in a session: no prepared
statements, no SET, no session locks. The pool is our own because it must do one thing well that
general ones do not: while the database is away each request learns it at once, in its own thread,
and the first request after the database is back succeeds. A worker has a bounded number of
threads, each uses one connection of a pool at a time, and so the pool is bounded too.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from .config import Config

log = logging.getLogger(__name__)

MAX_IDLE = 300.0  # seconds; below the idle time-outs of PgBouncer and of firewalls
MAX_AGE = 1800.0  # seconds; so that a name that points elsewhere is noticed
QUERY_LIMIT = 5.0  # seconds a request waits for one answer; a write pause is shorter
CONNECT = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "shop",
}

# Errors that say "the database cannot serve this now", not "the application is wrong". The last one
# a pooler passes on from a server that lets the application in no more: the data is elsewhere now.
AWAY = (
    psycopg.OperationalError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InsufficientPrivilege,
)


class Slow(psycopg.OperationalError):
    """The database did not answer in time."""


class Connection(psycopg.Connection[DictRow]):
    """A connection that never waits longer than its limit for an answer."""

    limit: float = QUERY_LIMIT
    since: float = 0.0
    released: float = 0.0

    def wait(self, gen: Generator[Any, Any, Any], interval: float = 0.1) -> Any:
        """Run one exchange with the server; on time-out close, as an answer is still to come."""
        try:
            return super().wait(_bounded(gen, time.monotonic() + self.limit), interval)
        except Slow:
            self.close()
            raise

    def usable(self, now: float) -> bool:
        """False when it is closed or old, or when the server has hung up meanwhile."""
        if self.closed or now - self.released > MAX_IDLE or now - self.since > MAX_AGE:
            return False
        # An idle connection has nothing to say: readable means that it was closed.
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return not poll.poll(0)


def _bounded(gen: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise Slow("the database did not answer in time")
            wanted = gen.send(ready)
    except StopIteration as stop:
        return stop.value


class Pool:
    """Connections to one URL, made when needed, the latest used first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._idle: deque[Connection] = deque()

    def _take(self) -> Connection:
        now = time.monotonic()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.usable(now):
                return connection
            connection.close()
        connection = Connection.connect(
            self.url, autocommit=True, prepare_threshold=None, row_factory=dict_row, **CONNECT
        )
        connection.since = now
        return connection

    @contextmanager
    def connection(self, limit: float = QUERY_LIMIT) -> Iterator[Connection]:
        """Lend a connection in autocommit mode; a broken or unfinished one is not kept."""
        connection = self._take()
        connection.limit = limit
        try:
            yield connection
        finally:
            idle = psycopg.pq.TransactionStatus.IDLE
            if not connection.closed and connection.info.transaction_status == idle:
                connection.released = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Databases:
    """One pool for each distinct URL, found by function."""

    def __init__(self, config: Config) -> None:
        self.config = config
        urls = {*config.write_urls.values(), *config.read_urls.values()}
        self._pools = {url: Pool(url) for url in urls}

    def pool(self, function: str, *, replica: bool = False) -> Pool:
        urls = self.config.read_urls if replica else self.config.write_urls
        return self._pools[urls[function]]

    @contextmanager
    def transaction(self, function: str) -> Iterator[Connection]:
        """One transaction at the primary of the function."""
        with self.pool(function).connection() as connection, connection.transaction():
            yield connection

    def query(self, function: str, sql: str, *args: object) -> list[DictRow]:
        """One statement at the primary: sees all that this user has just written."""
        with self.pool(function).connection() as connection:
            return connection.execute(sql, args).fetchall()

    def query_replica(self, function: str, sql: str, *args: object) -> list[DictRow]:
        """One read that bears some lag; the primary answers while the replica does not."""
        replica = self.pool(function, replica=True)
        if replica is not self.pool(function):
            try:
                with replica.connection() as connection:
                    return connection.execute(sql, args).fetchall()
            except AWAY as error:
                log.warning("the read replica of %s is away: %s", function, error)
        return self.query(function, sql, *args)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
