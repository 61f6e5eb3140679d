"""What playbooks/vars/roles.yml gives to an application, out of an inventory and its secrets."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ascent.scaling.plugins.module_utils._release.source import provided

from tests.templates.rendering import ROLES, trusted

PASSWORD = "p/a@ss:w%rd?#[]"


def value(expression: str, **application: Any) -> Any:
    """A variable of roles.yml, for an application with two functions."""
    names = ["application_secret_key", "cache", "database_main", "database_users"]
    secrets = {name: f"{PASSWORD}{name}" for name in names}
    variables = yaml.safe_load((ROLES.parent / "playbooks" / "vars" / "roles.yml").read_text())
    variables |= {
        "ascent_functions": {
            "main": {"database": "shop", "role": "shop"},
            "users": {"database": "people", "role": "people"},
        },
        "ascent_application": {"name": "shop", **application},
        "ascent_secret_values": secrets,
        "ascent_valid_secrets": {
            name: [{"generation": 1, "value": secret}] for name, secret in secrets.items()
        },
    }
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
