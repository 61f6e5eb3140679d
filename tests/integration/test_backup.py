"""Backups, and a restore that is tested by restoring, on the environment that stands.

A backup, backups off and on again, an archive that is broken on purpose, a host for a restore
beside what runs, and at the end the host itself: lost, made anew and restored in place.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import STAGE
from tests.support.aws_state import objects
from tests.support.home import BUILD, DOMAIN
from tests.support.host import Host
from tests.support.lab import TestLab
from tests.support.playbook import WITHOUT_ROLES, Run, play, succeed
from tests.support.probe import get_json, port_answers

pytestmark = pytest.mark.lab

BACKUP, RESTORE = "operations/backup.yml", "operations/restore.yml"
KEY = BUILD / "ssh/id_ed25519"
BUCKET = "ascent-lab-backup-123456789012"
UNIT = "ascent-backup-check.service"


def psql(host: Host, statements: str, database: str = "shop") -> str:
    return host.run(
        f"runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -d {database}", data=statements
    ).strip()


def moment(host: Host) -> str:
    """What the database's clock says, well apart from what comes before and after."""
    time.sleep(1)
    found = psql(host, "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.USOF')")
    time.sleep(1)
    return found


def repository(host: Host) -> list[dict[str, Any]]:
    answer = host.run("runuser -u postgres -- pgbackrest --stanza=box --output=json info")
    found: list[dict[str, Any]] = json.loads(answer)[0]["backup"]
    return found


def refused(lab: TestLab, *arguments: str) -> Run:
    run = play(lab, RESTORE, *arguments)
    assert run.returncode != 0, run.tail()
    assert run.changed_tasks == []
    return run


@pytest.fixture(scope="module")
def database(box: str) -> Host:
    return Host(box, KEY)


@pytest.fixture(scope="module")
def written(database: Host, stage_lab: TestLab) -> tuple[str, list[int]]:
    """Rows before a backup, after it, and after the moment; then an accident.

    Returns the moment, and the rows that were acknowledged until then.
    """
    psql(database, "CREATE TABLE proof (id int PRIMARY KEY, at timestamptz DEFAULT now())")
    kept = list(range(1, 401))
    inserts = [f"INSERT INTO proof VALUES ({n});" for n in kept]
    psql(database, "\n".join(inserts[:200]))
    run = succeed(stage_lab, BACKUP)
    label = repository(database)[-1]["label"]
    assert label in run.output, "it must say what was stored"
    psql(database, "\n".join(inserts[200:]))
    until = moment(database)
    psql(
        database,
        "INSERT INTO proof SELECT generate_series(1001, 1100); DELETE FROM proof WHERE id < 500;",
    )
    return until, kept


@pytest.fixture(scope="module")
def restored(written: tuple[str, list[int]], stage_lab: TestLab) -> Iterator[tuple[Run, Host]]:
    """The fresh host, as of the moment."""
    run = succeed(stage_lab, RESTORE, "-e", json.dumps({"ascent_restore_to": written[0]}))
    address = next(
        host["public_address"]
        for host in stage_lab.status()["hosts"]
        if host["name"] == "lab-restored" and host["state"] == "running"
    )
    yield run, Host(address, KEY)
    succeed(stage_lab, RESTORE, "-e", "state=absent")


def test_the_stage_leaves_a_full_backup_and_timers(database: Host) -> None:
    assert repository(database)[0]["type"] == "full"
    timers = database.run("systemctl list-timers --all --no-legend --plain")
    for name in ("ascent-backup-full", "ascent-backup-diff", "ascent-backup-check"):
        assert f"{name}.timer" in timers


def test_what_lies_in_the_bucket_is_encrypted(database: Host, stage_lab: TestLab) -> None:
    s3 = stage_lab.client("s3")
    keys = objects(stage_lab, BUCKET)
    assert keys
    assert {key.split("/")[:2] == ["lab", "postgresql"] for key in keys} == {True}
    for key in keys:
        head = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read(8)
        assert head == b"Salted__", f"{key} is readable for whoever has the bucket"


def test_the_passphrase_is_postgresqls_alone(database: Host, stage_lab: TestLab) -> None:
    secret = stage_lab.client("secretsmanager").get_secret_value(
        SecretId="ascent/lab/backup_passphrase"
    )["SecretString"]
    found = database.run("stat -c '%a %U:%G' /etc/pgbackrest/conf.d/ascent-passphrase.conf")
    assert found.strip() == "640 root:postgres"
    assert secret not in database.run(
        "cat /etc/pgbackrest/pgbackrest.conf; ps axww; systemctl cat 'ascent-backup*'"
    )


@pytest.mark.thorough
def test_backups_that_were_off_begin_with_a_backup(database: Host, stage_lab: TestLab) -> None:
    """What is committed meanwhile is nowhere else, so a backup of before leads no further."""
    before = repository(database)
    off = '{"ascent_backup_enabled": false}'
    succeed(stage_lab, STAGE, "--tags", "database", "-e", off)
    left = database.run(
        "systemctl list-unit-files --no-legend 'ascent-backup*'; ls /etc/pgbackrest"
    )
    assert "ascent-" not in left
    failed = psql(database, "SELECT failed_count FROM pg_stat_archiver")
    psql(database, "CREATE TABLE meanwhile (); SELECT pg_switch_wal()")
    database.run(
        "cd /var/lib/postgresql/*/main/pg_wal/archive_status;"
        " timeout 20 sh -c 'while ls | grep --quiet ready; do sleep 0.2; done'"
    )
    assert psql(database, "SELECT failed_count FROM pg_stat_archiver") == failed

    succeed(stage_lab, STAGE, "--tags", "database")
    assert [item["label"] for item in repository(database)[:-1]] == [i["label"] for i in before]
    assert len(database.run("systemctl list-timers --no-legend 'ascent-backup*'").splitlines()) == 3


def test_a_check_says_what_would_be_taken_and_takes_nothing(
    database: Host, stage_lab: TestLab
) -> None:
    before = repository(database)
    run = succeed(stage_lab, BACKUP, "--check", "-e", "ascent_backup_type=incr")
    assert re.search(r"of the kind\s+incr would be taken\s+on top of", run.output), run.tail()
    assert repository(database) == before


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([], r"host restored\s+\(t3\.small, 20 GiB\) would\s+be made.* as of the\s+latest"),
        pytest.param(
            ["-e", "ascent_restore_into=box"],
            r"databases on box would\s+stand still",
            marks=pytest.mark.thorough,
        ),
        pytest.param(["-e", "state=absent"], r"restored was not there", marks=pytest.mark.thorough),
    ],
)
def test_a_check_says_what_would_be_restored_and_does_nothing(
    asked: list[str], told: str, database: Host, stage_lab: TestLab
) -> None:
    def standing() -> object:
        hosts = [(host["name"], host["state"]) for host in stage_lab.status()["hosts"]]
        return hosts, psql(database, "SELECT pg_postmaster_start_time(), count(*) FROM orders")

    before = standing()
    run = succeed(stage_lab, RESTORE, "--check", *asked)
    assert re.search(told, run.output, re.DOTALL), run.tail()
    assert standing() == before


def test_hosts_call_nothing_that_their_role_does_not_allow(
    written: object, stage_lab: TestLab
) -> None:
    """The lab allows every call, so what pgBackRest calls is compared with the policy."""
    policy = stage_lab.client("iam").get_role_policy(
        RoleName="ascent-lab-host", PolicyName="ascent-host"
    )["PolicyDocument"]
    actions = {
        action.removeprefix("s3:")
        for statement in policy["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    needed = {
        "PutObject": "PutObject", "GetObject": "GetObject", "HeadObject": "GetObject",
        "DeleteObject": "DeleteObject", "ListObjectsV2": "ListBucket",
    }  # fmt: skip
    assert set(needed.values()) <= actions
    assert "DeleteObjectVersion" not in actions, "a host must not destroy what is deleted"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        pytest.param("2999-01-01 00:00:00+00", "lies in the future", marks=pytest.mark.thorough),
        ("2001-01-01 00:00:00+00", "before the end of the first backup"),
    ],
)
def test_a_moment_that_cannot_be_restored(
    asked: str, says: str, stage_lab: TestLab, stands: None
) -> None:
    run = refused(stage_lab, "-e", json.dumps({"ascent_restore_to": asked}))
    assert says in " ".join(run.output.split()), run.tail()
    assert "lab-restored" not in [
        host["name"] for host in stage_lab.status()["hosts"] if host["state"] != "terminated"
    ]


def test_the_restore_has_what_was_acknowledged_until_then_and_nothing_else(
    written: tuple[str, list[int]], restored: tuple[Run, Host]
) -> None:
    _, host = restored
    found = [int(line) for line in psql(host, "SELECT id FROM proof ORDER BY id").splitlines()]
    assert found == written[1]


def test_the_original_goes_on_without_a_change(restored: object, database: Host) -> None:
    assert psql(database, "SELECT min(id), count(*) FROM proof") == "1001|100"


def test_the_restore_says_what_it_verified(restored: tuple[Run, Host]) -> None:
    output = " ".join(restored[0].output.split())
    assert "are sound" in output
    assert "proof: 400" in output
    assert "-e state=absent" in output


def test_the_restored_host_is_cut_off(restored: tuple[Run, Host]) -> None:
    _, host = restored
    assert psql(host, "SHOW archive_mode; SHOW listen_addresses") == "off\n127.0.0.1"
    assert host.run("find /etc/pgbackrest -type f") == "", "it must not reach the backups"
    assert host.run("systemctl list-timers --all --no-legend 'ascent-*'").strip() == ""
    assert port_answers(host.address, 22)
    assert not port_answers(host.address, 5432, seconds=1.0)


def test_a_host_that_stands_already_is_not_restored_over(
    restored: object, stage_lab: TestLab
) -> None:
    run = refused(stage_lab)
    assert "stands already" in run.output
    assert "state=absent" in run.output


def test_in_place_wants_a_confirmation(stands: None, stage_lab: TestLab) -> None:
    run = refused(stage_lab, "-e", "ascent_restore_into=box")
    assert "confirm=box" in run.output


def test_an_archive_that_fails_shows(database: Host, stage_lab: TestLab) -> None:
    stage_lab.fault("AccessDenied", service="s3", action="PutObject")
    database.run("systemctl set-environment PGBACKREST_ARCHIVE_TIMEOUT=10")
    try:
        database.run(f"systemctl start {UNIT}", check=False, seconds=180)
        succeed(stage_lab, "operations/status.yml")
        status = json.loads((BUILD / "status.json").read_text())
        assert UNIT in status["hosts"][0]["failed_units"]
    finally:
        stage_lab.clear_faults()
        database.run("systemctl unset-environment PGBACKREST_ARCHIVE_TIMEOUT")
    # Mended, the next check clears it.
    database.run(f"systemctl start {UNIT}", seconds=180)
    assert database.run(f"systemctl is-failed {UNIT}", check=False).strip() == "inactive"


@pytest.mark.thorough
def test_a_lost_host_comes_back_with_its_data(
    written: object, database: Host, stage_lab: TestLab
) -> None:
    """Its stage makes it anew and stops at the empty database; the restore is one in place."""
    psql(database, "INSERT INTO proof SELECT generate_series(3001, 3100)")
    database.run(f"systemctl start {UNIT}", seconds=180)
    ec2 = stage_lab.client("ec2")
    named = [{"Name": "tag:ascent:name", "Values": ["box"]}]
    running = [*named, {"Name": "instance-state-name", "Values": ["running"]}]
    lost = ec2.describe_instances(Filters=running)["Reservations"][0]["Instances"][0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[lost])
    ec2.get_waiter("instance_terminated").wait(InstanceIds=[lost], WaiterConfig={"Delay": 1})

    stopped = play(stage_lab, STAGE)
    assert stopped.returncode != 0
    assert "holds backups of another cluster" in " ".join(stopped.output.split()), stopped.tail()
    assert "ascent_restore_into=box" in stopped.output
    succeed(stage_lab, RESTORE, "-e", "ascent_restore_into=box", "-e", "confirm=box")
    assert psql(database, "SELECT min(id), max(id), count(*) FROM proof") == "1001|3100|200"
    assert psql(database, "SHOW archive_mode") == "on"
    succeed(stage_lab, STAGE)
    assert get_json(database.address, "/health/ready", host=DOMAIN)["status"] == "ready"


@pytest.mark.thorough
def test_a_restored_host_is_named_by_the_stage_and_not_touched(
    restored: object, stage_lab: TestLab
) -> None:
    run = succeed(stage_lab, STAGE, "--check", "--diff", *WITHOUT_ROLES)
    assert run.changed_tasks == []
    assert "instance restored" in run.output
