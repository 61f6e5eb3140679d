# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out one wish about targets: read, plan, refuse, register, wait, deregister, drain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2 import calls, plan, wait
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.ask import Question, asker
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.health import report
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import (
    INSTANCE,
    Group,
    Instance,
    Member,
    TargetError,
    Wish,
    in_words,
)

# A drain is short, and each second of it is one of a deploy.
DRAIN_CAP = 3.0


@dataclass(frozen=True)
class Limits:
    """How long is waited, in seconds: for health, for a drain, and for quiet within a drain."""

    health: float = 300
    drain: float = 300
    quiet: float = 5


class Work:
    """The groups of one wish with their targets, and what is done with them.

    It is read, planned and refused when it is made; nothing is changed until `register`. Raises
    AwsFailure, and TargetError for what may not be.
    """

    def __init__(
        self,
        api: Api,
        wish: Wish,
        groups: list[Group],
        limits: Limits,
        question: Question | None = None,
        describe: bool = True,
        pace: wait.Pace | None = None,
    ) -> None:
        self._api, self.wish, self.groups, self._limits = api, wish, groups, limits
        self._pace = pace or wait.Pace()
        self._begun = False
        self._names = {group.arn: group for group in self.groups}
        self._read = calls.reader(api, self.groups)
        self.members: dict[str, list[Member]] = {arn: self._read(arn) for arn in self._names}
        self.before = {arn: list(found) for arn, found in self.members.items()}
        self._instances = self._described() if describe else None
        self.plan = plan.draw(self.groups, self.members, self.wish, self._zones(), self._instances)
        self.drained: dict[wait.Place, wait.Drained] = {}
        if self.plan.refusals:
            raise TargetError(f"nothing was changed: {'; '.join(self.plan.refusals)}")
        self._ask = asker(question, self._addresses()) if question and wish.wait else None
        self._refuse_the_mute()

    def _described(self) -> dict[str, Instance]:
        if all(group.kind != "instance" for group in self.groups):
            return {}
        ids = {item.id for item in self.wish.targets}
        ids |= {member.target.id for found in self.members.values() for member in found}
        found: dict[str, Instance] = calls.instances(
            self._api, {name for name in ids if INSTANCE.fullmatch(name)}
        )
        return found

    def _zones(self) -> dict[str, str]:
        zones: dict[str, str] = plan.zones_of(
            self.wish.targets, self.members, self._instances or {}
        )
        return zones

    def _addresses(self) -> dict[str, str]:
        """Return where each host that leaves is asked, as far as that is known."""
        known = {item.id: item.address for item in (self._instances or {}).values()}
        for target in set().union(*self.plan.leaving.values()):
            if not INSTANCE.fullmatch(target.id):
                known[target.id] = target.id
        return known | {item.id: item.address for item in self.wish.targets if item.address}

    def _refuse_the_mute(self) -> None:
        """Raise TargetError if a host in service cannot be asked what it has in flight."""
        hosts = {
            member.target.id
            for arn, found in self.members.items()
            for member in found
            if member.healthy and member.target in self.plan.leaving[arn]
        }
        told = self._ask(sorted(hosts)) if self._ask else {}
        mute = [f"{host}: {said}" for host, said in sorted(told.items()) if isinstance(said, str)]
        if mute:
            raise TargetError(
                "nothing was changed: healthy hosts do not tell how many requests they have in "
                f"flight ({in_words(mute)}). Correct drain, or let this machine reach them; with "
                "check: none no host is asked"
            )

    def register(self) -> None:
        """Register, and wait until all named targets are healthy. Raises TargetError."""
        self._begun = True
        if self.wish.absent:
            return
        began = self._pace.clock()
        for group in self.groups:
            changes = self.plan.of(group.arn, plan.REGISTER)
            calls.register(self._api, group, changes)
            if changes:
                del self.members[group.arn]
        if self.wish.wait:
            self.members = wait.until_healthy(
                self._read, self.plan.told, self.members, self._pace, self._limits.health
            )
        self.members |= {arn: self._read(arn) for arn in set(self._names) - set(self.members)}
        ill = [
            report(self._names[arn], member)
            for arn, told in self.plan.told.items()
            for member in (wait.find(self.members[arn], target) for target in sorted(told))
            if self.wish.wait and not member.healthy
        ]
        if ill:
            kept = " Nothing was deregistered." if self.wish.exact else ""
            count = sum(map(len, self.plan.told.values()))
            more = f"; and {len(ill) - 10} more" if len(ill) > 10 else ""
            raise TargetError(
                f"{len(ill)} of {count} targets are not healthy after "
                f"{self._pace.clock() - began:.0f} s: {'; '.join(ill[:10])}{more}.{kept}",
                self.result(registered_only=True),
            )

    def deregister(self) -> None:
        """Deregister, and wait until nothing is in flight. Raises TargetError."""
        if self.wish.exact and any(self.plan.leaving.values()):
            self._refuse_again()
        for group in self.groups:
            calls.deregister(self._api, group, self.plan.of(group.arn, plan.DEREGISTER))
        if self.wish.wait and any(self.plan.leaving.values()):
            self.drained = wait.until_drained(
                self._read,
                self.plan.leaving,
                self._ask,
                self._limits.quiet,
                replace(self._pace, cap=DRAIN_CAP),
                self._limits.drain,
            )
        if any(self.plan.leaving.values()):
            self.members = {arn: self._read(arn) for arn in self._names}
        back = sorted(
            f"{place[1]} in {self._names[place[0]].name}"
            for place, end in self.drained.items()
            if end.by == wait.REGISTERED_AGAIN
        )
        if back:
            raise TargetError(
                f"somebody else has registered {in_words(back)} again while this task "
                "deregistered it: end that, then run again",
                self.result(),
            )

    def _refuse_again(self) -> None:
        """Raise TargetError if what was enough before the wait for health no longer is.

        A group whose targets were soon healthy has waited for the others since.
        """
        self.members = {arn: self._read(arn) for arn in self._names}
        short = [
            line
            for group in self.groups
            for line in plan.shortfalls(
                group,
                self.members[group.arn],
                self.plan.leaving[group.arn],
                set(),
                self._zones(),
                self.wish,
            )
        ]
        if short:
            raise TargetError(
                "all were registered and nothing was deregistered, as others have failed "
                f"meanwhile: {'; '.join(short)}",
                self.result(registered_only=True),
            )

    def result(self, registered_only: bool = False) -> dict[str, Any]:
        """Return what the module returns; planned changes count as made."""
        done = [
            item
            for item in self.plan.changes
            if not registered_only or item.action == plan.REGISTER
        ]
        made = plan.Plan(changes=done)
        before, after, groups = {}, {}, []
        zones = self._zones()
        for group in self.groups:
            found = self.before[group.arn]
            registered = plan.after(made, group.arn, found)
            now = self.members[group.arn]
            standing = {m.target for m in now if m.registered} if self._begun else registered
            sound = {m.target for m in now if m.healthy} & standing
            counts = plan.balance(standing, sound, zones)
            before[group.name] = sorted(str(m.target) for m in found if m.registered)
            after[group.name] = sorted(map(str, registered))
            groups.append(
                {
                    "name": group.name,
                    "arn": group.arn,
                    "targets": len(standing),
                    "healthy": len(sound),
                    "zones": counts,
                    "balanced": plan.is_balanced(counts),
                }
            )
        return {
            "changed": bool(done),
            "changes": [
                {
                    "action": item.action,
                    "group": self._names[item.group].name,
                    "id": item.target.id,
                    "port": item.target.port,
                }
                for item in done
            ],
            "targets": [row for group in self.groups for row in self._rows(group, zones)],
            "groups": groups,
            "diff": {"before": before, "after": after},
            "warnings": sorted(set(self.plan.warnings)),
        }

    def _rows(self, group: Group, zones: Mapping[str, str]) -> list[dict[str, Any]]:
        rows = []
        for target in sorted(self.plan.told[group.arn] | self.plan.leaving[group.arn]):
            member = wait.find(self.members[group.arn], target)
            row: dict[str, Any] = {
                "group": group.name,
                "id": target.id,
                "port": target.port,
                "zone": zones.get(target.id, ""),
                "state": member.state,
                "reason": member.reason,
                "description": member.description,
            }
            if end := self.drained.get((group.arn, target)):
                row |= {"drained_by": end.by, "drain_seconds": end.seconds}
                row |= {"in_flight": end.in_flight, "drain_error": end.error}
            rows.append(row)
        return rows
