"""The plugin as Ansible runs it, against moto's AWS in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible import constants as C
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.doc_fragments.inventory_cache import ModuleDocFragment
from ansible_collections.ascent.scaling.plugins.inventory import fleet
from moto import mock_aws

NAME = "ascent.scaling.fleet"
REGION = "us-east-1"
Parse = Callable[..., InventoryData]


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with mock_aws(config={"core": {"mock_credentials": False}}):
        yield boto3.client(
            "ec2", region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b"
        )


@pytest.fixture(scope="module", autouse=True)
def _options() -> None:
    """Declare the plugin's options as Ansible's loader does from its documentation."""
    options = yaml.safe_load(fleet.DOCUMENTATION)["options"]
    options |= yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    C.config.initialize_plugin_configuration_definitions("inventory", NAME, options)


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    def run(use_cache: bool = True, **options: Any) -> InventoryData:
        path = tmp_path / "ascent.fleet.yml"
        settings = {
            "plugin": "ascent.scaling.fleet",
            "environment": "lab",
            "regions": [REGION],
            "access_key": "a",
            "secret_key": "b",
            **options,
        }
        path.write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
        plugin = fleet.InventoryModule()
        plugin._load_name = NAME
        assert plugin.verify_file(str(path))
        inventory = InventoryData()
        plugin.parse(inventory, DataLoader(), str(path), cache=use_cache)
        if options.get("cache"):
            plugin.update_cache_if_changed()
        return inventory

    return run


def start(ec2: Any, name: str, environment: str = "lab") -> str:
    tags = {
        "ascent:environment": environment,
        "ascent:name": name,
        "ascent:tier": "web+database",
        "ascent:stage": "1",
    }
    [instance] = ec2.run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            }
        ],
    )["Instances"]
    return str(instance["InstanceId"])


def test_hosts_of_the_environment_are_listed_and_no_others(aws: Any, parse: Parse) -> None:
    box = start(aws, "box")
    start(aws, "box", environment="other")
    inventory = parse()
    assert list(inventory.hosts) == ["box"]
    assert inventory.hosts["box"].vars["ascent_instance_id"] == box
    assert [host.name for host in inventory.groups["tier_web"].hosts] == ["box"]


def test_an_empty_account_has_empty_groups(parse: Parse) -> None:
    inventory = parse()
    assert inventory.hosts == {}
    assert inventory.groups["tier_web"].hosts == []


def test_a_terminated_host_is_gone_and_a_stopped_one_is_in_no_play(aws: Any, parse: Parse) -> None:
    aws.terminate_instances(InstanceIds=[start(aws, "gone")])
    aws.stop_instances(InstanceIds=[start(aws, "box")])
    inventory = parse()
    assert list(inventory.hosts) == ["box"]
    assert inventory.groups["tier_web"].hosts == []
    assert [host.name for host in inventory.groups["state_stopped"].hosts] == ["box"]


def test_options_may_be_templates(aws: Any, parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    start(aws, "box")
    monkeypatch.setenv("WHERE", "lab")
    assert list(parse(environment="{{ lookup('env', 'WHERE') }}").hosts) == ["box"]


def test_the_key_and_known_hosts_lie_beside_the_inventory(
    aws: Any, parse: Parse, tmp_path: Path
) -> None:
    start(aws, "box")
    variables = parse(ssh_directory="ssh").hosts["box"].vars
    assert variables["ansible_ssh_private_key_file"] == f"{tmp_path}/ssh/id_ed25519"
    assert (
        f'UserKnownHostsFile="{tmp_path}/ssh/known_hosts"' in variables["ansible_ssh_common_args"]
    )


def test_with_a_cache_aws_is_asked_once(aws: Any, parse: Parse, tmp_path: Path) -> None:
    cached = {
        "cache": True,
        "cache_plugin": "jsonfile",
        "cache_connection": str(tmp_path / "cache"),
    }
    start(aws, "box")
    parse(**cached)
    start(aws, "second")
    assert list(parse(**cached).hosts) == ["box"]
    assert sorted(parse(use_cache=False, **cached).hosts) == ["box", "second"]
    kept = next((tmp_path / "cache").iterdir()).read_text()
    assert json.loads(kept), "the cache is plain JSON"


def test_strict_fails_on_names_that_are_shared(aws: Any, parse: Parse) -> None:
    start(aws, "box")
    start(aws, "box")
    assert len(parse().hosts) == 2
    with pytest.raises(AnsibleParserError, match="bear the name box"):
        parse(strict=True)


def test_no_credentials_are_told(parse: Parse) -> None:
    with pytest.raises(AnsibleParserError, match="no AWS credentials"):
        parse(access_key=None, secret_key=None)


def test_no_region_is_told(parse: Parse) -> None:
    with pytest.raises(AnsibleParserError, match="regions is empty"):
        parse(regions=[])
