#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read, write or remove the record of the stage that an environment has reached."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stage_record
short_description: Read, write or remove the record of an environment's stage
version_added: 0.1.0
description:
  - The record is a JSON text in SSM Parameter Store, C(/ascent/<environment>/stage), so that any
    controller knows where the environment stands.
  - A record of a higher stage is never overwritten; to go down is not a matter of a record.
options:
  environment:
    description: The environment.
    type: str
    required: true
  state:
    description: V(present) writes the record (or reads it, without O(stage)), V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  stage:
    description: The stage that was reached. Without it, the record is only read.
    type: int
  details:
    description: What else is worth keeping, such as the versions of what runs.
    type: dict
    default: {}
  by:
    description: Who reached it, as people read it.
    type: str
    default: ""
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description: Reports what it would write and writes nothing.
    support: full
  diff_mode:
    description: Shows the record before and after.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Read the record
  ascent.scaling.stage_record:
    environment: production

- name: Write the stage down
  ascent.scaling.stage_record:
    environment: production
    stage: 1
    details:
      hosts: [box]
"""

RETURN = r"""
stage:
  description: The recorded stage, 0 without a record.
  returned: always
  type: int
record:
  description: The whole record, empty without one.
  returned: always
  type: dict
  sample: {"stage": 1, "recorded": "2026-01-31T12:00:00Z", "by": "anna@laptop", "details": {},
           "history": [{"stage": 1, "recorded": "2026-01-31T12:00:00Z"}]}
"""

import datetime
import json
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils.record import next_record


def read(api: Api, parameter: str) -> dict[str, Any]:
    """Return the record, empty without one."""
    answer = api.call(
        "ssm", "get_parameter", parameter, missing=("ParameterNotFound",), Name=parameter
    )
    if answer is None:
        return {}
    text = answer["Parameter"]["Value"]
    try:
        record = json.loads(text)
        int(record["stage"])
    except (ValueError, KeyError, TypeError) as error:
        raise AwsFailure(
            f"the SSM parameter {parameter} is not a stage record ({error}): {text[:100]!r}. "
            "Restore an older version of the parameter, then run again"
        ) from error
    return dict(record)


def write(api: Api, parameter: str, environment: str, record: dict[str, Any], new: bool) -> None:
    """Write the record; a new one gets the environment's tag (SSM takes no tags later)."""
    tags = {"Tags": [{"Key": "ascent:environment", "Value": environment}]}
    api.call(
        "ssm",
        "put_parameter",
        parameter,
        Name=parameter,
        Value=json.dumps(record, sort_keys=True),
        Type="String",
        Description="The stage that this environment has reached, kept by Ascent",
        **(tags if new else {"Overwrite": True}),
    )


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "environment": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "stage": {"type": "int"},
            "details": {"type": "dict", "default": {}},
            "by": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    wish = module.params
    parameter = f"/ascent/{wish['environment']}/stage"
    api = module_api(module)
    now = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        before = after = read(api, parameter)
        if wish["state"] == "absent":
            after = {}
            if before and not module.check_mode:
                gone = ("ParameterNotFound",)
                api.call("ssm", "delete_parameter", parameter, missing=gone, Name=parameter)
        elif wish["stage"] is not None:
            after = next_record(before, wish["stage"], wish["details"], wish["by"], now)
            if after != before and not module.check_mode:
                write(api, parameter, wish["environment"], after, new=not before)
    except (AwsFailure, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before != after,
        stage=int(after.get("stage", 0)),
        record=after,
        diff={"before": before, "after": after},
    )


if __name__ == "__main__":
    main()
