"""The metadata service answers each host for itself."""

from __future__ import annotations

import json

import pytest

from tests.integration.lab.conftest import Aws, Box, opens

pytestmark = pytest.mark.lab

TOKEN = (
    "T=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "
    "http://169.254.169.254/latest/api/token); "
)
GET = 'curl -s -m 5 -H "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/'


def get(box: Box, path: str) -> str:
    return box.run(TOKEN + GET + path)


def test_each_host_hears_of_itself(pair: tuple[Box, Box]) -> None:
    for box in pair:
        facts = box.describe()
        assert get(box, "meta-data/instance-id") == box.id
        assert get(box, "meta-data/local-ipv4") == facts["PrivateIpAddress"]
        assert get(box, "meta-data/public-ipv4") == facts["PublicIpAddress"]
        assert get(box, "meta-data/placement/availability-zone") == "us-east-1a"
        mac = get(box, "meta-data/mac")
        assert mac == box.run("cat /sys/class/net/eth0/address")
        assert get(box, f"meta-data/network/interfaces/macs/{mac}/vpc-id") == facts["VpcId"]
        identity = json.loads(get(box, "dynamic/instance-identity/document"))
        assert identity["instanceId"] == box.id
        assert identity["region"] == "us-east-1"


def test_a_token_is_good_for_its_host_alone(pair: tuple[Box, Box]) -> None:
    token = pair[0].run(TOKEN + "echo $T")
    assert pair[0].run(f"T={token}; {GET}meta-data/instance-id") == pair[0].id
    assert (
        pair[1].run(f"T={token}; {GET}meta-data/instance-id -o /dev/null -w '%{{http_code}}'")
        == "401"
    )


def test_version_1_is_refused_where_tokens_are_required(aws: Aws, pair: tuple[Box, Box]) -> None:
    plain = (
        "curl -s -m 5 -o /dev/null -w '%{http_code}' "
        "http://169.254.169.254/latest/meta-data/instance-id"
    )
    box = pair[0]
    assert box.run(plain) == "200"
    aws.ec2.modify_instance_metadata_options(InstanceId=box.id, HttpTokens="required")
    assert box.run(plain) == "401"
    assert get(box, "meta-data/instance-id") == box.id


def test_a_profile_gives_credentials_that_are_nobodys(aws: Aws) -> None:
    iam = aws.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    iam.create_role(RoleName="box", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_instance_profile(InstanceProfileName="box")
    iam.add_role_to_instance_profile(InstanceProfileName="box", RoleName="box")
    box = aws.launch(
        IamInstanceProfile={"Name": "box"}, MetadataOptions={"HttpTokens": "required"}
    ).wait("running")
    try:
        assert get(box, "meta-data/iam/security-credentials/") == "box"
        credentials = json.loads(get(box, "meta-data/iam/security-credentials/box"))
        assert credentials["Code"] == "Success"
        assert credentials["AccessKeyId"].startswith("ASIA")
        assert credentials["SecretAccessKey"].startswith("ascentlab")
        assert "hello" not in get(box, "user-data")
        # cloud-init itself spoke version 2: else there would be no key to come in by.
        assert box.run("id -un") == "admin"
    finally:
        aws.terminate(box)


def test_nobody_outside_is_told_anything(lab: object) -> None:
    """The machine's own link-local addresses are not the lab's."""
    import subprocess

    routes = subprocess.check_output(["ip", "-4", "address"], text=True)
    assert "169.254.169.254" not in routes
    assert not opens("198.18.1.2", 80)
