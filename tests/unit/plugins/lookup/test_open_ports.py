"""Which ports take connections, asked of real sockets of this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader

# Nobody has it, and nobody answers for it (RFC 5737).
NOWHERE = "192.0.2.1"


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def ask(*terms: str, **options: float) -> list[str]:
    return list(lookup_loader.get("ascent.scaling.open_ports").run(list(terms), **options))


def test_those_that_listen_are_told_from_those_that_do_not(listening: str) -> None:
    assert ask(closed(), listening, closed()) == [listening]


def test_nothing_asked_is_nothing_found() -> None:
    assert ask() == []


@pytest.mark.parametrize("wrong", ["5432", "host:", "host:http", ""])
def test_what_is_no_address_with_a_port_is_named(wrong: str) -> None:
    with pytest.raises(AnsibleLookupError, match="address:port"):
        ask(wrong)


def test_all_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(0.3)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", slow)
    began = time.monotonic()
    assert ask(*(f"{NOWHERE}:{port}" for port in range(1, 21))) == []
    assert time.monotonic() - began < 20 * 0.3 / 2
