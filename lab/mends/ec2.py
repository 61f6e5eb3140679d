"""Mends of EC2."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import LaunchTemplateBackend, ec2_backends, tags
from moto.ec2.models import elastic_network_interfaces as interfaces
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.subnets import Subnet


def volumes_say_whether_they_attach_to_many() -> None:
    """DescribeVolumes leaves out MultiAttachEnabled, which amazon.aws reads."""
    Volume.multi_attach_enabled = property(
        lambda self: bool(self.__dict__.get("_multi_attach")),
        lambda self, value: self.__dict__.__setitem__("_multi_attach", value),
    )


def tags_know_elastic_addresses() -> None:
    """DescribeTags gives an Elastic IP's resource type as that of nothing."""
    tags.EC2_PREFIX_TO_RESOURCE["eipalloc"] = "elastic-ip"


def launch_templates_keep_their_own_tags() -> None:
    """The tags of a launch template leak into the data of its first version."""
    original = LaunchTemplateBackend.create_launch_template

    def create(self: Any, name: str, description: str, data: Any, tag_spec: Any) -> Any:
        kept = [
            spec
            for spec in data.get("TagSpecifications", [])
            if spec["ResourceType"] != "launch-template"
        ]
        data.pop("TagSpecifications", None)
        if kept:
            data["TagSpecifications"] = kept
        return original(self, name, description, data, tag_spec)

    LaunchTemplateBackend.create_launch_template = create


def subnets_hand_out_what_is_free() -> None:
    """Addresses: the lowest free one, without AWS's five reserved ones and without reuse.

    moto hands out random ones to bare network interfaces, reserved and taken ones among them.
    """

    def take(self: Any, instance: Any) -> str:
        block = ipaddress.IPv4Network(self.cidr_block)
        backend = ec2_backends[self.ec2_backend.account_id][self.ec2_backend.region_name]
        taken = set(self._subnet_ips) | {str(ip) for ip in self._reserved_ips}
        taken |= {
            item["PrivateIpAddress"]
            for nic in backend.enis.values()
            for item in nic.private_ip_addresses
        }
        taken |= backend.physics.addresses() if hasattr(backend, "physics") else set()
        for number in range(int(block[4]), int(block[-1])):
            address = str(ipaddress.IPv4Address(number))
            if address not in taken:
                self._subnet_ips[address] = instance
                self._unused_ips.discard(address)
                return address
        raise EC2ClientError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{self.id}' to satisfy the request.",
        )

    def request(self: Any, ip: str, instance: Any) -> None:
        block = ipaddress.IPv4Network(self.cidr_block)
        address = ipaddress.IPv4Address(ip)
        if address not in block or not int(block[4]) <= int(address) < int(block[-1]):
            raise EC2ClientError(
                "InvalidParameterValue", f"Address {ip} does not fall within the subnet's range."
            )
        if ip in self._subnet_ips:
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {ip} is in use.")
        self._subnet_ips[ip] = instance

    Subnet.get_available_subnet_ip = take
    Subnet.request_ip = request


def interfaces_take_addresses_of_their_subnet() -> None:
    """CreateNetworkInterface and NAT gateways: an address of the subnet, not a random one."""
    original = interfaces.NetworkInterface.__init__

    def init(
        self: Any, ec2_backend: Any, subnet: Any, private_ip_address: Any, *a: Any, **k: Any
    ) -> None:
        subnet = ec2_backend.get_subnet(subnet) if isinstance(subnet, str) else subnet
        address = (
            private_ip_address[0]
            if isinstance(private_ip_address, list) and private_ip_address
            else private_ip_address
        )
        inside = isinstance(address, str) and ipaddress.IPv4Address(
            address
        ) in ipaddress.IPv4Network(subnet.cidr_block)
        several = (a[0] if a else None) or k.get("private_ip_addresses")
        if not inside and not several:
            private_ip_address = subnet.get_available_subnet_ip(self)
        original(self, ec2_backend, subnet, private_ip_address, *a, **k)

    interfaces.NetworkInterface.__init__ = init


MENDS: tuple[Callable[[], None], ...] = (
    volumes_say_whether_they_attach_to_many,
    tags_know_elastic_addresses,
    launch_templates_keep_their_own_tags,
    subnets_hand_out_what_is_free,
    interfaces_take_addresses_of_their_subnet,
)
