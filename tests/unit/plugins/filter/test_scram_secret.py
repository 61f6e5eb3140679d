"""The filter scram_secret against the RFC, PostgreSQL's own client library, and bad input."""

from __future__ import annotations

import base64
import hashlib
import hmac

import psycopg
import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter import scram_secret as module
from plugins.filter.scram_secret import scram_secret, secret


def parts(text: str) -> tuple[int, bytes, bytes, bytes]:
    kind, parameters, keys = text.split("$")
    assert kind == "SCRAM-SHA-256"
    iterations, salt = parameters.split(":")
    stored, server = keys.split(":")
    return int(iterations), *map(base64.b64decode, (salt, stored, server))


def test_the_exchange_of_rfc_7677_is_proved_by_the_keys(monkeypatch):
    """RFC 7677 section 3: user "user", password "pencil", with its salt, nonces and proof."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")

    class Digest:
        def digest(self) -> bytes:
            return salt

    real = hashlib.sha256
    monkeypatch.setattr(
        module.hashlib,
        "sha256",
        lambda data=b"": Digest() if data.startswith(b"ascent scram salt") else real(data),
    )
    iterations, used, stored, server = parts(secret("pencil", "user", "rfc"))
    assert (iterations, used) == (4096, salt)
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert real(client_key).digest() == stored
    assert (
        base64.b64encode(hmac.digest(server, message, "sha256"))
        == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


def test_libpq_makes_the_same_keys_from_the_same_salt():
    """libpq takes a random salt: its secret is computed again from that salt."""
    made = psycopg.pq.PGconn.connect(b"host=none.invalid").encrypt_password(
        b"pencil", b"shop", b"scram-sha-256"
    )
    iterations, salt, stored, server = parts(made.decode())
    assert iterations == module.ITERATIONS
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, iterations)
    key = hmac.digest(salted, b"Client Key", "sha256")
    assert stored == hashlib.sha256(key).digest()
    assert server == hmac.digest(salted, b"Server Key", "sha256")
    assert len(parts(secret("pencil", "shop", "lab"))[1]) == len(salt)


def test_the_same_input_gives_the_same_secret():
    assert scram_secret("pencil", "shop", "lab") == scram_secret("pencil", "shop", "lab")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(("pencil", "users", "lab"), id="role"),
        pytest.param(("pencil", "shop", "production"), id="environment"),
        pytest.param(("pencil", "b shop", "la"), id="border between the names"),
    ],
)
def test_the_salt_differs_between_roles_and_environments(other):
    assert parts(secret("pencil", "shop", "lab"))[1] != parts(secret(*other))[1]


def test_the_salt_tells_nothing_about_the_password():
    one, other = secret("pencil", "shop", "lab"), secret("crayon", "shop", "lab")
    assert parts(one)[1] == parts(other)[1]
    assert parts(one)[2:] != parts(other)[2:]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(("", "shop", "lab"), "printable ASCII", id="empty"),
        pytest.param(("pässword", "shop", "lab"), "printable ASCII", id="not ASCII"),
        pytest.param(("two\nlines", "shop", "lab"), "printable ASCII", id="control"),
        pytest.param(("pencil", "", "lab"), "name of the role", id="no role"),
        pytest.param(("pencil", "shop", ""), "name of the role and of", id="no environment"),
        pytest.param((None, "shop", "lab"), "not NoneType", id="no string"),
    ],
)
def test_bad_input_is_refused_without_naming_the_password(arguments, reason):
    with pytest.raises(AnsibleFilterError, match=reason) as caught:
        scram_secret(*arguments)
    if arguments[0]:
        assert arguments[0] not in str(caught.value)
