"""A superuser's session at a database of the lab, through the socket in its storage.

As little of PostgreSQL's protocol as that takes: the server knows us by our user id (`peer`), so
that there is no password, and one `SELECT` a time is enough. A program in the container, for each
look at a server, would cost more than all else that the lab does.
Source: PostgreSQL documentation, "Message Flow", "Message Formats".
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from lab import postgres
from lab.errors import LabError

Row = tuple[str | None, ...]


class SessionError(LabError):
    """A server that is not there, does not answer in time, or refuses a statement."""


class Session:
    """One connection, made when it is first used; after any trouble it is made anew."""

    def __init__(self, path: Path, timeout: float = 3.0) -> None:
        self._path = path
        self._timeout = timeout
        self._connection: socket.socket | None = None

    def ask(self, sql: str, timeout: float | None = None) -> list[Row]:
        """Run statements and return the rows of all of them. Raises SessionError."""
        try:
            connection = self._connection or self._open()
            connection.settimeout(timeout or self._timeout)
            connection.sendall(postgres.message(b"Q", sql.encode() + b"\0"))
            return self._read(connection)
        except OSError as error:
            self.close()
            raise SessionError(f"{self._path}: {error}") from error
        except SessionError:
            self.close()
            raise

    def close(self) -> None:
        """End it; the next question makes it anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        self._connection = connection
        connection.settimeout(self._timeout)
        connection.connect(str(self._path))
        connection.sendall(postgres.startup(postgres.ADMIN, "postgres"))
        self._read(connection)
        return connection

    def _read(self, connection: socket.socket) -> list[Row]:
        """Read until the server is ready for the next question."""
        rows, trouble = [], ""
        while True:
            kind, body = _message(connection)
            if kind == b"D":
                rows.append(postgres.row(body))
            elif kind == b"E":
                trouble = postgres.complaint(body)
                if postgres.is_fatal(body):
                    raise SessionError(f"{self._path}: {trouble}")
            elif kind == b"R" and body[:4] != bytes(4):
                raise SessionError(f"{self._path}: the server wants a password")
            elif kind == b"Z":
                if trouble:
                    raise SessionError(f"{self._path}: {trouble}")
                return rows


def _message(connection: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(connection, 5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], _exactly(connection, length - 4)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise ConnectionResetError("the server closed the connection")
        data += piece
    return data
