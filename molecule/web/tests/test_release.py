"""Releases under traffic: deployed, rolled back, failing, killed. No request may fail."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

# The release before and after is what matters here, not the version of nginx or systemd: Debian 12
# has two of these tests, in test_release_debian_12.py.
testinfra_hosts = ["ansible://debian-13"]

# New to a host that was tested before, too.
ONE = f"one-{time.time_ns()}"


def check(traffic: Any, *releases: str) -> None:
    """No failure, enough traffic to count, and the releases in the order of their going live."""
    assert traffic.failed == []
    assert traffic.requests > 100
    assert traffic.connections == 6, "a keep-alive connection was lost"
    assert traffic.releases == list(releases)


@pytest.fixture(autouse=True)
def one_instance_stands(site: Any) -> Any:
    """Whatever happened: one instance runs, the live one, and nothing half-done lies about."""
    yield
    assert site.running == [site.live]
    assert site.root("ls -A /srv/door/instances").split() == [site.live]
    assert site.root("ls /run/door/instances").split() == [f"{site.live}.sock"]


def test_a_release_goes_live_and_back(site: Any) -> None:
    before = site.serving
    with site.traffic() as traffic:
        deployed = site.deploy(ONE, web_build=[])
    check(traffic, before, f"{deployed['release']} red")
    assert deployed["previous"] == before.split()[0]
    assert site.told()["release"] == deployed["release"]
    assert site.root(f"grep -c {deployed['release']} /srv/door/shared/uploads/migrations") == "1"
    with site.traffic() as traffic:
        code, output, result = site.operate("rollback")
    assert code == 0, output
    check(traffic, f"{deployed['release']} red", f"{result['release']} red")
    assert (result["release"], result["previous"]) == (before.split()[0], deployed["release"])
    assert not any(step.startswith(("build", "migrate")) for step in result["steps"])


def test_what_is_there_is_not_made_again(site: Any) -> None:
    """After the test before, which has rolled it back."""
    before = site.told()["release"]
    _, _, again = site.operate("rollback")
    assert (again["changed"], again["release"]) == (False, before)

    # Live once more, it is neither built nor migrated once more.
    count = "sort /srv/door/shared/uploads/migrations | uniq -c"
    migrated = site.root(count)
    deployed = site.deploy(ONE, web_build=[])
    assert deployed["release"] != before
    assert not any(step.startswith(("build", "migrate")) for step in deployed["steps"])
    assert site.root(count) == migrated

    # It serves: the same source again changes nothing.
    again = site.deploy(ONE, web_build=[])
    assert (again["changed"], again["steps"]) == (False, [])
    assert again["release"] == deployed["release"]


def test_check_mode_tells_the_release_and_changes_nothing(site: Any) -> None:
    before = site.root("find /srv/door /run/door | sort")
    source = site.source("never")
    code, output, planned = site.operate("deploy", "--check", "--diff", web_source=str(source))
    assert code == 0, output
    assert planned["changed"]
    assert f"build {planned['release']}" in planned["steps"]
    assert site.root("find /srv/door /run/door | sort") == before
    assert site.deploy("never")["release"] == planned["release"]


def test_a_new_secret_rolls_the_application(site: Any) -> None:
    release = site.told()["release"]
    before = site.serving
    secret = {"TOKEN": "another-token-of-the-test"}
    with site.traffic() as traffic:
        code, output, result = site.operate(
            "deploy",
            "--diff",
            "-vvv",
            web_source=str(site.source("never")),
            web_environment={"COLOUR": "blue"},
            web_secret_environment=secret,
        )
    assert code == 0, output
    check(traffic, before, f"{release} blue")
    assert result["release"] == release
    assert "TOKEN: (secret, changed)" in output or '"TOKEN": "(secret, changed)"' in output
    assert "another-token-of-the-test" in site.root("cat /etc/door/environment")
    shown = output.replace(str(secret), "")
    # The command line of this very test names it; what the host answered must not.
    answers = [line for line in shown.splitlines() if "EXEC" not in line and "-e" not in line]
    assert not any("another-token-of-the-test" in line for line in answers)


def test_a_long_request_outlives_the_switch(site: Any) -> None:
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        status, _, body = site.curl("/slow?seconds=19", "-X", "POST", "-d", "x=1")
        answers.append((status, body))

    # The same release in another colour: nothing is built, so that the switch comes soon.
    before = site.told()["colour"]
    thread = threading.Thread(target=ask)
    thread.start()
    result = site.deploy("never", web_environment={"COLOUR": "green"})
    assert site.told()["colour"] == "green" != before
    thread.join()
    assert answers[0][0] == 200
    assert f'"{before}"' in answers[0][1]
    assert result["seconds"]["drain"] > 0.5, "the request was over before the switch"


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
def test_a_release_that_fails_leaves_the_old_one_serving(site: Any, kind: str) -> None:
    values, words = FAILURES[kind]
    before = site.serving
    with site.traffic() as traffic:
        code, output, _ = site.operate(
            "deploy", web_source=str(site.source(f"bad-{kind}")), **values
        )
    assert code == 2
    for word in [*words, f"Release {before.split()[0]} goes on serving"]:
        assert word in output, output
    assert "token-of-the-test" not in output
    check(traffic, before)


def test_a_killed_deployment_is_taken_up(site: Any) -> None:
    """SIGKILL to everything that deploys, as soon as a step shows; then the same again.

    Each time it is killed at the next step, so each took up what the one before had left.
    """
    # The profile's own build: there must be time to kill it.
    again = {"web_source": str(site.source("killed")), "web_build": []}
    before = site.serving
    with site.traffic() as traffic:
        for moment in ("build", "create", "gate", "switch"):
            site.root(f"systemd-run -q --unit=killer --collect python3 /root/killer.py {moment}")
            code, output, _ = site.operate("deploy", **again)
            assert code == 2, output
            now_live = site.told()["release"]
            assert (now_live != before.split()[0]) == (moment == "switch"), moment
        code, output, result = site.operate("deploy", **again)
    assert code == 0, output
    assert now_live == result["release"]
    assert not any(step.startswith(("build", "switch")) for step in result["steps"])
    check(traffic, before, f"{result['release']} red")


def test_two_deployments_at_once_wait_for_each_other(site: Any) -> None:
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


def test_old_releases_go(site: Any) -> None:
    """Three are kept here; whatever the tests before have deployed, two more leave one of it."""
    old = set(site.root("ls /srv/door/releases").split()) - {site.told()["release"]}
    names = [site.deploy(f"keep-{number}")["release"] for number in range(2)]
    kept = set(site.root("ls /srv/door/releases").split())
    assert len(kept) == 3
    assert set(names) < kept
    gone = sorted(old - kept)[0]
    code, output, _ = site.operate("rollback", web_release=gone)
    assert code == 2
    assert f"Release {gone} is not on this host" in output
    oldest = (kept - set(names)).pop()
    code, output, result = site.operate("rollback", web_release=oldest)
    assert (code, result["release"]) == (0, oldest), output
