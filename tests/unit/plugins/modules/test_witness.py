"""The module's contract: its documentation is its specification, and it refuses what harms."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.ascent.scaling.plugins.module_utils._witness import audit, control
from ansible_collections.ascent.scaling.plugins.modules import witness

FACTS = ("type", "required", "default", "choices", "elements")


def facts(options: dict[str, Any]) -> dict[str, Any]:
    """The comparable part of a specification or a documentation."""
    return {
        name: {
            **{key: option[key] for key in FACTS if key in option},
            **({"options": facts(inner)} if (inner := option.get(kind(option))) else {}),
        }
        for name, option in options.items()
    }


def kind(option: dict[str, Any]) -> str:
    return "suboptions" if "suboptions" in option else "options"


def test_documentation_and_specification_agree() -> None:
    documented = yaml.safe_load(witness.DOCUMENTATION)["options"]
    assert facts(documented) == facts(witness.SPEC)


def test_every_example_uses_documented_options() -> None:
    documented = set(witness.SPEC)
    for task in yaml.safe_load(witness.EXAMPLES):
        assert set(task["ascent.scaling.witness"]) <= documented


def test_the_returned_summary_keys_exist() -> None:
    summary = audit.audit(audit.gather([]), [])["summary"]
    described = yaml.safe_load(witness.RETURN)["summary"]["description"][0]
    for part in described.split("C(")[1:]:
        assert part.split(")")[0] in summary


def test_limits_have_the_audits_defaults() -> None:
    for key, option in witness.LIMITS.items():
        expected = audit.DEFAULT_LIMITS[key]
        assert option["default"] == (-1 if expected is None else expected)


def test_the_program_is_shipped_as_it_is() -> None:
    assert witness.source().startswith("# Copyright")
    compile(witness.source(), "program.py", "exec")


GOOD: dict[str, Any] = {
    "run_id": "run-1",
    "name": "box",
    "state": "started",
    "probe": "http",
    "rate": None,
    "read_rate": 10.0,
    "url": "https://shop.test",
    "requests": [{"path": "/"}],
    "journeys": [],
    "databases": [],
}
DATABASE = {"name": "main", "url": "postgresql://h/d"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_id": "../x"}, "run_id"),
        ({"run_id": "a/b"}, "run_id"),
        ({"name": ""}, "name"),
        ({"rate": 51.0}, "between 0 and 50"),
        ({"rate": -1.0}, "between 0 and 50"),
        ({"journeys": [{"name": "o", "rate": 60.0}]}, "between 0 and 50"),
        ({"url": None}, "needs a url"),
        ({"url": "ftp://x"}, "needs a url"),
        ({"requests": []}, "at least one of requests"),
        ({"probe": "sql"}, "at least one of databases"),
        ({"probe": "sql", "rate": 101.0, "databases": [DATABASE]}, "between 0 and 100"),
        ({"probe": "sql", "read_rate": 101.0, "databases": [DATABASE]}, "between 0 and 100"),
        ({"probe": "sql", "databases": [DATABASE, DATABASE]}, "distinct plain names"),
        ({"journeys": [{"name": "a b", "rate": 1.0}]}, "distinct plain names"),
    ],
)
def test_what_would_harm_or_prove_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    witness.validate(GOOD)
    with pytest.raises(control.WitnessError, match=message):
        witness.validate({**GOOD, **change})


@pytest.mark.parametrize("change", [{}, {"probe": "sql", "read_rate": 0, "databases": [DATABASE]}])
def test_what_is_in_order_is_let_through(change: dict[str, Any]) -> None:
    witness.validate({**GOOD, **change})
