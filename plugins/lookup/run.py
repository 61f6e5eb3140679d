# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which run of Ansible this is."""

from __future__ import annotations

DOCUMENTATION = r"""
name: run
short_description: Say which run of Ansible this is
version_added: 0.1.0
description:
  - Returns the main process of this run of Ansible, so that a lock can name its holder, and a
    later run on the same machine can tell whether that holder still works.
  - It is the same in every play and task of a run.
options: {}
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Show the run
  ansible.builtin.debug:
    msg: "{{ lookup('ascent.scaling.run') }}"
"""

RETURN = r"""
_raw:
  description: One map, with user, host, machine, boot, pid and started.
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.ascent.scaling.plugins.module_utils.process import this_run


class LookupModule(LookupBase):
    """The lookup; its terms are not used."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        return [dict(this_run())]
