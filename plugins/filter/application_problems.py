# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name what is wrong with the description of an application."""

from __future__ import annotations

DOCUMENTATION = r"""
name: application_problems
short_description: Name what is wrong with the description of an application
version_added: 0.2.0
description:
  - Looks at source, profile, environment and workers of C(ascent_application) and returns a
    sentence for each mistake, before anything is changed.
  - A folder or an archive on the controller is looked for; repositories, URLs and indexes are not
    asked.
options:
  _input:
    description: The application as the inventory states it, see docs/application.md.
    type: dict
    required: true
  functions:
    description: Names of the application's functions, each of which has a database.
    type: list
    elements: str
    default: [main]
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Refuse an application that cannot be deployed
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems }}"
  vars:
    application: {name: shop, source: {git: {repository: https://git.example.com/shop.git}}}
    problems: "{{ application | ascent.scaling.application_problems(['main']) }}"
"""

RETURN = r"""
_value:
  description: A sentence for each mistake, empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._release.source import (
    SourceError,
    parse,
    problems,
)


def application_problems(application: Any, functions: list[str] | None = None) -> list[str]:
    """Return the mistakes, those on the controller's disk included."""
    found: list[str] = problems(application, functions or ["main"])
    try:
        source = parse(application["source"])
    except (SourceError, KeyError, TypeError):
        return found
    where = "ascent_application.source"
    if source.kind in ("directory", "package") and source.folder:
        folder = Path(source.folder).expanduser()
        if not folder.is_dir():
            found.append(f"{where} '{folder}' is not a directory on the controller")
    if source.path and not Path(source.path).expanduser().is_file():
        found.append(f"{where}: the archive {source.path} is not a file on the controller")
    return found


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"application_problems": application_problems}
