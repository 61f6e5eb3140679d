# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the databases that are to be moved."""

from __future__ import annotations

DOCUMENTATION = r"""
name: database_moves
short_description: Name the databases that are to be moved
version_added: 0.1.0
description:
  - Joins where the poolers lead with where a stage wants the databases, and returns what is left to
    move, or is being moved.
options:
  _input:
    description: The environment's functions by name, each with C(database) and C(role).
    type: dict
    required: true
  poolers:
    description:
      - By host, what its pooler leads to (C(servers), by alias, with C(host), C(port), C(database))
        and what its guard knows (C(moves), by database, with C(aliases), C(origin), C(other),
        C(sides)).
    type: dict
    required: true
  wanted:
    description:
      - Where the databases shall be - C(name), C(host), C(port). Empty asks for begun moves alone.
    type: dict
    required: true
  addresses:
    description: Private addresses of the hosts by name.
    type: dict
    required: true
  managed:
    description: The names that managed servers are reached at, by name.
    type: dict
    default: {}
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Say what is to be moved
  ansible.builtin.debug:
    msg: "{{ functions | ascent.scaling.database_moves(poolers, wanted, addresses) }}"
  vars:
    functions: {main: {database: shop, role: shop}}
    poolers: {box: {servers: {main: {host: 127.0.0.1, port: 5432, database: shop}}, moves: {}}}
    wanted: {name: database, host: 10.42.0.9, port: 5432}
    addresses: {box: 10.42.0.4, database: 10.42.0.9}
"""

RETURN = r"""
_value:
  description:
    - For each database that is not where it is wanted, or whose move is not finished - C(database),
      C(aliases), C(roles), C(origin), C(other), C(at), C(state), C(described), C(finished).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.ascent.scaling.plugins.module_utils._motion import route


def database_moves(
    functions: dict[str, dict[str, Any]],
    poolers: dict[str, dict[str, Any]],
    wanted: dict[str, Any],
    addresses: dict[str, str],
    managed: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """What is to be moved; raises AnsibleFilterError where the poolers do not fit together."""
    try:
        found: list[dict[str, Any]] = route.moves(functions, poolers, wanted, addresses, managed)
    except route.RouteError as error:
        raise AnsibleFilterError(f"{error}. Nothing was changed.") from error
    return found


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"database_moves": database_moves}
