# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may work on an environment (pure): decisions over a lease, as read from its table."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Literal, TypedDict


class Process(TypedDict):
    """A run of Ansible: the process and where it runs."""

    user: str
    host: str
    machine: str  # tells machines and process namespaces apart, even with equal host names
    boot: str  # changes when the machine starts anew
    pid: int
    started: str  # tells a process from a later one with the same number


class Lease(TypedDict):
    """A lease as it is kept: its holder, and until when (seconds since 1970)."""

    holder: Process
    since: float
    expires: float
    token: str  # changes with each writing, for compare and set


class Decision(TypedDict):
    """What may be done, and why, in words."""

    action: Literal["take", "renew", "retake", "refuse"]
    reason: str


def name(process: Process) -> str:
    """Return a process as people read it, such as `anna@laptop (process 4711)`."""
    return f"{process['user']}@{process['host']} (process {process['pid']})"


def clock_time(seconds: float) -> str:
    """Return a point in time as people read it, in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def same(one: Process, other: Process) -> bool:
    """Tell whether both are the same run."""
    keys = ("machine", "boot", "pid", "started")
    return all(one[key] == other[key] for key in keys)  # type: ignore[literal-required]


def decide(
    lease: Lease | None, me: Process, now: float, alive: Callable[[Process], bool]
) -> Decision:
    """Return what `me` may do at `now`, given what is written.

    alive: asked only for a process of this machine and this boot.
    """
    if lease is None:
        return {"action": "take", "reason": "nobody holds it"}
    holder = lease["holder"]
    if same(holder, me):
        return {"action": "renew", "reason": "this run holds it"}
    if holder["machine"] == me["machine"]:
        if holder["boot"] != me["boot"]:
            return {
                "action": "retake",
                "reason": f"{name(holder)} ended with its machine's restart",
            }
        if not alive(holder):
            return {"action": "retake", "reason": f"{name(holder)} ended without releasing it"}
    if lease["expires"] <= now:
        return {
            "action": "retake",
            "reason": f"the lease of {name(holder)} ran out at {clock_time(lease['expires'])}",
        }
    return {
        "action": "refuse",
        "reason": f"{name(holder)} holds it since {clock_time(lease['since'])}; its lease ends at "
        f"{clock_time(lease['expires'])} unless it is renewed",
    }
