"""EC2's states are those of a real host."""

from __future__ import annotations

import subprocess
import time

import pytest
from botocore.exceptions import ClientError

from lab.podman import Podman
from tests.integration.lab.conftest import Aws, Box, eventually, opens

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def box(aws: Aws) -> Box:
    began = time.monotonic()
    box = aws.launch(
        size="t3.small",
        UserData="#!/bin/sh\necho $(hostname) >> /root/user-data-ran\n",
    )
    assert box.state == "pending"
    box.wait("running")
    assert time.monotonic() - began < 90
    return box


def test_a_running_host_lets_its_key_in(box: Box) -> None:
    assert box.run("id -un") == "admin"
    assert box.run("sudo -n id -un") == "root"


def test_user_data_ran_once(box: Box) -> None:
    box.run("cloud-init status --wait")
    name = f"ip-{box.private.replace('.', '-')}"
    assert box.run("sudo cat /root/user-data-ran").split() == [name]


def test_the_host_stands_with_all_its_units(box: Box) -> None:
    assert box.run("systemctl is-system-running --wait || systemctl --failed") == "running"


def test_units_are_sandboxed_for_real(box: Box) -> None:
    refused = box.run(
        "sudo systemd-run --quiet --pipe --wait -p ProtectSystem=strict touch /etc/x 2>&1 || true"
    )
    assert "Read-only file system" in refused


def test_status_checks_pass(aws: Aws, box: Box) -> None:
    status = aws.ec2.describe_instance_status(InstanceIds=[box.id])["InstanceStatuses"][0]
    assert status["InstanceStatus"]["Status"] == "ok"


def test_the_type_cannot_change_while_the_host_runs(aws: Aws, box: Box) -> None:
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        aws.ec2.modify_instance_attribute(InstanceId=box.id, InstanceType={"Value": "t3.medium"})


def test_a_stopped_host_is_silent_and_comes_back_larger(aws: Aws, box: Box) -> None:
    box.run("echo kept > ~/file")
    private, before = box.private, box.run("awk '/MemTotal/ {print $2}' /proc/meminfo")
    aws.ec2.stop_instances(InstanceIds=[box.id])
    assert box.state in ("stopping", "stopped")
    public = box.public if "PublicIpAddress" in box.describe() else None
    assert public is None
    box.wait("stopped")
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        aws.ec2.reboot_instances(InstanceIds=[box.id])

    aws.ec2.modify_instance_attribute(InstanceId=box.id, InstanceType={"Value": "t3.medium"})
    aws.ec2.start_instances(InstanceIds=[box.id])
    box.wait("running")
    assert box.private == private
    assert box.run("cat ~/file") == "kept"
    assert before == str(2048 * 1024)
    assert box.run("awk '/MemTotal/ {print $2}' /proc/meminfo") == str(4096 * 1024)
    limit = box.run(
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; true"
    )
    assert limit.split() == [str(4096 * 1024 * 1024)]


def test_a_host_that_lets_in_its_operator_alone_is_running_again_at_once(
    aws: Aws, box: Box
) -> None:
    rules = (
        "table inet own { chain input { type filter hook input priority 0; policy drop;"
        " iif lo accept; ct state established accept; ip saddr 198.18.1.1 tcp dport 22 accept; }; }"
    )
    box.run("sudo apt-get install -qq -y nftables && sudo systemctl enable nftables")
    box.run(f"echo '{rules}' | sudo tee /etc/nftables.conf")
    aws.ec2.stop_instances(InstanceIds=[box.id])
    box.wait("stopped")
    aws.ec2.start_instances(InstanceIds=[box.id])
    box.wait("running", deadline=60)
    assert "own" in box.run("sudo nft list tables")
    status = aws.ec2.describe_instance_status(InstanceIds=[box.id])["InstanceStatuses"][0]
    assert status["InstanceStatus"]["Status"] == "ok"
    box.run("sudo systemctl disable --now nftables")


def test_reboot_keeps_the_address(aws: Aws, box: Box) -> None:
    private, public, boot = box.private, box.public, box.boot()
    aws.ec2.reboot_instances(InstanceIds=[box.id])
    eventually(lambda: box.booted_since(boot))
    assert (box.state, box.private, box.public) == ("running", private, public)


def test_a_host_that_reboots_itself_comes_back(box: Box) -> None:
    private, public, boot = box.private, box.public, box.boot()
    box.try_run("sudo systemctl reboot")
    eventually(lambda: box.booted_since(boot))
    assert (box.state, box.private, box.public) == ("running", private, public)


def test_a_host_that_dies_comes_back(aws: Aws, box: Box) -> None:
    boot = box.boot()
    podman = Podman.of(aws.settings)
    podman("kill", "--signal", "KILL", f"{aws.settings.namespace}-{box.id[-10:]}")
    eventually(lambda: box.booted_since(boot))
    assert box.state == "running"


def test_a_forced_stop_lets_nothing_end_in_order(aws: Aws, box: Box) -> None:
    box.run("sudo systemd-run -q --unit=last -p ExecStop='/bin/touch /var/told' sleep 1000")
    aws.ec2.stop_instances(InstanceIds=[box.id], Force=True)
    box.wait("stopped")
    aws.ec2.start_instances(InstanceIds=[box.id])
    box.wait("running")
    assert box.try_run("test -e /var/told").returncode == 1


def test_a_host_that_powers_off_is_stopped(aws: Aws, box: Box) -> None:
    box.try_run("sudo systemctl poweroff")
    box.wait("stopped")
    assert box.describe()["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    aws.ec2.start_instances(InstanceIds=[box.id])
    box.wait("running")
    assert box.run("cat ~/file") == "kept"


def test_a_terminated_host_is_gone(aws: Aws, box: Box) -> None:
    public = box.public
    volume = box.describe()["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    aws.terminate(box)
    assert not opens(public)
    containers = Podman.of(aws.settings).containers(aws.settings.name)
    names = [c["Labels"]["ascent-instance"] for c in containers]
    assert box.id not in names
    assert box.id[-10:] not in subprocess.check_output(["ip", "netns"], text=True)
    with pytest.raises(ClientError, match=r"InvalidVolume\.NotFound"):
        aws.ec2.describe_volumes(VolumeIds=[volume])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-0000000000000dead"}, r"InvalidAMIID\.NotFound"),
        ({"KeyName": "nobody"}, r"InvalidKeyPair\.NotFound"),
        ({"InstanceType": "t99.tiny"}, "InvalidParameterValue"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(aws: Aws, change: dict[str, str], code: str) -> None:
    with pytest.raises(ClientError, match=code):
        aws.launch(**change)
