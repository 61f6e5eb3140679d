"""The hosts' image: built from Debian packages, no registry, rebuilt only if its recipe changes."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import re
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import shell
from lab.authority import Authority
from lab.errors import LabError
from lab.podman import Podman
from lab.settings import Settings

DATA = Path(__file__).parent / "data"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
KNOWN = Path("/usr/share/ca-certificates")
_VERSIONS = {"trixie": "13", "bookworm": "12"}
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)

# Timers that would take the package manager's lock from under a playbook, and what has no console.
_DISABLED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
)
# Views into the machine's kernel that a host has no business with.
_MASKED = (
    "dev-hugepages.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)
_CUSTOMIZE = (
    "rm -f {root}/etc/ssh/ssh_host_*",
    "chroot {root} apt-get clean",
    "chroot {root} apt-get -qq install --download-only --yes {cached}",
    "chroot {root} update-ca-certificates",
    "chroot {root} systemctl --quiet disable {disabled}",
    "chroot {root} systemctl --quiet enable ascent-lab-host.service",
    "chroot {root} systemctl --quiet mask {masked}",
)


@dataclass(frozen=True)
class Ami:
    """A machine image of the lab's EC2."""

    id: str
    name: str
    release: str
    description: str


@dataclass(frozen=True)
class Recipe:
    """All that an image is made of; its hash is the image's tag."""

    release: str
    packages: tuple[str, ...]
    cached: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    apt_options: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Name and tag in podman's storage."""
        digest = hashlib.sha256()
        for part in (self.release, *self.packages, "/", *self.cached, "/", *self.apt_options):
            digest.update(part.encode() + b"\0")
        for part in (*_CUSTOMIZE, *_DISABLED, *_MASKED):
            digest.update(part.encode() + b"\0")
        for name, content in self.files:
            digest.update(name.encode() + b"\0" + content + b"\0")
        return f"{self.repository}:{digest.hexdigest()[:12]}"

    @property
    def repository(self) -> str:
        """Name in podman's storage."""
        return f"localhost/ascent-lab/debian-{_VERSIONS[self.release]}"

    def overlay(self) -> bytes:
        """Return the recipe's own files as a tar archive that belongs to root."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in self.files:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                entry.mode = 0o644
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def amis() -> list[Ami]:
    """Return the machine images that the lab knows."""
    return [Ami(**entry) for entry in _data()["ami"]]


def releases() -> list[str]:
    """Return the Debian releases that hosts can have."""
    return list(_VERSIONS)


def recipe(release: str, authority: bytes, bundle: Path = BUNDLE, known: Path = KNOWN) -> Recipe:
    """Collect what a release's image is made of, on this machine. Raises LabError.

    authority: the certificate of the lab's own authority.
    """
    if release not in _VERSIONS:
        raise LabError(f"No image for '{release}'. There is: {', '.join(_VERSIONS)}.")
    data = _data()
    root = DATA / "rootfs"
    files = [
        (path.relative_to(root).as_posix(), path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    files += [
        (f"usr/local/share/ca-certificates/machine-{number}.crt", certificate)
        for number, certificate in enumerate(private_certificates(bundle, known))
    ]
    files.append(("usr/local/share/ca-certificates/ascent-lab.crt", authority))
    return Recipe(
        release=release,
        packages=tuple(data["packages"]),
        cached=tuple(data["cached"]["all"] + data["cached"][release]),
        files=tuple(files),
        apt_options=_apt_proxies(),
    )


def private_certificates(bundle: Path, known: Path) -> list[bytes]:
    """Return certificates that this machine trusts and Debian does not ship.

    Behind a proxy that inspects TLS, hosts must trust the proxy as the machine does.
    """
    if not bundle.is_file():
        return []
    shipped = {body for path in known.rglob("*.crt") for body in _certificates(path.read_bytes())}
    return [
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(body) + b"-----END CERTIFICATE-----\n"
        for body in _certificates(bundle.read_bytes())
        if body not in shipped
    ]


def build(settings: Settings, release: str, say: Callable[[str], None]) -> str:
    """Build the image unless it is there. Returns its tag. Raises LabError."""
    podman = Podman.of(settings)
    wanted = recipe(release, Authority(settings.cache).certificate)
    if podman.image_exists(wanted.tag):
        return wanted.tag
    with lock(settings.cache):
        if podman.image_exists(wanted.tag):
            return wanted.tag
        for leftover in settings.cache.glob("build-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix="build-", dir=settings.cache) as folder:
            archive = Path(folder) / "root.tar"
            say(f"building the host image {wanted.tag} (1 to 2 minutes)")
            _bootstrap(wanted, Path(folder), archive, say)
            say("importing the image")
            podman("import", "--quiet", str(archive), wanted.tag, timeout=600)
    _remove_older(podman, wanted)
    return wanted.tag


def _bootstrap(wanted: Recipe, folder: Path, archive: Path, say: Callable[[str], None]) -> None:
    overlay = folder / "overlay.tar"
    overlay.write_bytes(wanted.overlay())
    values = {
        "root": '"$1"',
        "cached": " ".join(wanted.cached),
        "disabled": " ".join(_DISABLED),
        "masked": " ".join(_MASKED),
    }
    command = [
        # What it mounts is gone with it, even if it is killed: else removing what it leaves would
        # reach into the machine's own /dev and /sys.
        *("unshare", "--mount", "--propagation", "private"),
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--skip=cleanup/apt",
        "--format=tar",
        f"--include={','.join(wanted.packages)}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*/LC_MESSAGES/*.mo",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--aptopt={option}" for option in wanted.apt_options),
        f"--customize-hook=tar-in {overlay} /",
        *(f"--customize-hook={step.format(**values)}" for step in _CUSTOMIZE),
        wanted.release,
        str(archive),
    ]
    tail: list[str] = []
    process = shell.stream(*command, env={"TMPDIR": str(folder)})
    assert process.stdout is not None
    try:
        for line in process.stdout:
            tail = [*tail[-15:], line.rstrip()]
            if line.startswith("I: ") and line.rstrip().endswith("..."):
                say(line[3:].rstrip())
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status != 0:
        raise LabError("mmdebstrap failed:\n" + "\n".join(f"  {line}" for line in tail))


def _remove_older(podman: Podman, wanted: Recipe) -> None:
    tags = podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    for tag in tags:
        if tag.startswith(wanted.repository + ":") and tag != wanted.tag:
            podman.succeeds("rmi", tag)  # refused while a host uses it


def _certificates(pem: bytes) -> Iterator[bytes]:
    for match in _PEM.finditer(pem):
        yield base64.b64decode(match.group(1))


def _apt_proxies() -> tuple[str, ...]:
    options = []
    for scheme in ("http", "https"):
        key = f"Acquire::{scheme}::Proxy"
        try:
            value = shell.run("apt-config", "shell", "value", key).strip()
        except LabError:
            return ()
        if value:
            options.append(f'{key} "{value.removeprefix("value=").strip(chr(39))}"')
    return tuple(options)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Let one process at a time build an image."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _data() -> dict[str, Any]:
    return tomllib.loads((DATA / "image.toml").read_text())
