"""Each mend of moto, by what a client sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.mends import _replace, cloudwatch, dynamodb, ec2, s3


def test_every_mend_has_its_test() -> None:
    mends = {mend.__name__ for module in (cloudwatch, dynamodb, ec2, s3) for mend in module.MENDS}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert mends <= tests


def test_a_mend_of_nothing_is_an_error() -> None:
    with pytest.raises(AttributeError):
        _replace.replace(ec2, "no_such_thing", lambda _: None)


def test_volumes_say_whether_they_attach_to_many(client: Any) -> None:
    api = client("ec2")
    api.create_volume(Size=1, AvailabilityZone="us-east-1a")
    assert api.describe_volumes()["Volumes"][0]["MultiAttachEnabled"] is False


def test_tags_know_elastic_addresses(client: Any) -> None:
    api = client("ec2")
    address = api.allocate_address(Domain="vpc")["AllocationId"]
    api.create_tags(Resources=[address], Tags=[{"Key": "Name", "Value": "front"}])
    found = api.describe_tags(Filters=[{"Name": "resource-id", "Values": [address]}])["Tags"]
    assert [tag["ResourceType"] for tag in found] == ["elastic-ip"]


def test_launch_templates_keep_their_own_tags(client: Any) -> None:
    api = client("ec2")
    tags = [{"Key": "a", "Value": "b"}]
    api.create_launch_template(
        LaunchTemplateName="box",
        LaunchTemplateData={
            "InstanceType": "t3.small",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        },
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
    )
    version = api.describe_launch_template_versions(LaunchTemplateName="box")
    data = version["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert [spec["ResourceType"] for spec in data["TagSpecifications"]] == ["instance"]
    assert api.describe_launch_templates()["LaunchTemplates"][0]["Tags"] == tags


def subnet(api: Any, block: str = "10.1.2.0/28") -> str:
    vpc = api.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    return str(api.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"])


def test_subnets_hand_out_what_is_free(client: Any) -> None:
    api = client("ec2")
    one = subnet(api)
    api.create_network_interface(SubnetId=one, PrivateIpAddress="10.1.2.4")
    taken = api.run_instances(
        ImageId="ami-0deb1300000000001", InstanceType="t3.small", MinCount=1, MaxCount=1,
        SubnetId=one,
    )  # fmt: skip
    assert taken["Instances"][0]["PrivateIpAddress"] == "10.1.2.5"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.1.2.3", "InvalidParameterValue"),
        ("10.1.2.15", "InvalidParameterValue"),
        ("192.0.2.1", "InvalidParameterValue"),
        ("10.1.2.4", r"InvalidIPAddress\.InUse"),
    ],
)
def test_subnets_refuse_what_is_reserved_or_taken(client: Any, address: str, code: str) -> None:
    api = client("ec2")
    launch = {
        "ImageId": "ami-0deb1300000000001", "InstanceType": "t3.small", "MinCount": 1,
        "MaxCount": 1, "SubnetId": subnet(api),
    }  # fmt: skip
    api.run_instances(**launch)
    with pytest.raises(ClientError, match=code):
        api.run_instances(**launch, PrivateIpAddress=address)


def test_interfaces_take_addresses_of_their_subnet(client: Any) -> None:
    api = client("ec2")
    one = subnet(api)
    address = api.allocate_address(Domain="vpc")["AllocationId"]
    gateway = api.create_nat_gateway(SubnetId=one, AllocationId=address)["NatGateway"]
    own = api.describe_nat_gateways(NatGatewayIds=[gateway["NatGatewayId"]])["NatGateways"][0]
    assert own["NatGatewayAddresses"][0]["PrivateIp"] == "10.1.2.4"
    nic = api.create_network_interface(SubnetId=one)["NetworkInterface"]
    assert nic["PrivateIpAddress"] == "10.1.2.5"


def test_tables_have_ids(client: Any) -> None:
    api = client("dynamodb")
    api.create_table(
        TableName="t",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    found = api.describe_table(TableName="t")["Table"]["TableId"]
    assert found == api.describe_table(TableName="t")["Table"]["TableId"]


def test_alarms_begin_without_data(client: Any) -> None:
    api = client("cloudwatch")
    api.put_metric_alarm(
        AlarmName="a", EvaluationPeriods=1, ComparisonOperator="GreaterThanThreshold",
        MetricName="m", Namespace="n", Period=60, Statistic="Sum", Threshold=1,
    )  # fmt: skip
    assert api.describe_alarms()["MetricAlarms"][0]["StateValue"] == "INSUFFICIENT_DATA"


def test_policies_against_plain_http_let_the_rest_in(client: Any) -> None:
    api = client("s3")
    api.create_bucket(Bucket="backups")
    api.put_object(Bucket="backups", Key="a", Body=b"kept")
    refuse = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::backups", "arn:aws:s3:::backups/*"],
    }

    def judged_by(statement: dict[str, Any]) -> None:
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        api.put_bucket_policy(Bucket="backups", Policy=json.dumps(policy))

    judged_by({**refuse, "Condition": {"Bool": {"aws:SecureTransport": "false"}}})
    assert api.get_object(Bucket="backups", Key="a")["Body"].read() == b"kept"
    assert api.head_object(Bucket="backups", Key="a")["ContentLength"] == 4
    judged_by(refuse)
    with pytest.raises(ClientError) as refused:
        api.get_object(Bucket="backups", Key="a")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
