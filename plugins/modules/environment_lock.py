#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take, renew or release the lock of an environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_lock
short_description: Take, renew or release the lock of an environment
version_added: 0.1.0
description:
  - Keeps two runs from changing the same environment at once, whatever machines they run on. The
    lock is an item of a DynamoDB table, written conditionally, with a lease that ends by itself.
  - A lock whose holder was a process of this machine that has ended is taken over at once.
  - Any other holder is respected until its lease ends; the refusal names it.
  - It must run on the controller, where the holder's process can be seen.
options:
  environment:
    description: The environment to lock.
    type: str
    required: true
  state:
    description: V(present) takes or renews the lock, V(absent) releases it if this run holds it.
    type: str
    choices: [present, absent]
    default: present
  run:
    description: Which run asks, as given by P(ascent.scaling.run#lookup).
    type: dict
    required: true
  lease:
    description: Seconds until the lock ends by itself unless it is renewed.
    type: int
    default: 1800
  force:
    description: Take the lock whoever holds it. Only when that run is surely over.
    type: bool
    default: false
  table:
    description: The DynamoDB table, made when it is missing. Environments share it.
    type: str
    default: ascent-locks
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description: Writes nothing and refuses nothing; a holder is named in a warning.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Take the lock
  ascent.scaling.environment_lock:
    environment: production
    run: "{{ lookup('ascent.scaling.run') }}"

- name: Release the lock
  ascent.scaling.environment_lock:
    environment: production
    run: "{{ lookup('ascent.scaling.run') }}"
    state: absent
"""

RETURN = r"""
action:
  description: What was done, V(take), V(renew), V(retake), V(release) or V(none).
  returned: always
  type: str
reason:
  description: Why.
  returned: always
  type: str
  sample: nobody holds it
expires:
  description: When the lease ends unless it is renewed.
  returned: when the lock is held by this run
  type: str
  sample: 2026-01-31 12:00:00 UTC
"""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils import lease as leases
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils.process import runs

LOST = "ConditionalCheckFailedException"
NO_TABLE = "ResourceNotFoundException"


class Table:
    """The table of locks: one item an environment."""

    def __init__(self, api: Api, name: str) -> None:
        self._api = api
        self._name = name

    def _call(
        self, operation: str, environment: str, missing: tuple[str, ...], **more: Any
    ) -> dict[str, Any] | None:
        return self._api.call(
            "dynamodb",
            operation,
            f"{self._name}, {environment}",
            missing=missing,
            TableName=self._name,
            **more,
        )

    def read(self, environment: str) -> leases.Lease | None:
        """Return the written lease, None without one (or without a table)."""
        key = {"environment": {"S": environment}}
        answer = self._call("get_item", environment, (NO_TABLE,), Key=key, ConsistentRead=True)
        item = (answer or {}).get("Item")
        if not item:
            return None
        return {
            "holder": json.loads(item["holder"]["S"]),
            "since": float(item["since"]["N"]),
            "expires": float(item["expires"]["N"]),
            "token": item["token"]["S"],
        }

    def write(self, environment: str, lease: leases.Lease, seen: leases.Lease | None) -> bool:
        """Write if what was `seen` is still there; tell whether it was."""
        answer = self._call(
            "put_item",
            environment,
            (LOST,),
            Item={
                "environment": {"S": environment},
                "holder": {"S": json.dumps(lease["holder"], sort_keys=True)},
                "since": {"N": f"{lease['since']:.0f}"},
                "expires": {"N": f"{lease['expires']:.0f}"},
                "token": {"S": lease["token"]},
            },
            **self._unchanged(seen),
        )
        return answer is not None

    def remove(self, environment: str, seen: leases.Lease) -> bool:
        """Remove if what was `seen` is still there; tell whether it was."""
        key = {"environment": {"S": environment}}
        answer = self._call("delete_item", environment, (LOST,), Key=key, **self._unchanged(seen))
        return answer is not None

    @staticmethod
    def _unchanged(seen: leases.Lease | None) -> dict[str, Any]:
        if seen is None:
            return {"ConditionExpression": "attribute_not_exists(environment)"}
        return {
            "ConditionExpression": "#token = :token",
            "ExpressionAttributeNames": {"#token": "token"},
            "ExpressionAttributeValues": {":token": {"S": seen["token"]}},
        }

    def ensure(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Make the table when it is missing, and wait up to two minutes until it serves."""
        deadline = clock() + 120
        while True:
            answer = self._call("describe_table", "table", (NO_TABLE,))
            if answer and answer["Table"]["TableStatus"] == "ACTIVE":
                return
            if answer is None:
                self._call(
                    "create_table",
                    "table",
                    ("ResourceInUseException",),
                    AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
                    KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
                    BillingMode="PAY_PER_REQUEST",
                )
            if clock() > deadline:
                raise AwsFailure(
                    f"the DynamoDB table {self._name} did not become ACTIVE within two minutes; "
                    "look at it in the console, then run again"
                )
            sleep(1)


def take(
    table: Table,
    environment: str,
    me: leases.Process,
    seconds: int,
    force: bool,
    now: float,
    alive: Callable[[leases.Process], bool] = runs,
) -> dict[str, Any]:
    """Take or renew the lock. Raises AwsFailure when it is another's."""
    seen = table.read(environment)
    decision = leases.decide(seen, me, now, alive)
    if decision["action"] == "refuse" and not force:
        raise AwsFailure(
            f"environment {environment} is locked: {decision['reason']}. Wait for that run; if "
            "it is surely over, run again with -e ascent_lock_force=true"
        )
    since = seen["since"] if seen and decision["action"] == "renew" else now
    wanted: leases.Lease = {
        "holder": me,
        "since": since,
        "expires": now + seconds,
        "token": uuid.uuid4().hex,
    }
    if not table.write(environment, wanted, seen):
        raise AwsFailure(
            f"environment {environment} was locked by another run at this very moment; run again "
            "to see by whom"
        )
    return {
        "changed": decision["action"] != "renew",
        "action": "retake" if decision["action"] == "refuse" else decision["action"],
        "reason": decision["reason"],
        "expires": leases.clock_time(wanted["expires"]),
    }


def release(table: Table, environment: str, me: leases.Process, dry: bool) -> dict[str, Any]:
    """Release the lock if this run holds it; what another holds is left alone."""
    seen = table.read(environment)
    if seen is None:
        return {"changed": False, "action": "none", "reason": "nobody holds it"}
    if not leases.same(seen["holder"], me):
        who = leases.name(seen["holder"])
        return {"changed": False, "action": "none", "reason": f"{who} holds it, not this run"}
    done = True if dry else table.remove(environment, seen)
    return {"changed": done, "action": "release", "reason": "this run held it"}


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "environment": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "run": {"type": "dict", "required": True},
            "lease": {"type": "int", "default": 1800},
            "force": {"type": "bool", "default": False},
            "table": {"type": "str", "default": "ascent-locks"},
        },
        supports_check_mode=True,
    )
    wish = module.params
    environment, me = wish["environment"], {**wish["run"], "pid": int(wish["run"]["pid"])}
    table = Table(module_api(module), wish["table"])
    now = time.time()
    try:
        if wish["state"] == "absent":
            result = release(table, environment, me, module.check_mode)
        elif module.check_mode:
            decision = leases.decide(table.read(environment), me, now, runs)
            if decision["action"] == "refuse":
                module.warn(f"environment {environment} is locked: {decision['reason']}")
            result = {"changed": decision["action"] != "renew", **decision}
        else:
            table.ensure(time.monotonic, time.sleep)
            result = take(table, environment, me, wish["lease"], wish["force"], now)
            if result["action"] == "retake":
                module.warn(f"the lock of {environment} was taken over: {result['reason']}")
    except AwsFailure as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
