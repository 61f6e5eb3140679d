"""Moments as people write them."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ascent.scaling.plugins.filter.moment import moment


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2026-11-23 10:00:00+00", "2026-11-23 10:00:00.000000+00"),
        ("2026-11-23T10:00:00Z", "2026-11-23 10:00:00.000000+00"),
        ("2026-11-23 10:00 UTC", "2026-11-23 10:00:00.000000+00"),
        ("2026-11-23 10:00:00.25+01", "2026-11-23 09:00:00.250000+00"),
        ("2026-11-23 00:30:00+05:30", "2026-11-22 19:00:00.000000+00"),
        ("2026-11-23 20:00:00 -0330", "2026-11-23 23:30:00.000000+00"),
    ],
)
def test_a_moment_is_read(written: str, text: str) -> None:
    assert moment(written)["text"] == text


def test_seconds_since_1970() -> None:
    assert moment("1970-01-01 01:00:00.5+01")["epoch"] == 0.5


@pytest.mark.parametrize(
    "written",
    ["", "now", "yesterday", "2026-11-23", "2026-11-23 10:00:00", "2026-13-01 00:00:00+00",
     "2026-02-30 00:00:00+00", "2026-11-23 25:00:00+00", "23.11.2026 10:00:00+00",
     "2026-11-23 10:00:00 Europe/Berlin", "2026-11-23 10:00:00+99"],
)  # fmt: skip
def test_what_is_no_moment_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"such as 2026-11-23T10:00:00\+00"):
        moment(written)
