# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the code of an application to the controller: repositories, archives, packages.

Everything is asked for with the controller's own rights (ssh-agent, credential helpers, netrc),
so that no key ever lies on a host. What one run has learnt is kept for its other hosts: a branch
that moves meanwhile does not make them differ.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ansible.module_utils.urls import open_url
from ansible_collections.ascent.scaling.plugins.module_utils._release.source import (
    Source,
    SourceError,
    inside,
    package_files,
    without_password,
)

_ASK_TIMEOUT, _FETCH_TIMEOUT = 60, 900
_CHUNK = 1 << 20


class Fetcher:
    """One source, and a folder of this run that keeps what is known of it.

    Raises SourceError when something is not there, and OSError when the disk refuses.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        key = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
        self.kept = folder / f"ascent-source-{key}"

    def identity(self) -> str:
        """Return the commit or the archive's checksum; nothing for what is named by its content."""
        if self.source.kind not in ("git", "archive"):
            return ""
        with self._alone():
            known = self.kept / "identity"
            if not known.exists():
                known.write_text(
                    self._commit() if self.source.kind == "git" else self._checksum(),
                    encoding="utf-8",
                )
            return known.read_text(encoding="utf-8")

    def tree(self) -> Path:
        """Return the folder that holds the code; asked again, the same one."""
        if self.source.kind == "directory" and not self.source.files:
            return _directory(str(self.source.folder))
        identity = self.identity()
        with self._alone():
            made = self.kept / "tree"
            if not made.exists():
                work = self.kept / "work"
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                root = self._bring(work / "code", identity)
                for path, text in (package_files(self.source) | dict(self.source.files)).items():
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    (root / path).write_text(text, encoding="utf-8")
                root.rename(made)
                shutil.rmtree(work)
            return made

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.kept / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _bring(self, code: Path, identity: str) -> Path:
        source = self.source
        if source.kind == "git":
            code.mkdir()
            self._check_out(code, identity)
        elif source.kind == "archive":
            archive = self._archive(code.parent / "archive")
            _unpack(archive, code, source.shown)
        elif source.folder:
            shutil.copytree(_directory(source.folder), code, symlinks=True)
        else:
            code.mkdir()
        if source.kind in ("git", "archive") and source.folder:
            if not (code / source.folder).is_dir():
                raise SourceError(f"{source.shown} has no folder {source.folder}")
            return code / str(source.folder)
        return code

    # --- git ----------------------------------------------------------------------------------

    def _git(
        self, *arguments: str, folder: Path | None = None, timeout: float = _FETCH_TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            **os.environ,
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C.UTF-8",
        }
        # A checkout must not find the repository that the playbook lies in.
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            environment.pop(name, None)
        try:
            return subprocess.run(
                ["git", "-c", "advice.detachedHead=false", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            raise SourceError("the controller has no git, install it") from None
        except subprocess.TimeoutExpired:
            raise SourceError(
                f"{self.source.shown}: git {arguments[0]} did not end within {timeout:.0f} s"
            ) from None

    def _commit(self) -> str:
        """Return the commit that a branch or a tag leads to now."""
        source = self.source
        if source.is_commit:
            return str(source.version)
        wanted = [f"refs/tags/{source.version}^{{}}", f"refs/tags/{source.version}"]
        wanted += [f"refs/heads/{source.version}"]
        wanted = wanted if source.version else ["HEAD"]
        done = self._git("ls-remote", "--", source.repository, *wanted, timeout=_ASK_TIMEOUT)
        if done.returncode:
            raise SourceError(
                f"the repository {without_password(source.repository)} does not answer: "
                f"{without_password(done.stderr.strip())}. The controller asks with its own "
                "credentials (ssh-agent, credential helper)"
            )
        found = {
            reference: commit
            for commit, _, reference in (line.partition("\t") for line in done.stdout.splitlines())
        }
        for reference in wanted:
            if reference in found:
                return found[reference]
        raise SourceError(
            f"{without_password(source.repository)} has no branch and no tag "
            f"'{source.version or 'HEAD'}'; name a commit by all of its 40 digits"
        )

    def _check_out(self, folder: Path, commit: str) -> None:
        source = self.source
        # A path is meant from where the playbook was started, as git itself takes it.
        repository = source.repository
        if Path(repository).exists():
            repository = str(Path(repository).resolve())
        self._must(folder, "init", "--quiet")
        # Not every server gives a single commit: then everything is asked for.
        every = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        for what in (("--depth=1", "--no-tags", repository, commit), (repository, *every)):
            done = self._git("fetch", "--quiet", "--update-head-ok", *what, folder=folder)
            known = self._git("cat-file", "-e", f"{commit}^{{commit}}", folder=folder)
            if known.returncode == 0:
                break
        else:
            why = without_password(done.stderr.strip())
            raise SourceError(
                f"{without_password(source.repository)} has no commit {commit}"
                f"{': ' + why if why else ''}"
            )
        self._must(folder, "checkout", "--quiet", "--force", "--detach", commit)
        if (folder / ".gitmodules").exists():
            self._must(folder, "submodule", "--quiet", "update", "--init", "--recursive")

    def _must(self, folder: Path, *arguments: str) -> None:
        done = self._git(*arguments, folder=folder)
        if done.returncode:
            raise SourceError(
                f"{self.source.shown}: git {arguments[0]} failed: "
                f"{without_password(done.stderr.strip())}"
            )

    # --- archives -----------------------------------------------------------------------------

    def _checksum(self) -> str:
        """Return the checksum; one that is given need not be computed until it is unpacked."""
        stated = str(self.source.checksum).removeprefix("sha256:")
        if self.source.url:
            return stated
        path = Path(self.source.path).expanduser()
        if not path.is_file():
            raise SourceError(f"the archive {path} is not a file on the controller")
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if stated and found != stated:
            raise _differs(str(path), stated, found)
        return found

    def _archive(self, target: Path) -> Path:
        source = self.source
        if source.path:
            return Path(source.path).expanduser()
        stated, total = source.checksum.removeprefix("sha256:"), hashlib.sha256()
        try:
            with open_url(source.url, timeout=_ASK_TIMEOUT) as answer, target.open("wb") as out:
                while chunk := answer.read(_CHUNK):
                    total.update(chunk)
                    out.write(chunk)
        except OSError as error:  # of urllib, and of a connection that breaks
            raise SourceError(f"{source.shown} cannot be fetched: {error}") from error
        if total.hexdigest() != stated:
            raise _differs(source.shown, stated, total.hexdigest())
        return target


def _differs(what: str, stated: str, found: str) -> SourceError:
    return SourceError(f"the checksum of {what} is sha256:{found}, not sha256:{stated} as stated")


def _directory(folder: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise SourceError(f"{path} is not a folder on the controller")
    return path


def _unpack(archive: Path, code: Path, shown: str) -> None:
    """Unpack an archive; one folder that holds all the rest is left out.

    Links are made last, and nothing is written through them or outside.
    """
    out = code.parent / "unpacked"
    out.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _unzip(packed, out)
        else:
            with tarfile.open(archive) as packed_tar:
                _untar(packed_tar, out)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{shown} is no tar or zip archive that can be read: {error}") from error
    inner = list(out.iterdir())
    alone = len(inner) == 1 and inner[0].is_dir() and not inner[0].is_symlink()
    (inner[0] if alone else out).rename(code)


def _place(out: Path, name: str) -> Path:
    if not inside(name) and name.strip("./"):
        raise SourceError(f"the archive holds {name}, which leads out of it")
    return out / name


def _write(out: Path, name: str, content: IO[bytes], executable: bool) -> None:
    place = _place(out, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as target:
        shutil.copyfileobj(content, target, _CHUNK)
    place.chmod(0o755 if executable else 0o644)


def _link(later: list[tuple[Path, str]]) -> None:
    for place, target in later:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


def _untar(packed: tarfile.TarFile, out: Path) -> None:
    later: list[tuple[Path, str]] = []
    for member in packed:
        if member.isdir():
            _place(out, member.name).mkdir(parents=True, exist_ok=True)
        elif member.issym():
            later.append((_place(out, member.name), member.linkname))
        elif content := packed.extractfile(member):
            _write(out, member.name, content, bool(member.mode & stat.S_IXUSR))
        else:
            raise SourceError(f"the archive holds {member.name}, a device or a pipe")
    _link(later)


def _unzip(packed: zipfile.ZipFile, out: Path) -> None:
    later: list[tuple[Path, str]] = []
    for member in packed.infolist():
        mode = member.external_attr >> 16
        if member.is_dir():
            _place(out, member.filename).mkdir(parents=True, exist_ok=True)
        elif stat.S_ISLNK(mode):
            target = packed.read(member).decode("utf-8", "surrogateescape")
            later.append((_place(out, member.filename), target))
        else:
            with packed.open(member) as content:
                _write(out, member.filename, content, bool(mode & stat.S_IXUSR))
    _link(later)
