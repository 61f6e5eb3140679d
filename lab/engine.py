"""The databases' image: a host's, with PostgreSQL instead of SSH, and what that PostgreSQL can do.

It is made once for a host image, from the packages that lie in that image's cache: no registry, no
network. Installing PostgreSQL takes longer than all else in an instance's creation, and `up` is
where a lab's images are made, so that the first CreateDBInstance is as fast as any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab import image
from lab.derived import Derived
from lab.parameters import Parameter, catalogue
from lab.podman import Podman
from lab.settings import Settings

RECIPE = image.DATA / "postgres"
RELEASE, MAJOR = "trixie", "17"
_IMAGE = Derived(RECIPE, f"postgresql-{MAJOR}", f"postgres-{MAJOR}")


@dataclass(frozen=True)
class Engine:
    """PostgreSQL as it lies in an image."""

    tag: str
    version: str
    parameters: Mapping[str, Parameter]

    @property
    def family(self) -> str:
        """The family of parameter groups."""
        return f"postgres{MAJOR}"

    def offers(self, version: str) -> bool:
        """Say whether a wanted version is this one: the major alone, or a minor up to this one."""
        major, _, minor = version.partition(".")
        if major != MAJOR or not (minor.isdigit() or version == major):
            return False
        return version == major or int(minor) <= int(self.version.partition(".")[2])


def build(settings: Settings, say: Callable[[str], None]) -> Engine:
    """Build the image unless it is there. Raises LabError."""
    podman = Podman.of(settings)
    base = image.build(settings, RELEASE, say)
    tag = _IMAGE.tag(base)
    facts = settings.cache / "engines" / f"{tag.rpartition(':')[2]}.json"
    with image.lock(settings.cache):
        if not (facts.exists() and podman.image_exists(tag)):
            say(f"building the databases' image {tag} (half a minute)")
            facts.parent.mkdir(parents=True, exist_ok=True)
            facts.write_text(_IMAGE.make(podman, base))
            for older in facts.parent.glob("*.json"):
                if older != facts:
                    older.unlink()
            _IMAGE.remove_older(podman, tag)
    found = json.loads(facts.read_text())
    return Engine(tag, str(found["version"]).split()[0], catalogue(found["settings"]))


def load(settings: Settings) -> Engine:
    """Return the engine that `build` made. Raises LabError."""
    return build(settings, lambda _: None)
