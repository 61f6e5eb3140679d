# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the witness's journals and the databases' rows say together. Pure: lines in, report out.

A journal holds one or more runs, each from a `start` line to an `end` line; a run without an end
was killed. Times inside a run are compared by the monotonic clock, across journals by the wall
clock.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

Event = dict[str, Any]

# What a change may cost before its audit is unclean; None: measured, not judged. Lost and
# duplicated writes have no limit: they are never allowed.
DEFAULT_LIMITS: dict[str, float | None] = {
    "failed_requests": 0,
    "failed_writes": 0,
    "failed_reads": 0,
    "unknown_writes": 0,
    "stale_reads": 0,
    "longest_write_pause_ms": None,
    "longest_read_pause_ms": None,
    "p99_ms": None,
}
SHOWN = 20


@dataclass
class Run:
    """One life of a witness: its `start` line and what followed."""

    source: str
    start: Event
    events: list[Event] = field(default_factory=list)

    @property
    def probe(self) -> str:
        """`http` or `sql`."""
        return str(self.start["probe"])

    @property
    def end(self) -> Event | None:
        """The `end` line, None if the witness was killed or still runs."""
        return next((e for e in reversed(self.events) if e["e"] == "end"), None)

    @property
    def last(self) -> Event:
        """The last thing that it said."""
        return self.events[-1] if self.events else self.start

    @property
    def until(self) -> float:
        """The monotonic time up to which it looked."""
        stopping = next((e for e in reversed(self.events) if e["e"] == "stopping"), None)
        return float((stopping or self.last)["t"])

    def wall(self, mono: float) -> float:
        """Turn one of this run's monotonic times into a wall time."""
        return float(self.start["w"]) + mono - float(self.start["t"])


@dataclass
class Evidence:
    """All runs of all journals, the marks, and how many lines could not be read."""

    runs: list[Run]
    marks: list[Event]
    torn: int


@dataclass(frozen=True)
class Pause:
    """A time without an answer, from the wall time `at` when the next one was due."""

    ms: float
    at: float
    stream: str


def read_lines(lines: Iterable[str]) -> tuple[list[Event], int]:
    """Parse JSON lines; count those that are torn instead of failing on them."""
    events, torn = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "e" not in event or "w" not in event:
                raise ValueError("no event")
        except ValueError:
            torn += 1
            continue
        events.append(event)
    return events, torn


def gather(journals: Iterable[tuple[str, Iterable[str]]]) -> Evidence:
    """Split journals (name, lines) into runs; `mark` lines may stand in any of them."""
    runs: list[Run] = []
    marks: list[Event] = []
    torn = 0
    for source, lines in journals:
        events, bad = read_lines(lines)
        torn += bad
        current: Run | None = None
        for event in events:
            if event["e"] == "mark":
                marks.append(event)
            elif event["e"] == "start":
                current = Run(source, event)
                runs.append(current)
            elif current is not None:
                current.events.append(event)
            else:
                torn += 1
    marks.sort(key=lambda mark: float(mark["w"]))
    runs.sort(key=lambda run: float(run.start["w"]))
    return Evidence(runs, marks, torn)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted values; None for none."""
    if not values:
        return None
    return values[min(len(values) - 1, int(len(values) * share))]


def pauses(run: Run, stream: str, begin: float, times: Iterable[float], rate: float) -> list[Pause]:
    """Every gap between answers beyond the schedule, from `begin` to the run's last look."""
    interval = 1.0 / rate
    found = []
    due = begin
    stalls = own_stalls(run, stream)
    for now in [*sorted(times), max(run.until, begin)]:
        while stalls and stalls[0][1] <= now:
            missed, resumed = stalls.pop(0)
            # Nothing was overdue when the witness itself was held up: the schedule begins anew.
            if due >= missed - interval / 2:
                due = max(due, resumed)
        if now > due:
            found.append(Pause(round((now - due) * 1000, 1), run.wall(due), stream))
        due = max(due, now + interval)
    return found


def own_stalls(run: Run, stream: str) -> list[tuple[float, float]]:
    """When a stream's schedule was held up by the witness's own machine: (missed, resumed)."""
    loop = stream.replace(" through the ", " ").removesuffix(" URL")
    return [
        (float(e["t"]) - float(e["ms"]) / 1000, float(e["t"]))
        for e in run.events
        if e["e"] == "stall" and e["loop"] == loop
    ]


def streams(run: Run) -> Iterator[tuple[str, str, list[Event], list[Event], float]]:
    """The run's streams: (name, `write` or `read` or `http`, answers, errors, rate)."""
    rate = float(run.start["rate"])
    if run.probe == "http":
        done = [e for e in run.events if e["e"] == "done"]
        errors = [e for e in run.events if e["e"] == "error"]
        if done or errors:
            yield "http", "http", done, errors, rate
        for name, writer in run.start.get("journeys", {}).items():
            own = [e for e in run.events if e.get("j") == writer]
            acks = [e for e in own if e["e"] == "jack"]
            errors = [e for e in own if e["e"] in ("jfailed", "junknown")]
            if acks or errors:
                yield f"journey {name}", "write", acks, errors, run.start["journey_rates"][name]
        return
    names = run.start["writers"]
    for name in names:
        own = [e for e in run.events if e.get("d") == name]
        acks = [e for e in own if e["e"] == "ack"]
        errors = [e for e in own if e["e"] in ("failed", "unknown", "clash")]
        if acks or errors:
            yield f"write {name}", "write", acks, errors, rate
        ways = sorted({e["via"] for e in own if "via" in e})
        for via in ways:
            reads = [e for e in own if e["e"] == "read" and e["via"] == via]
            errors = [e for e in own if e["e"] == "rfailed" and e["via"] == via]
            read_rate = float(run.start["read_rate"]) / len(ways)
            yield f"read {name} through the {via} URL", "read", reads, errors, read_rate


def begin_of(run: Run, kind: str, answers: list[Event], errors: list[Event], name: str) -> float:
    """When the first of a stream was due."""
    first = min(float(e["t"]) - float(e.get("ms") or 0) / 1000 for e in [*answers, *errors])
    if kind == "write":
        sent = [e for e in run.events if e["e"] == "sent" and f"write {e.get('d')}" == name]
    elif kind == "http":
        sent = [e for e in run.events if e["e"] == "sent"]
    else:
        sent = []
    return min([first, *(float(e["due"]) for e in sent[:1])])


def clock(wall: float) -> str:
    """A wall time as people read it."""
    moment = datetime.fromtimestamp(wall, tz=UTC)
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def listed(numbers: Sequence[Any]) -> str:
    """The first numbers of a list, and how many more there are."""
    text = ", ".join(str(n) for n in numbers[:SHOWN])
    return text + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")


@dataclass
class Holdings:
    """What the databases hold, joined by writer."""

    # writer -> number -> the primaries that hold it, once an occurrence
    places: dict[str, dict[int, list[str]]]
    altered: dict[str, dict[int, Any]]
    registers: dict[str, int]
    unreadable: list[str]
    primaries: list[str]
    copies: list[str]


def join(holdings: Iterable[dict[str, Any]]) -> Holdings:
    """Join what was read; one database under two names counts once, copies not at all."""
    places: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    altered: dict[str, dict[int, Any]] = defaultdict(dict)
    registers: dict[str, int] = {}
    unreadable, primaries, copies = [], [], []
    seen: set[tuple[str, str]] = set()
    for holding in holdings:
        name = str(holding["database"])
        if holding.get("error"):
            unreadable.append(f"{name}: {holding['error']}")
            continue
        if holding.get("place") == "copy":
            copies.append(name)
            continue
        identity = (str(holding.get("identity") or name), str(holding.get("table")))
        if identity in seen:
            continue
        seen.add(identity)
        primaries.append(name)
        for writer, held in holding["writers"].items():
            for first, last in held["rows"]:
                for n in range(first, last + 1):
                    times = int(held["doubled"].get(str(n), 1))
                    places[writer][n] += [name] * times
            for n, value in held["altered"].items():
                altered[writer][int(n)] = value
            if held["register"] is not None:
                registers[writer] = max(registers.get(writer, 0), int(held["register"]))
    return Holdings(places, altered, registers, unreadable, primaries, copies)


@dataclass
class Tally:
    """What the audit counts on its way; each list holds what a reader needs to look it up."""

    requests: int = 0
    failed: list[Event] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    unanswered: int = 0
    latencies: list[float] = field(default_factory=list)
    acknowledged: int = 0
    unknown: int = 0
    unknown_writes: list[Event] = field(default_factory=list)
    unknown_written: int = 0
    failed_writes: list[Event] = field(default_factory=list)
    reads: int = 0
    failed_reads: list[Event] = field(default_factory=list)
    lost: list[Event] = field(default_factory=list)
    duplicated: list[Event] = field(default_factory=list)
    stale: list[Event] = field(default_factory=list)
    unverified: int = 0


def count_http(run: Run, tally: Tally) -> None:
    """Count requests, failures by cause, and the journeys' writes."""
    sent: set[int] = set()
    for event in run.events:
        kind = event["e"]
        if kind == "sent":
            sent.add(event["id"])
        elif kind in ("done", "error"):
            sent.discard(event["id"])
            tally.requests += 1
            tally.retried += "retried" in event
            if kind == "done":
                tally.latencies.append(float(event["ms"]))
            else:
                tally.causes[event["cause"]] += 1
                tally.failed.append(event)
    tally.unanswered += len(sent)
    for writer in run.start.get("journeys", {}).values():
        count_journey([e for e in run.events if e.get("j") == writer], tally)


def count_journey(events: list[Event], tally: Tally) -> None:
    """Count one journey: acknowledged numbers that cannot be read back are lost."""
    acknowledged: set[int] = set()
    sent: set[int] = set()
    missing: dict[int, Event] = {}
    for event in events:
        kind, n = event["e"], int(event["n"])
        if kind == "jsent":
            sent.add(n)
            continue
        sent.discard(n)
        tally.requests += 1
        if kind == "jack":
            acknowledged.add(n)
        elif kind == "jread" and "cause" not in event:
            if n in missing:
                # It was there before and is there again: the read in between was old.
                tally.stale.append(missing.pop(n))
        elif kind == "jread" and event["cause"] == "missing":
            missing.setdefault(n, event)
        else:
            tally.causes[event["cause"]] += 1
            tally.failed.append({**event, "r": f"journey {event['j'].split('/')[2]} {kind[1:]}"})
            tally.unknown += kind == "junknown"
    tally.acknowledged += len(acknowledged)
    tally.unknown += len(sent)
    for n, event in missing.items():
        name = event["j"].split("/")[2]
        tally.lost.append({"writer": event["j"], "stream": f"journey {name}", "n": n})


def count_sql(run: Run, held: Holdings, tally: Tally) -> None:
    """Count one run's writes and reads, and compare them with what the databases hold."""
    for name, writer in run.start["writers"].items():
        own = [e for e in run.events if e.get("d") == name]
        acked = {int(e["n"]) for e in own if e["e"] == "ack"}
        unknown = {int(e["n"]) for e in own if e["e"] == "unknown"}
        refused = [e for e in own if e["e"] == "failed"]
        answered = acked | unknown | {int(e["n"]) for e in refused}
        unknown |= {int(e["n"]) for e in own if e["e"] == "sent"} - answered
        places = held.places.get(writer, {})
        altered = held.altered.get(writer, {})
        tally.acknowledged += len(acked)
        tally.unknown += len(unknown)
        tally.unknown_written += len(unknown & set(places))
        tally.unknown_writes += [e for e in own if e["e"] == "unknown"]
        tally.failed_writes += refused
        common = {"writer": writer, "stream": name}
        gone = sorted(acked - set(places))
        if not held.primaries or (held.unreadable and gone):
            tally.unverified += len(gone)
        else:
            for n in gone:
                why = {"holds": altered[n]} if n in altered else {}
                tally.lost.append({**common, "n": n, **why})
        for n in sorted(places):
            if len(places[n]) > 1:
                tally.duplicated.append({**common, "n": n, "databases": sorted(places[n])})
        clashes = {int(e["n"]) for e in own if e["e"] == "clash"}
        for n in sorted(clashes):
            where = ["was there before it was sent"]
            tally.duplicated.append({**common, "n": n, "databases": where})
        for event in own:
            if event["e"] == "read":
                tally.reads += 1
                if "stale" in event:
                    tally.stale.append({**event, **common})
            elif event["e"] == "rfailed":
                tally.reads += 1
                tally.failed_reads.append(event)
        register = held.registers.get(writer)
        newest = max(acked, default=0)
        readable = held.primaries and not held.unreadable
        if readable and newest and (register is None or register < newest):
            # The register's last update was acknowledged: an older value is an old copy.
            old = {"stale": "register at rest", "want": newest, "reg": register}
            tally.stale.append({**common, **old})


def completeness(runs: list[Run], required: Iterable[str]) -> list[str]:
    """Why the proof does not cover the whole change; empty if it does."""
    reasons = []
    for probe in sorted(required):
        if not any(run.probe == probe for run in runs):
            reasons.append(f"the {probe} probe never ran: the witness saw nothing")
    for source in sorted({run.source for run in runs}):
        own = [run for run in runs if run.source == source]
        for run in own:
            end = run.end
            at = clock(float(run.last["w"]))
            if end is None:
                reasons.append(
                    f"{source}: no end is on record (the witness was killed, or still runs);"
                    f" nothing was seen after {at}"
                )
            elif end["reason"] != "stopped":
                reasons.append(f"{source}: ended by itself at {at}: {end['reason']}")
    return reasons


def blind_ms(runs: list[Run]) -> float:
    """The longest time between two lives of one witness."""
    longest = 0.0
    for source in {run.source for run in runs}:
        own = [run for run in runs if run.source == source]
        for before, after in pairwise(own):
            longest = max(longest, float(after.start["w"]) - float(before.last["w"]))
    return round(longest * 1000, 1)


def phases(evidence: Evidence, all_pauses: dict[str, list[Pause]]) -> list[dict[str, Any]]:
    """Figures a phase, from its mark to the next (or to the end)."""
    if not evidence.marks or not evidence.runs:
        return []
    starts = [float(mark["w"]) for mark in evidence.marks]
    ends = [*starts[1:], max([starts[-1], *(float(run.last["w"]) for run in evidence.runs)])]
    found: list[dict[str, Any]] = [
        {
            "name": mark["name"],
            "began": round(begin, 3),
            "seconds": round(end - begin, 3),
            "requests": 0,
            "failed_requests": 0,
            "acknowledged_writes": 0,
            "longest_write_pause_ms": 0.0,
            "longest_read_pause_ms": 0.0,
        }
        for mark, begin, end in zip(evidence.marks, starts, ends, strict=True)
    ]
    kinds = {
        "done": ("requests",),
        "error": ("requests", "failed_requests"),
        "ack": ("acknowledged_writes",),
        "jack": ("requests", "acknowledged_writes"),
    }
    for run in evidence.runs:
        for event in run.events:
            # A request belongs to the phase in which it was due.
            begun = float(event["w"]) - float(event.get("ms") or 0) / 1000
            at = bisect_right(starts, begun) - 1
            if at >= 0:
                for key in kinds.get(event["e"], ()):
                    found[at][key] += 1
    for kind, of_kind in all_pauses.items():
        for pause in of_kind:
            at = max(0, bisect_right(starts, pause.at) - 1)
            key = f"longest_{kind}_pause_ms"
            if pause.at + pause.ms / 1000 >= starts[at]:
                found[at][key] = max(found[at][key], pause.ms)
    return found


def find_pauses(evidence: Evidence) -> tuple[dict[str, list[Pause]], list[dict[str, Any]]]:
    """All pauses of writes and of reads, and a row of figures for each stream."""
    found: dict[str, list[Pause]] = {"write": [], "read": []}
    table = []
    for run in evidence.runs:
        for name, kind, answers, errors, rate in streams(run):
            begin = begin_of(run, kind, answers, errors, name)
            own = pauses(run, name, begin, (float(e["t"]) for e in answers), rate)
            found["write" if kind == "write" else "read"] += own
            latencies = sorted(float(e["ms"]) for e in answers)
            longest = max(own, key=lambda pause: pause.ms, default=Pause(0.0, 0.0, name))
            table.append(
                {
                    "source": run.source,
                    "stream": name,
                    "rate": rate,
                    "answers": len(answers),
                    "errors": len(errors),
                    "p50_ms": percentile(latencies, 0.50),
                    "p99_ms": percentile(latencies, 0.99),
                    "max_ms": latencies[-1] if latencies else None,
                    "longest_pause_ms": longest.ms,
                    "longest_pause_at": round(longest.at, 3) if longest.ms else None,
                }
            )
    return found, table


ACKNOWLEDGED = "acknowledged write is|acknowledged writes are"


def some(count: int, what: str) -> str:
    """A number with its words: `some(1, "write is|writes are lost")` is "1 write is lost"."""
    one, _, many = what.partition("|")
    words = len(one.split())
    rest = " ".join(many.split()[words:])
    return f"{count} {one} {rest}" if count == 1 else f"{count} {many}"


def judge(
    summary: dict[str, Any],
    tally: Tally,
    held: Holdings,
    limits: dict[str, float | None],
) -> list[str]:
    """Why the figures are not clean, each with what a reader needs to look it up."""
    reasons = []
    for name, events in (("lost", tally.lost), ("duplicated", tally.duplicated)):
        by_stream: dict[str, list[int]] = defaultdict(list)
        for event in events:
            by_stream[event["stream"]].append(event["n"])
        for stream, numbers in sorted(by_stream.items()):
            what = ACKNOWLEDGED + " lost" if name == "lost" else "write is|writes are duplicated"
            reasons.append(f"{some(len(numbers), what)}: {stream} {listed(sorted(numbers))}")
    for reason in held.unreadable:
        reasons.append(f"a database could not be read back: {reason}")
    if tally.unverified:
        why = "no database was read back" if not held.primaries else "not every database answered"
        reasons.append(f"{some(tally.unverified, ACKNOWLEDGED + ' not verified')}: {why}")
    details = {
        "failed_requests": (tally.failed, "request|requests failed"),
        "failed_writes": (tally.failed_writes, "write was|writes were refused"),
        "failed_reads": (tally.failed_reads, "read|reads failed"),
        "stale_reads": (tally.stale, "read was|reads were stale"),
        "unknown_writes": (tally.unknown_writes, "write|writes ended without an answer"),
    }
    for key, limit in limits.items():
        value = summary[key]
        if limit is None or value is None or value <= limit:
            continue
        if key not in details:
            reasons.append(f"{key} is {value}, more than the {limit:g} allowed")
            continue
        events, what = details[key]
        reasons.append(f"{some(int(value), what)}{describe(key, events, tally)}")
    return reasons


def describe(key: str, events: list[Event], tally: Tally) -> str:
    """The causes and the first case of a failing figure."""
    if not events:
        return ""
    first = events[0]
    at = f" at {clock(float(first['w']))}" if "w" in first else ""
    if key == "failed_requests":
        causes = ", ".join(f"{n} {cause}" for cause, n in tally.causes.most_common())
        detail = f": {first['detail']}" if first.get("detail") else ""
        return f" ({causes}); first {first['r']}{at}, {first['cause']}{detail}"
    if key == "stale_reads":
        return (
            f"; first {first.get('stream') or first.get('j')}{at}: acknowledged"
            f" {first.get('want', first.get('n'))}, shown {first.get('reg')}"
            f" ({first.get('stale', 'missing')})"
        )
    return f"; first {first['d']}{at}: {first.get('detail')}"


def audit(
    evidence: Evidence,
    holdings: Sequence[dict[str, Any]],
    limits: dict[str, float | None] | None = None,
    required: Iterable[str] = (),
) -> dict[str, Any]:
    """Join journals and rows into a report: `summary`, `reasons` (empty if clean) and details."""
    tally = Tally()
    held = join(holdings)
    for run in evidence.runs:
        if run.probe == "http":
            count_http(run, tally)
        else:
            count_sql(run, held, tally)
    all_pauses, table = find_pauses(evidence)
    tally.latencies.sort()
    writes = sorted(
        float(e["ms"]) for run in evidence.runs for e in run.events if e["e"] in ("ack", "jack")
    )
    latencies = tally.latencies or writes
    begin = min((float(run.start["w"]) for run in evidence.runs), default=None)
    finish = max((float(run.last["w"]) for run in evidence.runs), default=None)
    stalls = [float(e["ms"]) for run in evidence.runs for e in run.events if e["e"] == "stall"]
    summary: dict[str, Any] = {
        "began": begin and round(begin, 3),
        "seconds": round(finish - begin, 1) if begin is not None and finish is not None else 0.0,
        "requests": tally.requests,
        "failed_requests": len(tally.failed),
        "failed_by_cause": dict(sorted(tally.causes.items())),
        "retried_requests": tally.retried,
        "unanswered_requests": tally.unanswered,
        "acknowledged_writes": tally.acknowledged,
        "failed_writes": len(tally.failed_writes),
        "unknown_writes": tally.unknown,
        "unknown_writes_found": tally.unknown_written,
        "lost_writes": len(tally.lost),
        "duplicated_writes": len(tally.duplicated),
        "unverified_writes": tally.unverified,
        "reads": tally.reads,
        "failed_reads": len(tally.failed_reads),
        "stale_reads": len(tally.stale),
        "longest_write_pause_ms": max((p.ms for p in all_pauses["write"]), default=0.0),
        "longest_read_pause_ms": max((p.ms for p in all_pauses["read"]), default=0.0),
        "p50_ms": percentile(latencies, 0.50),
        "p99_ms": percentile(latencies, 0.99),
        "write_p50_ms": percentile(writes, 0.50),
        "write_p99_ms": percentile(writes, 0.99),
        "longest_witness_stall_ms": max(stalls, default=0.0),
        "blind_ms": blind_ms(evidence.runs),
        "torn_lines": evidence.torn,
        "marks": [{"name": m["name"], "at": round(float(m["w"]), 3)} for m in evidence.marks],
    }
    probes = {run.probe for run in evidence.runs}
    reasons = judge(summary, tally, held, {**DEFAULT_LIMITS, **(limits or {})})
    reasons += completeness(evidence.runs, required)
    if not evidence.runs:
        reasons.append("no journal has a start: the witness saw nothing")
    if "sql" in probes and not any(
        e["e"] == "ack" for run in evidence.runs if run.probe == "sql" for e in run.events
    ):
        reasons.append("no write was acknowledged: the sql probe saw nothing")
    if "http" in probes and len(tally.failed) >= tally.requests:
        reasons.append("no request was answered well: the http probe saw nothing")
    summary["verdict"] = "unclean" if reasons else "clean"
    return {
        "summary": summary,
        "verdict": summary["verdict"],
        "reasons": reasons,
        "phases": phases(evidence, all_pauses),
        "streams": table,
        "databases": {
            "primary": held.primaries,
            "copy": held.copies,
            "unreadable": held.unreadable,
        },
        "pauses": [
            {"stream": p.stream, "at": round(p.at, 3), "ms": p.ms}
            for p in sorted(
                [p for of_kind in all_pauses.values() for p in of_kind if p.ms >= 100],
                key=lambda p: -p.ms,
            )[:SHOWN]
        ],
        "lost": tally.lost[:1000],
        "duplicated": tally.duplicated[:1000],
        "stale": tally.stale[:100],
        "failures": (
            tally.failed + tally.failed_writes + tally.unknown_writes + tally.failed_reads
        )[:1000],
    }
