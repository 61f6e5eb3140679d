"""Stage 1 from an empty account: the plan, the run, the second run, and what can be reached.

The tests stand in the order of a newcomer's day and share one environment.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.integration.conftest import STAGE
from tests.support import aws_state
from tests.support.home import BUILD, DOMAIN
from tests.support.lab import ROOT, TestLab
from tests.support.playbook import WITHOUT_ROLES, Run, play, succeed
from tests.support.probe import Traffic, get, get_json, port_answers

pytestmark = pytest.mark.lab


@pytest.fixture
def second_release(tmp_path: Path) -> str:
    """The application with another line on its front page."""
    source = tmp_path / "app"
    shutil.copytree(ROOT / "app", source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "shop" / "banner.txt").write_text("Release two of the tests\n")
    return str(source)


def test_the_plan_of_an_empty_account_names_what_would_be(plan: tuple[dict, Run, dict]) -> None:
    _, run, _ = plan
    for thing in ("vpc", "subnet", "security_group", "instance", "elastic_ip", "bucket"):
        assert thing in run.output, f"{thing} is not in the plan:\n{run.tail(120)}"


def test_the_plan_of_an_empty_account_changes_nothing(plan: tuple[dict, Run, dict]) -> None:
    before, _, after = plan
    assert after == before


def test_the_first_run_ends_with_an_application_that_serves(stands: None, box: str) -> None:
    health = get_json(box, "/health/ready", host=DOMAIN)
    assert health["status"] == "ready"
    status, _, body = get(box, "/", host=DOMAIN)
    assert status == 200
    assert "<html" in body


def test_the_name_leads_to_the_elastic_ip(box: str, stage_lab: TestLab) -> None:
    assert stage_lab.status()["names"] == {DOMAIN: box}


def test_http_is_sent_to_https(box: str) -> None:
    status, headers, _ = get(box, "/", host=DOMAIN, tls=False)
    assert status in (301, 308)
    assert headers["location"] == f"https://{DOMAIN}/"


def test_the_certificate_carries_the_name(box: str) -> None:
    context = ssl.create_default_context(cadata=ssl.get_server_certificate((box, 443)))
    with (
        socket.create_connection((box, 443), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as secured,
    ):
        assert secured.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("port", [22, 80, 443])
def test_what_must_be_open_answers(box: str, port: int) -> None:
    assert port_answers(box, port)


@pytest.mark.parametrize("port", [25, 111, 4566, 5432, 6379, 6432, 8000, 8080, 9100])
def test_everything_else_is_closed(box: str, port: int) -> None:
    assert not port_answers(box, port, seconds=1.0)


def test_a_rule_added_by_hand_is_all_that_a_check_finds_and_is_taken_away(
    stands: None, stage_lab: TestLab
) -> None:
    ec2 = stage_lab.client("ec2")
    group = next(
        group["GroupId"]
        for group in ec2.describe_security_groups()["SecurityGroups"]
        if group["GroupName"].endswith("web")
    )
    ec2.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=5432, ToPort=5432, CidrIp="0.0.0.0/0"
    )
    plan = succeed(stage_lab, STAGE, "--check", "--diff", *WITHOUT_ROLES)
    assert "5432" in plan.output
    assert plan.changed_tasks == ["Plan what is to be done in AWS"]
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert any(rule.get("FromPort") == 5432 for rule in rules), "the check changed something"
    succeed(stage_lab, STAGE, *WITHOUT_ROLES)
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert not any(rule.get("FromPort") == 5432 for rule in rules)


def test_status_says_what_stands(stands: None, stage_lab: TestLab) -> None:
    run = succeed(stage_lab, "operations/status.yml")
    assert "stage 1" in run.output.lower()
    status = json.loads((BUILD / "status.json").read_text())
    assert status["stage"] == 1


def test_a_lower_stage_than_the_recorded_is_refused(stands: None, stage_lab: TestLab) -> None:
    ssm = stage_lab.client("ssm")
    name = "/ascent/lab/stage"
    value = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ssm.put_parameter(
        Name=name, Value=json.dumps({**json.loads(value), "stage": 3}), Overwrite=True
    )
    try:
        run = play(stage_lab, STAGE)
        assert run.returncode != 0
        assert "stage 3" in run.output
    finally:
        ssm.put_parameter(Name=name, Value=value, Overwrite=True)


def test_a_second_controller_is_refused_by_the_lock(stands: None, stage_lab: TestLab) -> None:
    holds = threading.Event()
    first: list[Run] = []

    def watch(line: str) -> None:
        if "PLAY [Provision]" in line:
            holds.set()

    thread = threading.Thread(
        target=lambda: first.append(play(stage_lab, STAGE, *WITHOUT_ROLES, on_line=watch)),
        daemon=True,
    )
    thread.start()
    assert holds.wait(120), "the first run did not come to its second phase"
    second = play(stage_lab, STAGE)
    thread.join(600)
    assert second.returncode != 0
    assert re.search(r"\S+@\S+ \(process \d+\) holds it", second.output), second.tail()
    assert second.changed_tasks == []
    assert first[0].returncode == 0, first[0].tail()


def test_a_deploy_and_its_rollback_fail_no_request(
    stands: None, stage_lab: TestLab, box: str, second_release: str
) -> None:
    with Traffic(box, DOMAIN, paths=("/", "/health/ready", "/api/products/1")) as traffic:
        first = get_json(box, "/health/ready", host=DOMAIN)["release"]
        succeed(stage_lab, "operations/deploy.yml", "-e", f"ascent_source={second_release}")
        second = get_json(box, "/health/ready", host=DOMAIN)["release"]
        assert "Release two of the tests" in get(box, "/", host=DOMAIN)[2]
        told = succeed(stage_lab, "operations/rollback.yml", "--check").output
        assert re.search(rf"{re.escape(first)}\s+would go\s+live", told)
        assert get_json(box, "/health/ready", host=DOMAIN)["release"] == second
        succeed(stage_lab, "operations/rollback.yml")
        third = get_json(box, "/health/ready", host=DOMAIN)["release"]
    assert first == third != second
    assert set(traffic.releases) == {first, second}
    assert not traffic.failures, f"{traffic.failures} of {traffic.requests}"
    assert traffic.requests > 500


def test_a_release_that_does_not_come_up_leaves_the_old_one(
    stands: None, stage_lab: TestLab, box: str, second_release: str
) -> None:
    before = get_json(box, "/health/ready", host=DOMAIN)["release"]
    broken = Path(second_release) / "shop" / "wsgi.py"
    text = broken.read_text()
    broken.write_text("raise RuntimeError('broken on purpose')\n")
    try:
        with Traffic(box, DOMAIN) as traffic:
            run = play(
                stage_lab,
                "operations/deploy.yml",
                "-e",
                json.dumps({"ascent_source": second_release, "web_health_timeout": 8}),
            )
    finally:
        broken.write_text(text)
    assert run.returncode != 0
    assert "broken on purpose" in run.output, run.tail()
    assert get_json(box, "/health/ready", host=DOMAIN)["release"] == before
    assert not traffic.failures, f"{traffic.failures} of {traffic.requests}"


@pytest.mark.thorough
def test_after_all_that_a_run_changes_nothing(stands: None, stage_lab: TestLab) -> None:
    """Also after what the tests before have done: a restore, rotations, a resize, deploys."""
    before = aws_state.snapshot(stage_lab)
    run = succeed(stage_lab, STAGE)
    assert run.changed_tasks == []
    assert set(run.changed.values()) == {0}
    assert aws_state.counts(aws_state.snapshot(stage_lab)) == aws_state.counts(before)
