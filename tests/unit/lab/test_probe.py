"""One health check against a server that does this or that."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.authority import Authority
from lab.elb.health import FAILED, PASSED, TIMED_OUT, Check, Outcome, mismatch
from lab.probe import probe

CHECK = Check(path="/ready", timeout=1, matcher="200-204")
Handler = Callable[[socket.socket], None]


class Here:
    """A link whose namespace is the test's own."""

    def open_socket(self) -> socket.socket:
        return socket.socket()


class Nowhere:
    """A link whose namespace is gone."""

    def open_socket(self) -> socket.socket:
        raise FileNotFoundError


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], int]]:
    """Serve one connection, and return its port."""
    listeners = []

    def serve(handler: Handler) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # who looked may be gone
                handler(connection)

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield serve
    for listener in listeners:
        listener.close()


def test_a_connection_is_enough_for_tcp(serve: Callable[[Handler], int]) -> None:
    assert look(serve(lambda _: None), Check(protocol="TCP", timeout=1)) == PASSED
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = int(closed.getsockname()[1])
    assert look(port, Check(protocol="TCP", timeout=1)) == FAILED


@pytest.mark.parametrize("protocol", ["TCP", "HTTP"])
def test_the_proxy_protocol_comes_first(serve: Callable[[Handler], int], protocol: str) -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def handler(connection: socket.socket) -> None:
        heard.append(connection.recv(16, socket.MSG_WAITALL))
        if protocol == "HTTP":
            heard.append(connection.recv(3, socket.MSG_WAITALL))
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        done.set()

    check = Check(protocol=protocol, timeout=1, proxy=True)
    assert look(serve(handler), check) == PASSED
    assert done.wait(5)
    assert heard[0] == b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    assert heard[1:] == ([b"GET"] if protocol == "HTTP" else [])


def look(port: int, check: Check = CHECK, link: Any = None) -> Outcome | None:
    return probe(link or Here(), "127.0.0.1", port, check)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", PASSED),
        (b"HTTP/1.0 204\r\n\r\n", PASSED),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", mismatch(404)),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", mismatch(302)),
        (b"SSH-2.0-OpenSSH_10.0\r\n", FAILED),
        (b"HTTP/1.1 2000 OK\r\n", FAILED),
        (b"", FAILED),
    ],
)
def test_answers(serve: Callable[[Handler], int], answer: bytes, expected: Outcome) -> None:
    asked = []

    def handler(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(answer)

    port = serve(handler)
    assert look(port) == expected
    assert asked[0].startswith(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
    assert b"User-Agent: ELB-HealthChecker/2.0\r\n" in asked[0]


def test_who_says_nothing_times_out(serve: Callable[[Handler], int]) -> None:
    began = time.monotonic()
    assert look(serve(lambda connection: time.sleep(3))) == TIMED_OUT
    assert time.monotonic() - began < 2.5


def test_who_drips_times_out(serve: Callable[[Handler], int]) -> None:
    def handler(connection: socket.socket) -> None:
        for _ in range(20):
            connection.sendall(b"x")
            time.sleep(0.2)

    began = time.monotonic()
    assert look(serve(handler)) == TIMED_OUT
    assert time.monotonic() - began < 2.5


def test_who_refuses_has_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert look(port) == FAILED


def test_a_node_that_is_gone_says_nothing_of_its_targets() -> None:
    assert look(1, link=Nowhere()) is None


def test_tls_without_a_look_at_the_certificate(
    serve: Callable[[Handler], int], tmp_path: Path
) -> None:
    context = Authority(tmp_path).server(["a.amazonaws.com"], tmp_path)

    def handler(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    assert look(serve(handler), Check("HTTPS", timeout=5)) == PASSED


def test_tls_with_who_has_none(serve: Callable[[Handler], int]) -> None:
    def handler(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert look(serve(handler), Check("HTTPS", timeout=5)) == FAILED
    assert issubclass(ssl.SSLError, OSError)
