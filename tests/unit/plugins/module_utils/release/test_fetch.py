"""Sources brought to the controller: from real repositories, archives and a real web server."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.fetch import Fetcher
from ansible_collections.ascent.scaling.plugins.module_utils._release.source import (
    SourceError,
    parse,
)


class Repository:
    """A repository with a commit for each text, on main."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{who}_{what}": "a@example.com"
               for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }  # fmt: skip
        return subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, text: str) -> str:
        (self.path / "web").mkdir(exist_ok=True)
        (self.path / "web" / "app.py").write_text(text)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", text)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "origin")


def git(repository: Repository, **more: str) -> dict[str, Any]:
    return {"git": {"repository": str(repository.path), **more}}


def fetcher(stated: Any, tmp_path: Path, run: str = "run") -> Fetcher:
    return Fetcher(parse(stated), tmp_path / run)


def test_branch_tag_and_commit_lead_to_the_commit(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit("one")
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "--message=x", "v1")
    second = repository.commit("two")
    repository.git("branch", "feature/x", first)
    for version, expected in {
        "": second, "main": second, "feature/x": first, "light": first, "v1": first, first: first,
    }.items():  # fmt: skip
        found = fetcher(git(repository, version=version), tmp_path)
        assert found.identity() == expected, version
        text = "one" if expected == first else "two"
        assert (found.tree() / "web" / "app.py").read_text() == text


def test_a_folder_of_the_repository_with_files_over_it(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit("one")
    stated = git(repository, directory="web") | {"files": {"conf/app.ini": "[a]\n"}}
    tree = fetcher(stated, tmp_path).tree()
    assert sorted(path.name for path in tree.iterdir()) == ["app.py", "conf"]
    assert (tree / "conf" / "app.ini").read_text() == "[a]\n"
    with pytest.raises(SourceError, match="has no folder nowhere"):
        fetcher(git(repository, directory="nowhere"), tmp_path).tree()


def test_one_run_sees_one_commit(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit("one")
    assert fetcher(git(repository), tmp_path).identity() == first
    second = repository.commit("two")
    assert fetcher(git(repository), tmp_path).identity() == first
    assert fetcher(git(repository), tmp_path, "the next run").identity() == second


def test_a_submodule_is_part_of_the_code(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # git refuses local submodules unless told; servers are not concerned.
    for number, (key, value) in enumerate({"protocol.file.allow": "always"}.items()):
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    other = Repository(tmp_path / "other")
    other.commit("of the submodule")
    repository.commit("one")
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", str(other.path), "lib")
    repository.commit("two")
    tree = fetcher(git(repository), tmp_path).tree()
    assert (tree / "lib" / "web" / "app.py").read_text() == "of the submodule"


def test_what_a_repository_lacks_is_told(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one")
    with pytest.raises(SourceError, match="no branch and no tag 'v9'; name a commit by all"):
        fetcher(git(repository, version="v9"), tmp_path).identity()
    missing = "ab" * 20
    with pytest.raises(SourceError, match=f"has no commit {missing}"):
        fetcher(git(repository, version=missing), tmp_path).tree()
    nowhere = {"git": f"{tmp_path}/nowhere.git"}
    with pytest.raises(SourceError, match=r"nowhere.git does not answer: .*"):
        fetcher(nowhere, tmp_path).identity()


def test_an_error_does_not_tell_the_password(tmp_path: Path) -> None:
    stated = {"git": "http://me:hidden-word@127.0.0.1:9/a.git"}
    with pytest.raises(SourceError) as error:
        fetcher(stated, tmp_path).identity()
    assert "hidden-word" not in str(error.value)
    assert "http://***@127.0.0.1:9/a.git" in str(error.value)


# --- archives ---------------------------------------------------------------------------------


def pack(path: Path, *entries: tuple[str, str]) -> Path:
    """A tar.gz with these files; a text that begins with -> is a link."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in entries:
            info = tarfile.TarInfo(name)
            if text.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, text[2:]
                archive.addfile(info)
            else:
                info.size, info.mode = len(text), 0o755
                archive.addfile(info, io.BytesIO(text.encode()))
    return path


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_loses_the_folder_that_holds_all(tmp_path: Path) -> None:
    packed = pack(
        tmp_path / "a.tar.gz", ("app-1.0/run", "x"), ("app-1.0/b/c", "y"), ("app-1.0/l", "->run")
    )
    found = fetcher({"archive": str(packed)}, tmp_path)
    assert f"sha256:{found.identity()}" == sha256(packed)
    tree = found.tree()
    assert sorted(path.name for path in tree.iterdir()) == ["b", "l", "run"]
    assert os.access(tree / "run", os.X_OK)
    assert (tree / "l").read_text() == "x"


def test_a_zip_is_an_archive_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("one", "x")
        packed.writestr("web/two", "y")
    tree = fetcher({"archive": {"path": str(tmp_path / "a.zip"), "directory": "web"}}, tmp_path)
    assert [path.name for path in tree.tree().iterdir()] == ["two"]


@pytest.mark.parametrize("entry", [("../out", "x"), ("/out", "x"), ("a/../../out", "->x")])
def test_an_archive_writes_nowhere_else(tmp_path: Path, entry: tuple[str, str]) -> None:
    packed = pack(tmp_path / "a.tar.gz", entry)
    with pytest.raises(SourceError, match="leads out of it"):
        fetcher({"archive": str(packed)}, tmp_path).tree()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    packed = pack(tmp_path / "a.tar.gz", ("d", f"->{outside}"), ("d/file", "x"))
    with pytest.raises((SourceError, OSError)):
        fetcher({"archive": str(packed)}, tmp_path).tree()
    assert list(outside.iterdir()) == []


def test_what_is_wrong_with_an_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a file on the controller"):
        fetcher({"archive": str(tmp_path / "nothing")}, tmp_path).identity()
    broken = tmp_path / "broken"
    broken.write_text("no archive")
    with pytest.raises(SourceError, match="no tar or zip archive"):
        fetcher({"archive": str(broken)}, tmp_path).tree()
    stated = {"path": str(broken), "checksum": "sha256:" + "0" * 64}
    with pytest.raises(SourceError, match=r"is sha256:\w+, not sha256:0000"):
        fetcher({"archive": stated}, tmp_path).identity()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_an_archive_comes_from_a_server_only_as_it_was_stated(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    packed = pack(tmp_path / "served" / "a.tar.gz", ("one", "x"))
    stated = {"archive": {"url": f"{server}/a.tar.gz", "checksum": sha256(packed)}}
    found = fetcher(stated, tmp_path)
    assert [path.name for path in found.tree().iterdir()] == ["one"]
    # Known by its checksum: neither this run nor the next asks for it without need.
    packed.unlink()
    assert found.tree().is_dir()
    assert len(fetcher(stated, tmp_path, "the next run").identity()) == 64
    with pytest.raises(SourceError, match=r"cannot be fetched: .*404"):
        fetcher(stated, tmp_path, "the next run").tree()
    pack(packed, ("one", "another"))
    with pytest.raises(SourceError, match="the checksum of"):
        fetcher(stated, tmp_path, "a third run").tree()


# --- packages and folders ---------------------------------------------------------------------


def test_a_package_with_the_files_that_belong_beside_it(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "app.ini").write_text("[a]\n")
    stated = {"package": "kinto==24.0.0", "directory": str(beside), "files": {"b.txt": "x"}}
    found = fetcher(stated, tmp_path)
    assert found.identity() == ""
    names = sorted(path.name for path in found.tree().iterdir())
    assert names == ["app.ini", "b.txt", "requirements.txt"]
    assert [path.name for path in beside.iterdir()] == ["app.ini"]


def test_a_folder_is_taken_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert fetcher(str(tmp_path / "app"), tmp_path).tree() == tmp_path / "app"
    shutil.rmtree(tmp_path / "app")
    with pytest.raises(SourceError, match="is not a folder on the controller"):
        fetcher(str(tmp_path / "app"), tmp_path).tree()
