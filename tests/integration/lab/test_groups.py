"""Security groups: what is closed is closed."""

from __future__ import annotations

import pytest

from tests.integration.lab.conftest import Aws, Box, opens

pytestmark = pytest.mark.lab

LISTEN = "sudo systemd-run -q --collect -u listen-{port} nc -lk {address} {port}"


@pytest.fixture(scope="module")
def group(aws: Aws, pair: tuple[Box, Box]) -> str:
    """A group without rules on both hosts; port 9000 listens on the second."""
    group = aws.group("closed")
    for box in pair:
        aws.ec2.modify_instance_attribute(InstanceId=box.id, Groups=[aws.ssh_group, group])
    pair[1].run(LISTEN.format(port=9000, address="0.0.0.0"))
    assert pair[1].run("nc -z -w1 127.0.0.1 9000 && echo there") == "there"
    return group


def reaches(sender: Box, receiver: Box, port: int = 9000) -> bool:
    return sender.try_run(f"nc -z -w1 {receiver.private} {port}").returncode == 0


def test_nothing_is_open_by_itself(pair: tuple[Box, Box], group: str) -> None:
    assert not opens(pair[1].public, 9000)
    assert not reaches(*pair)
    assert pair[0].try_run(f"ping -c1 -W1 {pair[1].private}").returncode != 0


def test_a_closed_port_is_silent(pair: tuple[Box, Box], group: str) -> None:
    """Dropped, not refused, also where nothing listens."""
    with pytest.raises(TimeoutError):
        import socket

        socket.create_connection((pair[1].public, 9999), 1)


def test_a_rule_opens_at_once_and_its_end_closes(
    aws: Aws, pair: tuple[Box, Box], group: str
) -> None:
    rule = aws.allow(group, 9000, f"{aws.settings.machine_address}/32")
    assert opens(pair[1].public, 9000)
    assert not reaches(*pair), "the rule is for the machine alone"
    aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert not opens(pair[1].public, 9000)


def test_a_group_may_be_the_source(aws: Aws, pair: tuple[Box, Box], group: str) -> None:
    rule = aws.allow(group, 9000, group)
    assert reaches(*pair)
    assert not opens(pair[1].public, 9000)
    aws.ec2.modify_instance_attribute(InstanceId=pair[0].id, Groups=[aws.ssh_group])
    assert not reaches(*pair), "who leaves the group loses the way"
    aws.ec2.modify_instance_attribute(InstanceId=pair[0].id, Groups=[aws.ssh_group, group])
    assert reaches(*pair)
    aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])


def test_nobody_sends_from_an_address_that_is_not_its_own(
    aws: Aws, pair: tuple[Box, Box], group: str
) -> None:
    rule = aws.allow(group, 9000, "10.77.0.250/32")
    first, second = pair
    first.run("sudo ip address add 10.77.0.250/32 dev eth0")
    try:
        second.run("sudo systemctl stop listen-9000")
        second.run("sudo systemd-run -q --collect -u listen-u nc -u -l -W1 -w3 9000")
        first.run(f"echo spoofed | nc -u -w1 -s 10.77.0.250 {second.private} 9000; true")
        heard = second.run("sleep 1; sudo journalctl -u listen-u -o cat")
    finally:
        first.run("sudo ip address delete 10.77.0.250/32 dev eth0")
        second.try_run("sudo systemctl stop listen-u")
        second.run(LISTEN.format(port=9000, address="0.0.0.0"))
        aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert "spoofed" not in heard


def test_egress_rules_hold(aws: Aws, pair: tuple[Box, Box], group: str) -> None:
    ingress = aws.allow(group, 9000, group)
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    only = {
        "IpProtocol": "tcp",
        "FromPort": 9000,
        "ToPort": 9000,
        "UserIdGroupPairs": [{"GroupId": group}],
    }
    assert reaches(*pair)
    for name in (group, aws.ssh_group):
        aws.ec2.revoke_security_group_egress(GroupId=name, IpPermissions=[everything])
    try:
        assert not reaches(*pair)
        assert pair[0].try_run(f"nc -z -w1 {aws.settings.address} 4566").returncode != 0
        assert pair[0].run("getent hosts shop.ec2.internal; echo asked") == "asked"
        aws.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[only])
        assert reaches(*pair)
        aws.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[only])
    finally:
        for name in (group, aws.ssh_group):
            aws.ec2.authorize_security_group_egress(GroupId=name, IpPermissions=[everything])
        aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[ingress])


def test_ping_needs_a_rule(aws: Aws, pair: tuple[Box, Box], group: str) -> None:
    rule = aws.allow(group, -1, group, protocol="icmp")
    assert pair[0].try_run(f"ping -c1 -W1 {pair[1].private}").returncode == 0
    aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])


def test_the_lab_itself_is_not_open_to_hosts(aws: Aws, pair: tuple[Box, Box]) -> None:
    """The API is, as on AWS; its own interface is the operator's."""
    assert pair[0].try_run(f"nc -z -w1 {aws.settings.address} 4566").returncode == 0
    assert pair[0].try_run(f"nc -z -w1 {aws.settings.address} 4567").returncode != 0
