"""Which versions of PostgreSQL there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.engine import RECIPE, Engine
from tests.unit.lab.conftest import ENGINE


@pytest.mark.parametrize(
    ("version", "there"),
    [
        ("17", True),
        ("17.0", True),
        ("17.6", True),
        ("17.7", False),
        ("16", False),
        ("16.4", False),
        ("18", False),
        ("17.", False),
        ("17.x", False),
        ("", False),
        ("1", False),
    ],
)
def test_a_minor_version_up_to_the_installed_one_is_there(version: str, there: bool) -> None:
    assert ENGINE.offers(version) is there


def test_a_newer_package_offers_more() -> None:
    newer: Engine = replace(ENGINE, version="17.12")
    assert newer.offers("17.12")
    assert not newer.offers("17.13")


def test_every_file_of_the_recipe_is_there() -> None:
    names = {p.name for p in RECIPE.rglob("*") if p.is_file()}
    assert {"install.sh", "ascent-rds.service", "prepare", "heartbeat", "membership.sql"} <= names
