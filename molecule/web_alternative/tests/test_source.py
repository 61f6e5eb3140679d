"""A source that cannot be had changes nothing: the controller asks for it, not the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

testinfra_hosts = ["ansible://debian-13"]


def test_a_tag_that_is_not_there_changes_nothing(host: Any, converge: Callable[..., Any]) -> None:
    before = host.check_output("readlink /srv/board/live")
    sources = Path(os.environ["ASCENT_MOLECULE_DIRECTORY"]) / "sources"
    repository = str(sources / "repository-web_alternative")
    run = converge(
        on="debian-13",
        start="release | Deploy and switch",
        web_source={"git": {"repository": repository, "version": "v9"}},
    )
    assert run.failed("debian-13")
    assert "Nothing was deployed" in run.told("debian-13")
    assert "no branch and no tag" in run.told("debian-13")
    assert host.check_output("readlink /srv/board/live") == before
