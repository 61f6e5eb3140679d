"""The audit as a pure function: journals and rows in, verdict out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._witness.audit import (
    DEFAULT_LIMITS,
    audit,
    gather,
    percentile,
)

WRITER = "run/box/main/1"
START = 1_800_000_000.0


def line(event: str, t: float, **fields: Any) -> str:
    return json.dumps({"e": event, "t": 100 + t, "w": START + t, **fields})


def sql_journal(
    *between: str, acks: int = 10, end: str | None = "stopped", rate: float = 10
) -> list[str]:
    """A journal whose writes 1..acks are acknowledged on schedule, each in 5 ms."""
    lines = [
        line("start", 0, probe="sql", rate=rate, read_rate=rate, writers={"main": WRITER}),
    ]
    for n in range(1, acks + 1):
        due = n / rate
        lines.append(line("sent", due, d="main", n=n, due=100 + due))
        lines.append(line("ack", due + 0.005, d="main", n=n, ms=5.0))
    lines += between
    last = (acks + 1) / rate
    if end:
        lines += [line("stopping", last), line("end", last, reason=end, unsettled=[])]
    return lines


def http_journal(*between: str, answered: int = 10) -> list[str]:
    lines = [line("start", 0, probe="http", rate=10.0, requests=["GET /"], journeys={})]
    for n in range(1, answered + 1):
        lines.append(line("sent", n / 10, id=n, r="GET /", due=100 + n / 10, c="fresh"))
        lines.append(line("done", n / 10 + 0.01, id=n, r="GET /", ms=10.0))
    last = (answered + 1) / 10
    return [*lines, *between, line("stopping", last), line("end", last, reason="stopped")]


def holding(
    *rows: list[int], register: int | None = 10, database: str = "main", **fields: Any
) -> dict[str, Any]:
    held = {"rows": list(rows), "doubled": {}, "altered": {}, "register": register}
    for key in ("doubled", "altered"):
        held[key] = fields.pop(key, {})
    return {
        "database": database,
        "identity": database,
        "table": "t",
        "place": "primary",
        "writers": {WRITER: held},
        **fields,
    }


def judge(
    journal: list[str], *holdings: dict[str, Any], limits: dict[str, float | None] | None = None
) -> dict[str, Any]:
    return audit(gather([("sql-box", journal)]), holdings, limits)


def test_a_clean_run_is_clean_and_counts() -> None:
    report = judge(sql_journal(), holding([1, 10]))
    assert report["reasons"] == []
    assert report["verdict"] == report["summary"]["verdict"] == "clean"
    assert report["summary"]["acknowledged_writes"] == 10
    assert report["summary"]["write_p50_ms"] == 5.0


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        ([[1, 6], [8, 10]], [7]),
        ([[2, 9]], [1, 10]),
        ([], list(range(1, 11))),
    ],
)
def test_an_acknowledged_write_that_nobody_holds_is_lost(
    rows: list[list[int]], lost: list[int]
) -> None:
    report = judge(sql_journal(), holding(*rows))
    assert report["summary"]["lost_writes"] == len(lost)
    assert [event["n"] for event in report["lost"]] == lost
    numbers = ", ".join(map(str, lost))
    what = "write is" if len(lost) == 1 else "writes are"
    assert f"{len(lost)} acknowledged {what} lost: main {numbers}" in report["reasons"]


def test_a_row_with_other_content_is_lost() -> None:
    report = judge(sql_journal(), holding([1, 3], [5, 10], altered={"4": 2}))
    assert report["lost"] == [{"writer": WRITER, "stream": "main", "n": 4, "holds": 2}]


def test_a_row_in_either_of_two_primaries_is_not_lost() -> None:
    report = judge(sql_journal(), holding([1, 4]), holding([5, 10], database="shard"))
    assert report["verdict"] == "clean"


def test_a_row_in_two_primaries_is_duplicated() -> None:
    report = judge(sql_journal(), holding([1, 5]), holding([5, 10], database="shard"))
    assert report["summary"]["duplicated_writes"] == 1
    assert report["duplicated"][0]["databases"] == ["main", "shard"]
    assert report["reasons"] == ["1 write is duplicated: main 5"]


@pytest.mark.parametrize(
    "other",
    [
        holding([1, 10], database="replica", place="copy"),
        # The same database under a second alias.
        holding([1, 10], database="alias", identity="main"),
    ],
)
def test_a_copy_and_an_alias_are_no_duplicates(other: dict[str, Any]) -> None:
    assert judge(sql_journal(), holding([1, 10]), other)["verdict"] == "clean"


def test_a_copy_proves_nothing() -> None:
    report = judge(sql_journal(), holding([1, 9]), holding([1, 10], place="copy"))
    assert report["summary"]["lost_writes"] == 1


def test_a_row_twice_in_one_table_is_duplicated() -> None:
    report = judge(sql_journal(), holding([1, 10], doubled={"3": 2}))
    assert report["duplicated"][0]["databases"] == ["main", "main"]


def test_a_number_that_was_there_before_it_was_sent_is_duplicated() -> None:
    report = judge(sql_journal(line("clash", 1.06, d="main", n=11, ms=1.0)), holding([1, 10]))
    assert report["summary"]["duplicated_writes"] == 1


@pytest.mark.parametrize(("rows", "found"), [([1, 11], 1), ([1, 10], 0)])
def test_an_unknown_write_is_neither_lost_nor_duplicated(rows: list[int], found: int) -> None:
    unknown = [
        line("sent", 1.05, d="main", n=11, due=101.05),
        line("unknown", 1.06, d="main", n=11, ms=9.0, state=None, detail="connection lost"),
    ]
    report = judge(sql_journal(*unknown), holding(rows), limits={"unknown_writes": None})
    summary = report["summary"]
    assert (summary["lost_writes"], summary["duplicated_writes"]) == (0, 0)
    assert (summary["unknown_writes"], summary["unknown_writes_found"]) == (1, found)
    assert report["verdict"] == "clean"
    assert judge(sql_journal(*unknown), holding(rows))["verdict"] == "unclean"


def test_a_write_under_way_when_the_witness_was_killed_is_unknown() -> None:
    journal = sql_journal(line("sent", 1.05, d="main", n=11, due=101.05), end=None)
    assert judge(journal, holding([1, 10]))["summary"]["unknown_writes"] == 1


def test_a_stale_read_is_named_with_both_numbers() -> None:
    stale = line("read", 1.0, d="main", via="read", want=9, reg=4, stale="row", ms=2.0)
    report = judge(sql_journal(stale), holding([1, 10]))
    assert report["summary"]["stale_reads"] == 1
    assert "acknowledged 9, shown 4" in report["reasons"][0]


@pytest.mark.parametrize("register", [9, None])
def test_a_register_that_went_back_is_stale(register: int | None) -> None:
    report = judge(sql_journal(), holding([1, 10], register=register))
    assert report["summary"]["stale_reads"] == 1


def test_an_unreadable_database_forbids_a_verdict_on_what_it_may_hold() -> None:
    dead = {"database": "shard", "place": "primary", "table": "t", "error": "refused"}
    report = judge(sql_journal(), holding([1, 6]), dead)
    assert report["summary"]["lost_writes"] == 0
    assert report["summary"]["unverified_writes"] == 4
    assert "a database could not be read back: shard: refused" in report["reasons"]


def test_nothing_read_back_is_unclean() -> None:
    report = judge(sql_journal())
    assert report["verdict"] == "unclean"
    assert "10 acknowledged writes are not verified: no database was read back" in report["reasons"]


def test_a_witness_that_saw_nothing_is_unclean() -> None:
    assert audit(gather([]), [])["reasons"] == ["no journal has a start: the witness saw nothing"]
    report = judge(sql_journal(acks=0), holding())
    assert "no write was acknowledged: the sql probe saw nothing" in report["reasons"]
    report = audit(gather([("http-c", http_journal(answered=0))]), [])
    assert "no request was answered well: the http probe saw nothing" in report["reasons"]


def test_a_required_probe_that_never_ran_is_unclean() -> None:
    report = audit(gather([("http-c", http_journal())]), [], required=["http", "sql"])
    assert report["reasons"] == ["the sql probe never ran: the witness saw nothing"]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (None, "sql-box: no end is on record"),
        ("time limit", "sql-box: ended by itself at 08:00:01.100: time limit"),
    ],
)
def test_a_proof_that_does_not_cover_the_end_is_unclean(end: str | None, reason: str) -> None:
    report = judge(sql_journal(end=end), holding([1, 10]))
    assert any(text.startswith(reason) for text in report["reasons"]), report["reasons"]


def test_failed_requests_are_counted_by_cause_and_the_first_is_told() -> None:
    errors = [
        line("error", 1.0, id=90, r="GET /", ms=3.0, cause="refused", detail="no", status=None),
        line("error", 1.02, id=91, r="GET /", ms=3.0, cause="status_503", detail="", status=503),
        line("error", 1.04, id=92, r="GET /", ms=3.0, cause="refused", detail="no", status=None),
    ]
    report = audit(gather([("http-c", http_journal(*errors))]), [])
    assert report["summary"]["failed_by_cause"] == {"refused": 2, "status_503": 1}
    assert report["summary"]["requests"] == 13
    assert report["reasons"] == [
        "3 requests failed (2 refused, 1 status_503); first GET / at 08:00:01.000, refused: no"
    ]
    allowed = audit(gather([("http-c", http_journal(*errors))]), [], {"failed_requests": 3})
    assert allowed["verdict"] == "clean"


def test_torn_lines_are_counted_and_spoil_nothing() -> None:
    journal = sql_journal()
    journal.insert(6, '{"e":"ack","t":100.2')
    report = judge([*journal, '{"e":"en'], holding([1, 10]))
    assert report["summary"]["torn_lines"] == 2
    assert report["summary"]["acknowledged_writes"] == 10
    assert report["verdict"] == "clean"


def drop_acks(journal: list[str], first: int, last: int) -> list[str]:
    return [
        text
        for text in journal
        if not (json.loads(text)["e"] == "ack" and first <= json.loads(text)["n"] <= last)
    ]


@pytest.mark.parametrize(
    ("first", "last", "pause"),
    [
        (4, 6, 300.0),  # in the middle: from ack 3 to ack 7, less one interval
        (1, 2, 205.0),  # before the first acknowledgement: since the first was due
        (8, 10, 295.0),  # until the end of the run
    ],
)
def test_the_longest_pause_is_found_wherever_it_is(first: int, last: int, pause: float) -> None:
    report = judge(drop_acks(sql_journal(), first, last), holding([1, 10]))
    found = report["summary"]["longest_write_pause_ms"]
    assert found == pytest.approx(pause, abs=6)


def test_a_stall_of_the_witness_itself_is_no_pause_of_the_system() -> None:
    late = [text for text in sql_journal() if json.loads(text).get("n") not in (4, 5, 6)]
    stall = line("stall", 0.69, loop="write main", ms=290.0)
    position = next(i for i, text in enumerate(late) if json.loads(text).get("n") == 7)
    late.insert(position, stall)
    summary = judge(late, holding([1, 3], [7, 10]))["summary"]
    assert summary["longest_write_pause_ms"] < 20
    assert summary["longest_witness_stall_ms"] == 290.0


def test_a_pause_that_had_begun_before_a_stall_is_counted_whole() -> None:
    # Number 3 was sent on time and not answered before the witness was held up.
    journal = drop_acks(sql_journal(), 3, 6)
    journal = [text for text in journal if json.loads(text).get("n") not in (4, 5, 6)]
    position = next(i for i, text in enumerate(journal) if json.loads(text).get("n") == 7)
    journal.insert(position, line("stall", 0.69, loop="write main", ms=290.0))
    assert judge(journal, holding([1, 10]))["summary"]["longest_write_pause_ms"] == 400.0


def test_a_pause_beyond_its_limit_is_unclean() -> None:
    journal = drop_acks(sql_journal(), 4, 6)
    limits = {"longest_write_pause_ms": 250.0, "unknown_writes": None}
    report = judge(journal, holding([1, 10]), limits=limits)
    assert report["reasons"] == ["longest_write_pause_ms is 300.0, more than the 250 allowed"]


def test_two_lives_of_a_witness_are_joined_and_the_gap_is_told() -> None:
    second = [
        line(
            "start", 5, probe="sql", rate=10.0, read_rate=10.0, writers={"main": "run/box/main/2"}
        ),
        line("sent", 5.1, d="main", n=1, due=105.1),
        line("ack", 5.105, d="main", n=1, ms=5.0),
        line("stopping", 5.2),
        line("end", 5.2, reason="stopped"),
    ]
    held = holding([1, 10])
    held["writers"]["run/box/main/2"] = {
        "rows": [[1, 1]],
        "doubled": {},
        "altered": {},
        "register": 1,
    }
    report = judge(sql_journal() + second, held)
    assert report["verdict"] == "clean"
    assert report["summary"]["acknowledged_writes"] == 11
    assert report["summary"]["blind_ms"] == 3900.0
    # The time in between was not looked at: it is told apart, not as a pause.
    assert report["summary"]["longest_write_pause_ms"] < 100


def test_phases_have_their_own_figures() -> None:
    marks = [line("mark", 0, name="configure"), line("mark", 0.55, name="check")]
    journals = [("sql-box", sql_journal()), ("http-c", http_journal()), ("marks", marks)]
    report = audit(gather(journals), [holding([1, 10])])
    assert [phase["name"] for phase in report["phases"]] == ["configure", "check"]
    assert [phase["acknowledged_writes"] for phase in report["phases"]] == [5, 5]
    assert [phase["requests"] for phase in report["phases"]] == [5, 5]
    assert report["phases"][0]["seconds"] == 0.55


def journey_journal(*events: str) -> list[str]:
    start = line(
        "start",
        0,
        probe="http",
        rate=10.0,
        requests=[],
        journeys={"order": "run/c/order/1"},
        journey_rates={"order": 1.0},
    )
    end = [line("stopping", 9), line("end", 9, reason="stopped")]
    return [start, *events, *http_journal()[1:-2], *end]


def step(event: str, t: float, n: int, **fields: Any) -> str:
    return line(event, t, j="run/c/order/1", n=n, ms=2.0, **fields)


@pytest.mark.parametrize(
    ("events", "lost", "stale"),
    [
        ([("jack", {}), ("jread", {})], 0, 0),
        ([("jack", {}), ("jread", {"cause": "missing"})], 1, 0),
        ([("jack", {}), ("jread", {"cause": "missing"}), ("jread", {})], 0, 1),
        ([("jack", {}), ("jread", {}), ("jread", {"cause": "missing"})], 1, 0),
    ],
)
def test_a_journey_is_judged_by_what_can_be_read_back(
    events: list[tuple[str, dict[str, Any]]], lost: int, stale: int
) -> None:
    lines = [step(kind, 1 + i / 10, 1, **fields) for i, (kind, fields) in enumerate(events)]
    summary = audit(gather([("http-c", journey_journal(*lines))]), [])["summary"]
    assert (summary["acknowledged_writes"], summary["lost_writes"]) == (1, lost)
    assert summary["stale_reads"] == stale


def test_a_pause_of_a_journey_is_a_pause_of_writes() -> None:
    lines = [step("jack", t, n) for n, t in enumerate((1, 2, 3, 6.5, 7, 8), 1)]
    summary = audit(gather([("http-c", journey_journal(*lines))]), [])["summary"]
    assert summary["longest_write_pause_ms"] == 2500.0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([1.0], 0.99, 1.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 3.0)],
)
def test_percentile(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_every_limit_is_a_figure_of_the_summary() -> None:
    summary = judge(sql_journal(), holding([1, 10]))["summary"]
    assert set(DEFAULT_LIMITS) <= set(summary)
