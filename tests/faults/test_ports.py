"""What answers, asked from outside, from a stranger's address, and from within the VPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.host import Host
from tests.support.lab import TestLab
from tests.support.probe import port_answers

pytestmark = pytest.mark.lab

OPEN = {22, 80, 443}
# Whatever a host of ours could listen at, and what scanners ask for first.
ASKED = sorted(
    {*range(1, 1025), 1433, 2049, 2375, 2376, 3000, 3306, 4566, 5000, 5432, 5433, 5984, 6379, 6380}
    | {6432, 8000, 8080, 8081, 8443, 8888, 9000, 9090, 9100, 9187, 9200, 10250, 11211, 15672, 16379}
    | {27017}
)
INNER = (5432, 6432, 6379, 8000)


def test_from_outside_three_ports_answer_and_no_other(box: str) -> None:
    with ThreadPoolExecutor(64) as pool:
        answers = pool.map(lambda port: port_answers(box, port, seconds=1.0), ASKED)
    assert {port for port, answered in zip(ASKED, answers, strict=True) if answered} == OPEN


def test_those_that_answer_are_those_that_listen_to_others(box: str, host: Host) -> None:
    """A host listens to others at no more ports than the security groups let in."""
    lines = host.run("ss -Htln").splitlines()
    listening = {line.split()[3].rpartition(":")[::2] for line in lines}
    assert {
        int(port)
        for address, port in listening
        if not address.startswith("127.") and not address.startswith("[::1]")
    } <= OPEN


# Run inside the lab's namespaces as another machine: prints the ports that answer.
ASK = """
import json, socket, sys
address, ports, source = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
found = []
for port in ports:
    try:
        socket.create_connection((address, port), 1.5, (source, 0)).close()
        found.append(port)
    except OSError:
        pass
print(json.dumps(found))
"""


def as_root(*command: str) -> str:
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    return subprocess.run(
        [*root, *command], check=True, capture_output=True, text=True, timeout=120
    ).stdout


@pytest.fixture
def stranger(fault_lab: TestLab) -> Iterator[str]:
    """An address of this machine's side that is no operator's."""
    network, _, _ = fault_lab.subnet.rpartition(".")
    address, device = f"{network}.9", f"asc-{fault_lab.name}"
    as_root("ip", "address", "add", f"{address}/32", "dev", device)
    try:
        yield address
    finally:
        as_root("ip", "address", "del", f"{address}/32", "dev", device)


def test_ssh_answers_operators_alone(box: str, stranger: str) -> None:
    answer = as_root(sys.executable, "-c", ASK, box, json.dumps([22, 80, 443]), stranger)
    assert json.loads(answer) == [80, 443]


def test_another_host_of_the_vpc_reaches_no_database_pooler_or_cache(
    host: Host, fault_lab: TestLab, box: str
) -> None:
    """A second host in the same subnet and in the same groups: the worst neighbour there can be."""
    ec2 = fault_lab.client("ec2")
    ours = ec2.describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )["Reservations"][0]["Instances"][0]
    [other] = ec2.run_instances(
        ImageId=ours["ImageId"],
        InstanceType="t3.nano",
        KeyName=ours["KeyName"],
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": ours["SubnetId"],
                "Groups": [group["GroupId"] for group in ours["SecurityGroups"]],
                "AssociatePublicIpAddress": True,
            }
        ],
    )["Instances"]
    number = other["InstanceId"]
    try:
        ec2.get_waiter("instance_running").wait(
            InstanceIds=[number], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        other = ec2.describe_instances(InstanceIds=[number])["Reservations"][0]["Instances"][0]
        neighbour = Host(other["PublicIpAddress"], host.key)
        target = str(ours["PrivateIpAddress"])
        script = f"python3 - {target} '{json.dumps([80, *INNER])}' 0.0.0.0"
        assert json.loads(neighbour.run(script, data=ASK)) == [80]
    finally:
        ec2.terminate_instances(InstanceIds=[number])
        ec2.get_waiter("instance_terminated").wait(
            InstanceIds=[number], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
