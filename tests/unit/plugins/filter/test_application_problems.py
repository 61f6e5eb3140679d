"""What the disk of the controller says of an application's source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.filter.application_problems import (
    application_problems,
)


def found(source: Any) -> list[str]:
    return application_problems({"name": "shop", "source": source})


def test_what_is_there_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_text("")
    assert found(str(tmp_path)) == []
    assert found({"archive": str(tmp_path / "app.tar")}) == []
    assert found({"package": "kinto==24.0.0", "directory": str(tmp_path)}) == []
    assert found({"git": {"repository": "https://git.example.com/shop.git"}}) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/app", "source '/nowhere/app' is not a directory on the controller"),
        ({"directory": "/nowhere/app"}, "'/nowhere/app' is not a directory"),
        ({"package": "kinto==24.0.0", "directory": "/nowhere"}, "'/nowhere' is not a directory"),
        ({"archive": "/nowhere/app.tar"}, "the archive /nowhere/app.tar is not a file"),
        ({"archive": {"url": "https://a.example/b"}}, "archive.checksum is missing"),
    ],
)
def test_what_is_not_is_told_once(source: Any, words: str) -> None:
    (problem,) = found(source)
    assert problem.startswith("ascent_application.source")
    assert words in problem


def test_what_is_no_application_at_all_is_for_others_to_tell() -> None:
    assert application_problems(None) == []
