# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks an application behind a unix socket for its health, and counts its connections."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from pathlib import Path

# SS_CONNECTING and SS_CONNECTED (linux/net.h): the first is one that waits to be accepted.
_OPEN = ("02", "03")


@dataclass(frozen=True)
class Answer:
    """What the application said, or why it said nothing."""

    healthy: bool
    text: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, host: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(socket_path: str, path: str, host: str, timeout: float) -> Answer:
    """GET `path` as nginx would for `host`; healthy is any status from 200 to 299."""
    connection = _UnixConnection(socket_path, host, timeout)
    try:
        connection.request("GET", path, headers={"X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        body = response.read(2000).decode("utf-8", "replace").strip()
        return Answer(200 <= response.status < 300, f"{response.status} {response.reason}: {body}")
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"no answer at {socket_path}: {type(error).__name__}: {error}")
    finally:
        connection.close()


def count_connections(table: str, socket_path: str) -> int:
    """Return how many connections to a socket are open or wait to be accepted.

    `table` is the text of /proc/net/unix (proc_net_unix in the kernel's documentation): a
    connection's end at the server bears the path that the server listens at.
    """
    return sum(
        1
        for line in table.splitlines()[1:]
        if (columns := line.split(maxsplit=7))[7:] == [socket_path] and columns[5] in _OPEN
    )


def open_connections(socket_path: str) -> int:
    """Return `count_connections` of this moment."""
    table = Path("/proc/net/unix").read_text(encoding="utf-8", errors="surrogateescape")
    return count_connections(table, socket_path)
