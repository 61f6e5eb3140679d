"""The image's recipe."""

from __future__ import annotations

import base64
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.hosts import MemoryUse, meminfo
from lab.image import amis, private_certificates, recipe, releases

AUTHORITY = b"-----BEGIN CERTIFICATE-----"


def pem(body: bytes) -> str:
    text = base64.encodebytes(body).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def test_the_tag_follows_the_recipe() -> None:
    one = recipe("trixie", AUTHORITY)
    assert one.tag == recipe("trixie", AUTHORITY).tag
    changes = [
        replace(one, release="bookworm"),
        replace(one, packages=(*one.packages, "mc")),
        replace(one, cached=one.cached[1:]),
        replace(one, files=(*one.files, ("etc/motd", b"hello"))),
        replace(one, files=((one.files[0][0], b"changed"), *one.files[1:])),
        replace(one, apt_options=('Acquire::http::Proxy "http://127.0.0.1:3142"',)),
    ]
    tags = {change.tag for change in changes}
    assert len(tags) == len(changes)
    assert one.tag not in tags


def test_every_ami_has_a_release_and_a_name_as_debians() -> None:
    for ami in amis():
        assert ami.release in releases()
        assert ami.name.startswith("debian-")
        recipe(ami.release, AUTHORITY)


def test_an_unknown_release_is_refused() -> None:
    with pytest.raises(LabError, match="trixie"):
        recipe("sid", AUTHORITY)


def test_the_recipes_files_belong_to_root() -> None:
    with tarfile.open(fileobj=io.BytesIO(recipe("trixie", AUTHORITY).overlay())) as archive:
        members = archive.getmembers()
    assert "etc/cloud/cloud.cfg.d/90_ascent_lab.cfg" in [member.name for member in members]
    assert {(member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0o644)}


def test_certificates_that_only_this_machine_trusts_go_along(tmp_path: Path) -> None:
    known = tmp_path / "known" / "mozilla"
    known.mkdir(parents=True)
    (known / "a.crt").write_text(pem(b"public a"))
    bundle = tmp_path / "bundle.crt"
    bundle.write_text(pem(b"public a") + pem(b"the company's"))
    found = private_certificates(bundle, tmp_path / "known")
    assert [text.decode() for text in found] == [pem(b"the company's")]
    assert private_certificates(tmp_path / "none", tmp_path / "known") == []


def test_a_host_sees_its_own_memory() -> None:
    lines = dict(
        line.split(":") for line in meminfo(2048, MemoryUse(512 * 1024, 256 * 1024)).splitlines()
    )
    assert lines["MemTotal"].split() == ["2097152", "kB"]
    assert lines["MemFree"].split() == [str((2048 - 768) * 1024), "kB"]
    assert lines["MemAvailable"].split() == [str((2048 - 512) * 1024), "kB"]
