"""The timeline as text: well formed, bounded, and with everything that must be seen."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._witness import audit, picture

from .test_witness_audit import drop_acks, holding, http_journal, line, sql_journal

SVG = "{http://www.w3.org/2000/svg}"


def drawn(journals: list[tuple[str, list[str]]], *holdings: dict[str, Any]) -> str:
    evidence = audit.gather(journals)
    return picture.draw(evidence, audit.audit(evidence, holdings), "A <run> & its title")


def words(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_it_shows_verdict_figures_lanes_and_marks() -> None:
    marks = [line("mark", 0.2, name="configure"), line("mark", 0.8, name="check")]
    journals = [("sql-box", sql_journal()), ("http-c", http_journal()), ("marks", marks)]
    found = words(drawn(journals, holding([1, 10])))
    assert "CLEAN" in found
    assert {"A <run> & its title", "requests at the front door", "write main"} <= set(found)
    assert {"configure", "check"} <= set(found)


def test_failures_staleness_and_pauses_are_drawn_with_their_reason() -> None:
    error = line("error", 1.0, id=90, r="GET /", ms=3.0, cause="refused", detail="a < b")
    stale = line("read", 1.0, d="main", via="read", want=9, reg=4, stale="row", ms=2.0)
    writes = drop_acks(sql_journal(stale), 4, 6)
    svg = drawn([("sql-box", writes), ("http-c", http_journal(error))], holding([1, 9]))
    titles = [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert "GET /: refused a < b" in titles
    assert "stale: acknowledged 9, shown 4" in titles
    assert "no answer for 300 ms" in titles
    found = words(svg)
    assert "UNCLEAN" in found
    assert "pause 300 ms" in found
    assert any(text.startswith("✗ 1 acknowledged write is lost: main 10") for text in found)


def test_nothing_seen_is_drawn_too() -> None:
    found = words(drawn([]))
    assert "✗ no journal has a start: the witness saw nothing" in found


def test_its_size_is_bounded_however_long_the_run_was() -> None:
    short = drawn([("sql-box", sql_journal(acks=2000, rate=100))], holding([1, 2000]))
    long = drawn([("sql-box", sql_journal(acks=40000, rate=100))], holding([1, 40000]))
    assert len(long) < 1.5 * len(short)


def test_everything_lies_inside_the_frame() -> None:
    marks = [line("mark", i / 10, name=f"a long name of phase {i}") for i in range(8)]
    svg = drawn([("sql-box", sql_journal()), ("marks", marks)], holding([1, 10]))
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["height"])
    for node in root.iter(f"{SVG}text"):
        assert 0 <= float(node.attrib["x"]) <= picture.WIDTH
        assert 0 <= float(node.attrib["y"]) <= height


@pytest.mark.parametrize(
    ("ms", "text"), [(None, "none"), (0.4, "0.4 ms"), (1502.4, "1,502 ms"), (12345.0, "12.3 s")]
)
def test_durations_as_people_read_them(ms: float | None, text: str) -> None:
    assert picture.human(ms) == text
