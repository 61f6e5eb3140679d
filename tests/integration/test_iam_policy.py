"""The policy that a stage's operator needs, compared with the calls that the stage makes.

AWS is moto's server here, which starts no host: the phases that talk to AWS alone are run.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import boto3
import pytest

from tests.support.lab import ROOT

PORT = 5986
ENDPOINT = f"http://127.0.0.1:{PORT}"
# Operations whose permission has another name (Service Authorization Reference, Amazon S3).
PERMISSIONS = {
    "s3:DeleteObjects": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
    "s3:GetBucketAccelerateConfiguration": ["s3:GetAccelerateConfiguration"],
    "s3:GetBucketEncryption": ["s3:GetEncryptionConfiguration"],
    "s3:GetBucketLifecycleConfiguration": ["s3:GetLifecycleConfiguration"],
    "s3:GetObjectLockConfiguration": ["s3:GetBucketObjectLockConfiguration"],
    "s3:GetPublicAccessBlock": ["s3:GetBucketPublicAccessBlock"],
    "s3:HeadBucket": ["s3:ListBucket"],
    "s3:ListBucketInventoryConfigurations": ["s3:GetInventoryConfiguration"],
    "s3:ListObjectVersions": ["s3:ListBucketVersions"],
    "s3:PutBucketEncryption": ["s3:PutEncryptionConfiguration"],
    "s3:PutBucketLifecycleConfiguration": ["s3:PutLifecycleConfiguration"],
    "s3:PutPublicAccessBlock": ["s3:PutBucketPublicAccessBlock"],
    "ec2:RunInstances": ["ec2:RunInstances", "iam:PassRole"],
    # A call that gives tags to what it makes needs the right to tag.
    "iam:CreateRole": ["iam:CreateRole", "iam:TagRole"],
    "secretsmanager:CreateSecret": ["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
    "ssm:PutParameter": ["ssm:PutParameter", "ssm:AddTagsToResource"],
}
PLAYBOOKS = ("phases/preflight", "phases/provision", "phases/record", "operations/teardown")


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The operations that a first run and a teardown call."""
    folder = tmp_path_factory.mktemp("iam")
    calls = folder / "calls"
    play = folder / "play.yml"
    play.write_text(
        "".join(
            f"- ansible.builtin.import_playbook: {ROOT}/playbooks/{name}.yml\n"
            "  vars: {ascent_stage_number: 1}\n"
            for name in PLAYBOOKS
        )
    )
    server = subprocess.Popen(
        [ROOT / ".venv/bin/moto_server", "-p", str(PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_server()
        image = boto3.client(
            "ec2",
            region_name="us-east-1",
            endpoint_url=ENDPOINT,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        ).describe_images()["Images"][0]["ImageId"]
        settings = {
            "ascent_image": image,
            "confirm": "lab",
            "ascent_delete_backups": True,
            "ascent_build_directory": str(folder / "build"),
        }
        done = subprocess.run(
            ["ansible-playbook", "-i", "inventories/lab", str(play), "-e", json.dumps(settings)],
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT / "tests/support/recorder"),
                "ASCENT_RECORD_CALLS": str(calls),
                "ASCENT_LAB_ENDPOINT": ENDPOINT,
            },
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        yield set(calls.read_text().split())
    finally:
        server.terminate()
        server.wait(10)


def wait_for_server() -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{ENDPOINT}/moto-api/", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.3)


def allowed() -> set[str]:
    policy = json.loads(Path(ROOT / "docs/iam/stage-1.json").read_text())
    return {
        action
        for statement in policy["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }


def test_every_call_is_allowed(called: set[str]) -> None:
    assert len(called) > 50
    needed = {right for call in called for right in PERMISSIONS.get(call, [call])}
    missing = sorted(
        right for right in needed if not any(fnmatchcase(right, action) for action in allowed())
    )
    assert missing == []


def test_the_policy_has_no_wildcard_and_little_more_than_is_called(called: set[str]) -> None:
    assert [action for action in allowed() if "*" in action] == []
    needed = {right for call in called for right in PERMISSIONS.get(call, [call])}
    # What only mending needs: rules, routes, tags and hosts that someone has changed.
    mending = {
        "ec2:AuthorizeSecurityGroupEgress",
        "ec2:DeleteRoute",
        "ec2:ModifyInstanceMetadataOptions",
        "ec2:ModifySubnetAttribute",
        "ec2:ReplaceRoute",
        "ec2:ReplaceRouteTableAssociation",
        "ec2:StartInstances",
        "iam:TagInstanceProfile",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRoleDescription",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
    }
    assert sorted(allowed() - needed - mending) == []
