"""Secrets of the user's own, with every odd character, are used and shown nowhere.

The run that is searched says as much as Ansible can (-vvv --diff).
"""

from __future__ import annotations

import re
import stat
import tempfile
from pathlib import Path

import pytest

from tests.faults.conftest import DOMAIN, Environment
from tests.support.host import Host
from tests.support.lab import ROOT
from tests.support.probe import get_json
from tests.support.secrets import Searched

pytestmark = pytest.mark.lab

# Where the application reads its own secrets from: for its own user and root.
ENVIRONMENT_FILE = re.compile(r"/srv/shop/instances/[^/]+/environment")


def test_the_application_works_with_such_secrets(searched: Searched, box: str) -> None:
    checks = get_json(box, "/health/ready", host=DOMAIN)["checks"]
    assert set(checks.values()) == {"ok"}


def test_what_the_run_says_holds_no_secret(searched: Searched) -> None:
    assert len(searched.run.output) > 100_000, "the run was not told to say much"
    lines = [line for line in searched.run.output.splitlines() if searched.holds(line)]
    assert lines == []


def test_no_process_shows_a_secret_to_others(searched: Searched) -> None:
    assert searched.looks > 1000
    # The application itself has them in its environment, which only its own user and root see.
    shown = [(w, u, p) for w, u, p in searched.processes if (w, u) != ("environ", "shop")]
    assert shown == []
    # The search would have found one: it has found the application.
    assert {user for where, user, _ in searched.processes if where == "environ"} == {"shop"}


def test_a_host_keeps_them_in_one_file_that_others_cannot_read(
    searched: Searched, host: Host
) -> None:
    found = searched.on_host(host)
    elsewhere = {path: mode for path, mode in found.items() if not ENVIRONMENT_FILE.fullmatch(path)}
    assert elsewhere == {}
    assert found, "not even the application's environment was found: the search does not work"
    for mode in found.values():
        assert mode == "-rw-r----- root:shop", found


def test_the_controller_keeps_none(searched: Searched, environment: Environment) -> None:
    folder = environment.inventory.parents[1]
    given = [folder / "secrets.json", environment.inventory / "group_vars" / "all.yml"]
    places = [ROOT / "build" / "tests", Path.home() / ".ansible", Path(tempfile.gettempdir())]
    assert searched.in_files(given, []) or not given[0].stat().st_mtime >= searched.since
    assert searched.in_files(places, given) == []
    key = environment.build / "ssh" / "id_ed25519"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_aws_is_told_none_in_the_open(searched: Searched, environment: Environment) -> None:
    lab = environment.lab
    told = str(lab.client("ssm").get_parameters_by_path(Path="/", Recursive=True)["Parameters"])
    told += str(lab.client("dynamodb").scan(TableName="ascent-locks")["Items"])
    ec2 = lab.client("ec2")
    told += str(ec2.describe_instances()["Reservations"])
    for host in lab.status()["hosts"]:
        told += str(ec2.describe_instance_attribute(InstanceId=host["id"], Attribute="userData"))
    assert searched.holds(told) == []
