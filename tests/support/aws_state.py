"""All that stands in an account, read by the API, to compare before with after."""

from __future__ import annotations

from typing import Any

from tests.support.lab import TestLab


def snapshot(lab: TestLab) -> dict[str, Any]:
    """What an operator could see of an environment, service by service."""
    ec2, route53, s3, iam = (lab.client(name) for name in ("ec2", "route53", "s3", "iam"))
    zones = route53.list_hosted_zones()["HostedZones"]
    return {
        "vpcs": ec2.describe_vpcs()["Vpcs"],
        "subnets": ec2.describe_subnets()["Subnets"],
        "internet_gateways": ec2.describe_internet_gateways()["InternetGateways"],
        "route_tables": ec2.describe_route_tables()["RouteTables"],
        "security_groups": ec2.describe_security_groups()["SecurityGroups"],
        "key_pairs": ec2.describe_key_pairs()["KeyPairs"],
        "addresses": ec2.describe_addresses()["Addresses"],
        "instances": [
            instance
            for reservation in ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
            if instance["State"]["Name"] != "terminated"
        ],
        "volumes": ec2.describe_volumes()["Volumes"],
        "zones": zones,
        "records": [
            record
            for zone in zones
            for record in route53.list_resource_record_sets(HostedZoneId=zone["Id"])[
                "ResourceRecordSets"
            ]
        ],
        "buckets": [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]],
        "roles": [role["RoleName"] for role in iam.list_roles()["Roles"]],
        "profiles": [
            profile["InstanceProfileName"]
            for profile in iam.list_instance_profiles()["InstanceProfiles"]
        ],
        "secrets": [
            secret["Name"] for secret in lab.client("secretsmanager").list_secrets()["SecretList"]
        ],
        "parameters": [
            parameter["Name"] for parameter in lab.client("ssm").describe_parameters()["Parameters"]
        ],
        "tables": lab.client("dynamodb").list_tables()["TableNames"],
    }


def counts(state: dict[str, Any]) -> dict[str, int]:
    """How many of each: what a doubled resource would raise."""
    return {kind: len(things) for kind, things in state.items()}


def objects(lab: TestLab, bucket: str) -> set[str]:
    """The keys of all that lies in a bucket."""
    pages = lab.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"] for page in pages for item in page.get("Contents", [])}
