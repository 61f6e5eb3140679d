"""Where names lead, by the machine's own resolver."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.ascent.scaling.plugins.lookup.addresses import LookupModule, addresses


def test_an_address_leads_to_itself_and_a_name_of_nobody_nowhere() -> None:
    assert addresses("nowhere.invalid") == []
    assert LookupModule().run(["nowhere.invalid", "nowhere.invalid"]) == []


def test_each_address_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert (name, port) == ("shop.test.", 443)
        return [(2, 1, 6, "", ("198.51.100.7", 443))] * 2 + [(10, 1, 6, "", ("2001:db8::1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert addresses("shop.test") == ["198.51.100.7", "2001:db8::1"]
