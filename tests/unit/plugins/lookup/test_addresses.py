"""The addresses that names lead to."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.lookup.addresses import addresses


@pytest.mark.parametrize(
    ("known", "found"),
    [
        # A name server knows it with the dot, so that no name of a search list is taken for it.
        ({"shop.test.": "198.51.100.7", "shop.test": "192.0.2.1"}, ["198.51.100.7"]),
        # A hosts file knows it without.
        ({"shop.test": "192.0.2.1"}, ["192.0.2.1"]),
        ({}, []),
    ],
)
def test_a_name_is_asked_for_as_it_stands(
    known: dict[str, str], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(name: str, port: int, **_: Any) -> list[Any]:
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(2, 1, 6, "", (known[name], port))]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    assert addresses("shop.test") == found
