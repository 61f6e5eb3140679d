"""Instances become hosts."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils import fleet


def instance(number: int = 1, **changes: Any) -> fleet.Instance:
    found: Any = {
        "id": f"i-{number}",
        "region": "us-east-1",
        "zone": "us-east-1a",
        "state": "running",
        "type": "t3.small",
        "image": "ami-1",
        "private_address": f"10.42.0.{number}",
        "public_address": f"198.51.100.{number}",
        "tags": {
            "ascent:environment": "lab",
            "ascent:name": "box",
            "ascent:tier": "web+pooler+database+cache",
            "ascent:stage": "1",
        },
    }
    tags = {**found["tags"], **changes.pop("tags", {})}
    return {**found, **changes, "tags": tags}  # type: ignore[return-value]


def build(*instances: fleet.Instance, **connection: Any) -> fleet.Fleet:
    return fleet.build_hosts(list(instances), "lab", fleet.Connection(**connection))


def test_one_box_is_in_every_tier() -> None:
    host = build(instance()).hosts["box"]
    assert host["groups"] == [
        "ascent_lab",
        "function_main",
        "stage_1",
        "state_running",
        "tier_cache",
        "tier_database",
        "tier_pooler",
        "tier_web",
        "zone_us_east_1a",
    ]


def test_nothing_gives_empty_groups_and_no_warning() -> None:
    found = build()
    assert found.hosts == {}
    assert found.warnings == []
    assert "tier_web" in found.groups


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_a_host_that_does_not_run_is_in_no_play(state: str) -> None:
    assert build(instance(state=state)).hosts["box"]["groups"] == [f"state_{state}"]


def test_states_of_plays_are_a_setting() -> None:
    groups = build(instance(state="stopped"), states=["stopped"]).hosts["box"]["groups"]
    assert "tier_web" in groups


def test_names_that_are_shared_get_the_id_and_a_warning() -> None:
    found = build(instance(1), instance(2))
    assert sorted(found.hosts) == ["box-i-1", "box-i-2"]
    assert "i-1, i-2" in found.warnings[0]


def test_a_host_without_a_name_is_called_by_its_id() -> None:
    assert list(build(instance(tags={"ascent:name": ""})).hosts) == ["i-1"]


@pytest.mark.parametrize("tag", ["ascent:name", "ascent:tier"])
def test_a_host_without_a_tag_is_told(tag: str) -> None:
    [warning] = build(instance(tags={tag: ""})).warnings
    assert f"i-1 is one of the environment lab by its tag, but has no {tag}" in warning


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ({}, "198.51.100.1"),
        ({"addresses": ["private", "public"]}, "10.42.0.1"),
        ({"group_addresses": {"tier_web": ["private"]}}, "10.42.0.1"),
        ({"group_addresses": {"tier_other": ["private"]}}, "198.51.100.1"),
    ],
)
def test_the_address_follows_the_rule(connection: dict[str, Any], expected: str) -> None:
    assert build(instance(), **connection).hosts["box"]["variables"]["ansible_host"] == expected


def test_without_a_public_address_the_private_one_serves() -> None:
    found = build(instance(public_address=""))
    assert found.hosts["box"]["variables"]["ansible_host"] == "10.42.0.1"


def test_a_running_host_that_cannot_be_reached_is_told_and_in_no_play() -> None:
    found = build(instance(public_address=""), addresses=["public"])
    assert found.hosts["box"]["groups"] == ["state_running"]
    assert "i-1" in found.warnings[0]


def test_a_hosts_key_is_remembered_by_its_id() -> None:
    variables = build(instance(), known_hosts_file="/b/known hosts").hosts["box"]["variables"]
    assert "HostKeyAlias=i-1" in variables["ansible_ssh_common_args"]
    assert 'UserKnownHostsFile="/b/known hosts"' in variables["ansible_ssh_common_args"]


def test_functions_are_listed_once_each() -> None:
    groups = build(instance(tags={"ascent:function": "users+orders+users"})).hosts["box"]["groups"]
    assert [name for name in groups if name.startswith("function_")] == [
        "function_orders",
        "function_users",
    ]
