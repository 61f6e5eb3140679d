#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the schema of a database that is being moved."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_change
short_description: Change the schema of a database that is being moved
version_added: 0.1.0
description:
  - While a database is moved (M(ascent.scaling.database_move)), its schema is frozen on both sides,
    because replication carries rows and no definitions. This runs statements on both, each once, in
    the order that keeps the one side following the other.
  - On each side all of the statements take effect, or none. Which of them were run is noted there,
    so that a run that was killed is ended by the next one with the same statements.
  - A lock that is not given within a fifth of a second is asked for again, up to 50 times, so that
    the application does not queue up behind it.
options:
  origin:
    required: true
  other:
    required: true
  statements:
    description:
      - SQL, as many statements as are needed. They run in a transaction, so those that cannot, such
        as V(CREATE INDEX CONCURRENTLY), are refused by PostgreSQL.
    type: str
    required: true
  role:
    description: The role that they run as, and that owns what they make.
    type: str
    required: true
  takes_away:
    description:
      - Whether they take something away, such as a column or a table. Then the side with the data
        is changed first; else the side that follows it.
    type: bool
    default: false
attributes:
  check_mode:
    description: Tells which side would be changed.
    support: full
  diff_mode:
    description: The statements are what changes.
    support: none
requirements: [psycopg 3]
extends_documentation_fragment: [ascent.scaling.database_sides]
seealso:
  - module: ascent.scaling.database_move
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Give orders a note while the shop's database is being moved
  ascent.scaling.database_change:
    origin: "{{ box }}"
    other: "{{ database }}"
    role: shop
    statements: ALTER TABLE orders ADD COLUMN note text NOT NULL DEFAULT ''
"""

RETURN = r"""
steps:
  description: What was done, side by side; in check mode what would be.
  returned: success
  type: list
  elements: str
"""

import traceback

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ascent.scaling.plugins.module_utils._motion.options import side_options

try:
    import psycopg
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.change import change
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.mover import (
        MoveError,
        Mover,
    )
    from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import site

    LACKING = ""
except ImportError:
    LACKING = traceback.format_exc()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "origin": {"type": "dict", "required": True, "options": side_options()},
            "other": {"type": "dict", "required": True, "options": side_options()},
            "statements": {"type": "str", "required": True},
            "role": {"type": "str", "required": True},
            "takes_away": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if LACKING:
        module.fail_json(msg=missing_required_lib("psycopg"), exception=LACKING)
    given = module.params
    mover = Mover(site(given["origin"]), site(given["other"]))
    try:
        done = change(
            mover, given["statements"], given["role"], given["takes_away"], module.check_mode
        )
    except (MoveError, psycopg.Error) as error:
        module.fail_json(msg=str(error).strip())
    module.exit_json(changed=bool(done), steps=done)


if __name__ == "__main__":
    main()
