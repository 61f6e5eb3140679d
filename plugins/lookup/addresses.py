# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addresses that names lead to, as this machine sees them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: addresses
short_description: The addresses that names lead to, as this machine sees them
version_added: 0.1.0
description:
  - Asks the system's resolver of the controller. A name that leads nowhere has no addresses, and so
    has any name while no name server can be asked.
options:
  _terms:
    description: Names.
    type: list
    elements: str
    required: true
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Show where a name leads
  ansible.builtin.debug:
    msg: "{{ query('ascent.scaling.addresses', 'shop.example.com') }}"
"""

RETURN = r"""
_raw:
  description: The IPv4 and IPv6 addresses, sorted, none twice.
  type: list
  elements: str
"""

import socket
from typing import Any

from ansible.plugins.lookup import LookupBase


def addresses(name: str) -> list[str]:
    """Return the addresses of a name, none when it leads nowhere."""
    # The dot at the end: the name as it stands, without the machine's search list. A hosts file
    # knows no such dot.
    for asked in (f"{name.rstrip('.')}.", name.rstrip(".")):
        try:
            found = socket.getaddrinfo(asked, 443, type=socket.SOCK_STREAM)
        except OSError:
            continue
        break
    else:
        return []
    return sorted({str(item[4][0]) for item in found})


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        return sorted({address for name in terms for address in addresses(str(name))})
