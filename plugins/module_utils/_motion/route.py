# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which databases are to be moved: where the poolers lead, and where a stage wants them (pure)."""

from __future__ import annotations

from typing import Any

LOOPBACK = "127.0.0.1"


class RouteError(Exception):
    """What the poolers say does not fit together; the text says what and what to do."""


def moves(
    functions: dict[str, dict[str, Any]],
    poolers: dict[str, dict[str, Any]],
    wanted: dict[str, Any],
    addresses: dict[str, str],
    managed: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Return what is to be moved, or is being moved, by database.

    `functions` are the environment's, by name, with `database` and `role`. `poolers` has, for each
    pooler's host, its `servers` by alias (`host`, `port`, `database`) and the `moves` that its
    guard knows (`aliases`, `origin`, `other`, `sides` with their servers). `wanted` is where the
    stage wants all databases: `name`, `host`, `port`; empty asks for begun moves alone.
    `addresses` are the hosts' private addresses by name, `managed` the names that managed servers
    are reached at, by name.

    Each move has `database`, `aliases`, `roles`, `origin`, `other`, `at` (the names of where the
    poolers lead), `state` (what to bring it to: `switched` or `returned`), `described`, whether it
    was begun, and `finished`, whether its way back was given up already. A side has `name`, `host`,
    `port`, `inventory_host` (empty for a managed server) and `loopback`, whether its PostgreSQL
    listens on the loopback address of a pooler's host alone. Raises RouteError.
    """
    found = []
    for database in sorted({function["database"] for function in functions.values()}):
        aliases = sorted(name for name in functions if functions[name]["database"] == database)
        roles = sorted({functions[name]["role"] for name in aliases})
        common = {"database": database, "aliases": aliases, "roles": roles}
        described = _described(database, poolers, addresses, asks_for_all=not wanted)
        if described:
            origin, other, finished = described
            names = [origin["name"], other["name"]]
            if wanted and wanted["name"] not in names:
                raise RouteError(
                    f"The move of the database {database} from {names[0]} to {names[1]} is not "
                    f"finished, and it is wanted at {wanted['name']}. First finish that move "
                    "(operations/finish_move.yml), or go back (operations/move_back.yml)"
                )
            state = "returned" if wanted.get("name") == origin["name"] else "switched"
            sides = {"origin": origin, "other": other, "at": _at(aliases, poolers, origin, other)}
            found.append(
                {**common, **sides, "state": state, "described": True, "finished": finished}
            )
            continue
        if not wanted:
            continue
        places = _places(aliases, poolers, addresses, wanted, managed or {})
        if not places or set(places) == {wanted["name"]}:
            continue
        if len(places) > 1:
            told = "; ".join(
                f"{', '.join(places[name]['by'])} to {name}" for name in sorted(places)
            )
            raise RouteError(
                f"The poolers do not agree where the database {database} is: {told}. Find out "
                "where its data is, and lead the others there (databases.ini of PgBouncer, RELOAD)"
            )
        (origin,) = places.values()
        origin.pop("by")
        other = side(str(wanted["name"]), str(wanted["host"]), int(wanted["port"]), addresses)
        sides = {"origin": origin, "other": other, "at": [origin["name"]]}
        found.append(
            {**common, **sides, "state": "switched", "described": False, "finished": False}
        )
    return found


def side(
    name: str, host: str, port: int, addresses: dict[str, str], loopback: bool = False
) -> dict[str, Any]:
    """A side as a move has it."""
    return {
        "name": name,
        "host": addresses.get(name, host),
        "port": port,
        "inventory_host": name if name in addresses else "",
        "loopback": loopback,
    }


def _described(
    database: str,
    poolers: dict[str, dict[str, Any]],
    addresses: dict[str, str],
    asks_for_all: bool,
) -> tuple[dict[str, Any], dict[str, Any], bool] | None:
    """The two sides of a move that was begun, and whether it is finished; None if none was."""
    for pooler in sorted(poolers):
        move = poolers[pooler]["moves"].get(database)
        if not move or (move.get("finished") and not asks_for_all):
            continue
        sides = []
        for name in (move["origin"], move["other"]):
            server = move["sides"][name]
            if server["host"] != LOOPBACK and name not in addresses and _is_private(server["host"]):
                raise RouteError(
                    f"The database {database} is being moved, and the host {name} "
                    f"({server['host']}) is not in the inventory any more. Bring it back, or "
                    "restore the database"
                )
            local = any(
                known["moves"][database]["sides"][name]["host"] == LOOPBACK
                for known in poolers.values()
                if database in known["moves"]
            )
            sides.append(side(name, server["host"], server["port"], addresses, local))
        return sides[0], sides[1], bool(move.get("finished"))
    return None


def _at(
    aliases: list[str],
    poolers: dict[str, dict[str, Any]],
    origin: dict[str, Any],
    other: dict[str, Any],
) -> list[str]:
    """Which sides of a move the poolers lead to by now, by name."""
    found = set()
    for pooler, known in poolers.items():
        for alias in aliases:
            host = known["servers"].get(alias, {}).get("host")
            for one in (origin, other):
                local = host == LOOPBACK and one["inventory_host"] == pooler
                if local or host == one["host"]:
                    found.add(one["name"])
    return sorted(found)


def _is_private(host: str) -> bool:
    """Whether a server is named by its address, as our own hosts are; managed ones have names."""
    return host.replace(".", "").isdigit()


def _places(
    aliases: list[str],
    poolers: dict[str, dict[str, Any]],
    addresses: dict[str, str],
    wanted: dict[str, Any],
    managed: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """The sides that the poolers lead to, by name, each with who does (`by`)."""
    names = {address: name for name, address in (managed | addresses).items()}
    found: dict[str, dict[str, Any]] = {}
    for pooler in sorted(poolers):
        for alias in aliases:
            server = poolers[pooler]["servers"].get(alias)
            if server is None:
                continue
            local = server["host"] == LOOPBACK
            name = pooler if local else names.get(server["host"])
            if name is None:
                if server["host"] == wanted["host"]:
                    name = str(wanted["name"])
                elif _is_private(server["host"]):
                    raise RouteError(
                        f"The pooler of {pooler} leads {alias} to {server['host']}, and no host of "
                        "the inventory has that address. Bring that host back, or restore the "
                        "database"
                    )
                else:
                    name = server["host"].split(".")[0]
            place = found.setdefault(
                name, {**side(name, server["host"], server["port"], addresses), "by": []}
            )
            place["loopback"] = place["loopback"] or local
            if pooler not in place["by"]:
                place["by"].append(pooler)
    return found
