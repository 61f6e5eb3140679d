# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an instance, as text: its environment, its start command (pure)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Set for each instance when it is created; a user's value would be ignored without a word.
RESERVED = ("SOCKET", "RELEASE")
# Besides, when the application listens at a port; HOST may be given.
RESERVED_WITH_PORT = (*RESERVED, "PORT")
LOOPBACK = "127.0.0.1"


class InstanceError(Exception):
    """The environment or the start command cannot be written down."""


def render_environment(values: Mapping[str, str]) -> str:
    """Return `values` as a file that systemd's EnvironmentFile= and a shell read alike.

    Both take double quotes with a backslash before each of these four: " \\ $ ` (systemd.exec(5),
    EnvironmentFile; POSIX shell, 2.2.3), and both keep a line break inside quotes.
    Raises InstanceError for a name that neither would take.
    """
    lines = []
    for key, value in sorted(values.items()):
        if not _KEY.fullmatch(key):
            raise InstanceError(f"{key!r} is not a name for an environment variable")
        if "\0" in value:
            raise InstanceError(f"The environment variable {key} holds a NUL character")
        escaped = re.sub(r'(["\\$`])', r"\\\1", value)
        lines.append(f'{key}="{escaped}"\n')
    return "".join(lines)


def render_start(command: str, path: Sequence[str], release_folder: str) -> str:
    """Return the script that becomes the application: one command, no shell stays behind."""
    folders = ":".join(f"{release_folder}/{part}" for part in path)
    prefix = f'PATH="{folders}:$PATH"\nexport PATH\n' if folders else ""
    return f"#!/bin/sh\n# Written with the instance, never changed.\n{prefix}exec {command}\n"


def checksum(
    environment: Mapping[str, str],
    command: str,
    path: Sequence[str],
    unit_checksum: str,
    listen: str = "socket",
) -> str:
    """Return what tells two instances of one release apart, as SHA-256 (hexadecimal)."""
    whole = [sorted(environment.items()), command, list(path), unit_checksum, listen]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def check_environment(environment: Mapping[str, str], listen: str = "socket") -> None:
    """Raise InstanceError if a variable is reserved or cannot be written."""
    reserved = RESERVED_WITH_PORT if listen == "port" else RESERVED
    taken = sorted(set(reserved) & set(environment))
    if taken:
        raise InstanceError(f"{', '.join(taken)}: set for each instance, not to be given")
    render_environment(environment)


def parse_environment(text: str) -> dict[str, str]:
    """Return what `render_environment` wrote; other files are not understood."""
    found = re.findall(r'^([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\n', text, re.MULTILINE | re.DOTALL)
    return {key: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for key, value in found}


def secrets_within(values: Mapping[str, str]) -> set[str]:
    """Return every secret value, and the passwords inside those that are URLs."""
    found = {value for value in values.values() if value}
    for value in list(found):
        if "://" in value:
            password = urlsplit(value).password
            found |= {password, unquote(password)} if password else set()
    return found


def describe_change(
    before: Mapping[str, str], after: Mapping[str, str], secret: set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return two environments for a diff; of a secret it shows only whether it changes."""

    def shown(values: Mapping[str, str], other: Mapping[str, str], word: str) -> dict[str, str]:
        return {
            key: value
            if key not in secret
            else (f"(secret, {word})" if other.get(key, value) != value else "(secret)")
            for key, value in sorted(values.items())
        }

    return shown(before, after, "before"), shown(after, before, "changed")
