"""Another instance type and a bigger volume, against moto's EC2 in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api, AwsFailure
from ansible_collections.ascent.scaling.plugins.module_utils.environment import (
    DescriptionError,
    disk_of,
)
from ansible_collections.ascent.scaling.plugins.modules import instance_resize
from moto import mock_aws

REGION = "us-east-1"


class Recording(Api):
    """The Api, which remembers the calls that change something, and can fail one."""

    def __init__(self) -> None:
        super().__init__(lambda service: boto3.client(service, region_name=REGION))
        self.written: list[str] = []
        self.failing: dict[str, AwsFailure] = {}

    def call(self, service: str, operation: str, resource: str = "", **more: Any) -> Any:
        if not operation.startswith("describe_"):
            self.written.append(operation)
        if operation in self.failing:
            raise self.failing.pop(operation)
        return super().call(service, operation, resource, **more)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    # Hundreds of images, loaded at each start of moto, of which none is needed here.
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.setattr(instance_resize.time, "sleep", lambda seconds: None)
    with mock_aws():
        found = Recording()
        ec2 = found.client("ec2")
        ec2.run_instances(
            ImageId="ami-0deb1300000000001",
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [
                        {"Key": "ascent:environment", "Value": "lab"},
                        {"Key": "ascent:name", "Value": "box"},
                    ],
                }
            ],
        )
        volume = ec2.describe_volumes()["Volumes"][0]["VolumeId"]
        ec2.modify_volume(VolumeId=volume, Size=20, VolumeType="gp3")
        yield found


def resize(api: Api, part: str = "none", dry: bool = False, **more: Any) -> dict[str, Any]:
    wish = {"environment": "lab", "name": "box", "size": "t3.small", "disk": {"gib": 20}}
    return instance_resize.resize(api, {**wish, "part": part, "timeout": 5, **more}, dry)


def size(api: Api) -> tuple[str, str]:
    host = api.client("ec2").describe_instances()["Reservations"][0]["Instances"][0]
    return host["InstanceType"], host["State"]["Name"]


def test_what_fits_is_left_alone(api: Recording) -> None:
    found = resize(api, part="size")
    assert (found["changes"], found["changed"], found["needs_stop"]) == ([], False, False)
    assert api.written == []


def test_another_type_is_a_stop_a_change_and_a_start(api: Recording) -> None:
    assert resize(api, size="t3.large")["changes"] == ["size t3.small -> t3.large"]
    assert api.written == [], "to look changes nothing"
    found = resize(api, part="size", size="t3.large")
    assert found["changed"]
    assert api.written == ["stop_instances", "modify_instance_attribute", "start_instances"]
    assert size(api) == ("t3.large", "running")


def test_check_mode_stops_nothing(api: Recording) -> None:
    found = resize(api, part="size", size="t3.large", dry=True)
    assert found["changed"]
    assert found["needs_stop"]
    assert api.written == []


def test_a_stopped_host_is_resized_and_started(api: Recording) -> None:
    api.client("ec2").stop_instances(InstanceIds=[instance_resize.Host(api, "lab", "box", 5).id])
    assert resize(api)["state"] == "stopped"
    resize(api, part="size", size="t3.large")
    assert api.written == ["modify_instance_attribute", "start_instances"]
    assert size(api) == ("t3.large", "running")


def test_a_stopped_host_of_the_right_type_is_started(api: Recording) -> None:
    api.client("ec2").stop_instances(InstanceIds=[instance_resize.Host(api, "lab", "box", 5).id])
    assert resize(api, part="size")["changed"]
    assert api.written == ["start_instances"]


def test_what_does_not_start_is_started_as_it_was(api: Recording) -> None:
    api.failing["start_instances"] = AwsFailure("no room", "InsufficientInstanceCapacity")
    with pytest.raises(AwsFailure, match=r"runs as t3.small again.*no room"):
        resize(api, part="size", size="t3.large")
    assert size(api) == ("t3.small", "running")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("t3.gigantic", "knows no instance type t3.gigantic"),
        ("m7g.large", "has the architecture x86_64"),
    ],
)
def test_a_type_that_cannot_be_is_refused_before_the_stop(
    api: Recording, wanted: str, message: str
) -> None:
    for part in ("none", "size"):
        with pytest.raises(AwsFailure, match=message):
            resize(api, part=part, size=wanted)
    assert api.written == []
    assert size(api) == ("t3.small", "running")


def test_a_volume_grows_while_the_host_runs(api: Recording) -> None:
    wanted = {"gib": 100, "iops": 6000, "throughput": 250}
    assert resize(api, disk=wanted)["changes"] == [
        "disk gib 20 -> 100",
        "disk iops 3000 -> 6000",
        "disk throughput 125 -> 250",
    ]
    assert resize(api, part="disk", disk=wanted)["changed"]
    assert api.written == ["modify_volume"]
    assert size(api)[1] == "running"
    assert not resize(api, part="disk", disk=wanted)["changed"]


def test_a_volume_does_not_shrink(api: Recording) -> None:
    with pytest.raises(AwsFailure, match="a volume cannot shrink"):
        resize(api, part="disk", disk={"gib": 10})
    assert api.written == []


def test_a_change_too_soon_after_the_last_is_told(api: Recording) -> None:
    api.failing["modify_volume"] = AwsFailure("wait", "VolumeModificationRateExceeded")
    with pytest.raises(AwsFailure, match="less than six hours ago"):
        resize(api, part="disk", disk={"gib": 30})


def test_a_host_that_is_not_there_is_named(api: Recording) -> None:
    with pytest.raises(AwsFailure, match="0 hosts of the name web"):
        resize(api, name="web")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"size": 20}, "a map of gib"),
        ("plenty", "a map of gib"),
        ({"gib": 20, "type": "io2"}, "type is gp3"),
        ({"gib": 4}, "gib 8 to"),
        ({"gib": 20, "iops": 20000}, "iops 3000 to 10000"),
        ({"gib": 20, "throughput": 800}, "throughput 125 to 750"),
    ],
)
def test_a_disk_that_ebs_does_not_have_is_refused(wish: Any, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        disk_of(wish)


def test_a_disk_has_the_baseline_where_nothing_is_said() -> None:
    assert (
        disk_of(20)
        == disk_of({"gib": "20"})
        == {
            "gib": 20,
            "type": "gp3",
            "iops": 3000,
            "throughput": 125,
        }
    )
