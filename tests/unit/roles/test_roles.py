"""Every role: its defaults and its argument spec say the same, and its README comes from them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "meta").is_dir())
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "raw": (object,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}

every_role = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of all entry points; one that several have is the same in each."""
    found: dict[str, dict[str, Any]] = {}
    for entry in load(role / "meta" / "argument_specs.yml")["argument_specs"].values():
        for name, option in (entry.get("options") or {}).items():
            assert found.setdefault(name, option)["type"] == option["type"]
    return found


def defaults(role: Path) -> dict[str, Any]:
    return load(role / "defaults" / "main.yml") or {}


@every_role
def test_defaults_and_specification_name_the_same(role):
    specified = {name for name, option in options(role).items() if "default" in option}
    assert set(defaults(role)) == specified


@every_role
def test_defaults_and_specification_have_the_same_values(role):
    specified = {
        name: option["default"] for name, option in options(role).items() if "default" in option
    }
    assert defaults(role) == specified


@every_role
def test_defaults_have_the_specified_type(role):
    for name, value in defaults(role).items():
        kind = options(role)[name]["type"]
        # What is computed has the type that its expression gives.
        if isinstance(value, str) and "{{" in value:
            continue
        assert isinstance(value, TYPES[kind]), f"{name}: {value!r} is no {kind}"
        if kind in ("int", "float"):
            assert not isinstance(value, bool), name


@every_role
def test_inputs_have_the_roles_prefix_and_a_description(role):
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_"), name
        assert option.get("description"), name
        assert "default" in option or option.get("required") or option["type"] != "bool", name


@every_role
def test_every_default_has_a_sentence_and_an_example(role):
    """Each is preceded by a comment: sentences, then the same variable with another value."""
    path = role / "defaults" / "main.yml"
    comment: list[str] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
        elif match := re.match(r"[a-z_0-9]+(?=:)", line):
            text = " ".join(comment)
            assert re.match(r"[A-Z`].*[.:]( |$)", text), f"{match[0]}: no sentence before it"
            assert f"{match[0]}: " in f"{text} ", f"{match[0]}: no example before it"
        elif not line.strip():
            comment = []


@every_role
def test_the_readme_is_what_the_generator_makes(role, tmp_path):
    made = tmp_path / "README.md"
    subprocess.run(
        [ROOT / "tools" / "role_readmes", "--output", made, role.name],
        check=True,
        capture_output=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    readme = role / "README.md"
    assert readme.exists(), "missing: run make docs"
    assert readme.read_text() == made.read_text(), "out of date: run make docs"
