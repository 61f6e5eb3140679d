"""What happens to background processes: what stands and is wanted in, steps out."""

from __future__ import annotations

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.workers import (
    Standing,
    Wanted,
    make_plan,
    processes_of,
)

NEW = Wanted("python -m mail", "[Unit]", ("new.1", "new.2"))
RUNNING = {"new.1": True, "new.2": True}


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        pytest.param(NEW, Standing("[Unit]", RUNNING), [], id="as it shall be"),
        pytest.param(
            NEW,
            Standing(),
            [
                "describe mailer",
                "create mailer new.1 new.2",
                "start mailer new.1 new.2",
                "settle mailer new.1 new.2",
            ],
            id="a new worker",
        ),
        pytest.param(
            NEW,
            Standing("[Unit]", {"old.1": True, "old.2": False}),
            [
                "create mailer new.1 new.2",
                "stop mailer old.1",
                "start mailer new.1 new.2",
                "settle mailer new.1 new.2",
                "remove mailer old.1 old.2",
            ],
            id="the old ones stop before the new ones start, and go last",
        ),
        pytest.param(
            NEW,
            Standing("[Unit]", {"new.1": True, "new.2": False, "old.1": False}),
            ["start mailer new.2", "settle mailer new.2", "remove mailer old.1"],
            id="a killed run is taken up",
        ),
        pytest.param(
            Wanted("python -m mail", "[Unit]", ("new.1",)),
            Standing("[Unit]", RUNNING),
            ["stop mailer new.2", "remove mailer new.2"],
            id="fewer processes: the others are left alone",
        ),
        pytest.param(
            NEW,
            Standing("[Unit]", RUNNING, (".creating-x",)),
            ["discard mailer .creating-x"],
            id="litter",
        ),
        pytest.param(NEW, Standing("other", RUNNING), ["describe mailer"], id="another unit"),
        pytest.param(
            None,
            Standing("[Unit]", {"old.1": True}),
            ["stop mailer old.1", "remove mailer old.1", "forget mailer"],
            id="taken out",
        ),
    ],
)
def test_steps(wanted: Wanted | None, found: Standing, expected: list[str]) -> None:
    plan = make_plan({"mailer": wanted} if wanted else {}, {"mailer": found})
    assert [str(step) for step in plan.get("mailer", ())] == expected


def test_a_worker_that_changes_does_not_touch_the_others() -> None:
    plan = make_plan({"a": NEW, "b": NEW}, {"a": Standing("[Unit]", RUNNING)})
    assert list(plan) == ["b"]


def test_whatever_a_process_is_made_of_names_it() -> None:
    base = processes_of("r1", {"A": "1"}, "run", "[Unit]", 2)
    assert [name.rpartition(".")[2] for name in base] == ["1", "2"]
    others = [
        processes_of("r2", {"A": "1"}, "run", "[Unit]", 2),
        processes_of("r1", {"A": "2"}, "run", "[Unit]", 2),
        processes_of("r1", {"A": "1"}, "walk", "[Unit]", 2),
        processes_of("r1", {"A": "1"}, "run", "[Unit]\n", 2),
    ]
    assert len({base, *others}) == 5
    # Another number does not replace those that run.
    assert processes_of("r1", {"A": "1"}, "run", "[Unit]", 3)[:2] == base
