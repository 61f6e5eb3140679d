"""What a person sees of the lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab import cli, lifecycle
from lab.errors import LabError
from lab.machine import require_programs
from lab.settings import Settings

LAB = Settings.of("unit", "198.18.7.0/24")
HOST = {
    "id": "i-1", "name": "lab-box", "state": "running", "type": "t3.small", "zone": "us-east-1a",
    "private_address": "10.1.0.4", "public_address": None, "image": "ami-1",
}  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    return {
        "name": "unit",
        "endpoint": LAB.endpoint,
        "hosts": [],
        "names": {},
        "faults": [],
        **more,
    }


def test_the_table_of_a_lab() -> None:
    text = cli.table(status(hosts=[HOST], names={"b.test": "192.0.2.2", "a.test": "192.0.2.1"}))
    lines = text.splitlines()
    assert lines[0] == "lab 'unit' serves at http://198.18.7.2:4566"
    assert lines[2].split()[:3] == ["INSTANCE", "NAME", "STATE"]
    assert lines[3].split() == [
        "i-1", "lab-box", "running", "t3.small", "us-east-1a", "10.1.0.4", "-", "ami-1",
    ]  # fmt: skip
    assert lines[-2:] == ["a.test is 192.0.2.1", "b.test is 192.0.2.2"]


def test_databases_stand_in_the_table() -> None:
    database = {
        "id": "main", "state": "available", "type": "db.t3.micro", "zone": "us-east-1a",
        "private_address": "10.1.0.5", "endpoint": "main.c0.example:5432", "version": "17.6",
    }  # fmt: skip
    lines = cli.table(status(databases=[database])).splitlines()
    assert lines[-2].split()[:2] == ["DATABASE", "STATE"]
    assert lines[-1].split() == [
        "main", "available", "db.t3.micro", "us-east-1a", "10.1.0.5", "main.c0.example:5432",
        "17.6",
    ]  # fmt: skip


def test_load_balancers_stand_in_the_table() -> None:
    balancer = {
        "id": "front", "state": "active", "scheme": "internal", "endpoint": "front-1.example",
        "nodes": [],
    }  # fmt: skip
    lines = cli.table(status(balancers=[balancer])).splitlines()
    assert lines[-2].split() == ["BALANCER", "STATE", "SCHEME", "NAME"]
    assert lines[-1].split() == ["front", "active", "internal", "front-1.example"]


def test_a_delay_of_databases_is_no_less_than_nothing() -> None:
    assert Settings.of("unit", "198.18.7.0/24", rds_delay=2.5).rds_delay == 2.5
    with pytest.raises(LabError, match="delay"):
        Settings.of("unit", "198.18.7.0/24", rds_delay=-1)
    with pytest.raises(LabError, match="delay"):
        Settings.of("unit", "198.18.7.0/24", rds_failover_delay=-1)


def test_what_is_killed_of_a_database_is_one_of_its_servers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["kill-db", "--database", "main", "--role", "both"])
    assert "'primary', 'standby'" in capsys.readouterr().err


def test_access_logs_need_time() -> None:
    assert Settings.of("unit", "198.18.7.0/24").elb_log_interval == 300
    assert Settings.of("unit", "198.18.7.0/24", elb_log_interval=5).elb_log_interval == 5
    with pytest.raises(LabError, match="every 0 seconds"):
        Settings.of("unit", "198.18.7.0/24", elb_log_interval=0)


def test_the_table_of_an_empty_lab() -> None:
    assert "no hosts" in cli.table(status())
    assert "1 fault(s) armed" in cli.table(status(faults=[{"code": "Throttling"}]))


def test_the_shells_variables_leave_no_way_to_an_account() -> None:
    variables = cli.environment(LAB)
    assert variables["AWS_ENDPOINT_URL"] == LAB.endpoint
    assert variables["AWS_ACCESS_KEY_ID"] == "ascentlab"
    assert variables["AWS_CONFIG_FILE"] == variables["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"
    assert variables["AWS_EC2_METADATA_DISABLED"] == "true"


def test_without_root_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["up", "--name", "unit"]) == 1
    assert "sudo" in capsys.readouterr().err


def test_a_wrong_name_is_an_error_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--name", "My-Lab"]) == 1
    assert capsys.readouterr().err.startswith("lab: 'My-Lab' is no name for a lab")


def test_missing_programs_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="On this distribution"):
        require_programs()
    apt = tmp_path / "apt-get"
    apt.touch(mode=0o755)
    with pytest.raises(LabError, match=r"apt-get install .*conntrack.*nftables.*podman"):
        require_programs()


def test_the_subnet_of_a_standing_lab_is_known_to_all_verbs(tmp_path: Path) -> None:
    assert lifecycle.subnet_of("unit", tmp_path) is None
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "settings.json").write_text('{"name": "unit", "subnet": "198.18.7.0/24"}')
    assert lifecycle.subnet_of("unit", tmp_path) == "198.18.7.0/24"
    (tmp_path / "unit" / "settings.json").write_text("{")
    assert lifecycle.subnet_of("unit", tmp_path) is None
