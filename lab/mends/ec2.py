"""Mends of EC2."""

from __future__ import annotations

import ipaddress
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE

from lab.mends._replace import Mend, replace


def volumes_say_whether_they_attach_to_many() -> None:
    """DescribeVolumes leaves out MultiAttachEnabled, which amazon.aws reads."""
    said = property(
        lambda self: bool(self.__dict__.get("_multi_attach")),
        lambda self, value: self.__dict__.__setitem__("_multi_attach", value),
    )
    setattr(Volume, "multi_attach_enabled", said)  # noqa: B010 - in moto an instance's attribute


def tags_know_elastic_addresses() -> None:
    """DescribeTags does not know an Elastic IP's type of resource."""
    EC2_PREFIX_TO_RESOURCE["eipalloc"] = "elastic-ip"


def launch_templates_keep_their_own_tags() -> None:
    """The tags of a launch template leak into the data of its first version."""

    def mended(original: Any) -> Any:
        def create(self: Any, name: str, description: str, data: Any, tag_spec: Any) -> Any:
            specs = data.pop("TagSpecifications", [])
            kept = [spec for spec in specs if spec["ResourceType"] != "launch-template"]
            if kept:
                data["TagSpecifications"] = kept
            return original(self, name, description, data, tag_spec)

        return create

    replace(LaunchTemplateBackend, "create_launch_template", mended)


def subnets_hand_out_what_is_free() -> None:
    """Addresses: the lowest free one, never one of AWS's five reserved or of a host that ends.

    moto counts upwards and hands out what bare interfaces have taken.
    """

    def take(self: Any, instance: Any) -> str:
        block = ipaddress.IPv4Network(self.cidr_block)
        backend: Any = ec2_backends[self.ec2_backend.account_id][self.ec2_backend.region_name]
        taken = set(self._subnet_ips) | {str(ip) for ip in self._reserved_ips}
        taken |= {
            item["PrivateIpAddress"]
            for nic in backend.enis.values()
            for item in nic.private_ip_addresses
        }
        if hasattr(backend, "physics"):
            taken |= backend.physics.addresses()
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

    replace(Subnet, "get_available_subnet_ip", lambda _: take)


def subnets_refuse_what_is_reserved_or_taken() -> None:
    """A wanted address outside of the subnet, reserved or in use: AWS's error, not a crash."""

    def request(self: Any, ip: str, instance: Any) -> None:
        block = ipaddress.IPv4Network(self.cidr_block)
        if not int(block[4]) <= int(ipaddress.IPv4Address(ip)) < int(block[-1]):
            raise EC2ClientError(
                "InvalidParameterValue", f"Address {ip} does not fall within the subnet's range."
            )
        if ip in self._subnet_ips:
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {ip} is in use.")
        self._unused_ips.discard(ip)
        self._subnet_ips[ip] = instance

    replace(Subnet, "request_ip", lambda _: request)


def interfaces_take_addresses_of_their_subnet() -> None:
    """CreateNetworkInterface and CreateNatGateway: an address of the subnet, not a random one."""

    def mended(original: Any) -> Any:
        def init(
            self: Any, backend: Any, subnet: Any, address: Any, *values: Any, **options: Any
        ) -> None:
            subnet = backend.get_subnet(subnet) if isinstance(subnet, str) else subnet
            wanted = address[0] if isinstance(address, list) and address else address
            several = options.get("private_ip_addresses") or (values[0] if values else None)
            block = ipaddress.IPv4Network(subnet.cidr_block)
            if not several and (not wanted or ipaddress.IPv4Address(wanted) not in block):
                address = subnet.get_available_subnet_ip(self)
            original(self, backend, subnet, address, *values, **options)

        return init

    replace(NetworkInterface, "__init__", mended)


MENDS: tuple[Mend, ...] = (
    volumes_say_whether_they_attach_to_many,
    tags_know_elastic_addresses,
    launch_templates_keep_their_own_tags,
    subnets_hand_out_what_is_free,
    subnets_refuse_what_is_reserved_or_taken,
    interfaces_take_addresses_of_their_subnet,
)
