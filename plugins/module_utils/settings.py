# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typing errors in the names of settings (pure)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

# How alike two names must be for one to be a typing error of the other (difflib's ratio).
ALIKE = 0.75


@dataclass(frozen=True)
class Known:
    """The names that the collection knows.

    options: by role, what a user may set. internal: what playbooks use among themselves, and what
    the command line of an operation takes. keys: of settings that are maps with keys of our own.
    """

    options: dict[str, set[str]] = field(default_factory=dict)
    internal: set[str] = field(default_factory=set)
    keys: dict[str, set[str]] = field(default_factory=dict)

    def role(self, name: str) -> str | None:
        """Return the role whose prefix a variable bears: the longest, None without one."""
        fitting = [role for role in self.options if name.startswith(f"{role}_")]
        return max(fitting, key=len) if fitting else None


def identifiers(text: str, roles: Iterable[str]) -> set[str]:
    """Return the variables with a role's prefix that a playbook's text speaks of."""
    prefixes = "|".join(sorted(map(re.escape, roles), key=len, reverse=True))
    return set(re.findall(rf"(?<![\w.])(?:{prefixes})_\w+", text))


def members(text: str, setting: str) -> set[str]:
    """Return the keys of a map that a playbook's text asks for."""
    return {
        found[0] or found[1]
        for found in re.findall(rf"\b{setting}(?:\.([a-z_]\w*)\b(?!\()|\[['\"](\w+)['\"]\])", text)
    }


def meant(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` is most likely a typing error of, None without one."""
    close = difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=ALIKE)
    return close[0] if close else None


def unknown(
    names: Iterable[str], settings: dict[str, Any], own: Iterable[str], known: Known
) -> list[str]:
    """Return a sentence for each variable, and each key of a map, that nothing reads.

    names: all variables of the inventory and the command line; those without a role's prefix are
    the user's. settings: the maps to look into. own: patterns of names with a role's prefix that
    are the user's nevertheless.
    """
    patterns = list(own)
    everything = {name for options in known.options.values() for name in options}
    found = []
    for name in sorted(set(names) - everything - known.internal):
        role = known.role(name)
        if role is None or any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        close = meant(name, known.options[role]) or meant(name, everything | known.internal)
        found.append(
            f"{name} is no setting of Ascent"
            + (f"; did you mean {close}?" if close else f" (role {role} has none like it).")
        )
    for setting, value in sorted(settings.items()):
        keys = known.keys.get(setting)
        if not keys or not isinstance(value, dict):
            continue
        for key in sorted(set(map(str, value)) - keys):
            close = meant(key, keys)
            hint = f"did you mean {close}?" if close else f"it may have {', '.join(sorted(keys))}."
            found.append(f"{setting}.{key} is nothing that Ascent reads; {hint}")
    return found
