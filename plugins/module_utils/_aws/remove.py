# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes what bears an environment's tags, a resource at a time, each step safe to repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api, AwsFailure
from ansible_collections.ascent.scaling.plugins.module_utils._aws.observe import (
    of_environment,
    tag_map,
)
from ansible_collections.ascent.scaling.plugins.module_utils.environment import KINDS, Resource

# What only a removal looks at, after everything of KINDS: (kind, position).
LATER = ("volume", "db_snapshot", "secret", "parameter")
# "It is not there" in the words of each service; on removal that is as good as removed.
GONE = (
    "InvalidAllocationID.NotFound",
    "InvalidAssociationID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidInstanceID.NotFound",
    "InvalidInternetGatewayID.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidRouteTableID.NotFound",
    "InvalidSubnetID.NotFound",
    "InvalidVolume.NotFound",
    "InvalidVpcID.NotFound",
    "DBInstanceNotFound",
    "DBParameterGroupNotFound",
    "DBSnapshotNotFound",
    "DBSnapshotNotFoundFault",
    "DBSubnetGroupNotFoundFault",
    "Gateway.NotAttached",
    "LoadBalancerNotFound",
    "NoSuchBucket",
    "NoSuchEntity",
    "NoSuchHostedZone",
    "ParameterNotFound",
    "TargetGroupNotFound",
    "ResourceNotFoundException",
)
# What holds on for a while after its holder has gone (EC2 API Reference, "Error codes").
STILL_HELD = (
    "DependencyViolation",
    "VolumeInUse",
    "DeleteConflict",
    "InvalidDBInstanceState",
    "InvalidDBSnapshotState",
    "InvalidDBSubnetGroupStateFault",
    "InvalidDBParameterGroupState",
    # Of a target group, and of a certificate, for a moment after their load balancer has gone.
    "ResourceInUse",
    "ResourceInUseException",
)


def leftovers(api: Api, environment: str) -> list[Resource]:
    """Return what no stage describes but an environment leaves, such as volumes and secrets."""
    found: list[Resource] = []
    volumes = api.pages("ec2", "describe_volumes", "Volumes", Filters=of_environment(environment))
    for volume in volumes:
        name = tag_map(volume).get("Name", volume["VolumeId"])
        found.append({"kind": "volume", "name": name, "id": volume["VolumeId"], "attributes": {}})
    snapshots = api.pages("rds", "describe_db_snapshots", "DBSnapshots", SnapshotType="manual")
    for snapshot in snapshots:
        name = snapshot["DBSnapshotIdentifier"]
        # Only by its tag: what is restored from cannot be had back.
        if tag_map({"Tags": snapshot.get("TagList")}).get("ascent:environment") == environment:
            found.append({"kind": "db_snapshot", "name": name, "id": name, "attributes": {}})
    secrets = api.pages(
        "secretsmanager",
        "list_secrets",
        "SecretList",
        Filters=[{"Key": "name", "Values": [f"ascent/{environment}/"]}],
    )
    for secret in secrets:
        found.append(
            {"kind": "secret", "name": secret["Name"], "id": secret["ARN"], "attributes": {}}
        )
    parameters = api.pages(
        "ssm",
        "describe_parameters",
        "Parameters",
        ParameterFilters=[
            {"Key": "Path", "Option": "Recursive", "Values": [f"/ascent/{environment}"]}
        ],
    )
    for parameter in parameters:
        name = parameter["Name"]
        found.append({"kind": "parameter", "name": name, "id": name, "attributes": {}})
    return found


def in_order(found: list[Resource]) -> list[Resource]:
    """Return resources in the order in which they can be removed: the opposite of their making."""
    order = {kind: -place for place, kind in enumerate(KINDS)}
    order |= {kind: 1 + place for place, kind in enumerate(LATER)}
    return sorted(found, key=lambda item: (order[item["kind"]], item["name"]))


def ours(found: list[Resource]) -> list[Resource]:
    """Return what may be removed: in a zone of the user's own, only records of our addresses."""
    addresses = {item["facts"]["address"] for item in found if item["kind"] == "elastic_ip"}
    balancers = {f"load balancer {i['name']}" for i in found if i["kind"] == "load_balancer"}
    foreign = {
        item["id"]
        for item in found
        if item["kind"] == "dns_zone" and item.get("facts", {}).get("foreign")
    }
    kept: list[Resource] = []
    for item in found:
        if item["kind"] == "dns_zone" and item["id"] in foreign:
            continue
        if item["kind"] == "dns_record" and item["id"].split(" ")[0] in foreign:
            values = set(item["attributes"].get("values", []))
            if not values <= addresses or not (
                values or item["attributes"].get("alias") in balancers
            ):
                continue
        kept.append(item)
    return kept


class Remover:
    """One method for each kind. keeps_backups: managed databases leave a last snapshot."""

    def __init__(
        self,
        api: Api,
        keeps_backups: bool = True,
        timeout: float = 300,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._keeps_backups = keeps_backups
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep

    def remove_all(self, items: list[Resource]) -> None:
        """Remove resources that are in order. Raises AwsFailure."""
        cleared = False
        for item in items:
            if item["kind"] == "security_group" and not cleared:
                # Groups may name each other: the rules of all go before any of them does.
                cleared = True
                for group in items:
                    if group["kind"] == "security_group":
                        self._clear_security_group(group)
            getattr(self, f"_remove_{item['kind']}")(item)

    def _call(
        self, service: str, operation: str, item: Resource, **parameters: Any
    ) -> dict[str, Any]:
        return (
            self._api.call(
                service,
                operation,
                f"{item['kind']} {item['name']}",
                missing=GONE,
                passing=STILL_HELD,
                **parameters,
            )
            or {}
        )

    def _remove_dns_record(self, item: Resource) -> None:
        zone, _, name = item["id"].partition(" ")
        record: dict[str, Any] = {"Name": name, "Type": "A"}
        if "alias" in item["attributes"]:
            # It must be said as it is: AWS tells.
            listed = self._call(
                "route53", "list_resource_record_sets", item,
                HostedZoneId=zone, StartRecordName=name, StartRecordType="A", MaxItems="1",
            )  # fmt: skip
            sets = listed.get("ResourceRecordSets", [])
            if not sets or (sets[0]["Name"].rstrip("."), sets[0]["Type"]) != (name, "A"):
                return
            record = sets[0]
        else:
            values = item["attributes"]["values"]
            record |= {
                "TTL": item["attributes"]["ttl"],
                "ResourceRecords": [{"Value": value} for value in values],
            }
        self._call(
            "route53",
            "change_resource_record_sets",
            item,
            HostedZoneId=zone,
            ChangeBatch={"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]},
        )

    def _remove_dns_zone(self, item: Resource) -> None:
        self._call("route53", "delete_hosted_zone", item, Id=item["id"])

    def _remove_load_balancer(self, item: Resource) -> None:
        """Its listeners go with it. The nodes' interfaces hold its groups for a while longer."""
        arn = item["id"]
        if item["attributes"]["deletion_protection"]:
            self._call(
                "elbv2", "modify_load_balancer_attributes", item, LoadBalancerArn=arn,
                Attributes=[{"Key": "deletion_protection.enabled", "Value": "false"}],
            )  # fmt: skip
        self._call("elbv2", "delete_load_balancer", item, LoadBalancerArn=arn)

    def _remove_target_group(self, item: Resource) -> None:
        self._call("elbv2", "delete_target_group", item, TargetGroupArn=item["id"])

    def _remove_certificate(self, item: Resource) -> None:
        self._call("acm", "delete_certificate", item, CertificateArn=item["id"])

    def _remove_elastic_ip(self, item: Resource) -> None:
        association = item["facts"].get("association")
        if association:
            self._call("ec2", "disassociate_address", item, AssociationId=association)
        self._call("ec2", "release_address", item, AllocationId=item["id"])

    def _remove_instance(self, item: Resource) -> None:
        self._call("ec2", "terminate_instances", item, InstanceIds=[item["id"]])
        deadline = self._clock() + self._timeout
        while True:
            answer = self._call("ec2", "describe_instances", item, InstanceIds=[item["id"]])
            states = {
                host["State"]["Name"]
                for group in answer.get("Reservations", [])
                for host in group["Instances"]
            }
            if states <= {"terminated"}:
                return
            if self._clock() > deadline:
                raise AwsFailure(
                    f"instance {item['name']} ({item['id']}) is not terminated after "
                    f"{self._timeout:.0f} s; look at it in the console, then run again"
                )
            self._sleep(2)

    def _remove_db_instance(self, item: Resource) -> None:
        """Automated backups go with the instance: what stays of it is a last snapshot."""
        name = item["id"]
        if item["facts"]["protected"]:
            self._call(
                "rds", "modify_db_instance", item,
                DBInstanceIdentifier=name, DeletionProtection=False, ApplyImmediately=True,
            )  # fmt: skip
        if item["facts"]["status"] != "deleting":
            last = f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
            self._call(
                "rds", "delete_db_instance", item,
                DBInstanceIdentifier=name,
                DeleteAutomatedBackups=True,
                SkipFinalSnapshot=not self._keeps_backups,
                **({"FinalDBSnapshotIdentifier": last} if self._keeps_backups else {}),
            )  # fmt: skip
        deadline = self._clock() + max(self._timeout, 3600)
        while self._call("rds", "describe_db_instances", item, DBInstanceIdentifier=name):
            if self._clock() > deadline:
                raise AwsFailure(
                    f"database {item['name']} ({name}) is still being deleted after an hour; look "
                    "at it in the console, then run again"
                )
            self._sleep(5)

    def _remove_db_parameter_group(self, item: Resource) -> None:
        self._call("rds", "delete_db_parameter_group", item, DBParameterGroupName=item["id"])

    def _remove_db_subnet_group(self, item: Resource) -> None:
        self._call("rds", "delete_db_subnet_group", item, DBSubnetGroupName=item["id"])

    def _remove_db_snapshot(self, item: Resource) -> None:
        self._call("rds", "delete_db_snapshot", item, DBSnapshotIdentifier=item["id"])

    def _remove_key_pair(self, item: Resource) -> None:
        self._call("ec2", "delete_key_pair", item, KeyName=item["facts"]["key_name"])

    def _remove_instance_profile(self, item: Resource) -> None:
        name = item["name"]
        self._call(
            "iam",
            "remove_role_from_instance_profile",
            item,
            InstanceProfileName=name,
            RoleName=name,
        )
        self._call("iam", "delete_instance_profile", item, InstanceProfileName=name)
        self._call("iam", "delete_role_policy", item, RoleName=name, PolicyName="ascent-host")
        self._call("iam", "delete_role", item, RoleName=name)

    def _remove_bucket(self, item: Resource) -> None:
        name = item["name"]
        while True:
            answer = self._call("s3", "list_object_versions", item, Bucket=name, MaxKeys=1000)
            objects = [
                {"Key": entry["Key"], "VersionId": entry["VersionId"]}
                for entry in answer.get("Versions", []) + answer.get("DeleteMarkers", [])
            ]
            if not objects:
                break
            self._call(
                "s3",
                "delete_objects",
                item,
                Bucket=name,
                Delete={"Objects": objects, "Quiet": True},
            )
        self._call("s3", "delete_bucket", item, Bucket=name)

    def _clear_security_group(self, item: Resource) -> None:
        answer = self._call("ec2", "describe_security_groups", item, GroupIds=[item["id"]])
        for group in answer.get("SecurityGroups", []):
            for side, key in (("ingress", "IpPermissions"), ("egress", "IpPermissionsEgress")):
                if group.get(key):
                    self._call(
                        "ec2",
                        f"revoke_security_group_{side}",
                        item,
                        GroupId=item["id"],
                        IpPermissions=group[key],
                    )

    def _remove_security_group(self, item: Resource) -> None:
        self._call("ec2", "delete_security_group", item, GroupId=item["id"])

    def _remove_route_table(self, item: Resource) -> None:
        for association in item["facts"]["associations"].values():
            self._call("ec2", "disassociate_route_table", item, AssociationId=association)
        self._call("ec2", "delete_route_table", item, RouteTableId=item["id"])

    def _remove_subnet(self, item: Resource) -> None:
        self._call("ec2", "delete_subnet", item, SubnetId=item["id"])

    def _remove_internet_gateway(self, item: Resource) -> None:
        vpc = item["facts"].get("attached_to")
        if vpc:
            self._call(
                "ec2", "detach_internet_gateway", item, InternetGatewayId=item["id"], VpcId=vpc
            )
        self._call("ec2", "delete_internet_gateway", item, InternetGatewayId=item["id"])

    def _remove_vpc(self, item: Resource) -> None:
        self._call("ec2", "delete_vpc", item, VpcId=item["id"])

    def _remove_volume(self, item: Resource) -> None:
        self._call("ec2", "delete_volume", item, VolumeId=item["id"])

    def _remove_secret(self, item: Resource) -> None:
        self._call(
            "secretsmanager",
            "delete_secret",
            item,
            SecretId=item["id"],
            ForceDeleteWithoutRecovery=True,
        )

    def _remove_parameter(self, item: Resource) -> None:
        self._call("ssm", "delete_parameter", item, Name=item["name"])
