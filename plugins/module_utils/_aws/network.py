# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and changes a network, a change of the plan at a time.

Every resource gets its tags in the call that creates it, so that a run that is killed after any
call finds on its next run what it made.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api
from ansible_collections.ascent.scaling.plugins.module_utils.environment import (
    Change,
    Resource,
    parse_rule,
)

# A new resource is not known everywhere at once (EC2 API Reference, "Eventual consistency").
# AWS opens the way out of every new security group.
NEW_GROUP_EGRESS = "all all 0.0.0.0/0"
NOT_YET = (
    "InvalidVpcID.NotFound",
    "InvalidSubnetID.NotFound",
    "InvalidInternetGatewayID.NotFound",
    "InvalidRouteTableID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.Malformed",
    "InvalidID",
)


def in_steps(changes: list[Change]) -> list[Change]:
    """Return changes with each new security group made before any rule is written.

    A rule may name a group that comes later in the alphabet.
    """
    steps: list[Change] = []
    rules: list[Change] = []
    for change in changes:
        if change["kind"] != "security_group":
            steps.append(change)
            continue
        shape = {key: value for key, value in change["after"].items() if key != "tags"}
        if change["action"] == "create":
            steps.append({**change, "after": {"tags": change["after"]["tags"]}})
            before = {"ingress": [], "egress": [NEW_GROUP_EGRESS]}
            rules.append({**change, "action": "change", "before": before, "after": shape})
        else:
            rules.append(change)
    return steps + rules


class Network:
    """The ids of what stands, and one method for each kind of change."""

    def __init__(self, api: Api, environment: str, found: list[Resource]) -> None:
        self._api = api
        self._environment = environment
        self._ids = {(item["kind"], item["name"]): item["id"] for item in found}
        self._facts = {(item["kind"], item["name"]): item.get("facts", {}) for item in found}

    def apply(self, change: Change) -> None:
        """Carry out one change. Raises AwsFailure."""
        kind, name, after = change["kind"], change["name"], change["after"]
        if change["action"] == "create":
            self._ids[kind, name] = getattr(self, f"_create_{kind}")(name, after)
        else:
            if "tags" in after:
                self._ec2("create_tags", name, Resources=[self._id(kind, name)], Tags=tags(after))
        rest = {key: value for key, value in after.items() if key != "tags"}
        if rest:
            getattr(self, f"_shape_{kind}")(name, rest, change["before"])

    def _id(self, kind: str, name: str) -> str:
        return self._ids[kind, name]

    def _ec2(self, operation: str, resource: str, **parameters: Any) -> dict[str, Any]:
        return self._api.call("ec2", operation, resource, passing=NOT_YET, **parameters) or {}

    def _born(self, kind: str, after: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tags(after)}]

    @property
    def _vpc(self) -> str:
        return self._id("vpc", self._environment)

    def _create_vpc(self, name: str, after: dict[str, Any]) -> str:
        answer = self._ec2(
            "create_vpc",
            name,
            CidrBlock=after["cidr"],
            TagSpecifications=self._born("vpc", after),
        )
        return str(answer["Vpc"]["VpcId"])

    def _shape_vpc(self, name: str, after: dict[str, Any], _: dict[str, Any]) -> None:
        for key, parameter in (
            ("dns_support", "EnableDnsSupport"),
            ("dns_hostnames", "EnableDnsHostnames"),
        ):
            if key in after:  # one attribute a call is all that EC2 takes
                self._ec2(
                    "modify_vpc_attribute",
                    name,
                    VpcId=self._vpc,
                    **{parameter: {"Value": after[key]}},
                )

    def _create_internet_gateway(self, name: str, after: dict[str, Any]) -> str:
        answer = self._ec2(
            "create_internet_gateway",
            name,
            TagSpecifications=self._born("internet-gateway", after),
        )
        return str(answer["InternetGateway"]["InternetGatewayId"])

    def _shape_internet_gateway(self, name: str, _: dict[str, Any], before: dict[str, Any]) -> None:
        gateway = self._id("internet_gateway", name)
        if before.get("vpc"):
            self._ec2(
                "detach_internet_gateway",
                name,
                InternetGatewayId=gateway,
                VpcId=before["vpc"],
            )
        self._ec2("attach_internet_gateway", name, InternetGatewayId=gateway, VpcId=self._vpc)

    def _create_subnet(self, name: str, after: dict[str, Any]) -> str:
        answer = self._ec2(
            "create_subnet",
            name,
            VpcId=self._vpc,
            CidrBlock=after["cidr"],
            AvailabilityZone=after["zone"],
            TagSpecifications=self._born("subnet", after),
        )
        return str(answer["Subnet"]["SubnetId"])

    def _shape_subnet(self, name: str, after: dict[str, Any], before: dict[str, Any]) -> None:
        if before.get("public_addresses", False) != after.get("public_addresses", False):
            self._ec2(
                "modify_subnet_attribute",
                name,
                SubnetId=self._id("subnet", name),
                MapPublicIpOnLaunch={"Value": after["public_addresses"]},
            )

    def _create_route_table(self, name: str, after: dict[str, Any]) -> str:
        answer = self._ec2(
            "create_route_table",
            name,
            VpcId=self._vpc,
            TagSpecifications=self._born("route-table", after),
        )
        return str(answer["RouteTable"]["RouteTableId"])

    def _shape_route_table(self, name: str, after: dict[str, Any], before: dict[str, Any]) -> None:
        table = self._id("route_table", name)
        if "routes" in after:
            old = before.get("routes") or {}
            for cidr in sorted(set(old) - set(after["routes"])):
                self._ec2("delete_route", name, RouteTableId=table, DestinationCidrBlock=cidr)
            for cidr, target in sorted(after["routes"].items()):
                if old.get(cidr) != target:
                    self._ec2(
                        "replace_route" if cidr in old else "create_route",
                        f"{name}, {cidr}",
                        RouteTableId=table,
                        DestinationCidrBlock=cidr,
                        GatewayId=self._id("internet_gateway", target),
                    )
        if "subnets" in after:
            held = self._facts.get(("route_table", name), {}).get("associations", {})
            wanted = {self._id("subnet", subnet) for subnet in after["subnets"]}
            for subnet in sorted(set(held) - wanted):
                self._ec2("disassociate_route_table", name, AssociationId=held[subnet])
            for subnet in sorted(wanted - set(held)):
                other = self._association_of(subnet)
                if other:
                    self._ec2(
                        "replace_route_table_association",
                        name,
                        AssociationId=other,
                        RouteTableId=table,
                    )
                else:
                    self._ec2("associate_route_table", name, SubnetId=subnet, RouteTableId=table)

    def _association_of(self, subnet: str) -> str | None:
        for facts in self._facts.values():
            if subnet in facts.get("associations", {}):
                return str(facts["associations"].pop(subnet))
        return None

    def _create_security_group(self, name: str, after: dict[str, Any]) -> str:
        answer = self._ec2(
            "create_security_group",
            name,
            VpcId=self._vpc,
            GroupName=f"{self._environment}-{name}",
            Description=f"Ascent, environment {self._environment}: {name}",
            TagSpecifications=self._born("security-group", after),
        )
        return str(answer["GroupId"])

    def _shape_security_group(
        self, name: str, after: dict[str, Any], before: dict[str, Any]
    ) -> None:
        group = self._id("security_group", name)
        for side in ("ingress", "egress"):
            if side not in after:
                continue
            old, new = set(before.get(side) or []), set(after[side])
            # Open first: a rule that is only written differently never closes in between.
            if new - old:
                self._ec2(
                    f"authorize_security_group_{side}",
                    name,
                    GroupId=group,
                    IpPermissions=[self._permission(item) for item in sorted(new - old)],
                )
            if old - new:
                self._ec2(
                    f"revoke_security_group_{side}",
                    name,
                    GroupId=group,
                    IpPermissions=[self._permission(item) for item in sorted(old - new)],
                )

    def _permission(self, written: str) -> dict[str, Any]:
        protocol, first, last, source = parse_rule(written)
        permission: dict[str, Any] = {"IpProtocol": "-1" if protocol == "all" else protocol}
        if protocol != "all":
            permission |= {"FromPort": first, "ToPort": last}
        if source.startswith("group:"):
            name = source[6:]
            group = self._ids.get(("security_group", name), name)
            permission["UserIdGroupPairs"] = [{"GroupId": group}]
        elif source.startswith("pl-"):
            permission["PrefixListIds"] = [{"PrefixListId": source}]
        elif ":" in source:
            permission["Ipv6Ranges"] = [{"CidrIpv6": source}]
        else:
            permission["IpRanges"] = [{"CidrIp": source}]
        return permission


def tags(after: dict[str, Any]) -> list[dict[str, str]]:
    """Return a change's tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(after["tags"].items())]
