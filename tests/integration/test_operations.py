"""What the operations promise, each shown at the one environment that stands."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import STAGE
from tests.support import aws_state
from tests.support.home import BUILD, DOMAIN
from tests.support.lab import TestLab
from tests.support.playbook import WITHOUT_ROLES, play, succeed
from tests.support.probe import Traffic, get_json, post_json, request

pytestmark = pytest.mark.lab
ROTATE, RESIZE = "operations/rotate_secrets.yml", "operations/resize.yml"
PATCH, LOGS, PLAN = "operations/patch.yml", "operations/logs.yml", "operations/plan.yml"


def on_box(lab: TestLab, script: str) -> str:
    """Run a shell script as root on the host; its output."""
    address = lab.client("ec2").describe_addresses()["Addresses"][0]["PublicIp"]
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    done = subprocess.run(
        [
            *("ssh", "-i", str(BUILD / "ssh/id_ed25519")),
            *(word for option in options for word in ("-o", option)),
            *(f"admin@{address}", "sudo", "sh", "-s"),
        ],
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def the_box(lab: TestLab) -> dict[str, Any]:
    """What EC2 says of the host, and of no one before it that had its name."""
    states = ["pending", "running", "stopping", "stopped"]
    filters = [
        {"Name": "tag:ascent:name", "Values": ["box"]},
        {"Name": "instance-state-name", "Values": states},
    ]
    found = lab.client("ec2").describe_instances(Filters=filters)["Reservations"]
    assert len(found) == 1
    return dict(found[0]["Instances"][0])


@pytest.fixture(scope="module")
def token(box: str) -> str:
    """A guest's token, signed with the application's first key."""
    status, answer = post_json(box, "/api/guests", {}, host=DOMAIN)
    assert status == 201, answer
    return str(answer["token"])


def orders(box: str, token: str) -> int:
    """The status that the guest's orders answer with."""
    headers = {"Authorization": f"Bearer {token}"}
    return request("GET", box, "/api/orders", host=DOMAIN, headers=headers)[0]


# --- check mode ------------------------------------------------------------------------------

# Whatever a run could leave on the host: settings, releases, processes that were started anew.
TRACES = (
    "find /etc /srv /var/lib/postgresql/*/main/*.conf -type f | sort | xargs md5sum;"
    " readlink -f /srv/shop/live;"
    " runuser -u postgres -- psql -Atc 'SELECT pg_postmaster_start_time()';"
    " systemctl show --property=MainPID nginx pgbouncer valkey-server 'shop@*'"
)


@pytest.mark.parametrize(
    ("operation", "asked", "told"),
    [
        ("deploy", ["ascent_release=another"], r"another would go\s+live"),
        ("rotate_secrets", [], r"Nothing was changed"),
        pytest.param(
            "resize",
            ['{"ascent_sizes": {"box": "m7i.large"}}'],
            r"size t3\.small -> m7i\.large",
            marks=pytest.mark.thorough,
        ),
        pytest.param("logs", [], r"Would be collected into", marks=pytest.mark.thorough),
    ],
)
def test_a_check_tells_and_does_nothing(
    operation: str, asked: list[str], told: str, stands: None, stage_lab: TestLab
) -> None:
    before = aws_state.snapshot(stage_lab), on_box(stage_lab, TRACES)
    settings = [word for item in asked for word in ("-e", item)]
    run = succeed(stage_lab, f"operations/{operation}.yml", "--check", *settings)
    assert re.search(told, run.output), run.tail()
    assert (aws_state.snapshot(stage_lab), on_box(stage_lab, TRACES)) == before


# --- plan ------------------------------------------------------------------------------------


def test_a_plan_writes_nothing_and_works_beside_a_run_that_holds_the_lock(
    stands: None, stage_lab: TestLab
) -> None:
    locks = stage_lab.client("dynamodb")
    item = {
        "environment": {"S": "lab"},
        "holder": {
            "S": json.dumps(
                {
                    "user": "anna",
                    "host": "laptop",
                    "machine": "other",
                    "boot": "x",
                    "pid": 7,
                    "started": "1",
                }
            )
        },
        "since": {"N": f"{time.time():.0f}"},
        "expires": {"N": f"{time.time() + 600:.0f}"},
        "token": {"S": "t"},
    }
    locks.put_item(TableName="ascent-locks", Item=item)
    try:
        before = aws_state.snapshot(stage_lab)
        run = succeed(
            stage_lab,
            PLAN,
            "-e",
            "stage=1",
            "--check",
            "-e",
            '{"ascent_sizes": {"box": "t3.large"}}',
        )
        assert aws_state.snapshot(stage_lab) == before
    finally:
        locks.delete_item(TableName="ascent-locks", Key={"environment": {"S": "lab"}})
    assert run.changed_tasks == []
    assert "anna@laptop (process 7) holds it" in run.output
    assert "operations/resize.yml does it" in run.output


def test_a_plan_that_could_change_something_is_refused(stage_lab: TestLab) -> None:
    run = play(stage_lab, PLAN, "-e", "stage=1")
    assert run.returncode != 0
    assert "run it with --check" in run.output


# --- rotate_secrets --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rotated(
    stands: None, stage_lab: TestLab, box: str, token: str
) -> Iterator[tuple[str, Traffic]]:
    """The database's URL before it, and the traffic while it was killed and run again."""
    old = on_box(stage_lab, ". /etc/shop/environment; echo $DATABASE_URL")
    with Traffic(box, DOMAIN, paths=("/", "/health/ready", "/api/products/1")) as traffic:
        killed = play(stage_lab, ROTATE, kill_at=r"PLAY \[Change the application over\]")
        assert killed.killed_at, killed.tail()
        run = succeed(stage_lab, ROTATE)
        assert "An earlier run has begun" in run.output
    yield old, traffic


def test_a_rotation_fails_no_request(rotated: tuple[str, Traffic]) -> None:
    traffic = rotated[1]
    assert not traffic.failures, f"{traffic.failures} of {traffic.requests}"
    assert traffic.requests > 300


def test_after_it_the_old_password_opens_nothing(
    rotated: tuple[str, Traffic], stage_lab: TestLab
) -> None:
    old = rotated[0]
    new = on_box(stage_lab, ". /etc/shop/environment; echo $DATABASE_URL")
    assert new != old
    direct = old.replace(":6432/main", ":5432/shop")
    for url in (old, direct):
        said = on_box(stage_lab, f"psql '{url}' -c 'SELECT 1' 2>&1 || true")
        assert re.search("failed|not permitted", said), said
    assert "1 row" in on_box(stage_lab, f"psql '{new}' -c 'SELECT 1'")


def test_who_was_logged_in_still_is(
    rotated: tuple[str, Traffic], stage_lab: TestLab, box: str, token: str
) -> None:
    assert orders(box, token) == 200
    keys = on_box(stage_lab, ". /etc/shop/environment; echo $SECRET_KEY,$SECRET_KEY_FALLBACKS")
    assert len(set(keys.split(","))) == 2


def test_what_cannot_be_rotated_is_refused(stands: None, stage_lab: TestLab) -> None:
    run = play(stage_lab, ROTATE, "-e", "ascent_rotate=databases")
    assert run.returncode != 0
    assert "application,cache,database" in run.output
    own = json.dumps(
        {"ascent_rotate": "cache", "ascent_secrets": {"cache": "of-my-own-choice-0000"}}
    )
    run = play(stage_lab, ROTATE, "--check", "-e", own)
    assert run.returncode != 0
    assert "the inventory gives cache" in run.output
    assert run.changed_tasks == []


# --- logs ------------------------------------------------------------------------------------


def test_logs_of_a_span_of_time_come_without_secrets(box: str, stage_lab: TestLab) -> None:
    get_json(box, "/api/products", host=DOMAIN)
    cache, key = on_box(
        stage_lab, ". /etc/shop/environment; echo $CACHE_URL; echo $SECRET_KEY"
    ).splitlines()
    on_box(stage_lab, f"systemd-run --quiet --wait --unit=shop-leak echo key {key}")
    run = succeed(stage_lab, LOGS, "-e", "ascent_logs_hours=2", "-e", "ascent_logs_max_mb=5")
    assert run.changed_tasks == []
    folder = max((BUILD / "logs").iterdir()) / "box"
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file()
    }
    assert b'"uri":"/api/products' in files["files/var/log/nginx/access.log"]
    assert any(name.startswith("files/var/log/postgresql/") for name in files)
    assert b"key (secret)" in files["journal/shopall.log"]
    assert b"instances/" in files["state.txt"]
    whole = b"".join(files.values())
    assert sum(map(len, files.values())) < 6_000_000
    for secret in (key, cache.split(":")[2].split("@")[0]):
        assert secret.encode() not in whole


# --- patch -----------------------------------------------------------------------------------

# An archive of Debian's security team with newer versions of two packages that the host has.
ARCHIVE = r"""
set -e; mkdir -p /opt/probe && cd /opt/probe; rm -f *
for package in ascent-probe linux-image-ascent-probe; do for version in 1.0 1.1; do
  mkdir -p /tmp/p/DEBIAN
  printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n' \
    $package $version >/tmp/p/DEBIAN/control
  dpkg-deb --build /tmp/p ${package}_$version.deb >/dev/null; rm -r /tmp/p
done; dpkg --install ${package}_1.0.deb >/dev/null; rm ${package}_1.0.deb; done
for deb in *.deb; do dpkg-deb --field $deb; printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' \
  $deb $(stat -c %s $deb) $(sha256sum $deb | cut -d' ' -f1); done >Packages
printf 'Label: %s\nSuite: stable-security\nVersion: 13\nDate: %s\nSHA256:\n %s %s Packages\n' \
  Debian-Security "$(date -Ru)" $(sha256sum Packages | cut -d' ' -f1) \
  $(stat -c %s Packages) >Release
echo 'deb [trusted=yes] file:/opt/probe ./' >/etc/apt/sources.list.d/probe.list
"""
VERSIONS = "dpkg-query --show --showformat='${Version} ' ascent-probe linux-image-ascent-probe"


@pytest.fixture(scope="module")
def archive(stands: None, stage_lab: TestLab) -> Iterator[None]:
    on_box(stage_lab, ARCHIVE)
    yield
    on_box(
        stage_lab,
        "dpkg --purge ascent-probe linux-image-ascent-probe; rm -r /opt/probe"
        " /etc/apt/sources.list.d/probe.list; apt-get update --quiet=2",
    )


def test_a_patch_tells_what_it_means_and_asks_for_the_reboot(
    archive: None, stage_lab: TestLab
) -> None:
    run = succeed(stage_lab, PATCH, "--check")
    assert "ascent-probe 1.0 -> 1.1" in run.output
    assert "linux-image-ascent-probe 1.0 -> 1.1, takes effect with a reboot" in run.output
    refused = play(stage_lab, PATCH)
    assert refused.returncode != 0
    assert "ascent_patch_reboot=allowed" in refused.output
    assert on_box(stage_lab, VERSIONS) == "1.0 1.0"


def test_a_patch_installs_reboots_and_waits_until_it_serves(
    archive: None, stage_lab: TestLab, box: str
) -> None:
    booted = on_box(stage_lab, "systemctl show --property=UserspaceTimestamp")
    run = succeed(stage_lab, PATCH, "-e", "ascent_patch_reboot=allowed")
    assert on_box(stage_lab, VERSIONS) == "1.1 1.1"
    assert on_box(stage_lab, "systemctl show --property=UserspaceTimestamp") != booted
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
    assert re.search(r"away_seconds: '?[1-9]", run.output), run.tail()


# --- resize ----------------------------------------------------------------------------------

BIGGER = json.dumps(
    {"ascent_sizes": {"box": "t3.medium"}, "ascent_disks": {"box": {"gib": 30, "iops": 4000}}}
)


def test_a_resize_says_what_it_means_and_asks(stands: None, stage_lab: TestLab) -> None:
    run = play(stage_lab, RESIZE, "-e", BIGGER)
    assert run.returncode != 0
    assert "box: size t3.small -> t3.medium" in run.output
    assert "box is stopped and started" in run.output
    assert "-e confirm=lab" in run.output
    host = the_box(stage_lab)
    assert (host["InstanceType"], host["State"]["Name"]) == ("t3.small", "running")


def test_a_resize_that_was_killed_while_the_host_was_down_is_ended_by_the_next(
    stands: None, stage_lab: TestLab, box: str
) -> None:
    memory = on_box(stage_lab, "runuser -u postgres -- psql -Atc 'SHOW shared_buffers'")
    killed = play(
        stage_lab,
        RESIZE,
        *("-e", BIGGER, "-e", "confirm=lab"),
        kill_at=r"TASK \[Stop the host, change its type and start it\]",
    )
    assert killed.killed_at, killed.tail()
    run = succeed(stage_lab, RESIZE, "-e", BIGGER, "-e", "confirm=lab")
    host = the_box(stage_lab)
    assert (host["InstanceType"], host["State"]["Name"]) == ("t3.medium", "running")
    assert host["PublicIpAddress"] == box, "the Elastic IP stays"
    mine = [{"Name": "attachment.instance-id", "Values": [host["InstanceId"]]}]
    disk = stage_lab.client("ec2").describe_volumes(Filters=mine)["Volumes"][0]
    assert (disk["Size"], disk["Iops"]) == (30, 4000)
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
    assert on_box(stage_lab, "runuser -u postgres -- psql -Atc 'SHOW shared_buffers'") != memory
    assert "Every host has the size" not in run.output


# --- all of them ------------------------------------------------------------------------------


def test_a_stage_run_after_them_changes_nothing(
    rotated: tuple[str, Traffic], stage_lab: TestLab
) -> None:
    assert succeed(stage_lab, STAGE, "--check", "-e", BIGGER).changed_tasks == []


# --- tags ------------------------------------------------------------------------------------


def test_one_role_of_a_stage_runs_alone(stands: None, stage_lab: TestLab) -> None:
    run = succeed(stage_lab, STAGE, "--check", "--tags", "web")
    assert "TASK [ascent.scaling.web : configure | Render the units]" in run.output
    # What a role is given is always checked; nothing else of it runs.
    assert not re.search(r"TASK \[ascent\.scaling\.database : (?!Validating)", run.output)
    assert "Write the stage down" not in run.output
    assert run.changed_tasks == []


@pytest.mark.thorough
def test_a_stage_that_leaves_roles_out_is_not_written_down(
    stands: None, stage_lab: TestLab
) -> None:
    run = succeed(stage_lab, STAGE, "--check", *WITHOUT_ROLES)
    assert "TASK [ascent.scaling.web : configure" not in run.output
    assert re.search(r"TASK \[Write the stage down\] \*+\nskipping: ", run.output)
