# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that turns a password into the SCRAM secret that PostgreSQL and PgBouncer store."""

from __future__ import annotations

DOCUMENTATION = r"""
name: scram_secret
author: The Ascent founders (@ascent)
version_added: "0.1.0"
short_description: Turn a database password into a SCRAM-SHA-256 secret
description:
  - Computes the string that PostgreSQL keeps in C(pg_authid.rolpassword) and that PgBouncer takes
    in its C(auth_file), so that neither host is ever told the password in clear text.
  - The result is the same for the same input. A second run therefore changes nothing, and
    PostgreSQL and PgBouncer hold identical secrets, which PgBouncer needs to log in to the server
    with the keys that its client has proved.
  - The salt comes from the environment's and the role's name, so it differs between them. It
    does not come from the password, because whoever starts a login is told the salt.
positional: _input, role, environment
options:
  _input:
    description:
      - The password in clear text, printable ASCII (U+0020 to U+007E).
      - Others are refused, because clients differ in how they normalise them (SASLprep).
    type: str
    required: true
  role:
    description: Name of the login role of the database.
    type: str
    required: true
  environment:
    description: Name of the environment.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the secret of the role shop
  ansible.builtin.debug:
    msg: "{{ 'correct horse battery staple' | ascent.scaling.scram_secret('shop', 'lab') }}"
"""

RETURN = r"""
_value:
  description: "C(SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>), each part base64."
  type: str
"""

import base64
import hashlib
import hmac
from collections.abc import Callable

from ansible.errors import AnsibleFilterError

# What PostgreSQL itself uses (SCRAM_SHA_256_DEFAULT_ITERATIONS, RFC 7677 section 4). The passwords
# are long and random, so more rounds would buy nothing but slower logins.
ITERATIONS = 4096
SALT_BYTES = 16


def secret(password: str, role: str, environment: str) -> str:
    """Return the SCRAM-SHA-256 secret (RFC 5803) of ``password`` for ``role`` in ``environment``.

    Raises ValueError when the password is empty or holds anything but printable ASCII, or when
    a name is empty.
    """
    if not password or not all(" " <= char <= "~" for char in password):
        raise ValueError("a database password must be one or more printable ASCII characters")
    if not role or not environment:
        raise ValueError("scram_secret needs the name of the role and of the environment")
    # The length keeps ('a', 'bc') and ('ab', 'c') apart.
    origin = f"ascent scram salt {len(environment)} {environment} {role}"
    salt = hashlib.sha256(origin.encode()).digest()[:SALT_BYTES]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    # RFC 5802 section 3: StoredKey = H(HMAC(SaltedPassword, "Client Key")).
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")

    def encoded(value: bytes) -> str:
        return base64.b64encode(value).decode("ascii")

    return f"SCRAM-SHA-256${ITERATIONS}:{encoded(salt)}${encoded(stored_key)}:{encoded(server_key)}"


def scram_secret(password: str, role: str, environment: str) -> str:
    """Return :func:`secret`, with errors as Ansible expects them (never naming the password)."""
    if not isinstance(password, str):
        raise AnsibleFilterError(f"scram_secret needs a string, not {type(password).__name__}")
    try:
        return secret(str(password), str(role), str(environment))
    except ValueError as error:
        raise AnsibleFilterError(f"scram_secret for role '{role}': {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"scram_secret": scram_secret}
