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
from ansible_collections.ascent.scaling.plugins.module_utils._aws.permissions import permissions

from tests.support.lab import ROOT

PORT = 5986
ENDPOINT = f"http://127.0.0.1:{PORT}"
PLAYBOOKS = ("phases/preflight", "phases/provision", "phases/record", "operations/teardown")


# What operations ask of AWS, beyond what a stage does.
OPERATIONS = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/ascent.scaling.aws:
      region: "{{ ascent_region }}"
      endpoint_url: "{{ ascent_aws_endpoint_url }}"
      access_key: "{{ ascent_aws_access_key }}"
      secret_key: "{{ ascent_aws_secret_key }}"
  tasks:
    - ascent.scaling.environment_secrets:
        environment: lab
        secrets: {cache: password}
        rotate: [cache]
        step: "{{ item }}"
      loop: [prepare, promote, retire]
    - ascent.scaling.instance_resize:
        environment: lab
        name: box
        size: t3.large
        disk: {gib: 100}
        part: "{{ item }}"
      loop: [disk, size]
"""


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The operations that a first run and a teardown call."""
    folder = tmp_path_factory.mktemp("iam")
    calls = folder / "calls"
    play = folder / "play.yml"
    play.write_text(
        "".join(
            (OPERATIONS if name.startswith("operations/") else "")
            + f"- ansible.builtin.import_playbook: {ROOT}/playbooks/{name}.yml\n"
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
    needed = {right for call in called for right in permissions(call)}
    missing = sorted(
        right for right in needed if not any(fnmatchcase(right, action) for action in allowed())
    )
    assert missing == []


def test_the_policy_has_no_wildcard_and_little_more_than_is_called(called: set[str]) -> None:
    assert [action for action in allowed() if "*" in action] == []
    needed = {right for call in called for right in permissions(call)}
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
