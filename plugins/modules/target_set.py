#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Register or deregister hosts in target groups, safely, any number in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: target_set
short_description: Register or deregister hosts in target groups, any number in one task
version_added: 0.1.0
description:
  - Registers any number of hosts in any number of target groups of Application and Network Load
    Balancers, or deregisters them. Targets that the task does not name are left alone, unless
    O(exact=true).
  - Waits until each registered target is healthy, also one that was registered before. If one does
    not get healthy, the module fails and says for each which state, reason code and description
    AWS gives, and what to do about it.
  - A target that still drains from an earlier deregistration is registered again.
  - Refuses, before it changes anything, what would leave a group, or a zone of a group, with fewer
    healthy targets than O(minimum_healthy) and O(minimum_healthy_per_zone).
  - A drain ends as soon as the host has nothing in flight, which the host itself is asked for
    (O(drain.check)), or when AWS has ended it, or after O(drain.timeout), whichever is first. The
    result says for each target which it was.
  - Calls are batched, and each poll asks AWS once for each group, however many hosts there are, at
    random intervals that grow.
  - Load balancers and target groups are not made here; see M(amazon.aws.elb_application_lb) and
    M(community.aws.elb_target_group). Classic load balancers have no target groups; see
    M(amazon.aws.elb_classic_lb).
options:
  target_groups:
    description:
      - The target groups, each by its name or its ARN. They must exist, take hosts (the types
        C(instance) and C(ip)), and be of the account and region that the task talks to.
    type: list
    elements: str
    required: true
  targets:
    description:
      - The hosts. An empty list changes nothing; it is refused with O(exact=true).
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description:
          - The id of an instance for groups of the type C(instance), an address for those of the
            type C(ip).
        type: str
        required: true
      port:
        description:
          - The port at which the host serves. A host at two ports is two targets, as AWS counts.
          - Without it, a host is registered at the group's own port, and deregistered at every
            port at which it is registered there.
        type: int
      zone:
        description:
          - The Availability Zone. AWS wants it for addresses outside of the group's VPC, for which
            it may be V(all). That of an instance is EC2's to tell; with
            O(describe_instances=false) it is only what the result reports.
        type: str
      address:
        description:
          - Where O(drain.url) reaches the host. Without it, that is the instance's private
            address, or O(targets[].id) if that is an address. On the host itself, V(127.0.0.1).
        type: str
  state:
    description:
      - V(present) registers the targets, V(absent) deregisters them. A target that is not
        registered is none to deregister, and no error.
    type: str
    choices: [present, absent]
    default: present
  exact:
    description:
      - Whether O(targets) are the whole set, so that all others are deregistered. The new ones are
        registered first, and nothing is deregistered unless they all get healthy; with
        O(wait=false) it is not waited for that.
    type: bool
    default: false
  minimum_healthy:
    description:
      - How many healthy targets each group must keep. V(0) allows to empty a group.
      - What takes out no healthy target is never refused, so that a broken host can always go.
      - It is checked against the moment. Tasks that run at the same time do not know of each
        other - name all hosts in one task, or run them one after the other (C(throttle) or
        C(serial)).
    type: int
    default: 1
  minimum_healthy_per_zone:
    description:
      - How many healthy targets each Availability Zone of a group must keep that loses one.
      - A target whose zone is not known counts for none, so for instances this needs
        O(describe_instances=true).
    type: int
    default: 0
  wait:
    description:
      - Whether to wait for the health of what is registered, and for the drain of what is
        deregistered. Without it, nothing counts as healthy that is not so yet.
    type: bool
    default: true
  timeout:
    description:
      - Seconds to wait until all targets are healthy. It may take the interval of the group's
        health check times its threshold, by AWS's defaults 150 seconds.
      - A target whose state no waiting changes, such as C(unused), is not waited for so long.
    type: int
    default: 300
  drain:
    description: How the end of a drain is told.
    type: dict
    default: {}
    suboptions:
      check:
        description:
          - What the host is asked for its requests in flight.
          - V(nginx) reads the page of nginx's C(stub_status), for all sites of that nginx together;
            idle keep-alive connections do not count.
          - V(haproxy) reads HAProxy's statistics as CSV, and counts sessions and queue of each
            backend that has servers.
          - With V(none) no host is asked, and the drain ends when AWS ends it, after the group's
            deregistration delay.
        type: str
        choices: [none, nginx, haproxy]
        default: none
      url:
        description:
          - The URL of the page, with C({address}) for the host, such as
            V(http://{address}:8080/stub_status) or V(http://{address}:8404/stats;csv). Required
            with O(drain.check=nginx) and O(drain.check=haproxy).
          - It is asked from where the module runs. A healthy host that does not answer it is
            refused before anything is changed.
        type: str
      proxies:
        description: The backends of HAProxy that count. By default all that have servers.
        type: list
        elements: str
        default: []
      username:
        description: The user for O(drain.url), by HTTP basic authentication.
        type: str
      password:
        description: The password of O(drain.username).
        type: str
      quiet:
        description:
          - Seconds for which the host must have had nothing in flight. The nodes of a load balancer
            learn of a deregistration one after the other, so a single quiet moment proves nothing.
        type: int
        default: 5
      timeout:
        description:
          - Seconds after which the drain is no longer waited for. This is no failure; AWS drains
            on until the group's deregistration delay is over.
        type: int
        default: 300
  describe_instances:
    description:
      - Whether EC2 is asked for the instances. Their state and VPC are then checked before anything
        is changed, and their zones and addresses need not be given.
      - Without it, no right on EC2 is needed, as for a host that registers itself.
    type: bool
    default: true
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description:
      - Reads all, refuses what a real run would refuse, tells what would be changed, and changes
        nothing. It waits for nothing, so RV(targets) tells the health of the moment.
    support: full
  diff_mode:
    description: Shows the registered targets of each group before and after.
    support: full
notes:
  - >-
    The rights for use from the controller are C(elasticloadbalancing:DescribeTargetGroups),
    C(elasticloadbalancing:DescribeTargetHealth) and C(ec2:DescribeInstances) on all resources,
    C(elasticloadbalancing:RegisterTargets) and C(elasticloadbalancing:DeregisterTargets) on the
    target groups (C(docs/iam/target-set.json)).
  - >-
    For use from the host itself, by its instance role and with O(describe_instances=false), the
    same without C(ec2:DescribeInstances) (C(docs/iam/target-set-host.json)).
  - >-
    To tell why a name is no target group, the module also looks for load balancers of that name.
    Without C(elasticloadbalancing:DescribeLoadBalancers) the error says less.
seealso:
  - module: community.aws.elb_target
  - module: community.aws.elb_target_group
  - name: Target health
    description: The states of a target and their reason codes, in AWS's API Reference.
    link: https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Register two hosts in a group, and wait until they are healthy
  ascent.scaling.target_set:
    target_groups: [production-web]
    targets:
      - id: i-0123456789abcdef0
      - id: i-0123456789abcdef1

- name: Take a host out of two groups; go on when nginx has no request in flight
  ascent.scaling.target_set:
    target_groups: [production-web, production-api]
    targets:
      - id: i-0123456789abcdef0
    state: absent
    minimum_healthy: 2
    minimum_healthy_per_zone: 1
    drain:
      check: nginx
      url: http://{address}:8080/stub_status
      timeout: 120

- name: Have exactly these addresses in a group, one of them at two ports
  ascent.scaling.target_set:
    target_groups:
      - arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/api/0123456789abcdef
    targets:
      - {id: 10.0.1.5, port: 8001}
      - {id: 10.0.1.5, port: 8002}
      - {id: 10.0.2.5, port: 8001}
    exact: true

- name: Take this host out of service from the host itself, by its instance role
  ascent.scaling.target_set:
    region: eu-central-1
    target_groups: [production-proxy]
    targets:
      - id: "{{ ansible_facts['ec2_instance_id'] }}"
        address: 127.0.0.1
    state: absent
    describe_instances: false
    drain:
      check: haproxy
      url: http://{address}:8404/stats;csv
      proxies: [application]

- name: See what would be changed
  ascent.scaling.target_set:
    target_groups: [production-web]
    targets:
      - id: i-0123456789abcdef0
    state: absent
  check_mode: true
  diff: true
"""

RETURN = r"""
changes:
  description: What was registered and deregistered, or would be in check mode.
  returned: success, and when targets do not get healthy
  type: list
  elements: dict
  sample: [{action: register, group: production-web, id: i-0123456789abcdef0, port: 80}]
targets:
  description: The targets that the task is about, by group.
  returned: success, and when targets do not get healthy
  type: list
  elements: dict
  contains:
    group:
      description: The name of the target group.
      type: str
      sample: production-web
    id:
      description: The instance id or the address.
      type: str
      sample: i-0123456789abcdef0
    port:
      description: The port.
      type: int
      sample: 80
    zone:
      description: The Availability Zone, empty if it is not known.
      type: str
      sample: eu-central-1a
    state:
      description: The state of AWS. One that is not registered is C(unused).
      type: str
      sample: healthy
    reason:
      description: AWS's reason code, empty for a healthy target.
      type: str
      sample: Target.ResponseCodeMismatch
    description:
      description: AWS's description, empty for a healthy target.
      type: str
      sample: "Health checks failed with these codes: [404]"
    drained_by:
      description:
        - How the drain ended; only of targets that were waited for. V(idle) is that the host had
          nothing in flight, V(deregistered) that AWS had ended it, V(timeout) that
          O(drain.timeout) was over, V(registered) that somebody registered it again.
      type: str
      sample: idle
    drain_seconds:
      description: How long the drain was waited for.
      type: float
      sample: 6.4
    in_flight:
      description: The last number of requests in flight that the host told; empty if it told none.
      type: int
      sample: 0
    drain_error:
      description: Why the host did not tell, empty if it did or was not asked.
      type: str
groups:
  description: The target groups after the change, or in check mode as they would be.
  returned: success, and when targets do not get healthy
  type: list
  elements: dict
  contains:
    name:
      description: The name of the target group.
      type: str
      sample: production-web
    arn:
      description: Its ARN.
      type: str
      sample: arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/production-web/0123
    targets:
      description: How many targets are registered.
      type: int
      sample: 4
    healthy:
      description: How many of them are healthy.
      type: int
      sample: 4
    zones:
      description: The same for each zone; C(unknown) are those whose zone nobody told.
      type: dict
      sample: {eu-central-1a: {targets: 2, healthy: 2}, eu-central-1b: {targets: 2, healthy: 2}}
    balanced:
      description: Whether no zone with targets has two more than another one.
      type: bool
      sample: true
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.ask import Question
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.calls import target_groups
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import TargetError, wish
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.wait import Pace
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.work import Limits, Work


def question(drain: dict[str, Any]) -> Question | None:
    """Return what hosts are asked while they drain, None if they are not. Raises TargetError."""
    for name in ("quiet", "timeout"):
        if drain[name] < 0:
            raise TargetError(f"drain.{name} is {drain[name]}: it is a number from 0 on")
    if drain["check"] == "none":
        return None
    return Question(
        check=drain["check"],
        url=drain["url"] or "",
        proxies=drain["proxies"],
        username=drain["username"] or "",
        password=drain["password"] or "",
    )


def converge(
    api: Api, options: dict[str, Any], dry: bool, pace: Pace | None = None
) -> dict[str, Any]:
    """Return what the module returns. Raises AwsFailure, TargetError."""
    drain = options["drain"]
    work = Work(
        api,
        wish(options),
        target_groups(api, options["target_groups"]),
        Limits(health=options["timeout"], drain=drain["timeout"], quiet=drain["quiet"]),
        question(drain),
        options["describe_instances"],
        pace,
    )
    if not dry:
        work.register()
        work.deregister()
    result: dict[str, Any] = work.result()
    return result


DRAIN = {
    "check": {"type": "str", "choices": ["none", "nginx", "haproxy"], "default": "none"},
    "url": {"type": "str"},
    "proxies": {"type": "list", "elements": "str", "default": []},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "quiet": {"type": "int", "default": 5},
    "timeout": {"type": "int", "default": 300},
}
TARGET = {
    "id": {"type": "str", "required": True},
    "port": {"type": "int"},
    "zone": {"type": "str"},
    "address": {"type": "str"},
}
SPEC: dict[str, Any] = {
    "target_groups": {"type": "list", "elements": "str", "required": True},
    "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "exact": {"type": "bool", "default": False},
    "minimum_healthy": {"type": "int", "default": 1},
    "minimum_healthy_per_zone": {"type": "int", "default": 0},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
    "drain": {
        "type": "dict",
        "default": {},
        "options": DRAIN,
        "required_if": [("check", "nginx", ["url"]), ("check", "haproxy", ["url"])],
        "required_together": [("username", "password")],
    },
    "describe_instances": {"type": "bool", "default": True},
}


def main() -> None:
    module = AnsibleAWSModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        result = converge(module_api(module), module.params, module.check_mode)
    except (AwsFailure, TargetError) as error:
        module.fail_json(msg=str(error), **getattr(error, "result", {}))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
