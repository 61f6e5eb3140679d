# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that name the two sides of a move, for every module that works on them."""

from __future__ import annotations

from typing import Any


def side_options() -> dict[str, Any]:
    """The suboptions of a side, as AnsibleModule wants them (doc_fragments/database_sides)."""
    return {
        "name": {"type": "str", "required": True},
        "host": {"type": "str", "required": True},
        "port": {"type": "int", "default": 5432},
        "database": {"type": "str", "required": True},
        "user": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "replication_user": {"type": "str", "required": True},
        "replication_password": {"type": "str", "required": True, "no_log": True},
        "sslmode": {
            "type": "str",
            "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
            "default": "require",
        },
        "sslrootcert": {"type": "path"},
        "replication_sslrootcert": {"type": "path"},
    }
