# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances become hosts: variables, names, groups (pure)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TypedDict

TIERS = ("web", "pooler", "database", "cache")


class Instance(TypedDict):
    """What is kept of an EC2 instance; it goes into the cache as JSON."""

    id: str
    region: str
    zone: str
    state: str
    type: str
    image: str
    private_address: str
    public_address: str
    tags: dict[str, str]


class HostVars(TypedDict, total=False):
    """The variables of a host."""

    ansible_host: str
    ansible_user: str
    ansible_ssh_private_key_file: str
    ansible_ssh_common_args: str
    ascent_instance_id: str
    ascent_instance_type: str
    ascent_image_id: str
    ascent_private_address: str
    ascent_public_address: str
    ascent_host_region: str
    ascent_host_zone: str
    ascent_host_state: str
    ascent_host_stage: str
    ascent_host_tiers: list[str]
    ascent_host_functions: list[str]
    ascent_host_name: str


class Host(TypedDict):
    """A host: its variables and its groups."""

    variables: HostVars
    groups: list[str]


@dataclass(frozen=True)
class Connection:
    """How hosts are reached, and which of them are in the groups of plays."""

    addresses: list[str] = field(default_factory=lambda: ["public", "private"])
    group_addresses: dict[str, list[str]] = field(default_factory=dict)
    states: list[str] = field(default_factory=lambda: ["pending", "running"])
    user: str = "admin"
    private_key_file: str = ""
    known_hosts_file: str = ""


@dataclass
class Fleet:
    """The inventory: hosts by name, groups that exist even when empty, and what to warn of."""

    hosts: dict[str, Host] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def trim(item: dict[str, Any], region: str) -> Instance:
    """Return what is kept of an answer of DescribeInstances."""
    return {
        "id": item["InstanceId"],
        "region": region,
        "zone": item.get("Placement", {}).get("AvailabilityZone", ""),
        "state": item["State"]["Name"],
        "type": item.get("InstanceType", ""),
        "image": item.get("ImageId", ""),
        "private_address": item.get("PrivateIpAddress") or "",
        "public_address": item.get("PublicIpAddress") or "",
        "tags": {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])},
    }


def safe(text: str) -> str:
    """Return `text` as a group's name: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


def listed(tags: dict[str, str], key: str) -> list[str]:
    """Return the members of a tag such as `web+pooler`, in its order, none twice."""
    return list(dict.fromkeys(part for part in tags.get(key, "").split("+") if part))


def groups_of(instance: Instance, environment: str, states: list[str]) -> list[str]:
    """Return the groups that an instance belongs to, sorted."""
    groups = {f"state_{safe(instance['state'])}"}
    if instance["state"] in states:
        tags = instance["tags"]
        groups |= {f"tier_{safe(tier)}" for tier in listed(tags, "ascent:tier")}
        functions = listed(tags, "ascent:function") or ["main"]
        groups |= {f"function_{safe(function)}" for function in functions}
        groups.add(f"zone_{safe(instance['zone'])}")
        groups.add(f"ascent_{safe(environment)}")
        if tags.get("ascent:stage"):
            groups.add(f"stage_{safe(tags['ascent:stage'])}")
    return sorted(groups)


def address(instance: Instance, groups: list[str], connection: Connection) -> str:
    """Return the address that Ansible connects to, empty without one."""
    order = connection.addresses
    for group in groups:
        if group in connection.group_addresses:
            order = connection.group_addresses[group]
            break
    known = {"public": instance["public_address"], "private": instance["private_address"]}
    return next((known[kind] for kind in order if known.get(kind)), "")


def variables(instance: Instance, groups: list[str], connection: Connection) -> HostVars:
    """Return a host's variables."""
    tags = instance["tags"]
    found: HostVars = {
        "ascent_instance_id": instance["id"],
        "ascent_instance_type": instance["type"],
        "ascent_image_id": instance["image"],
        "ascent_private_address": instance["private_address"],
        "ascent_public_address": instance["public_address"],
        "ascent_host_region": instance["region"],
        "ascent_host_zone": instance["zone"],
        "ascent_host_state": instance["state"],
        "ascent_host_stage": tags.get("ascent:stage", ""),
        "ascent_host_tiers": listed(tags, "ascent:tier"),
        "ascent_host_functions": listed(tags, "ascent:function") or ["main"],
        "ascent_host_name": tags.get("ascent:name", ""),
    }
    reached_at = address(instance, groups, connection)
    if reached_at:
        found["ansible_host"] = reached_at
    if connection.user:
        found["ansible_user"] = connection.user
    if connection.private_key_file:
        found["ansible_ssh_private_key_file"] = connection.private_key_file
    if connection.known_hosts_file:
        found["ansible_ssh_common_args"] = (
            f"-o HostKeyAlias={instance['id']} -o StrictHostKeyChecking=accept-new "
            f'-o UserKnownHostsFile="{connection.known_hosts_file}" -o IdentitiesOnly=yes'
        )
    return found


def name_of(instance: Instance, doubled: set[str]) -> str:
    """Return a host's name: its tag when no other has it, with the id when one does."""
    name = instance["tags"].get("ascent:name", "")
    if not name:
        return instance["id"]
    return f"{name}-{instance['id']}" if name in doubled else name


def build_hosts(instances: list[Instance], environment: str, connection: Connection) -> Fleet:
    """Return the inventory of an environment."""
    fleet = Fleet(groups=[f"ascent_{safe(environment)}", *(f"tier_{tier}" for tier in TIERS)])
    counted = Counter(item["tags"].get("ascent:name", "") for item in instances)
    doubled = {name for name, count in counted.items() if name and count > 1}
    for name in sorted(doubled):
        ids = sorted(item["id"] for item in instances if item["tags"].get("ascent:name") == name)
        fleet.warnings.append(
            f"{len(ids)} instances bear the name {name}: {', '.join(ids)}. They are listed with "
            "their ids; remove the tag ascent:environment from those that are not in use"
        )
    for instance in instances:
        lacking = [tag for tag in ("ascent:name", "ascent:tier") if not instance["tags"].get(tag)]
        if lacking:
            fleet.warnings.append(
                f"{instance['id']} is one of the environment {environment} by its tag, but has no "
                f"{' and no '.join(lacking)}, so it is in no play. Give it back what it had, or "
                "remove its tag ascent:environment"
            )
        groups = groups_of(instance, environment, connection.states)
        found = variables(instance, groups, connection)
        if "ansible_host" not in found and instance["state"] == "running":
            fleet.warnings.append(
                f"{instance['id']} ({instance['tags'].get('ascent:name', 'no name')}) runs but "
                f"has none of the addresses that the rule asks for ({connection.addresses}); it "
                "is in no group of a play"
            )
            groups = [group for group in groups if group.startswith("state_")]
        fleet.hosts[name_of(instance, doubled)] = {"variables": found, "groups": groups}
    return fleet
