# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports of other machines take connections from this one."""

from __future__ import annotations

DOCUMENTATION = r"""
name: open_ports
short_description: Which ports of other machines take connections from this one
version_added: 0.1.0
description:
  - Asks from the controller, for all ports at once. A port that refuses, one that does not answer
    in time, and an address that cannot be reached are all closed.
options:
  _terms:
    description: Addresses with a port, as V(address:port).
    type: list
    elements: str
    required: true
  seconds:
    description: How long an answer may take.
    type: float
    default: 2
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Check that a database answers nobody outside
  ansible.builtin.assert:
    that: query('ascent.scaling.open_ports', '198.51.100.7:5432', '198.51.100.7:6432') | length == 0
"""

RETURN = r"""
_raw:
  description: Those of the terms that take connections, in the terms' order.
  type: list
  elements: str
"""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def answers(address: str, port: int, seconds: float) -> bool:
    """Whether a connection is taken within that time."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except OSError:
        return False
    return True


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        asked = []
        for term in map(str, terms):
            address, _, port = term.rpartition(":")
            if not address or not port.isdecimal():
                raise AnsibleLookupError(f"open_ports takes address:port, not {term!r}")
            asked.append((term, address.strip("[]"), int(port)))
        if not asked:
            return []
        seconds = float(self.get_option("seconds"))
        with ThreadPoolExecutor(min(len(asked), 32)) as pool:
            found = pool.map(lambda one: answers(one[1], one[2], seconds), asked)
            return [term for (term, _, _), is_open in zip(asked, found, strict=True) if is_open]
