# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of an application's source: its digest, and one archive of it.

Both are functions of the content alone. The same files give the same digest and the same
archive on any controller, in any checkout, at any time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

# Never part of a release: made by tools, or by the build on the host.
ALWAYS_EXCLUDED = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "__pycache__",
    "*.pyc",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "node_modules",
    ".DS_Store",
)

# The digest names the release: 12 hexadecimal digits (48 bits) keep names readable, and the
# whole digest is compared wherever two releases bear one name.
RELEASE_DIGITS = 12

_MTIME_BASE = 1_000_000_000


class TreeError(Exception):
    """The source cannot be made into a release."""


@dataclass(frozen=True)
class Entry:
    """One file, folder or link of the tree; `path` is relative, with slashes."""

    path: str
    kind: str  # "file", "folder" or "link"
    executable: bool = False
    target: str = ""


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern meets the path as a whole, or its last part.

    A pattern with a slash is compared with the path from the root of the tree, any other with
    the name alone, wherever it stands.
    """
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch(path if "/" in pattern else name, pattern) for pattern in patterns)


def entries(root: Path, exclude: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield what belongs to the release, parents first, in an order that never varies.

    Raises TreeError for a link that leads out of the tree, and for sockets, pipes and devices.
    """
    yield from _walk(root, "", (*ALWAYS_EXCLUDED, *exclude))


def _walk(root: Path, folder: str, exclude: Sequence[str]) -> Iterator[Entry]:
    for name in sorted(item.name for item in (root / folder).iterdir()):
        path = f"{folder}/{name}" if folder else name
        if is_excluded(path, exclude):
            continue
        mode = (root / path).lstat().st_mode
        if stat.S_ISLNK(mode):
            yield Entry(path, "link", target=_safe_target(root, path))
        elif stat.S_ISDIR(mode):
            yield Entry(path, "folder")
            yield from _walk(root, path, exclude)
        elif stat.S_ISREG(mode):
            yield Entry(path, "file", executable=bool(mode & stat.S_IXUSR))
        else:
            raise TreeError(f"{root / path} is neither a file, a folder nor a link")


def _safe_target(root: Path, path: str) -> str:
    target = os.readlink(root / path)  # noqa: PTH115 - the text of the link, not a Path of it
    inside = os.path.normpath(Path(path).parent / target)
    if target.startswith("/") or inside == ".." or inside.startswith("../"):
        raise TreeError(f"{root / path} leads out of the source, to {target}")
    return target


def digest(root: Path, exclude: Sequence[str] = (), recipe: Sequence[str] = ()) -> str:
    """Return the SHA-256 (hexadecimal) of the tree and of the recipe that builds it."""
    total = hashlib.sha256()
    for part in recipe:
        _feed(total, "recipe", part)
    for entry in entries(root, exclude):
        _feed(total, entry.kind, entry.path, str(entry.executable), entry.target)
        if entry.kind == "file":
            _feed(total, _file_digest(root / entry.path).hex())
    return total.hexdigest()


def release_name(tree_digest: str, label: str = "") -> str:
    """Return the name of the release that a digest stands for, after a label that people know."""
    return f"{label}-{tree_digest[:6]}" if label else tree_digest[:RELEASE_DIGITS]


def pack(root: Path, out: BinaryIO, exclude: Sequence[str] = ()) -> None:
    """Write the tree to `out` as a tar.gz that depends on nothing but the content.

    A file's time of change is derived from its content: web servers build ETag and
    Last-Modified from it, so that an unchanged file keeps its ETag over releases and hosts, and
    a changed one of the same size never bears the old one.
    """
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries(root, exclude):
            info = tarfile.TarInfo(entry.path)
            info.mtime = _MTIME_BASE
            if entry.kind == "folder":
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif entry.kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
                archive.addfile(info)
            else:
                content = (root / entry.path).read_bytes()
                info.size = len(content)
                info.mode = 0o755 if entry.executable else 0o644
                info.mtime += int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 3
                archive.addfile(info, io.BytesIO(content))


def _feed(total: hashlib._Hash, *parts: str) -> None:
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape")
        total.update(len(raw).to_bytes(8, "big") + raw)


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").digest()
