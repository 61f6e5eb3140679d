#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets an application's background processes run the release that is live."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_workers
short_description: Run background processes of the release that is live
version_added: 0.2.0
description:
  - Lets each worker run with code and environment of the live instance that
    M(ascent.scaling.release) has switched to. One that runs another release, environment, command
    or unit ends its job, is stopped, and only then replaced.
  - A worker that does not stay up is given its old processes back, and the module fails with its
    journal. The other workers are changed nevertheless.
  - A run that was killed at any point is taken up by the next one.
  - Needs root on the host.
options:
  application:
    description: Name of the application, of its user and of its units.
    type: str
    required: true
  workers:
    description:
      - For each worker, by its name, C(command) (one command that becomes the process),
        C(processes) (how many, 1 by default) and C(unit) (the text of its unit).
      - A worker that is not named is stopped and removed.
    type: dict
    required: true
  instance:
    description:
      - The instance that is live after the release before this task. In check mode, where there was
        no switch, a differing one tells that all workers would be replaced.
    type: str
    default: ""
  settle:
    description: Seconds that a new process must run without dying.
    type: float
    default: 3
  lock_timeout:
    description: Seconds to wait for another deployment on the same host.
    type: float
    default: 300
author:
  - The Ascent founders (@ascent)
attributes:
  check_mode:
    description: Tells the steps that would be taken, and changes nothing.
    support: full
  diff_mode:
    description: Shows the processes of each worker before and after.
    support: full
"""

EXAMPLES = r"""
- name: Let two processes send mails
  ascent.scaling.release_workers:
    application: shop
    workers:
      mailer:
        command: python -m shop.mailer
        processes: 2
        unit: "{{ lookup('ansible.builtin.template', 'worker@.service.j2') }}"
"""

RETURN = r"""
release:
  description: The release that the workers run.
  returned: success
  type: str
processes:
  description: The processes of each worker after the run, or after it would have been.
  returned: success
  type: dict
  sample: {mailer: [6b1f0a92c7d0.1, 6b1f0a92c7d0.2]}
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["create mailer 6b1f0a92c7d0.1", "start mailer 6b1f0a92c7d0.1"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ascent.scaling.plugins.module_utils._release import (
    host,
    instance,
    processes,
)
from ansible_collections.ascent.scaling.plugins.module_utils._release.workers import (
    Wanted,
    make_plan,
    processes_of,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "application": {"type": "str", "required": True},
    "workers": {"type": "dict", "required": True},
    "instance": {"type": "str", "default": ""},
    "settle": {"type": "float", "default": 3},
    "lock_timeout": {"type": "float", "default": 300},
}


def want(
    stated: dict[str, dict[str, Any]], release: str, environment: dict[str, str]
) -> dict[str, Wanted]:
    """Return what the parameters ask for, of a release with an environment."""
    return {
        name: Wanted(
            command=worker["command"],
            unit=worker["unit"],
            processes=processes_of(
                release,
                environment,
                worker["command"],
                worker["unit"],
                int(worker.get("processes", 1)),
            ),
        )
        for name, worker in stated.items()
    }


def run(module: AnsibleModule, layout: host.Layout) -> dict[str, Any]:
    """Read, plan and, but for check mode, apply; returns the result."""
    params, places = module.params, processes.Places(layout)
    found = host.read(layout)
    live = found.live_instance
    expected = params["instance"]
    if module.check_mode and (live is None or (expected and expected != live.name)):
        # The switch that comes first did not happen: all that can be told is that all change.
        return {
            "changed": bool(params["workers"]),
            "release": expected.rpartition(".")[0],
            "processes": {},
            "steps": [f"replace {name}" for name in sorted(params["workers"])],
        }
    if live is None:
        raise host.HostError("No release is live on this host, so there is none to run: deploy one")
    environment = host.read_environment(layout, live.name)
    module.no_log_values |= instance.secrets_within(
        {name: environment[name] for name in live.secret if name in environment}
    )
    wanted, standing = want(params["workers"], live.release, environment), places.read()
    plan = make_plan(wanted, standing)
    before = {name: sorted(worker.processes) for name, worker in standing.items()}
    after = {name: sorted(worker.processes) for name, worker in wanted.items()}
    if not module.check_mode:
        change = processes.Change(places, live, environment, wanted, params["settle"])
        change.apply(plan)
    return {
        "changed": bool(plan),
        "release": live.release,
        "processes": after,
        "steps": [str(step) for steps in plan.values() for step in steps],
        "diff": {"before": before, "after": after},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    layout = host.Layout(module.params["application"])
    try:
        if module.check_mode:
            result = run(module, layout)
        else:
            with host.locked(layout, module.params["lock_timeout"]):
                result = run(module, layout)
    except (host.HostError, instance.InstanceError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
