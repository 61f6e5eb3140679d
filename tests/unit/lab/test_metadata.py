"""The metadata service's tree and tokens."""

from __future__ import annotations

import pytest

from lab.metadata import Tokens, Tree, find

TREE: Tree = {
    "meta-data": {
        "instance-id": "i-1",
        "placement": {"region": "us-east-1", "availability-zone": "us-east-1a"},
        "public-keys": {"0=main": {"openssh-key": "ssh-ed25519 AAAA"}},
    },
    "user-data": b"#!/bin/sh\xff",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", b"meta-data/\nuser-data"),
        ("meta-data", b"instance-id\nplacement/\npublic-keys/"),
        ("meta-data/", b"instance-id\nplacement/\npublic-keys/"),
        ("meta-data/instance-id", b"i-1"),
        ("meta-data/placement/region", b"us-east-1"),
        ("meta-data/public-keys/", b"0=main"),
        ("meta-data/public-keys/0/", b"openssh-key"),
        ("meta-data/public-keys/0/openssh-key", b"ssh-ed25519 AAAA"),
        ("user-data", b"#!/bin/sh\xff"),
        ("meta-data/nothing", None),
        ("meta-data/instance-id/more", None),
    ],
)
def test_what_lies_at_a_path(path: str, expected: bytes | None) -> None:
    assert find(TREE, path) == expected


def test_a_token_is_its_clients_for_its_time() -> None:
    now = [100.0]
    tokens = Tokens(clock=lambda: now[0])
    token = tokens.issue("10.1.0.4", 60)
    assert tokens.valid("10.1.0.4", token)
    assert not tokens.valid("10.1.0.5", token)
    assert not tokens.valid("10.1.0.4", None)
    assert not tokens.valid("10.1.0.4", token + "x")
    now[0] += 60
    assert not tokens.valid("10.1.0.4", token)
    tokens.issue("10.1.0.4", 60)
    assert len(tokens._known) == 1, "old tokens are forgotten"
