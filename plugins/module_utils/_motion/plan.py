# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left to do for a move, from what is there (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Wanted = Literal["copied", "verified", "switched", "returned", "finished"]
Step = Literal["prepare", "copy", "verify", "switch", "settle", "finish"]

STATES: tuple[Wanted, ...] = ("copied", "verified", "switched", "returned", "finished")

# How many values of each sequence a switch leaves out.
MARGIN = 1000
# 760 MB were copied in 46 s, under 400 transactions a second on two processors.
COPY_BYTES_A_SECOND = 16e6


@dataclass(frozen=True)
class Observed:
    """A move as it stands.

    `at` is the side with the data. `follows`: the other side has every table and is kept up to
    date. `settled`: nothing of an attempt that was cut off is left. `verified_s` is how many
    seconds ago both sides were found the same, None if they were not, or not since the last switch.
    """

    at: Literal["origin", "other"]
    prepared: bool
    follows: bool
    settled: bool
    finished: bool
    verified_s: float | None


class Impossible(Exception):
    """What is wanted cannot be reached from what is there; the text says why and what to do."""


def steps(observed: Observed, wanted: Wanted, fresh_s: float) -> list[Step]:
    """What is to be done, in its order. Raises Impossible.

    `fresh_s`: how many seconds a verification is good for.
    """
    if observed.finished:
        if wanted == "finished":
            return []
        if wanted == "returned":
            raise Impossible(
                "The move is finished, and the way back was given up with that. Move back as a "
                "move of its own, with the sides exchanged."
            )
        if observed.at == "other" and wanted in ("copied", "verified", "switched"):
            return []
    goal = "origin" if wanted == "returned" else "other"
    follow: list[Step] = []
    if not observed.prepared:
        follow.append("prepare")
    if not observed.settled:
        follow.append("settle")
    if not observed.follows and not (wanted == "finished" and observed.at == "other"):
        follow.append("copy")
    verified = observed.verified_s is not None and observed.verified_s <= fresh_s
    if wanted == "copied":
        return follow if observed.at == "origin" else [s for s in follow if s != "prepare"]
    if wanted == "verified":
        return follow + ([] if verified else ["verify"])
    if wanted in ("switched", "returned"):
        if observed.at == goal:
            return [step for step in follow if step != "prepare"]
        return follow + ([] if verified else ["verify"]) + ["switch", "settle"]
    if observed.at != "other":
        raise Impossible(
            "The data is at the source still, so there is nothing to retire. First bring the move "
            "to `switched`."
        )
    return [*[step for step in follow if step == "settle"], "finish"]


def copy_seconds(size: int) -> int:
    """About how long a copy takes. `size` in bytes."""
    return max(1, round(size / COPY_BYTES_A_SECOND))


def words(
    step: Step, origin: str, other: str, at: str, size: int, tables: int, wal: float, compare: str
) -> str:
    """A step as the user reads it.

    `size` in bytes, `wal` in bytes a second; `compare` is how thoroughly (`full`, `sampled`).
    """
    there = other if at == origin else origin
    seconds = copy_seconds(size)
    rows = "all rows" if compare == "full" else "the number of rows, and a sample of them,"
    return {
        "prepare": f"lay the ledger of the move in both databases ({origin}, {other})",
        "copy": (
            f"freeze the schema, copy {tables} tables with {size / 1e6:.0f} MB from {at} to "
            f"{there} (about {seconds} s at {COPY_BYTES_A_SECOND / 1e6:.0f} MB/s; {at} keeps its "
            f"WAL meanwhile, {seconds * wal / 1e6:.0f} MB at the {wal / 1e6:.2f} MB/s of now) and "
            "keep them up to date"
        ),
        "verify": f"compare {rows} of {at} and {there}",
        "switch": f"pause the poolers and lead them from {at} to {there}",
        "settle": "have the side without the data follow the one that has it, for the way back",
        "finish": f"give up the way back to {origin}, and thaw the schema",
    }[step]
