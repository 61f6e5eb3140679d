"""A source that cannot be had changes nothing: the controller asks for it, not the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

testinfra_hosts = ["ansible://debian-13"]


def test_a_tag_that_is_not_there_changes_nothing(
    host: Any, converge: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = host.check_output("readlink /srv/board/live")
    sources = Path(os.environ["ASCENT_MOLECULE_DIRECTORY"]) / "sources"
    repository = str(sources / "repository-web_alternative")
    run = converge(web_source={"git": {"repository": repository, "version": "v9"}})
    assert run.returncode == 2
    assert "Nothing was deployed" in run.stdout
    assert "no branch and no tag" in run.stdout
    assert host.check_output("readlink /srv/board/live") == before
