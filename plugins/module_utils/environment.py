# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What shall stand, compared with what stands (pure: no AWS, no Ansible).

A description (one dict, made of a stage's data and a user's settings) becomes a list of desired
resources; AWS's answers become a list of observed ones, in the same words; their difference is
the plan. Resources refer to each other by name, never by id, so that the plan of an empty
account can be made, and read.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, TypedDict

# The order in which resources are made; they are removed in the opposite one.
KINDS = (
    "vpc",
    "internet_gateway",
    "subnet",
    "route_table",
    "security_group",
    "key_pair",
    "bucket",
    "instance_profile",
    "db_subnet_group",
    "db_parameter_group",
    "db_instance",
    "instance",
    "elastic_ip",
    "certificate",
    "target_group",
    "load_balancer",
    "dns_zone",
    "dns_record",
)
# Which role of the collection mends which kind.
ROLES = {
    "vpc": "network",
    "internet_gateway": "network",
    "subnet": "network",
    "route_table": "network",
    "security_group": "network",
    "key_pair": "instances",
    "bucket": "backup_bucket",
    "instance_profile": "instance_profile",
    "db_subnet_group": "managed_database",
    "db_parameter_group": "managed_database",
    "db_instance": "managed_database",
    "instance": "instances",
    "elastic_ip": "instances",
    "certificate": "load_balancer",
    "target_group": "load_balancer",
    "load_balancer": "load_balancer",
    "dns_zone": "dns",
    "dns_record": "dns",
}
# Seconds that a resolver may keep a name's address: a change of stage shall be seen soon.
NAME_TTL = 60
# TLS 1.2 and 1.3 (Application Load Balancer's guide, "Security policies").
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
# A name goes into DNS labels, IAM and bucket names: RFC 1035 letters, and short enough for
# `ascent-<name>-backup-<account>` to stay below S3's 63 characters.
ENVIRONMENT_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){0,19}[a-z0-9]")
DOMAIN_NAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]+")
FUNCTION_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
# A tag, a name in the inventory, and a part of what RDS calls an instance.
HOST_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){0,29}[a-z0-9]")
# Hosts of the stages and of operations, and words of Ansible.
TAKEN_HOSTS = frozenset({"all", "box", "localhost", "restored", "ungrouped"})
APPLICATION_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){0,29}[a-z0-9]")
# An application has a user and units of its name: these belong to others on the same host.
# fmt: off
TAKEN_APPLICATIONS = frozenset(
    {
        "admin", "adm", "backup", "bin", "daemon", "debian", "games", "irc", "list", "lp", "mail",
        "man", "memcache", "memcached", "messagebus", "news", "nginx", "nobody", "pgbouncer",
        "postgres", "postgresql", "proxy", "redis", "redis-server", "root", "ssh", "sshd", "sudo",
        "sync", "sys", "systemd-network", "systemd-timesync", "uucp", "valkey", "valkey-server",
        "worker", "www-data",
    }
)
# fmt: on
TAKEN_DATABASES = frozenset({"postgres", "template0", "template1", "pgbouncer"})
TAKEN_ROLES = frozenset({"postgres", "pgbouncer", "public", "none", "current_user", "session_user"})
# The common name of a certificate has at most 64 characters (RFC 5280, ub-common-name).
COMMON_NAME = 64


class Resource(TypedDict, total=False):
    """A resource, desired or observed."""

    kind: str
    name: str
    attributes: dict[str, Any]
    id: str  # observed ones only: what AWS calls it
    facts: dict[str, Any]  # observed ones only: what others need of it, never compared


class Change(TypedDict):
    """One line of a plan."""

    action: str  # create | change
    kind: str
    name: str
    role: str
    before: dict[str, Any]
    after: dict[str, Any]


class Plan(TypedDict):
    """What is to be done (changes), and what only a person can decide (notices)."""

    changes: list[Change]
    notices: list[str]


class DescriptionError(ValueError):
    """The description contradicts itself; the text says where."""


def subnet_cidrs(vpc_cidr: str, zones: list[str], kinds: list[str]) -> dict[tuple[str, str], str]:
    """Return the address range of every (kind, zone).

    A /16 gives sixteen /20: eight for the first kind (public), eight for the second (private),
    so that a zone that is added later moves no other.
    """
    network = ipaddress.ip_network(vpc_cidr)
    if network.version != 4 or not 16 <= network.prefixlen <= 24:
        raise DescriptionError(
            f"vpc_cidr {vpc_cidr}: AWS wants an IPv4 range between /16 and /24 here "
            "(sixteen subnets must fit, none smaller than /28)"
        )
    if len(zones) > 8 or len(kinds) > 2:
        raise DescriptionError("at most eight zones and two kinds of subnets fit")
    parts = list(network.subnets(prefixlen_diff=4))
    return {
        (kind, zone): str(parts[8 * row + column])
        for row, kind in enumerate(kinds)
        for column, zone in enumerate(zones)
    }


def rule(protocol: str, ports: str, source: str) -> str:
    """Return the one written form of a packet rule, such as `tcp 443 0.0.0.0/0`.

    source: a range, or `group:<name>` for the members of a security group.
    """
    return f"{protocol} {ports} {source}"


def description_rules(rules: list[dict[str, Any]]) -> list[str]:
    """Return the written forms of a description's rules, sorted, none twice."""
    written = {
        rule(
            str(item.get("protocol", "tcp")),
            "all" if item.get("protocol") == "all" else str(item["port"]),
            source,
        )
        for item in rules
        for source in item["sources"]
    }
    return sorted(written)


def parse_rule(written: str) -> tuple[str, int, int, str]:
    """Return (protocol, first port, last port, source) of a rule's written form."""
    protocol, ports, source = written.split(" ")
    if ports == "all":
        return protocol, -1, -1, source
    first, _, last = ports.partition("-")
    return protocol, int(first), int(last or first), source


def tags_for(description: dict[str, Any], name: str, **more: str) -> dict[str, str]:
    """Return the tags that a resource of this environment bears."""
    environment = str(description["environment"])
    return {
        "Name": environment if name == environment else f"{environment}-{name}",
        "ascent:environment": environment,
        "ascent:stage": str(description["stage"]),
        "ascent:name": name,
        **{f"ascent:{key}": value for key, value in more.items()},
    }


def bucket_name(environment: str, account: str) -> str:
    """Return the name of the backup bucket: unique on earth by the account's number."""
    return f"ascent-{environment}-backup-{account}"


def host_policy(
    description: dict[str, Any], partition: str, account: str, region: str
) -> dict[str, Any]:
    """Return what a host may do: write and read backups, read its environment's settings."""
    environment = description["environment"]
    bucket = f"arn:{partition}:s3:::{bucket_name(environment, account)}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "WriteAndReadBackups",
                "Effect": "Allow",
                # To delete leaves the old version, which only the bucket's lifecycle removes.
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:PutObject",
                ],
                "Resource": f"{bucket}/{environment}/*",
            },
            {
                "Sid": "ListBackups",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": bucket,
                "Condition": {"StringLike": {"s3:prefix": [f"{environment}/*"]}},
            },
            {
                "Sid": "ReadOwnParameters",
                "Effect": "Allow",
                "Action": ["ssm:GetParameter", "ssm:GetParametersByPath"],
                "Resource": f"arn:{partition}:ssm:{region}:{account}:parameter"
                f"/ascent/{environment}/*",
            },
        ],
    }


def trust_policy(partition: str) -> dict[str, Any]:
    """Return who may take a host's role: EC2, for its instances."""
    service = "ec2.amazonaws.com.cn" if partition == "aws-cn" else "ec2.amazonaws.com"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "sts:AssumeRole",
            }
        ],
    }


def bucket_policy(environment: str, partition: str, account: str) -> dict[str, Any]:
    """Return the backup bucket's policy: nothing without TLS."""
    arn = f"arn:{partition}:s3:::{bucket_name(environment, account)}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "RefuseWithoutTLS",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def disk_of(wish: Any) -> dict[str, Any]:
    """Return a root volume with all that can be said of one: gib, type, iops, throughput (MiB/s).

    wish: GiB, or a map of these; what it leaves out is a gp3 volume's baseline (Amazon EBS User
    Guide, "General Purpose SSD volumes"). Raises DescriptionError.
    """
    given = wish if isinstance(wish, dict) else {"gib": wish}
    known = {"gib": None, "type": "gp3", "iops": 3000, "throughput": 125}
    odd = sorted(set(given) - set(known))
    if odd or "gib" not in given:
        raise DescriptionError(f"a disk is GiB, or a map of {', '.join(known)}, not {wish}")
    disk = {**known, **given}
    if disk["type"] != "gp3":
        raise DescriptionError(f"a disk's type is gp3, not {disk['type']}")
    try:
        disk = {key: value if key == "type" else int(value) for key, value in disk.items()}
    except (TypeError, ValueError):
        raise DescriptionError(
            f"a disk is GiB, or a map of {', '.join(known)}, not {wish}"
        ) from None
    # Limits of gp3 (same guide): per volume, IOPS per GiB, and throughput per IOPS.
    for key, least, most in (
        ("gib", 8, 65536),
        ("iops", 3000, min(80000, max(3000, 500 * disk["gib"]))),
        ("throughput", 125, min(2000, max(125, disk["iops"] // 4))),
    ):
        if not least <= disk[key] <= most:
            raise DescriptionError(
                f"a disk of {disk['gib']} GiB has {key} {least} to {most}, not {disk[key]}"
            )
    return disk


def managed_name(environment: str, name: str) -> str:
    """Return what RDS calls a database of the environment, and the groups that belong to it."""
    return f"ascent-{environment}-{name}"


def managed_database(
    wish: dict[str, Any], zones: list[str], groups: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return subnet group, parameter group and instance of a managed database, by kind.

    Windows are in UTC, as RDS writes them. Raises DescriptionError.
    """
    name = wish["name"]
    missing = [group for group in wish["security_groups"] if group not in groups]
    if missing:
        raise DescriptionError(f"database {name} names no such security group: {missing}")
    if len(zones) < 2:
        raise DescriptionError(f"database {name}: RDS wants subnets in two zones, not in {zones}")
    major = str(wish["version"]).split(".")[0]
    family = f"{wish['engine']}{major}"
    return {
        "db_subnet_group": {"subnets": sorted(f"{wish['subnets']}-{zone}" for zone in zones)},
        "db_parameter_group": {
            "family": family,
            "parameters": {key: str(value) for key, value in sorted(wish["parameters"].items())},
        },
        "db_instance": {
            "engine": wish["engine"],
            "version": major,
            "size": wish["size"],
            "storage_gib": int(wish["storage_gib"]),
            "encrypted": True,
            "public": False,
            "multi_az": bool(wish.get("multi_az", False)),
            "security_groups": sorted(wish["security_groups"]),
            "backup_days": int(wish["backup_days"]),
            "backup_window": wish["backup_window"],
            "maintenance_window": wish["maintenance_window"],
            "deletion_protection": True,
            "performance_insights": True,
            "log_exports": sorted(wish["log_exports"]),
        },
    }


def balancer_name(environment: str, name: str) -> str:
    """Return what Elastic Load Balancing calls a load balancer, and its target group.

    32 characters at most (API reference, "CreateLoadBalancer"). Raises DescriptionError.
    """
    found = f"{environment}-{name}"
    if len(found) > 32:
        raise DescriptionError(f"load balancer {name}: '{found}' has more than 32 characters")
    return found


def listener(port: int, protocol: str, action: str, policy: str = "") -> str:
    """Return the one written form of a listener, such as `443 HTTPS forward front <policy>`.

    action: `forward <target group>`, or `redirect <protocol>:<port>`.
    """
    return " ".join(word for word in (str(port), protocol, action, policy) if word)


def load_balancer(
    wish: dict[str, Any], environment: str, zones: list[str], groups: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return certificate, target group and load balancer of an Application Load Balancer, by kind.

    Times are in seconds. With TLS its nodes speak TLS to the targets, too, and plain HTTP leads
    there. Raises DescriptionError.
    """
    name = wish["name"]
    balancer_name(environment, name)
    missing = [group for group in wish["security_groups"] if group not in groups]
    if missing:
        raise DescriptionError(f"load balancer {name} names no such security group: {missing}")
    if len(zones) < 2:
        raise DescriptionError(f"load balancer {name}: AWS wants two zones, not {zones}")
    tls = bool(wish.get("tls", True))
    protocol, port = ("HTTPS", 443) if tls else ("HTTP", 80)
    given = wish.get("certificate_arn", "")
    health = {
        "path": "/", "interval": 10, "timeout": 5, "healthy": 2, "unhealthy": 2,
        "matcher": "200-299",
        **wish.get("health", {}),
    }  # fmt: skip
    forward = f"forward {name}"
    found: dict[str, dict[str, Any]] = {}
    if tls and not given:
        found["certificate"] = {"names": sorted(wish["names"])}
    found["target_group"] = {
        "vpc": environment,
        "target_type": "instance",
        "protocol": protocol,
        "port": port,
        "health": {
            key: value if key in ("path", "matcher") else int(value)
            for key, value in health.items()
        },
        "deregistration_delay": int(wish.get("deregistration_delay", 60)),
    }
    found["load_balancer"] = {
        "scheme": "internet-facing",
        "subnets": sorted(f"{wish['subnets']}-{zone}" for zone in zones),
        "security_groups": sorted(wish["security_groups"]),
        "listeners": [
            listener(80, "HTTP", "redirect HTTPS:443"),
            listener(443, "HTTPS", forward, wish.get("tls_policy", TLS_POLICY)),
        ]
        if tls
        else [listener(80, "HTTP", forward)],
        "certificate": given or (f"certificate {name}" if tls else None),
        "idle_timeout": int(wish.get("idle_timeout", 60)),
        "drop_invalid_headers": True,
        "deletion_protection": True,
    }
    return found


def key_material(public_key: str) -> str:
    """Return type and body of an OpenSSH public key, without its comment."""
    return " ".join(public_key.split()[:2])


def desired(
    description: dict[str, Any],
    account: str,
    region: str,
    partition: str = "aws",
    addresses: dict[str, str] | None = None,
) -> list[Resource]:
    """Return every resource that the description asks for, in the order of KINDS.

    addresses: host name -> public address, as far as known; a record of a host without one
    is planned as `address of <host>`.
    Raises DescriptionError.
    """
    known = addresses or {}
    environment = str(description["environment"])
    zones = list(description["zones"])
    kinds = list(description["subnets"])
    groups = description["security_groups"]
    resources: list[Resource] = []

    def add(kind: str, name: str, attributes: dict[str, Any], **tags: str) -> None:
        if kind not in ("dns_record", "instance_profile"):
            attributes = {**attributes, "tags": tags_for(description, name, **tags)}
        resources.append({"kind": kind, "name": name, "attributes": attributes})

    add(
        "vpc",
        environment,
        {"cidr": description["vpc_cidr"], "dns_support": True, "dns_hostnames": True},
    )
    add("internet_gateway", "internet", {"vpc": environment})
    cidrs = subnet_cidrs(description["vpc_cidr"], zones, kinds)
    for (kind, zone), cidr in cidrs.items():
        add(
            "subnet",
            f"{kind}-{zone}",
            {"cidr": cidr, "zone": zone, "public_addresses": False},
        )
    for kind in kinds:
        routes = {"0.0.0.0/0": "internet"} if kind == "public" else {}
        subnets = sorted(f"{kind}-{zone}" for zone in zones)
        add("route_table", kind, {"routes": routes, "subnets": subnets})
    for name, group in sorted(groups.items()):
        for item in group.get("ingress", []):
            for source in item["sources"]:
                if source.startswith("group:") and source[6:] not in groups:
                    raise DescriptionError(
                        f"security group {name} names {source}, which the stage does not have"
                    )
        add(
            "security_group",
            name,
            {
                "ingress": description_rules(group.get("ingress", [])),
                "egress": description_rules(
                    group.get("egress", [{"protocol": "all", "sources": ["0.0.0.0/0"]}])
                ),
            },
        )
    add("key_pair", "operator", {"public_key": key_material(description.get("public_key", ""))})
    bucket = description["backup_bucket"]
    add(
        "bucket",
        bucket_name(environment, account),
        {
            "encryption": "AES256",
            "versioning": "Enabled",
            "public_access": "blocked",
            "policy": bucket_policy(environment, partition, account),
            # Nothing in use expires by age: only pgBackRest knows what a restore still needs.
            "expire_days": None,
            "expire_lone_delete_markers": True,
            "keep_old_versions_days": int(bucket["keep_old_versions_days"]),
        },
    )
    add(
        "instance_profile",
        f"ascent-{environment}-host",
        {
            "trust": trust_policy(partition),
            "policy": host_policy(description, partition, account, region),
            "tags": tags_for(description, "host"),
        },
    )
    for database in description.get("managed_databases", []):
        for kind, attributes in managed_database(database, zones, groups).items():
            add(kind, database["name"], attributes, tier="database")
    for host in description["hosts"]:
        missing = [name for name in host["security_groups"] if name not in groups]
        if missing:
            raise DescriptionError(f"host {host['name']} names no such security group: {missing}")
        if host["zone"] not in zones:
            raise DescriptionError(f"host {host['name']} stands in {host['zone']}, not in {zones}")
        add(
            "instance",
            host["name"],
            {
                "size": host["size"],
                "subnet": f"{host['subnet']}-{host['zone']}",
                "security_groups": sorted(host["security_groups"]),
                "profile": f"ascent-{environment}-host",
                "metadata": "IMDSv2 required",
                "state": "running",
                "disk": disk_of(host["disk"]),
            },
            tier="+".join(host["tiers"]),
        )
    for host in description["hosts"]:
        if host.get("elastic_ip"):
            add("elastic_ip", host["name"], {"instance": host["name"]})
    for balancer in description.get("load_balancers", []):
        wish = {"names": [name.rstrip(".").lower() for name in description["names"]], **balancer}
        for kind, attributes in load_balancer(wish, environment, zones, groups).items():
            add(kind, balancer["name"], attributes)
    zone = description["dns_zone"].rstrip(".").lower()
    add("dns_zone", zone, {})
    doors = description["front_door"]
    if isinstance(doors, str):
        if doors not in [balancer["name"] for balancer in description.get("load_balancers", [])]:
            raise DescriptionError(f"the front door is no such load balancer: {doors}")
        # An alias has the TTL of the load balancer's own name, 60 seconds.
        leads: dict[str, Any] = {"alias": f"load balancer {doors}"}
    else:
        values = sorted(known.get(host, f"address of {host}") for host in doors)
        leads = {"ttl": NAME_TTL, "values": values}
    for record in description["names"]:
        add("dns_record", f"{record.rstrip('.').lower()} A", leads)
    return resources


# What a change cannot mend in place, and what to do about it instead.
BY_HAND = {
    ("vpc", "cidr"): "a VPC's range is fixed for life: use a new environment",
    ("subnet", "cidr"): "a subnet's range is fixed for life: use a new environment",
    ("subnet", "zone"): "a subnet's zone is fixed for life: use a new environment",
    ("instance", "size"): "a new size needs a stop: playbooks/operations/resize.yml does it",
    ("instance", "disk"): "playbooks/operations/resize.yml changes it, without a stop",
    ("instance", "subnet"): "a host cannot move to another subnet: replace it",
    ("db_instance", "engine"): "an engine is fixed for life: move the data to another database",
    ("db_instance", "version"): "playbooks/operations/upgrade_database.yml moves it to another one",
    ("db_instance", "size"): "a new size needs a restart: change it in a maintenance window",
    ("db_instance", "encrypted"): "encryption is fixed for life: move the data to another database",
    ("db_parameter_group", "family"): "a family is fixed for life: it goes with the version",
    ("target_group", "vpc"): "a target group's VPC is fixed for life: use a new environment",
    ("target_group", "target_type"): "a target group's type is fixed for life: replace it",
    ("target_group", "protocol"): "a target group's protocol is fixed for life: replace it",
    ("target_group", "port"): "a target group's port is fixed for life: replace it",
    ("load_balancer", "scheme"): "a load balancer's scheme is fixed for life: replace it",
    ("instance", "profile"): "another profile was attached by hand: replace it in the console",
}


# How a host goes that no stage needs any more.
RETIRE = (
    ". Once it bears nothing, playbooks/operations/retire_host.yml -e ascent_host={} takes it away"
)


def compare(wanted: list[Resource], found: list[Resource]) -> Plan:
    """Return what turns `found` into `wanted`.

    Attributes that only `found` has are left alone (tags of the user's, too). Found resources
    that nobody wants are named in a notice, never removed: a stage retires on request only.
    """
    by_key = {(item["kind"], item["name"]): item for item in found}
    changes: list[Change] = []
    notices: list[str] = []
    for item in wanted:
        kind, name = item["kind"], item["name"]
        seen = by_key.pop((kind, name), None)
        if seen is None:
            changes.append(_change("create", kind, name, {}, item["attributes"]))
            continue
        before, after = differences(item["attributes"], seen["attributes"])
        if seen.get("facts", {}).get("foreign"):
            before, after = {}, {}
        for attribute in [key for key in after if (kind, key) in BY_HAND]:
            notices.append(
                f"{kind} {name}: {attribute} is {before.pop(attribute)}, wanted is "
                f"{after.pop(attribute)}; {BY_HAND[kind, attribute]}"
            )
        if after:
            changes.append(_change("change", kind, name, before, after))
    for (kind, name), seen in by_key.items():
        if kind != "dns_record":
            notices.append(
                f"{kind} {name} ({seen.get('id', '')}) belongs to the environment, but this "
                "stage does not need it; it is left alone"
                + (RETIRE.format(name) if kind in ("instance", "db_instance") else "")
            )
    return {"changes": changes, "notices": notices}


def differences(
    wanted: dict[str, Any], found: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (before, after), each with the attributes that differ, maps by their members.

    Of tags and parameters only the wanted ones count: AWS has more of them.
    """
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for key, value in wanted.items():
        seen = found.get(key)
        if key in ("tags", "parameters"):
            differing = {tag: text for tag, text in value.items() if (seen or {}).get(tag) != text}
            if differing:
                after[key] = differing
                before[key] = {tag: seen[tag] for tag in differing if seen and tag in seen}
        elif seen != value:
            before[key], after[key] = seen, value
    return before, after


def _change(
    action: str, kind: str, name: str, before: dict[str, Any], after: dict[str, Any]
) -> Change:
    return {
        "action": action,
        "kind": kind,
        "name": name,
        "role": ROLES[kind],
        "before": before,
        "after": after,
    }


def summary(change: Change) -> str:
    """Return a change as one line."""
    line = f"{change['action']} {change['kind'].replace('_', ' ')} {change['name']}"
    if change["action"] == "change":
        return f"{line} ({', '.join(sorted(change['after']))})"
    return line


def diffs(changes: list[Change]) -> list[dict[str, str]]:
    """Return changes as Ansible's diff: a header and two texts each."""
    return [
        {
            "before_header": f"{change['kind']} {change['name']}",
            "after_header": f"{change['kind']} {change['name']}",
            "before": _text(change["before"]),
            "after": _text(change["after"]),
        }
        for change in changes
    ]


def _text(attributes: dict[str, Any]) -> str:
    return json.dumps(attributes, indent=2, sort_keys=True) + "\n" if attributes else ""


def taken_names(names: list[str], found: list[Resource]) -> dict[str, str]:
    """Return the names that lead elsewhere by now, with where: a live site is not taken over.

    Leading elsewhere is an address that is none of the environment's own, or a record of another
    kind, which would win over ours (CNAME) or stand beside it (AAAA).
    """
    own = {item["facts"]["address"] for item in found if item["kind"] == "elastic_ip"}
    records: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    for item in found:
        if item["kind"] == "dns_zone":
            others |= item.get("facts", {}).get("others", {})
        elif item["kind"] == "dns_record" and "alias" not in item["attributes"]:
            records[item["name"].removesuffix(" A")] = item["attributes"]["values"]
        elif item["kind"] == "dns_record" and item.get("facts", {}).get("target"):
            # Of a load balancer of ours the reader has made its name.
            others[item["name"].removesuffix(" A")] = f"A {item['facts']['target']}"
    taken: dict[str, str] = {}
    for written in names:
        name = written.rstrip(".").lower()
        strange = sorted(set(records.get(name, [])) - own)
        if strange or name in others:
            taken[name] = others.get(name) or ", ".join(strange)
    return taken


def application_problems(application: Any) -> list[str]:
    """Return what is wrong with ascent_application, but for its source."""
    if not isinstance(application, dict):
        return []
    found: list[str] = []
    name = str(application.get("name") or "")
    if not APPLICATION_NAME.fullmatch(name):
        found.append(
            f"ascent_application.name is '{name}': use 2 to 31 characters, a-z, 0-9 and single "
            "dashes, a letter first, such as 'shop'"
        )
    elif name in TAKEN_APPLICATIONS:
        found.append(
            f"ascent_application.name '{name}' is the name of a user or service that the hosts "
            "have already; give it another one"
        )
    path = application.get("health_path", "/")
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", str(path)):
        found.append(
            f"ascent_application.health_path is '{path}': write a path such as '/health/ready'"
        )
    return found


def problems(settings: dict[str, Any]) -> list[str]:
    """Return what is wrong with an inventory's settings, a sentence each; empty when sound."""
    found: list[str] = []
    environment = str(settings.get("environment") or "")
    if not ENVIRONMENT_NAME.fullmatch(environment):
        found.append(
            f"ascent_environment is '{environment}': use 2 to 21 characters, a-z, 0-9 and single "
            "dashes, a letter first, such as 'production'"
        )
    domain = str(settings.get("domain") or "")
    if not DOMAIN_NAME.fullmatch(domain):
        found.append(f"ascent_domain is '{domain}': write a name such as 'shop.example.com'")
    if len(domain) > COMMON_NAME:
        found.append(
            f"ascent_domain has {len(domain)} characters; a certificate has room for "
            f"{COMMON_NAME}: make it shorter, and the long one an alias"
        )
    zone = str(settings.get("dns_zone") or domain)
    names = {"ascent_domain": domain}
    for alias in settings.get("domain_aliases") or []:
        if not DOMAIN_NAME.fullmatch(str(alias)):
            found.append(
                f"ascent_domain_aliases has '{alias}': write names such as www.example.com"
            )
        names[f"ascent_domain_aliases: '{alias}'"] = str(alias)
    for setting, name in names.items():
        if DOMAIN_NAME.fullmatch(name) and name != zone and not name.endswith(f".{zone}"):
            where = f"{setting} '{name}'" if setting == "ascent_domain" else setting
            found.append(
                f"{where} does not end with ascent_dns_zone '{zone}': name the zone that holds it"
            )
    found += application_problems(settings.get("application"))
    region = str(settings.get("region") or "")
    if not re.fullmatch(r"[a-z]{2}(?:-[a-z]+)+-\d", region):
        found.append(f"ascent_region is '{region}': write an AWS region such as 'us-east-1'")
    zones = settings.get("zones") or []
    if not isinstance(zones, list) or not 1 <= len(set(zones)) == len(zones) <= 8:
        found.append(f"ascent_zones is {zones}: list one to eight zones, none twice")
    try:
        subnet_cidrs(str(settings.get("vpc_cidr")), ["a"], ["public"])
    except ValueError as error:
        found.append(f"ascent_vpc_cidr: {error}")
    for setting, name in {
        "ascent_database_host": settings.get("database_host", "database"),
        "ascent_managed_database.name": settings.get("managed_name", "managed"),
    }.items():
        if not HOST_NAME.fullmatch(str(name)):
            found.append(
                f"{setting} is '{name}': use 2 to 31 characters, a-z, 0-9 and single dashes, a "
                "letter first, such as 'database-17'"
            )
        elif name in TAKEN_HOSTS:
            found.append(f"{setting} is '{name}', which is taken: give one such as 'database-17'")
    engine = settings.get("managed_engine", "postgres")
    if engine != "postgres":
        found.append(
            f"ascent_managed_database.engine is '{engine}': the stages move live data between "
            "PostgreSQL servers alone, so write postgres. The role managed_database makes an RDS "
            "instance of another engine, too; its data is yours to bring"
        )
    cidrs = settings.get("operator_cidrs") or []
    if not cidrs:
        found.append(
            "ascent_operator_cidrs is empty: list the ranges from which you reach SSH, such as "
            "['203.0.113.10/32']"
        )
    for cidr in cidrs if isinstance(cidrs, list) else []:
        try:
            if ipaddress.ip_network(cidr).prefixlen == 0:
                found.append(f"ascent_operator_cidrs has {cidr}: SSH is never open to everyone")
        except ValueError as error:
            found.append(f"ascent_operator_cidrs: {error}")
    functions = settings.get("functions")
    if not isinstance(functions, dict) or "main" not in functions:
        found.append("ascent_functions lacks 'main': {main: {database: shop, role: shop}}")
    else:
        for name, function in sorted(functions.items()):
            for key, value in {"name": name, **(function or {})}.items():
                if key in ("name", "database", "role") and not FUNCTION_NAME.fullmatch(str(value)):
                    found.append(
                        f"ascent_functions.{name}: {key} '{value}' must be a-z, 0-9, _ and at "
                        "most 31 characters, a letter first"
                    )
                taken = {"name": {"pgbouncer"}, "database": TAKEN_DATABASES, "role": TAKEN_ROLES}
                if value in taken.get(key, ()) or (key == "role" and str(value).startswith("pg_")):
                    found.append(
                        f"ascent_functions.{name}: {key} '{value}' is taken by PostgreSQL or "
                        "PgBouncer; give it another name"
                    )
            for key in ("database", "role"):
                if key not in (function or {}):
                    found.append(f"ascent_functions.{name} lacks '{key}'")
    return found
