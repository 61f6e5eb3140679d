# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until targets are healthy, and until they have nothing in flight.

Clock, sleep, chance, and what asks AWS and the hosts are passed in. However many hosts there are,
a poll asks AWS once for each group.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.health import absent, is_stuck
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import Member, Target

Read = Callable[[str], list[Member]]
# The requests in flight of each host, by its id, or why it does not tell.
Ask = Callable[[Iterable[str]], Mapping[str, int | str]]
Place = tuple[str, Target]

# So many polls on end must tell a state that no waiting changes, before waiting ends: the API is
# eventually consistent, and tells the state before the last change for a moment.
STUBBORN = 5

IDLE, DEREGISTERED, TIMEOUT, REGISTERED_AGAIN = "idle", "deregistered", "timeout", "registered"


@dataclass(frozen=True)
class Pace:
    """When to poll: more and more seldom, and never in step with other hosts. In seconds."""

    base: float = 1.0
    cap: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def polls(self, timeout: float) -> Iterator[float]:
        """Yield the time that has passed, once a poll; the last poll is at the deadline."""
        start, wait = self.clock(), self.base
        while True:
            spent = self.clock() - start
            yield spent
            if spent >= timeout:
                return
            pause = wait * (0.5 + self.chance())
            self.sleep(max(0.0, min(pause, timeout - (self.clock() - start))))
            wait = min(self.cap, wait * 1.5)


@dataclass(frozen=True)
class Drained:
    """How the drain of a target ended.

    by: idle (it had nothing in flight), deregistered (AWS had ended it), timeout, or registered
    (somebody registered it again). in_flight: what the host told last, None if it told nothing.
    """

    by: str
    seconds: float
    in_flight: int | None = None
    error: str = ""


def find(members: Iterable[Member], target: Target) -> Member:
    """Return a target among those that AWS lists, or what says that it does not."""
    return next((member for member in members if member.target == target), absent(target))


def until_healthy(
    read: Read,
    told: Mapping[str, set[Target]],
    seen: Mapping[str, list[Member]],
    pace: Pace,
    timeout: float,
) -> dict[str, list[Member]]:
    """Wait until every target is healthy, will never be, or time is over; return what was seen.

    told: the targets by group; seen: groups whose state is known well enough for a first look.
    Who comes out unhealthy stands in the answer, with AWS's reason. Raises AwsFailure.
    """
    latest, streaks = dict(seen), Counter[Place]()
    waiting = {group for group, targets in told.items() if targets}
    waiting -= {group for group in waiting & set(seen) if _all_healthy(seen[group], told[group])}
    if not waiting:
        return latest
    for _ in pace.polls(timeout):
        for group in sorted(waiting):
            latest[group] = read(group)
            found = {target: find(latest[group], target) for target in told[group]}
            for target, member in found.items():
                streaks[group, target] = streaks[group, target] + 1 if is_stuck(member) else 0
            if all(
                member.healthy or streaks[group, target] >= STUBBORN
                for target, member in found.items()
            ):
                waiting.discard(group)
        if not waiting:
            break
    return latest


def _all_healthy(members: Iterable[Member], targets: set[Target]) -> bool:
    return targets <= {member.target for member in members if member.healthy}


def until_drained(
    read: Read,
    leaving: Mapping[str, set[Target]],
    ask: Ask | None,
    quiet: float,
    pace: Pace,
    timeout: float,
) -> dict[Place, Drained]:
    """Wait until each target has had nothing in flight for `quiet` seconds, or time is over.

    ask: how the hosts are asked; without it, AWS's own end of the drain is waited for. A moment
    without a request proves nothing while the load balancer's nodes still learn of the change,
    so it must last. Raises AwsFailure.
    """
    ended: dict[Place, Drained] = {}
    open_ = {(group, target) for group, targets in leaving.items() for target in targets}
    back, calm = Counter[Place](), dict[str, float]()
    told: Mapping[str, int | str] = {}

    def end(place: Place, by: str, spent: float) -> None:
        said = told.get(place[1].id)
        flying, error = (None, said) if isinstance(said, str) else (said, "")
        ended[place] = Drained(by, round(spent, 1), flying, error)
        open_.discard(place)

    if not open_:
        return ended
    spent = 0.0
    for spent in pace.polls(timeout):
        told = ask(sorted({target.id for _, target in open_})) if ask else {}
        for host, count in told.items():
            if count == 0:
                calm.setdefault(host, spent)
            else:
                calm.pop(host, None)
        for group in sorted({group for group, _ in open_}):
            members = read(group)
            for place in sorted(item for item in open_ if item[0] == group):
                member = find(members, place[1])
                back[place] = back[place] + 1 if member.registered else 0
                if back[place] >= STUBBORN:
                    end(place, REGISTERED_AGAIN, spent)
                elif member.registered:
                    continue
                elif spent - calm.get(place[1].id, spent + 1) >= quiet:
                    end(place, IDLE, spent)
                elif member.state != "draining":
                    end(place, DEREGISTERED, spent)
        if not open_:
            return ended
    for place in sorted(open_):
        end(place, TIMEOUT, spent)
    return ended
