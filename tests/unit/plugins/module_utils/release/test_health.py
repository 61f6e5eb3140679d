"""Health and connections, asked of a real socket."""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.health import (
    ask,
    count_connections,
    open_connections,
)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 200 if self.path == "/ready" else 503
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"for {self.headers['Host']}".encode())

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "app.sock")
    with socketserver.ThreadingUnixStreamServer(path, Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield path
        running.shutdown()


def test_a_healthy_answer(server: str) -> None:
    answer = ask(server, "/ready", "shop.test", 5)
    assert answer.healthy
    assert "for shop.test" in answer.text


def test_an_unhealthy_answer_is_told(server: str) -> None:
    answer = ask(server, "/other", "shop.test", 5)
    assert not answer.healthy
    assert answer.text.startswith("503 Service Unavailable: for shop.test")


def test_no_socket_is_told(tmp_path: Path) -> None:
    answer = ask(str(tmp_path / "none"), "/ready", "shop.test", 5)
    assert not answer.healthy
    assert "FileNotFoundError" in answer.text


def test_silence_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "mute.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        answer = ask(path, "/ready", "shop.test", 0.2)
    assert not answer.healthy
    assert "TimeoutError" in answer.text


def test_connections_are_counted_even_before_they_are_accepted(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert open_connections(path) == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert open_connections(path) == 1
            accepted, _ = listener.accept()
            assert open_connections(path) == 1
            accepted.close()
        assert open_connections(path) == 0


def test_a_link_to_the_socket_counts_for_the_socket(tmp_path: Path) -> None:
    """nginx connects to current.sock: what it holds open must show at the instance's socket."""
    path, link = tmp_path / "app.sock", tmp_path / "current.sock"
    link.symlink_to(path)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(path))
        listener.listen()
        client.connect(str(link))
        assert open_connections(str(path)) == 1


def test_neither_the_listener_nor_other_sockets_count() -> None:
    table = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000: 00000002 00000000 00010000 0001 01 1 /run/shop/a.sock\n"
        "0000: 00000003 00000000 00000000 0001 03 2 /run/shop/a.sock\n"
        "0000: 00000002 00000000 00000000 0001 02 5 /run/shop/a.sock\n"
        "0000: 00000003 00000000 00000000 0001 03 3 /run/shop/a.sock.other\n"
        "0000: 00000003 00000000 00000000 0001 03 4\n"
    )
    assert count_connections(table, "/run/shop/a.sock") == 2
