#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the network of an environment to its description."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network
short_description: Bring the network of an environment to its description
version_added: 0.1.0
description:
  - Creates and mends the VPC, its internet gateway, subnets, route tables and security groups, in
    one process and in the order that they need.
  - Every resource bears its tags from the call that creates it on, so a run that is killed
    between any two calls continues where it stopped, and nothing is doubled.
  - Nothing is removed but packet rules and routes that the description does not have.
options:
  description:
    description:
      - What shall stand, as for M(ascent.scaling.environment_plan).
    type: dict
    required: true
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description: Reports what it would do and changes nothing, on an empty account too.
    support: full
  diff_mode:
    description: Shows each change as before and after.
    support: full
seealso:
  - module: ascent.scaling.environment_plan
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Bring the network to its description
  ascent.scaling.network:
    description: "{{ ascent_description }}"
    region: us-east-1
"""

RETURN = r"""
summary:
  description: What was done (in check mode, would be done), a line each.
  returned: always
  type: list
  elements: str
  sample: [create vpc shop, create subnet public-us-east-1a]
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws import network as wire
from ansible_collections.ascent.scaling.plugins.module_utils._aws import observe
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils.environment import (
    DescriptionError,
    compare,
    desired,
    diffs,
    summary,
)


def converge(api: Api, region: str, description: dict[str, Any], dry: bool) -> dict[str, Any]:
    """Read, plan, apply unless dry, and return what the module returns."""
    environment = str(description["environment"])
    found = observe.environment_network(api, environment)
    # The account's number only shapes what is not the network's.
    wanted = [
        item
        for item in desired(description, "0", region)
        if item["kind"] in ("vpc", "internet_gateway", "subnet", "route_table", "security_group")
    ]
    changes = compare(wanted, found)["changes"]
    if not dry:
        network = wire.Network(api, environment, found)
        # All groups first: a rule may name a group that comes later in the alphabet.
        for change in wire.in_steps(changes):
            network.apply(change)
    return {
        "changed": bool(changes),
        "summary": [summary(item) for item in changes],
        "diff": diffs(changes),
    }


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={"description": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    try:
        result = converge(
            module_api(module),
            str(module.region),
            module.params["description"],
            module.check_mode,
        )
    except (AwsFailure, DescriptionError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
