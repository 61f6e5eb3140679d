"""The filter against the collection itself: it knows all that its inventories and playbooks use."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.ascent.scaling.plugins.filter.unknown_settings import (
    known,
    unknown_settings,
)

ROOT = Path(__file__).parents[4]
SETTINGS = sorted(ROOT.glob("inventories/*/group_vars/*.yml"))


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.parts[-3])
def test_an_inventory_that_is_shipped_has_no_typing_error(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    assert settings
    assert unknown_settings(list(settings), settings) == []


def test_what_operations_take_on_the_command_line_is_known() -> None:
    assert unknown_settings(["ascent_release", "ascent_source", "ascent_delete_backups"]) == []


def test_every_role_is_looked_at() -> None:
    roles = {path.parts[-3] for path in ROOT.glob("roles/*/meta/argument_specs.yml")}
    assert set(known().options) == roles
    for role in sorted(roles):
        assert len(unknown_settings([f"{role}_zzqqxx"])) == 1


def test_a_typing_error_finds_the_setting_of_its_role() -> None:
    assert unknown_settings(["database_max_conections"]) == [
        "database_max_conections is no setting of Ascent; did you mean database_max_connections?"
    ]
