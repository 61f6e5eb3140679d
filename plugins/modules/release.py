#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a release of an application to life on a host, without a failed request."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release
short_description: Deploy, switch and roll back releases of an application on a host
version_added: 0.1.0
description:
  - Builds a release beside the one that serves, starts it on a socket of its own, waits until it
    answers healthy, switches by one atomic rename, waits until the old one has no connection
    left, stops it, and prunes.
  - Until the switch the old release serves, untouched. A run that was killed at any point is
    taken up by the next one; what it left half-done is recognised and cleared away.
  - A changed environment, start command or unit rolls the same release in the same way.
  - The unit C(<application>@.service), the user and the folder for sockets are the business of
    the role P(ascent.scaling.web#role).
  - Needs root on the host.
options:
  application:
    description: Name of the application, of its user and of its unit.
    type: str
    required: true
  state:
    description:
      - V(live) builds the release if need be and lets it serve.
      - V(present) builds it and changes nothing else.
      - V(rollback) lets a release serve that is already on the host, without building or
        migrating. Without O(release) it is the one that was live before; repeated, it stays there.
      - V(renew) lets the release that is live serve on with the environment and start command that
        are given now.
    type: str
    choices: [live, present, rollback, renew]
    default: live
  source:
    description:
      - Where the code comes from; it is uploaded only if the release is not yet on the host.
      - A path is a folder on the controller, and C(directory) in a mapping means the same.
      - C(git) has C(repository), C(version) (branch, tag, or a whole commit; by default what the
        repository's HEAD names) and C(directory) inside it. The controller asks for it, with its
        own credentials.
      - C(archive) has C(path) on the controller or C(url) with C(checksum) (C(sha256:)), and
        C(directory) inside it. Tar and zip; one folder that holds all the rest is left out.
      - C(package) is a package of an index with its version, C(name==1.2.3) for Python's or
        C(name@1.2.3) for npm's, C(requirements) more of them, C(directory) a folder on the
        controller with what belongs beside it. The release holds a C(requirements.txt) or a
        C(package.json) for O(build).
      - C(files) maps paths to texts, which are laid over the code.
      - Required unless O(state=rollback) or O(state=renew).
    type: raw
  exclude:
    description:
      - Patterns of what is not part of the release, on top of version control, caches, virtual
        environments and C(node_modules). With a slash a pattern meets the path, else the name.
    type: list
    elements: str
    default: []
  release:
    description:
      - Name of the release. By default made from source and build commands, so that the same
        source is the same release - digits of their digest, with the commit or the version of the
        package in front.
      - A name that is on the host with other content is an error.
    type: str
  build:
    description: Shell commands that build the release, run in its folder as the application's user.
    type: list
    elements: str
    default: []
  build_environment:
    description: Environment for O(build). The application's own is not given to it.
    type: dict
    default: {}
  build_timeout:
    description: Seconds for each of O(build).
    type: float
    default: 1800
  migrate:
    description:
      - Shell command that runs once for a release and host, before it starts, with the
        application's environment. If it fails, the old release serves on and nothing is switched.
    type: str
  migrate_timeout:
    description: Seconds for O(migrate).
    type: float
    default: 1800
  migrate_secret_environment:
    description: More environment for O(migrate) alone, never shown in results, diffs or logs.
    type: dict
    default: {}
  start:
    description:
      - One command that becomes the application and listens where O(listen) says.
      - Required unless O(state=present).
    type: str
  listen:
    description:
      - V(socket) means the unix socket E(SOCKET).
      - V(port) means the TCP port E(PORT) of the address E(HOST), 127.0.0.1, another one for each
        instance. C(<application>-port@.socket) and its service lead from the instance's socket to
        it.
    type: str
    choices: [socket, port]
    default: socket
  path:
    description: Folders of the release that go in front of E(PATH), for all commands.
    type: list
    elements: str
    default: []
  environment:
    description:
      - Environment of the application. E(SOCKET) and E(RELEASE) are set for each instance, and
        with O(listen=port) E(PORT) and E(HOST).
    type: dict
    default: {}
  secret_environment:
    description: More of O(environment), never shown in results, diffs or logs.
    type: dict
    default: {}
  unit_checksum:
    description: Checksum of the unit; when it changes, a new instance replaces the live one.
    type: str
    default: ""
  health_path:
    description: Path that answers 200 to 299 once the application can serve.
    type: str
    default: /
  health_host:
    description: Host header of the question.
    type: str
    default: localhost
  health_timeout:
    description: Seconds until a new instance must be healthy.
    type: float
    default: 60
  drain_timeout:
    description: Seconds that connections to the old instance may last; then they are cut.
    type: float
    default: 60
  keep:
    description: How many releases stay on the host; the live and the previous one always do.
    type: int
    default: 5
  lock_timeout:
    description: Seconds to wait for another deployment on the same host.
    type: float
    default: 300
  digest:
    description: Set by the action plugin.
    type: str
    default: ""
  archive:
    description: Set by the action plugin.
    type: path
author:
  - The Ascent founders (@ascent)
attributes:
  check_mode:
    description: Tells the steps that would be taken, and changes nothing.
    support: full
  diff_mode:
    description: Shows release, previous release and environment before and after.
    support: full
extends_documentation_fragment: []
"""

EXAMPLES = r"""
- name: Deploy what is in the folder app
  ascent.scaling.release:
    application: shop
    source: "{{ playbook_dir }}/app"
    build:
      - python3 -m venv .venv
      - pip install -r requirements.txt
    path: [.venv/bin]
    migrate: python -m shop.migrate
    start: gunicorn --bind unix:$SOCKET shop.wsgi:app
    environment:
      LOG_LEVEL: info
    secret_environment:
      DATABASE_URL: "{{ database_url }}"
    health_path: /health/ready

- name: Deploy what a tag of a repository holds, at a port of its own
  ascent.scaling.release:
    application: board
    source:
      git:
        repository: https://git.example.com/board.git
        version: v2.4.0
    build: [npm ci --omit=dev]
    start: node server.js
    listen: port
    health_path: /up

- name: Go back to the release that was live before
  ascent.scaling.release:
    application: shop
    state: rollback
    path: [.venv/bin]
    start: gunicorn --bind unix:$SOCKET shop.wsgi:app
    health_path: /health/ready
"""

RETURN = r"""
release:
  description: The release that serves after the run, or would; with O(state=present) the built one.
  returned: success
  type: str
  sample: 4be1f0a92c7d
instance:
  description: Its instance, release and number; the unit is C(<application>@<instance>.service).
  returned: success
  type: str
  sample: 4be1f0a92c7d.1
previous:
  description: The release that a rollback leads to; empty if there is none.
  returned: success
  type: str
releases:
  description: All releases built on the host after the run, sorted.
  returned: success
  type: list
  elements: str
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["build 4be1f0a92c7d", "create 4be1f0a92c7d.1", "start 4be1f0a92c7d.1"]
seconds:
  description: Seconds by kind of step.
  returned: when steps were taken
  type: dict
switched_at:
  description: When the release went live, seconds since the epoch by the host's clock.
  returned: when there was a switch
  type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ascent.scaling.plugins.module_utils._release import (
    host,
    instance,
)
from ansible_collections.ascent.scaling.plugins.module_utils._release.plan import (
    Desired,
    Found,
    Plan,
    PlanError,
    make_plan,
    rollback_target,
    valid_release,
)

BUILDS = ("live", "present")
LEAVES = ("rollback", "renew")  # take what is on the host
ARGUMENTS: dict[str, dict[str, Any]] = {
    "application": {"type": "str", "required": True},
    "state": {"type": "str", "choices": [*BUILDS, *LEAVES], "default": "live"},
    "source": {"type": "raw"},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "release": {"type": "str"},
    "build": {"type": "list", "elements": "str", "default": []},
    "build_environment": {"type": "dict", "default": {}},
    "build_timeout": {"type": "float", "default": 1800},
    "migrate": {"type": "str"},
    "migrate_timeout": {"type": "float", "default": 1800},
    "migrate_secret_environment": {"type": "dict", "default": {}, "no_log": True},
    "start": {"type": "str"},
    "listen": {"type": "str", "choices": ["socket", "port"], "default": "socket"},
    "path": {"type": "list", "elements": "str", "default": []},
    "environment": {"type": "dict", "default": {}},
    "secret_environment": {"type": "dict", "default": {}, "no_log": True},
    "unit_checksum": {"type": "str", "default": ""},
    "health_path": {"type": "str", "default": "/"},
    "health_host": {"type": "str", "default": "localhost"},
    "health_timeout": {"type": "float", "default": 60},
    "drain_timeout": {"type": "float", "default": 60},
    "keep": {"type": "int", "default": 5},
    "lock_timeout": {"type": "float", "default": 300},
    "digest": {"type": "str", "default": ""},
    "archive": {"type": "path"},
}


def desire(params: dict[str, Any], environment: dict[str, str], found: Found) -> Desired:
    """Return what the parameters ask for."""
    rollback = params["state"] == "rollback"
    name = rollback_target(found, params["release"] or "") if rollback else params["release"]
    if params["state"] == "renew":
        name = found.live_release
        if not name:
            raise PlanError("No release is live on this host, so none can be renewed: deploy one")
    if not valid_release(name or ""):
        raise PlanError(f"{name!r} is no name for a release: letters, digits, dots, - and _")
    return Desired(
        release=name,
        checksum=instance.checksum(
            environment,
            params["start"] or "",
            params["path"],
            params["unit_checksum"],
            params["listen"],
        ),
        digest="" if params["state"] in LEAVES else params["digest"],
        can_build=params["state"] in BUILDS,
        migrate=bool(params["migrate"]) and params["state"] in BUILDS,
        go_live=params["state"] != "present",
        rollback=rollback,
        keep=params["keep"],
    )


def settings(params: dict[str, Any], environment: dict[str, str]) -> host.Settings:
    """Return how the parameters want it done."""
    return host.Settings(
        user=params["application"],
        build=tuple(params["build"]),
        build_environment={key: str(value) for key, value in params["build_environment"].items()},
        build_timeout=params["build_timeout"],
        migrate=params["migrate"] or "",
        migrate_timeout=params["migrate_timeout"],
        migrate_environment={
            key: str(value) for key, value in params["migrate_secret_environment"].items()
        },
        start=params["start"] or "",
        listen=params["listen"],
        path=tuple(params["path"]),
        environment=environment,
        secret=tuple(sorted(params["secret_environment"])),
        archive=params["archive"] or "",
        health_path=params["health_path"],
        health_host=params["health_host"],
        health_timeout=params["health_timeout"],
        drain_timeout=params["drain_timeout"],
    )


def diff(
    layout: host.Layout, found: Found, desired: Desired, plan: Plan, params: dict[str, Any]
) -> dict[str, Any]:
    """Return before and after; of secrets only that they change."""
    secret = set(params["secret_environment"])
    given = {**params["environment"], **params["secret_environment"]}
    # What the live instance knows and is not given any more may have been a secret: hide it.
    current = host.read_environment(layout, found.live)
    hidden = secret | (set(current) - set(given))
    before, after = instance.describe_change(current, given, hidden)
    live = found.live_instance
    return {
        "before": {
            "release": found.live_release,
            "previous": live.previous if live else "",
            "environment": before,
        },
        "after": {
            "release": desired.release if desired.go_live else found.live_release,
            "previous": plan.previous,
            "environment": after if desired.go_live else before,
        },
    }


def run(module: AnsibleModule, layout: host.Layout, lock: Any) -> dict[str, Any]:
    """Read, plan and, but for check mode, apply; returns the result."""
    params = module.params
    environment = {
        key: str(value)
        for key, value in {**params["environment"], **params["secret_environment"]}.items()
    }
    instance.check_environment(environment, params["listen"])
    found = host.read(layout)
    desired = desire(params, environment, found)
    plan = make_plan(desired, found)
    actions = {step.action for step in plan.steps}
    result: dict[str, Any] = {
        "changed": bool(plan.steps),
        "release": desired.release,
        "instance": plan.instance,
        "previous": plan.previous,
        "steps": [str(step) for step in plan.steps],
        "diff": diff(layout, found, desired, plan, params),
        "needs_archive": "build" in actions and not params["archive"],
    }
    if not (module.check_mode or result["needs_archive"]):
        deployment = host.Deployment(
            layout, desired, settings(params, environment), plan, found, lock
        )
        deployment.apply()
        found = host.read(layout)
        result.update(deployment.facts)
        for warning in deployment.warnings:
            module.warn(warning)
    result["releases"] = sorted(name for name, item in found.releases.items() if item.built)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_if=[
            ("state", "live", ("release", "start")),
            *[("state", state, ("start",)) for state in LEAVES],
        ],
    )
    params = module.params
    for option in ("secret_environment", "migrate_secret_environment"):
        module.no_log_values |= instance.secrets_within(
            {key: str(value) for key, value in params[option].items()}
        )
    layout = host.Layout(params["application"])
    try:
        if module.check_mode:
            result = run(module, layout, None)
        else:
            with host.locked(layout, params["lock_timeout"]) as lock:
                result = run(module, layout, lock)
    except (PlanError, instance.InstanceError, host.HostError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
