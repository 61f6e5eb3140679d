"""What an instance is made of, as text."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.instance import (
    InstanceError,
    check_environment,
    checksum,
    describe_change,
    parse_environment,
    render_environment,
    render_start,
    secrets_within,
)

AWKWARD = {
    "PLAIN": "value",
    "EMPTY": "",
    "SPACES": " a  b ",
    "QUOTES": """it's "quoted\"""",
    "DOLLAR": "$HOME ${HOME} $(id) `id`",
    "BACKSLASH": "a\\b\\\\c\\n\\",
    "LINES": "one\ntwo\n",
    "HASH": "# no comment ; none",
    "URL": "postgresql://shop:p%40ss@127.0.0.1:6432/main?x=1&y=2",
    "UMLAUT": "Grüße",
}


def test_an_environment_can_be_read_back() -> None:
    assert parse_environment(render_environment(AWKWARD)) == AWKWARD


def test_a_shell_reads_the_environment_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text(render_environment(AWKWARD), encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", f"set -a; . {path}; exec env -0"], capture_output=True, check=True
    )
    seen = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    assert {key: seen[key] for key in AWKWARD} == AWKWARD


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"1A": "x"}, "not a name"),
        ({"A B": "x"}, "not a name"),
        ({"A": "x\0y"}, "NUL"),
        ({"SOCKET": "/run/x"}, "SOCKET: set for each instance"),
    ],
)
def test_what_cannot_be_an_environment(values: dict[str, str], message: str) -> None:
    with pytest.raises(InstanceError, match=message):
        check_environment(values)


def test_the_start_command_replaces_its_shell(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "server").write_text('#!/bin/sh\necho "$$ $1"\n')
    (tmp_path / "bin" / "server").chmod(0o755)
    script = tmp_path / "start"
    script.write_text(render_start("server --bind=$SOCKET", ["bin"], str(tmp_path)))
    process = subprocess.Popen(
        ["sh", str(script)], env={"SOCKET": "/run/x.sock", "PATH": "/usr/bin:/bin"}, stdout=-1
    )
    output, _ = process.communicate()
    assert output.decode().split() == [str(process.pid), "--bind=/run/x.sock"]


def test_every_part_tells_instances_apart() -> None:
    sums = {
        checksum({"A": "1"}, "run", ["bin"], "unit"),
        checksum({"A": "2"}, "run", ["bin"], "unit"),
        checksum({"A": "1"}, "go", ["bin"], "unit"),
        checksum({"A": "1"}, "run", [], "unit"),
        checksum({"A": "1"}, "run", ["bin"], "other"),
    }
    assert len(sums) == 5


def test_the_order_of_variables_does_not() -> None:
    one = checksum({"A": "1", "B": "2"}, "run", [], "")
    assert one == checksum({"B": "2", "A": "1"}, "run", [], "")


def test_a_diff_tells_that_a_secret_changes_and_nothing_of_it() -> None:
    before, after = describe_change(
        {"COLOUR": "red", "KEY": "old secret", "SAME": "s"},
        {"COLOUR": "blue", "KEY": "new secret", "SAME": "s"},
        {"KEY", "SAME"},
    )
    assert before == {"COLOUR": "red", "KEY": "(secret, before)", "SAME": "(secret)"}
    assert after == {"COLOUR": "blue", "KEY": "(secret, changed)", "SAME": "(secret)"}


def test_passwords_within_urls_are_secrets_of_their_own() -> None:
    found = secrets_within(
        {"DATABASE_URL": "postgresql://shop:p%40ss@h/main", "KEY": "k", "NO": ""}
    )
    assert found == {"postgresql://shop:p%40ss@h/main", "p%40ss", "p@ss", "k"}
