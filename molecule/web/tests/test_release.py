"""Releases under traffic: deployed, rolled back, failing, killed. No request may fail."""

from __future__ import annotations

import threading
from typing import Any

import pytest


def check(traffic: Any, *releases: str) -> None:
    """No failure, enough traffic to count, and the releases in the order of their going live."""
    assert traffic.failed == []
    assert traffic.requests > 100
    assert traffic.connections == 6, "a keep-alive connection was lost"
    assert traffic.releases == list(releases)


@pytest.fixture(scope="module", autouse=True)
def base(site: Any) -> str:
    """The release that the tests start from."""
    return str(site.deploy("base")["release"])


@pytest.fixture(autouse=True)
def one_instance_stands(site: Any) -> Any:
    """Whatever happened: one instance runs, the live one, and nothing half-done lies about."""
    yield
    assert site.running == [site.live]
    assert site.root("ls -A /srv/door/instances").split() == [site.live]
    assert site.root("ls /run/door/instances").split() == [f"{site.live}.sock"]


def test_a_release_goes_live_and_back(site: Any, base: str) -> None:
    with site.traffic() as traffic:
        deployed = site.deploy("one")
    check(traffic, f"{base} red", f"{deployed['release']} red")
    assert deployed["previous"] == base
    assert site.told()["release"] == deployed["release"]

    with site.traffic() as traffic:
        code, output, result = site.operate("rollback")
    assert code == 0, output
    check(traffic, f"{deployed['release']} red", f"{base} red")
    assert (result["release"], result["previous"]) == (base, deployed["release"])
    assert not any(step.startswith(("build", "migrate")) for step in result["steps"])

    _, _, again = site.operate("rollback")
    assert (again["changed"], again["release"]) == (False, base)


def test_the_same_source_again_changes_nothing(site: Any, base: str) -> None:
    result = site.deploy("base")
    assert (result["changed"], result["steps"], result["release"]) == (False, [], base)


def test_check_mode_tells_the_release_and_changes_nothing(site: Any) -> None:
    before = site.root("find /srv/door /run/door | sort")
    source = site.source("never")
    code, output, planned = site.operate("deploy", "--check", "--diff", web_source=str(source))
    assert code == 0, output
    assert planned["changed"]
    assert f"build {planned['release']}" in planned["steps"]
    assert site.root("find /srv/door /run/door | sort") == before
    assert site.deploy("never")["release"] == planned["release"]
    site.deploy("base")


def test_a_new_secret_rolls_the_application(site: Any, base: str) -> None:
    secret = {"TOKEN": "another-token-of-the-test"}
    with site.traffic() as traffic:
        code, output, result = site.operate(
            "deploy",
            "--diff",
            "-vvv",
            web_source=str(site.source("base")),
            web_environment={"COLOUR": "blue"},
            web_secret_environment=secret,
        )
    assert code == 0, output
    check(traffic, f"{base} red", f"{base} blue")
    assert result["release"] == base
    assert "TOKEN: (secret, changed)" in output or '"TOKEN": "(secret, changed)"' in output
    assert "another-token-of-the-test" in site.root("cat /etc/door/environment")
    shown = output.replace(str(secret), "")
    # The command line of this very test names it; what the host answered must not.
    answers = [line for line in shown.splitlines() if "EXEC" not in line and "-e" not in line]
    assert not any("another-token-of-the-test" in line for line in answers)
    site.deploy("base")


def test_a_long_request_outlives_the_switch(site: Any, base: str) -> None:
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        status, _, body = site.curl("/slow?seconds=15", "-X", "POST", "-d", "x=1")
        answers.append((status, body))

    thread = threading.Thread(target=ask)
    code, output, _ = site.operate(
        "deploy", web_source=str(site.source("built")), web_environment={"COLOUR": "x"}
    )
    assert code == 0, output
    before = site.told()["release"]
    thread.start()
    site.deploy("base")
    assert site.told()["release"] == base
    thread.join()
    assert answers[0][0] == 200
    assert before in answers[0][1]


FAILURES = {
    "build": ({"web_build": ["echo compiling; exit 7"]}, ["exit 7", "(7)", "compiling"]),
    "migration": (
        {"web_environment": {"COLOUR": "red", "MIGRATION": "fails"}},
        ["python -m door.migrate", "the migration of the test fails"],
    ),
    "health": (
        {"web_environment": {"COLOUR": "red", "HEALTH": "bad"}, "web_health_timeout": 5},
        ["503 Service Unavailable", "the test wants it unhealthy", "Listening at"],
    ),
    "start": (
        {"web_start": "python -c 'import nowhere'"},
        ["it died", "No module named", "nowhere"],
    ),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_release_that_fails_leaves_the_old_one_serving(site: Any, base: str, kind: str) -> None:
    values, words = FAILURES[kind]
    with site.traffic() as traffic:
        code, output, _ = site.operate(
            "deploy", web_source=str(site.source(f"bad-{kind}")), **values
        )
    assert code == 2
    for word in [*words, f"Release {base} goes on serving"]:
        assert word in output, output
    assert "token-of-the-test" not in output
    check(traffic, f"{base} red")


def test_a_release_is_migrated_once(site: Any) -> None:
    log = "/srv/door/shared/uploads/migrations"
    release = site.deploy("migrated")["release"]
    site.deploy("base")
    site.deploy("migrated")
    assert site.root(f"grep -c {release} {log}") == "1"
    site.deploy("base")


@pytest.mark.parametrize("moment", ["build", "create", "gate", "switch"])
def test_a_killed_deployment_is_taken_up(site: Any, base: str, moment: str) -> None:
    """SIGKILL to everything that deploys, as soon as a step shows; then the same again."""
    source = site.source(f"killed-{moment}")
    site.root(f"systemd-run -q --unit=killer --collect python3 /root/killer.py {moment}")
    with site.traffic() as traffic:
        code, output, _ = site.operate("deploy", web_source=str(source))
        assert code == 2, output
        now_live = site.told()["release"]
        code, output, result = site.operate("deploy", web_source=str(source))
    assert code == 0, output
    assert now_live == (result["release"] if moment == "switch" else base)
    assert ("switch" in str(result["steps"])) == (moment != "switch")
    check(traffic, f"{base} red", f"{result['release']} red")
    site.deploy("base")


def test_two_deployments_at_once_wait_for_each_other(site: Any, base: str) -> None:
    results: list[tuple[int, str, dict[str, Any]]] = []

    source = str(site.source("twice"))

    def deploy() -> None:
        results.append(site.operate("deploy", web_source=source))

    threads = [threading.Thread(target=deploy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _, _ in results] == [0, 0], results
    assert sorted(result["changed"] for _, _, result in results) == [False, True]
    site.deploy("base")


def test_old_releases_go(site: Any, base: str) -> None:
    names = [site.deploy(f"keep-{number}")["release"] for number in range(4)]
    kept = set(site.root("ls /srv/door/releases").split())
    assert kept == set(names[1:])
    code, output, _ = site.operate("rollback", web_release=names[0])
    assert code == 2
    assert f"Release {names[0]} is not on this host" in output
    code, output, result = site.operate("rollback", web_release=names[1])
    assert (code, result["release"]) == (0, names[1]), output
