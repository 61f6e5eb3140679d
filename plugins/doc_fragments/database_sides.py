# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two sides of a move, as every module that works on them takes them."""

from __future__ import annotations


class ModuleDocFragment:
    """A server with a database, and the logins there."""

    DOCUMENTATION = r"""
options:
  origin:
    description: The server where the database is at first.
    type: dict
    suboptions: &side
      name:
        description: Name of the side, in messages and in the names of slots.
        type: str
        required: true
      host:
        description: Address or name of the server for this host, the poolers and the other server.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        default: 5432
      database:
        description: Name of the database.
        type: str
        required: true
      user:
        description:
          - A role that may create subscriptions, event triggers and roles - a superuser, or the
            master user of RDS.
        type: str
        required: true
      password:
        description: Its password.
        type: str
        required: true
      replication_user:
        description:
          - The role that the other server subscribes as. It reads all tables and has REPLICATION.
        type: str
        required: true
      replication_password:
        description: Its password.
        type: str
        required: true
      sslmode:
        description: As in libpq.
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
        default: require
      sslrootcert:
        description: File on this host with the authorities that the certificate is checked by.
        type: path
      replication_sslrootcert:
        description: The same on the other server's host.
        type: path
  other:
    description: The server where the database is brought to.
    type: dict
    suboptions: *side
"""
