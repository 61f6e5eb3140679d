"""What playbooks/vars/roles.yml gives to an application, out of an inventory and its secrets."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ascent.scaling.plugins.module_utils._release.source import provided

from tests.templates.rendering import ROLES, find_collections, trusted

PASSWORD = "p/a@ss:w%rd?#[]"


def value(expression: str, known: dict[str, Any] | None = None, **application: Any) -> Any:
    """A variable of roles.yml, for an application with two functions; `known` is of the host."""
    names = ["application_secret_key", "cache", "database_main", "database_users", "move"]
    secrets = {name: f"{PASSWORD}{name}" for name in names}
    variables = yaml.safe_load((ROLES.parent / "playbooks" / "vars" / "roles.yml").read_text())
    variables |= {
        "inventory_hostname": "box",
        "group_names": ["tier_web", "tier_pooler", "tier_database"],
        "groups": {"all": ["box"], "tier_pooler": ["box"], "tier_database": ["box"]},
        "ascent_functions": {
            "main": {"database": "shop", "role": "shop"},
            "users": {"database": "people", "role": "people"},
        },
        "ascent_application": {"name": "shop", **application},
        "ascent_environment": "lab",
        "ascent_database_host": "database",
        "ascent_secret_values": secrets,
        "ascent_valid_secrets": {
            name: [{"generation": 1, "value": secret}] for name, secret in secrets.items()
        },
        **(known or {}),
    }
    find_collections()
    templar = Templar(loader=DataLoader(), variables=trusted(variables))
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def test_the_names_are_those_that_the_preflight_knows() -> None:
    assert sorted(value("ascent_provided_environment")) == provided(["main", "users"])


def test_the_application_reaches_its_databases_through_the_pooler() -> None:
    given = value("web_secret_environment")
    url = urlsplit(given["DATABASE_URL_USERS"])
    assert (url.hostname, url.port, url.path, url.username) == (
        "127.0.0.1",
        6432,
        "/users",
        "people_a",
    )
    assert unquote(url.password or "") == f"{PASSWORD}database_users"
    assert given["PGPASSWORD"] == f"{PASSWORD}database_main"


def test_what_is_no_secret_is_not_hidden_in_what_a_run_says() -> None:
    """A secret's value is masked wherever it occurs, and `main` occurs often."""
    application = {"environment_from": {"DB_NAME": "PGDATABASE"}, "environment": {"A": "b"}}
    assert value("web_environment", **application) == {
        "A": "b",
        "DB_NAME": "main",
        "PGDATABASE": "main",
        "PGHOST": "127.0.0.1",
        "PGPORT": "6432",
        "PGUSER": "shop_a",
    }
    assert not set(value("web_environment", **application)) & set(
        value("web_secret_environment", **application)
    )


def test_the_migration_alone_reaches_them_past_the_pooler() -> None:
    given = value("web_migrate_secret_environment")
    assert sorted(given) == [
        "DATABASE_URL_DIRECT",
        "DATABASE_URL_DIRECT_MAIN",
        "DATABASE_URL_DIRECT_USERS",
    ]
    url = urlsplit(given["DATABASE_URL_DIRECT_USERS"])
    assert (url.port, url.path, url.username) == (5432, "/people", "people_a")
    assert not set(given) & set(value("web_secret_environment"))


def test_an_application_gets_its_own_names_and_secrets() -> None:
    given = value(
        "web_secret_environment",
        environment_from={"STORE_URL": "DATABASE_URL_USERS"},
        secret_environment={"TOKEN": "x", "CACHE_URL": "redis://other"},
    )
    assert given["STORE_URL"] == given["DATABASE_URL_USERS"]
    assert (given["TOKEN"], given["CACHE_URL"]) == ("x", "redis://other")


def test_a_migration_goes_where_the_data_is_whatever_the_stage_wants() -> None:
    servers = {"users": {"host": "10.42.0.9", "port": 5432, "database": "people"}}
    given = value("web_migrate_secret_environment", {"ascent_data_servers": servers})
    assert urlsplit(given["DATABASE_URL_DIRECT_USERS"]).hostname == "10.42.0.9"
    assert urlsplit(given["DATABASE_URL_DIRECT_MAIN"]).hostname == "127.0.0.1"


def test_the_roles_of_a_move_are_open_on_its_sides_while_it_is_not_finished() -> None:
    def secrets(host: str, finished: bool) -> list[str]:
        move = {"sides": {"box": {}, "database": {}}, "finished": finished}
        known = {
            "inventory_hostname": host,
            "hostvars": {"box": {"ascent_data_moves": {"shop": move}}},
        }
        return sorted(value("database_move_secrets", known))

    assert secrets("box", False) == secrets("database", False) == ["guard", "mover", "replication"]
    assert secrets("box", True) == secrets("other", False) == []


def test_each_role_of_a_move_has_a_password_of_its_own() -> None:
    passwords = value("ascent_move_passwords")
    assert len(set(passwords.values())) == 3
    assert all(len(password) == 64 for password in passwords.values())


def test_two_hosts_of_a_database_let_each_other_in_while_it_moves_between_them() -> None:
    """A pooler's host is let in anyway; a move that is finished lets in nobody."""

    def let_in(host: str, **move: Any) -> Any:
        sides = {"database": {}, "database-17": {}}
        moves = {"shop": {"finished": False, "sides": sides, **move}}
        hosts = {"box": "10.42.0.4", "database": "10.42.0.9", "database-17": "10.42.0.10"}
        known = {name: {"ascent_private_address": address} for name, address in hosts.items()}
        known["box"]["ascent_data_moves"] = moves  # type: ignore[assignment]
        return value(
            "database_move_cidrs",
            {
                "inventory_hostname": host,
                "groups": {"all": list(hosts), "tier_pooler": ["box"]},
                "hostvars": {**known, "localhost": {}},
            },
        )

    assert let_in("database") == ["10.42.0.10/32"]
    assert let_in("database-17") == ["10.42.0.9/32"]
    assert let_in("box") == []
    assert let_in("database-17", finished=True) == []
    assert let_in("database", sides={"box": {}, "database": {}}) == []
