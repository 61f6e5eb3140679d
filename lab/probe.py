"""One health check, as a node of a load balancer makes it."""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import suppress

from lab.elb.health import FAILED, PASSED, TIMED_OUT, Check, Outcome, matches, mismatch
from lab.region import Link

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r?\n)")
# Version 2, of nobody's behalf (HAProxy's proxy-protocol.txt, 2.2).
_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
_REST = 0.2  # seconds for what comes after the status, so that nobody's answer is cut off
_LIMIT = 64 * 1024


def probe(link: Link, address: str, port: int, check: Check) -> Outcome | None:
    """Look at a target from inside of a node. None: the node itself is not there.

    The packets are the node's: security groups and routes hold for them as for its requests.
    """
    deadline = time.monotonic() + check.timeout
    try:
        connection = link.open_socket()
    except OSError:
        return None
    try:
        with connection:
            connection.settimeout(check.timeout)
            connection.connect((address, port))
            if check.proxy:
                connection.sendall(_LOCAL)
            if check.protocol == "TCP":
                return PASSED
            return _ask(connection, _request(address, port, check), check, deadline)
    except TimeoutError:
        return TIMED_OUT
    except OSError:  # refused, reset, unreachable, no TLS
        return FAILED


def _ask(connection: socket.socket, request: bytes, check: Check, deadline: float) -> Outcome:
    if check.protocol == "HTTPS":
        # Load balancers do not look at targets' certificates.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection.settimeout(_left(deadline))
        connection = context.wrap_socket(connection)
    connection.sendall(request)
    data = b""
    while b"\n" not in data:
        connection.settimeout(_left(deadline))
        piece = connection.recv(4096)
        if not piece or len(data) > _LIMIT:
            return FAILED
        data += piece
    status = _STATUS.match(data)
    with suppress(OSError):
        connection.settimeout(_REST)
        while len(data) < _LIMIT and (piece := connection.recv(4096)):
            data += piece
    if status is None:
        return FAILED
    code = int(status[1])
    return PASSED if matches(check.matcher, code) else mismatch(code)


def _request(address: str, port: int, check: Check) -> bytes:
    return (
        f"GET {check.path} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n"
        "User-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n\r\n"
    ).encode()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
