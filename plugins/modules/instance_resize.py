#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a host another instance type, or a bigger and faster root volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_resize
short_description: Give a host another instance type, or a bigger and faster root volume
version_added: 0.1.0
description:
  - The host is found by its tags C(ascent:environment) and C(ascent:name). It keeps its disk, its
    private address, and an Elastic IP.
  - A volume is changed while it is in use. It only ever grows.
  - A new instance type is refused before anything is stopped when EC2 does not know it, does not
    offer it in the host's zone, or when it has another architecture.
  - Stop, change and start are one process. If the start with the new type fails, the host is
    started with the old one. A host that a killed run left stopped is started.
options:
  environment:
    description: The environment.
    type: str
    required: true
  name:
    description: The host's name within the environment.
    type: str
    required: true
  size:
    description: The instance type.
    type: str
    required: true
  disk:
    description:
      - The root volume, with C(gib), and if wanted C(type), C(iops) and C(throughput) (in MiB/s).
    type: dict
    required: true
  part:
    description:
      - V(none) changes nothing, and tells what would be changed.
      - V(disk) changes the volume, V(size) the instance type, which stops the host.
    type: str
    choices: [none, disk, size]
    default: none
  timeout:
    description: Seconds for each of stop, start, and the change of a volume.
    type: int
    default: 900
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description: Tells what would be changed, and changes nothing.
    support: full
  diff_mode:
    description: Shows instance type and volume before and after.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: See what would be changed
  ascent.scaling.instance_resize:
    environment: production
    name: box
    size: m7i.large
    disk: {gib: 100, iops: 6000, throughput: 250}

- name: Change the root volume, while it is in use
  ascent.scaling.instance_resize:
    environment: production
    name: box
    size: m7i.large
    disk: {gib: 100}
    part: disk
"""

RETURN = r"""
changes:
  description: What differs, a line each, whichever O(part) is asked for.
  returned: always
  type: list
  elements: str
  sample: ["size t3.small -> m7i.large", "gib 20 -> 100"]
needs_stop:
  description: Whether the instance type differs, so that the host has to be stopped for it.
  returned: always
  type: bool
state:
  description: The state that the host was found in.
  returned: always
  type: str
  sample: running
seconds:
  description: How long the host was not running.
  returned: when it was stopped or started
  type: float
"""

import time
from collections.abc import Callable
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils._aws.observe import (
    of_environment,
    root_volumes,
)
from ansible_collections.ascent.scaling.plugins.module_utils.environment import (
    DescriptionError,
    disk_of,
)

CALLS = {"gib": "Size", "type": "VolumeType", "iops": "Iops", "throughput": "Throughput"}


class Host:
    """One instance, as EC2 tells it, and what is done with it."""

    def __init__(self, api: Api, environment: str, name: str, timeout: float) -> None:
        self._api = api
        self._timeout = timeout
        self.name = name
        found = api.pages(
            "ec2",
            "describe_instances",
            "Reservations",
            name,
            Filters=[
                *of_environment(environment),
                {"Name": "tag:ascent:name", "Values": [name]},
                {
                    "Name": "instance-state-name",
                    "Values": ["pending", "running", "stopping", "stopped"],
                },
            ],
        )
        hosts = [host for group in found for host in group["Instances"]]
        if len(hosts) != 1:
            raise AwsFailure(
                f"environment {environment} has {len(hosts)} hosts of the name {name}, not one: "
                "run the stage first"
            )
        self.id = str(hosts[0]["InstanceId"])
        self.size = str(hosts[0]["InstanceType"])
        self.state = str(hosts[0]["State"]["Name"])
        self.zone = str(hosts[0]["Placement"]["AvailabilityZone"])
        self.architecture = str(hosts[0].get("Architecture", ""))
        disks = root_volumes(api, hosts)
        if self.id not in disks:
            raise AwsFailure(f"{name} ({self.id}) has no EBS volume as its root, so none to change")
        self.volume, self.disk = disks[self.id]

    def _call(self, operation: str, **more: Any) -> dict[str, Any]:
        return self._api.call("ec2", operation, f"{self.name} ({self.id})", **more) or {}

    def check_size(self, size: str) -> None:
        """Raise AwsFailure if the host cannot become a `size`; nothing is stopped for it."""
        unknown = ("InvalidInstanceType", "InvalidParameterValue")
        answer = self._api.call(
            "ec2", "describe_instance_types", size, missing=unknown, InstanceTypes=[size]
        )
        known = (answer or {}).get("InstanceTypes", [])
        nothing = "Nothing was stopped. Correct ascent_sizes in the inventory"
        if not known:
            raise AwsFailure(f"EC2 knows no instance type {size} in this region. {nothing}")
        supported = known[0].get("ProcessorInfo", {}).get("SupportedArchitectures", [])
        if self.architecture and supported and self.architecture not in supported:
            raise AwsFailure(
                f"{size} is {' or '.join(supported)}, but {self.name} has the architecture "
                f"{self.architecture}, which its disk is made for. {nothing}"
            )
        offered = self._call(
            "describe_instance_type_offerings",
            LocationType="availability-zone",
            Filters=[
                {"Name": "instance-type", "Values": [size]},
                {"Name": "location", "Values": [self.zone]},
            ],
        ).get("InstanceTypeOfferings", [])
        if not offered:
            raise AwsFailure(f"{size} is not offered in {self.zone}. {nothing}")

    def wait_for(self, state: str) -> None:
        """Wait until the host is in a state. Raises AwsFailure when it takes too long."""

        def there() -> bool:
            answer = self._call("describe_instances", InstanceIds=[self.id])
            self.state = answer["Reservations"][0]["Instances"][0]["State"]["Name"]
            return self.state == state

        self._wait(there, f"{self.name} ({self.id}) is {{}}, not {state}", lambda: self.state)

    def _wait(self, done: Callable[[], bool], message: str, now: Callable[[], str]) -> None:
        deadline = time.monotonic() + self._timeout
        while not done():
            if time.monotonic() > deadline:
                raise AwsFailure(
                    f"{message.format(now())} after {self._timeout:.0f} s. Look at it in the EC2 "
                    "console; run the same again to go on"
                )
            time.sleep(2)

    def start(self) -> None:
        """Start the host and wait until it runs."""
        self._call("start_instances", InstanceIds=[self.id])
        self.wait_for("running")

    def change_size(self, size: str) -> None:
        """Stop, change, start; if the new type does not start, the old one does."""
        if self.state != "stopped":
            if self.state != "stopping":
                self._call("stop_instances", InstanceIds=[self.id])
            self.wait_for("stopped")
        old = self.size
        self._call("modify_instance_attribute", InstanceId=self.id, InstanceType={"Value": size})
        try:
            self.start()
        except AwsFailure as error:
            if self.state != "stopped":
                raise
            self._call("modify_instance_attribute", InstanceId=self.id, InstanceType={"Value": old})
            self.start()
            raise AwsFailure(
                f"{self.name} did not start as {size}, so it runs as {old} again: {error}"
            ) from error

    def change_disk(self, disk: dict[str, Any]) -> None:
        """Change the root volume and wait until it has its new size."""
        wish = {CALLS[key]: value for key, value in disk.items() if self.disk.get(key) != value}
        try:
            self._call("modify_volume", VolumeId=self.volume, **wish)
        except AwsFailure as error:
            if error.code == "VolumeModificationRateExceeded":
                raise AwsFailure(
                    f"the volume {self.volume} of {self.name} was changed less than six hours ago, "
                    "and EBS allows no further change until then; nothing was changed. Run again "
                    "later"
                ) from error
            raise

        def usable() -> bool:
            answer = self._call("describe_volumes_modifications", VolumeIds=[self.volume])
            last = max(answer["VolumesModifications"], key=lambda item: str(item["StartTime"]))
            if last["ModificationState"] == "failed":
                raise AwsFailure(
                    f"EBS could not change the volume {self.volume} of {self.name}: "
                    f"{last.get('StatusMessage', 'it says no reason')}"
                )
            # Optimizing goes on for hours; size and speed are there from then on.
            return last["ModificationState"] in ("optimizing", "completed")

        self._wait(usable, f"the volume {self.volume} of {self.name} is{{}} not changed", str)


def differences(host: Host, size: str, disk: dict[str, Any]) -> list[str]:
    """Return what differs, a line each. Raises AwsFailure for a volume that would shrink."""
    if disk["gib"] < host.disk["gib"]:
        raise AwsFailure(
            f"the disk of {host.name} has {host.disk['gib']} GiB, and ascent_disks wants "
            f"{disk['gib']}: a volume cannot shrink. Nothing was changed. Write at least "
            f"{host.disk['gib']} there, or move to a new host"
        )
    lines = [f"size {host.size} -> {size}"] if host.size != size else []
    return lines + [
        f"disk {key} {host.disk.get(key)} -> {value}"
        for key, value in sorted(disk.items())
        if host.disk.get(key) != value
    ]


def resize(api: Api, wish: dict[str, Any], dry: bool) -> dict[str, Any]:
    """Return what the module returns. Raises AwsFailure, DescriptionError."""
    host = Host(api, wish["environment"], wish["name"], wish["timeout"])
    size, disk = wish["size"], disk_of(wish["disk"])
    lines = differences(host, size, disk)
    if host.size != size:
        host.check_size(size)
    result: dict[str, Any] = {
        "changes": lines,
        "needs_stop": host.size != size,
        "state": host.state,
        "changed": False,
        "diff": {
            "before": {"size": host.size, "disk": host.disk},
            "after": {"size": size, "disk": {**host.disk, **disk}},
        },
    }
    began = time.monotonic()
    if wish["part"] == "disk" and any(line.startswith("disk ") for line in lines):
        result["changed"] = True
        if not dry:
            host.change_disk(disk)
    if wish["part"] == "size" and (host.size != size or host.state != "running"):
        result["changed"] = True
        if not dry:
            if host.size != size:
                host.change_size(size)
            else:
                host.start()
            result["seconds"] = round(time.monotonic() - began, 1)
    return result


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "environment": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "size": {"type": "str", "required": True},
            "disk": {"type": "dict", "required": True},
            "part": {"type": "str", "choices": ["none", "disk", "size"], "default": "none"},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    try:
        result = resize(module_api(module), module.params, module.check_mode)
    except (AwsFailure, DescriptionError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
