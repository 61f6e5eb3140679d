"""Asks a host from outside, as anybody on the internet could."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# One for all: reading the authorities' certificates is most of what a request would cost.
_ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ANY_CERTIFICATE.check_hostname = False
_ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE


def port_answers(address: str, port: int, seconds: float = 2.0) -> bool:
    """Whether a TCP connection is accepted; a dropped packet and a refusal are both a no."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def request(
    method: str,
    address: str,
    path: str,
    *,
    host: str,
    tls: bool = True,
    seconds: float = 10,
    headers: dict[str, str] | None = None,
    body: str | None = None,
) -> tuple[int, dict[str, str], str]:
    """One request to an address under a given name: status, headers, body.

    The certificate is not verified here: that it carries the name is asserted by its own test.
    """
    connection: http.client.HTTPConnection
    if tls:
        connection = http.client.HTTPSConnection(address, timeout=seconds, context=_ANY_CERTIFICATE)
    else:
        connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request(method, path, body=body, headers={"Host": host, **(headers or {})})
        answer = connection.getresponse()
        return (
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read().decode(errors="replace"),
        )
    finally:
        connection.close()


def get(
    address: str,
    path: str,
    *,
    host: str,
    tls: bool = True,
    seconds: float = 10,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], str]:
    """GET a path, see `request`."""
    return request("GET", address, path, host=host, tls=tls, seconds=seconds, headers=headers)


def post_json(
    address: str, path: str, data: Any, *, host: str, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """POST a JSON body: status, and the JSON of the answer."""
    status, _, body = request(
        "POST",
        address,
        path,
        host=host,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=json.dumps(data),
    )
    return status, json.loads(body)


def get_json(address: str, path: str, *, host: str) -> Any:
    """The JSON that a path answers with status 200."""
    status, _, body = get(address, path, host=host)
    assert status == 200, f"{path}: {status} {body[:300]}"
    return json.loads(body)


@dataclass
class Traffic:
    """Keep-alive clients in threads: every request counted, every failure with its cause.

    Bounded: each client waits `pause` seconds between requests, and all stop after `limit` seconds.
    A connection that the server closed between two requests is opened again, as browsers do for
    requests without side effects; a failure in the middle of one counts.
    """

    address: str
    host: str
    paths: tuple[str, ...] = ("/", "/health/ready")
    clients: int = 8
    pause: float = 0.1
    limit: float = 900.0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Traffic:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._until = time.monotonic() + self.limit
        self._threads = [
            threading.Thread(target=self._client, args=(n,), daemon=True)
            for n in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=15)

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.address, timeout=10, context=_ANY_CERTIFICATE)

    def _client(self, number: int) -> None:
        connection = self._connect()
        count = number
        while not self._stop.is_set() and time.monotonic() < self._until:
            path = self.paths[count % len(self.paths)]
            count += 1
            cause, release = None, None
            try:
                connection.request("GET", path, headers={"Host": self.host})
                answer = connection.getresponse()
                answer.read()
                release = answer.getheader("X-Release")
                if answer.status >= 400:
                    cause = f"status {answer.status}"
                if answer.will_close:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                cause = type(error).__name__
                connection.close()
                connection = self._connect()
            with self._lock:
                self.requests += 1
                if cause:
                    self.failures[cause] += 1
                if release:
                    self.releases[release] += 1
            time.sleep(self.pause)
        connection.close()
