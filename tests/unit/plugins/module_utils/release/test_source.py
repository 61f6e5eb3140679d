"""What an inventory may say of an application's source, and what it is told when it errs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.source import (
    SETTINGS,
    Source,
    SourceError,
    digest,
    label,
    package_files,
    parse,
    problems,
)

SHA = "sha256:" + "0" * 64
COMMIT = "ab" * 20


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("/src/app", Source("directory", folder="/src/app")),
        ({"directory": "/src/app"}, Source("directory", folder="/src/app")),
        (
            {"git": {"repository": "git@example.com:a.git", "version": "v1", "directory": "web"}},
            Source("git", repository="git@example.com:a.git", version="v1", folder="web"),
        ),
        ({"git": "https://example.com/a"}, Source("git", repository="https://example.com/a")),
        ({"archive": "/src/a.tar.gz"}, Source("archive", path="/src/a.tar.gz")),
        (
            {"archive": {"url": "https://example.com/a.zip", "checksum": SHA}},
            Source("archive", url="https://example.com/a.zip", checksum=SHA),
        ),
        (
            {
                "package": "kinto[postgresql]==24.0.0",
                "requirements": ["gunicorn"],
                "files": {"a/b.ini": "x"},
            },
            Source(
                "package",
                packages=("kinto[postgresql]==24.0.0", "gunicorn"),
                files={"a/b.ini": "x"},
            ),
        ),
        (
            {"package": "@scope/name@1.2.3-rc.1", "directory": "/src/files"},
            Source("package", packages=("@scope/name@1.2.3-rc.1",), folder="/src/files"),
        ),
    ],
)
def test_what_is_understood(stated: Any, expected: Source) -> None:
    assert parse(stated) == expected


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (None, ["a folder on the controller, or a mapping", "git"]),
        ("", ["a folder on the controller"]),
        ({}, ["one of the keys directory, git, archive, package, not 0"]),
        ({"git": "a", "archive": "b"}, ["not 2"]),
        ({"gti": {}}, ["not 0", "unknown key gti"]),
        ({"git": {"version": "v1"}}, ["git.repository is missing"]),
        ({"git": {"repository": "a", "branch": "b"}}, ["unknown key branch", "version"]),
        ({"git": {"repository": "--upload-pack=x"}}, ["git.repository is missing"]),
        ({"git": {"repository": "a", "version": "--x"}}, ["'--x' is no branch"]),
        ({"git": {"repository": "a", "directory": "../b"}}, ["leads out of the repository"]),
        ({"archive": {"url": "https://example.com/a"}}, ["checksum is missing", "sha256sum"]),
        ({"archive": {"url": "ftp://a:pass@b/c", "checksum": SHA}}, ["ftp://***@b/c"]),
        ({"archive": {"path": "a", "checksum": "md5:1"}}, ["'md5:1' is not sha256:"]),
        ({"archive": {"path": "a", "url": "https://b"}}, ["either a path"]),
        ({"package": "kinto"}, ["'kinto' must name one version", "kinto[postgresql]==24.0.0"]),
        ({"package": "kinto>=24"}, ["must name one version"]),
        ({"package": "unleash-server@latest"}, ["must name one version"]),
        ({"package": "a@1.0.0", "requirements": ["pg"]}, ["requirements: 'pg'"]),
        ({"git": "a", "requirements": ["pg"]}, ["requirements belong to a package"]),
        ({"directory": "a", "files": {"../b": "x"}}, ["../b is no path inside"]),
        ({"directory": "a", "files": {"/b": "x", "c": 1}}, ["/b is no path", "c must be a text"]),
        ({"directory": "a", "files": ["b"]}, ["files must be a mapping"]),
    ],
)
def test_what_is_refused(stated: Any, words: list[str]) -> None:
    with pytest.raises(SourceError) as error:
        parse(stated)
    for word in words:
        assert word in str(error.value)


def test_a_package_becomes_what_its_profile_installs() -> None:
    python = parse({"package": "kinto[postgresql]==24.0.0", "requirements": ["gunicorn==27.0.1"]})
    assert package_files(python) == {
        "requirements.txt": "kinto[postgresql]==24.0.0\ngunicorn==27.0.1\n"
    }
    node = parse({"package": "@unleash/proxy@1.2.3", "requirements": ["pg@8.20.0"]})
    described = json.loads(package_files(node)["package.json"])
    assert described["dependencies"] == {"@unleash/proxy": "1.2.3", "pg": "8.20.0"}
    assert package_files(parse("/src/app")) == {}


def test_a_release_is_labelled_with_what_people_know() -> None:
    assert label(parse({"git": "a"}), COMMIT) == "abababababab"
    assert label(parse({"package": "kinto==24.0.0+local"}), "") == "24.0.0-local"
    assert label(parse("/src/app"), "") == ""


def test_another_commit_recipe_folder_or_file_is_another_release() -> None:
    base = parse({"git": {"repository": "a", "version": "v1"}})
    known = {
        digest(base, COMMIT),
        digest(base, "cd" * 20),
        digest(base, COMMIT, ["tests"]),
        digest(base, COMMIT, [], ["make"]),
        digest(parse({"git": {"repository": "a", "directory": "b"}}), COMMIT),
        digest(parse({"git": "a", "files": {"b": "x"}}), COMMIT),
    }
    assert len(known) == 6
    # The branch that leads to a commit is not part of it.
    assert digest(parse({"git": {"repository": "a", "version": "v2"}}), COMMIT) in known


def test_a_sound_application_has_no_problems() -> None:
    application = {
        "name": "shop",
        "source": "/src",
        "environment": {"LOG_LEVEL": "info"},
        "environment_from": {"STORE_URL": "DATABASE_URL_USERS", "DB_HOST": "PGHOST"},
        "secret_environment": {"TOKEN": "x"},
        "workers": {"mailer": {"command": "python -m shop.mail", "processes": 2}},
    }
    assert set(application) <= set(SETTINGS)
    assert problems(application, ["main", "users"]) == []


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"source": {"git": {}}}, ["ascent_application.source: git.repository is missing"]),
        ({"profile": "rails"}, ["'rails' is none of python_wsgi, python_asgi, nodejs, command"]),
        ({"profile": "command"}, ["ascent_application.start is missing"]),
        ({"listen": "tcp"}, ["must be socket or port"]),
        ({"source": {"package": "a==1"}, "profile": "nodejs"}, ["not one for the profile nodejs"]),
        ({"source": {"package": "a@1.0.0"}}, ["not one for the profile python_wsgi"]),
        ({"source": {"package": "a@1.0.0"}, "profile": "python_asgi"}, ["profile python_asgi"]),
        ({"build": "make"}, ["ascent_application.build must be a list"]),
        ({"health_timeout": True}, ["must be a number"]),
        ({"environment": {"A-B": 1}}, ["environment: 'A-B' is no name"]),
        ({"environment": {"A": 1}, "secret_environment": {"A": 2}}, ["A is in environment, too"]),
        ({"environment_from": {"A": "DATABASE"}}, ["there is no variable DATABASE", "PGHOST"]),
        ({"environment_from": {"A": "DATABASE_URL_USERS"}}, ["no variable DATABASE_URL_USERS"]),
        ({"workers": {"Mailer": {"command": "a"}}}, ["1 to 21 of a-z"]),
        ({"workers": {"mailer": "a"}}, ["must be a mapping with command"]),
        ({"workers": {"mailer": {"processes": 1}}}, ["mailer.command is missing"]),
        ({"workers": {"mailer": {"command": "a", "procs": 1}}}, ["mailer.procs is unknown"]),
        ({"workers": {"mailer": {"command": "a", "processes": 99}}}, ["must be 0 to 64"]),
    ],
)
def test_what_is_wrong_with_an_application_is_told(
    stated: dict[str, Any], words: list[str]
) -> None:
    found = "; ".join(problems({"name": "shop", "source": "/src", **stated}))
    for word in words:
        assert word in found
