# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in AWS, in the words of ``environment.py``. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api, AwsFailure
from ansible_collections.ascent.scaling.plugins.module_utils.environment import (
    Resource,
    balancer_name,
    bucket_name,
    key_material,
    listener,
    managed_name,
    rule,
)

# A terminated instance is still listed for about an hour (EC2 User Guide, "Instance lifecycle").
STANDING = ["pending", "running", "stopping", "stopped"]


def tag_map(item: dict[str, Any]) -> dict[str, str]:
    """Return the tags of one of AWS's answers as a map."""
    tags = item.get("Tags") or item.get("TagSet") or []
    return {tag["Key"]: tag["Value"] for tag in tags}


def of_environment(environment: str) -> list[dict[str, Any]]:
    """Return the filter that finds what bears the environment's tag."""
    return [{"Name": "tag:ascent:environment", "Values": [environment]}]


def identity(api: Api) -> dict[str, str]:
    """Return account, ARN and partition of the credentials."""
    answer = api.call("sts", "get_caller_identity") or {}
    arn = str(answer["Arn"])
    return {"account": str(answer["Account"]), "arn": arn, "partition": arn.split(":")[1]}


def observe(
    api: Api, environment: str, account: str, zone: str, *, doubles: bool = False
) -> list[Resource]:
    """Return everything of the environment that stands. Raises AwsFailure.

    zone: the hosted zone's name. doubles: whether two resources where one belongs are returned;
    else they are an error that names both, as nobody but the user can tell which one is right.
    """
    parts = [
        lambda: network(api, environment),
        lambda: key_pairs(api, environment),
        lambda: bucket(api, bucket_name(environment, account)),
        lambda: instance_profile(api, f"ascent-{environment}-host"),
        lambda: instances(api, environment),
        lambda: elastic_ips(api, environment),
        lambda: managed_databases(api, environment),
        lambda: load_balancers(api, environment),
        lambda: certificates(api, environment),
        lambda: dns(api, environment, zone),
    ]
    for service in ("ec2", "s3", "iam", "route53", "rds", "elbv2", "acm"):
        api.client(service)  # clients are made by one thread, used by many
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        found = [item for part in pool.map(lambda read: read(), parts) for item in part]
    _name_references(found)
    if not doubles:
        _refuse_doubles(found)
    return found


def _refuse_doubles(found: list[Resource]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for item in found:
        key = (item["kind"], item["name"])
        if key in seen:
            raise AwsFailure(
                f"{item['kind']} {item['name']} exists twice: {seen[key]} and {item['id']}. "
                "Remove the tag ascent:environment from the one that is not in use, then run again"
            )
        seen[key] = item["id"]


def _name_references(found: list[Resource]) -> None:
    """Replace ids by names, where a resource speaks of another one of the environment."""
    names = {
        item["id"]: f"{item['name']}"
        for item in found
        if item["kind"] in ("vpc", "internet_gateway", "subnet", "security_group", "instance")
    }
    groups = {item["id"]: item["name"] for item in found if item["kind"] == "security_group"}

    balancers = {
        item["facts"]["dns_name"].lower(): item["name"]
        for item in found
        if item["kind"] == "load_balancer"
    }
    certificates = {item["id"]: item["name"] for item in found if item["kind"] == "certificate"}

    def named(value: Any) -> Any:
        return names.get(value, value) if isinstance(value, str) else value

    for item in found:
        attributes = item["attributes"]
        for key in ("vpc", "subnet", "instance"):
            if key in attributes:
                attributes[key] = named(attributes[key])
        for key in ("subnets", "security_groups"):
            if key in attributes:
                attributes[key] = sorted(named(value) for value in attributes[key])
        if attributes.get("certificate") in certificates:
            attributes["certificate"] = f"certificate {certificates[attributes['certificate']]}"
        if "alias" in attributes:
            name = attributes["alias"].removeprefix("dualstack.")
            if name in balancers:
                attributes["alias"] = f"load balancer {balancers[name]}"
                item["facts"] = {}
        if "routes" in attributes:
            attributes["routes"] = {k: named(v) for k, v in attributes["routes"].items()}
        for key in ("ingress", "egress"):
            if key in attributes:
                written = []
                for line in attributes[key]:
                    head, _, group = line.partition("group:")
                    written.append(f"{head}group:{groups.get(group, group)}" if group else line)
                attributes[key] = sorted(written)


def network(api: Api, environment: str) -> list[Resource]:
    """Return the VPC and what is in it; children by the VPC, so that a lost tag hides nothing."""
    found: list[Resource] = []
    vpcs = api.pages("ec2", "describe_vpcs", "Vpcs", Filters=of_environment(environment))
    for vpc in vpcs:
        vpc_id = vpc["VpcId"]
        flags = {}
        for key, attribute in (
            ("dns_support", "enableDnsSupport"),
            ("dns_hostnames", "enableDnsHostnames"),
        ):
            answer = api.call(
                "ec2", "describe_vpc_attribute", vpc_id, VpcId=vpc_id, Attribute=attribute
            )
            flags[key] = bool((answer or {})[attribute[0].upper() + attribute[1:]]["Value"])
        found.append(
            {
                "kind": "vpc",
                "name": environment,
                "id": vpc_id,
                "attributes": {"cidr": vpc["CidrBlock"], **flags, "tags": tag_map(vpc)},
            }
        )
        found += vpc_children(api, environment, vpc_id)
    found += gateways(api, environment, [vpc["VpcId"] for vpc in vpcs])
    return found


def environment_network(api: Api, environment: str) -> list[Resource]:
    """Return the network alone, its references by name, without doubles. Raises AwsFailure."""
    found = network(api, environment)
    _name_references(found)
    _refuse_doubles(found)
    return found


def gateways(api: Api, environment: str, vpc_ids: list[str]) -> list[Resource]:
    """Return the internet gateway: by its tag, or by the VPC that it is attached to."""
    listed = api.pages("ec2", "describe_internet_gateways", "InternetGateways")
    found: list[Resource] = []
    for gateway in listed:
        attached = [item["VpcId"] for item in gateway.get("Attachments", [])]
        tags = tag_map(gateway)
        if tags.get("ascent:environment") != environment and not set(attached) & set(vpc_ids):
            continue
        found.append(
            {
                "kind": "internet_gateway",
                "name": "internet",
                "id": gateway["InternetGatewayId"],
                "attributes": {"vpc": attached[0] if attached else None, "tags": tags},
                "facts": {"attached_to": attached[0] if attached else None},
            }
        )
    return found


def vpc_children(api: Api, environment: str, vpc_id: str) -> list[Resource]:
    """Return subnets, route tables and security groups of a VPC (not AWS's own default ones)."""
    within = [{"Name": "vpc-id", "Values": [vpc_id]}]
    found: list[Resource] = []
    for subnet in api.pages("ec2", "describe_subnets", "Subnets", vpc_id, Filters=within):
        tags = tag_map(subnet)
        found.append(
            {
                "kind": "subnet",
                "name": tags.get("ascent:name", subnet["SubnetId"]),
                "id": subnet["SubnetId"],
                "attributes": {
                    "cidr": subnet["CidrBlock"],
                    "zone": subnet["AvailabilityZone"],
                    "public_addresses": bool(subnet.get("MapPublicIpOnLaunch")),
                    "tags": tags,
                },
            }
        )
    for table in api.pages("ec2", "describe_route_tables", "RouteTables", vpc_id, Filters=within):
        associations = table.get("Associations", [])
        if any(item.get("Main") for item in associations):
            continue
        tags = tag_map(table)
        routes = {
            route["DestinationCidrBlock"]: route.get("GatewayId") or route.get("NatGatewayId")
            for route in table.get("Routes", [])
            if "DestinationCidrBlock" in route and route.get("GatewayId") != "local"
        }
        found.append(
            {
                "kind": "route_table",
                "name": tags.get("ascent:name", table["RouteTableId"]),
                "id": table["RouteTableId"],
                "attributes": {
                    "routes": routes,
                    "subnets": [item["SubnetId"] for item in associations if "SubnetId" in item],
                    "tags": tags,
                },
                "facts": {
                    "associations": {
                        item["SubnetId"]: item["RouteTableAssociationId"]
                        for item in associations
                        if "SubnetId" in item
                    }
                },
            }
        )
    listed = api.pages("ec2", "describe_security_groups", "SecurityGroups", vpc_id, Filters=within)
    for group in listed:
        if group["GroupName"] == "default":
            continue
        found.append(
            {
                "kind": "security_group",
                "name": group["GroupName"].removeprefix(f"{environment}-"),
                "id": group["GroupId"],
                "attributes": {
                    "ingress": permissions(group.get("IpPermissions", [])),
                    "egress": permissions(group.get("IpPermissionsEgress", [])),
                    "tags": tag_map(group),
                },
            }
        )
    return found


def permissions(listed: list[dict[str, Any]]) -> list[str]:
    """Return a security group's permissions in their written form, a source each."""
    written = set()
    for item in listed:
        protocol = "all" if item["IpProtocol"] == "-1" else item["IpProtocol"]
        first, last = item.get("FromPort", -1), item.get("ToPort", -1)
        ports = "all" if protocol == "all" else str(first) if first == last else f"{first}-{last}"
        sources = [entry["CidrIp"] for entry in item.get("IpRanges", [])]
        sources += [entry["CidrIpv6"] for entry in item.get("Ipv6Ranges", [])]
        sources += [entry["PrefixListId"] for entry in item.get("PrefixListIds", [])]
        sources += [f"group:{entry['GroupId']}" for entry in item.get("UserIdGroupPairs", [])]
        written |= {rule(protocol, ports, source) for source in sources}
    return sorted(written)


def key_pairs(api: Api, environment: str) -> list[Resource]:
    """Return the operator's key pair."""
    name = f"{environment}-operator"
    answer = api.call(
        "ec2",
        "describe_key_pairs",
        name,
        missing=("InvalidKeyPair.NotFound",),
        KeyNames=[name],
        IncludePublicKey=True,
    )
    return [
        {
            "kind": "key_pair",
            "name": "operator",
            "id": pair["KeyPairId"],
            "attributes": {
                "public_key": key_material(pair.get("PublicKey", "")),
                "tags": tag_map(pair),
            },
            "facts": {"key_name": pair["KeyName"]},
        }
        for pair in (answer or {}).get("KeyPairs", [])
    ]


def managed_databases(api: Api, environment: str) -> list[Resource]:
    """Return RDS's instances of the environment, their subnet groups and parameter groups.

    A tag cannot be asked for: the names tell what to look at (`environment.managed_name`), and the
    tags whose it is, as the name of another environment may begin with this one's.
    """
    found: list[Resource] = []

    def listed(operation: str, kind: str, name_of: str) -> Iterator[tuple[dict[str, Any], str]]:
        for item in api.pages("rds", operation, f"{kind}s"):
            if not item[name_of].startswith(managed_name(environment, "")):
                continue
            tags = rds_tags(api, item, kind, item[name_of])
            if of_ours(item[name_of], tags, environment):
                item["TagList"] = tags
                yield item, item[name_of]

    def add(
        kind: str, item: dict[str, Any], name: str, attributes: dict[str, Any], **facts: Any
    ) -> None:
        found.append(
            {
                "kind": kind,
                "name": name.removeprefix(managed_name(environment, "")),
                "id": name,
                "attributes": {**attributes, "tags": tag_map({"Tags": item["TagList"]})},
                "facts": facts,
            }
        )

    groups = listed("describe_db_subnet_groups", "DBSubnetGroup", "DBSubnetGroupName")
    for item, name in groups:
        subnets = [subnet["SubnetIdentifier"] for subnet in item["Subnets"]]
        add("db_subnet_group", item, name, {"subnets": subnets})
    groups = listed("describe_db_parameter_groups", "DBParameterGroup", "DBParameterGroupName")
    for item, name in groups:
        family = item["DBParameterGroupFamily"]
        parameters = {
            entry["ParameterName"]: str(entry["ParameterValue"])
            for entry in api.pages(
                "rds", "describe_db_parameters", "Parameters", name, DBParameterGroupName=name
            )
            if "ParameterValue" in entry
        }
        add("db_parameter_group", item, name, {"family": family, "parameters": parameters})
    for item, name in listed("describe_db_instances", "DBInstance", "DBInstanceIdentifier"):
        endpoint = item.get("Endpoint") or {}
        in_use = item.get("DBParameterGroups", [])
        add(
            "db_instance",
            item,
            name,
            db_instance(item),
            host=endpoint.get("Address", ""),
            port=endpoint.get("Port", 0),
            status=item["DBInstanceStatus"],
            full_version=item["EngineVersion"],
            parameters_apply=[group["ParameterApplyStatus"] for group in in_use],
            parameter_groups=[group["DBParameterGroupName"] for group in in_use],
            protected=bool(item.get("DeletionProtection")),
        )
    return found


def rds_tags(api: Api, item: dict[str, Any], kind: str, name: str) -> list[dict[str, str]]:
    """Return the tags of one of RDS's answers; groups do not bear them there."""
    if "TagList" in item:
        return list(item["TagList"])
    answer = api.call("rds", "list_tags_for_resource", name, ResourceName=item[f"{kind}Arn"])
    return list((answer or {}).get("TagList", []))


def of_ours(name: str, tags: list[dict[str, str]], environment: str) -> bool:
    """Say whether something of RDS is this environment's, also after it has lost the tag.

    `ascent-shop-eu-managed` may be the database `managed` of `shop-eu`: without a tag only what
    can be nobody else's is.
    """
    tagged = tag_map({"Tags": tags}).get("ascent:environment")
    rest = name.removeprefix(managed_name(environment, ""))
    return tagged == environment or (tagged is None and "-" not in rest)


def load_balancers(api: Api, environment: str) -> list[Resource]:
    """Return the Application Load Balancers of the environment and their target groups.

    The names tell what to look at, and the tags whose it is (`environment.balancer_name`).
    """
    balancers = {
        item["LoadBalancerArn"]: item
        for item in api.pages("elbv2", "describe_load_balancers", "LoadBalancers")
        if item["LoadBalancerName"].startswith(balancer_name(environment, ""))
    }
    groups = {
        item["TargetGroupArn"]: item
        for item in api.pages("elbv2", "describe_target_groups", "TargetGroups")
        if item["TargetGroupName"].startswith(balancer_name(environment, ""))
    }
    tags = elb_tags(api, [*balancers, *groups])
    mine = {
        arn: found for arn, found in tags.items() if found.get("ascent:environment") == environment
    }
    names = {
        arn: mine[arn].get("ascent:name", groups[arn]["TargetGroupName"])
        for arn in groups
        if arn in mine
    }
    found: list[Resource] = []
    for arn, name in names.items():
        attributes = target_group(groups[arn], elb_attributes(api, "target_group", arn))
        found.append(
            {
                "kind": "target_group",
                "name": name,
                "id": arn,
                "attributes": {**attributes, "tags": mine[arn]},
                "facts": {"aws_name": groups[arn]["TargetGroupName"]},
            }
        )
    for arn, item in balancers.items():
        if arn not in mine:
            continue
        listeners = api.pages(
            "elbv2",
            "describe_listeners",
            "Listeners",
            item["LoadBalancerName"],
            LoadBalancerArn=arn,
        )
        more = elb_attributes(api, "load_balancer", arn)
        presented = [
            certificate["CertificateArn"]
            for entry in listeners
            for certificate in entry.get("Certificates", [])
        ]
        found.append(
            {
                "kind": "load_balancer",
                "name": mine[arn].get("ascent:name", item["LoadBalancerName"]),
                "id": arn,
                "attributes": {
                    "scheme": item["Scheme"],
                    "subnets": [zone["SubnetId"] for zone in item["AvailabilityZones"]],
                    "security_groups": list(item.get("SecurityGroups", [])),
                    "listeners": sorted(
                        (written_listener(entry, names) for entry in listeners),
                        key=lambda line: int(line.split(" ")[0]),
                    ),
                    "certificate": presented[0] if presented else None,
                    "idle_timeout": int(more.get("idle_timeout.timeout_seconds", 60)),
                    "drop_invalid_headers": more.get(
                        "routing.http.drop_invalid_header_fields.enabled"
                    )
                    == "true",
                    "deletion_protection": more.get("deletion_protection.enabled") == "true",
                    "tags": mine[arn],
                },
                "facts": {
                    "aws_name": item["LoadBalancerName"],
                    "dns_name": item["DNSName"],
                    "zone_id": item["CanonicalHostedZoneId"],
                    "state": item["State"]["Code"],
                    "zones": sorted(zone["ZoneName"] for zone in item["AvailabilityZones"]),
                },
            }
        )
    return found


def elb_tags(api: Api, arns: list[str]) -> dict[str, dict[str, str]]:
    """Return the tags of load balancers and target groups; AWS tells those of 20 at a time."""
    found: dict[str, dict[str, str]] = {}
    for start in range(0, len(arns), 20):
        answer = api.call(
            "elbv2", "describe_tags", "load balancers", ResourceArns=arns[start : start + 20]
        )
        for item in (answer or {}).get("TagDescriptions", []):
            found[item["ResourceArn"]] = tag_map(item)
    return found


def elb_attributes(api: Api, kind: str, arn: str) -> dict[str, str]:
    """Return the attributes of a load balancer or target group (kind, in AWS's words)."""
    key = "LoadBalancerArn" if kind == "load_balancer" else "TargetGroupArn"
    answer = api.call("elbv2", f"describe_{kind}_attributes", arn, **{key: arn})
    return {item["Key"]: item["Value"] for item in (answer or {}).get("Attributes", [])}


def target_group(item: dict[str, Any], more: dict[str, str]) -> dict[str, Any]:
    """Return a target group in the words of a description."""
    return {
        "vpc": item.get("VpcId"),
        "target_type": item["TargetType"],
        "protocol": item.get("Protocol"),
        "port": item.get("Port"),
        "health": {
            "path": item.get("HealthCheckPath"),
            "interval": item.get("HealthCheckIntervalSeconds"),
            "timeout": item.get("HealthCheckTimeoutSeconds"),
            "healthy": item.get("HealthyThresholdCount"),
            "unhealthy": item.get("UnhealthyThresholdCount"),
            "matcher": item.get("Matcher", {}).get("HttpCode"),
        },
        "deregistration_delay": int(more.get("deregistration_delay.timeout_seconds", 300)),
    }


def written_listener(item: dict[str, Any], groups: dict[str, str]) -> str:
    """Return a listener's written form. groups: ARN -> name of the environment's target groups."""
    (*_, action) = item["DefaultActions"]
    if action["Type"] == "forward":
        several = action.get("ForwardConfig", {}).get("TargetGroups", [])
        arns = [group["TargetGroupArn"] for group in several] or [action["TargetGroupArn"]]
        leads = "forward " + ",".join(groups.get(arn, arn) for arn in arns)
    elif action["Type"] == "redirect":
        config = action["RedirectConfig"]
        leads = f"redirect {config.get('Protocol')}:{config.get('Port')}"
    else:
        leads = str(action["Type"])
    policy = item.get("SslPolicy") if item["Protocol"] in ("HTTPS", "TLS") else None
    return listener(item["Port"], item["Protocol"], leads, policy or "")


def certificates(api: Api, environment: str) -> list[Resource]:
    """Return the certificates that were brought to ACM for the environment."""
    found: list[Resource] = []
    for item in api.pages("acm", "list_certificates", "CertificateSummaryList"):
        arn = item["CertificateArn"]
        answer = api.call(
            "acm",
            "list_tags_for_certificate",
            arn,
            missing=("ResourceNotFoundException",),
            CertificateArn=arn,
        )
        tags = tag_map(answer or {})
        if tags.get("ascent:environment") != environment:
            continue
        shown = api.call("acm", "describe_certificate", arn, CertificateArn=arn) or {}
        certificate = shown.get("Certificate", {})
        names = {certificate.get("DomainName"), *certificate.get("SubjectAlternativeNames", [])}
        found.append(
            {
                "kind": "certificate",
                "name": tags.get("ascent:name", arn),
                "id": arn,
                "attributes": {"names": sorted(name for name in names if name), "tags": tags},
                "facts": {
                    "serial": certificate.get("Serial", ""),
                    "expires": str(certificate.get("NotAfter", "")),
                },
            }
        )
    return found


def db_instance(item: dict[str, Any]) -> dict[str, Any]:
    """Return a managed database as a description says it: what is pending counts as there."""
    pending = item.get("PendingModifiedValues") or {}
    return {
        "engine": item["Engine"],
        "version": str(pending.get("EngineVersion", item["EngineVersion"])).split(".")[0],
        "size": pending.get("DBInstanceClass", item["DBInstanceClass"]),
        "storage_gib": int(pending.get("AllocatedStorage", item["AllocatedStorage"])),
        "encrypted": bool(item.get("StorageEncrypted")),
        "public": bool(item.get("PubliclyAccessible")),
        "multi_az": bool(pending.get("MultiAZ", item.get("MultiAZ"))),
        "security_groups": [
            group["VpcSecurityGroupId"] for group in item.get("VpcSecurityGroups", [])
        ],
        "backup_days": int(
            pending.get("BackupRetentionPeriod", item.get("BackupRetentionPeriod", 0))
        ),
        "backup_window": item.get("PreferredBackupWindow", ""),
        "maintenance_window": item.get("PreferredMaintenanceWindow", "").lower(),
        "deletion_protection": bool(item.get("DeletionProtection")),
        "performance_insights": bool(item.get("PerformanceInsightsEnabled")),
        "log_exports": sorted(item.get("EnabledCloudwatchLogsExports") or []),
    }


def root_volumes(api: Api, hosts: list[dict[str, Any]]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return (volume id, disk as `environment.disk_of` says it) of each host, by instance id."""
    roots: dict[str, str] = {}
    for host in hosts:
        for device in host.get("BlockDeviceMappings", []):
            if device["DeviceName"] == host.get("RootDeviceName") and "Ebs" in device:
                roots[device["Ebs"]["VolumeId"]] = host["InstanceId"]
    if not roots:
        return {}
    ids = [{"Name": "volume-id", "Values": sorted(roots)}]
    return {
        roots[volume["VolumeId"]]: (
            volume["VolumeId"],
            {
                "gib": volume["Size"],
                "type": volume["VolumeType"],
                # A gp3 volume always states both; where they are missing, it is the baseline.
                "iops": volume.get("Iops") or 3000,
                "throughput": volume.get("Throughput") or 125,
            },
        )
        for volume in api.pages("ec2", "describe_volumes", "Volumes", Filters=ids)
    }


def instances(api: Api, environment: str) -> list[Resource]:
    """Return the hosts that are there; one that was terminated is not."""
    reservations = api.pages(
        "ec2",
        "describe_instances",
        "Reservations",
        Filters=[
            *of_environment(environment),
            {"Name": "instance-state-name", "Values": STANDING},
        ],
    )
    hosts = [host for group in reservations for host in group["Instances"]]
    disks = root_volumes(api, hosts)
    found: list[Resource] = []
    for item in hosts:
        tags = tag_map(item)
        profile = item.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2]
        required = item.get("MetadataOptions", {}).get("HttpTokens") == "required"
        state = item["State"]["Name"]
        found.append(
            {
                "kind": "instance",
                "name": tags.get("ascent:name", item["InstanceId"]),
                "id": item["InstanceId"],
                "attributes": {
                    "size": item["InstanceType"],
                    "subnet": item.get("SubnetId"),
                    "security_groups": [group["GroupId"] for group in item["SecurityGroups"]],
                    "profile": profile or None,
                    "metadata": "IMDSv2 required" if required else "IMDSv1 allowed",
                    "state": "running" if state == "pending" else state,
                    "disk": disks.get(item["InstanceId"], ("", None))[1],
                    "tags": tags,
                },
                "facts": {
                    "volume": disks.get(item["InstanceId"], ("", None))[0],
                    "private_address": item.get("PrivateIpAddress"),
                    "public_address": item.get("PublicIpAddress"),
                    "image": item.get("ImageId"),
                    "zone": item.get("Placement", {}).get("AvailabilityZone"),
                    "launched": str(item.get("LaunchTime", "")),
                    "state": state,
                },
            }
        )
    return found


def elastic_ips(api: Api, environment: str) -> list[Resource]:
    """Return the fixed addresses of the environment, associated or not."""
    listed = api.pages(
        "ec2", "describe_addresses", "Addresses", Filters=of_environment(environment)
    )
    return [
        {
            "kind": "elastic_ip",
            "name": tag_map(item).get("ascent:name", item["AllocationId"]),
            "id": item["AllocationId"],
            "attributes": {"instance": item.get("InstanceId") or None, "tags": tag_map(item)},
            "facts": {
                "address": item["PublicIp"],
                "association": item.get("AssociationId"),
            },
        }
        for item in listed
    ]


def bucket(api: Api, name: str) -> list[Resource]:
    """Return the backup bucket with what protects it."""
    gone = ("404", "NoSuchBucket")
    if api.call("s3", "head_bucket", name, missing=gone, Bucket=name) is None:
        return []

    def read(operation: str, *missing: str) -> dict[str, Any]:
        return api.call("s3", operation, name, missing=missing, Bucket=name) or {}

    encryption = read("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError")
    rules = encryption.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    block = read("get_public_access_block", "NoSuchPublicAccessBlockConfiguration").get(
        "PublicAccessBlockConfiguration", {}
    )
    policy = read("get_bucket_policy", "NoSuchBucketPolicy").get("Policy")
    tags = tag_map(read("get_bucket_tagging", "NoSuchTagSet"))
    keep: dict[str, Any] = {
        "expire_days": None,
        "expire_lone_delete_markers": False,
        "keep_old_versions_days": None,
    }
    lifecycle = read("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration")
    for item in lifecycle.get("Rules", []):
        if item.get("ID") == "ascent-backups" and item.get("Status") == "Enabled":
            expiration = item.get("Expiration", {})
            keep["expire_days"] = expiration.get("Days")
            keep["expire_lone_delete_markers"] = expiration.get("ExpiredObjectDeleteMarker", False)
            keep["keep_old_versions_days"] = item.get("NoncurrentVersionExpiration", {}).get(
                "NoncurrentDays"
            )
    return [
        {
            "kind": "bucket",
            "name": name,
            "id": name,
            "attributes": {
                "encryption": rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
                if rules
                else None,
                "versioning": read("get_bucket_versioning").get("Status"),
                "public_access": "blocked"
                if len(block) == 4 and all(block.values())
                else "not blocked",
                "policy": json.loads(policy) if policy else None,
                **keep,
                "tags": tags,
            },
        }
    ]


def instance_profile(api: Api, name: str) -> list[Resource]:
    """Return the hosts' role with its profile; None stands for what is missing of the two."""
    role = api.call("iam", "get_role", name, missing=("NoSuchEntity",), RoleName=name)
    if role is None:
        return []
    policy = api.call(
        "iam",
        "get_role_policy",
        name,
        missing=("NoSuchEntity",),
        RoleName=name,
        PolicyName="ascent-host",
    )
    profile = api.call(
        "iam",
        "get_instance_profile",
        name,
        missing=("NoSuchEntity",),
        InstanceProfileName=name,
    )
    roles = [
        item["RoleName"] for item in (profile or {}).get("InstanceProfile", {}).get("Roles", [])
    ]
    return [
        {
            "kind": "instance_profile",
            "name": name,
            "id": role["Role"]["Arn"],
            "attributes": {
                "trust": role["Role"]["AssumeRolePolicyDocument"],
                "policy": (policy or {}).get("PolicyDocument") if roles == [name] else None,
                "tags": tag_map(role["Role"]),
            },
            "facts": {"profile": (profile or {}).get("InstanceProfile", {}).get("Arn")},
        }
    ]


def dns(api: Api, environment: str, zone: str) -> list[Resource]:
    """Return the public hosted zone of that name and its A records.

    A zone without our tag is the user's own: it is used, never tagged, changed or removed.
    """
    wanted = zone.rstrip(".").lower()
    listed = api.pages("route53", "list_hosted_zones", "HostedZones")
    found: list[Resource] = []
    for item in listed:
        if item["Name"].rstrip(".") != wanted or item.get("Config", {}).get("PrivateZone"):
            continue
        zone_id = item["Id"].rpartition("/")[2]
        answer = api.call(
            "route53",
            "list_tags_for_resource",
            wanted,
            ResourceType="hostedzone",
            ResourceId=zone_id,
        )
        tags = tag_map((answer or {}).get("ResourceTagSet", {}))
        details = api.call("route53", "get_hosted_zone", wanted, Id=zone_id) or {}
        others: dict[str, str] = {}
        found.append(
            {
                "kind": "dns_zone",
                "name": wanted,
                "id": zone_id,
                "attributes": {"tags": tags},
                "facts": {
                    "foreign": tags.get("ascent:environment") != environment,
                    "name_servers": sorted(details.get("DelegationSet", {}).get("NameServers", [])),
                    "others": others,
                },
            }
        )
        for record in api.pages(
            "route53",
            "list_resource_record_sets",
            "ResourceRecordSets",
            wanted,
            HostedZoneId=zone_id,
        ):
            name = record["Name"].rstrip(".")
            alias = record.get("AliasTarget", {}).get("DNSName", "").rstrip(".").lower()
            if record["Type"] in ("AAAA", "CNAME"):
                target = alias or ", ".join(
                    value["Value"].rstrip(".") for value in record.get("ResourceRecords", [])
                )
                others[name] = f"{record['Type']} {target}"
            if record["Type"] == "A" and alias:
                found.append(
                    {
                        "kind": "dns_record",
                        "name": f"{name} A",
                        "id": f"{zone_id} {name}",
                        "attributes": {"alias": alias},
                        "facts": {"target": alias},
                    }
                )
            if record["Type"] == "A" and "ResourceRecords" in record:
                found.append(
                    {
                        "kind": "dns_record",
                        "name": f"{name} A",
                        "id": f"{zone_id} {name}",
                        "attributes": {
                            "ttl": record.get("TTL"),
                            "values": sorted(r["Value"] for r in record["ResourceRecords"]),
                        },
                    }
                )
    return found
