# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What shall happen to the releases of a host: pure, so that check mode can tell it.

Words. A *release* is built code, `releases/<release>`, and never changes. An *instance* is a
release with an environment and a start command, `instances/<release>.<n>`, and never changes
either; its unit is `<application>@<release>.<n>.service`. The link `live` names the instance
that serves. Whatever else is on the disk is a leftover.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class PlanError(Exception):
    """What is wanted cannot be reached from what is there."""


@dataclass(frozen=True)
class Release:
    """A folder of `releases/`; half-built ones have `built=False`."""

    name: str
    built: bool = True
    digest: str = ""
    migrated: bool = False
    used_at: float = 0.0  # when it was built or last went live, seconds since the epoch


@dataclass(frozen=True)
class Instance:
    """A folder of `instances/`."""

    name: str
    release: str
    checksum: str
    previous: str = ""  # the release that was live before this one
    rolled_back: bool = False
    path: tuple[str, ...] = ()  # folders of the release in front of PATH
    secret: tuple[str, ...] = ()  # names of the variables whose values are secrets


@dataclass(frozen=True)
class Found:
    """What the host has."""

    releases: Mapping[str, Release] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    live: str = ""
    running: frozenset[str] = frozenset()  # instances whose unit is not stopped
    litter: tuple[str, ...] = ()  # paths left by a killed run
    in_use: frozenset[str] = frozenset()  # releases that background processes run

    @property
    def live_instance(self) -> Instance | None:
        """The instance that serves, or None before the first deployment."""
        return self.instances.get(self.live)

    @property
    def live_release(self) -> str:
        """The release that serves, or nothing."""
        return self.live_instance.release if self.live_instance else ""


@dataclass(frozen=True)
class Desired:
    """What the host shall have."""

    release: str
    checksum: str  # of the environment, the start command and the unit
    digest: str = ""  # of the source and the build; empty: whatever bears the name
    can_build: bool = False
    migrate: bool = False
    go_live: bool = True
    rollback: bool = False
    keep: int = 5


@dataclass(frozen=True)
class Step:
    """One thing to do; `apply` has a method for each action."""

    action: str
    target: str

    def __str__(self) -> str:
        return f"{self.action} {self.target}"


@dataclass(frozen=True)
class Plan:
    """The steps in their order, and what stands after them."""

    steps: tuple[Step, ...]
    instance: str
    previous: str


def valid_release(name: str) -> bool:
    """Tell whether a name can be a release: it becomes a folder, a unit and a socket."""
    return bool(_NAME.fullmatch(name))


def rollback_target(found: Found, wanted: str = "") -> str:
    """Return the release that a rollback leads to.

    Without a name: the release that was live before this one. Once there, the same request
    leads nowhere else, so that a rollback may be repeated. Raises PlanError if there is none.
    """
    live = found.live_instance
    built = sorted(name for name, release in found.releases.items() if release.built)
    choice = f"Releases on this host: {', '.join(built) or 'none'}"
    if wanted:
        if wanted not in built:
            raise PlanError(f"Release {wanted} is not on this host, deploy it instead. {choice}")
        return wanted
    if live is None:
        raise PlanError(f"No release is live, so there is none to go back from. {choice}")
    if live.rolled_back:
        return live.release
    if not live.previous:
        raise PlanError(f"No release was live before {live.release}. {choice}")
    if live.previous not in built:
        raise PlanError(
            f"Release {live.previous}, live before {live.release}, is gone from this host. {choice}"
        )
    return live.previous


def make_plan(desired: Desired, found: Found) -> Plan:
    """Return the steps that lead from what is found to what is desired; none if it is there."""
    steps = [Step("discard", path) for path in found.litter]
    steps += _build_steps(desired, found)
    if not desired.go_live:
        return Plan(tuple(steps), found.live, _previous(found))
    live = found.live_instance
    if live and (live.release, live.checksum) == (desired.release, desired.checksum):
        target, previous = live.name, live.previous
        if target not in found.running:
            steps += [Step("start", target), Step("gate", target)]
    else:
        target, create = _candidate(desired, found)
        previous = _previous_of_new(desired.release, found)
        steps += [Step("create", target)] if create else []
        steps += [Step(action, target) for action in ("start", "gate", "switch")]
    for name in sorted(found.running - {target}):
        steps += [Step("drain", name), Step("stop", name)]
    steps += [Step("remove", name) for name in sorted(set(found.instances) - {target})]
    steps += [Step("prune", name) for name in _surplus(desired, found, previous)]
    return Plan(tuple(steps), target, previous)


def _build_steps(desired: Desired, found: Found) -> list[Step]:
    live = found.releases.get(found.live_release)
    if live and not live.built:
        raise PlanError(
            f"The live release {live.name} lost the mark of a built release; it is left alone. "
            "Deploy another release, after restoring its marker file"
        )
    steps = [
        Step("discard", f"releases/{name}")
        for name, release in sorted(found.releases.items())
        if not release.built
    ]
    release = found.releases.get(desired.release)
    if release is None or not release.built:
        if not desired.can_build:
            raise PlanError(f"Release {desired.release} is not built on this host")
        steps.append(Step("build", desired.release))
        migrated = False
    else:
        if desired.digest and release.digest != desired.digest:
            raise PlanError(
                f"Release {desired.release} is on this host with other content, and a release "
                "never changes: deploy this source under another name"
            )
        migrated = release.migrated
    if desired.go_live and desired.migrate and not migrated:
        steps.append(Step("migrate", desired.release))
    return steps


def _candidate(desired: Desired, found: Found) -> tuple[str, bool]:
    """Return the instance to go live, and whether it must be created.

    A killed run may have left the very instance: it is taken up where it stands.
    """
    numbers = [0]
    for name, instance in sorted(found.instances.items()):
        if instance.release != desired.release:
            continue
        if instance.checksum == desired.checksum and name != found.live:
            return name, False
        numbers.append(int(name.rpartition(".")[2]))
    numbers += [
        int(name.rpartition(".")[2])
        for name in found.running
        if name.rpartition(".")[0] == desired.release and name.rpartition(".")[2].isdigit()
    ]
    return f"{desired.release}.{max(numbers) + 1}", True


def _previous(found: Found) -> str:
    return found.live_instance.previous if found.live_instance else ""


def _previous_of_new(release: str, found: Found) -> str:
    """Return the release before this one; a new environment alone does not count as one."""
    return found.live_release if found.live_release != release else _previous(found)


def _surplus(desired: Desired, found: Found, previous: str) -> list[str]:
    """Return the releases that go: all but the newest `keep`, and those that are needed."""
    wanted = ({desired.release, previous} | found.in_use) - {""}
    built = [release for release in found.releases.values() if release.built]
    others = sorted(
        (release for release in built if release.name not in wanted),
        key=lambda release: (-release.used_at, release.name),
    )
    room = max(desired.keep - len(wanted), 0)
    return [release.name for release in reversed(others[room:])]
