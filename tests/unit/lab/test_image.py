"""The image's recipe."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.hosts import MemoryUse, meminfo
from lab.image import DATA, amis, private_certificates, recipe, releases

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


@pytest.mark.parametrize("name", ["ansible_x_payload.zip", "other.zip"])
def test_what_ansible_sends_is_unpacked_and_compiled_once(tmp_path: Path, name: str) -> None:
    program = f"""
import os, sys
from ascent_lab import compiled
compiled.CACHE = {str(tmp_path / "cache")!r}
os.geteuid = lambda: 0
plain, unpacked = compiled._plain, []
compiled._plain = lambda importer, name: (unpacked.append(name), plain(importer, name))[1]
sys.path.insert(0, {str(tmp_path / name)!r})
import sent
print(bool(unpacked), sent.VALUE)
"""

    def run(value: int) -> str:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("sent.py", f"VALUE = {value}")
        return subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(DATA / "rootfs/usr/lib/python3/dist-packages")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    again = "payload" not in name
    assert [run(1), run(1), run(2)] == ["True 1", f"{again} 1", "True 2"]
    if "payload" in name:
        for kept in (tmp_path / "cache").iterdir():
            kept.write_bytes(b"torn")
        assert run(2) == "True 2"


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
