# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the code of an application comes from: what the inventory says, read and checked (pure)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

KINDS = ("directory", "git", "archive", "package")
_KEYS: dict[str, tuple[str, ...]] = {
    "directory": (),
    "git": ("repository", "version", "directory"),
    "archive": ("url", "path", "checksum", "directory"),
    "package": (),
}
# One exact version: PEP 440 with extras (PEP 508), or npm's name@version.
_PYTHON = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])? ?== ?(?P<v>[0-9][\w.!+-]*)"
)
_NODE = re.compile(
    r"(?P<name>(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*)@(?P<v>\d+\.\d+\.\d+[\w.+-]*)"
)
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
# The name of a branch or a tag, as git-check-ref-format(1) allows it, but for what is never sane.
_REFERENCE = re.compile(r"(?!-)(?!.*\.\.)(?!.*@\{)[^\s~^:?*\[\\\x00-\x1f\x7f]+")
_PROFILES = ("python_wsgi", "python_asgi", "nodejs", "command")


class SourceError(Exception):
    """What is said of the source cannot be followed; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A source as the inventory states it.

    `folder` is a path on the controller (kind `directory`, and what lies beside a package), or a
    folder inside the repository or the archive. `files` are laid over the code, by their path.
    """

    kind: str
    folder: str = ""
    repository: str = ""
    version: str = ""
    url: str = ""
    path: str = ""
    checksum: str = ""
    packages: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_python(self) -> bool:
        """Tell whether a package is one of Python's index, and not of npm's."""
        return bool(self.packages) and bool(_PYTHON.fullmatch(self.packages[0]))

    @property
    def is_commit(self) -> bool:
        """Tell whether the version is a whole commit, which needs no asking."""
        return bool(_COMMIT.fullmatch(self.version))

    @property
    def shown(self) -> str:
        """Return the source in words, without a password."""
        if self.kind == "git":
            return f"{without_password(self.repository)} at {self.version or 'HEAD'}"
        if self.kind == "archive":
            return without_password(self.url) or self.path
        return ", ".join(self.packages) or self.folder


def without_password(text: str) -> str:
    """Return a text whose URLs do not tell who asks with which password."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)


def parse(value: Any) -> Source:
    """Return the source that an inventory states; raises SourceError with all that is wrong."""
    if isinstance(value, str) and value:
        return Source("directory", folder=value)
    if not isinstance(value, Mapping):
        raise SourceError(
            "the source must be a folder on the controller, or a mapping with one of the keys "
            f"{', '.join(KINDS)}"
        )
    wrong: list[str] = []
    # Beside a package a folder of files is no other kind.
    given = [key for key in KINDS if key in value]
    kinds = [key for key in given if not (key == "directory" and "package" in given)]
    known = {*KINDS, "files", "requirements"}
    wrong += [f"it has the unknown key {key}" for key in sorted(map(str, set(value) - known))]
    if len(kinds) != 1:
        raise SourceError(
            "; ".join(
                [f"it must have one of the keys {', '.join(KINDS)}, not {len(kinds)}", *wrong]
            )
        )
    kind = kinds[0]
    if "requirements" in value and kind != "package":
        wrong.append("requirements belong to a package")
    fields = _details(kind, value, wrong)
    source = Source(kind, files=_files(value.get("files") or {}, wrong), **fields)
    wrong += _WRONG[kind](source)
    if wrong:
        raise SourceError("; ".join(wrong))
    return source


def _details(kind: str, value: Mapping[str, Any], wrong: list[str]) -> dict[str, Any]:
    """Return the fields of a kind, and note keys that it does not have."""
    stated = value[kind]
    if kind == "package":
        more = value.get("requirements") or []
        packages = [stated, *([more] if isinstance(more, str) else more)]
        return {
            "packages": tuple(str(package).strip() for package in packages),
            "folder": str(value.get("directory") or ""),
        }
    if kind == "directory":
        return {"folder": str(stated or "")}
    if isinstance(stated, str):
        stated = {("repository" if kind == "git" else "path"): stated}
    if not isinstance(stated, Mapping):
        wrong.append(f"{kind} must be a mapping with {', '.join(_KEYS[kind])}")
        return {}
    wrong += [
        f"{kind} has the unknown key {key}, it knows {', '.join(_KEYS[kind])}"
        for key in sorted(map(str, set(stated) - set(_KEYS[kind])))
    ]
    found = {key: str(stated.get(key) or "") for key in _KEYS[kind]}
    found["folder"] = found.pop("directory")
    return found


def _files(stated: Any, wrong: list[str]) -> dict[str, str]:
    if not isinstance(stated, Mapping):
        wrong.append("files must be a mapping of paths to texts")
        return {}
    for path, text in stated.items():
        if not inside(str(path)):
            wrong.append(f"files: {path} is no path inside the release")
        if not isinstance(text, str):
            wrong.append(f"files: {path} must be a text")
    return {str(path): str(text) for path, text in stated.items()}


def inside(path: str) -> bool:
    """Tell whether a path stays inside the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def _wrong_directory(source: Source) -> list[str]:
    return [] if source.folder else ["directory is empty: name the folder of the application"]


def _wrong_git(source: Source) -> list[str]:
    wrong = []
    if not source.repository or source.repository.startswith("-"):
        wrong.append("git.repository is missing: a URL, or a path on the controller")
    if source.version and not _REFERENCE.fullmatch(source.version):
        wrong.append(f"git.version '{source.version}' is no branch, no tag and no commit")
    if source.folder and not inside(source.folder):
        wrong.append(f"git.directory '{source.folder}' leads out of the repository")
    return wrong


def _wrong_archive(source: Source) -> list[str]:
    wrong = []
    if bool(source.url) == bool(source.path):
        wrong.append("archive needs either a path on the controller or a url")
    if source.url and not re.match(r"https?://", source.url):
        wrong.append(f"archive.url '{without_password(source.url)}' is not http or https")
    if source.url and not source.checksum:
        wrong.append("archive.checksum is missing: sha256: and what sha256sum says of the file")
    if source.checksum and not _CHECKSUM.fullmatch(source.checksum):
        wrong.append(f"archive.checksum '{source.checksum}' is not sha256: and 64 digits")
    if source.folder and not inside(source.folder):
        wrong.append(f"archive.directory '{source.folder}' leads out of the archive")
    return wrong


def _wrong_package(source: Source) -> list[str]:
    first = source.packages[0]
    if not (_PYTHON.fullmatch(first) or _NODE.fullmatch(first)):
        return [
            f"package '{first}' must name one version, such as 'kinto[postgresql]==24.0.0' "
            "(Python) or 'unleash-server@7.4.1' (npm)"
        ]
    if source.is_python:
        return []
    return [
        f"requirements: '{package}' must name one version, such as 'pg@8.20.0'"
        for package in source.packages
        if not _NODE.fullmatch(package)
    ]


_WRONG = {
    "directory": _wrong_directory,
    "git": _wrong_git,
    "archive": _wrong_archive,
    "package": _wrong_package,
}


def package_files(source: Source) -> dict[str, str]:
    """Return what stands for the code of a package: a list of what its profile shall install."""
    if not source.packages:
        return {}
    if source.is_python:
        return {"requirements.txt": "".join(f"{package}\n" for package in source.packages)}
    wanted = [match for package in source.packages if (match := _NODE.fullmatch(package))]
    described = {
        "name": "release",
        "private": True,
        "dependencies": {match["name"]: match["v"] for match in wanted},
    }
    return {"package.json": json.dumps(described, indent=2) + "\n"}


def label(source: Source, identity: str) -> str:
    """Return the part of a release's name that people know: the commit, or the version."""
    if source.kind == "git":
        return identity[:12]
    if source.kind == "package":
        match = _PYTHON.fullmatch(source.packages[0]) or _NODE.fullmatch(source.packages[0])
        version = match["v"] if match else ""
        return re.sub(r"[^A-Za-z0-9.]", "-", version)[:40]
    return ""


def digest(
    source: Source, identity: str, exclude: Sequence[str] = (), recipe: Sequence[str] = ()
) -> str:
    """Return the SHA-256 (hexadecimal) of a source that has a name of its own, and of its recipe.

    `identity` is the commit, or the checksum of the archive: the same as knowing every file.
    """
    whole = [source.kind, identity, source.folder, sorted(source.files.items())]
    return hashlib.sha256(json.dumps([*whole, [*exclude], [*recipe]]).encode()).hexdigest()


# --- What an inventory says of the whole application ------------------------------------------

_WORKER = re.compile(r"[a-z][a-z0-9-]{0,20}")
_PROVIDED = (
    *("CACHE_URL", "SESSION_URL", "SECRET_KEY", "SECRET_KEY_FALLBACKS"),
    *("DATABASE_URL", "DATABASE_READ_URL"),
    *("PGDATABASE", "PGHOST", "PGPASSWORD", "PGPORT", "PGUSER"),
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SETTINGS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "source": (str, Mapping),
    "profile": str,
    "exclude": list,
    "build": list,
    "build_environment": Mapping,
    "migrate": str,
    "start": str,
    "callable": str,
    "listen": str,
    "path": list,
    "packages": list,
    "health_path": str,
    "health_timeout": int,
    "static_dir": str,
    "environment": Mapping,
    "environment_from": Mapping,
    "secret_environment": Mapping,
    "workers": Mapping,
}
WORKER_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "command": str,
    "processes": int,
    "stop_timeout": int,
    "memory_max": str,
}


def provided(functions: Sequence[str]) -> list[str]:
    """Return the names of what playbooks/vars/roles.yml gives to every application."""
    return sorted([*_PROVIDED, *(f"DATABASE_URL_{function.upper()}" for function in functions)])


def problems(application: Any, functions: Sequence[str] = ("main",)) -> list[str]:
    """Return a sentence for each mistake in `ascent_application` that the disk need not show.

    Its name, its health path and unknown keys are looked at with the rest of the inventory.
    `functions` are the names of its functions, each of which has a database.
    """
    if not isinstance(application, Mapping):
        return []  # that is told by whoever looks at the whole inventory
    found = _types(application, SETTINGS, "ascent_application")
    profile = application.get("profile", "python_wsgi")
    if profile not in _PROFILES:
        found.append(f"ascent_application.profile '{profile}' is none of {', '.join(_PROFILES)}")
    if application.get("listen", "socket") not in ("socket", "port"):
        found.append("ascent_application.listen must be socket or port")
    try:
        source = parse(application.get("source"))
    except SourceError as error:
        found.append(f"ascent_application.source: {error}")
    else:
        strange = ("nodejs",) if source.is_python else ("python_wsgi", "python_asgi")
        if source.packages and profile in strange:
            found.append(
                f"ascent_application.source.package '{source.packages[0]}' is not one for the "
                f"profile {profile}"
            )
    if profile == "command" and not application.get("start"):
        found.append("ascent_application.start is missing: the profile command brings none")
    found += _environment_problems(application, provided(functions))
    return found + _worker_problems(application)


def _types(
    stated: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]], where: str
) -> list[str]:
    found = []
    for key, value in stated.items():
        if key not in known:
            # The keys of the whole application are known to the playbooks that read them.
            if known is not SETTINGS:
                found.append(f"{where}.{key} is unknown, it has {', '.join(known)}")
        elif not isinstance(value, known[key]) or (known[key] is int and isinstance(value, bool)):
            wanted = {str: "a text", int: "a number", list: "a list", Mapping: "a mapping"}
            first = known[key]
            words = [wanted[item] for item in (first if isinstance(first, tuple) else (first,))]
            found.append(f"{where}.{key} must be {' or '.join(words)}")
    return found


def _environment_problems(application: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    found: list[str] = []
    seen: dict[str, str] = {}
    for setting in ("environment", "environment_from", "secret_environment"):
        stated = application.get(setting)
        for name in stated if isinstance(stated, Mapping) else ():
            if not _VARIABLE.fullmatch(str(name)):
                found.append(f"ascent_application.{setting}: '{name}' is no name for a variable")
            if name in seen:
                found.append(
                    f"ascent_application.{setting}.{name} is in {seen[name]}, too: give it once"
                )
            seen[name] = setting
    copied = application.get("environment_from")
    for name, origin in (copied if isinstance(copied, Mapping) else {}).items():
        if origin not in known:
            found.append(
                f"ascent_application.environment_from.{name}: there is no variable {origin}, but "
                f"{', '.join(known)}"
            )
    return found


def _worker_problems(application: Mapping[str, Any]) -> list[str]:
    workers = application.get("workers")
    found = []
    for name, worker in (workers if isinstance(workers, Mapping) else {}).items():
        where = f"ascent_application.workers.{name}"
        if not _WORKER.fullmatch(str(name)):
            found.append(f"{where}: a worker's name is 1 to 21 of a-z, 0-9 and dashes")
        if not isinstance(worker, Mapping):
            found.append(f"{where} must be a mapping with command and processes")
            continue
        found += _types(worker, WORKER_SETTINGS, where)
        if not worker.get("command"):
            found.append(f"{where}.command is missing")
        processes = worker.get("processes", 1)
        if isinstance(processes, int) and not 0 <= processes <= 64:
            found.append(f"{where}.processes must be 0 to 64")
    return found
