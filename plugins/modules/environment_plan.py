#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what an environment shall be with what stands in AWS."""

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_plan
short_description: Compare what an environment shall be with what stands in AWS
version_added: 0.1.0
description:
  - Reads everything that bears the tags of an environment, compares it with a description, and
    returns what would be created or changed. It never changes anything itself.
  - It needs no ids, so it answers before the first run, on an empty account, too.
  - Tags and attributes that the description does not speak of are left alone. Resources that the
    description does not need are named in RV(notices).
options:
  description:
    description:
      - What shall stand, a stage's data joined with the user's settings. The stage playbooks
        build it in C(playbooks/vars/description.yml).
    type: dict
    required: true
  sections:
    description:
      - Keep only the changes that these roles of the collection make.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description: It reads only. In check mode it reports C(changed) when its plan is not empty.
    support: full
  diff_mode:
    description: Shows each change of the plan as before and after.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Plan the environment
  ascent.scaling.environment_plan:
    description: "{{ ascent_description }}"
    region: us-east-1
  register: plan

- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ plan.summary }}"
"""

RETURN = r"""
changes:
  description: What is to be done, in the order in which it is done.
  returned: always
  type: list
  elements: dict
  contains:
    action: {description: What happens to it., type: str, sample: create}
    kind: {description: The kind of resource., type: str, sample: security_group}
    name: {description: Its name within the environment., type: str, sample: web}
    role: {description: The role that does it., type: str, sample: network}
    before: {description: The attributes that differ as they are., type: dict}
    after: {description: The same attributes as they shall be., type: dict}
notices:
  description: What the plan leaves to a person, each with the reason.
  returned: always
  type: list
  elements: str
summary:
  description: The changes, a line each.
  returned: always
  type: list
  elements: str
  sample: [create vpc shop, change security group web (ingress)]
sections:
  description: The roles that have something to do.
  returned: always
  type: list
  elements: str
standing:
  description: What stands, by kind and name.
  returned: always
  type: dict
  sample: {"instance": {"box": {"id": "i-0123456789abcdef0", "public_address": "198.51.100.7"}}}
desired:
  description: What shall stand, by kind and name.
  returned: always
  type: dict
stage:
  description: The highest stage that a tag of the standing resources names, 0 when none stands.
  returned: always
  type: int
taken_names:
  description: Names of the description that lead elsewhere by now, with where they lead.
  returned: always
  type: dict
  sample: {"shop.example.com": "198.51.100.9"}
account:
  description: The number of the AWS account.
  returned: always
  type: str
caller:
  description: The ARN of the credentials.
  returned: always
  type: str
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils._aws.observe import identity, observe
from ansible_collections.ascent.scaling.plugins.module_utils.environment import (
    DescriptionError,
    Resource,
    compare,
    desired,
    diffs,
    summary,
    taken_names,
)


def by_kind(resources: list[Resource]) -> dict[str, dict[str, Any]]:
    """Return resources as a map of kind and name to attributes, facts and id."""
    found: dict[str, dict[str, Any]] = {}
    for item in resources:
        entry = {**item["attributes"], **item.get("facts", {})}
        if "id" in item:
            entry["id"] = item["id"]
        found.setdefault(item["kind"], {})[item["name"]] = entry
    return found


def highest_stage(resources: list[Resource]) -> int:
    """Return the highest stage that a tag names, 0 when none does.

    The backups outlive a teardown, with the tag of their day: they say nothing of what stands.
    """
    stages = [
        str(item["attributes"].get("tags", {}).get("ascent:stage", ""))
        for item in resources
        if item["kind"] != "bucket"
    ]
    return max((int(stage) for stage in stages if stage.isdecimal()), default=0)


def check_zones(api: Api, region: str, zones: list[str]) -> None:
    """Raise DescriptionError when a zone is not one of the region's."""
    answer = api.pages("ec2", "describe_availability_zones", "AvailabilityZones", region)
    known = sorted(item["ZoneName"] for item in answer if item["State"] == "available")
    missing = sorted(set(zones) - set(known))
    if missing:
        raise DescriptionError(
            f"ascent_zones names {missing}, but {region} has {known}: correct the inventory"
        )


def plan(api: Api, region: str, description: dict[str, Any], sections: list[str]) -> dict[str, Any]:
    """Read, compare, and return what the module returns."""
    who = identity(api)
    check_zones(api, region, description["zones"])
    standing = observe(
        api, str(description["environment"]), who["account"], description["dns_zone"]
    )
    addresses = {
        item["name"]: item["facts"]["address"] for item in standing if item["kind"] == "elastic_ip"
    }
    wanted = desired(description, who["account"], region, who["partition"], addresses)
    result = compare(wanted, standing)
    changes = [item for item in result["changes"] if not sections or item["role"] in sections]
    return {
        "changes": changes,
        "notices": result["notices"],
        "summary": [summary(item) for item in changes],
        "sections": sorted({item["role"] for item in changes}),
        "standing": by_kind(standing),
        "desired": by_kind(wanted),
        "stage": highest_stage(standing),
        "taken_names": taken_names(description["names"], standing),
        "account": who["account"],
        "caller": who["arn"],
        "diff": diffs(changes),
    }


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "description": {"type": "dict", "required": True},
            "sections": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = plan(
            module_api(module),
            str(module.region),
            module.params["description"],
            module.params["sections"],
        )
    except (AwsFailure, DescriptionError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(module.check_mode and result["changes"]), **result)


if __name__ == "__main__":
    main()
