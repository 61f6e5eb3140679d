"""EC2's states and addresses, as the API tells them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import ec2 as lab_ec2
from lab.ec2 import AddressPool
from lab.hosts import Event
from tests.unit.lab.conftest import Recorder

IMAGE = "ami-0deb1300000000001"


@pytest.fixture
def api(client: Any) -> Any:
    return client("ec2")


@pytest.fixture
def subnet(api: Any) -> str:
    vpc = api.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    return api.create_subnet(VpcId=vpc, CidrBlock="10.1.2.0/28")["Subnet"]["SubnetId"]


def run(api: Any, subnet: str, **more: Any) -> dict[str, Any]:
    options = {"ImageId": IMAGE, "InstanceType": "t3.small", "SubnetId": subnet, **more}
    return api.run_instances(MinCount=1, MaxCount=1, **options)["Instances"][0]


def describe(api: Any, instance: str) -> dict[str, Any]:
    return api.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def state(api: Any, instance: str) -> str:
    return describe(api, instance)["State"]["Name"]


def test_states_wait_for_the_host(api: Any, subnet: str, physics: Recorder) -> None:
    one = run(api, subnet)["InstanceId"]
    assert state(api, one) == "pending"
    physics.report(one, Event.RUNNING)
    assert state(api, one) == "running"
    api.stop_instances(InstanceIds=[one])
    assert state(api, one) == "stopping"
    physics.report(one, Event.STOPPED)
    assert state(api, one) == "stopped"
    api.start_instances(InstanceIds=[one])
    assert state(api, one) == "pending"
    physics.report(one, Event.RUNNING)
    api.reboot_instances(InstanceIds=[one])
    assert state(api, one) == "running"
    api.terminate_instances(InstanceIds=[one])
    assert state(api, one) == "shutting-down"
    physics.report(one, Event.TERMINATED)
    assert state(api, one) == "terminated"
    assert [order for order, _ in physics.orders] == [
        "launch", "stop", "start", "reboot", "terminate",
    ]  # fmt: skip


def test_a_forced_stop_asks_nobody(api: Any, subnet: str, physics: Recorder) -> None:
    one = run(api, subnet)["InstanceId"]
    physics.report(one, Event.RUNNING)
    [change] = api.stop_instances(InstanceIds=[one], Force=True)["StoppingInstances"]
    assert change["PreviousState"]["Name"] == "running"
    assert change["CurrentState"]["Name"] == "stopping"
    assert [order for order, _ in physics.orders] == ["launch", "cut power"]


@pytest.mark.parametrize(
    ("events", "call"),
    [
        ([], "stop_instances"),
        ([], "reboot_instances"),
        ([Event.RUNNING, Event.TERMINATED], "start_instances"),
        ([Event.RUNNING, Event.STOPPED], "reboot_instances"),
    ],
)
def test_calls_that_the_state_forbids(
    api: Any, subnet: str, physics: Recorder, events: list[Event], call: str
) -> None:
    one = run(api, subnet)["InstanceId"]
    for event in events:
        physics.report(one, event)
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        getattr(api, call)(InstanceIds=[one])


def test_the_same_call_twice_orders_once(api: Any, subnet: str, physics: Recorder) -> None:
    one = run(api, subnet, ClientToken="once")["InstanceId"]
    assert run(api, subnet, ClientToken="once")["InstanceId"] == one
    physics.report(one, Event.RUNNING)
    for _ in range(2):
        api.stop_instances(InstanceIds=[one])
        api.terminate_instances(InstanceIds=[one])
        break
    api.terminate_instances(InstanceIds=[one])
    assert [order for order, _ in physics.orders] == ["launch", "stop", "terminate"]


def test_a_host_that_cannot_be_made_is_terminated_with_a_reason(
    api: Any, subnet: str, physics: Recorder
) -> None:
    one = run(api, subnet)["InstanceId"]
    physics.report(one, Event.FAILED, "no room")
    physics.report(one, Event.TERMINATED)
    found = describe(api, one)
    assert found["State"]["Name"] == "terminated"
    assert found["StateReason"]["Code"] == "Server.InternalError"
    assert "no room" in found["StateReason"]["Message"]


@pytest.mark.parametrize(
    ("behaviour", "expected"), [("stop", "stopped"), ("terminate", "shutting-down")]
)
def test_a_shutdown_from_inside(
    api: Any, subnet: str, physics: Recorder, behaviour: str, expected: str
) -> None:
    one = run(api, subnet, InstanceInitiatedShutdownBehavior=behaviour)["InstanceId"]
    physics.report(one, Event.RUNNING)
    physics.report(one, Event.POWERED_OFF)
    assert state(api, one) == expected


def test_terminated_hosts_are_forgotten_later(
    api: Any, subnet: str, physics: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(api, subnet)["InstanceId"]
    api.terminate_instances(InstanceIds=[one])
    physics.report(one, Event.TERMINATED)
    assert state(api, one) == "terminated"
    monkeypatch.setattr(lab_ec2, "KEEP_TERMINATED", -1.0)
    assert api.describe_instances()["Reservations"] == []


def test_status_checks_follow_the_host(api: Any, subnet: str, physics: Recorder) -> None:
    one = run(api, subnet)["InstanceId"]
    physics.report(one, Event.IMPAIRED)

    def status() -> str:
        answer = api.describe_instance_status(InstanceIds=[one])["InstanceStatuses"][0]
        return answer["InstanceStatus"]["Status"]

    assert status() == "impaired"
    physics.well.add(one)
    assert status() == "ok"


def test_addresses_are_the_lowest_free_ones(api: Any, subnet: str, physics: Recorder) -> None:
    hosts = [run(api, subnet) for _ in range(3)]
    assert [h["PrivateIpAddress"] for h in hosts] == ["10.1.2.4", "10.1.2.5", "10.1.2.6"]
    api.terminate_instances(InstanceIds=[hosts[1]["InstanceId"]])
    assert run(api, subnet)["PrivateIpAddress"] == "10.1.2.7", "the host stands still"
    physics.standing.discard("10.1.2.5")
    assert run(api, subnet)["PrivateIpAddress"] == "10.1.2.5"


def test_a_full_subnet_says_so(api: Any, subnet: str) -> None:
    for _ in range(11):  # a /28 less AWS's five
        run(api, subnet)
    with pytest.raises(ClientError, match="InsufficientFreeAddressesInSubnet"):
        run(api, subnet)
    assert len(api.describe_instances()["Reservations"]) == 11


def test_hosts_cannot_share_an_address(api: Any, subnet: str) -> None:
    run(api, subnet)
    vpc = api.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    twin = api.create_subnet(VpcId=vpc, CidrBlock="10.1.2.0/28")["Subnet"]["SubnetId"]
    with pytest.raises(ClientError, match="NotTrueInTheLab"):
        run(api, twin, PrivateIpAddress="10.1.2.4")


def test_moving_an_elastic_address_takes_it_away(api: Any, subnet: str, physics: Recorder) -> None:
    first, second = (run(api, subnet)["InstanceId"] for _ in range(2))
    for one in (first, second):
        physics.report(one, Event.RUNNING)
    a, b = (api.allocate_address(Domain="vpc") for _ in range(2))
    api.associate_address(InstanceId=first, AllocationId=a["AllocationId"])
    with pytest.raises(ClientError, match=r"Resource\.AlreadyAssociated"):
        api.associate_address(InstanceId=second, AllocationId=a["AllocationId"])
    api.associate_address(
        InstanceId=second, AllocationId=a["AllocationId"], AllowReassociation=True
    )
    assert "PublicIpAddress" not in describe(api, first)
    assert describe(api, second)["PublicIpAddress"] == a["PublicIp"]
    api.associate_address(InstanceId=second, AllocationId=b["AllocationId"])
    assert describe(api, second)["PublicIpAddress"] == b["PublicIp"]
    free = api.describe_addresses(PublicIps=[a["PublicIp"]])["Addresses"][0]
    assert "AssociationId" not in free


def test_an_elastic_address_stays_while_the_host_is_stopped(
    api: Any, subnet: str, physics: Recorder
) -> None:
    api.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    one = run(api, subnet)["InstanceId"]
    physics.report(one, Event.RUNNING)
    own = describe(api, one)["PublicIpAddress"]
    assert own.startswith("198.18.7.")
    address = api.allocate_address(Domain="vpc")
    api.associate_address(InstanceId=one, AllocationId=address["AllocationId"])
    for event, call in ((Event.STOPPED, "stop_instances"), (Event.RUNNING, "start_instances")):
        getattr(api, call)(InstanceIds=[one])
        physics.report(one, event)
        assert describe(api, one)["PublicIpAddress"] == address["PublicIp"]
    api.terminate_instances(InstanceIds=[one])
    free = api.describe_addresses()["Addresses"][0]
    assert "InstanceId" not in free or not free["InstanceId"]


def test_public_addresses_run_out(api: Any) -> None:
    addresses = {api.allocate_address(Domain="vpc")["PublicIp"] for _ in range(3)}
    assert addresses == {"198.18.7.16", "198.18.7.17", "198.18.7.18"}
    with pytest.raises(ClientError, match="InsufficientAddressCapacity"):
        api.allocate_address(Domain="vpc")


def test_a_public_address_returns_as_late_as_possible() -> None:
    used: set[str] = set()
    pool = AddressPool(
        ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.3"), lambda: used
    )
    assert [pool.take() for _ in range(4)] == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"]
    used.add("192.0.2.2")
    assert pool.take() == "192.0.2.3"
    assert "192.0.2.2" in pool
    assert "192.0.2.4" not in pool


def test_groups_are_those_of_instance_and_interface(api: Any, subnet: str) -> None:
    vpc = api.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    a, b = (
        api.create_security_group(GroupName=n, Description=n, VpcId=vpc)["GroupId"] for n in "ab"
    )
    one = run(api, subnet, SecurityGroupIds=[a])

    def groups() -> tuple[list[str], list[str]]:
        found = describe(api, one["InstanceId"])
        nic = found["NetworkInterfaces"][0]
        return [g["GroupId"] for g in found["SecurityGroups"]], [
            g["GroupId"] for g in nic["Groups"]
        ]

    assert groups() == ([a], [a])
    api.modify_instance_attribute(InstanceId=one["InstanceId"], Groups=[b])
    assert groups() == ([b], [b])
    nic = one["NetworkInterfaces"][0]["NetworkInterfaceId"]
    api.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[a])
    assert groups() == ([a], [a])
    with pytest.raises(ClientError, match=r"InvalidGroup\.NotFound"):
        api.modify_instance_attribute(InstanceId=one["InstanceId"], Groups=["sg-0123"])
    assert groups() == ([a], [a])


def test_debians_images_are_found_as_on_aws(api: Any) -> None:
    found = api.describe_images(
        Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-13-amd64-*"]}]
    )["Images"]
    assert [image["ImageId"] for image in found] == [IMAGE]
    assert found[0]["RootDeviceType"] == "ebs"


def test_an_image_that_was_not_built_is_refused(api: Any, subnet: str) -> None:
    with pytest.raises(ClientError, match="python -m lab image --release bookworm"):
        run(api, subnet, ImageId="ami-0deb1200000000001")
    assert api.describe_instances()["Reservations"] == []


def test_the_console_is_the_hosts(api: Any, subnet: str) -> None:
    one = run(api, subnet)["InstanceId"]
    assert api.get_console_output(InstanceId=one)["Output"] == f"console of {one}"
