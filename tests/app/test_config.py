from __future__ import annotations

import pytest
from shop.config import Config, ConfigError, migrate_urls

MAIN = {"DATABASE_URL": "postgresql://main"}


@pytest.mark.parametrize(
    ("env", "write", "read"),
    [
        (MAIN, "postgresql://main", "postgresql://main"),
        ({"DATABASE_URL_MAIN": "postgresql://alias"}, "postgresql://alias", "postgresql://alias"),
        (MAIN | {"DATABASE_URL_MAIN": "postgresql://alias"}, "postgresql://main",
         "postgresql://main"),
        (MAIN | {"DATABASE_READ_URL": "postgresql://replica"}, "postgresql://main",
         "postgresql://replica"),
        (MAIN | {"DATABASE_URL_ORDERS": "postgresql://orders"}, "postgresql://orders",
         "postgresql://orders"),
        # The main database's replica does not have what moved out.
        (MAIN | {"DATABASE_URL_ORDERS": "postgresql://orders",
                 "DATABASE_READ_URL": "postgresql://replica"},
         "postgresql://orders", "postgresql://orders"),
        (MAIN | {"DATABASE_READ_URL": "postgresql://replica",
                 "DATABASE_READ_URL_ORDERS": "postgresql://orders-replica"},
         "postgresql://main", "postgresql://orders-replica"),
        # Empty is unset: environment files often leave a name without a value.
        (MAIN | {"DATABASE_URL_ORDERS": " "}, "postgresql://main", "postgresql://main"),
    ],
)  # fmt: skip
def test_each_function_finds_its_database(env: dict[str, str], write: str, read: str) -> None:
    config = Config.from_environment(env)
    assert (config.write_urls["orders"], config.read_urls["orders"]) == (write, read)


def test_without_a_database_it_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="set DATABASE_URL"):
        Config.from_environment({})


@pytest.mark.parametrize(
    ("given", "url"),
    [("", "/static/"), ("/assets", "/assets/"), ("https://cdn.test/s/", "https://cdn.test/s/")],
)
def test_static_url_ends_with_a_slash(given: str, url: str) -> None:
    assert Config.from_environment(MAIN | {"STATIC_URL": given}).static_url == url


def test_without_a_key_each_start_has_its_own() -> None:
    keys = {Config.from_environment(MAIN).secret_key for _ in range(2)}
    assert len(keys) == 2 and min(map(len, keys)) >= 32


def test_fallback_keys_are_separated_by_commas() -> None:
    def keys(given: str) -> tuple[str, ...]:
        return Config.from_environment(MAIN | {"SECRET_KEY_FALLBACKS": given}).secret_key_fallbacks

    assert keys("") == ()
    assert keys("one") == ("one",)
    assert keys("one,two,") == ("one", "two")


def test_migrations_take_the_direct_url_of_the_database_that_has_the_function() -> None:
    env = MAIN | {"DATABASE_MIGRATE_URL": "postgresql://direct", "DATABASE_URL_ORDERS": "x://own"}
    assert migrate_urls(env) == {
        "users": "postgresql://direct",
        "catalogue": "postgresql://direct",
        "orders": "x://own",
    }
    assert migrate_urls(env | {"DATABASE_MIGRATE_URL_ORDERS": "x://d"})["orders"] == "x://d"
    assert migrate_urls(MAIN)["users"] == "postgresql://main"
