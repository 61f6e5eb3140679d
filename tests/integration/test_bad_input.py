"""Bad input, by the first phase alone: it ends before anything is changed and says what to do.

What a mistake in a single setting is told is a table of tests/unit; here is one of each kind, as a
user meets it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import aws_state
from tests.support.lab import ROOT, TestLab, running
from tests.support.playbook import Run, play, succeed

pytestmark = pytest.mark.lab

TABLE = "ascent-locks"
OURS = [{"Name": "tag:ascent:environment", "Values": ["lab"]}]
SETTINGS = "group_vars/all.yml"
FLEET = "ascent.fleet.yml"
# What a run that is refused may have left: the table of locks, secrets that the next run uses, and
# a copy of the SSH key on the controller. Nothing of it is part of a running system.
HARMLESS = {"tables", "secrets"}
HARMLESS_TASKS = {
    "Bring the secrets",
    "Create the folder of the SSH key",
    "Lay the SSH key on the controller",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running("badinput", "198.18.44.0/24") as lab:
        yield lab


@pytest.fixture(autouse=True)
def _no_fault_is_left(lab: TestLab) -> Iterator[None]:
    yield
    if lab.status()["faults"]:
        lab.clear_faults()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A copy of the lab's inventory, to be spoilt."""
    folder = tmp_path / "inventories" / "lab"
    shutil.copytree(ROOT / "inventories" / "lab", folder)
    settings = folder / SETTINGS
    settings.write_text(
        settings.read_text().replace('"{{ inventory_dir }}/../../app"', f"{ROOT}/app")
    )
    return folder


@pytest.fixture
def preflight(lab: TestLab, inventory: Path) -> Callable[..., Run]:
    def run(*arguments: str, environment: dict[str, str] | None = None) -> Run:
        return play(
            lab,
            "phases/preflight.yml",
            "-e",
            "ascent_stage_number=1",
            *arguments,
            inventory=inventory,
            environment=environment,
        )

    return run


def message(run: Run) -> str:
    """What the run said, in one line: Ansible breaks long ones."""
    return re.sub(r"\s+", " ", run.output)


def refused(run: Run, *words: str) -> None:
    assert run.returncode != 0, run.tail()
    for word in words:
        assert word in message(run), run.tail()
    assert "Traceback" not in run.output
    assert set(run.changed_tasks) <= HARMLESS_TASKS, run.tail()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def given(**settings: Any) -> tuple[str, str]:
    return "-e", json.dumps(settings)


@pytest.fixture
def nothing_changes(lab: TestLab) -> Iterator[None]:
    before = aws_state.counts(aws_state.snapshot(lab))
    yield
    after = aws_state.counts(aws_state.snapshot(lab))
    assert {kind for kind in after if after[kind] != before[kind]} <= HARMLESS


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a misspelt setting": (
        {"ascent_domian": "x.test"},
        ("ascent_domian is no setting of Ascent; did you mean ascent_domain?",),
    ),
    "a misspelt variable of a role": (
        {"database_max_conections": 5},
        ("did you mean database_max_connections?", "ascent_own_variables"),
    ),
    "a misspelt part of a setting": (
        {"ascent_application": {"name": "shop", "source": str(ROOT), "helth_path": "/"}},
        ("ascent_application.helth_path is nothing", "did you mean health_path?"),
    ),
    "many mistakes at once": (
        {
            "ascent_environment": "a-name-that-is-far-too-long",
            "ascent_domain": "shop_1.test",
            "ascent_application": {"name": "Shop & Söhne", "source": "/nowhere/at/all"},
            "ascent_region": "frankfurt",
        },
        (
            "ascent_environment is 'a-name-that-is-far-too-long': use 2 to 21 characters",
            "ascent_domain is 'shop_1.test': write a name such as",
            "ascent_application.name is 'Shop & Söhne': use 2 to 31 characters",
            "ascent_application.source '/nowhere/at/all' is not a directory",
            "ascent_region is 'frankfurt': write an AWS region such as",
        ),
    ),
    "a domain in somebody else's zone": (
        {"ascent_domain": "shop.example.com", "ascent_dns_zone": "example.org"},
        ("'shop.example.com' does not end with ascent_dns_zone 'example.org'",),
    ),
    "a zone that the region has not": (
        {"ascent_zones": ["us-east-1a", "us-east-1z"]},
        ("ascent_zones names ['us-east-1z'], but us-east-1 has",),
    ),
}


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_settings(case: str, preflight: Callable[..., Run]) -> None:
    settings, words = MISTAKES[case]
    refused(preflight(*given(**settings)), *words)


def test_a_users_own_variables_are_none_of_ours(preflight: Callable[..., Run]) -> None:
    own = given(team="blue", webhook="x", web_team="red", ascent_own_variables=["web_team"])
    run = preflight(*own, "--check")
    assert run.returncode == 0, run.tail()


@pytest.mark.usefixtures("nothing_changes")
def test_a_region_that_is_none(preflight: Callable[..., Run], inventory: Path) -> None:
    edit(inventory / FLEET, "us-east-1", "eu-centrall-1")
    edit(inventory / SETTINGS, "us-east-1", "eu-centrall-1")
    refused(preflight(), FLEET, "there is no AWS region 'eu-centrall-1'; did you mean eu-central-1")


@pytest.mark.usefixtures("nothing_changes")
def test_an_inventory_of_another_environment(
    preflight: Callable[..., Run], inventory: Path
) -> None:
    edit(inventory / FLEET, "environment: lab", "environment: other")
    refused(preflight(), "lists the hosts of other in us-east-1, but", "says lab in us-east-1")


@pytest.mark.usefixtures("nothing_changes")
def test_no_credentials(preflight: Callable[..., Run], inventory: Path) -> None:
    edit(inventory / FLEET, "access_key: ascentlab\nsecret_key: ascentlab\n", "")
    refused(preflight(), "ec2:describe_instances", "there are no AWS credentials. Set AWS_PROFILE")


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize(
    ("code", "service", "action", "words"),
    [
        ("ExpiredToken", "ec2", "DescribeInstances", ("does not accept the credentials", "Renew")),
        ("ExpiredTokenException", "ssm", "GetParameter", ("/ascent/lab/stage", "Renew them")),
        (
            "UnauthorizedOperation",
            "ec2",
            "DescribeInstances",
            ("on region us-east-1", "lack the permission ec2:DescribeInstances", "stage-1.json"),
        ),
        (
            "AccessDeniedException",
            "dynamodb",
            "DescribeTable",
            (f"on {TABLE}", "lack the permission dynamodb:DescribeTable", "stage-1.json"),
        ),
        (
            "AccessDenied",
            "s3",
            "GetBucketEncryption",
            ("lack the permission s3:GetEncryptionConfiguration",),
        ),
    ],
)
def test_what_aws_refuses(
    code: str,
    service: str,
    action: str,
    words: tuple[str, ...],
    lab: TestLab,
    preflight: Callable[..., Run],
) -> None:
    if service == "s3":
        # The rights are asked for once the thing is there.
        lab.client("s3").create_bucket(Bucket="ascent-lab-backup-123456789012")
    lab.fault(code, service=service, action=action)
    try:
        refused(preflight(), *words)
    finally:
        lab.clear_faults()
        if service == "s3":
            lab.client("s3").delete_bucket(Bucket="ascent-lab-backup-123456789012")


def test_a_permission_that_only_provision_needs(lab: TestLab, inventory: Path) -> None:
    """What was made before it stays; the error says what was tried and how to go on."""
    lab.fault("AccessDenied", service="s3", action="CreateBucket")
    try:
        run = play(lab, "stage_1_single_host.yml", inventory=inventory)
        lab.clear_faults()
        for words in (
            'ended at the task "Bring the backup bucket to its description"',
            "when calling the CreateBucket operation",
            "needs the policy docs/iam/stage-1.json: attach it, then run again.",
        ):
            assert words in message(run), run.tail()
        assert run.returncode != 0
        assert len(lab.client("ec2").describe_vpcs(Filters=OURS)["Vpcs"]) == 1
    finally:
        lab.clear_faults()
        succeed(lab, "operations/teardown.yml", "-e", "confirm=lab", inventory=inventory)


def vault(tmp_path: Path, text: str) -> str:
    """The text, encrypted with the right password."""
    (tmp_path / "right").write_text("the right one\n")
    return subprocess.run(
        [ROOT / ".venv/bin/ansible-vault", "encrypt", "--vault-password-file", tmp_path / "right"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize("how", ["a file", "a value", "a value within another"])
def test_a_wrong_vault_password(
    how: str, preflight: Callable[..., Run], inventory: Path, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("the wrong one\n")
    if how == "a file":
        secret = vault(tmp_path, "vault_cache: 0123456789abcdef\n")
        (inventory / "group_vars" / "all").mkdir()
        (inventory / SETTINGS).rename(inventory / "group_vars" / "all" / "settings.yml")
        (inventory / "group_vars" / "all" / "vault.yml").write_text(secret)
    else:
        lines = "".join(
            f"    {line}\n" for line in vault(tmp_path, "0123456789abcdef").splitlines()
        )
        value = f"!vault |\n{lines}"
        text = (
            f"\nascent_tls_private_key: {value}"
            if how == "a value"
            else f"\nascent_secrets:\n  cache: {value}"
        )
        with (inventory / SETTINGS).open("a") as file:
            file.write(text)
    run = preflight("--vault-password-file", str(tmp_path / "wrong"))
    refused(run, "ecrypt", "vault")


@pytest.mark.usefixtures("nothing_changes")
def test_hosts_that_do_not_say_what_they_are_for(
    preflight: Callable[..., Run], inventory: Path, lab: TestLab
) -> None:
    (inventory / "more.yml").write_text(
        "tier_web: {hosts: {old-server: {ansible_host: 192.0.2.1}}}\n"
    )
    [instance] = lab.client("ec2").run_instances(
        ImageId="ami-0deb1300000000001",
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.nano",
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "ascent:environment", "Value": "lab"}]}
        ],
    )["Instances"]
    try:
        run = preflight()
    finally:
        lab.client("ec2").terminate_instances(InstanceIds=[instance["InstanceId"]])
        lab.client("ec2").get_waiter("instance_terminated").wait(
            InstanceIds=[instance["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
    number = instance["InstanceId"]
    refused(run, f"what these hosts are for: {number}, old-server.")
    assert f"{number} is one of the environment lab by its tag, but has no ascent:name" in message(
        run
    )


def test_a_name_that_leads_to_another_site(preflight: Callable[..., Run], lab: TestLab) -> None:
    route53 = lab.client("route53")
    zone = route53.create_hosted_zone(Name="shop.test", CallerReference="mine")["HostedZone"]["Id"]
    record = {
        "Name": "shop.test",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": "192.0.2.9"}],
    }

    def change(action: str) -> None:
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)

    change("CREATE")
    try:
        refused(
            preflight(),
            "shop.test leads to 192.0.2.9, which is not this environment",
            "-e ascent_take_over_names=true",
        )
    finally:
        change("DELETE")
        route53.delete_hosted_zone(Id=zone)


# --- the lock -----------------------------------------------------------------------------------


@pytest.fixture
def held(lab: TestLab, preflight: Callable[..., Run]) -> Iterator[Callable[[float], None]]:
    """Writes the lock of a controller on another machine, whose lease ends in some seconds."""
    dynamodb = lab.client("dynamodb")
    if TABLE not in dynamodb.list_tables()["TableNames"]:
        dynamodb.create_table(
            TableName=TABLE,
            AttributeDefinitions=[{"AttributeName": "environment", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "environment", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    holder = {"user": "ben", "host": "elsewhere", "machine": "m", "boot": "b", "pid": 7}

    def hold(seconds: float) -> None:
        dynamodb.put_item(
            TableName=TABLE,
            Item={
                "environment": {"S": "lab"},
                "holder": {"S": json.dumps({**holder, "started": "5"})},
                "since": {"N": str(time.time() - 600)},
                "expires": {"N": str(time.time() + seconds)},
                "token": {"S": "t"},
            },
        )

    yield hold
    dynamodb.delete_item(TableName=TABLE, Key={"environment": {"S": "lab"}})


@pytest.mark.usefixtures("nothing_changes")
def test_a_lock_of_another_controller_says_whose_until_when_and_how_to_force(
    preflight: Callable[..., Run], held: Callable[[float], None]
) -> None:
    held(600)
    run = preflight()
    refused(run, "ben@elsewhere (process 7) holds it since", "-e ascent_lock_force=true")
    assert re.search(r"its lease ends at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", message(run))


@pytest.mark.parametrize("how", ["the lease is over", "by force"])
def test_a_dead_controllers_lock_is_taken_over_and_that_is_said(
    how: str, preflight: Callable[..., Run], held: Callable[[float], None]
) -> None:
    held(-1 if how == "the lease is over" else 600)
    run = preflight(*given(ascent_lock_force=how == "by force"))
    assert run.returncode == 0, run.tail()
    assert "the lock of lab was taken over:" in message(run)
    assert "ben@elsewhere (process 7)" in message(run)
