# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that reads a moment as a person writes it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: moment
author: The Ascent founders (@ascent)
version_added: "0.1.0"
short_description: Read a moment as a person writes it
description:
  - Returns the moment in seconds since 1970, and as PostgreSQL and pgBackRest take it.
  - The offset from UTC must be stated, so that nobody restores to another hour than they meant.
positional: _input
options:
  _input:
    description: Date, time and offset from UTC, such as C(2026-11-23T10:00:00+00).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show a moment
  ansible.builtin.debug:
    msg: "{{ ('2026-11-23 10:00:00+01' | ascent.scaling.moment).text }}"
"""

RETURN = r"""
_value:
  description: The moment as C(epoch), in seconds, and as C(text), in UTC.
  type: dict
  sample: {epoch: 1795424400.0, text: "2026-11-23 09:00:00.000000+00"}
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime

from ansible.errors import AnsibleFilterError

SHAPE = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)"
)


def read(written: str) -> dict[str, float | str]:
    """Return epoch and text of a moment. Raises ValueError."""
    match = SHAPE.fullmatch(written.strip())
    if match is None:
        raise ValueError("the offset from UTC is missing, or the form is another")
    day, clock, zone = match.groups()
    offset = "+00:00" if zone in ("Z", "UTC") else f"{zone[:3]}:{zone[3:].lstrip(':') or '00'}"
    clock, _, fraction = clock.partition(".")
    clock = clock if clock.count(":") == 2 else f"{clock}:00"
    found = datetime.fromisoformat(f"{day}T{clock}.{fraction:0<6}{offset}").astimezone(UTC)
    return {"epoch": found.timestamp(), "text": found.strftime("%Y-%m-%d %H:%M:%S.%f+00")}


def moment(written: str) -> dict[str, float | str]:
    """Return :func:`read` of what Ansible's templates hand over, with errors as it expects."""
    try:
        return read(str(written))
    except ValueError as error:
        raise AnsibleFilterError(
            f"'{written}' is no moment ({error}). Write date, time and offset from UTC, such as "
            "2026-11-23T10:00:00+00."
        ) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"moment": moment}
