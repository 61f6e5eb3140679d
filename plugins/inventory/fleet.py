# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of an environment, as AWS knows them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: The hosts of an environment, as AWS knows them
version_added: 0.1.0
description:
  - Lists the EC2 instances that bear the tag C(ascent:environment), grouped by tier, zone,
    function, state and stage.
  - An environment in which nothing stands yet gives an inventory without hosts, and no error.
  - Hosts that are left out, and names that two hosts share, are reported by a warning.
  - The file's name must end with C(ascent.fleet.yml) or C(ascent.fleet.yaml).
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [ascent.scaling.fleet]
  environment:
    description: The environment whose hosts are listed. May be a template.
    type: str
    required: true
  regions:
    description: The regions that are asked. Each may be a template.
    type: list
    elements: str
    required: true
  endpoint_url:
    description: Where AWS's API is, when not at AWS. May be a template.
    type: str
  access_key:
    description: The access key. Without it, the usual chain of the AWS SDK is followed.
    type: str
  secret_key:
    description: The secret key that belongs to O(access_key).
    type: str
  profile:
    description: A profile of the AWS SDK's configuration.
    type: str
    env:
      - name: AWS_PROFILE
  addresses:
    description: Which address Ansible connects to - the first of these that a host has.
    type: list
    elements: str
    choices: [public, private]
    default: [public, private]
  group_addresses:
    description: The same rule for the hosts of single groups, such as C(tier_database), which win.
    type: dict
    default: {}
  states:
    description:
      - In which states a host is put into the groups by tier, zone, function and stage, and so
        into plays. Every host is in a group C(state_<state>), whatever its state.
    type: list
    elements: str
    choices: [pending, running, stopping, stopped]
    default: [pending, running]
  ssh_user:
    description: The user that Ansible connects as.
    type: str
    default: admin
  ssh_directory:
    description:
      - The folder of the private key C(id_ed25519) and of C(known_hosts), relative to the
        inventory file. May be a template.
      - A host's key is remembered by its instance id, so that an address that another host gets
        later is no alarm, and a host that changes its key is.
    type: str
  ssh_private_key_file:
    description: The private key, when it is not in O(ssh_directory).
    type: str
  strict:
    description: Fail on what is otherwise a warning - hosts left out, and names that are shared.
    type: bool
    default: false
extends_documentation_fragment:
  - inventory_cache
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
# inventories/production/ascent.fleet.yml
plugin: ascent.scaling.fleet
environment: production
regions: [eu-central-1]
ssh_directory: ../../build/production/ssh
# Database hosts have no public address; all others are reached at theirs.
group_addresses:
  tier_database: [private]
# Ask AWS at most once in five minutes
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_timeout: 300
cache_connection: ~/.cache/ascent
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    session_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils._aws.observe import (
    STANDING,
    of_environment,
)
from ansible_collections.ascent.scaling.plugins.module_utils.fleet import (
    Connection,
    Instance,
    build_hosts,
    trim,
)


def fetch(api: Api, environment: str, region: str) -> list[Instance]:
    """Return the instances of one region, trimmed to what is used. Raises AwsFailure."""
    reservations = api.pages(
        "ec2",
        "describe_instances",
        "Reservations",
        f"region {region}",
        Filters=[
            *of_environment(environment),
            {"Name": "instance-state-name", "Values": STANDING},
        ],
    )
    return [trim(item, region) for group in reservations for item in group["Instances"]]


class InventoryModule(BaseInventoryPlugin, Cacheable):
    """The plugin: options, cache and Ansible's inventory; the rest is in module_utils/fleet."""

    NAME = "ascent.scaling.fleet"

    def verify_file(self, path: str) -> bool:
        names = ("ascent.fleet.yml", "ascent.fleet.yaml")
        return bool(super().verify_file(path)) and path.endswith(names)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        environment = self._text("environment")
        instances = self._instances(environment, path, cache)
        fleet = build_hosts(instances, environment, self._connection(path))
        for warning in fleet.warnings:
            if self.get_option("strict"):
                raise AnsibleParserError(f"{path}: {warning}")
            self.display.warning(f"{path}: {warning}")
        # The playbooks compare it with their settings before they change anything.
        regions = [str(self.templar.template(region)) for region in self.get_option("regions")]
        asked = {"environment": environment, "regions": regions}
        inventory.set_variable("all", "ascent_fleet", asked)
        for name, host in sorted(fleet.hosts.items()):
            inventory.add_host(name)
            for key, value in host["variables"].items():
                inventory.set_variable(name, key, value)
            for group in host["groups"]:
                inventory.add_host(name, inventory.add_group(group))
        for group in fleet.groups:
            inventory.add_group(group)

    def _text(self, option: str) -> str:
        value = self.get_option(option)
        if value is None:
            return ""
        return str(self.templar.template(value)).strip()

    def _instances(self, environment: str, path: str, cache: bool) -> list[Instance]:
        key = self.get_cache_key(path)
        if cache and self.get_option("cache"):
            try:
                return list(self._cache[key])
            except KeyError:
                pass
        regions = [str(self.templar.template(region)) for region in self.get_option("regions")]
        if not regions:
            raise AnsibleParserError(f"{path}: regions is empty; name at least one, as us-east-1")
        try:
            with ThreadPoolExecutor(max_workers=min(16, len(regions))) as pool:
                apis = {region: self._api(region) for region in regions}
                parts = pool.map(lambda region: fetch(apis[region], environment, region), regions)
                instances = [instance for part in parts for instance in part]
        except AwsFailure as error:
            raise AnsibleParserError(f"{path}: {error}") from error
        if self.get_option("cache"):
            self._cache[key] = instances
        return instances

    def _api(self, region: str) -> Api:
        api = session_api(
            region,
            endpoint_url=self._text("endpoint_url"),
            access_key=self._text("access_key"),
            secret_key=self._text("secret_key"),
            profile=self._text("profile"),
        )
        api.client("ec2")  # boto3's session makes clients on one thread only
        return api

    def _connection(self, path: str) -> Connection:
        folder = self._text("ssh_directory")
        directory = str((Path(path).resolve().parent / folder).resolve()) if folder else ""
        key = self._text("ssh_private_key_file")
        if not key and directory:
            key = f"{directory}/id_ed25519"
        return Connection(
            addresses=self.get_option("addresses"),
            group_addresses=self.get_option("group_addresses"),
            states=self.get_option("states"),
            user=self._text("ssh_user"),
            private_key_file=key,
            known_hosts_file=f"{directory}/known_hosts" if directory else "",
        )
