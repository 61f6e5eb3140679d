# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the health of a target means, and what to do about it (pure).

Reason codes and their meaning: API Reference of Elastic Load Balancing, TargetHealth.
"""

from __future__ import annotations

from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    NOT_REGISTERED,
    Group,
    Member,
    Target,
)


def absent(target: Target) -> Member:
    """Return what AWS would tell of a target that it does not list."""
    return Member(target, "unused", NOT_REGISTERED, "Target is not registered to the target group")


def is_stuck(member: Member) -> bool:
    """Tell whether no health check will ever change this state."""
    return member.state in ("unused", "draining") or member.reason == "Target.HealthCheckDisabled"


def report(group: Group, member: Member) -> str:
    """Return a line about a target that is not healthy: AWS's words, and what to do."""
    said = ": ".join(part for part in (member.reason, member.description) if part)
    told = f" ({said})" if said else ""
    return f"{member.target} in {group.name} is {member.state}{told}. {advice(group, member)}"


def advice(group: Group, member: Member) -> str:
    """Return what to do about a target that is not healthy."""
    check, port = group.check, group.check.port
    if port == "traffic-port":
        port = str(member.target.port)
    asked = f"{check.protocol} {check.path}".strip() + f" at port {port}"
    door = f"that the security group lets the load balancer in at port {port}"
    need = check.interval * check.threshold
    return {
        "Target.ResponseCodeMismatch": (
            f"The health check asks for {asked} and takes {check.matcher or 'its matcher'}: let "
            "the application answer so, or correct path or matcher of the group"
        ),
        "Target.Timeout": (
            f"{asked} did not answer within {check.timeout} s: see that the application is not "
            f"overloaded, and {door}"
        ),
        "Target.FailedHealthChecks": (
            f"The health check asks for {asked} and got no connection or no sensible answer: see "
            f"that the port is right, that the application listens there, and {door}"
        ),
        "Target.NotInUse": (
            "No listener forwards to the group, or its load balancer is not enabled in the "
            f"target's zone{' ' + member.zone if member.zone else ''}: it is never checked there"
        ),
        "Target.InvalidState": "Its instance is stopped or terminated: start it, or leave it out",
        "Target.IpUnusable": "A load balancer uses this address itself: give the host's own",
        "Target.DeregistrationInProgress": (
            "Somebody else deregisters it: end that, then run again"
        ),
        NOT_REGISTERED: "Somebody else has deregistered it: end that, then run again",
        "Target.HealthCheckDisabled": "The group checks no health: set wait: false for it",
        "Elb.InternalError": "This is AWS's own: see the AWS Health Dashboard, and run again",
        "Elb.RegistrationInProgress": (
            f"It takes {need} s at least ({check.threshold} checks, {check.interval} s apart): "
            "raise timeout, or run again"
        ),
        "Elb.InitialHealthChecking": (
            f"It takes {need} s at least ({check.threshold} checks, {check.interval} s apart): "
            "raise timeout, or run again"
        ),
    }.get(member.reason, "Look at the target group in the EC2 console, and run again")
