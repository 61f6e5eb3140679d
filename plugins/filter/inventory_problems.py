# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name what is wrong with an inventory's settings."""

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory_problems
short_description: Name what is wrong with an inventory's settings
version_added: 0.1.0
description:
  - Looks at the settings of an environment all at once and returns a sentence for each mistake, so
    that a user corrects them in one go, before anything is asked of AWS.
options:
  _input:
    description:
      - The settings without the prefix C(ascent_) - environment, region, zones, domain,
        domain_aliases, dns_zone, vpc_cidr, operator_cidrs, functions, application.
    type: dict
    required: true
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Refuse a broken inventory
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems }}"
  vars:
    settings: {environment: Shop, region: us-east-1}
    problems: "{{ settings | ascent.scaling.inventory_problems }}"
"""

RETURN = r"""
_value:
  description: A sentence for each mistake, empty when there is none.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils.environment import problems


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"inventory_problems": problems}
