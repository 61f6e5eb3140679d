"""The switch with the nginx and the systemd of Debian 12: the tests that say most of it."""

from __future__ import annotations

from typing import Any

from test_release import (  # noqa: F401 - pytest finds what a module holds
    check,
    one_instance_stands,
    test_a_release_goes_live_and_back,
)

testinfra_hosts = ["ansible://debian-12"]


def test_a_release_that_fails_leaves_the_old_one_serving(site: Any) -> None:
    before = site.serving
    with site.traffic() as traffic:
        code, output, _ = site.operate(
            "deploy", web_source=str(site.source("bad")), web_start="python -c 'import nowhere'"
        )
    assert code == 2
    assert f"Release {before.split()[0]} goes on serving" in output
    check(traffic, before)
