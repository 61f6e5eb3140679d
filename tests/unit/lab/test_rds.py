"""RDS's states, parameters and refusals, as the API tells them."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import rds
from lab.hosts import Event
from tests.unit.lab.conftest import DatabaseRecorder

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def api(client: Any) -> Any:
    return client("rds")


@pytest.fixture
def subnets(client: Any) -> list[str]:
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    return [
        ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for block, zone in (("10.1.1.0/24", "us-east-1a"), ("10.1.2.0/24", "us-east-1b"))
    ]


@pytest.fixture
def place(api: Any, subnets: list[str]) -> str:
    group = {"DBSubnetGroupName": "data", "DBSubnetGroupDescription": "data"}
    api.create_db_subnet_group(**group, SubnetIds=subnets)
    return "data"


@pytest.fixture
def create(api: Any, place: str) -> Any:
    def create(**more: Any) -> dict[str, Any]:
        wanted = {
            "DBInstanceIdentifier": "main",
            "DBInstanceClass": "db.t3.micro",
            "Engine": "postgres",
            "AllocatedStorage": 20,
            "MasterUsername": "boss",
            "MasterUserPassword": "long enough".replace(" ", "-"),
            "DBSubnetGroupName": place,
            "BackupRetentionPeriod": 0,
            **more,
        }
        answer = api.create_db_instance(**{k: v for k, v in wanted.items() if v is not None})
        return dict(answer["DBInstance"])

    return create


@pytest.fixture
def main(create: Any, databases: DatabaseRecorder) -> str:
    create()
    databases.report("main", Event.RUNNING)
    return "main"


def describe(api: Any, name: str = "main") -> dict[str, Any]:
    return dict(api.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0])


def status(api: Any, name: str = "main") -> str:
    return str(describe(api, name)["DBInstanceStatus"])


def sync(api: Any) -> str:
    [group] = describe(api)["DBParameterGroups"]
    return str(group["ParameterApplyStatus"])


def group(api: Any, **values: str) -> None:
    api.create_db_parameter_group(
        DBParameterGroupName="own", DBParameterGroupFamily="postgres17", Description="own"
    )
    change(api, **values)


def change(api: Any, method: str = "immediate", **values: str) -> None:
    if values:
        api.modify_db_parameter_group(
            DBParameterGroupName="own",
            Parameters=[
                {"ParameterName": name, "ParameterValue": value, "ApplyMethod": method}
                for name, value in values.items()
            ],
        )


# --- life
def test_states_wait_for_the_database(
    api: Any, create: Any, databases: DatabaseRecorder, client: Any
) -> None:
    assert create()["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in describe(api)
    assert rds.endpoints() == {}
    databases.report("main", Event.RUNNING)
    found = describe(api)
    assert found["DBInstanceStatus"] == "available"
    name = found["Endpoint"]["Address"]
    assert name.startswith("main.c")
    assert name.endswith(".us-east-1.rds.amazonaws.com")
    assert rds.endpoints()[name].startswith("10.1.1.")
    assert found["AvailabilityZone"] == "us-east-1a"
    assert found["EngineVersion"] == "17.6"
    assert found["PubliclyAccessible"] is False
    api.reboot_db_instance(DBInstanceIdentifier="main")
    assert status(api) == "rebooting"
    databases.report("main", Event.RUNNING)
    api.stop_db_instance(DBInstanceIdentifier="main")
    assert status(api) == "stopping"
    databases.report("main", Event.STOPPED)
    assert status(api) == "stopped"
    api.start_db_instance(DBInstanceIdentifier="main")
    assert status(api) == "starting"
    databases.report("main", Event.RUNNING)
    api.delete_db_instance(DBInstanceIdentifier="main", SkipFinalSnapshot=True)
    assert status(api) == "deleting"
    databases.report("main", Event.TERMINATED)
    with pytest.raises(ClientError, match="DBInstanceNotFound"):
        describe(api)
    assert databases.orders == ["launch", "reboot", "stop", "start", "terminate"]
    interfaces = client("ec2").describe_network_interfaces()["NetworkInterfaces"]
    assert [i for i in interfaces if i["Description"] == "RDSNetworkInterface"] == []


@pytest.mark.parametrize(
    ("events", "call"),
    [
        ([], "reboot_db_instance"),
        ([], "stop_db_instance"),
        ([Event.RUNNING], "start_db_instance"),
        ([Event.RUNNING, Event.STOPPED], "reboot_db_instance"),
    ],
)
def test_calls_that_the_state_forbids(
    api: Any, create: Any, databases: DatabaseRecorder, events: list[Event], call: str
) -> None:
    create()
    for event in events:
        databases.report("main", event)
    with pytest.raises(ClientError, match="InvalidDBInstanceState"):
        getattr(api, call)(DBInstanceIdentifier="main")


def test_a_database_that_cannot_be_made_has_failed(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    create()
    databases.report("main", Event.FAILED, "no room")
    assert status(api) == "failed"
    api.delete_db_instance(DBInstanceIdentifier="main", SkipFinalSnapshot=True)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"StorageType": "gp2"}, (None, None)),
        ({"StorageType": "gp3"}, (3000, 125)),
        ({"StorageType": "gp3", "AllocatedStorage": 400}, (12000, 500)),
        ({"StorageType": "gp3", "AllocatedStorage": 400, "Iops": 13000}, (13000, 500)),
    ],
)
def test_storage_does_what_its_type_does(
    create: Any, wanted: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    found = create(**wanted)
    assert (found.get("Iops"), found.get("StorageThroughput")) == expected


def test_it_stands_in_the_zone_that_was_asked_for(create: Any) -> None:
    assert create(AvailabilityZone="us-east-1b")["AvailabilityZone"] == "us-east-1b"


def test_its_address_is_nobody_elses(create: Any, client: Any, subnets: list[str]) -> None:
    create()
    ec2 = client("ec2")
    [own] = [
        i
        for i in ec2.describe_network_interfaces()["NetworkInterfaces"]
        if i["Description"] == "RDSNetworkInterface"
    ]
    other = ec2.create_network_interface(SubnetId=subnets[0])["NetworkInterface"]
    assert other["PrivateIpAddress"] != own["PrivateIpAddress"]
    with pytest.raises(ClientError, match="InUse"):
        ec2.delete_network_interface(NetworkInterfaceId=own["NetworkInterfaceId"])


def test_what_it_stands_in_stays(create: Any, client: Any, subnets: list[str]) -> None:
    [group] = create()["VpcSecurityGroups"]
    ec2 = client("ec2")
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_security_group(GroupId=group["VpcSecurityGroupId"])
    with pytest.raises(ClientError, match="DependencyViolation"):
        ec2.delete_subnet(SubnetId=subnets[0])


def test_deletion_protection_holds(api: Any, create: Any, databases: DatabaseRecorder) -> None:
    create(DeletionProtection=True)
    databases.report("main", Event.RUNNING)
    with pytest.raises(ClientError, match=r"InvalidParameterCombination.*protect"):
        api.delete_db_instance(DBInstanceIdentifier="main", SkipFinalSnapshot=True)
    api.modify_db_instance(DBInstanceIdentifier="main", DeletionProtection=False)
    api.delete_db_instance(DBInstanceIdentifier="main", SkipFinalSnapshot=True)


# --- what is refused
@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"Engine": "mysql"}, "NotTrueInTheLab"),
        ({"Engine": "aurora-postgresql"}, "NotTrueInTheLab"),
        ({"Engine": "dbase"}, "InvalidParameterValue"),
        (
            {"MultiAZ": True, "AvailabilityZone": "us-east-1a"},
            "InvalidParameterCombination",
        ),
        ({"PubliclyAccessible": True}, "NotTrueInTheLab"),
        ({"EngineVersion": "16.4"}, "InvalidParameterCombination.*Cannot find version 16.4 for"),
        ({"EngineVersion": "17.7"}, "InvalidParameterCombination.*Cannot find version"),
        ({"EngineVersion": "17.x"}, "InvalidParameterCombination"),
        ({"DBInstanceClass": "large"}, "InvalidParameterValue"),
        ({"DBInstanceClass": "db.t2.micro"}, "InvalidParameterCombination"),
        ({"AllocatedStorage": 5}, "InvalidParameterValue"),
        ({"AllocatedStorage": None}, "MissingParameter"),
        ({"StorageType": "tape"}, "InvalidParameterValue"),
        ({"MasterUserPassword": "short"}, "InvalidParameterValue"),
        ({"MasterUserPassword": "with space in"}, "InvalidParameterValue"),
        ({"MasterUserPassword": None}, "InvalidParameterValue"),
        ({"ManageMasterUserPassword": True}, "InvalidParameterCombination"),
        ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue"),
        ({"MasterUsername": "pg_boss"}, "InvalidParameterValue"),
        ({"MasterUsername": 'a"; --'}, "InvalidParameterValue"),
        ({"DBName": "rdsadmin"}, "InvalidParameterValue"),
        ({"DBName": "a b"}, "InvalidParameterValue"),
        ({"DBSubnetGroupName": "none"}, "DBSubnetGroupNotFound"),
        ({"AvailabilityZone": "us-east-1c"}, "InvalidVPCNetworkState"),
        ({"VpcSecurityGroupIds": ["sg-0123"]}, "InvalidParameterValue"),
        ({"DBParameterGroupName": "none"}, "DBParameterGroupNotFound"),
        ({"DBInstanceIdentifier": "9"}, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_created(
    api: Any, create: Any, databases: DatabaseRecorder, wanted: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError, match=code):
        create(**wanted)
    assert databases.orders == []
    assert api.describe_db_instances()["DBInstances"] == []


@pytest.mark.parametrize("version", ["17", "17.1", "17.6"])
def test_a_version_that_is_there_is_what_really_runs(create: Any, version: str) -> None:
    assert create(EngineVersion=version)["EngineVersion"] == "17.6"


def test_security_groups_of_another_vpc_are_refused(create: Any, client: Any) -> None:
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    other = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    with pytest.raises(ClientError, match="InvalidVPCNetworkState"):
        create(VpcSecurityGroupIds=[other])


def test_a_subnet_group_has_two_zones(api: Any, subnets: list[str]) -> None:
    group = {"DBSubnetGroupName": "one", "DBSubnetGroupDescription": "one"}
    with pytest.raises(ClientError, match="DBSubnetGroupDoesNotCoverEnoughAZs"):
        api.create_db_subnet_group(**group, SubnetIds=subnets[:1])


def test_a_subnet_group_in_use_stays(api: Any, main: str) -> None:
    with pytest.raises(ClientError, match="InvalidDBSubnetGroupState"):
        api.delete_db_subnet_group(DBSubnetGroupName="data")


def test_without_a_subnet_group_it_stands_in_the_default_vpc(create: Any) -> None:
    assert create(DBSubnetGroupName=None)["DBSubnetGroup"]["DBSubnetGroupName"] == "default"


# --- what there is
def test_versions_and_classes(api: Any) -> None:
    [version] = api.describe_db_engine_versions(Engine="postgres")["DBEngineVersions"]
    assert version["EngineVersion"] == "17.6"
    assert version["DBParameterGroupFamily"] == "postgres17"
    assert api.describe_db_engine_versions(Engine="mysql")["DBEngineVersions"] == []
    pages = api.get_paginator("describe_orderable_db_instance_options").paginate(Engine="postgres")
    options = [o for page in pages for o in page["OrderableDBInstanceOptions"]]
    assert {"db.t3.micro", "db.r7g.large"} <= {o["DBInstanceClass"] for o in options}
    assert len({(o["DBInstanceClass"], o["StorageType"]) for o in options}) == len(options) > 100
    one = api.describe_orderable_db_instance_options(
        Engine="postgres", DBInstanceClass="db.t3.micro"
    )["OrderableDBInstanceOptions"]
    assert {o["StorageType"] for o in one} == {"gp2", "gp3", "io1", "io2", "standard"}
    assert all(o["MultiAZCapable"] and not o["ReadReplicaCapable"] for o in options)


# --- passwords
def test_a_managed_password_is_the_databases(
    api: Any, create: Any, databases: DatabaseRecorder, client: Any
) -> None:
    found = create(MasterUserPassword=None, ManageMasterUserPassword=True)
    arn = found["MasterUserSecret"]["SecretArn"]
    manager = client("secretsmanager")
    secret = json.loads(manager.get_secret_value(SecretId=arn)["SecretString"])
    assert secret["username"] == "boss"
    assert f"PASSWORD '{secret['password']}'" in databases.sql[0]
    databases.report("main", Event.RUNNING)
    api.modify_db_instance(
        DBInstanceIdentifier="main", RotateMasterUserPassword=True, ApplyImmediately=True
    )
    fresh = json.loads(manager.get_secret_value(SecretId=arn)["SecretString"])
    assert fresh["password"] != secret["password"]
    assert f"PASSWORD '{fresh['password']}'" in databases.sql[-1]


def test_a_new_password_reaches_the_database(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    api.modify_db_instance(DBInstanceIdentifier=main, MasterUserPassword="another-word")
    assert status(api) == "resetting-master-credentials"
    assert "PASSWORD 'another-word'" in databases.sql[-1]
    databases.finish()
    assert status(api) == "available"


# --- modifications
def test_a_class_waits_for_the_window_or_is_applied_at_once(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    api.modify_db_instance(DBInstanceIdentifier=main, DBInstanceClass="db.t3.small")
    assert status(api) == "available"
    assert describe(api)["PendingModifiedValues"] == {"DBInstanceClass": "db.t3.small"}
    assert databases.orders == ["launch"]
    api.modify_db_instance(DBInstanceIdentifier=main, AllocatedStorage=30, ApplyImmediately=True)
    found = describe(api)
    assert found["DBInstanceStatus"] == "modifying"
    assert found["DBInstanceClass"] == "db.t3.micro"
    assert databases.orders == ["launch", "reboot"]
    databases.report(main, Event.RUNNING)
    found = describe(api)
    assert (found["DBInstanceClass"], found["AllocatedStorage"]) == ("db.t3.small", 30)
    assert found["PendingModifiedValues"] == {}
    assert found["DBInstanceStatus"] == "available"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"AllocatedStorage": 10}, "InvalidParameterCombination"),
        ({"NewDBInstanceIdentifier": "other"}, "NotTrueInTheLab"),
        ({"EngineVersion": "18.1"}, "Cannot find version"),
        ({"DBInstanceClass": "db.t1.micro"}, "InvalidParameterCombination"),
        ({"DBParameterGroupName": "none"}, "DBParameterGroupNotFound"),
        ({"RotateMasterUserPassword": True}, "InvalidParameterCombination"),
    ],
)
def test_what_cannot_be_modified(
    api: Any, main: str, databases: DatabaseRecorder, wanted: dict[str, Any], code: str
) -> None:
    before = describe(api)
    with pytest.raises(ClientError, match=code):
        api.modify_db_instance(DBInstanceIdentifier=main, **wanted)
    assert describe(api) == before
    assert databases.orders == ["launch"]


def test_what_is_there_already_changes_nothing(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    api.modify_db_instance(
        DBInstanceIdentifier=main, DBInstanceClass="db.t3.micro", AllocatedStorage=20,
        EngineVersion="17", CopyTagsToSnapshot=True, ApplyImmediately=True,
    )  # fmt: skip
    assert status(api) == "available"
    assert databases.orders == ["launch"]
    assert describe(api)["CopyTagsToSnapshot"] is True
    assert describe(api)["EngineVersion"] == "17.6"


# --- two servers
def pair(databases: DatabaseRecorder, name: str = "main") -> Any:
    """Let an instance have a standby that has all."""
    backend, instance = rds.find(name) or (None, None)
    assert backend is not None
    backend.add_standby(instance)
    backend.secured(instance)
    return instance


def events(api: Any) -> list[str]:
    found = api.describe_events(SourceIdentifier="main", SourceType="db-instance")["Events"]
    return [event["Message"] for event in found]


def own_interfaces(client: Any) -> list[dict[str, Any]]:
    found = client("ec2").describe_network_interfaces()["NetworkInterfaces"]
    return [i for i in found if i["Description"] == "RDSNetworkInterface"]


def test_an_instance_is_multi_az_once_its_standby_has_all(
    api: Any, main: str, databases: DatabaseRecorder, client: Any
) -> None:
    api.modify_db_instance(DBInstanceIdentifier=main, MultiAZ=True)
    assert describe(api)["PendingModifiedValues"] == {"MultiAZ": True}
    assert databases.orders == ["launch"], "it waits for the window"
    api.modify_db_instance(DBInstanceIdentifier=main, MultiAZ=True, ApplyImmediately=True)
    databases.finish()
    assert databases.orders == ["launch", "reload", "pair"]
    found = describe(api)
    assert (found["DBInstanceStatus"], found["MultiAZ"]) == ("modifying", False)
    assert found["PendingModifiedValues"] == {"MultiAZ": True}
    instance = pair(databases)
    found = describe(api)
    assert (found["DBInstanceStatus"], found["MultiAZ"]) == ("available", True)
    assert found["PendingModifiedValues"] == {}
    assert found["AvailabilityZone"] == "us-east-1a"
    assert found["SecondaryAvailabilityZone"] == "us-east-1b"
    assert instance.standby.address.startswith("10.1.2.")
    assert len(own_interfaces(client)) == 2
    assert "Finished applying modification to convert to a Multi-AZ DB instance" in events(api)


def test_an_instance_is_created_multi_az(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    assert create(MultiAZ=True)["MultiAZ"] is True
    databases.report("main", Event.RUNNING)
    assert status(api) == "creating"
    assert rds.endpoints() == {}
    pair(databases)
    assert status(api) == "available"
    assert databases.orders == ["launch", "pair"]


def test_a_restored_instance_is_multi_az_if_that_is_asked_for(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    create(MultiAZ=True)
    databases.report("main", Event.RUNNING)
    pair(databases)
    api.create_db_snapshot(DBSnapshotIdentifier="one", DBInstanceIdentifier="main")
    databases.finish()
    for name, more in (("single", {}), ("double", {"MultiAZ": True})):
        made = api.restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier=name, DBSnapshotIdentifier="one", DBSubnetGroupName="data", **more
        )["DBInstance"]
        assert made["MultiAZ"] is bool(more)


def test_a_failover_moves_the_endpoint_to_the_other_zone(
    api: Any, main: str, databases: DatabaseRecorder, client: Any
) -> None:
    api.modify_db_instance(DBInstanceIdentifier=main, MultiAZ=True, ApplyImmediately=True)
    databases.finish()
    instance = pair(databases)
    before, [address] = instance.primary, rds.endpoints().values()
    api.reboot_db_instance(DBInstanceIdentifier=main, ForceFailover=True)
    assert status(api) == "rebooting"
    assert databases.orders[-1] == "fail over"
    backend, _ = rds.find(main) or (None, None)
    assert backend is not None
    backend.failed_over(instance)
    found = describe(api)
    assert (found["DBInstanceStatus"], found["AvailabilityZone"]) == ("available", "us-east-1b")
    assert "SecondaryAvailabilityZone" not in found
    assert list(rds.endpoints().values()) != [address]
    assert databases.servers_removed == [before]
    assert not instance.synchronous
    with pytest.raises(ClientError, match="InvalidDBInstanceState"):
        api.reboot_db_instance(DBInstanceIdentifier=main, ForceFailover=True)
    assert len(own_interfaces(client)) == 2, "its address is nobody else's until it is gone"
    backend.gone(instance, before.key)
    assert len(own_interfaces(client)) == 1
    backend.add_standby(instance)
    assert instance.standby.key not in (before.key, instance.key)
    assert describe(api)["SecondaryAvailabilityZone"] == "us-east-1a"


def test_a_single_instance_has_nothing_to_fail_over_to(api: Any, main: str) -> None:
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        api.reboot_db_instance(DBInstanceIdentifier=main, ForceFailover=True)


def test_it_becomes_single_again(api: Any, create: Any, databases: DatabaseRecorder) -> None:
    create(MultiAZ=True)
    databases.report("main", Event.RUNNING)
    instance = pair(databases)
    standby = instance.standby
    api.modify_db_instance(DBInstanceIdentifier="main", MultiAZ=False, ApplyImmediately=True)
    assert (instance.guarded, instance.synchronous) == (False, False)
    assert databases.servers_removed == [], "not before commits wait for nobody"
    databases.finish()
    found = describe(api)
    assert (found["DBInstanceStatus"], found["MultiAZ"]) == ("available", False)
    assert "SecondaryAvailabilityZone" not in found
    assert databases.servers_removed == [standby]


def test_both_servers_have_the_groups_and_keep_their_subnets(
    api: Any, create: Any, databases: DatabaseRecorder, client: Any, subnets: list[str]
) -> None:
    create(MultiAZ=True)
    databases.report("main", Event.RUNNING)
    pair(databases)
    ec2 = client("ec2")
    [vpc] = {i["VpcId"] for i in own_interfaces(client)}
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    api.modify_db_instance(DBInstanceIdentifier="main", VpcSecurityGroupIds=[group])
    assert [[g["GroupId"] for g in i["Groups"]] for i in own_interfaces(client)] == [[group]] * 2
    third = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.3.0/24", AvailabilityZone="us-east-1c")[
        "Subnet"
    ]["SubnetId"]
    with pytest.raises(ClientError, match="SubnetAlreadyInUse"):
        api.modify_db_subnet_group(DBSubnetGroupName="data", SubnetIds=[subnets[0], third])


def test_an_instance_is_forgotten_with_its_last_server(
    api: Any, create: Any, databases: DatabaseRecorder, client: Any
) -> None:
    create(MultiAZ=True)
    databases.report("main", Event.RUNNING)
    instance = pair(databases)
    backend, _ = rds.find("main") or (None, None)
    assert backend is not None
    api.delete_db_instance(DBInstanceIdentifier="main", SkipFinalSnapshot=True)
    databases.report("main", Event.TERMINATED)
    assert status(api) == "deleting"
    assert databases.archives_removed == []
    backend.gone(instance, instance.standby.key)
    assert api.describe_db_instances()["DBInstances"] == []
    assert databases.archives_removed == [instance.archive]
    assert own_interfaces(client) == []


# --- parameters
def test_static_parameters_wait_for_a_reboot(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    group(api)
    create(DBParameterGroupName="own")
    databases.report("main", Event.RUNNING)
    assert sync(api) == "in-sync"
    change(api, "pending-reboot", **{"rds.logical_replication": "1"})
    assert sync(api) == "pending-reboot"
    assert databases.orders == ["launch"]
    api.reboot_db_instance(DBInstanceIdentifier="main")
    assert sync(api) == "applying"
    databases.report("main", Event.RUNNING)
    assert sync(api) == "in-sync"


def test_dynamic_parameters_are_applied_at_once(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    group(api)
    create(DBParameterGroupName="own")
    databases.report("main", Event.RUNNING)
    change(api, work_mem="9000")
    assert databases.orders == ["launch", "reload"]
    assert sync(api) == "applying"
    databases.finish()
    assert sync(api) == "in-sync"
    api.reset_db_parameter_group(DBParameterGroupName="own", ResetAllParameters=True)
    assert databases.orders == ["launch", "reload", "reload"]


def test_a_dynamic_parameter_may_wait_as_well(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    group(api)
    create(DBParameterGroupName="own")
    databases.report("main", Event.RUNNING)
    change(api, "pending-reboot", work_mem="9000")
    assert databases.orders == ["launch"]
    assert sync(api) == "pending-reboot"


def test_another_group_waits_for_a_reboot(api: Any, main: str, databases: DatabaseRecorder) -> None:
    group(api, work_mem="9000")
    api.modify_db_instance(DBInstanceIdentifier=main, DBParameterGroupName="own")
    assert sync(api) == "pending-reboot"
    change(api, work_mem="9001")
    assert databases.orders == ["launch"], "it is not in force yet"
    api.reboot_db_instance(DBInstanceIdentifier=main)
    databases.report(main, Event.RUNNING)
    assert sync(api) == "in-sync"


def test_all_parameters_are_listed_with_where_they_come_from(api: Any) -> None:
    group(api, work_mem="9000")
    pages = api.get_paginator("describe_db_parameters").paginate(DBParameterGroupName="own")
    found = {p["ParameterName"]: p for page in pages for p in page["Parameters"]}
    assert found["work_mem"]["Source"] == "user"
    assert found["work_mem"]["ParameterValue"] == "9000"
    assert found["work_mem"]["ApplyType"] == "dynamic"
    assert found["shared_buffers"]["ParameterValue"] == "{DBInstanceClassMemory/32768}"
    assert found["shared_buffers"]["Source"] == "system"
    assert found["wal_level"]["IsModifiable"] is False
    own = api.describe_db_parameters(DBParameterGroupName="own", Source="user")["Parameters"]
    assert [p["ParameterName"] for p in own] == ["work_mem"]
    small = api.get_paginator("describe_db_parameters").paginate(
        DBParameterGroupName="own", PaginationConfig={"PageSize": 3}
    )
    assert [p["ParameterName"] for page in small for p in page["Parameters"]] == sorted(found)


@pytest.mark.parametrize(
    ("name", "value", "method", "code"),
    [
        ("work_memory", "1", "immediate", "InvalidParameterValue"),
        ("work_mem", "1", "immediate", "InvalidParameterValue"),
        ("wal_level", "logical", "pending-reboot", "InvalidParameterValue"),
        ("max_connections", "50", "immediate", "InvalidParameterCombination"),
    ],
)
def test_what_no_group_takes(api: Any, name: str, value: str, method: str, code: str) -> None:
    group(api)
    with pytest.raises(ClientError, match=code):
        change(api, method, **{name: value})
    own = api.describe_db_parameters(DBParameterGroupName="own", Source="user")["Parameters"]
    assert own == []


def test_groups_that_stay(api: Any, create: Any) -> None:
    with pytest.raises(ClientError, match="InvalidDBParameterGroupState"):
        api.delete_db_parameter_group(DBParameterGroupName="default.postgres17")
    group(api)
    create(DBParameterGroupName="own")
    with pytest.raises(ClientError, match="InvalidDBParameterGroupState"):
        api.delete_db_parameter_group(DBParameterGroupName="own")
    with pytest.raises(ClientError, match="NotTrueInTheLab"):
        api.create_db_parameter_group(
            DBParameterGroupName="x", DBParameterGroupFamily="mysql8.0", Description="x"
        )


# --- backups
def test_a_snapshot_takes_its_time(api: Any, main: str, databases: DatabaseRecorder) -> None:
    snapshot = {"DBSnapshotIdentifier": "one", "DBInstanceIdentifier": main}
    made = api.create_db_snapshot(**snapshot)["DBSnapshot"]
    assert (made["Status"], made["PercentProgress"]) == ("creating", 0)
    assert status(api) == "backing-up"
    with pytest.raises(ClientError, match="InvalidDBSnapshotState"):
        api.delete_db_snapshot(DBSnapshotIdentifier="one")
    databases.finish()
    [made] = api.describe_db_snapshots(DBSnapshotIdentifier="one")["DBSnapshots"]
    assert (made["Status"], made["PercentProgress"]) == ("available", 100)
    assert status(api) == "available"
    api.delete_db_snapshot(DBSnapshotIdentifier="one")
    assert len(databases.removed) == 1


def test_a_final_snapshot_outlives_its_instance_and_is_restored(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    with pytest.raises(ClientError, match="FinalDBSnapshotIdentifier is required"):
        api.delete_db_instance(DBInstanceIdentifier=main)
    api.delete_db_instance(DBInstanceIdentifier=main, FinalDBSnapshotIdentifier="last")
    databases.finish()
    databases.report(main, Event.TERMINATED)
    restored = api.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="again", DBSnapshotIdentifier="last", DBSubnetGroupName="data"
    )["DBInstance"]
    assert restored["MasterUsername"] == "boss"
    assert restored["DBInstanceClass"] == "db.t3.micro"
    assert restored["DBInstanceStatus"] == "creating"
    source = databases.sources[-1]
    assert source is not None
    assert source.archive == ""
    assert databases.removed == []


def test_without_its_final_snapshot_an_instance_stays(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    api.delete_db_instance(DBInstanceIdentifier=main, FinalDBSnapshotIdentifier="last")
    assert status(api) == "deleting"
    databases.finish("the disk is full")
    assert status(api) == "available"
    assert databases.orders == ["launch", "back up"]
    [snapshot] = api.describe_db_snapshots(DBSnapshotIdentifier="last")["DBSnapshots"]
    assert snapshot["Status"] == "failed"


def test_automated_backups_begin_with_the_instance_and_end_with_it(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    create(BackupRetentionPeriod=7)
    databases.report("main", Event.RUNNING)
    assert status(api) == "backing-up"
    databases.finish()
    assert status(api) == "available"
    found = api.describe_db_snapshots(SnapshotType="automated")["DBSnapshots"]
    assert [s["DBSnapshotIdentifier"].startswith("rds:main-") for s in found] == [True]
    api.delete_db_instance(DBInstanceIdentifier="main", SkipFinalSnapshot=True)
    databases.report("main", Event.TERMINATED)
    assert api.describe_db_snapshots()["DBSnapshots"] == []
    assert len(databases.removed) == 1


def test_a_point_in_time_needs_a_backup_and_an_archive_that_reach_it(
    api: Any, create: Any, databases: DatabaseRecorder
) -> None:
    create(BackupRetentionPeriod=1)
    databases.report("main", Event.RUNNING)

    def restore(**when: Any) -> dict[str, Any]:
        answer = api.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier="main", TargetDBInstanceIdentifier="again",
            DBSubnetGroupName="data", **when,
        )  # fmt: skip
        return dict(answer["DBInstance"])

    assert "LatestRestorableTime" not in describe(api)
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        restore(UseLatestRestorableTime=True)
    databases.finish()
    databases.until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    assert describe(api)["LatestRestorableTime"]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        restore(RestoreTime=databases.until + datetime.timedelta(seconds=60))
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        restore(RestoreTime=NOW - datetime.timedelta(days=1))
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        restore()
    assert restore(RestoreTime=databases.until)["DBInstanceIdentifier"] == "again"
    source = databases.sources[-1]
    assert source is not None
    assert source.archive.startswith("db-")
    assert source.until is not None
    assert source.until.endswith("+00:00")


def test_without_retention_there_is_no_point_in_time(api: Any, main: str) -> None:
    with pytest.raises(ClientError, match="PointInTimeRestoreNotEnabled"):
        api.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier=main, TargetDBInstanceIdentifier="again",
            UseLatestRestorableTime=True,
        )  # fmt: skip


def test_backups_begin_and_end_with_their_retention(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    def retain(days: int, **more: Any) -> None:
        api.modify_db_instance(DBInstanceIdentifier=main, BackupRetentionPeriod=days, **more)

    retain(3)
    assert describe(api)["PendingModifiedValues"] == {"BackupRetentionPeriod": 3}
    retain(3, ApplyImmediately=True)
    assert status(api) == "modifying"
    databases.finish()
    assert status(api) == "backing-up"
    databases.finish()
    assert len(api.describe_db_snapshots(SnapshotType="automated")["DBSnapshots"]) == 1
    retain(7)
    assert describe(api)["BackupRetentionPeriod"] == 7, "this one does not wait"
    assert status(api) == "available"
    retain(0, ApplyImmediately=True)
    databases.finish()
    assert status(api) == "available"
    assert api.describe_db_snapshots(SnapshotType="automated")["DBSnapshots"] == []
    assert len(databases.removed) == 1


def test_a_restored_instance_is_no_replica_and_not_smaller_than_its_source(
    api: Any, main: str, databases: DatabaseRecorder
) -> None:
    api.create_db_snapshot(DBSnapshotIdentifier="one", DBInstanceIdentifier=main)
    restore = {
        "DBInstanceIdentifier": "two",
        "DBSnapshotIdentifier": "one",
        "DBSubnetGroupName": "data",
    }
    with pytest.raises(ClientError, match="InvalidDBSnapshotState"):
        api.restore_db_instance_from_db_snapshot(**restore)
    databases.finish()
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        api.restore_db_instance_from_db_snapshot(**restore, AllocatedStorage=10)
    found = api.restore_db_instance_from_db_snapshot(**restore, AllocatedStorage=25)["DBInstance"]
    assert found["AllocatedStorage"] == 25
    assert "ReadReplicaSourceDBInstanceIdentifier" not in found
    assert found["OptionGroupMemberships"][0]["OptionGroupName"] == "default:postgres-17"
    with pytest.raises(ClientError, match="DBInstanceAlreadyExists"):
        api.restore_db_instance_from_db_snapshot(**restore)
