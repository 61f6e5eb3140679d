"""The record of a stage."""

from __future__ import annotations

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils.record import next_record

FIRST = next_record({}, 1, {"hosts": ["box"]}, "anna@laptop", "2026-01-01T00:00:00Z")


def test_the_first_record() -> None:
    assert FIRST["stage"] == 1
    assert FIRST["history"] == [{"stage": 1, "recorded": "2026-01-01T00:00:00Z"}]


def test_the_same_again_changes_nothing() -> None:
    assert next_record(FIRST, 1, {"hosts": ["box"]}, "ben@desk", "2027-01-01T00:00:00Z") is FIRST


def test_the_next_stage_joins_the_history() -> None:
    second = next_record(FIRST, 2, {}, "ben@desk", "2027-01-01T00:00:00Z")
    assert [entry["stage"] for entry in second["history"]] == [1, 2]


def test_other_details_are_written_without_a_step_in_the_history() -> None:
    again = next_record(FIRST, 1, {"hosts": ["box", "two"]}, "ben@desk", "2027-01-01T00:00:00Z")
    assert again["details"] == {"hosts": ["box", "two"]}
    assert again["history"] == FIRST["history"]


def test_a_step_down_is_refused() -> None:
    third = next_record(FIRST, 3, {}, "anna", "2027-01-01T00:00:00Z")
    with pytest.raises(ValueError, match="stage 3"):
        next_record(third, 1, {}, "anna", "2027-01-02T00:00:00Z")


def test_stages_begin_with_one() -> None:
    with pytest.raises(ValueError, match="begin with 1"):
        next_record({}, 0, {}, "anna", "2027-01-02T00:00:00Z")
