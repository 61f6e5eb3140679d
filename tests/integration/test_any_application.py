"""Two real applications that know nothing of Ascent, deployed by inventory variables alone.

`applications/*.yml` are the variables, shown in docs/application.md. One host bears every tier, as
at stage 1; the applications follow each other on it.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.lab import REGION, ROOT, TestLab
from tests.support.probe import get, port_answers, request

pytestmark = pytest.mark.lab

APPLICATIONS = Path(__file__).parent / "applications"
NAME = "any-application"
# Of a waiter, on a busy machine: seconds between two looks, and looks.
PATIENCE = {"Delay": 1, "MaxAttempts": 180}
TOKEN = "unleash-token-of-the-test"


@dataclass
class Host:
    """A host that bears every tier, and how Ansible reaches it."""

    address: str
    inventory: Path

    def deploy(self, application: str, *arguments: str) -> str:
        """Deploy an application; the output of the run, which must succeed."""
        done = subprocess.run(
            [
                str(ROOT / ".venv/bin/ansible-playbook"),
                *("-i", str(self.inventory), "-e", f"@{APPLICATIONS / application}.yml"),
                *(str(APPLICATIONS / "play.yml"), *arguments),
            ],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        log = ROOT / "build" / "tests" / f"{NAME}-{application}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
        assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-80:]) + done.stderr
        return done.stdout

    environment: dict[str, str]


@pytest.fixture(scope="module")
def host(stage_lab: TestLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A fresh host of the lab, gone with all that belongs to it after the last test."""
    folder = tmp_path_factory.mktemp(NAME)
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    ec2 = stage_lab.client("ec2")
    ec2.import_key_pair(KeyName=NAME, PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
    group = ec2.create_security_group(GroupName=NAME, Description=NAME, VpcId=vpc["VpcId"])[
        "GroupId"
    ]
    instance = ""
    try:
        ec2.authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[
                {
                    "IpProtocol": "tcp",
                    "FromPort": port,
                    "ToPort": port,
                    "IpRanges": [{"CidrIp": f"{stage_lab.address}/32"}],
                }
                for port in (22, 80, 443, 20000)
            ],
        )
        images = ec2.describe_images(Filters=[{"Name": "name", "Values": ["debian-13-amd64-*"]}])
        instance = ec2.run_instances(
            ImageId=images["Images"][-1]["ImageId"],
            InstanceType="t3.medium",
            KeyName=NAME,
            SecurityGroupIds=[group],
            MinCount=1,
            MaxCount=1,
        )["Instances"][0]["InstanceId"]
        ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig=PATIENCE)
        shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        known = f"-o UserKnownHostsFile={folder / 'known'} -o StrictHostKeyChecking=accept-new"
        settings = {
            "ascent_environment": "any",
            "ascent_region": REGION,
            "ascent_operator_cidrs": [f"{stage_lab.address}/32"],
            "ascent_backup_enabled": False,
            "ascent_ssh_private_key_file": str(key),
            "unleash_token": TOKEN,
        }
        host = {"ansible_host": shown["PublicIpAddress"], "ansible_ssh_common_args": known}
        tiers = ("web", "pooler", "database", "cache")
        groups = {"any": {"hosts": {"box": host}}} | {
            f"tier_{tier}": {"hosts": {"box": {}}} for tier in tiers
        }
        inventory = folder / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"all": {"vars": settings, "children": groups}}))
        yield Host(shown["PublicIpAddress"], inventory, stage_lab.environment)
    finally:
        if instance:
            ec2.terminate_instances(InstanceIds=[instance])
            ec2.get_waiter("instance_terminated").wait(
                InstanceIds=[instance], WaiterConfig=PATIENCE
            )
        with suppress(ec2.exceptions.ClientError):
            ec2.delete_security_group(GroupId=group)
        ec2.delete_key_pair(KeyName=NAME)


def ask(
    host: Host, name: str, method: str, path: str, authorization: str, data: Any = None
) -> tuple[int, Any]:
    """One request to the API of an application: status and JSON."""
    status, _, body = request(
        method,
        host.address,
        path,
        host=name,
        headers={"Authorization": authorization, "Content-Type": "application/json"},
        body=None if data is None else json.dumps(data),
        seconds=30,
    )
    return status, json.loads(body) if body else None


def nothing_leaks(output: str) -> None:
    """Neither a password nor a token is in what a run printed."""
    for secret in ("of-the-application-of-a-test", "word/of-a-test", TOKEN, "data%25base"):
        assert secret not in output


@pytest.mark.thorough
def test_kinto_from_the_index_of_python(host: Host) -> None:
    """It serves, what is written is read back, and both outlive another release."""
    output = host.deploy("kinto")
    nothing_leaks(output)
    status, _, body = get(host.address, "/v1/__heartbeat__", host="kinto.test", seconds=30)
    assert status == 200
    assert json.loads(body) == {"cache": True, "permission": True, "storage": True}

    me = "Basic " + base64.b64encode(b"someone:secret-word").decode()
    account = {"data": {"password": "secret-word"}}
    assert ask(host, "kinto.test", "PUT", "/v1/accounts/someone", "", account)[0] == 201
    path = "/v1/buckets/box/collections/notes/records/first"
    for parent in ("/v1/buckets/box", "/v1/buckets/box/collections/notes"):
        assert ask(host, "kinto.test", "PUT", parent, me, {})[0] == 201
    written = {"data": {"text": "kept"}}
    assert ask(host, "kinto.test", "PUT", path, me, written)[0] == 201

    # Another setting, and so another release: the data stays.
    code = yaml.safe_load((APPLICATIONS / "kinto.yml").read_text())["ascent_application"]
    code["source"]["files"]["kinto.ini"] += "kinto.project_name = another release\n"
    output = host.deploy("kinto", "--tags=web", "-e", json.dumps({"ascent_application": code}))
    assert "changed: [box]" in output
    assert ask(host, "kinto.test", "GET", "/v1/", me)[1]["project_name"] == "another release"
    status, answer = ask(host, "kinto.test", "GET", path, me)
    assert (status, answer["data"]["text"]) == (200, "kept")


@pytest.mark.thorough
def test_unleash_from_the_index_of_npm(host: Host) -> None:
    """The same at a port of its own, with migrations past the pooler."""
    output = host.deploy("unleash", "--tags=database,pooler,web")
    nothing_leaks(output)
    status, _, body = get(host.address, "/health", host="unleash.test", seconds=30)
    assert (status, json.loads(body)) == (200, {"health": "GOOD"})
    assert not port_answers(host.address, 20000), "its port is open to the network"

    token = f"*:*.{TOKEN}"
    flags = "/api/admin/projects/default/features"
    flag = {"name": "kept", "type": "release"}
    assert ask(host, "unleash.test", "POST", flags, token, flag)[0] == 201

    # Another setting replaces the instance: another port, the same data.
    code = yaml.safe_load((APPLICATIONS / "unleash.yml").read_text())["ascent_application"]
    code["environment"]["LOG_LEVEL"] = "warn"
    code["secret_environment"] = {"INIT_ADMIN_API_TOKENS": token}
    output = host.deploy("unleash", "--tags=web", "-e", json.dumps({"ascent_application": code}))
    assert "changed: [box]" in output
    status, answer = ask(host, "unleash.test", "GET", f"{flags}/kept", token)
    assert (status, answer["name"]) == (200, "kept")


def test_the_examples_of_the_contract_are_these() -> None:
    """docs/application.md shows what was run, to the letter."""
    contract = (ROOT / "docs" / "application.md").read_text()
    for name in ("kinto", "unleash"):
        text = (APPLICATIONS / f"{name}.yml").read_text()
        assert text[text.index("ascent_application:") :].rstrip() in contract, name
