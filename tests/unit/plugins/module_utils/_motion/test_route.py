"""Which databases are to be moved, by table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion.route import (
    RouteError,
    moves,
)

FUNCTIONS = {"main": {"database": "shop", "role": "shop"}}
ADDRESSES = {"box": "10.42.0.4", "database": "10.42.0.9", "web_2": "10.42.1.5"}
DATABASE = {"name": "database", "host": "10.42.0.9", "port": 5432}
RDS = {"name": "shop-db", "host": "shop-db.abc.eu-central-1.rds.amazonaws.com", "port": 5432}


def pooler(host: str, **described: Any) -> dict[str, Any]:
    servers = {"main": {"host": host, "port": 5432, "database": "shop"}} if host else {}
    return {"servers": servers, "moves": described}


def move(origin: tuple[str, str], other: tuple[str, str]) -> dict[str, Any]:
    sides = {name: {"host": host, "port": 5432} for name, host in (origin, other)}
    return {"aliases": ["main"], "origin": origin[0], "other": other[0], "sides": sides}


def ends(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(item["origin"]["name"], item["other"]["name"], item["state"]) for item in found]


BEGUN = move(("box", "127.0.0.1"), ("database", "10.42.0.9"))


@pytest.mark.parametrize(
    ("poolers", "wanted", "expected"),
    [
        ({}, DATABASE, []),
        ({"box": pooler("")}, DATABASE, []),
        ({"box": pooler("127.0.0.1")}, {**DATABASE, "name": "box", "host": "127.0.0.1"}, []),
        ({"box": pooler("10.42.0.9")}, DATABASE, []),
        ({"box": pooler("127.0.0.1")}, DATABASE, [("box", "database", "switched")]),
        ({"box": pooler("127.0.0.1")}, RDS, [("box", "shop-db", "switched")]),
        ({"box": pooler("10.42.0.9")}, RDS, [("database", "shop-db", "switched")]),
        ({"box": pooler(RDS["host"])}, RDS, []),
        (
            {"box": pooler("127.0.0.1"), "web_2": pooler("10.42.0.4")},
            DATABASE,
            [("box", "database", "switched")],
        ),
        # Begun, before and after the switch: gone on with.
        ({"box": pooler("127.0.0.1", shop=BEGUN)}, DATABASE, [("box", "database", "switched")]),
        ({"box": pooler("10.42.0.9", shop=BEGUN)}, DATABASE, [("box", "database", "switched")]),
        (
            {"box": pooler("10.42.0.9", shop=BEGUN)},
            {"name": "box", "host": "127.0.0.1", "port": 5432},
            [("box", "database", "returned")],
        ),
        # Without a wish, what was begun is all there is.
        ({"box": pooler("10.42.0.9", shop=BEGUN)}, {}, [("box", "database", "switched")]),
        ({"box": pooler("127.0.0.1")}, {}, []),
        # Finished, but for what comes after it.
        ({"box": pooler("10.42.0.9", shop={**BEGUN, "finished": True})}, DATABASE, []),
        (
            {"box": pooler("10.42.0.9", shop={**BEGUN, "finished": True})},
            {},
            [("box", "database", "switched")],
        ),
        (
            {"box": pooler("10.42.0.9", shop={**BEGUN, "finished": True})},
            RDS,
            [("database", "shop-db", "switched")],
        ),
        # A pooler that came later does not know of it yet.
        (
            {"box": pooler("10.42.0.9", shop=BEGUN), "web_2": pooler("10.42.0.9")},
            DATABASE,
            [("box", "database", "switched")],
        ),
    ],
)
def test_what_is_left_to_move(
    poolers: dict[str, Any], wanted: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert ends(moves(FUNCTIONS, poolers, wanted, ADDRESSES)) == expected


def test_functions_of_one_database_move_together_and_others_for_themselves() -> None:
    functions = {
        "main": {"database": "shop", "role": "shop"},
        "jobs": {"database": "shop", "role": "jobs"},
        "users": {"database": "people", "role": "people"},
    }
    servers = {
        name: {"host": "127.0.0.1", "port": 5432, "database": function["database"]}
        for name, function in functions.items()
    }
    found = moves(functions, {"box": {"servers": servers, "moves": {}}}, DATABASE, ADDRESSES)
    assert [(item["database"], item["aliases"], item["roles"]) for item in found] == [
        ("people", ["users"], ["people"]),
        ("shop", ["jobs", "main"], ["jobs", "shop"]),
    ]


def test_a_side_says_where_it_is_and_whether_it_listens_on_loopback_alone() -> None:
    (found,) = moves(FUNCTIONS, {"box": pooler("127.0.0.1")}, RDS, ADDRESSES)
    assert found["origin"] == {
        "name": "box", "host": "10.42.0.4", "port": 5432, "inventory_host": "box", "loopback": True,
    }  # fmt: skip
    assert found["other"] == {
        "name": "shop-db", "host": RDS["host"], "port": 5432, "inventory_host": "",
        "loopback": False,
    }  # fmt: skip
    (begun,) = moves(FUNCTIONS, {"box": pooler("10.42.0.9", shop=BEGUN)}, DATABASE, ADDRESSES)
    assert (begun["described"], begun["origin"]["loopback"]) == (True, True)
    assert begun["origin"]["host"] == "10.42.0.4"


def test_a_move_says_where_the_poolers_lead_by_now() -> None:
    def at(*poolers: dict[str, Any]) -> list[str]:
        known = dict(zip(("box", "web_2"), poolers, strict=False))
        (found,) = moves(FUNCTIONS, known, DATABASE, ADDRESSES)
        return list(found["at"])

    assert at(pooler("127.0.0.1")) == ["box"]
    assert at(pooler("127.0.0.1", shop=BEGUN)) == ["box"]
    assert at(pooler("10.42.0.9", shop=BEGUN)) == ["database"]
    # In the middle of a switch, or while one of them is away.
    assert at(pooler("127.0.0.1", shop=BEGUN), pooler("10.42.0.9")) == ["box", "database"]


def test_a_managed_server_is_known_by_its_name_and_not_by_its_address() -> None:
    wanted = {**RDS, "name": "shop-db-17", "host": "shop-db-17.abc.rds.amazonaws.com"}
    poolers = {"box": pooler(RDS["host"])}
    (found,) = moves(FUNCTIONS, poolers, wanted, ADDRESSES, {"managed": RDS["host"]})
    assert (found["origin"]["name"], found["origin"]["inventory_host"]) == ("managed", "")
    assert (found["other"]["name"], found["at"]) == ("shop-db-17", ["managed"])


@pytest.mark.parametrize(
    ("poolers", "wanted", "words"),
    [
        (
            {"box": pooler("127.0.0.1"), "web_2": pooler("10.42.0.9")},
            DATABASE,
            "do not agree where the database shop is: box to box; web_2 to database",
        ),
        ({"box": pooler("10.42.0.77")}, DATABASE, "no host of the inventory has that address"),
        ({"box": pooler("127.0.0.1", shop=BEGUN)}, RDS, "from box to database is not finished"),
        (
            {"box": pooler("10.42.0.8", shop=move(("box", "127.0.0.1"), ("old", "10.42.0.8")))},
            DATABASE,
            "the host old .10.42.0.8. is not in the inventory any more",
        ),
    ],
)
def test_what_does_not_fit_together_is_told(
    poolers: dict[str, Any], wanted: dict[str, Any], words: str
) -> None:
    with pytest.raises(RouteError, match=words):
        moves(FUNCTIONS, poolers, wanted, ADDRESSES)
