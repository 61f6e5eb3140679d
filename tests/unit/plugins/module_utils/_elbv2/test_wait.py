"""Waiting for health and for the end of a drain, with a clock that costs no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import Member, Target
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.wait import (
    STUBBORN,
    Drained,
    Pace,
    until_drained,
    until_healthy,
)

A, B = Target("i-aaaaaaaa", 80), Target("i-bbbbbbbb", 80)


class Clock:
    """Time that passes by sleep alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pace(self, chance: float = 0.5, **more: float) -> Pace:
        return Pace(clock=lambda: self.now, sleep=self.sleep, chance=lambda: chance, **more)


class Aws:
    """Target groups that tell one state after the other; the last one stays."""

    def __init__(self, **groups: list[dict[Target, str]]) -> None:
        self.groups = groups
        self.reads: list[str] = []

    def __call__(self, group: str) -> list[Member]:
        self.reads.append(group)
        states = self.groups[group]
        now = states.pop(0) if len(states) > 1 else states[0]
        return [Member(target, state) for target, state in now.items()]


def test_polls_grow_rarer_with_jitter_and_the_last_is_at_the_deadline() -> None:
    clock = Clock()
    spent = list(clock.pace(cap=3.0).polls(10))
    assert spent == pytest.approx([0, 1, 2.5, 4.75, 7.75, 10])
    early, late = Clock(), Clock()
    list(early.pace(chance=0.0).polls(10))
    list(late.pace(chance=1.0).polls(10))
    assert (early.slept[0], late.slept[0]) == (0.5, 1.5), "hosts do not poll in step"
    assert list(Clock().pace().polls(0)) == [0]


def test_health_is_waited_for_in_all_groups_with_one_read_a_group_and_poll() -> None:
    aws = Aws(
        x=[{A: "initial", B: "initial"}, {A: "healthy", B: "healthy"}],
        y=[{A: "initial"}, {A: "unhealthy"}, {A: "healthy"}],
    )
    seen = until_healthy(aws, {"x": {A, B}, "y": {A}}, {}, Clock().pace(), 300)
    assert aws.reads == ["x", "y", "x", "y", "y"]
    assert all(member.healthy for found in seen.values() for member in found)


def test_what_is_seen_healthy_is_not_read_again() -> None:
    aws = Aws(x=[{A: "healthy"}])
    until_healthy(aws, {"x": {A}, "y": set()}, {"x": aws("x")}, Clock().pace(), 300)
    assert aws.reads == ["x"]


def test_what_is_seen_ill_is_waited_for() -> None:
    aws = Aws(x=[{A: "unhealthy"}, {A: "healthy"}])
    seen = until_healthy(aws, {"x": {A}}, {"x": aws("x")}, Clock().pace(), 300)
    assert seen["x"][0].healthy


def test_waiting_has_a_deadline() -> None:
    clock, aws = Clock(), Aws(x=[{A: "unhealthy"}])
    seen = until_healthy(aws, {"x": {A}}, {}, clock.pace(), 60)
    assert sum(clock.slept) == 60
    assert seen["x"] == [Member(A, "unhealthy")]


@pytest.mark.parametrize("last", [{A: "unused"}, {A: "draining"}, {}])
def test_what_no_check_changes_is_not_waited_for_to_the_end(last: dict[Target, str]) -> None:
    clock, aws = Clock(), Aws(x=[last])
    until_healthy(aws, {"x": {A}}, {}, clock.pace(), 300)
    assert len(aws.reads) == STUBBORN
    assert sum(clock.slept) < 30


def test_a_state_of_before_is_waited_out() -> None:
    stale = [{A: "draining"}] * (STUBBORN - 1)
    aws = Aws(x=[*stale, {A: "initial"}, {A: "draining"}, {A: "healthy"}])
    seen = until_healthy(aws, {"x": {A}}, {}, Clock().pace(), 300)
    assert seen["x"][0].healthy


def test_one_that_is_stuck_does_not_cut_the_others_short() -> None:
    aws = Aws(x=[*[{A: "unused", B: "initial"}] * 8, {A: "unused", B: "healthy"}])
    seen = until_healthy(aws, {"x": {A, B}}, {}, Clock().pace(), 300)
    assert [member.state for member in seen["x"]] == ["unused", "healthy"]


def hosts(**counts: list[Any]) -> Callable[[Iterable[str]], dict[str, Any]]:
    """What hosts tell, one count after the other, by the letter of their id."""

    def ask(names: Iterable[str]) -> dict[str, Any]:
        answers = {}
        for name in names:
            told = counts[name[2]]
            answers[name] = told.pop(0) if len(told) > 1 else told[0]
        return answers

    return ask


def drain(
    aws: Aws, ask: Any = None, quiet: float = 5, timeout: float = 300, **leaving: set[Target]
) -> dict[tuple[str, Target], Drained]:
    return until_drained(aws, leaving or {"x": {A}}, ask, quiet, Clock().pace(cap=1), timeout)


def ends(found: dict[tuple[str, Target], Drained]) -> dict[str, str]:
    return {f"{group} {target.id[2]}": end.by for (group, target), end in found.items()}


def test_a_drain_ends_when_the_host_has_been_idle_for_a_while() -> None:
    found = drain(Aws(x=[{A: "draining"}]), hosts(a=[4, 2, 0]), quiet=5)
    assert found["x", A] == Drained("idle", 7.0, 0), "idle from second 2 on, for 5 seconds"


def test_a_request_in_between_begins_the_quiet_anew() -> None:
    found = drain(Aws(x=[{A: "draining"}]), hosts(a=[0, 0, 1, 0]), quiet=5)
    assert found["x", A] == Drained("idle", 8.0, 0)


def test_without_quiet_the_first_idle_moment_is_the_end() -> None:
    assert drain(Aws(x=[{A: "draining"}]), hosts(a=[0]), quiet=0)["x", A].seconds == 0


def test_a_drain_ends_when_aws_ends_it() -> None:
    found = drain(Aws(x=[{A: "draining"}, {A: "draining"}, {}]), hosts(a=[3]))
    assert found["x", A] == Drained("deregistered", 2.0, 3)
    assert drain(Aws(x=[{A: "draining"}, {}]))["x", A] == Drained("deregistered", 1.0, None)


def test_a_drain_ends_when_time_is_over() -> None:
    found = drain(Aws(x=[{A: "draining"}]), hosts(a=[3]), timeout=20)
    assert found["x", A] == Drained("timeout", 20.0, 3)


def test_a_host_that_does_not_tell_is_not_idle() -> None:
    found = drain(Aws(x=[{A: "draining"}]), hosts(a=["no answer"]), timeout=20)
    assert found["x", A] == Drained("timeout", 20.0, None, "no answer")


def test_each_target_ends_for_itself_with_one_read_a_group_and_poll() -> None:
    aws = Aws(x=[{A: "draining", B: "draining"}], y=[{A: "draining"}, {}])
    found = drain(aws, hosts(a=[0], b=[1]), quiet=3, timeout=10, x={A, B}, y={A})
    assert ends(found) == {"y a": "deregistered", "x a": "idle", "x b": "timeout"}
    assert aws.reads == ["x", "y", "x", "y", *["x"] * 9]


def test_a_target_that_somebody_registers_again_is_told() -> None:
    aws = Aws(x=[{A: "healthy"}])
    assert ends(drain(aws, hosts(a=[0]))) == {"x a": "registered"}
    assert len(aws.reads) == STUBBORN


def test_a_state_of_before_is_no_registration() -> None:
    aws = Aws(x=[{A: "healthy"}, {A: "healthy"}, {A: "draining"}])
    assert ends(drain(aws, hosts(a=[0]), quiet=0)) == {"x a": "idle"}


def test_nothing_to_drain_asks_nobody() -> None:
    aws = Aws()
    assert drain(aws, x=set()) == {}
    assert aws.reads == []
