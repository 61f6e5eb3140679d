"""The digest and the archive of a source tree depend on its content alone."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.tree import (
    TreeError,
    digest,
    entries,
    pack,
    release_name,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "shop" / "static").mkdir(parents=True)
    (root / "shop" / "wsgi.py").write_text("app = None\n")
    (root / "shop" / "static" / "a.css").write_text("a{}")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "latest").symlink_to("shop/static")
    return root


def packed(root: Path) -> bytes:
    out = io.BytesIO()
    pack(root, out)
    return out.getvalue()


def touch(root: Path) -> None:
    os.utime(root / "run", (1, 1))


def add_noise(root: Path) -> None:
    for path in (
        ".git/HEAD",
        "shop/__pycache__/wsgi.cpython-311.pyc",
        "x.pyc",
        ".venv/a",
        "node_modules/b",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("noise")


def change_permissions(root: Path) -> None:
    (root / "shop" / "wsgi.py").chmod(0o600)


@pytest.mark.parametrize("harmless", [touch, add_noise, change_permissions])
def test_what_does_not_matter(source: Path, harmless: Callable[[Path], None]) -> None:
    before = digest(source), packed(source)
    harmless(source)
    assert (digest(source), packed(source)) == before


def change_a_byte(root: Path) -> None:
    (root / "shop" / "static" / "a.css").write_text("b{}")


def rename(root: Path) -> None:
    (root / "run").rename(root / "start")


def make_plain(root: Path) -> None:
    (root / "run").chmod(0o644)


def lead_elsewhere(root: Path) -> None:
    (root / "latest").unlink()
    (root / "latest").symlink_to("shop")


def add_a_folder(root: Path) -> None:
    (root / "empty").mkdir()


@pytest.mark.parametrize(
    "change", [change_a_byte, rename, make_plain, lead_elsewhere, add_a_folder]
)
def test_what_makes_another_release(source: Path, change: Callable[[Path], None]) -> None:
    before = digest(source), packed(source)
    change(source)
    assert digest(source) != before[0]
    assert packed(source) != before[1]


def test_the_build_commands_belong_to_the_release(source: Path) -> None:
    digests = {digest(source, recipe=recipe) for recipe in ([], ["a"], ["b"], ["a", "b"], ["ab"])}
    assert len(digests) == 5


def test_text_does_not_slip_from_one_file_to_the_next(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root, names in ((one, ("a", "bc")), (two, ("ab", "c"))):
        root.mkdir()
        for name in names:
            (root / name).write_text("")
    assert digest(one) != digest(two)


def test_exclusions_by_name_and_by_path(source: Path) -> None:
    kept = {entry.path for entry in entries(source, ["*.css", "shop/wsgi.*"])}
    assert kept == {"latest", "run", "shop", "shop/static"}


def test_a_changed_file_of_the_same_size_gets_another_time(source: Path) -> None:
    def time_of(name: str) -> float:
        with tarfile.open(fileobj=io.BytesIO(packed(source))) as archive:
            return archive.getmember(name).mtime

    before = time_of("shop/static/a.css"), time_of("shop/wsgi.py")
    change_a_byte(source)
    after = time_of("shop/static/a.css"), time_of("shop/wsgi.py")
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_the_archive_holds_what_the_tree_holds(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xzf-", "-C", tmp_path / "out"], input=packed(source), check=True)
    assert digest(tmp_path / "out") == digest(source)


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "shop/../../secret"])
def test_links_out_of_the_tree_are_refused(source: Path, target: str) -> None:
    (source / "bad").symlink_to(target)
    with pytest.raises(TreeError, match="leads out of the source"):
        digest(source)


def test_pipes_are_refused(source: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(TreeError, match="neither a file"):
        digest(source)


def test_the_name_is_short(source: Path) -> None:
    assert release_name(digest(source)) == digest(source)[:12]
