"""RDS Multi-AZ: a standby that has all, and takes over; while customers write.

The tests stand in the order of an instance's life. Customers write through a pooler that has the
settings of the role `pooler`, and know nothing of servers: they wait, and try again.
"""

from __future__ import annotations

import datetime
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import lifecycle
from lab.errors import LabError
from lab.podman import Podman
from lab.region import Link
from tests.integration.lab.conftest import Aws, Box, eventually
from tests.integration.lab.test_rds import PASSWORD, Instance

pytestmark = pytest.mark.lab

NAME = "pair"
# What of the role's settings decides how soon a server that has moved is found again.
POOLER = """\
[databases]
shop = host={host} port=5432 dbname=shop
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 6432
auth_type = any
pool_mode = transaction
server_tls_sslmode = require
server_connect_timeout = 5
server_login_retry = 1
dns_max_ttl = 5
tcp_keepidle = 30
tcp_keepintvl = 10
tcp_keepcnt = 3
tcp_user_timeout = 10000
"""
CUSTOMER = """\
import itertools, sys, time
import psycopg2
connection = None
for number in itertools.count(1):
    began, said = time.time(), "ok"
    try:
        if connection is None:
            connection = psycopg2.connect("host=127.0.0.1 port=6432 user=boss dbname=shop")
            connection.autocommit = True
        connection.cursor().execute("INSERT INTO orders VALUES (%s)", (number,))
    except psycopg2.Error as error:
        said = str(error).split(chr(10))[0]
        connection = None
        time.sleep(0.1)
    print(number, began, time.time(), said, flush=True)
    time.sleep(0.02)
"""


@dataclass
class Written:
    """What a customer saw: of each order its number, when it began and ended, what was said."""

    lines: list[tuple[int, float, float, str]]

    @property
    def acknowledged(self) -> set[int]:
        return {number for number, _, _, said in self.lines if said == "ok"}

    @property
    def failed(self) -> list[str]:
        return [said for _, _, _, said in self.lines if said != "ok"]

    def pause(self, since: float) -> float:
        """Return the longest time without an acknowledged order, in seconds."""
        ends = [end for _, _, end, said in self.lines if said == "ok" and end > since - 1]
        return max(after - before for before, after in itertools.pairwise(ends))


class Customer:
    """Writes from a host, one order after the other, until it is told to stop."""

    def __init__(self, db: Instance) -> None:
        self.box, self.db = db.box, db
        db.sql("DROP TABLE IF EXISTS orders", "CREATE TABLE orders (id int PRIMARY KEY)")
        self.box.run("nohup python3 customer.py >customer.log 2>&1 </dev/null & echo $! >customer")
        self.wait(5)

    def wait(self, orders: int) -> None:
        """Wait for so many more acknowledged orders."""
        wanted = self.count() + orders
        eventually(lambda: self.count() >= wanted, deadline=120)

    def count(self) -> int:
        return int(self.box.run("grep -c ok customer.log || true") or 0)

    def stop(self) -> Written:
        self.box.run("kill $(cat customer)")
        lines = []
        for line in self.box.run("cat customer.log").splitlines():
            number, began, ended, said = line.split(" ", 3)
            lines.append((int(number), float(began), float(ended), said))
        return Written(lines)

    def lost(self, written: Written) -> set[int]:
        """Return what was acknowledged and is not there."""
        stored = {int(line) for line in self.db.sql("SELECT id FROM orders").split()}
        return written.acknowledged - stored


class Pair(Instance):
    """A Multi-AZ instance under test."""

    @property
    def servers(self) -> dict[str, Any]:
        [found] = [
            d for d in lifecycle.status(self.aws.settings)["databases"] if d["id"] == self.name
        ]
        return dict(found)

    def has_all(self) -> bool:
        standby = self.servers["standby"]
        return bool(standby and standby["synchronous"])

    def wait_for_standby(self, deadline: float = 90.0) -> None:
        eventually(self.has_all, deadline)

    @property
    def zones(self) -> tuple[str, str | None]:
        found = self.describe()
        return found["AvailabilityZone"], found.get("SecondaryAvailabilityZone")

    def events(self) -> list[str]:
        found = self.api.describe_events(SourceIdentifier=self.name, SourceType="db-instance")
        return [event["Message"] for event in found["Events"]]

    def kill(self, role: str) -> float:
        lifecycle.kill_database(self.aws.settings, self.name, role)
        return time.time()


@pytest.fixture(scope="module")
def api(aws: Aws) -> Any:
    api = aws.client("rds")
    api.create_db_subnet_group(
        DBSubnetGroupName=NAME,
        DBSubnetGroupDescription=NAME,
        SubnetIds=[aws.public_subnet, aws.private_subnet],
    )
    api.create_db_parameter_group(
        DBParameterGroupName=NAME, DBParameterGroupFamily="postgres17", Description=NAME
    )
    return api


@pytest.fixture(scope="module")
def group(aws: Aws) -> str:
    return aws.group("pair")


@pytest.fixture(scope="module")
def db(aws: Aws, api: Any, group: str) -> Iterator[Pair]:
    """An instance, with backups, and a host with a pooler and a customer."""
    clients = aws.group("customers")
    aws.allow(group, 5432, clients)
    api.create_db_instance(
        DBInstanceIdentifier=NAME,
        DBInstanceClass="db.t3.micro",
        Engine="postgres",
        AllocatedStorage=20,
        MasterUsername="boss",
        MasterUserPassword=PASSWORD,
        DBName="shop",
        DBSubnetGroupName=NAME,
        DBParameterGroupName=NAME,
        VpcSecurityGroupIds=[group],
        BackupRetentionPeriod=1,
    )
    box = aws.launch(clients, size="t3.small").wait("running")
    box.run(
        "cloud-init status --wait >/dev/null;"
        " sudo apt-get install -qq -y --no-download --no-install-recommends"
        " postgresql-client pgbouncer python3-psycopg2 >/dev/null"
    )
    found = Pair(aws, api, NAME, box)
    found.wait()
    serve_pooler(box, found.host)
    yield found
    for name in [d["DBInstanceIdentifier"] for d in api.describe_db_instances()["DBInstances"]]:
        api.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
    eventually(lambda: api.describe_db_instances()["DBInstances"] == [])
    aws.terminate(box)


def serve_pooler(box: Box, host: str) -> None:
    settings = POOLER.format(host=f"{host} user=boss password={PASSWORD}")
    for name, text in (("pgbouncer.ini", settings), ("customer.py", CUSTOMER)):
        box.run(f"cat >{name} <<'END'\n{text}\nEND")
    box.run("sudo install -m 0644 pgbouncer.ini /etc/pgbouncer/pgbouncer.ini")
    box.run("sudo systemctl restart pgbouncer")


def tell(what: str, **figures: Any) -> None:
    """Print a measurement; `pytest -rP` shows it."""
    print(f"\n{what}: {json.dumps(figures)}")


def test_a_single_instance_does_not_fail_over(db: Pair, api: Any) -> None:
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        api.reboot_db_instance(DBInstanceIdentifier=NAME, ForceFailover=True)
    with pytest.raises(LabError, match="has no standby"):
        db.kill("standby")


def test_it_becomes_multi_az_while_customers_write(db: Pair, api: Any) -> None:
    customer = Customer(db)
    began = time.time()
    api.modify_db_instance(DBInstanceIdentifier=NAME, MultiAZ=True, ApplyImmediately=True)
    found = db.describe()
    assert found["DBInstanceStatus"] == "modifying"
    assert found["MultiAZ"] is False
    assert found["PendingModifiedValues"] == {"MultiAZ": True}
    db.wait()
    took = time.time() - began
    customer.wait(20)
    written = customer.stop()
    found = db.describe()
    assert (found["MultiAZ"], found["PendingModifiedValues"]) == (True, {})
    assert sorted(filter(None, db.zones)) == ["us-east-1a", "us-east-1b"]
    assert db.sql("SHOW synchronous_standby_names") != ""
    assert written.failed == []
    assert customer.lost(written) == set()
    tell("single to Multi-AZ", took=took, pause=written.pause(began), orders=len(written.lines))


def test_a_reboot_with_failover_loses_nothing(db: Pair, api: Any) -> None:
    db.wait_for_standby()
    before, address = db.zones, db.address
    customer = Customer(db)
    began = time.time()
    api.reboot_db_instance(DBInstanceIdentifier=NAME, ForceFailover=True)
    assert db.status == "rebooting"
    db.wait()
    took = time.time() - began
    customer.wait(20)
    written = customer.stop()
    assert db.zones[0] == before[1]
    assert db.address != address
    assert customer.lost(written) == set()
    assert [e for e in db.events() if "failover" in e] == [
        "Multi-AZ instance failover started.",
        "Multi-AZ instance failover completed",
    ]
    tell("reboot with failover", took=took, pause=written.pause(began), failed=len(written.failed))
    db.wait_for_standby()
    assert db.zones == (before[1], before[0])


@pytest.mark.thorough
def test_a_primary_that_loses_its_power_loses_nothing(db: Pair) -> None:
    db.wait_for_standby()
    zone, address = db.zones[0], db.address
    customer = Customer(db)
    began = db.kill("primary")
    eventually(lambda: db.zones[0] != zone, deadline=60)
    took = time.time() - began
    customer.wait(20)
    written = customer.stop()
    assert db.address != address
    assert db.status == "available"
    assert customer.lost(written) == set()
    tell("killed primary", took=took, pause=written.pause(began), failed=written.failed)
    db.wait_for_standby()


@pytest.mark.thorough
def test_a_standby_that_loses_its_power_is_replaced(db: Pair) -> None:
    db.wait_for_standby()
    zones, address = db.zones, db.address
    customer = Customer(db)
    began = db.kill("standby")
    eventually(lambda: not db.has_all(), deadline=30)
    customer.wait(20)
    db.wait_for_standby()
    took = time.time() - began
    written = customer.stop()
    assert (db.zones, db.address) == (zones, address)
    assert written.failed == []
    assert customer.lost(written) == set()
    tell("killed standby", rebuilt=took, pause=written.pause(began))
    assert written.pause(began) < 15


@pytest.mark.thorough
def test_a_reboot_brings_static_parameters_to_both(db: Pair, api: Any) -> None:
    api.modify_db_parameter_group(
        DBParameterGroupName=NAME,
        Parameters=[
            {
                "ParameterName": "max_connections",
                "ParameterValue": "150",
                "ApplyMethod": "pending-reboot",
            }
        ],
    )
    api.reboot_db_instance(DBInstanceIdentifier=NAME)
    db.wait()
    assert db.sql("SHOW max_connections") == "150"
    db.wait_for_standby()
    began = db.kill("primary")
    address = db.address
    eventually(lambda: db.address != address, deadline=60)
    eventually(lambda: db.try_sql("SELECT 1")[0] == 0, deadline=60)
    assert db.sql("SHOW max_connections") == "150"
    tell("killed primary, a new client", took=time.time() - began)
    db.wait_for_standby()


@pytest.mark.thorough
def test_the_old_primary_never_takes_writes_again(db: Pair) -> None:
    """Not even if somebody starts its host: it is removed, and what replaces it is a copy."""
    db.wait_for_standby()
    old = db.servers["private_address"]
    db.kill("primary")
    eventually(lambda: db.servers["private_address"] != old, deadline=60)
    db.wait_for_standby()
    standby = db.servers["standby"]["private_address"]
    names = [c["Names"][0] for c in Podman.of(db.aws.settings).containers(db.aws.settings.name)]
    assert len([n for n in names if n != Link(db.aws.settings, db.box.id).namespace]) == 2
    probe = f"timeout 2 bash -c '</dev/tcp/{standby}/5432'"
    assert db.box.try_run(probe).returncode == 0
    status, said = db.try_sql("SELECT 1", host=standby, tls="require")
    assert status == 2
    assert "not accepting connections" in said


@pytest.mark.thorough
def test_passwords_classes_and_stops_work_with_a_standby(db: Pair, api: Any) -> None:
    api.modify_db_instance(
        DBInstanceIdentifier=NAME,
        DBInstanceClass="db.t3.small",
        AllocatedStorage=30,
        MasterUserPassword="another-word",
        ApplyImmediately=True,
    )
    db.wait()
    db.word = "another-word"
    assert db.sql("SHOW shared_buffers") == "512MB"
    api.stop_db_instance(DBInstanceIdentifier=NAME)
    db.wait("stopped")
    api.start_db_instance(DBInstanceIdentifier=NAME)
    db.wait()
    db.wait_for_standby()
    api.modify_db_instance(
        DBInstanceIdentifier=NAME, MasterUserPassword=PASSWORD, ApplyImmediately=True
    )
    db.wait()
    db.word = PASSWORD
    api.reboot_db_instance(DBInstanceIdentifier=NAME, ForceFailover=True)
    db.wait()
    assert db.sql("SHOW shared_buffers") == "512MB"


@pytest.mark.thorough
def test_backups_reach_over_a_failover(db: Pair, api: Any, group: str) -> None:
    db.sql("CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (1)")
    moment = datetime.datetime.fromisoformat(db.sql("SELECT clock_timestamp()"))
    time.sleep(0.05)
    db.sql("INSERT INTO kept VALUES (2)")
    # Each server archives within a minute of its own.
    latest = "LatestRestorableTime"
    eventually(lambda: db.describe().get(latest, moment) > moment, deadline=120)
    api.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier=NAME,
        TargetDBInstanceIdentifier="earlier",
        RestoreTime=moment,
        DBSubnetGroupName=NAME,
        VpcSecurityGroupIds=[group],
        MultiAZ=True,
    )
    earlier = Pair(db.aws, api, "earlier", db.box, db.word)
    earlier.wait(deadline=180)
    assert earlier.sql("SELECT id FROM kept") == "1"
    assert earlier.describe()["MultiAZ"] is True
    assert earlier.has_all()
    api.delete_db_instance(DBInstanceIdentifier="earlier", SkipFinalSnapshot=True)
    eventually(lambda: len(api.describe_db_instances()["DBInstances"]) == 1)


@pytest.mark.thorough
def test_it_becomes_single_again(db: Pair, api: Any) -> None:
    db.wait_for_standby()
    customer = Customer(db)
    began = time.time()
    api.modify_db_instance(DBInstanceIdentifier=NAME, MultiAZ=False, ApplyImmediately=True)
    db.wait()
    customer.wait(20)
    written = customer.stop()
    found = db.describe()
    assert (found["MultiAZ"], found.get("SecondaryAvailabilityZone")) == (False, None)
    assert db.sql("SHOW synchronous_standby_names") == ""
    assert written.failed == []
    assert customer.lost(written) == set()
    tell("Multi-AZ to single", pause=written.pause(began))
    eventually(lambda: db.servers["standby"] is None)
