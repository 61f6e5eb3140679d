"""The lab is an AWS like any other: only endpoint, credentials and sizes tell it apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What every environment has of its own.
OWN = {"ascent_environment", "ascent_domain", "ascent_operator_cidrs"}
# The last one names the authority of the lab's RDS.
ONLY_LAB = {
    *("ascent_aws_endpoint_url", "ascent_aws_access_key", "ascent_aws_secret_key"),
    "ascent_managed_database",
}


def load(inventory: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "inventories" / inventory / name).read_text())
    return found


def test_settings_differ_in_endpoint_credentials_and_sizes_alone() -> None:
    lab, aws = (load(name, "group_vars/all.yml") for name in ("lab", "aws_example"))
    assert set(lab) - set(aws) == ONLY_LAB
    assert set(aws) - set(lab) == set()
    differing = {key for key in aws if aws[key] != lab[key]}
    assert differing <= OWN | {"ascent_sizes"}
    assert set(aws["ascent_sizes"]) == set(lab["ascent_sizes"])
    assert set(lab["ascent_managed_database"]) == {"ca_file", "ca_url"}


def test_the_inventory_files_differ_in_the_connection_alone() -> None:
    lab, aws = (load(name, "ascent.fleet.yml") for name in ("lab", "aws_example"))
    assert set(lab) - set(aws) == {"endpoint_url", "access_key", "secret_key"}
    assert {key for key in aws if aws[key] != lab[key]} == {"environment", "ssh_directory"}
    assert load("lab", "controller.yml") == load("aws_example", "controller.yml")


@pytest.mark.parametrize("inventory", ["lab", "aws_example"])
def test_both_files_of_an_inventory_speak_of_the_same_environment(inventory: str) -> None:
    settings, fleet = load(inventory, "group_vars/all.yml"), load(inventory, "ascent.fleet.yml")
    assert fleet["environment"] == settings["ascent_environment"]
    assert fleet["regions"] == [settings["ascent_region"]]
    assert fleet["ssh_directory"] == f"../../build/{fleet['environment']}/ssh"
    for option in ("endpoint_url", "access_key", "secret_key"):
        assert fleet.get(option) == settings.get(f"ascent_aws_{option}")


def test_playbooks_roles_and_plugins_have_no_word_of_the_lab() -> None:
    # An environment may be called `lab`; nothing may ask whether it is one.
    asks = re.compile(
        r"ASCENT_LAB|ascentlab|198\.18\.|\bmoto\b|\bthe lab\b|\ba lab\b", re.IGNORECASE
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("playbooks", "roles", "plugins")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix in (".py", ".yml", ".j2", ".md")
        for line in path.read_text().splitlines()
        if asks.search(line)
    ]
    assert found == []
