# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the variables that look like settings of Ascent and are none."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unknown_settings
short_description: Name the variables that look like settings of Ascent and are none
version_added: 0.1.0
description:
  - A variable that begins like a setting of one of the collection's roles, and that no role and no
    playbook reads, is most likely a typing error. For each, a sentence says which was meant.
  - What is known comes from the roles' argument specs and from the playbooks themselves.
  - Variables without the prefix of a role are the user's own and never named.
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
  settings:
    description: Settings that are maps, by name, whose keys are looked at as well.
    type: dict
    default: {}
  own:
    description: Patterns of names that begin like a role's, and are the user's nevertheless.
    type: list
    elements: str
    default: []
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Refuse typing errors
  ansible.builtin.assert:
    that: errors | length == 0
    fail_msg: "{{ errors }}"
  vars:
    names: "{{ hostvars['localhost'] | list }}"
    errors: "{{ names | ascent.scaling.unknown_settings(own=['web_team*']) }}"
"""

RETURN = r"""
_value:
  description: A sentence for each, empty when there is none.
  type: list
  elements: str
  sample: ["web_helth_path is no setting of Ascent; did you mean web_health_path?"]
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ascent.scaling.plugins.module_utils.fleet import HostVars
from ansible_collections.ascent.scaling.plugins.module_utils.settings import (
    Known,
    identifiers,
    members,
    unknown,
)

COLLECTION = Path(__file__).resolve().parents[2]
# Maps whose keys are the collection's own; those of other maps are names that the user gives.
MAPS = ("ascent_application", "ascent_witness", "ascent_sizes", "ascent_disks", "ascent_images")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def known(collection: Path = COLLECTION) -> Known:
    """Read what the collection in that folder knows."""
    options: dict[str, set[str]] = {}
    for spec in sorted(collection.glob("roles/*/meta/argument_specs.yml")):
        content = yaml.load(spec.read_text(encoding="utf-8"), LOADER)  # noqa: S506 - a safe one
        options[spec.parts[-3]] = {
            name
            for entry in content["argument_specs"].values()
            for name in entry.get("options") or {}
        }
    playbooks = sorted((collection / "playbooks").rglob("*.yml"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in playbooks)
    return Known(
        options=options,
        internal=identifiers(text, options) | set(HostVars.__annotations__),
        keys={setting: members(text, setting) for setting in MAPS},
    )


def unknown_settings(
    names: list[str], settings: dict[str, Any] | None = None, own: list[str] | None = None
) -> list[str]:
    """Return a sentence for each name that is none of the collection's."""
    errors: list[str] = unknown(names, settings or {}, own or [], known())
    return errors


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"unknown_settings": unknown_settings}
