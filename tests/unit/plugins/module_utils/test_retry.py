"""Retries: how often, how long, and how they end."""

from __future__ import annotations

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils.retry import DeadlineExceeded, Retry


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def make(clock: Clock, chance: float = 1.0, deadline: float = 60) -> Retry:
    return Retry(
        deadline=deadline,
        clock=lambda: clock.now,
        sleep=clock.sleep,
        chance=lambda: chance,
    )


def failing(times: int, error: Exception):  # type: ignore[no-untyped-def]
    left = [times]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return call


def test_a_passing_error_passes() -> None:
    clock = Clock()
    assert make(clock).run(failing(3, OSError()), lambda _: True) == "done"
    assert clock.waits == [0.3, 0.6, 1.2]


def test_waits_are_drawn_between_nothing_and_the_step() -> None:
    clock = Clock()
    make(clock, chance=0.5).run(failing(2, OSError()), lambda _: True)
    assert clock.waits == [0.15, 0.3]


def test_waits_never_exceed_the_cap() -> None:
    clock = Clock()
    make(clock, deadline=1000).run(failing(20, OSError()), lambda _: True)
    assert max(clock.waits) == 10


def test_another_error_is_raised_at_once() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="no"):
        make(clock).run(failing(1, ValueError("no")), lambda error: isinstance(error, OSError))
    assert clock.waits == []


def test_it_ends_before_the_deadline_and_names_the_last_error() -> None:
    clock = Clock()
    with pytest.raises(DeadlineExceeded) as caught:
        make(clock).run(failing(1000, OSError("busy")), lambda _: True)
    assert clock.now <= 60
    assert str(caught.value.__cause__) == "busy"
