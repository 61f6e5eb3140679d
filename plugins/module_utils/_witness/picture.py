# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timeline of a run as one SVG: latencies, failures, pauses, phases. Pure: report in, text out.

Its size is bounded however long the run was: answers that fall on the same pixel are one dot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._witness.audit import (
    Evidence,
    Run,
    streams,
)

WIDTH = 1280
LEFT, RIGHT = 92, 24
PLOT = WIDTH - LEFT - RIGHT
LANE = 132
GAP = 34
# Text and dots keep a contrast of at least 4.5 to 1 on white; the hues differ for those who do
# not tell red from green.
INK, SOFT, LINE, PAPER = "#1b1f24", "#57606a", "#d8dee4", "#ffffff"
BLUE, VIOLET, RED, AMBER, BAND = "#0b5cad", "#6f42c1", "#c2182b", "#9a5b00", "#f3f6f9"
FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
# Steps of the time axis, in seconds.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MAX_DRAWN = 400


class Scale:
    """Wall time to x, latency to y (logarithmic from 1 ms to the next power of ten)."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.end = max(end, begin + 1)

    def x(self, wall: float) -> float:
        """The pixel of a wall time, clamped to the plot."""
        share = (wall - self.begin) / (self.end - self.begin)
        return round(LEFT + PLOT * min(1.0, max(0.0, share)), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Round wall times, about eight of them, with their labels."""
        span = self.end - self.begin
        step = next((s for s in STEPS if span / s <= 10), 7200)
        first = math.ceil(self.begin / step) * step
        style = "%H:%M:%S" if step < 60 else "%H:%M"
        times = [first + i * step for i in range(int((self.end - first) // step) + 1)]
        return [(t, datetime.fromtimestamp(t, tz=UTC).strftime(style)) for t in times]


def text(
    x: float,
    y: float,
    words: str,
    size: int = 12,
    color: str = INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    """One line of text; a halo keeps it readable where it crosses lines."""
    halo = f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"' if color != PAPER else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
        f' font-weight="{weight}"{halo}>{escape(words)}</text>'
    )


def dots(places: Iterable[tuple[float, float]], color: str, size: float = 3.0) -> str:
    """Many dots as one path; those on the same pixel are drawn once."""
    cells = sorted({(round(x), round(y)) for x, y in places})
    if not cells:
        return ""
    path = "".join(f"M{x} {y}h0" for x, y in cells)
    return (
        f'<path d="{path}" stroke="{color}" stroke-width="{size:g}" stroke-linecap="round"'
        ' stroke-opacity="0.7" fill="none"/>'
    )


def latency_top(values: Sequence[float]) -> int:
    """The power of ten above the largest latency: 2 (100 ms) to 5 (100 s)."""
    largest = max(values, default=1.0)
    return min(5, max(2, math.ceil(math.log10(max(largest, 1.0)))))


def human(ms: float | None) -> str:
    """A duration as people read it."""
    if ms is None:
        return "none"
    if ms >= 10000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:,.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


class Lane:
    """One band of the picture: a stream's answers by latency, errors on its top edge."""

    def __init__(self, title: str, color: str) -> None:
        self.title = title
        self.color = color
        self.answers: list[tuple[float, float]] = []
        self.errors: list[tuple[float, str]] = []
        self.stale: list[tuple[float, str]] = []
        self.pauses: list[tuple[float, float]] = []

    def draw(self, scale: Scale, top: float) -> list[str]:
        """The lane's shapes, its upper edge at `top`."""
        powers = latency_top([ms for _at, ms in self.answers])
        floor = top + LANE

        def y(ms: float) -> float:
            return floor - 14 - (LANE - 42) * math.log10(max(ms, 1.0)) / powers

        count = f"{len(self.answers):,} answered"
        if self.errors:
            count += f", {len(self.errors):,} failed"
        if self.stale:
            count += f", {len(self.stale):,} stale"
        out = [
            text(LEFT, top - 8, self.title, 13, INK, weight=600),
            text(WIDTH - RIGHT, top - 8, count, 12, SOFT, "end"),
            f'<rect x="{LEFT}" y="{top}" width="{PLOT}" height="{LANE}" fill="none"'
            f' stroke="{LINE}"/>',
        ]
        for power in range(powers + 1):
            at = y(10**power)
            label = f"{10**power} ms" if power < 3 else f"{10 ** (power - 3)} s"
            out.append(
                f'<path d="M{LEFT} {at:.1f}h{PLOT}" stroke="{LINE}" stroke-width="0.7"'
                ' stroke-dasharray="2 4"/>'
            )
            out.append(text(LEFT - 8, at + 4, label, 11, SOFT, "end"))
        labelled = -1e9
        for at, ms in sorted(self.pauses, key=lambda pause: -pause[1])[:MAX_DRAWN]:
            left, right = scale.x(at), scale.x(at + ms / 1000)
            out.append(
                f'<rect x="{left}" y="{top}" width="{max(1.5, right - left):.1f}"'
                f' height="{LANE}" fill="{AMBER}" fill-opacity="0.18"><title>no answer for'
                f" {human(ms)}</title></rect>"
            )
        for at, ms in sorted(sorted(self.pauses, key=lambda pause: -pause[1])[:6]):
            # Labels of neighbours would cover each other: the earlier one stands for both.
            if scale.x(at) - labelled < 120:
                continue
            labelled = scale.x(at)
            anchor = "end" if labelled > WIDTH - 160 else "start"
            out.append(text(labelled, floor - 4, f"pause {human(ms)}", 11, AMBER, anchor, 600))
        out.append(dots(((scale.x(at), y(ms)) for at, ms in self.answers), self.color))
        for at, why in self.errors[:MAX_DRAWN]:
            x = scale.x(at)
            out.append(
                f'<path d="M{x - 4:g} {top + 8}l8 8m0 -8l-8 8" stroke="{RED}" stroke-width="1.8">'
                f"<title>{escape(why)}</title></path>"
            )
        for at, why in self.stale[:MAX_DRAWN]:
            x = scale.x(at)
            out.append(
                f'<path d="M{x:g} {top + 6}l5 10h-10z" fill="{VIOLET}">'
                f"<title>{escape(why)}</title></path>"
            )
        return out


def lanes_of(evidence: Evidence) -> list[Lane]:
    """One lane a stream, joined over the lives of a witness."""
    lanes: dict[str, Lane] = {}
    for run in evidence.runs:
        for name, kind, answers, errors, _rate in streams(run):
            title = "requests at the front door" if kind == "http" else name
            lane = lanes.setdefault(title, Lane(title, VIOLET if kind == "read" else BLUE))
            for event in answers:
                ms = float(event["ms"])
                lane.answers.append((float(event["w"]) - ms / 1000, ms))
                if "stale" in event:
                    why = f"stale: acknowledged {event['want']}, shown {event['reg']}"
                    lane.stale.append((float(event["w"]), why))
            for event in errors:
                cause = event.get("cause") or event["e"]
                why = f"{event.get('r', name)}: {cause} {event.get('detail') or ''}"
                lane.errors.append((float(event["w"]) - float(event["ms"]) / 1000, why))
        add_bad_reads(run, lanes)
    return list(lanes.values())


def add_bad_reads(run: Run, lanes: dict[str, Lane]) -> None:
    """Mark what could not be read back on the lane of its journey."""
    for name, writer in run.start.get("journeys", {}).items():
        lane = lanes.get(f"journey {name}")
        for event in run.events:
            if lane and event["e"] == "jread" and event["j"] == writer and "cause" in event:
                at = float(event["w"]) - float(event["ms"]) / 1000
                why = f"read of {event['n']}: {event['cause']} {event.get('detail', '')}"
                (lane.stale if event["cause"] == "missing" else lane.errors).append((at, why))


def tile(x: float, y: float, width: float, value: str, label: str, bad: bool) -> str:
    """One figure with its name."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="58" rx="6" fill="{BAND}"/>'
        + text(x + 12, y + 27, value, 20, RED if bad else INK, weight=700)
        + text(x + 12, y + 46, label, 11, SOFT)
    )


def figures(summary: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """The tiles: value, label, whether it is bad news."""
    return [
        (f"{summary['requests']:,}", "requests", summary["requests"] == 0),
        (f"{summary['failed_requests']:,}", "failed requests", summary["failed_requests"] > 0),
        (f"{summary['acknowledged_writes']:,}", "writes acknowledged", False),
        (f"{summary['lost_writes']:,}", "writes lost", summary["lost_writes"] > 0),
        (f"{summary['duplicated_writes']:,}", "duplicated", summary["duplicated_writes"] > 0),
        (f"{summary['stale_reads']:,}", "stale reads", summary["stale_reads"] > 0),
        (human(summary["longest_write_pause_ms"]), "longest write pause", False),
        (human(summary["longest_read_pause_ms"]), "longest read pause", False),
        (human(summary["p99_ms"]), f"p99, p50 is {human(summary['p50_ms'])}", False),
    ]


def draw_marks(marks: list[dict[str, Any]], scale: Scale, top: float, bottom: float) -> list[str]:
    """Alternating bands from mark to mark, with their names where they have room."""
    out = []
    edges = [scale.x(float(m["w"])) for m in marks] + [float(LEFT + PLOT)]
    free = [0.0, 0.0, 0.0]
    for number, mark in enumerate(marks):
        left, right = edges[number], edges[number + 1]
        if number % 2 == 0 and right > left:
            out.append(
                f'<rect x="{left}" y="{top}" width="{right - left:.1f}" height="{bottom - top}"'
                f' fill="{BAND}"/>'
            )
        out.append(f'<path d="M{left} {top}V{bottom}" stroke="{SOFT}" stroke-width="1"/>')
        # A name goes to the first of three rows where it covers no other; a name that meets the
        # right edge stands to the left of its line.
        name = str(mark["name"])
        width = 7.6 * len(name) + 14
        back = left + width > WIDTH - RIGHT
        begin = left - width if back else left
        row = next((r for r in range(3) if begin >= free[r]), 2)
        free[row] = max(free[row], begin + width)
        anchor, shift = ("end", -5) if back else ("start", 5)
        out.append(text(left + shift, top + 14 + 15 * row, name, 12, INK, anchor, 600))
    return out


def draw(evidence: Evidence, report: dict[str, Any], title: str) -> str:
    """The whole picture."""
    lanes = lanes_of(evidence)
    for pause in report["pauses"]:
        for lane in lanes:
            http = pause["stream"] == "http" and lane.title == "requests at the front door"
            if http or lane.title == pause["stream"]:
                lane.pauses.append((pause["at"], pause["ms"]))
    begin = min((float(run.start["w"]) for run in evidence.runs), default=0.0)
    end = max((float(run.last["w"]) for run in evidence.runs), default=begin + 1)
    scale = Scale(begin, end)
    summary = report["summary"]
    clean = report["verdict"] == "clean"
    day = datetime.fromtimestamp(begin, tz=UTC).strftime("%Y-%m-%d")
    body: list[str] = []
    y = 40.0
    body.append(text(LEFT - 68, y, title, 20, INK, weight=700))
    badge = "CLEAN" if clean else "UNCLEAN"
    body.append(
        f'<rect x="{WIDTH - RIGHT - 96}" y="{y - 22}" width="96" height="30" rx="15"'
        f' fill="{BLUE if clean else RED}"/>'
    )
    body.append(text(WIDTH - RIGHT - 48, y - 2, badge, 13, PAPER, "middle", 700))
    y += 22
    body.append(text(LEFT - 68, y, f"{day}, times in UTC, {summary['seconds']:,.0f} s", 12, SOFT))
    y += 20
    tiles = figures(summary)
    step = (WIDTH - RIGHT - 24 + 10) / len(tiles)
    for number, (value, label, bad) in enumerate(tiles):
        body.append(tile(24 + number * step, y, step - 10, value, label, bad))
    y += 84
    for reason in report["reasons"][:8]:
        words = reason if len(reason) <= 170 else reason[:169] + "…"
        body.append(text(24, y, f"✗ {words}", 12, RED))
        y += 18
    if len(report["reasons"]) > 8:
        body.append(text(24, y, f"and {len(report['reasons']) - 8} more reasons", 12, RED))
        y += 18
    top = y
    first = y + (64 if evidence.marks else 26)
    bottom = first + len(lanes) * (LANE + GAP) - GAP + 6
    body += draw_marks(evidence.marks, scale, top, bottom)
    for at, label in scale.ticks():
        x = scale.x(at)
        body.append(f'<path d="M{x} {first}V{bottom}" stroke="{LINE}" stroke-width="0.7"/>')
        body.append(text(x, bottom + 18, label, 11, SOFT, "middle"))
    for number, lane in enumerate(lanes):
        body += lane.draw(scale, first + number * (LANE + GAP))
    y = bottom + 44
    legend = [
        (BLUE, "answered (height: latency, log scale)"),
        (VIOLET, "read back"),
        (AMBER, "shaded: a pause of 100 ms or more"),
        (RED, "✗ failed"),
        (VIOLET, "▲ stale"),
    ]
    x = float(LEFT)
    for color, words in legend:
        body.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{color}"/>')
        body.append(text(x + 10, y, words, 11, SOFT))
        x += 30 + 6.3 * len(words)
    height = y + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
        f' width="{WIDTH}" height="{height:g}" font-family="{FONT}">\n'
        f"<title>{escape(title)}: {badge.lower()}</title>\n"
        f'<rect width="{WIDTH}" height="{height:g}" fill="{PAPER}"/>\n'
        + "\n".join(part for part in body if part)
        + "\n</svg>\n"
    )
