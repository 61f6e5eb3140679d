"""What RDS for PostgreSQL accepts, and the errors with which it refuses the rest. Pure."""

from __future__ import annotations

import datetime
import functools
import hashlib
import re
import string
from dataclasses import dataclass
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.rds.exceptions import InvalidParameterValue, RDSClientError

ENGINE = "postgres"
_FAMILIES = (
    "t3 t4g m5 m5d m6g m6gd m6i m6id m7g m7gd m7i m8g r5 r5b r5d r6g r6gd r6i r6id r7g r7gd r7i r8g"
)
# Of storage types: the least that RDS gives a PostgreSQL (GiB).
STORAGE = {"gp2": 20, "gp3": 20, "io1": 100, "io2": 100, "standard": 5}
LARGEST = 65536
# Words that RDS keeps for itself.
_RESERVED_USERS = frozenset({"admin", "rdsadmin", "rdsrepladmin", "rds_superuser", "public"})
_RESERVED_DATABASES = frozenset({"rdsadmin", "template0", "template1", "db"})


@dataclass(frozen=True)
class Class:
    """An instance class. Memory in MiB."""

    memory: int
    cpus: int


def endpoint_part(account: str, region: str) -> str:
    """Return what an account's endpoints of a region have in common."""
    alphabet = string.ascii_lowercase + string.digits
    digest = hashlib.sha256(f"{account} {region}".encode()).digest()
    return "c" + "".join(alphabet[byte % len(alphabet)] for byte in digest[:11])


@functools.cache
def classes() -> dict[str, Class]:
    """Return the instance classes of PostgreSQL."""
    families = set(_FAMILIES.split())
    found = {}
    for name, kind in INSTANCE_TYPES.items():
        family, _, size = name.partition(".")
        if family in families and not size.startswith("metal"):
            memory, cpus = kind["MemoryInfo"]["SizeInMiB"], kind["VCpuInfo"]["DefaultVCpus"]
            found[f"db.{name}"] = Class(int(memory), int(cpus))
    return found


def class_of(name: str) -> Class:
    """Return an instance class."""
    return classes()[name]


def check_user(name: str) -> None:
    """Raise unless a name can be a master user's."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name) or name.lower().startswith("pg_"):
        raise InvalidParameterValue(
            f"The parameter MasterUsername is not valid: {name}. It must begin with a letter and "
            "have at most 63 letters, digits and underscores."
        )
    if name.lower() in _RESERVED_USERS:
        raise InvalidParameterValue(
            f"MasterUsername {name} cannot be used as it is a reserved word used by the engine"
        )


def check_password(word: str) -> None:
    """Raise unless a word can be a master user's password."""
    if not 8 <= len(word) <= 128:
        raise InvalidParameterValue(
            "The parameter MasterUserPassword is not a valid password because it is "
            f"{'shorter than 8' if len(word) < 8 else 'longer than 128'} characters."
        )
    if not all(32 < ord(c) < 127 and c not in '/@"' for c in word):
        raise InvalidParameterValue(
            "The parameter MasterUserPassword is not a valid password. Only printable ASCII "
            "characters besides '/', '@', '\"', ' ' may be used."
        )


def check_database(name: str) -> None:
    """Raise unless a name can be that of the first database."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise InvalidParameterValue(
            "DBName must begin with a letter or underscore and contain only alphanumeric "
            "characters."
        )
    if name.lower() in _RESERVED_DATABASES:
        raise InvalidParameterValue(
            f"DBName {name} cannot be used. It is a reserved word for this engine"
        )


def check_storage(kind: str, size: int) -> None:
    """Raise unless there is storage of a type and a size in GiB."""
    if kind not in STORAGE:
        raise InvalidParameterValue(f"Invalid storage type: {kind}")
    if not STORAGE[kind] <= size <= LARGEST:
        raise InvalidParameterValue(
            f"Invalid storage size for engine name {ENGINE} and storage type {kind}: {size}"
        )


def baseline(kind: str, size: int) -> dict[str, int]:
    """Return what storage of a type and a size in GiB does if nobody says how much it shall.

    Source: Amazon RDS User Guide, "gp3 storage", for PostgreSQL; throughput in MiB/s.
    """
    if kind != "gp3":
        return {}
    large = size >= 400
    return {"iops": 12000 if large else 3000, "storage_throughput": 500 if large else 125}


def not_true(what: str) -> RDSClientError:
    """Return the error for what the lab does not make true."""
    return RDSClientError("NotTrueInTheLab", f"The lab cannot make {what}. See docs/lab.md.")


def require(instance: Any, *states: str) -> None:
    """Raise unless an instance is in one of these states."""
    if instance.status not in states:
        name = instance.db_instance_identifier
        raise state_error(f"Instance {name} is not in {' or '.join(states)} state.")


def state_error(message: str) -> RDSClientError:
    """Return the error for what an instance's state forbids."""
    return RDSClientError("InvalidDBInstanceState", message)


def moment(value: Any) -> datetime.datetime | None:
    """Return a time of a request in UTC."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    aware: datetime.datetime = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    return aware.astimezone(datetime.UTC)


def check_coverage(subnets: list[Any]) -> None:
    """Raise unless subnets can be a group: of one VPC, in at least two zones."""
    zones = {subnet.availability_zone for subnet in subnets}
    if len({subnet.vpc_id for subnet in subnets}) > 1:
        raise RDSClientError("InvalidSubnet", "The subnets are not all in the same VPC.")
    if len(zones) < 2:
        raise RDSClientError(
            "DBSubnetGroupDoesNotCoverEnoughAZs",
            "The DB subnet group doesn't meet Availability Zone (AZ) coverage requirement. "
            f"Current AZ coverage: {', '.join(sorted(zones))}. "
            "Add subnets to cover at least 2 AZs.",
        )
