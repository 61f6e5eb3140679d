"""The guard's decisions, with a PgBouncer that only writes down what it is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion.guard import (
    OPENS_NONE,
    Attempt,
    Bouncer,
    Event,
    Guard,
    Holding,
    Move,
    questions,
    watch,
)

SIDES = {
    name: {"conninfo": {"host": "127.0.0.1", "port": 1}, "server": {**where, "dbname": "shop"}}
    for name, where in {
        "box": {"host": "10.0.0.1", "port": 5432},
        "db": {"host": "10.0.0.2", "port": 5432},
    }.items()
}
MOVE = Move("shop", "web-0", ["main"], SIDES)
ATTEMPT = Attempt("a1", "box", "db", bound_s=1.3, hard_s=2.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Written:
    """What PgBouncer was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def resume(self, alias: str) -> None:
        self.told.append(("resume", alias))

    def lead(self, aliases: list[str], server: Any) -> None:
        self.told.append(("lead", server[0]))

    def get_ready(self, connections: int) -> None:
        pass

    def server(self, alias: str) -> Any:
        return ("10.0.0.1", 5432, "shop")


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    guard = Guard(MOVE, Written(), tmp_path / "notes", Clock())  # type: ignore[arg-type]
    asked: list[Any] = []
    for name, side in guard._sides.items():
        side.connected = True
        side.ask = lambda *what, name=name: asked.append((name, *what))  # type: ignore[method-assign]
    guard.asked = asked  # type: ignore[attr-defined]
    return guard


def hold(guard: Guard) -> Holding:
    guard._holding = Holding(ATTEMPT, guard._clock(), paused={"main"})
    return guard._holding


def after(guard: Guard, seconds: float, *events: Event) -> list[Any]:
    """Let time pass and things happen; what PgBouncer was told by then."""
    guard._clock.now += seconds  # type: ignore[attr-defined]
    for event in events:
        guard._take(event)
    guard._look_at_the_clock()
    return guard._bouncer.told  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("door", "asks"),
    [
        ("", [("door", True)]),
        ("closed", [("door", True)]),
        ("away", [("left", False), ("door", True)]),
        ("void", [("left", True)]),
    ],
)
def test_what_is_asked_when_the_time_is_over(door: str, asks: list[Any]) -> None:
    assert questions(door) == asks


def test_before_the_time_is_over_it_waits(guard: Guard) -> None:
    hold(guard)
    assert after(guard, 1.2) == []
    assert guard.asked == []  # type: ignore[attr-defined]


def test_an_open_door_is_followed(guard: Guard) -> None:
    hold(guard)
    told = after(guard, 0.1, Event("door", "db", "a1", "opened"))
    assert told == [("lead", "10.0.0.2"), ("resume", "main")]
    assert guard._holding is None


def test_a_word_alone_moves_nothing(guard: Guard) -> None:
    hold(guard)
    word = json.dumps({"do": "switch", "attempt": "a1"})
    assert after(guard, 0.1, Event("told", "db", value=word)) == []
    assert guard.asked == [("db", "door", "a1", False)]  # type: ignore[attr-defined]


def test_a_closed_door_is_made_void_before_it_resumes(guard: Guard) -> None:
    hold(guard)
    assert after(guard, 1.4) == []
    assert guard.asked == [("db", "door", "a1", True)]  # type: ignore[attr-defined]
    assert after(guard, 0.01, Event("door", "db", "a1", "void")) == []
    assert guard.asked[-1][:4] == ("box", "left", "a1", True)  # type: ignore[attr-defined]
    assert after(guard, 0.01, Event("left", "box", "a1", "aborted")) == [("resume", "main")]
    assert guard._holding is None


def test_a_target_that_is_away_leaves_the_source_to_decide(guard: Guard) -> None:
    hold(guard)
    after(guard, 1.4, Event("lost", "db"))
    assert [asked[:4] for asked in guard.asked] == [  # type: ignore[attr-defined]
        ("box", "left", "a1", False),
        ("db", "door", "a1", True),
    ]
    assert after(guard, 0.01, Event("left", "box", "a1", "aborted")) == [("resume", "main")]


def test_in_the_moment_of_the_commit_nobody_decides_alone(guard: Guard) -> None:
    """Until the hard limit: then it resumes to the side that is closed, and asks on."""
    hold(guard)
    after(guard, 1.4, Event("lost", "db"))
    assert after(guard, 0.1, Event("left", "box", "a1", "committing")) == []
    assert after(guard, 0.6) == [("resume", "main")]
    assert guard._holding is not None
    told = after(guard, 5, Event("door", "db", "a1", "opened"))
    assert told[1:] == [("lead", "10.0.0.2"), ("resume", "main")]


def test_a_side_that_does_not_answer_counts_as_away(guard: Guard) -> None:
    hold(guard)
    after(guard, 1.4)
    after(guard, 0.45)
    assert ("box", "left", "a1", False) in [
        asked[:4]
        for asked in guard.asked  # type: ignore[attr-defined]
    ]


def test_a_pause_that_comes_to_rest_too_late_is_ended(guard: Guard) -> None:
    assert after(guard, 0.0, Event("paused", "main", "a1", "")) == [("resume", "main")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"goes_to": "nowhere"}, "no such side"),
        ({"goes_to": "box"}, "no such side"),
        ({}, "cannot be reached"),
    ],
)
def test_what_it_cannot_take_part_in_is_refused(
    guard: Guard, change: dict[str, str], why: str
) -> None:
    guard._sides["db"].connected = False
    word = {"do": "pause", "attempt": "a2", "goes_to": "db", "bound_s": 1, "hard_s": 2, **change}
    guard._take(Event("told", "box", value=json.dumps(word)))
    assert guard._holding is None
    [(side, kind, attempt, _, said, detail)] = guard.asked  # type: ignore[attr-defined]
    assert (side, kind, attempt, said) == ("box", "say", "a2", "refused")
    assert why in detail


@pytest.mark.parametrize("word", ["", "{}", "[]", '{"do": "pause", "attempt": 1}', "null"])
def test_nonsense_is_no_word(guard: Guard, word: str) -> None:
    assert after(guard, 0.0, Event("told", "box", value=word)) == []
    assert guard._holding is None


def test_where_the_data_is_later_is_where_it_leads(guard: Guard) -> None:
    both = Event("standing", "box", value=1), Event("standing", "db", value=2)
    assert after(guard, 0.0, *both) == [("lead", "10.0.0.2")]


def test_a_side_that_is_away_is_no_reason_to_leave(guard: Guard) -> None:
    guard._take(Event("standing", "db", value=2))
    assert after(guard, 1.1) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({"pooler": "x", "aliases": [], "sides": SIDES}),
     json.dumps({"pooler": "x", "aliases": ["m"], "sides": {"box": SIDES["box"]}}),
     json.dumps({"pooler": "x", "aliases": ["m"], "sides": {"a": {}, "b": {}}})],
)  # fmt: skip
def test_a_file_that_describes_no_move_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shop.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        Move.read(path)


def test_a_finished_move_is_guarded_no_more(tmp_path: Path) -> None:
    moves, state = tmp_path / "moves", tmp_path / "state"
    for folder in (moves, state):
        folder.mkdir()
    described = {"pooler": "web-0", "aliases": ["main"], "sides": SIDES}
    ends = threading.Event()
    looks = watch(moves, state, Written(), ends)  # type: ignore[arg-type]
    (moves / "shop.json").write_text(json.dumps(described))
    assert list(next(looks)) == ["shop"]
    (moves / "shop.json").write_text(json.dumps({**described, "finished": True}))
    assert list(next(looks)) == []
    ends.set()
    assert list(looks) == []


def test_a_pause_that_is_resumed_before_it_begins_leaves_no_small_pool(tmp_path: Path) -> None:
    told: list[str] = []

    class Resumed(Bouncer):
        def _ask(self, command: str, pauses: str = "") -> Any:
            told.append(command)
            if len(told) == 1:
                self.resume("main")
            if pauses:
                self._goes_on(pauses)
            return []

        def _show(self, what: str) -> list[dict[str, Any]]:
            return []

    with pytest.raises(InterruptedError):
        Resumed({}, tmp_path).pause("main")
    assert told[0].startswith("SET")
    assert len([command for command in told if command.startswith("SET")]) == len(OPENS_NONE)
    assert told[-1] == "RELOAD"
