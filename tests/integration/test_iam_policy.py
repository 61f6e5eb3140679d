"""The policy that a stage's operator needs, compared with the calls that the stage makes.

AWS is a server that starts no host here: the phases that talk to AWS alone are run.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible_collections.ascent.scaling.plugins.module_utils._aws.permissions import permissions

from tests.support.lab import ROOT

PORT = 5986
ENDPOINT = f"http://127.0.0.1:{PORT}"
STAGE = ("phases/preflight", "phases/provision", "phases/record")
TEARDOWN = ("operations/teardown",)
# Stage 2 has more of what stage 1 has, and calls what it calls.
RUN = (1, 3)

# What operations ask of AWS, beyond what a stage does.
OPERATIONS = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/ascent.scaling.aws: &aws
      region: "{{ ascent_region }}"
      endpoint_url: "{{ ascent_aws_endpoint_url }}"
      access_key: "{{ ascent_aws_access_key }}"
      secret_key: "{{ ascent_aws_secret_key }}"
    group/aws: *aws
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

# Of a managed database: a snapshot, and a copy that is restored from it; the second time, the copy
# goes first.
MANAGED = """
    - ansible.builtin.include_tasks: %s/playbooks/operations/tasks/managed_backup.yml
      loop: [first, second]
      vars:
        ascent_moves: [{other: {name: managed, inventory_host: ""}}]
"""

# What no run on moto asks for, and why it is allowed.
MENDING = {
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
    # A zone that is named later.
    "rds:ModifyDBSubnetGroup",
    # Of another environment's load balancers and certificates: whose are they?
    "acm:ListTagsForCertificate",
    "elasticloadbalancing:DescribeTags",
    # RDS asks for it in the operator's name, when a subnet group or a database is made.
    "ec2:DescribeAccountAttributes",
}

# What a teardown asks of managed databases at every stage.
ASKED_ALWAYS = {"rds:DescribeDBSnapshots"}


def policy(stage: int) -> list[dict[str, Any]]:
    """The statements that docs/iam has for a stage's operator."""
    written = json.loads(Path(ROOT / f"docs/iam/stage-{stage}.json").read_text())
    return list(written["Statement"])


def allowed(stage: int) -> set[str]:
    return {
        action
        for statement in policy(stage)
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }


def playbooks(names: Sequence[str], stage: int) -> str:
    return "".join(
        f"- ansible.builtin.import_playbook: {ROOT}/playbooks/{name}.yml\n"
        f"  vars: {{ascent_stage_number: {stage}}}\n"
        for name in names
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, set[str]]:
    """What a first run of each stage, its operations and a teardown call.

    Stage 3 comes from stage 1, as it does for most. Operations and teardown call at stage 1 what
    they call at stage 3, without what is asked and told of managed databases.
    """
    folder = tmp_path_factory.mktemp("iam")
    image: list[str] = []

    def run(name: str, text: str) -> set[str]:
        play, calls = folder / f"{name}.yml", folder / f"{name}.calls"
        play.write_text(text)
        settings = {
            "ascent_image": image[0],
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
        return set(calls.read_text().split())

    server = subprocess.Popen(
        [ROOT / ".venv/bin/python", "-m", "tests.support.aws_server", str(PORT)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_server()
        images = boto3.client(
            "ec2",
            region_name="us-east-1",
            endpoint_url=ENDPOINT,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        ).describe_images()["Images"]
        image.append(images[0]["ImageId"])
        first = run("stage_1", playbooks(STAGE, 1))
        rest = run(
            "stage_3",
            playbooks(STAGE, 3) + OPERATIONS + MANAGED % ROOT + playbooks(TEARDOWN, 3),
        )
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    return {
        1: first | {call for call in rest if not call.startswith("rds:") or call in ASKED_ALWAYS},
        3: first | rest,
    }


@pytest.fixture(params=RUN)
def stage(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def called(stage: int, recorded: dict[int, set[str]]) -> set[str]:
    return recorded[stage]


def wait_for_server() -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{ENDPOINT}/moto-api/", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.3)


def test_every_call_is_allowed(stage: int, called: set[str]) -> None:
    assert len(called) > 50
    needed = {right for call in called for right in permissions(call)}
    assert sorted(needed - allowed(stage)) == []


def test_the_policy_has_no_wildcard_and_little_more_than_is_called(
    stage: int, called: set[str]
) -> None:
    assert [action for action in allowed(stage) if "*" in action] == []
    needed = {right for call in called for right in permissions(call)}
    assert sorted(allowed(stage) - needed - MENDING) == []


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_policy_can_be_attached(number: int) -> None:
    """A managed policy has at most 6,144 characters without blanks (IAM User Guide, "Quotas")."""
    assert len(json.dumps({"Statement": policy(number)}, separators=(",", ":"))) < 6100
    sids = [statement["Sid"] for statement in policy(number)]
    assert len(sids) == len(set(sids))


def test_a_higher_stage_needs_what_the_one_below_does() -> None:
    assert policy(2) == policy(1)
    assert policy(3)[: len(policy(2))] == policy(2)
    # One policy has no room for both: stage 4's stands beside stage 3's.
    both = {str(statement["Sid"]) for statement in [*policy(3), *policy(4)]}
    assert len(both) == len(policy(3)) + len(policy(4))


def test_stage_2_describes_no_kind_of_thing_that_stage_1_lacks() -> None:
    """Else it would call more, and need a run of its own here."""
    keys = [
        set(yaml.safe_load((ROOT / f"playbooks/vars/stages/{n}.yml").read_text())["ascent_stage"])
        for n in (1, 2)
    ]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("statement", policy(3), ids=lambda statement: str(statement["Sid"]))
def test_what_changes_databases_is_bound_to_names(statement: dict[str, Any]) -> None:
    actions = statement["Action"]
    written = [
        action
        for action in ([actions] if isinstance(actions, str) else actions)
        if action.startswith("rds:") and not action.startswith(("rds:Describe", "rds:List"))
    ]
    if written:
        for resource in statement["Resource"]:
            assert resource.rsplit(":", 1)[1].startswith(("ascent-", "default"))
