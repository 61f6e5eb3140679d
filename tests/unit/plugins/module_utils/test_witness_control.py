"""Where the witness gets its databases' URLs from, on the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._witness import control

DATABASE = {"name": "main", "variable": "DATABASE_URL"}


def test_an_environment_file_is_read_as_systemd_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text(
        "# a comment\n"
        "PLAIN=one two\n"
        "SINGLE='a\\b'\n"
        r'DOUBLE="a\"b\\c\$d\`e\f"' + "\n"
        "no equals sign\n"
    )
    assert control.read_environment(str(file)) == {
        "PLAIN": "one two",
        "SINGLE": r"a\b",
        "DOUBLE": r'a"b\c$d`e\f',
    }


def test_a_database_of_an_application_that_is_not_there_yet_is_told_apart(tmp_path: Path) -> None:
    """The host of a killed first run: it stands, and nothing was deployed to it."""
    with pytest.raises(control.NotThereYet, match="database main"):
        control.resolve([{**DATABASE, "environment_file": str(tmp_path / "absent")}])


def test_a_variable_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text("OTHER=1\n")
    with pytest.raises(control.WitnessError, match="does not set DATABASE_URL") as error:
        control.resolve([{**DATABASE, "environment_file": str(file)}])
    assert not isinstance(error.value, control.NotThereYet)
