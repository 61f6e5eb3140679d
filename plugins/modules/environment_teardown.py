#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove everything of an environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_teardown
short_description: Remove everything of an environment
version_added: 0.1.0
description:
  - Finds all that bears the tags of an environment, and removes it in an order that AWS takes. It
    can be repeated at any point, and ends with what remains.
  - The bucket of the backups is kept unless O(delete_backups=true), and with it the secret that
    they are encrypted with.
  - Of a managed database a last snapshot is taken, and kept with those that were taken before,
    unless O(delete_backups=true). The automated backups of RDS go with their database.
  - A hosted zone that the environment did not create is left as it is, but for the records that
    lead to the environment's addresses.
options:
  environment:
    description: The environment to remove.
    type: str
    required: true
  dns_zone:
    description: The hosted zone that the environment uses.
    type: str
    required: true
  only:
    description:
      - Remove only the host or the managed database of this name, with what belongs to it alone -
        its address, its disk, the groups that RDS keeps for it.
      - A managed database leaves a last snapshot.
    type: str
  delete_backups:
    description:
      - Remove the bucket of the backups as well, with all that is in it, and the snapshots of
        managed databases.
    type: bool
    default: false
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description: Lists what would be removed and removes nothing.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Remove the environment
  ascent.scaling.environment_teardown:
    environment: staging
    dns_zone: staging.example.com

- name: Remove one host
  ascent.scaling.environment_teardown:
    environment: staging
    dns_zone: staging.example.com
    only: database
"""

RETURN = r"""
removed:
  description: What was removed (in check mode, would be), in that order, a line each.
  returned: always
  type: list
  elements: str
  sample: [instance box i-0123456789abcdef0]
remains:
  description: What is left, a line each, with the reason where it is meant to be.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils._aws.observe import identity, observe
from ansible_collections.ascent.scaling.plugins.module_utils._aws.remove import (
    Remover,
    in_order,
    leftovers,
    ours,
)
from ansible_collections.ascent.scaling.plugins.module_utils.environment import Resource
from ansible_collections.ascent.scaling.plugins.module_utils.retry import Retry


def find(api: Api, environment: str, zone: str) -> list[Resource]:
    """Return everything of the environment."""
    account = identity(api)["account"]
    found = observe(api, environment, account, zone, doubles=True)
    return found + leftovers(api, environment)


def line(item: Resource) -> str:
    """Return a resource as one line."""
    return f"{item['kind'].replace('_', ' ')} {item['name']} {item['id']}"


def backups(found: list[Resource], environment: str) -> list[Resource]:
    """Return what backups are in, or cannot be read without."""
    kept = [item for item in found if item["kind"] in ("bucket", "db_snapshot")]
    if any(item["kind"] == "bucket" for item in kept):
        passphrase = f"ascent/{environment}/backup_passphrase"
        kept += [item for item in found if item["name"] == passphrase]
    return kept


def belongs_to(item: Resource, name: str, environment: str) -> bool:
    """Say whether this is a host or managed database of the name, or goes with it."""
    own = ("instance", "elastic_ip", "db_instance", "db_parameter_group", "db_subnet_group")
    if item["kind"] == "volume":
        return item["name"] == f"{environment}-{name}"
    return item["kind"] in own and item["name"] == name


def tear_down(
    api: Api, environment: str, zone: str, delete_backups: bool, dry: bool, only: str | None = None
) -> dict[str, Any]:
    """Remove, and return what the module returns. Raises AwsFailure."""
    found = find(api, environment, zone)
    if only is not None:
        found = [item for item in found if belongs_to(item, only, environment)]
    mine = in_order(ours(found))
    keep = [] if delete_backups else backups(mine, environment)
    remove = [item for item in mine if item not in keep]
    planned: list[str] = []
    if dry:
        kept = [item for item in found if item not in remove]
        if not delete_backups:
            planned = [
                f"a last snapshot of {line(item)}: taken and kept; delete_backups takes none"
                for item in remove
                if item["kind"] == "db_instance"
            ]
    else:
        Remover(api, keeps_backups=not delete_backups).remove_all(remove)
        kept = find(api, environment, zone)
        kept = [item for item in kept if only is None or belongs_to(item, only, environment)]
    reasons = {
        "bucket": "kept with the backups; delete_backups removes it",
        "db_snapshot": "kept with the backups; delete_backups removes it",
        "secret": "kept, as the backups cannot be read without it; delete_backups removes it",
        "dns_zone": "the account's own zone",
        "dns_record": "a record of the account's own zone",
    }
    return {
        "changed": bool(remove),
        "removed": [line(item) for item in remove],
        "remains": sorted(
            [
                f"{line(item)}: {reasons.get(item['kind'], 'still there, run again')}"
                for item in kept
            ]
            + planned
        ),
    }


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "environment": {"type": "str", "required": True},
            "dns_zone": {"type": "str", "required": True},
            "only": {"type": "str"},
            "delete_backups": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wish = module.params
    try:
        result = tear_down(
            # Volumes and interfaces hold on for minutes after their instance.
            module_api(module, Retry(deadline=180)),
            wish["environment"],
            wish["dns_zone"],
            wish["delete_backups"],
            module.check_mode,
            wish["only"],
        )
    except AwsFailure as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
