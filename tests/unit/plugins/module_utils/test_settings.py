"""Typing errors in names of settings: what is named, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils.settings import (
    Known,
    identifiers,
    members,
    unknown,
)

KNOWN = Known(
    options={
        "ascent": {"ascent_region", "ascent_domain", "ascent_application"},
        "web": {"web_health_path", "web_workers"},
        "instance_profile": {"instance_profile_description"},
        "instances": {"instances_image"},
    },
    internal={"ascent_stage_number", "ascent_host_name", "web_released"},
    keys={"ascent_application": {"name", "health_path"}},
)


def named(*names: str, own: tuple[str, ...] = (), **settings: Any) -> list[str]:
    return unknown(names, settings, own, KNOWN)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ascent_regoin", "ascent_region"),
        ("web_helth_path", "web_health_path"),
        ("web_worker", "web_workers"),
        ("instances_imgae", "instances_image"),
    ],
)
def test_a_typing_error_is_told_with_what_was_meant(name: str, meant: str) -> None:
    assert named(name) == [f"{name} is no setting of Ascent; did you mean {meant}?"]


def test_what_is_like_nothing_is_named_all_the_same() -> None:
    assert named("web_zzz") == ["web_zzz is no setting of Ascent (role web has none like it)."]


@pytest.mark.parametrize(
    "name",
    ["ascent_region", "ascent_stage_number", "web_released", "webhook", "my_web_port", "__web_x"],
)
def test_settings_internals_and_other_variables_are_left_alone(name: str) -> None:
    assert named(name) == []


def test_a_pattern_of_the_users_own_is_left_alone() -> None:
    assert named("web_team", "web_team_mail", own=("web_team*",)) == []


def test_the_keys_of_a_map_are_looked_at() -> None:
    application = {"name": "shop", "helth_path": "/", "colour": "red"}
    assert named(ascent_application=application) == [
        "ascent_application.colour is nothing that Ascent reads; it may have health_path, name.",
        "ascent_application.helth_path is nothing that Ascent reads; did you mean health_path?",
    ]
    assert named(ascent_application="no map", ascent_functions={"any": {}}) == []


def test_a_playbooks_text_is_read_for_what_it_speaks_of() -> None:
    text = """
    vars: {ascent_operation: deploy, other_web_x: 1}
    x: "{{ ascent_source | default(ascent_application.source) }} {{ web_released.release }}"
    y: "{{ ascent_application['exclude'] }} {{ ascent_application.items() }}"
    """
    assert identifiers(text, ["ascent", "web"]) == {
        "ascent_operation",
        "ascent_source",
        "ascent_application",
        "web_released",
    }
    assert members(text, "ascent_application") == {"source", "exclude"}
