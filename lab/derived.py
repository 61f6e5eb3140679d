"""Images that are a host's with something else instead of SSH, from the host's cache of packages.

No registry, no network: `up` makes them, and not again until their recipe changes, so that nothing
that is created later waits for an installation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lab.podman import Podman


@dataclass(frozen=True)
class Derived:
    """A recipe (`install.sh` and what it copies), the package it installs, the image's name."""

    recipe: Path
    package: str
    name: str

    @property
    def repository(self) -> str:
        """Name in podman's storage."""
        return f"localhost/ascent-lab/{self.name}"

    def tag(self, base: str) -> str:
        """Return name and tag of the image that is made from a host's."""
        digest = hashlib.sha256(base.encode())
        for path in sorted(self.recipe.rglob("*")):
            if path.is_file():
                relative = path.relative_to(self.recipe).as_posix()
                digest.update(relative.encode() + b"\0" + path.read_bytes())
        return f"{self.repository}:{digest.hexdigest()[:12]}"

    def make(self, podman: Podman, base: str) -> str:
        """Make the image; return what its recipe says. Raises LabError."""
        builder = f"ascent-lab-{self.name}-build"
        podman.remove([builder])
        try:
            said = podman(
                "run", "--name", builder, "--network", "none", "--label", "ascent-lab=build",
                "--volume", f"{self.recipe}:/recipe:ro", base,
                "/bin/sh", "/recipe/install.sh", self.package,
                timeout=600,
            )  # fmt: skip
            podman("commit", "--quiet", builder, self.tag(base), timeout=300)
        finally:
            podman.remove([builder])
        return said

    def remove_older(self, podman: Podman, tag: str) -> None:
        """Remove what earlier recipes made, unless something runs from it."""
        for other in podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            if other.startswith(self.repository + ":") and other != tag:
                podman.succeeds("rmi", other)
