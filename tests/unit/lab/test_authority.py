"""The lab's authority and what answers by TLS: S3, and nothing else."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from lab.api import OnlyS3
from lab.authority import Authority, is_s3, s3_names

NAMES = s3_names()


def handshake(context: ssl.SSLContext, authority: bytes, name: str) -> None:
    """Shake hands as a host does that trusts the authority alone. Raises ssl.SSLError."""
    client = ssl.create_default_context(cadata=authority.decode())
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(here, server_hostname=name).close()
    finally:
        here.close()
        thread.join(5)


def test_the_authority_is_made_once_and_its_key_is_roots(tmp_path: Path) -> None:
    first = Authority(tmp_path).certificate
    assert Authority(tmp_path).certificate == first
    key = tmp_path / "authority" / "authority.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name",
    [
        "s3.amazonaws.com",
        "backups.s3.amazonaws.com",
        "s3.eu-central-1.amazonaws.com",
        "backups.s3.eu-central-1.amazonaws.com",
    ],
)
def test_who_trusts_it_reaches_s3_and_buckets(tmp_path: Path, name: str) -> None:
    authority = Authority(tmp_path)
    handshake(authority.server(NAMES, tmp_path), authority.certificate, name)


def test_it_vouches_for_no_other_service(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(
            authority.server(NAMES, tmp_path), authority.certificate, "ssm.us-east-1.amazonaws.com"
        )


def test_it_cannot_vouch_for_names_that_are_not_awss(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server(["bank.example", *NAMES], tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(context, authority.certificate, "bank.example")


def test_a_databases_name_may_be_longer_than_a_subject(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    name = f"{'a' * 63}.c01234567890.us-east-1.rds.amazonaws.com"
    handshake(authority.server([name], tmp_path), authority.certificate, name)


def test_another_machines_authority_is_not_trusted(tmp_path: Path) -> None:
    context = Authority(tmp_path / "here").server(NAMES, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, Authority(tmp_path / "there").certificate, "s3.amazonaws.com")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("s3.us-east-1.amazonaws.com", True),
        ("backups.s3.us-east-1.amazonaws.com:443", True),
        ("S3.amazonaws.com", True),
        ("a.b.s3.us-east-1.amazonaws.com", False),
        ("ssm.us-east-1.amazonaws.com", False),
        ("s3.nowhere-1.amazonaws.com", False),
        ("198.18.7.2", False),
        ("", False),
    ],
)
def test_what_is_a_name_of_s3(host: str, expected: bool) -> None:
    assert is_s3(host, frozenset(NAMES)) is expected


def test_only_s3_is_passed_on() -> None:
    def api(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [b"from the API"]

    heard: list[str] = []
    only = OnlyS3(api, NAMES)  # type: ignore[arg-type]

    def start(status: str, headers: Any) -> None:
        heard.append(status)

    assert only({"HTTP_HOST": "b.s3.us-east-1.amazonaws.com"}, start) == [b"from the API"]
    assert b"ssm.us-east-1" in b"".join(only({"HTTP_HOST": "ssm.us-east-1.amazonaws.com"}, start))
    assert heard == ["200 OK", "421 Misdirected Request"]
