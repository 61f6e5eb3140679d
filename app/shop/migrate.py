"""Bring the databases to what this release needs: `python -m shop.migrate`.

Numbered SQL files, a directory for each function. The release before goes on serving meanwhile,
so files only expand: they add, never rename or drop what it uses. Each runs in one transaction
with its entry in the ledger, under a lock that ends with the transaction (PgBouncer's transaction
pooling allows no other), so that two runs at once wait for each other.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import psycopg

from .config import FUNCTIONS, HERE, ConfigError, migrate_urls

LOCK = 0x5348_4F50  # "SHOP": any number that nobody else uses
WAIT_FOR_OTHER_RUN = "60s"
# A change that waits for a table makes the live requests behind it wait: give up and come again.
WAIT_FOR_TABLE = "1s"
ATTEMPTS = 10

LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    function   text NOT NULL,
    version    integer NOT NULL,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (function, version)
)"""


def files(function: str) -> dict[int, Path]:
    """Version -> file of a function, in order."""
    found = sorted((HERE / "migrations" / function).glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return {int(path.name[:4]): path for path in found}


def latest(function: str) -> int:
    """The version that this release needs."""
    return max(files(function))


def _apply(url: str, function: str, version: int, path: Path) -> bool:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _apply_once(url, function, version, path)
        except psycopg.errors.LockNotAvailable:
            if attempt == ATTEMPTS:
                raise
            time.sleep(random.uniform(0.5, 1.5))  # noqa: S311 (not for secrets)
    return False


def _apply_once(url: str, function: str, version: int, path: Path) -> bool:
    # Read committed: what the run before us committed while we waited for the lock is seen.
    with psycopg.connect(url, prepare_threshold=None, connect_timeout=10) as connection:
        connection.execute(f"SET LOCAL lock_timeout = '{WAIT_FOR_OTHER_RUN}'")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        connection.execute(f"SET LOCAL lock_timeout = '{WAIT_FOR_TABLE}'")
        connection.execute(LEDGER)
        done = connection.execute(
            "SELECT 1 FROM schema_migrations WHERE function = %s AND version = %s",
            (function, version),
        ).fetchone()
        if done:
            return False
        connection.execute(path.read_bytes())
        connection.execute(
            "INSERT INTO schema_migrations (function, version, name) VALUES (%s, %s, %s)",
            (function, version, path.stem),
        )
    return True


def migrate(urls: dict[str, str]) -> list[str]:
    """Apply what is missing; returns `function/file` of each. Raises psycopg.Error."""
    return [
        f"{function}/{path.stem}"
        for function in FUNCTIONS
        for version, path in files(function).items()
        if _apply(urls[function], function, version, path)
    ]


def main() -> int:
    try:
        applied = migrate(migrate_urls(os.environ))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except psycopg.Error as error:
        print(f"Migration failed, nothing of the failed file stays: {error}", file=sys.stderr)
        return 1
    for name in applied:
        print(f"applied {name}")
    print(f"{len(applied)} applied; the schema is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
