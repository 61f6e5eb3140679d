# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What shall happen to the background processes of an application (pure).

A *worker* has a name, a command and a number of processes. A *process* is the worker's command with
a release and an environment, `workers/<worker>/<digest>.<n>`, and never changes; its unit is
`<application>-worker-<worker>@<digest>.<n>.service`. Whatever has another digest than the wanted
one is replaced: it ends its job and stops, then the new one starts. Never do both run, since one
process may mean one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_DIGITS = 12


@dataclass(frozen=True)
class Wanted:
    """What a worker shall be."""

    command: str
    unit: str  # the text of its unit
    processes: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """What a worker is: its processes, and whether each of them runs."""

    unit: str = ""
    processes: Mapping[str, bool] = field(default_factory=dict)
    litter: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One thing to do with some processes of a worker."""

    action: str
    worker: str
    processes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.action, self.worker, *self.processes])


def processes_of(
    release: str, environment: Mapping[str, str], command: str, unit: str, number: int
) -> tuple[str, ...]:
    """Return the names of a worker's processes: another release or environment, other names."""
    whole = json.dumps([release, sorted(environment.items()), command, unit])
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]
    return tuple(f"{digest}.{count}" for count in range(1, number + 1))


def make_plan(
    wanted: Mapping[str, Wanted], standing: Mapping[str, Standing]
) -> dict[str, tuple[Step, ...]]:
    """Return for each worker the steps that lead from what stands to what is wanted."""
    return {
        name: steps
        for name in sorted({*wanted, *standing})
        if (steps := _steps(name, wanted.get(name), standing.get(name, Standing())))
    }


def _steps(name: str, wanted: Wanted | None, found: Standing) -> tuple[Step, ...]:
    names: Sequence[str] = wanted.processes if wanted else ()
    old = tuple(sorted(set(found.processes) - set(names)))
    new = tuple(process for process in names if process not in found.processes)
    idle = tuple(process for process in names if not found.processes.get(process, False))
    steps = [Step("discard", name, found.litter)] if found.litter else []
    if wanted and wanted.unit != found.unit:
        steps.append(Step("describe", name))
    if new:
        steps.append(Step("create", name, new))
    if running := tuple(process for process in old if found.processes[process]):
        steps.append(Step("stop", name, running))
    if idle:
        steps += [Step("start", name, idle), Step("settle", name, idle)]
    if old:
        steps.append(Step("remove", name, old))
    if wanted is None:
        steps.append(Step("forget", name))
    return tuple(steps)
