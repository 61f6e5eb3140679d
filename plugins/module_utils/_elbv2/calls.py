# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls to Elastic Load Balancing and EC2 that concern targets, one function each.

Passing errors are repeated and all explained by `Api`, under which every call runs; `advised` adds
what to do where that is particular to targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    DENIED,
    Api,
    AwsFailure,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    Group,
    Instance,
    Member,
    Target,
    TargetError,
    account_of,
    group_of,
    in_words,
    instance_of,
    member_of,
    reference_problem,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.plan import Change

T = TypeVar("T")
P = ParamSpec("P")

# AWS documents no limit for one call and refuses large ones now and then, as its load; Kubernetes
# therefore went to 100 (kubernetes/kubernetes#101592).
TARGETS_PER_CALL = 100
# What the API Reference allows for load balancers; for target groups it says no number.
GROUPS_PER_CALL = 20
# EC2 API Reference, DescribeInstances: values of a filter.
VALUES_PER_FILTER = 200

NO_GROUP = ("TargetGroupNotFound", "TargetGroupNotFoundException", "ValidationError")
NO_BALANCER = ("LoadBalancerNotFound", "AccessPointNotFound", "ValidationError", *sorted(DENIED))

# What to do about errors, by their code (API Reference, RegisterTargets and DeregisterTargets).
ADVICE = {
    **dict.fromkeys(
        DENIED,
        "For this module alone, docs/iam/target-set.json has the rights, and "
        "docs/iam/target-set-host.json for a host itself, which sets describe_instances: false.",
    ),
    "InvalidTarget": (
        "AWS takes only running instances and addresses of the group's VPC (or private ones that "
        "it reaches). Correct the target and run again: what is registered already stays so."
    ),
    "TooManyTargets": (
        "The group or its load balancer is full. Deregister what is not needed, or ask for a "
        "higher quota in Service Quotas."
    ),
    "TooManyRegistrationsForTargetId": (
        "This host is registered with the load balancer as often as AWS allows. Take it out of "
        "other groups, or ask for a higher quota in Service Quotas."
    ),
    "TargetGroupNotFound": "Somebody has just deleted the group. Run again with one that exists.",
}


def advised(call: Callable[P, T]) -> Callable[P, T]:
    """Have an AwsFailure of a call say what to do about its code, where that is known here."""

    @wraps(call)
    def told(*arguments: P.args, **more: P.kwargs) -> T:
        try:
            return call(*arguments, **more)
        except AwsFailure as error:
            advice = ADVICE.get(error.code) or ADVICE.get(error.code.removesuffix("Exception"))
            if not advice:
                raise
            raise AwsFailure(f"{error} {advice}", error.code) from error

    return told


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Return the items in order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def target_groups(api: Api, references: Iterable[str]) -> list[Group]:
    """Return the groups of these names and ARNs, each once, by name.

    Raises AwsFailure, and TargetError for what is no target group.
    """
    wanted = list(dict.fromkeys(references))
    region = str(api.client("elbv2").meta.region_name)
    problems = [text for item in wanted if (text := reference_problem(item, region))]
    if problems:
        raise TargetError(f"nothing was changed: {'; '.join(problems)}")
    found: dict[str, Group] = {}
    for key, mine in (
        ("TargetGroupArns", [item for item in wanted if item.startswith("arn:")]),
        ("Names", [item for item in wanted if not item.startswith("arn:")]),
    ):
        for part in chunks(mine, GROUPS_PER_CALL):
            for answer in _groups(api, key, list(part)):
                group = group_of(answer)
                found[group.arn] = group
    return sorted(found.values(), key=lambda group: group.name)


@advised
def describe_groups(api: Api, key: str, references: list[str]) -> list[dict[str, Any]] | None:
    """Return target groups by `Names` or `TargetGroupArns`; None if one of them is missing."""
    answer = api.call(
        "elbv2",
        "describe_target_groups",
        in_words(references),
        missing=NO_GROUP,
        **{key: references},
    )
    return None if answer is None else list(answer["TargetGroups"])


def _groups(api: Api, key: str, references: list[str]) -> list[dict[str, Any]]:
    """Return target groups; AWS refuses them all for one that is missing, which is then sought."""
    found = describe_groups(api, key, references)
    if found is not None:
        return found
    if len(references) > 1:
        return [item for one in references for item in _groups(api, key, [one])]
    raise TargetError(
        f"nothing was changed: describe_target_groups found no target group {references[0]}. "
        f"{why_no_group(api, references[0])}"
    )


def why_no_group(api: Api, reference: str) -> str:
    """Return what a name or an ARN is, as it is not a target group here, and what to do."""
    if reference.startswith("arn:"):
        answer = api.call("sts", "get_caller_identity", missing=tuple(sorted(DENIED))) or {}
        own, other = str(answer.get("Account", "")), account_of(reference)
        if own and own != other:
            return (
                f"It belongs to the account {other}, and these credentials to {own}: use "
                "credentials of that account, or name a group of this one."
            )
        return "It was deleted, or the ARN is mistyped: `aws elbv2 describe-target-groups`."
    if api.call(
        "elb",
        "describe_load_balancers",
        reference,
        missing=NO_BALANCER,
        LoadBalancerNames=[reference],
    ):
        return (
            "A classic load balancer has this name. It has no target groups: use "
            "amazon.aws.elb_classic_lb for it, or make an application load balancer."
        )
    balancers = api.call(
        "elbv2", "describe_load_balancers", reference, missing=NO_BALANCER, Names=[reference]
    )
    if balancers:
        arn = balancers["LoadBalancers"][0]["LoadBalancerArn"]
        answer = api.call("elbv2", "describe_target_groups", reference, LoadBalancerArn=arn) or {}
        names = sorted(item["TargetGroupName"] for item in answer["TargetGroups"])
        return (
            "A load balancer has this name, and targets are registered in its target groups: "
            f"{in_words(names) or 'it has none yet'}."
        )
    region = api.client("elbv2").meta.region_name
    return (
        f"There is none of this name in {region}: correct the name or the region "
        "(`aws elbv2 describe-target-groups`), or run the stage first that makes it."
    )


@advised
def target_health(api: Api, group: Group) -> list[Member]:
    """Return every target of a group, in one call however many there are. Raises AwsFailure."""
    found = api.pages(
        "elbv2",
        "describe_target_health",
        "TargetHealthDescriptions",
        group.name,
        TargetGroupArn=group.arn,
    )
    return sorted((member_of(item) for item in found), key=lambda member: member.target)


def register(api: Api, group: Group, changes: Sequence[Change]) -> None:
    """Register targets in a group; one that drains is in service again. Raises AwsFailure."""
    for part in chunks(changes, TARGETS_PER_CALL):
        targets = [
            {**_named(item.target), **({"AvailabilityZone": item.zone} if item.zone else {})}
            for item in part
        ]
        _write(api, "register_targets", group, targets)


def deregister(api: Api, group: Group, changes: Sequence[Change]) -> None:
    """Deregister targets of a group: no new request goes there. Raises AwsFailure."""
    for part in chunks(changes, TARGETS_PER_CALL):
        _write(api, "deregister_targets", group, [_named(item.target) for item in part])


def _named(target: Target) -> dict[str, Any]:
    return {"Id": target.id, "Port": target.port}


@advised
def _write(api: Api, operation: str, group: Group, targets: list[dict[str, Any]]) -> None:
    who = f"{group.name}, {in_words(item['Id'] for item in targets)}"
    api.call("elbv2", operation, who, TargetGroupArn=group.arn, Targets=targets)


@advised
def instances(api: Api, ids: Iterable[str]) -> dict[str, Instance]:
    """Return what EC2 knows of instances, by id; what it does not know is left out.

    Raises AwsFailure.
    """
    found: dict[str, Instance] = {}
    for part in chunks(sorted(set(ids)), VALUES_PER_FILTER):
        chosen = [{"Name": "instance-id", "Values": list(part)}]
        pages = api.pages(
            "ec2", "describe_instances", "Reservations", in_words(part), Filters=chosen
        )
        for item in (entry for page in pages for entry in page["Instances"]):
            found[item["InstanceId"]] = instance_of(item)
    return found


def reader(api: Api, groups: Iterable[Group]) -> Callable[[str], list[Member]]:
    """Return what reads the targets of one of the groups, by its ARN."""
    known = {group.arn: group for group in groups}
    return lambda arn: target_health(api, known[arn])
