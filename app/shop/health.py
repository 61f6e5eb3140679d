"""Alive: the process answers. Ready: it can serve, so the databases answer."""

from __future__ import annotations

import logging

import psycopg
from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from . import migrate
from .db import Pool
from .services import services

log = logging.getLogger(__name__)
blueprint = Blueprint("health", __name__, url_prefix="/health")

LIMIT = 1.0  # seconds for a database to answer

# Functions whose schema has been seen to be what this release needs: it never goes back.
_schema_seen: set[str] = set()


@blueprint.get("/alive")
def alive() -> ResponseReturnValue:
    return jsonify(status="alive", release=services().config.release)


@blueprint.get("/ready")
def ready() -> ResponseReturnValue:
    """200 'ready' or 'degraded' (slower or with lag, yet serving); 503 'unavailable'."""
    config, databases = services().config, services().databases
    functions_at: dict[str, list[str]] = {}
    for function, url in config.write_urls.items():
        functions_at.setdefault(url, []).append(function)
    answers = {
        url: _ask(databases.pool(functions[0]), functions)
        for url, functions in functions_at.items()
    }
    checks = {function: answers[url] for function, url in config.write_urls.items()}
    serving = all(answer == "ok" for answer in checks.values())

    for function, url in config.read_urls.items():
        if url not in answers:
            answers[url] = _ask(databases.pool(function, replica=True), [])
        if url != config.write_urls[function]:
            checks[f"{function}_replica"] = answers[url]
    checks["cache"] = services().cache.check()
    checks["sessions"] = services().sessions.check()

    whole = all(answer in ("ok", "off") for answer in checks.values())
    status = "ready" if whole else "degraded" if serving else "unavailable"
    response = jsonify(
        status=status, release=config.release, host_name=config.host_name, checks=checks
    )
    if not serving:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return response


def _ask(pool: Pool, functions: list[str]) -> str:
    """'ok', or in a few words why not. Once for each function its schema is looked at."""
    unseen = [function for function in functions if function not in _schema_seen]
    try:
        with pool.connection(limit=LIMIT) as connection:
            if not unseen:
                connection.execute("SELECT 1")
                return "ok"
            versions = {
                row["function"]: row["version"]
                for row in connection.execute(
                    "SELECT function, max(version) AS version FROM schema_migrations"
                    " GROUP BY function"
                )
            }
    except psycopg.errors.UndefinedTable:
        versions = {}
    except psycopg.Error as error:
        log.warning("a database is not ready: %s", error)
        return f"away ({type(error).__name__})"
    behind = [name for name in unseen if versions.get(name, 0) < migrate.latest(name)]
    if behind:
        return f"schema of {', '.join(behind)} is behind: run python -m shop.migrate"
    _schema_seen.update(unseen)
    return "ok"
