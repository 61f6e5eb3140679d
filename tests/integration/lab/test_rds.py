"""RDS for PostgreSQL: a server behind its endpoint, with the rights, states and backups of AWS."""

from __future__ import annotations

import datetime
import hashlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import lifecycle
from lab.podman import Podman
from lab.region import Link
from lab.settings import Settings
from tests.integration.lab.conftest import Aws, Box, eventually

pytestmark = pytest.mark.lab

PASSWORD = "a-word-of-the-tests"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass
class Instance:
    """A database under test, and the host that asks it."""

    aws: Aws
    api: Any
    name: str
    box: Box
    word: str = PASSWORD

    def describe(self) -> dict[str, Any]:
        found = self.api.describe_db_instances(DBInstanceIdentifier=self.name)
        return dict(found["DBInstances"][0])

    @property
    def status(self) -> str:
        return str(self.describe()["DBInstanceStatus"])

    @property
    def host(self) -> str:
        return str(self.describe()["Endpoint"]["Address"])

    @property
    def applied(self) -> str:
        return str(self.describe()["DBParameterGroups"][0]["ParameterApplyStatus"])

    @property
    def address(self) -> str:
        return self.box.run(f"getent ahostsv4 {self.host}").split()[0]

    @property
    def container(self) -> str:
        resource = self.describe()["DbiResourceId"]
        key = "db-" + hashlib.sha256(resource.encode()).hexdigest()[:17]
        return Link(self.aws.settings, key).namespace

    @property
    def private(self) -> str:
        status = lifecycle.status(self.aws.settings)
        [found] = [d for d in status["databases"] if d["id"] == self.name]
        return str(found["private_address"])

    def inside(self, command: str) -> str:
        """Run a command in the container: what nobody can do on AWS."""
        podman = Podman.of(self.aws.settings)
        return podman("exec", self.container, "/bin/sh", "-c", command).strip()

    def wait(self, status: str = "available", deadline: float = 90.0) -> Instance:
        eventually(lambda: self.status == status, deadline)
        return self

    def try_sql(
        self, *statements: str, user: str = "boss", word: str = "", database: str = "shop",
        tls: str = "verify-full", host: str = "",
    ) -> tuple[int, str]:  # fmt: skip
        """Run statements as psql does, each on its own; return its status, and what it said."""
        where = (
            f"host={host or self.host} user={user} dbname={database} sslmode={tls}"
            f" sslrootcert={BUNDLE} connect_timeout=3"
        )
        script = "\n".join(f"{statement};" for statement in statements)
        done = self.box.try_run(
            f"PGPASSWORD='{word or self.word}' psql -XAtq -v ON_ERROR_STOP=1 '{where}' 2>&1"
            f" <<'END'\n{script}\nEND"
        )
        return done.returncode, done.stdout.strip()

    def sql(self, *statements: str, **where: str) -> str:
        status, said = self.try_sql(*statements, **where)
        assert status == 0, said
        return said


Creator = Callable[..., Instance]


@pytest.fixture(scope="module")
def group(aws: Aws) -> str:
    """The databases' security group: one host's group is let in."""
    return aws.group("databases")


@pytest.fixture(scope="module")
def client_group(aws: Aws, group: str) -> str:
    clients = aws.group("clients")
    aws.allow(group, 5432, clients)
    aws.allow(group, 5432, group)
    return clients


@pytest.fixture(scope="module")
def boxes(aws: Aws, client_group: str) -> Iterator[tuple[Box, Box]]:
    """A host whose group is let in, and one whose group is not."""
    boxes = aws.launch(client_group, size="t3.small"), aws.launch()
    for box in boxes:
        box.wait("running")
    boxes[0].run(
        "cloud-init status --wait >/dev/null;"
        " sudo apt-get install -qq -y --no-download --no-install-recommends postgresql-client"
    )
    yield boxes
    aws.terminate(*boxes)


@pytest.fixture(scope="module")
def api(aws: Aws, group: str) -> Any:
    api = aws.client("rds")
    api.create_db_subnet_group(
        DBSubnetGroupName="data",
        DBSubnetGroupDescription="data",
        SubnetIds=[aws.public_subnet, aws.private_subnet],
    )
    api.create_db_parameter_group(
        DBParameterGroupName="own", DBParameterGroupFamily="postgres17", Description="own"
    )
    return api


@pytest.fixture(scope="module")
def db(aws: Aws, api: Any, group: str, boxes: tuple[Box, Box]) -> Iterator[Instance]:
    """The one instance that most tests share; with backups."""
    began = time.monotonic()
    api.create_db_instance(
        DBInstanceIdentifier="main",
        DBInstanceClass="db.t3.micro",
        Engine="postgres",
        EngineVersion="17",
        AllocatedStorage=20,
        MasterUsername="boss",
        MasterUserPassword=PASSWORD,
        DBName="shop",
        DBSubnetGroupName="data",
        DBParameterGroupName="own",
        VpcSecurityGroupIds=[group],
        AvailabilityZone="us-east-1b",
        BackupRetentionPeriod=1,
        Tags=[{"Key": "tier", "Value": "data"}],
    )
    found = Instance(aws, api, "main", boxes[0])
    assert found.status == "creating"
    with pytest.raises(ClientError, match="InvalidDBInstanceState"):
        api.reboot_db_instance(DBInstanceIdentifier="main")
    found.wait()
    assert time.monotonic() - began < 60
    yield found


def speaks_postgres(address: str) -> bool:
    """Say whether a server at an address agrees to TLS as PostgreSQL does."""
    try:
        with socket.create_connection((address, 5432), 1) as connection:
            connection.sendall(struct.pack("!ii", 8, 80877103))
            return connection.recv(1) == b"S"
    except OSError:
        return False


def change(api: Any, method: str, **values: str) -> None:
    api.modify_db_parameter_group(
        DBParameterGroupName="own",
        Parameters=[
            {"ParameterName": name, "ParameterValue": value, "ApplyMethod": method}
            for name, value in values.items()
        ],
    )


# --- the way in
def test_it_answers_at_its_endpoint_and_its_certificate_fits(db: Instance) -> None:
    assert db.sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
    assert db.address == db.private
    assert db.private.startswith("10.77.1."), "it stands in the zone that was asked for"


def test_what_runs_is_what_the_api_says(db: Instance) -> None:
    assert db.sql("SHOW server_version").split()[0] == db.describe()["EngineVersion"]
    assert db.sql("SELECT datname FROM pg_database WHERE datdba::regrole::text = 'boss'"
                  " ORDER BY 1").split() == ["postgres", "shop", "template1"]  # fmt: skip


def test_without_tls_nobody_comes_in(db: Instance) -> None:
    status, said = db.try_sql("SELECT 1", tls="disable")
    assert status == 2
    assert "no pg_hba.conf entry" in said
    assert "no encryption" in said


def test_who_is_not_let_in_waits_in_vain(db: Instance, boxes: tuple[Box, Box]) -> None:
    probe = f"timeout 2 bash -c '</dev/tcp/{db.private}/5432'"
    assert boxes[0].try_run(probe).returncode == 0
    assert boxes[1].try_run(probe).returncode == 124


def test_from_outside_there_is_no_way(db: Instance) -> None:
    assert db.describe()["PubliclyAccessible"] is False
    assert not speaks_postgres(db.private)


def test_nobody_logs_in_by_ssh(db: Instance) -> None:
    assert db.inside("ls /usr/sbin/sshd 2>&1 || true").endswith("No such file or directory")


def test_security_groups_hold_at_once(
    db: Instance, aws: Aws, api: Any, group: str, boxes: tuple[Box, Box]
) -> None:
    probe = f"timeout 2 bash -c '</dev/tcp/{db.private}/5432'"
    closed = aws.group("closed")
    api.modify_db_instance(DBInstanceIdentifier="main", VpcSecurityGroupIds=[closed])
    assert boxes[0].try_run(probe).returncode == 124
    api.modify_db_instance(DBInstanceIdentifier="main", VpcSecurityGroupIds=[group])
    assert boxes[0].try_run(probe).returncode == 0


# --- the master user
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE DATABASE more",
        "CREATE ROLE somebody LOGIN PASSWORD 'word' IN ROLE rds_password",
        "CREATE EXTENSION pgcrypto",
        "CREATE EXTENSION pg_stat_statements",
        "SELECT count(*) FROM pg_stat_statements",
        "CHECKPOINT",
        "SET session_replication_role = replica",
        "ALTER DATABASE shop SET log_min_duration_statement = 100",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'boss' AND false",
        "SELECT pg_replication_origin_create('one')",
        "SELECT pg_replication_origin_drop('one')",
        "GRANT rds_superuser TO somebody",
        "GRANT pg_create_subscription TO somebody",
        "REVOKE rds_superuser FROM somebody",
        "SELECT count(*) FROM pg_stat_replication",
    ],
)
def test_what_the_master_user_may(db: Instance, statement: str) -> None:
    db.sql(statement)


def test_the_master_user_ends_the_sessions_of_others(db: Instance) -> None:
    db.sql("CREATE ROLE sleeper LOGIN PASSWORD 'sleeper-word'")
    where = f"host={db.host} user=sleeper dbname=shop sslmode=require"
    db.box.run(
        f"PGPASSWORD=sleeper-word nohup psql '{where}' -c 'SELECT pg_sleep(60)'"
        " >/dev/null 2>/tmp/slept </dev/null & true"
    )
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sleeper'"
    eventually(lambda: db.sql(end) == "t", deadline=10)
    eventually(lambda: "terminating connection" in db.box.run("cat /tmp/slept"), deadline=10)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER ROLE boss SUPERUSER",
        "SET ROLE rdsadmin",
        "GRANT rdsadmin TO boss",
        "ALTER ROLE rdsadmin PASSWORD 'word'",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "COPY (SELECT 1) TO '/tmp/file'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "CREATE EXTENSION file_fdw",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc', 'getpid'",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "GRANT pg_execute_server_program TO boss",
        "DROP DATABASE rdsadmin",
        # On RDS it may; PostgreSQL leaves them to superusers (docs/lab.md).
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION plpgsql_call_handler()",
    ],
)
def test_what_the_master_user_may_not(db: Instance, statement: str) -> None:
    status, said = db.try_sql(statement)
    assert status == 3, said
    assert "ERROR" in said


def test_the_superuser_does_not_come_in_from_outside(db: Instance) -> None:
    status, said = db.try_sql("SELECT 1", user="rdsadmin", database="postgres")
    assert status == 2
    assert "pg_hba.conf rejects" in said
    status, said = db.try_sql("SELECT 1", database="rdsadmin")
    assert status == 2


# --- parameters
def test_the_list_is_that_of_the_server(db: Instance, api: Any) -> None:
    pages = api.get_paginator("describe_db_parameters").paginate(DBParameterGroupName="own")
    listed = {p["ParameterName"]: p for page in pages for p in page["Parameters"]}
    running = db.sql("SELECT lower(name), context FROM pg_settings WHERE context <> 'internal'")
    rows = dict(line.split("|") for line in running.splitlines())
    rows = {name: context for name, context in rows.items() if not name.startswith("rds.")}
    assert set(rows) <= set(listed)
    assert {n for n, c in rows.items() if c == "postmaster"} == {
        n for n, p in listed.items() if p["ApplyType"] == "static" and n in rows
    }
    assert listed["rds.force_ssl"]["ParameterValue"] == "1"


def test_parameters_follow_the_class(db: Instance) -> None:
    assert db.sql("SHOW shared_buffers") == "256MB"
    assert int(db.sql("SHOW max_connections")) == 2**30 // 9531392


def test_a_dynamic_parameter_is_in_force_without_a_reboot(db: Instance, api: Any) -> None:
    started = db.sql("SELECT pg_postmaster_start_time()")
    change(api, "immediate", work_mem="12345")
    eventually(lambda: db.sql("SHOW work_mem") == "12345kB")
    eventually(lambda: db.applied == "in-sync")
    change(api, "immediate", **{"rds.force_ssl": "0"})
    eventually(lambda: db.try_sql("SELECT 1", tls="disable")[0] == 0)
    api.reset_db_parameter_group(
        DBParameterGroupName="own",
        Parameters=[{"ParameterName": "rds.force_ssl", "ApplyMethod": "immediate"}],
    )
    eventually(lambda: db.try_sql("SELECT 1", tls="disable")[0] == 2)
    assert db.sql("SELECT pg_postmaster_start_time()") == started


def test_a_static_parameter_waits_for_a_reboot_which_keeps_the_data(db: Instance, api: Any) -> None:
    db.sql("CREATE TABLE kept (id int PRIMARY KEY)", "INSERT INTO kept VALUES (1)")
    change(api, "pending-reboot", **{"rds.logical_replication": "1", "max_connections": "77"})
    assert db.applied == "pending-reboot"
    assert db.sql("SHOW wal_level") == "replica"
    api.reboot_db_instance(DBInstanceIdentifier="main")
    assert db.status == "rebooting"
    db.wait()
    assert db.applied == "in-sync"
    shown = db.sql("SHOW wal_level", "SHOW max_connections", "SHOW rds.logical_replication")
    assert shown.split() == ["logical", "77", "on"]
    assert db.sql("SELECT id FROM kept") == "1"


def test_what_the_server_refuses_is_incompatible(db: Instance, api: Any) -> None:
    change(api, "pending-reboot", shared_buffers="1073741823")
    api.reboot_db_instance(DBInstanceIdentifier="main")
    db.wait("incompatible-parameters", deadline=30)
    assert db.try_sql("SELECT 1")[0] == 2
    api.reset_db_parameter_group(
        DBParameterGroupName="own",
        Parameters=[{"ParameterName": "shared_buffers", "ApplyMethod": "pending-reboot"}],
    )
    api.reboot_db_instance(DBInstanceIdentifier="main")
    db.wait()
    assert db.sql("SELECT id FROM kept") == "1"


# --- logical replication
def test_a_member_of_rds_replication_replicates(db: Instance) -> None:
    """From one database of the instance into another, as a move does between two."""
    db.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, what text)",
        "INSERT INTO orders VALUES (1, 'first')",
        "CREATE PUBLICATION all_orders FOR TABLE orders",
        "CREATE ROLE mover LOGIN PASSWORD 'mover-word'",
        "GRANT SELECT ON orders TO mover",
    )
    slot = "SELECT pg_create_logical_replication_slot('orders', 'pgoutput')"
    where = {"user": "mover", "word": "mover-word"}
    status, said = db.try_sql(slot, **where)
    assert status == 3
    assert "permission denied to use replication slots" in said
    db.sql("GRANT rds_replication TO mover")
    eventually(lambda: db.try_sql(slot, **where)[0] == 0, deadline=5)
    db.sql("CREATE DATABASE target")
    connection = f"host={db.host} user=mover password=mover-word dbname=shop sslmode=require"
    db.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, what text)",
        f"CREATE SUBSCRIPTION orders CONNECTION '{connection}' PUBLICATION all_orders"
        " WITH (slot_name = 'orders', create_slot = false)",
        database="target",
    )
    db.sql("INSERT INTO orders VALUES (2, 'second')")
    count = "SELECT count(*) FROM orders"
    eventually(lambda: db.sql(count, database="target") == "2", deadline=20)
    db.sql("DROP SUBSCRIPTION orders", database="target")
    db.sql("REVOKE rds_replication FROM mover")
    eventually(lambda: db.try_sql(slot, **where)[0] == 3, deadline=5)


def test_nobody_copies_the_cluster(db: Instance) -> None:
    where = f"host={db.host} user=boss dbname=shop sslmode=require replication=true"
    done = db.box.try_run(f"PGPASSWORD='{PASSWORD}' psql '{where}' -c IDENTIFY_SYSTEM 2>&1")
    assert done.returncode == 2
    assert "pg_hba.conf rejects replication" in done.stdout


# --- changes and accidents
def test_modifications(db: Instance, api: Any) -> None:
    """Another class after a restart, more storage, another password, tags."""
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        api.modify_db_instance(DBInstanceIdentifier="main", AllocatedStorage=10)
    api.modify_db_instance(DBInstanceIdentifier="main", DBInstanceClass="db.t3.small")
    assert db.describe()["PendingModifiedValues"] == {"DBInstanceClass": "db.t3.small"}
    assert db.sql("SHOW shared_buffers") == "256MB"
    api.modify_db_instance(
        DBInstanceIdentifier="main",
        AllocatedStorage=30,
        MasterUserPassword="another-word",
        ApplyImmediately=True,
    )
    assert db.status == "modifying"
    db.wait()
    found = db.describe()
    assert (found["DBInstanceClass"], found["AllocatedStorage"]) == ("db.t3.small", 30)
    assert db.try_sql("SELECT 1")[0] == 2
    db.word = "another-word"
    assert db.sql("SHOW shared_buffers") == "512MB"
    assert db.inside("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
                     " 2>/dev/null || true").split() == [str(2 * 2**30)]  # fmt: skip
    arn = found["DBInstanceArn"]
    api.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "stage", "Value": "4"}])
    tags = api.list_tags_for_resource(ResourceName=arn)["TagList"]
    assert {tag["Key"] for tag in tags} == {"tier", "stage"}


def test_a_server_that_is_killed_comes_back(db: Instance) -> None:
    started = db.sql("SELECT pg_postmaster_start_time()")
    db.inside("kill -KILL $(head -1 /rdsdbdata/db/postmaster.pid)")
    eventually(lambda: db.try_sql("SELECT pg_postmaster_start_time()")[0] == 0, deadline=30)
    assert db.sql("SELECT pg_postmaster_start_time()") != started
    assert db.sql("SELECT id FROM kept") == "1"
    assert db.status == "available"


def test_a_container_that_dies_comes_back(db: Instance) -> None:
    started = db.sql("SELECT pg_postmaster_start_time()")
    Podman.of(db.aws.settings)("kill", "--signal", "KILL", db.container)

    def again() -> bool:
        status, said = db.try_sql("SELECT pg_postmaster_start_time()")
        return status == 0 and said != started

    eventually(again, deadline=60)
    assert db.status == "available"
    assert db.sql("SELECT id FROM kept") == "1"


# --- backups
def test_a_restore_to_a_point_in_time_knows_nothing_later(
    db: Instance, api: Any, group: str
) -> None:
    eventually(lambda: db.status == "available")
    db.sql("INSERT INTO kept VALUES (2)")
    moment = datetime.datetime.fromisoformat(db.sql("SELECT clock_timestamp()"))
    time.sleep(0.05)
    db.sql("INSERT INTO kept VALUES (3)")
    # It does so every minute by itself.
    db.inside("systemctl start ascent-rds-heartbeat.service")
    reached = db.describe()["LatestRestorableTime"]
    assert moment.replace(microsecond=0) <= reached <= datetime.datetime.now(datetime.UTC)
    api.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier="main",
        TargetDBInstanceIdentifier="earlier",
        RestoreTime=moment + datetime.timedelta(milliseconds=20),
        DBSubnetGroupName="data",
        VpcSecurityGroupIds=[group],
    )
    api.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier="main",
        TargetDBInstanceIdentifier="latest",
        UseLatestRestorableTime=True,
        DBInstanceClass="db.t3.micro",
        DBSubnetGroupName="data",
        VpcSecurityGroupIds=[group],
    )
    earlier = Instance(db.aws, api, "earlier", db.box, db.word).wait()
    assert earlier.sql("SELECT id FROM kept ORDER BY id").split() == ["1", "2"]
    earlier.sql("INSERT INTO kept VALUES (4)")
    latest = Instance(db.aws, api, "latest", db.box, db.word).wait()
    assert latest.sql("SELECT id FROM kept ORDER BY id").split() == ["1", "2", "3"]
    for name in ("earlier", "latest"):
        api.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
    assert db.sql("SELECT max(id) FROM kept") == "3"


def test_stop_and_start(db: Instance, api: Any) -> None:
    address = db.private
    api.stop_db_instance(DBInstanceIdentifier="main")
    assert db.status == "stopping"
    db.wait("stopped")
    assert db.try_sql("SELECT 1")[0] == 2
    with pytest.raises(ClientError, match="InvalidDBInstanceState"):
        api.create_db_snapshot(DBSnapshotIdentifier="never", DBInstanceIdentifier="main")
    api.start_db_instance(DBInstanceIdentifier="main")
    assert db.status == "starting"
    db.wait()
    assert db.private == address
    assert db.sql("SELECT max(id) FROM kept") == "3"


def test_a_snapshot_is_restored_and_its_password_managed(
    db: Instance, api: Any, group: str, aws: Aws
) -> None:
    made = api.create_db_snapshot(DBSnapshotIdentifier="one", DBInstanceIdentifier="main")
    assert made["DBSnapshot"]["Status"] == "creating"
    waiter = api.get_waiter("db_snapshot_available")
    waiter.wait(DBSnapshotIdentifier="one", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    db.wait()
    db.sql("INSERT INTO kept VALUES (5)")
    restored = api.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="copy",
        DBSnapshotIdentifier="one",
        DBSubnetGroupName="data",
        VpcSecurityGroupIds=[group],
        ManageMasterUserPassword=True,
        DeletionProtection=True,
    )["DBInstance"]
    manager = aws.client("secretsmanager")

    def word() -> str:
        secret = manager.get_secret_value(SecretId=restored["MasterUserSecret"]["SecretArn"])
        return str(json.loads(secret["SecretString"])["password"])

    copy = Instance(aws, api, "copy", db.box, word()).wait()
    assert copy.sql("SELECT max(id) FROM kept") == "3"
    api.modify_db_instance(
        DBInstanceIdentifier="copy", RotateMasterUserPassword=True, ApplyImmediately=True
    )
    copy.wait()
    assert copy.try_sql("SELECT 1")[0] == 2, "the old password"
    copy.word = word()
    copy.sql("SELECT 1")
    assert copy.private != db.private
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        api.delete_db_instance(DBInstanceIdentifier="copy", SkipFinalSnapshot=True)
    api.modify_db_instance(DBInstanceIdentifier="copy", DeletionProtection=False)
    name = copy.host
    api.delete_db_instance(DBInstanceIdentifier="copy", SkipFinalSnapshot=True)
    eventually(lambda: len(api.describe_db_instances()["DBInstances"]) == 1)
    assert db.box.try_run(f"getent ahostsv4 {name}").returncode == 2


def test_a_deleted_instance_leaves_its_final_snapshot_and_nothing_else(
    db: Instance, api: Any, aws: Aws
) -> None:
    container = db.container
    api.delete_db_snapshot(DBSnapshotIdentifier="one")
    api.delete_db_instance(DBInstanceIdentifier="main", FinalDBSnapshotIdentifier="last")
    assert db.status == "deleting"
    eventually(lambda: api.describe_db_instances()["DBInstances"] == [])
    snapshots = api.describe_db_snapshots()["DBSnapshots"]
    assert [(s["DBSnapshotIdentifier"], s["Status"]) for s in snapshots] == [("last", "available")]
    assert len(list((aws.settings.databases / "backups").iterdir())) == 1
    assert [p.name for p in aws.settings.databases.iterdir()] == ["backups"]
    names = [c["Names"][0] for c in Podman.of(aws.settings).containers(aws.settings.name)]
    assert container not in names
    interfaces = aws.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [i for i in interfaces if i["Description"] == "RDSNetworkInterface"] == []


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("create_db_cluster", {"DBClusterIdentifier": "c", "Engine": "aurora-postgresql"}),
        ("create_db_instance_read_replica", {"DBInstanceIdentifier": "r"}),
        ("delete_db_proxy", {"DBProxyName": "p"}),
        ("create_blue_green_deployment", {"BlueGreenDeploymentName": "b", "Source": "arn:aws:x"}),
    ],
)  # fmt: skip
def test_what_is_not_true_says_so(api: Any, call: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="NotTrueInTheLab"):
        getattr(api, call)(**arguments)


def test_down_leaves_no_database(aws: Aws, tmp_path: Any) -> None:
    """In a lab of its own: its databases, their storage and their backups go with it."""
    settings = Settings.of("labrds", "198.18.61.0/24", write_hosts_file=False)
    lifecycle.up(settings, print)
    try:
        other = Aws(settings, tmp_path)
        api = other.client("rds")
        api.create_db_instance(
            DBInstanceIdentifier="left", DBInstanceClass="db.t3.micro", Engine="postgres",
            AllocatedStorage=20, MasterUsername="boss", MasterUserPassword=PASSWORD,
        )  # fmt: skip
        eventually(lambda: settings.databases.exists() and list(settings.databases.iterdir()))
        assert [d["id"] for d in lifecycle.status(settings)["databases"]] == ["left"]
    finally:
        lifecycle.down(settings, print)
    assert not settings.databases.exists()
    assert Podman.of(settings).containers(settings.name) == []
