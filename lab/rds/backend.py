"""RDS for PostgreSQL made true: moto's backend, subclassed, with databases behind its instances."""

from __future__ import annotations

import datetime
import json
import re
import secrets
import string
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.rds import models
from moto.rds.exceptions import (
    DBInstanceAlreadyExists,
    DBInstanceNotFoundError,
    DBParameterGroupNotFoundError,
    DBSnapshotNotFoundFault,
    InvalidParameterCombination,
    InvalidParameterValue,
    RDSClientError,
)
from moto.rds.models import MasterUserSecret, rds_backends
from moto.rds.responses import RDSResponse
from moto.rds.utils import DbInstanceEngine

from lab import postgres
from lab.hosts import Event, Order
from lab.mends._replace import replace
from lab.rds import rules
from lab.rds.groups import Groups
from lab.rds.instance import DBInstance, Done, Physics, Server, Source
from lab.rds.rules import (
    ENGINE,
    baseline,
    check_database,
    check_password,
    check_storage,
    check_user,
    classes,
    not_true,
    require,
    state_error,
)

# What waits for the maintenance window, unless it is to be applied immediately.
_DEFERRED = (
    "allocated_storage", "db_instance_class", "iops", "multi_az", "storage_throughput",
    "storage_type",
)  # fmt: skip
# An instance in one of these is on its way to `available`.
_UNDER_WAY = frozenset(
    {"creating", "modifying", "rebooting", "resetting-master-credentials", "starting"}
)
# What a restored instance takes over from its source.
_INHERITED = (
    "allocated_storage", "auto_minor_version_upgrade", "backup_retention_period",
    "copy_tags_to_snapshot", "db_instance_class", "db_name", "engine", "engine_version",
    "iops", "kms_key_id", "master_username", "port", "preferred_backup_window",
    "preferred_maintenance_window", "storage_encrypted", "storage_throughput", "storage_type",
)  # fmt: skip

# What is told of Multi-AZ instances (RDS User Guide, "Amazon RDS event categories and event
# messages": RDS-EVENT-0013, -0049, -0025 and -0029, as they read there or to that effect).
FAILOVER, FAILED_OVER = "LAB_FAILOVER_STARTED", "LAB_FAILOVER_COMPLETED"
MULTI_AZ, SINGLE_AZ = "LAB_MULTI_AZ", "LAB_SINGLE_AZ"
_EVENTS = {
    FAILOVER: {"Categories": ["failover"], "Message": "Multi-AZ instance failover started."},
    FAILED_OVER: {"Categories": ["failover"], "Message": "Multi-AZ instance failover completed"},
    MULTI_AZ: {
        "Categories": ["configuration change"],
        "Message": "Finished applying modification to convert to a Multi-AZ DB instance",
    },
    SINGLE_AZ: {
        "Categories": ["configuration change"],
        "Message": "Finished applying modification to convert to a Single-AZ DB instance",
    },
}

_OF_THE_SOURCE = frozenset(
    {
        "db_snapshot_identifier",
        "restore_time",
        "source_db_instance_identifier",
        "source_dbi_resource_id",
        "target_db_instance_identifier",
        "use_latest_restorable_time",
    }
)
# moto's is abstract by what CloudFormation wants of it.
_Instance: Any = DBInstance


class LabRDSBackend(Groups):
    """moto's RDS whose PostgreSQL instances are databases."""

    __module__ = "moto.rds.models"  # moto finds a backend's URLs by its module's name
    database_snapshots: Any

    # --- instances
    def create_db_instance(self, db_kwargs: Mapping[str, Any]) -> Any:
        """Create a database; `creating` until it answers."""
        wanted = dict(db_kwargs)
        self._check_engine(wanted)
        self._check_master(wanted)
        if "allocated_storage" not in wanted:
            raise RDSClientError(
                "MissingParameter", "The request must contain the parameter AllocatedStorage"
            )
        instance = self._make(wanted)
        word = self._password_of(instance)
        assert word is not None
        sql = postgres.roles(wanted["master_username"], word, wanted.get("db_name"))
        self.physics.launch(instance, sql, None)
        return instance

    def _make(self, wanted: dict[str, Any]) -> DBInstance:
        """Put an instance into the API, with its interface in a subnet."""
        identifier = wanted["db_instance_identifier"]
        if identifier in self.databases:
            raise DBInstanceAlreadyExists()
        self._validate_db_identifier(identifier)
        if wanted.get("multi_az") and wanted.get("availability_zone"):
            raise InvalidParameterCombination(
                "Requesting a specific availability zone is not valid for Multi-AZ instances."
            )
        if wanted.get("publicly_accessible"):
            raise not_true("a database that is publicly accessible")
        kind = str(wanted.get("db_instance_class", ""))
        self._check_class(kind)
        storage = wanted.get("storage_type") or ("io1" if wanted.get("iops") else "gp2")
        check_storage(storage, int(wanted["allocated_storage"]))
        group = self._subnet_group(wanted.get("db_subnet_group_name"))
        subnet = _subnet(group, wanted.get("availability_zone"))
        security = self._security_groups(group.vpc_id, wanted.get("vpc_security_group_ids"))
        parameter_group = wanted.get("db_parameter_group_name")
        if parameter_group and parameter_group not in self.db_parameter_groups:
            raise DBParameterGroupNotFoundError(parameter_group)
        wanted |= {
            "engine_version": self.engine.version,
            "license_model": "postgresql-license",
            "storage_type": storage,
            "availability_zone": subnet.availability_zone,
            "db_subnet_group_name": group.name,
            "vpc_security_group_ids": [g.id for g in security],
            "publicly_accessible": False,
            "port": int(wanted.get("port") or 5432),
        }
        for name, value in baseline(storage, int(wanted["allocated_storage"])).items():
            wanted[name] = wanted.get(name) or value
        interface = self._interface(subnet, security)
        try:
            instance: DBInstance = _Instance(self, interface, **wanted)
        except BaseException:
            _release(interface)
            raise
        self.databases[instance.db_instance_identifier] = instance
        instance.add_event("DB_INSTANCE_CREATE")
        return instance

    def modify_db_instance(self, db_instance_identifier: str, db_kwargs: Mapping[str, Any]) -> Any:
        """Change an instance: now, or once the maintenance window comes."""
        instance = self._get(db_instance_identifier)
        require(instance, "available")
        wanted = {key: value for key, value in db_kwargs.items() if value is not None}
        self._check_modification(instance, wanted)
        now = bool(wanted.pop("apply_immediately", False))
        rotate = bool(wanted.pop("rotate_master_user_password", False))
        if rotate and not now:
            raise InvalidParameterCombination(
                "You must specify apply immediately when rotating the master user password."
            )
        changes = {
            name: wanted.pop(name)
            for name in (*_DEFERRED, "backup_retention_period")
            if name in wanted
        }
        for name in changes:
            instance.pending.pop(name, None)  # who asks again has changed his mind
        changes = {key: new for key, new in changes.items() if new != getattr(instance, key)}
        port = wanted.pop("db_port_number", None)
        wanted.pop("engine_version", None)  # what runs is what there is
        groups = None
        if "vpc_security_group_ids" in wanted:
            vpc = instance.interface.subnet.vpc_id
            groups = self._security_groups(vpc, wanted["vpc_security_group_ids"])
        managed = wanted.get("manage_master_user_password")
        fresh = managed is True and not instance.manage_master_user_password
        if managed is True and not fresh:
            del wanted["manage_master_user_password"]
        super().modify_db_instance(db_instance_identifier, wanted)
        for server in instance.servers if groups is not None else ():
            server.interface._group_set = groups
        if changes.get("backup_retention_period") and instance.backup_retention_period:
            instance.backup_retention_period = changes.pop("backup_retention_period")
        word = None
        if rotate:
            word = self._rotate(instance)
        elif fresh or "master_user_password" in wanted:
            word = self._password_of(instance)
        sql = postgres.password(str(instance.master_username), word) if word else ""
        if now:
            changes = {**instance.pending, **changes}
            instance.pending = {}
        else:
            instance.pending |= changes
            changes = {}
        if port is not None and int(port) != instance.port:
            changes["port"] = int(port)  # AWS does not wait with it
        self._carry_out(instance, changes, sql)
        return instance

    def _carry_out(self, instance: DBInstance, changes: dict[str, Any], sql: str) -> None:
        instance.changing = changes
        if not instance.paired:
            instance.guarded = instance.synchronous = False

        def reload(_: str = "") -> None:
            if changes:
                self.physics.reload(instance, lambda _: self._settled(instance))
            else:
                self._settled(instance)

        if changes.keys() & {"db_instance_class", "port"}:
            instance.status = "modifying"
            self._restart(instance, Order.REBOOT, sql)
        elif sql:
            instance.status = "resetting-master-credentials"
            self.physics.run_sql(instance, sql, reload)
        elif changes:
            instance.status = "modifying"
            reload()

    def reboot_db_instance(self, db_instance_identifier: str, force_failover: bool = False) -> Any:
        """Start the server anew, with all parameters that waited for it; or its standby."""
        instance = self._get(db_instance_identifier)
        require(instance, "available", "incompatible-parameters")
        if force_failover and not instance.multi_az:
            raise InvalidParameterCombination(
                f"Cannot fail over {db_instance_identifier}: it is not a Multi-AZ instance."
            )
        if force_failover and not instance.synchronous:
            raise state_error(f"The standby of {db_instance_identifier} is not ready yet.")
        instance.status = "rebooting"
        if force_failover:
            self._take_up_parameters(instance)
            self.physics.fail_over(instance)
        else:
            self._restart(instance, Order.REBOOT)
        return instance

    def stop_db_instance(
        self, db_instance_identifier: str, db_snapshot_identifier: str | None = None
    ) -> Any:
        """Shut a database down."""
        instance = self._get(db_instance_identifier)
        require(instance, "available")
        if db_snapshot_identifier:
            self._back_up(instance, db_snapshot_identifier, "manual")
        instance.status = "stopping"
        self.physics.order(instance, Order.STOP)
        return instance

    def start_db_instance(self, db_instance_identifier: str) -> Any:
        """Start a stopped database."""
        instance = self._get(db_instance_identifier)
        require(instance, "stopped")
        instance.status = "starting"
        self._restart(instance, Order.START)
        return instance

    def delete_db_instance(
        self,
        db_instance_identifier: str,
        final_db_snapshot_identifier: str | None = None,
        skip_final_snapshot: bool | None = False,
        delete_automated_backups: bool | None = True,
    ) -> Any:
        """Remove a database, and keep a snapshot if it is wanted."""
        instance = self._get(db_instance_identifier)
        if instance.status == "deleting":
            raise state_error(f"Instance {db_instance_identifier} is already being deleted.")
        if instance.deletion_protection:
            raise InvalidParameterCombination(
                "Cannot delete protected DB Instance, please disable deletion protection and try "
                "again."
            )
        if skip_final_snapshot and final_db_snapshot_identifier:
            raise InvalidParameterCombination(
                "FinalDBSnapshotIdentifier can not be specified when deleting with "
                "SkipFinalSnapshot."
            )
        if not skip_final_snapshot and not final_db_snapshot_identifier:
            raise InvalidParameterCombination(
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified."
            )
        if delete_automated_backups is False:
            raise not_true("automated backups that outlive their instance")
        if not final_db_snapshot_identifier:
            instance.status = "deleting"
            self.physics.order(instance, Order.TERMINATE)
            return instance
        require(instance, "available", "stopped")
        before = instance.status

        def remove(trouble: str) -> None:
            if trouble:
                instance.status = before  # what is not saved stays
            else:
                self.physics.order(instance, Order.TERMINATE)

        self._back_up(instance, final_db_snapshot_identifier, "manual", then=remove)
        instance.status = "deleting"
        return instance

    def describe_db_log_files(self, db_instance_identifier: str) -> list[Any]:
        """Return nothing: the lab keeps no files of logs."""
        self._get(db_instance_identifier)
        return []

    def _restart(self, instance: DBInstance, order: Order, sql: str = "") -> None:
        self._take_up_parameters(instance)
        self.physics.order(instance, order, sql)

    def _take_up_parameters(self, instance: DBInstance) -> None:
        instance.running_group = instance.group.name
        instance.running = instance.desired()
        instance.confirmed = {}

    # --- what databases report
    def happened(self, instance: DBInstance, event: Event, reason: str) -> None:
        """Take up what an instance's primary reports."""
        if event is Event.TERMINATED:
            self.gone(instance, instance.key)
        elif instance.status == "deleting":
            return
        elif event is Event.FAILED:
            instance.status = "failed"
        elif event is Event.STOPPED:
            instance.status = "stopped"
        elif event is Event.RUNNING:
            instance.confirmed = dict(instance.running)
            if instance.status in (*_UNDER_WAY, "incompatible-parameters"):
                self._settled(instance)
        elif event is Event.IMPAIRED and instance.status in _UNDER_WAY:
            creating = instance.status == "creating"
            instance.status = "failed" if creating else "incompatible-parameters"

    def _settled(self, instance: DBInstance) -> None:
        """All that was under way is in force."""
        if instance.status == "deleting":
            return
        if _to_be_paired(instance) and not instance.synchronous:
            self.physics.pair(instance)  # says so once the standby has all
            return
        archived = bool(instance.backup_retention_period)
        for name, value in instance.changing.items():
            setattr(instance, name, value)
        if "multi_az" in instance.changing:
            instance.add_event(MULTI_AZ if instance.multi_az else SINGLE_AZ)
        instance.changing = {}
        if instance.standby and not instance.multi_az:
            self.dismiss_standby(instance)
        first, instance.created_once = not instance.created_once, True
        instance.status = "available"
        if instance.backup_retention_period and (first or not archived):
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H-%M-%S")
            self._back_up(instance, f"rds:{instance.db_instance_identifier}-{now}", "automated")
        elif archived and not instance.backup_retention_period:
            self._remove_automated(instance)

    # --- the two servers of a Multi-AZ instance
    def add_standby(self, instance: DBInstance) -> Server:
        """Give an instance a standby's place in another zone. Raises RDSClientError."""
        subnet = next(
            s
            for s in instance.db_subnet_group._subnets
            if s.availability_zone != instance.primary.zone
        )
        instance.standby = instance.new_server(
            self._interface(subnet, instance.interface._group_set)
        )
        return instance.standby

    def dismiss_standby(self, instance: DBInstance) -> None:
        """Let go of a standby; commits do not wait for it any more."""
        instance.guarded = instance.synchronous = False
        if instance.standby:
            server, instance.standby = instance.standby, None
            instance.leaving.append(server)
            self.physics.remove(server)

    def secured(self, instance: DBInstance) -> None:
        """Take up that the standby has all, and will have all that is acknowledged from now on."""
        instance.synchronous = True
        if _to_be_paired(instance):
            self._settled(instance)

    def failed_over(self, instance: DBInstance) -> None:
        """Take up that the standby is the primary now, and the primary is dead."""
        assert instance.standby is not None
        old, instance.primary, instance.standby = instance.primary, instance.standby, None
        instance.availability_zone = instance.primary.zone
        instance.guarded = instance.synchronous = False
        instance.leaving.append(old)
        self.physics.remove(old)
        instance.add_event(FAILED_OVER)
        if instance.status in _UNDER_WAY:
            instance.confirmed = dict(instance.running)
            self._settled(instance)

    def gone(self, instance: DBInstance, key: str) -> None:
        """Take up that a server is no more; with its last one an instance is forgotten."""
        for server in [s for s in instance.servers if s.key == key]:
            _release(server.interface)
            if server is instance.primary:
                instance.ended = True
            elif server is instance.standby:
                instance.standby = None
            else:
                instance.leaving.remove(server)
        if not instance.servers:
            self._forget(instance)

    def _forget(self, instance: DBInstance) -> None:
        self.databases.pop(instance.db_instance_identifier, None)
        self.physics.remove_archive(instance.archive)
        if instance.manage_master_user_password:
            instance.master_user_secret.delete_secret()
        self._remove_automated(instance)

    def _remove_automated(self, instance: DBInstance) -> None:
        for name, snapshot in list(self.database_snapshots.items()):
            same = snapshot.dbi_resource_id == instance.dbi_resource_id
            if same and snapshot.snapshot_type == "automated":
                del self.database_snapshots[name]
                self.physics.remove_backup(snapshot.backup)

    # --- snapshots
    def create_db_snapshot(
        self,
        db_instance_identifier: str,
        db_snapshot_identifier: str,
        snapshot_type: str = "manual",
        tags: list[dict[str, str]] | None = None,
        original_created_at: Any = None,
        kms_key_id: str | None = None,
    ) -> Any:
        """Take a snapshot of a running database."""
        instance = self._get(db_instance_identifier)
        if instance.status != "available":
            raise state_error(
                "Cannot create a snapshot because the database instance "
                f"{db_instance_identifier} is not currently in the available state."
            )
        return self._back_up(instance, db_snapshot_identifier, snapshot_type, tags)

    def _back_up(
        self,
        instance: DBInstance,
        name: str,
        kind: str,
        tags: list[dict[str, str]] | None = None,
        then: Done | None = None,
    ) -> Any:
        snapshot: Any = super().create_db_snapshot(
            instance.db_instance_identifier, name, kind, tags
        )
        snapshot.backup = uuid.uuid4().hex
        snapshot.status, snapshot.percent_progress = "creating", 0
        snapshot.availability_zone = instance.availability_zone
        snapshot.vpc_id = instance.interface.subnet.vpc_id
        if instance.status == "available":
            instance.status = "backing-up"

        def done(trouble: str) -> None:
            snapshot.status = "failed" if trouble else "available"
            snapshot.percent_progress = 0 if trouble else 100
            snapshot.finished = datetime.datetime.now(datetime.UTC)
            if instance.status == "backing-up":
                instance.status = "available"
            if then:
                then(trouble)

        self.physics.back_up(instance, snapshot.backup, done)
        return snapshot

    def delete_db_snapshot(self, db_snapshot_identifier: str) -> Any:
        """Remove a snapshot."""
        snapshot: Any = self.database_snapshots.get(db_snapshot_identifier)
        if snapshot is None:
            raise DBSnapshotNotFoundFault(db_snapshot_identifier)
        if snapshot.status == "creating" or snapshot.snapshot_type == "automated":
            raise RDSClientError(
                "InvalidDBSnapshotState",
                f"The snapshot {db_snapshot_identifier} cannot be deleted in its current state: "
                f"{snapshot.snapshot_type}, {snapshot.status}.",
            )
        del self.database_snapshots[db_snapshot_identifier]
        self.physics.remove_backup(snapshot.backup)
        snapshot.status = "deleted"
        return snapshot

    def restore_db_instance_from_db_snapshot(
        self, from_snapshot_id: str, overrides: Mapping[str, Any]
    ) -> Any:
        """Make a new database of a snapshot."""
        name = from_snapshot_id.rpartition(":snapshot:")[2]
        snapshot: Any = self.database_snapshots.get(name)
        if snapshot is None:
            raise DBSnapshotNotFoundFault(name)
        if snapshot.status != "available":
            raise RDSClientError(
                "InvalidDBSnapshotState", f"The snapshot {name} is not available yet."
            )
        return self._restore(snapshot.database, Source(snapshot.backup), overrides)

    def restore_db_instance_to_point_in_time(
        self, source_db_identifier: str, target_db_identifier: str, overrides: Mapping[str, Any]
    ) -> Any:
        """Make a new database of another one's backup and archive."""
        instance = self._get(source_db_identifier)
        latest = instance.latest_restorable_time
        if not instance.backup_retention_period:
            raise RDSClientError(
                "PointInTimeRestoreNotEnabled",
                f"Point in time restore is not enabled for {source_db_identifier}: its backup "
                "retention period is 0.",
            )
        moment = rules.moment(overrides.get("restore_time"))
        if bool(moment) == bool(overrides.get("use_latest_restorable_time")):
            raise InvalidParameterCombination(
                "Specify either RestoreTime or UseLatestRestorableTime."
            )
        base = self._base(instance, moment)
        if latest is None or base is None or (moment and moment > latest):
            raise InvalidParameterValue(
                f"{source_db_identifier} cannot be restored to that time; the latest restorable "
                f"time is {latest.isoformat() if latest else 'not reached yet'}."
            )
        until = moment.isoformat(sep=" ") if moment else None
        wanted = {**overrides, "db_instance_identifier": target_db_identifier}
        return self._restore(instance, Source(base.backup, instance.archive, until), wanted)

    def _base(self, instance: DBInstance, moment: datetime.datetime | None) -> Any:
        """Return the last automated backup that was complete at a time."""
        found = [
            s
            for s in self.database_snapshots.values()
            if s.dbi_resource_id == instance.dbi_resource_id
            and s.snapshot_type == "automated"
            and s.status == "available"
            and (moment is None or s.finished <= moment)
        ]
        return max(found, key=lambda s: s.finished, default=None)

    def _restore(self, origin: Any, source: Source, overrides: Mapping[str, Any]) -> Any:
        given = {k: v for k, v in overrides.items() if v is not None and k not in _OF_THE_SOURCE}
        wanted = {name: getattr(origin, name) for name in _INHERITED if hasattr(origin, name)}
        wanted = {key: value for key, value in wanted.items() if value is not None} | given
        self._check_engine(wanted)
        if int(wanted["allocated_storage"]) < origin.allocated_storage:
            raise InvalidParameterValue(
                "The allocated storage size can't be less than the source snapshot or backup size."
            )
        # The databases are those of the backup, and so is the password.
        wanted["db_name"] = origin.db_name
        instance = self._make(wanted)
        word = self._password_of(instance)
        sql = postgres.password(str(instance.master_username), word) if word else ""
        self.physics.launch(instance, sql, source)
        return instance

    # --- checks
    def _get(self, identifier: str) -> Any:
        found = self.databases.get(identifier.rpartition(":db:")[2])
        if found is None:
            raise DBInstanceNotFoundError(identifier)
        return found

    def _check_engine(self, wanted: Mapping[str, Any]) -> None:
        engine = wanted.get("engine")
        if engine not in DbInstanceEngine.valid_db_instance_engine():
            raise InvalidParameterValue(f"Invalid DB engine: {engine}")
        if engine != ENGINE or wanted.get("db_cluster_identifier"):
            raise not_true(f"a database of {engine}: there is {ENGINE}, in instances")
        self._check_version(wanted.get("engine_version"))

    def _check_version(self, version: str | None) -> None:
        if version and not self.engine.offers(version):
            raise InvalidParameterCombination(f"Cannot find version {version} for {ENGINE}")

    def _check_class(self, name: str) -> None:
        if not re.fullmatch(r"db\.[a-z0-9]+\.[a-z0-9]+", name):
            raise InvalidParameterValue(f"Invalid DB Instance class: {name}")
        if name not in classes():
            raise InvalidParameterCombination(
                "RDS does not support creating a DB instance with the following combination: "
                f"DBInstanceClass={name}, Engine={ENGINE}, EngineVersion={self.engine.version}, "
                "LicenseModel=postgresql-license."
            )

    def _check_master(self, wanted: Mapping[str, Any]) -> None:
        user, word = wanted.get("master_username"), wanted.get("master_user_password")
        managed = bool(wanted.get("manage_master_user_password"))
        if not user:
            raise InvalidParameterValue(
                "The parameter MasterUsername must be provided and must not be blank."
            )
        check_user(user)
        if managed and word is not None:
            raise InvalidParameterCombination(
                "You can't specify MasterUserPassword for an instance with "
                "ManageMasterUserPassword enabled."
            )
        if not managed:
            check_password(word or "")
        database = wanted.get("db_name")
        if database:
            check_database(database)

    def _check_modification(self, instance: DBInstance, wanted: Mapping[str, Any]) -> None:
        for name, what in (
            ("publicly_accessible", "a database that is publicly accessible"),
            ("new_db_instance_identifier", "a new name for a database yet"),
            ("domain", "a database in a directory"),
        ):
            if wanted.get(name):
                raise not_true(what)
        group = wanted.get("db_subnet_group_name")
        if group and group != instance.db_subnet_group.name:
            raise not_true("a database that moves to other subnets")
        self._check_version(wanted.get("engine_version"))
        if "db_instance_class" in wanted:
            self._check_class(wanted["db_instance_class"])
        if "master_user_password" in wanted:
            if instance.manage_master_user_password and (
                wanted.get("manage_master_user_password") is not False
            ):
                raise InvalidParameterCombination(
                    "You can't specify MasterUserPassword for an instance with "
                    "ManageMasterUserPassword enabled."
                )
            check_password(wanted["master_user_password"])
        storage = wanted.get("storage_type", instance.storage_type)
        size = int(wanted.get("allocated_storage", instance.allocated_storage))
        if size < instance.allocated_storage:
            raise InvalidParameterCombination(
                f"Invalid storage size: {size} GiB is less than the current "
                f"{instance.allocated_storage} GiB."
            )
        check_storage(storage, size)

    # --- passwords
    def _password_of(self, instance: DBInstance) -> str | None:
        if instance.manage_master_user_password:
            secret = json.loads(instance.master_user_secret.secret.secret_string or "")
            return str(secret["password"])
        word: str | None = instance._master_user_password
        return word

    def _rotate(self, instance: DBInstance) -> str:
        if not instance.manage_master_user_password:
            raise InvalidParameterCombination(
                "You can't rotate the master user password of an instance that does not manage it."
            )
        secret = instance.master_user_secret
        content = secret._generate_secret_string()
        self.secretsmanager.put_secret_value(
            secret_id=secret.secret_arn,
            secret_string=content,
            secret_binary="",
            client_request_token=str(uuid.uuid4()),
            version_stages=["AWSCURRENT"],
        )
        return str(json.loads(content)["password"])

    # --- its place in the network
    def _security_groups(self, vpc: str, wanted: list[str] | None) -> list[Any]:
        ec2: Any = ec2_backends[self.account_id][self.region_name]
        if not wanted:
            return [ec2.get_default_security_group(vpc)]
        found = []
        for identifier in wanted:
            group = ec2.get_security_group_from_id(identifier)
            if group is None:
                raise InvalidParameterValue(f"Invalid security group , groupId= {identifier}.")
            if group.vpc_id != vpc:
                raise RDSClientError(
                    "InvalidVPCNetworkStateFault",
                    "The DB instance and EC2 security group are in different VPCs. The DB "
                    f"instance is in {vpc} and the EC2 security group is in {group.vpc_id}",
                )
            found.append(group)
        return found

    def _interface(self, subnet: Any, groups: list[Any]) -> Any:
        ec2: Any = ec2_backends[self.account_id][self.region_name]
        taken = ec2.physics.addresses()
        interface = ec2.create_network_interface(
            subnet, [], group_ids=[g.id for g in groups], description="RDSNetworkInterface"
        )
        interface.requester_managed, interface.requester_id = True, "amazon-rds"
        interface.status = "in-use"
        interface._group_set = groups
        if interface.private_ip_address in taken:
            _release(interface)
            raise not_true(
                f"a database with the address {interface.private_ip_address}: VPCs with the same "
                "block cannot stand side by side"
            )
        return interface


def instances() -> Iterator[tuple[Any, Any]]:
    """Yield all instances with their backends."""
    backends: list[Any] = [backend for _, _, backend in rds_backends.iter_backends()]
    for backend in backends:
        for instance in list(backend.databases.values()):
            yield backend, instance


def find(identifier: str) -> tuple[Any, Any] | None:
    """Return the instance of a name with its backend; None if there is none."""
    return next((f for f in instances() if f[1].db_instance_identifier == identifier), None)


def endpoints() -> dict[str, str]:
    """Return the names of instances that have an endpoint, and where each leads."""
    return {
        instance.address: instance.interface.private_ip_address
        for _, instance in instances()
        if instance.created_once
    }


def install(physics: Physics) -> None:
    """Put the lab's RDS in the place of moto's."""
    LabRDSBackend.physics = physics
    rds_backends.backend = LabRDSBackend

    def secret(master: Any) -> str:
        alphabet = string.ascii_letters + string.digits + "!#$%&*()-_=+[]{}<>?"
        word = "".join(secrets.choice(alphabet) for _ in range(28))
        return json.dumps({"username": master.resource.master_username, "password": word})

    def describe_parameters(response: Any) -> ActionResult:
        name, source = response.params.get("DBParameterGroupName"), response.params.get("Source")
        found = response.backend.describe_db_parameters(name, source)
        return _page(response, "Parameters", found)

    def reset(response: Any) -> ActionResult:
        group = response.backend.reset_db_parameter_group(
            response.params["DBParameterGroupName"],
            bool(response.params.get("ResetAllParameters")),
            [change.original_dict() for change in response.params.get("Parameters", [])],
        )
        return ActionResult({"DBParameterGroupName": group.name})

    def reboot(response: Any) -> ActionResult:
        instance = response.backend.reboot_db_instance(
            response.params.get("DBInstanceIdentifier"), bool(response.params.get("ForceFailover"))
        )
        return ActionResult({"DBInstance": instance})

    def versions(response: Any) -> ActionResult:
        found = response.backend.describe_db_engine_versions(response.params)
        return _page(response, "DBEngineVersions", found)

    def options(response: Any) -> ActionResult:
        found = response.backend.describe_orderable_db_instance_options(
            response.params.get("Engine"),
            response.params.get("EngineVersion"),
            response.params.get("DBInstanceClass"),
        )
        return _page(response, "OrderableDBInstanceOptions", found)

    # moto's word is the same for everybody.
    replace(MasterUserSecret, "_generate_secret_string", lambda _: secret)
    # moto's knows only what was changed.
    replace(RDSResponse, "describe_db_parameters", lambda _: describe_parameters)
    # moto's forgets about a failover.
    replace(RDSResponse, "reboot_db_instance", lambda _: reboot)
    replace(models.Event, "EVENT_MAP", lambda known: {**known, **_EVENTS})
    # moto's leaves out the class, and cannot turn pages of these.
    replace(RDSResponse, "describe_orderable_db_instance_options", lambda _: options)
    # What moto does not know at all.
    setattr(RDSResponse, "reset_db_parameter_group", reset)  # noqa: B010
    setattr(RDSResponse, "describe_db_engine_versions", versions)  # noqa: B010


def _to_be_paired(instance: DBInstance) -> bool:
    """Say whether what is under way is not done before there is a standby."""
    fresh = instance.status == "creating" or "multi_az" in instance.changing
    return instance.paired and fresh


def _page(response: Any, key: str, found: list[Any]) -> ActionResult:
    """Answer with as much as was asked for; the marker says where to go on."""
    start = int(response.params.get("Marker") or 0)
    end = start + int(response.params.get("MaxRecords") or 100)
    rest = {"Marker": str(end)} if end < len(found) else {}
    return ActionResult({key: found[start:end], **rest})


def _subnet(group: Any, zone: str | None) -> Any:
    for subnet in group._subnets:
        if zone in (None, "", subnet.availability_zone):
            return subnet
    raise RDSClientError(
        "InvalidVPCNetworkStateFault",
        f"The DB subnet group {group.name} has no subnet in the Availability Zone {zone}.",
    )


def _release(interface: Any) -> None:
    interface.requester_managed = False
    interface.delete()
