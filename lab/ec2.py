"""EC2 made true: moto's backend, subclassed, with hosts behind its instances."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import (
    EC2Backend,
    ec2_backends,
    elastic_ip_addresses,
    elastic_network_interfaces,
)
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceState, StateReason
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse

from lab import image
from lab.hosts import Event
from lab.mends._replace import replace

# Debian's own account, under which it publishes its images.
DEBIAN = "136693071363"
# AWS: "a terminated instance stays visible for a short while", an hour or so.
KEEP_TERMINATED = 3600.0
_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
# What may only be changed while the instance is stopped.
_STOPPED_ONLY = {"instance_type", "user_data", "kernel", "ramdisk", "ebs_optimized"}


class Physics(Protocol):
    """The physical layer as the API sees it."""

    def image_tag(self, release: str) -> str | None:
        """Return the image of a release, if it was built."""

    def launch(self, instance: Any) -> None:
        """Make a host of a pending instance."""

    def start(self, instance: Any) -> None:
        """Start the host of a stopped instance, as the API describes it now."""

    def stop(self, instance_id: str, force: bool) -> None:
        """Shut a host down, or end all that runs on it at once."""

    def reboot(self, instance_id: str) -> None:
        """Shut a host down and start it."""

    def terminate(self, instance_id: str) -> None:
        """Shut a host down and remove it."""

    def addresses(self) -> set[str]:
        """Return the private addresses of all hosts that are not gone yet."""

    def healthy(self, instance_id: str) -> bool:
        """Say whether a host answered when it booted and stands since."""

    def console(self, instance_id: str) -> str:
        """Return what a host says of its boot."""


class AddressPool:
    """Public addresses: each is handed out once, and as late as possible again."""

    def __init__(
        self,
        first: ipaddress.IPv4Address,
        last: ipaddress.IPv4Address,
        in_use: Callable[[], Iterable[str]],
    ) -> None:
        self._first, self._size = int(first), int(last) - int(first) + 1
        self._in_use = in_use
        self._cursor = 0

    def take(self) -> str:
        """Return a free address. Raises EC2ClientError."""
        taken = set(self._in_use())
        for step in range(self._size):
            offset = (self._cursor + step) % self._size
            address = str(ipaddress.IPv4Address(self._first + offset))
            if address not in taken:
                self._cursor = offset + 1
                return address
        raise EC2ClientError(
            "InsufficientAddressCapacity", f"The lab has {self._size} public addresses, all in use."
        )

    def __contains__(self, address: str) -> bool:
        return 0 <= int(ipaddress.IPv4Address(address)) - self._first < self._size


class LabEC2Backend(EC2Backend):
    """moto's EC2 whose instances are hosts."""

    __module__ = "moto.ec2.models"  # moto finds a backend's URLs by its module's name
    physics: ClassVar[Physics]
    pool: ClassVar[AddressPool]

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._terminated: dict[str, float] = {}
        self._reservations_by_token: dict[str, str] = {}
        gateway = self.create_internet_gateway()
        self.attach_internet_gateway(gateway.id, self.default_vpc.id)
        table = self.get_main_route_table(self.default_vpc)
        self.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)

    def get_main_route_table(self, vpc: Any) -> Any:
        """Return a VPC's main route table."""
        return next(
            table
            for table in self.route_tables.values()
            if table.vpc_id == vpc.id and table.main_association_id is not None
        )

    # --- images
    def _load_amis(self) -> None:
        for entry in image.amis():
            self.amis[entry.id] = Ami(
                self,
                entry.id,
                name=entry.name,
                description=entry.description,
                owner_id=DEBIAN,
                public=True,
                virtualization_type="hvm",
                architecture="x86_64",
                hypervisor="xen",
                image_location=f"amazon/{entry.name}",
                root_device_type="ebs",
                root_device_name="/dev/xvda",
                region_name=f"{self.region_name}a",
            )

    # --- instances
    def run_instances(
        self,
        image_id: str,
        count: int,
        user_data: Any,
        security_group_names: list[str],
        **kwargs: Any,
    ) -> Any:
        """Launch hosts; pending until they answer."""
        token = kwargs.get("client_token") or ""
        known = self.reservations.get(self._reservations_by_token.get(token, ""))
        if known:
            return known
        self._check_launch(image_id, kwargs)
        before = set(self.reservations)
        try:
            reservation = super().run_instances(
                image_id, count, user_data, security_group_names, **kwargs
            )
            for instance in reservation.instances:
                self._settle(instance)
        except BaseException:
            for key in set(self.reservations) - before:
                del self.reservations[key]
            raise
        if token and token != "ABCDE":  # noqa: S105 - moto's word for "no token was given"
            self._reservations_by_token[token] = reservation.id
        for instance in reservation.instances:
            set_state(instance, "pending")
            self.physics.launch(instance)
        return reservation

    def start_instances(self, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        """Start stopped hosts."""
        instances = self.get_multi_instances_by_id(instance_ids)
        _require(instances, ("stopped", "pending", "running"), "started")
        changes = []
        for instance in instances:
            previous = _copy(instance)
            if instance.state == "stopped":
                instance.start()
                self._keep_elastic_address(instance)
                set_state(instance, "pending")
                self.physics.start(instance)
            changes.append((instance, previous))
        return changes

    def stop_instances(self, instance_ids: list[str], force: bool = False) -> list[tuple[Any, Any]]:
        """Shut hosts down; with `force` they are not asked, as when power is lost."""
        instances = self.get_multi_instances_by_id(instance_ids)
        _require(instances, ("running", "stopping", "stopped"), "stopped")
        changes = []
        for instance in instances:
            previous = _copy(instance)
            if instance.state == "running":
                super().stop_instances([instance.id])
                self._keep_elastic_address(instance)
                set_state(instance, "stopping")
                self.physics.stop(instance.id, force)
            changes.append((instance, previous))
        return changes

    def reboot_instances(self, instance_ids: list[str]) -> list[Any]:
        """Reboot running hosts; they keep everything."""
        instances: list[Any] = self.get_multi_instances_by_id(instance_ids)
        _require(instances, ("running",), "rebooted")
        for instance in instances:
            self.physics.reboot(instance.id)
        return instances

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        """Remove hosts."""
        changes = []
        for instance in self.get_multi_instances_by_id(instance_ids):
            previous = _copy(instance)
            if instance.state not in ("shutting-down", "terminated"):
                super().terminate_instances([instance.id])
                for address in self.addresses:
                    if address.eni in instance.nics.values():
                        self.disassociate_address(address=address.public_ip)
                set_state(instance, "shutting-down")
                self.physics.terminate(instance.id)
            changes.append((instance, previous))
        return changes

    def modify_instance_attribute(self, instance_id: str, key: str, value: Any) -> Any:
        """Change an attribute; type and user data only while stopped."""
        instance = self.get_instance(instance_id)
        if key in _STOPPED_ONLY and instance.state != "stopped":
            raise EC2ClientError(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in the 'stopped' state.",
            )
        if key == "instance_type" and value not in INSTANCE_TYPES:
            raise EC2ClientError(
                "InvalidInstanceAttributeValue", f"Invalid value '{value}' for InstanceType."
            )
        return super().modify_instance_attribute(instance_id, key, value)

    def all_reservations(self, filters: Any = None) -> Any:
        """Return reservations; what was terminated long ago is forgotten."""
        limit = time.monotonic() - KEEP_TERMINATED
        for instance_id in [key for key, when in self._terminated.items() if when < limit]:
            del self._terminated[instance_id]
            for key, reservation in list(self.reservations.items()):
                reservation.instances = [i for i in reservation.instances if i.id != instance_id]
                if not reservation.instances:
                    del self.reservations[key]
        return super().all_reservations(filters)

    def happened(self, instance: Any, event: Event, reason: str) -> None:
        """Take up what a host reports."""
        if event is Event.TERMINATED:
            set_state(instance, "terminated")
            self._terminated[instance.id] = time.monotonic()
        elif event is Event.FAILED:
            if instance.state not in ("shutting-down", "terminated"):
                self.terminate_instances([instance.id])
            instance.state_reason = StateReason(
                f"Server.InternalError: {reason}", "Server.InternalError"
            )
        elif instance.state in ("shutting-down", "terminated"):
            return
        elif event in (Event.RUNNING, Event.IMPAIRED):
            if instance.state == "pending":
                set_state(instance, "running")
        elif event is Event.STOPPED:
            set_state(instance, "stopped")
        elif event is Event.POWERED_OFF:
            self._powered_off(instance)

    def _powered_off(self, instance: Any) -> None:
        """A host shut itself down: its shutdown behaviour says what that means."""
        if instance.instance_initiated_shutdown_behavior == "terminate":
            self.terminate_instances([instance.id])
        else:
            instance.stop()
            self._keep_elastic_address(instance)
            set_state(instance, "stopped")
        instance.state_reason = StateReason(
            "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
            "Client.InstanceInitiatedShutdown",
        )

    def _check_launch(self, image_id: str | None, kwargs: dict[str, Any]) -> None:
        template: dict[str, Any] = {}
        if kwargs.get("launch_template"):
            template = self._get_template_from_args(kwargs["launch_template"]).data
        wanted = image_id or template.get("ImageId")
        if not wanted:
            raise EC2ClientError(
                "MissingParameter", "The request must contain the parameter ImageId"
            )
        ami = self.describe_images(ami_ids=[wanted])[0]
        release = next((a.release for a in image.amis() if a.id == ami.id), None)
        if release is None:
            raise not_true(f"a host from {wanted}: only the lab's own images can be launched")
        if self.physics.image_tag(release) is None:
            raise not_true(
                f"a host from {ami.name} yet: build its image with "
                f"`python -m lab image --release {release}`"
            )
        key_name = kwargs.get("key_name") or template.get("KeyName")
        if key_name:
            self.describe_key_pairs(key_names=[key_name])
        kind = kwargs.get("instance_type")
        if kwargs.get("is_instance_type_default"):
            kind = template.get("InstanceType") or kind
        if kind not in INSTANCE_TYPES:
            raise EC2ClientError(
                "InvalidParameterValue", f"Invalid value '{kind}' for InstanceType."
            )
        if len(kwargs.get("nics") or []) > 1:
            raise not_true("a host with more than one network interface")

    def _settle(self, instance: Any) -> None:
        """Give a new instance what AWS gives and moto forgets."""
        nic = instance.nics[0]
        nic.delete_on_termination = True
        instance.security_groups = list(nic._group_set)
        if nic.private_ip_address in self.physics.addresses():
            self._withdraw(instance)
            raise not_true(
                f"a second host with the address {nic.private_ip_address}: hosts of VPCs "
                "with the same block cannot stand side by side"
            )

    def _withdraw(self, instance: Any) -> None:
        instance.terminate()

    # --- security groups
    def modify_instance_security_groups(
        self, instance_id: str, new_group_id_list: list[str]
    ) -> Any:
        """Change an instance's groups, on its interface as well."""
        if not new_group_id_list:
            raise EC2ClientError("InvalidParameterCombination", "No attributes specified.")
        for group_id in new_group_id_list:
            self._require_group(group_id)
        instance = super().modify_instance_security_groups(instance_id, new_group_id_list)
        instance.nics[0]._group_set = list(instance.security_groups)
        return instance

    def modify_network_interface_attribute(
        self,
        eni_id: str,
        group_ids: list[str],
        source_dest_check: bool | None = None,
        description: str | None = None,
    ) -> None:
        """Change an interface's groups, on its instance as well."""
        for group_id in group_ids:
            self._require_group(group_id)
        super().modify_network_interface_attribute(
            eni_id, group_ids, source_dest_check, description
        )
        nic = self.get_network_interface(eni_id)
        if group_ids and nic.instance and nic.device_index == 0:
            nic.instance.security_groups = list(nic._group_set)

    def delete_network_interface(self, eni_id: str) -> None:
        """Remove an interface, unless it is another service's."""
        if eni_id in self.enis and self.enis[eni_id].requester_managed:
            raise EC2ClientError(
                "InvalidNetworkInterface.InUse", f"Network interface '{eni_id}' is currently in use"
            )
        super().delete_network_interface(eni_id)

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Remove a group, unless a database has it."""
        for nic in self.enis.values():
            if nic.requester_managed and group_id in {group.id for group in nic._group_set}:
                raise EC2ClientError(
                    "DependencyViolation", f"resource {group_id} has a dependent object"
                )
        super().delete_security_group(name, group_id)

    def delete_subnet(self, subnet_id: str) -> Any:
        """Remove a subnet, unless a database stands in it."""
        for nic in self.enis.values():
            if nic.requester_managed and nic.subnet.id == subnet_id:
                raise EC2ClientError(
                    "DependencyViolation",
                    f"The subnet '{subnet_id}' has dependencies and cannot be deleted.",
                )
        return super().delete_subnet(subnet_id)

    def _require_group(self, group_id: str) -> None:
        if not self.get_security_group_from_id(group_id):
            raise EC2ClientError(
                "InvalidGroup.NotFound", f"The security group '{group_id}' does not exist"
            )

    def attach_network_interface(self, eni_id: str, instance_id: str, device_index: int) -> Any:
        """Refuse: hosts have one interface."""
        raise not_true("AttachNetworkInterface: hosts have one interface")

    # --- addresses
    def allocate_address(
        self, domain: str, address: str | None = None, tags: dict[str, str] | None = None
    ) -> Any:
        """Allocate an Elastic IP from the lab's pool."""
        if address and (address not in self.pool or address in public_addresses()):
            raise EC2ClientError(
                "InvalidAddress.NotFound", f"Address '{address}' is not available."
            )
        return super().allocate_address(domain, address=address, tags=tags)

    def associate_address(
        self,
        instance: Any = None,
        eni: Any = None,
        address: str | None = None,
        allocation_id: str | None = None,
        reassociate: bool = False,
    ) -> Any:
        """Move an Elastic IP; the one that was there before goes, as on AWS."""
        if instance and instance.state in ("shutting-down", "terminated"):
            raise EC2ClientError(
                "IncorrectInstanceState", f"The instance '{instance.id}' is not in a valid state."
            )
        for held in self.addresses:
            if held.public_ip == address or held.allocation_id == allocation_id:
                self._check_mine(held)
        nic: Any = eni or (instance.nics[0] if instance else None)
        before: dict[str, Any] = {a.public_ip: a.eni for a in self.addresses if a.eni}
        result: Any = super().associate_address(instance, eni, address, allocation_id, reassociate)
        left: Any = before.get(result.public_ip)
        if left is not None and left is not nic:
            left.public_ip = None
            if left.instance and left.instance.state in ("pending", "running"):
                left.check_auto_public_ip()
        for other in self.addresses:
            if other is not result and other.eni is nic:
                other.instance = other.eni = other.association_id = None
        if nic is not None:
            nic.public_ip = result.public_ip
            result.instance = nic.instance
        return result

    def disassociate_address(
        self, address: str | None = None, association_id: str | None = None
    ) -> None:
        """Take an Elastic IP from its interface, unless it is a load balancer's."""
        for held in self.addresses:
            if held.public_ip == address or (
                association_id and held.association_id == association_id
            ):
                self._check_mine(held)
        super().disassociate_address(address, association_id)

    def _check_mine(self, address: Any) -> None:
        if address.eni is not None and address.eni.requester_managed:
            raise EC2ClientError(
                "AuthFailure", "You do not have permission to access the specified resource."
            )

    def _keep_elastic_address(self, instance: Any) -> None:
        addresses: list[Any] = self.addresses
        for nic in instance.nics.values():
            for address in addresses:
                if address.eni is nic:
                    nic.public_ip = address.public_ip


def set_state(instance: Any, name: str) -> None:
    """Put an instance into a state."""
    instance._state = InstanceState(name, _CODES[name])


def not_true(what: str) -> EC2ClientError:
    """Return the error for what the lab does not make true."""
    return EC2ClientError("NotTrueInTheLab", f"The lab cannot make {what}. See docs/lab.md.")


def backends() -> Iterator[Any]:
    """Yield EC2's backends that are in use, one a region."""
    for _, _, backend in ec2_backends.iter_backends():
        yield backend


def public_addresses() -> set[str]:
    """Return all public addresses in use."""
    found: set[str] = set()
    for backend in backends():
        found |= {address.public_ip for address in backend.addresses}
        found |= {nic.public_ip for nic in backend.enis.values() if nic.public_ip}
    return found


def instances() -> Iterator[tuple[Any, Any]]:
    """Yield all instances with their backends."""
    for backend in backends():
        for reservation in list(backend.reservations.values()):
            for instance in list(reservation.instances):
                yield backend, instance


def install(physics: Physics, first: ipaddress.IPv4Address, last: ipaddress.IPv4Address) -> None:
    """Put the lab's EC2 in the place of moto's."""
    pool = AddressPool(first, last, public_addresses)
    LabEC2Backend.physics = physics
    LabEC2Backend.pool = pool
    ec2_backends.backend = LabEC2Backend
    replace(elastic_ip_addresses, "random_ip", lambda _: pool.take)
    replace(elastic_network_interfaces, "random_public_ip", lambda _: pool.take)

    def status(instance: Any) -> dict[str, Any]:
        if instance.state != "running":
            return {"Status": "not-applicable"}
        passed = physics.healthy(instance.id)
        return {
            "Details": [{"Name": "reachability", "Status": "passed" if passed else "failed"}],
            "Status": "ok" if passed else "impaired",
        }

    def console(response: Any) -> ActionResult:
        instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
        output = Base64EncodedString.from_raw_string(physics.console(instance.id))
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    def stop(response: Any) -> ActionResult:
        response.error_on_dryrun()
        changes = response.ec2_backend.stop_instances(
            response._get_param("InstanceIds", []), force=response._get_bool_param("Force", False)
        )
        return ActionResult(
            {
                "StoppingInstances": [
                    {
                        "InstanceId": instance.id,
                        "CurrentState": _copy(instance),
                        "PreviousState": previous,
                    }
                    for instance, previous in changes
                ]
            }
        )

    replace(Instance, "instance_status", lambda _: property(status))
    replace(General, "get_console_output", lambda _: console)
    # moto's drops the parameter Force.
    replace(InstanceResponse, "stop_instances", lambda _: stop)


def _require(instances: Iterable[Any], states: tuple[str, ...], verb: str) -> None:
    for instance in instances:
        if instance.state not in states:
            raise EC2ClientError(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
            )


def _copy(instance: Any) -> Any:
    return InstanceState(instance._state.name, instance._state.code)
