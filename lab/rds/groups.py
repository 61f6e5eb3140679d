"""Parameter groups and subnet groups of RDS, and what there is to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from moto.ec2.models import ec2_backends
from moto.rds.exceptions import (
    DBParameterGroupNotFoundError,
    InvalidParameterCombination,
    InvalidParameterValue,
    RDSClientError,
)
from moto.rds.models import DBParameterGroup, RDSBackend

from lab import parameters
from lab.engine import Engine
from lab.parameters import ParameterError
from lab.rds.instance import DBInstance, Done, Physics
from lab.rds.rules import ENGINE, LARGEST, STORAGE, check_coverage, classes, not_true

# moto's is abstract by what CloudFormation wants of it.
_Group: Any = DBParameterGroup


class Groups(RDSBackend):
    """moto's RDS with groups that mean something."""

    physics: ClassVar[Physics]
    databases: Any

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        family = self.engine.family
        self.db_parameter_groups[f"default.{family}"] = _Group(
            self, f"default.{family}", f"Default parameter group for {family}", family
        )

    @property
    def engine(self) -> Engine:
        """The PostgreSQL that instances run."""
        return self.physics.engine

    # --- parameter groups
    def create_db_parameter_group(self, db_parameter_group_kwargs: Mapping[str, Any]) -> Any:
        """Create a group of a family that is there."""
        family = db_parameter_group_kwargs.get("db_parameter_group_family")
        if family and family != self.engine.family:
            raise not_true(f"parameter groups of {family}: there is {self.engine.family}")
        return super().create_db_parameter_group(dict(db_parameter_group_kwargs))

    def describe_db_parameter_groups(self, db_parameter_group_kwargs: Mapping[str, Any]) -> Any:
        """Return groups; a name that is not there is an error."""
        name = db_parameter_group_kwargs.get("db_parameter_group_name")
        if not name:
            return list(self.db_parameter_groups.values())
        return [self._group(name)]

    def modify_db_parameter_group(
        self,
        db_parameter_group_name: str,
        db_parameter_group_parameters: Iterable[dict[str, Any]],
    ) -> Any:
        """Set parameters; dynamic ones come into force at once."""
        group = self._own_group(db_parameter_group_name)
        changes = list(db_parameter_group_parameters)
        known = self.engine.parameters
        applied: set[str] = set()
        for change in changes:
            name = str(change["ParameterName"]).lower()
            change["ParameterName"] = name
            method = change.setdefault("ApplyMethod", "pending-reboot")
            value = change["ParameterValue"] = str(change.get("ParameterValue", ""))
            with _as_aws():
                parameters.check(known, name, value, method)
            if method == "immediate":
                applied.add(name)
        group.update_parameters(changes)
        self._apply(group, applied)
        return group

    def reset_db_parameter_group(
        self, name: str, everything: bool, changes: Iterable[Mapping[str, Any]]
    ) -> Any:
        """Give parameters their defaults again."""
        group = self._own_group(name)
        known = self.engine.parameters
        methods = {str(c["ParameterName"]).lower(): c.get("ApplyMethod") for c in changes}
        names = list(group.parameters) if everything else list(methods)
        for unknown in [n for n in names if n not in known]:
            raise InvalidParameterValue(f"Could not find parameter with name: {unknown}")
        for changed in names:
            group.parameters.pop(changed, None)
        self._apply(
            group,
            {n for n in names if not known[n].static and (everything or methods[n] == "immediate")},
        )
        return group

    def _apply(self, group: Any, names: set[str]) -> None:
        """Bring dynamic parameters into force where a group is in force."""
        for instance in list(self.databases.values()):
            if instance.group is not group or instance.running_group != group.name:
                continue
            desired = instance.desired()
            changed = parameters.differing(desired, instance.running) & names
            # A server that does not run takes up everything when it starts.
            if not changed or instance.status in ("stopping", "stopped", "deleting", "failed"):
                continue
            running = {k: v for k, v in instance.running.items() if k not in changed}
            running |= {name: desired[name] for name in changed if name in desired}
            instance.running = dict(sorted(running.items()))
            self.physics.reload(instance, _confirmer(instance))

    def describe_db_parameters(self, name: str, source: str | None) -> list[dict[str, Any]]:
        """Return all parameters of a group."""
        group = self._group(name)
        chosen = group.parameters
        found = []
        for parameter in self.engine.parameters.values():
            own = chosen.get(parameter.name, {})
            entry = {
                "ParameterName": parameter.name,
                "ParameterValue": own.get("ParameterValue", parameter.default),
                "Description": parameter.description,
                "Source": "user" if own else parameter.source,
                "ApplyType": parameter.apply_type,
                "DataType": parameter.type,
                "AllowedValues": parameter.allowed,
                "IsModifiable": parameter.modifiable,
                "ApplyMethod": own.get("ApplyMethod", "pending-reboot"),
            }
            if source is None or entry["Source"] == source:
                found.append({key: value for key, value in entry.items() if value is not None})
        return found

    def delete_db_parameter_group(self, db_parameter_group_name: str) -> Any:
        """Remove a group that no instance has."""
        group = self._own_group(db_parameter_group_name)
        if any(instance.group is group for instance in self.databases.values()):
            raise RDSClientError(
                "InvalidDBParameterGroupState",
                "One or more database instances are still members of this parameter group "
                f"{group.name}, so the group cannot be deleted",
            )
        return super().delete_db_parameter_group(db_parameter_group_name)

    def _group(self, name: str) -> Any:
        if name not in self.db_parameter_groups:
            raise DBParameterGroupNotFoundError(name)
        return self.db_parameter_groups[name]

    def _own_group(self, name: str) -> Any:
        group = self._group(name)
        if group.name.startswith("default."):
            raise RDSClientError(
                "InvalidDBParameterGroupState", f"A default parameter group stays as it is: {name}"
            )
        return group

    # --- subnet groups
    def create_subnet_group(
        self,
        subnet_name: str,
        description: str,
        subnets: list[Any],
        tags: list[dict[str, str]],
    ) -> Any:
        """Create a group of subnets in at least two zones."""
        if subnet_name in self.subnet_groups:
            raise RDSClientError(
                "DBSubnetGroupAlreadyExists", f"The DB subnet group '{subnet_name}' already exists."
            )
        check_coverage(subnets)
        return super().create_subnet_group(subnet_name, description, subnets, tags)

    def modify_db_subnet_group(self, subnet_name: str, description: str, subnets: list[Any]) -> Any:
        """Change a group's subnets; those that instances stand in must stay."""
        [group] = self.describe_db_subnet_groups(subnet_name)
        check_coverage(subnets)
        kept = {subnet.id for subnet in subnets}
        for instance in self._members(group):
            for subnet in (server.interface.subnet.id for server in instance.servers):
                if subnet not in kept:
                    raise RDSClientError(
                        "SubnetAlreadyInUse",
                        f"The subnet {subnet} is in use by {instance.db_instance_identifier}.",
                    )
        return super().modify_db_subnet_group(subnet_name, description, subnets)

    def delete_subnet_group(self, subnet_name: str) -> Any:
        """Remove a group that no instance stands in."""
        [group] = self.describe_db_subnet_groups(subnet_name)
        if self._members(group):
            raise RDSClientError(
                "InvalidDBSubnetGroupStateFault",
                f"Cannot delete the subnet group '{subnet_name}' because at least one database "
                "instance is still using it.",
            )
        return super().delete_subnet_group(subnet_name)

    def _members(self, group: Any) -> list[Any]:
        return [i for i in self.databases.values() if i.db_subnet_group is group]

    def _subnet_group(self, name: str | None) -> Any:
        if name and name != "default":
            return self.describe_db_subnet_groups(name)[0]
        if "default" not in self.subnet_groups:
            ec2: Any = ec2_backends[self.account_id][self.region_name]
            subnets = [
                subnet
                for zone in ec2.subnets.values()
                for subnet in zone.values()
                if subnet.vpc_id == ec2.default_vpc.id
            ]
            self.create_subnet_group("default", "default", subnets, [])
        return self.subnet_groups["default"]

    # --- versions and classes
    def describe_db_engine_versions(self, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the engines that are there: one."""
        engine = self.engine
        version, family = wanted.get("engine_version"), wanted.get("db_parameter_group_family")
        if wanted.get("engine") not in (None, ENGINE) or family not in (None, engine.family):
            return []
        if version and not engine.offers(version):
            return []
        return [
            {
                "Engine": ENGINE,
                "MajorEngineVersion": engine.version.partition(".")[0],
                "EngineVersion": engine.version,
                "DBParameterGroupFamily": engine.family,
                "DBEngineDescription": "PostgreSQL",
                "DBEngineVersionDescription": f"PostgreSQL {engine.version}",
                "ValidUpgradeTarget": [],
                "ExportableLogTypes": ["postgresql", "upgrade"],
                "SupportsLogExportsToCloudwatchLogs": False,
                "SupportsReadReplica": False,
                "SupportedFeatureNames": [],
                "Status": "available",
            }
        ]

    def describe_orderable_db_instance_options(
        self, engine: str, engine_version: str | None = None, wanted_class: str | None = None
    ) -> list[dict[str, Any]]:
        """Return what instances can be."""
        known = self.engine
        if engine != ENGINE or (engine_version and not known.offers(engine_version)):
            return []
        ec2: Any = ec2_backends[self.account_id][self.region_name]
        zones = [{"Name": zone.name} for zone in ec2.describe_availability_zones()]
        return [
            {
                "Engine": ENGINE,
                "EngineVersion": known.version,
                "DBInstanceClass": name,
                "LicenseModel": "postgresql-license",
                "AvailabilityZones": zones,
                "MultiAZCapable": True,
                "ReadReplicaCapable": False,
                "Vpc": True,
                "SupportsStorageEncryption": True,
                "StorageType": storage,
                "MinStorageSize": least,
                "MaxStorageSize": LARGEST,
                "SupportedEngineModes": ["provisioned"],
                "SupportedNetworkTypes": ["IPV4"],
            }
            for name in classes()
            if wanted_class in (None, name)
            for storage, least in STORAGE.items()
        ]


@contextmanager
def _as_aws() -> Iterator[None]:
    """Turn a refusal of parameters into AWS's error."""
    try:
        yield
    except ParameterError as error:
        combination = str(error).startswith("cannot use immediate")
        failure = InvalidParameterCombination if combination else InvalidParameterValue
        raise failure(str(error)) from error


def _confirmer(instance: DBInstance) -> Done:
    def done(trouble: str) -> None:
        if not trouble:
            instance.confirmed = dict(instance.running)

    return done
