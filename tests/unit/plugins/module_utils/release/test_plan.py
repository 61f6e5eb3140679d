"""What happens to releases, as tables: what is found and wanted in, steps out."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._release.plan import (
    Desired,
    Found,
    Instance,
    PlanError,
    Release,
    make_plan,
    rollback_target,
    valid_release,
)


def releases(*names: str, **fields: Any) -> dict[str, Release]:
    """Built releases, used in the order in which they are named."""
    return {
        name: Release(name, digest=f"digest of {name}", used_at=float(age), **fields)
        for age, name in enumerate(names)
    }


def instances(*names: str, **fields: Any) -> dict[str, Instance]:
    return {
        name: Instance(name, name.rpartition(".")[0], fields.pop("checksum", "env"), **fields)
        for name in names
    }


def standing(live: str = "a.1", *known: str, **fields: Any) -> Found:
    """A host on which `live` serves, and releases `known` lie."""
    names = known or (live.rpartition(".")[0],)
    return Found(
        releases=releases(*names),
        instances=instances(live, **fields),
        live=live,
        running=frozenset({live}),
    )


def wanted(release: str, checksum: str = "env", **fields: Any) -> Desired:
    fields.setdefault("digest", f"digest of {release}")
    fields.setdefault("can_build", True)
    return Desired(release=release, checksum=checksum, **fields)


def steps(desired: Desired, found: Found) -> list[str]:
    return [str(step) for step in make_plan(desired, found).steps]


REPLACE_A = ["drain a.1", "stop a.1", "remove a.1"]
BRING_B = ["create b.1", "start b.1", "gate b.1", "switch b.1"]


@pytest.mark.parametrize(
    ("desired", "found", "expected"),
    [
        pytest.param(
            wanted("a"),
            Found(),
            ["build a", "create a.1", "start a.1", "gate a.1", "switch a.1"],
            id="the first release",
        ),
        pytest.param(wanted("a"), standing(), [], id="what stands is what is wanted"),
        pytest.param(wanted("b"), standing(), ["build b", *BRING_B, *REPLACE_A], id="another"),
        pytest.param(
            wanted("b", migrate=True),
            standing(),
            ["build b", "migrate b", *BRING_B, *REPLACE_A],
            id="migrated before it starts",
        ),
        pytest.param(
            wanted("b"),
            standing("a.1", "a", "b"),
            [*BRING_B, *REPLACE_A],
            id="already built, so it only goes live",
        ),
        pytest.param(
            wanted("b", migrate=True),
            standing("a.1", "a", "b"),
            ["migrate b", *BRING_B, *REPLACE_A],
            id="built but not migrated: the last run failed there",
        ),
        pytest.param(
            wanted("a", "other env"),
            standing(),
            ["create a.2", "start a.2", "gate a.2", "switch a.2", *REPLACE_A],
            id="a new environment rolls the same release",
        ),
        pytest.param(wanted("b", go_live=False), standing(), ["build b"], id="only to be present"),
    ],
)
def test_the_way_to_a_release(desired: Desired, found: Found, expected: list[str]) -> None:
    assert steps(desired, found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            Found(
                releases={**releases("a"), "b": Release("b", built=False)},
                instances=instances("a.1"),
                live="a.1",
                running=frozenset({"a.1"}),
            ),
            ["discard releases/b", "build b", *BRING_B, *REPLACE_A],
            id="while it was built",
        ),
        pytest.param(
            Found(
                releases=releases("a", "b"),
                instances=instances("a.1"),
                live="a.1",
                running=frozenset({"a.1"}),
                litter=("instances/.creating-x",),
            ),
            ["discard instances/.creating-x", *BRING_B, *REPLACE_A],
            id="while the instance was laid down",
        ),
        pytest.param(
            Found(
                releases=releases("a", "b"),
                instances=instances("a.1", "b.1"),
                live="a.1",
                running=frozenset({"a.1", "b.1"}),
            ),
            ["start b.1", "gate b.1", "switch b.1", *REPLACE_A],
            id="before the switch: the instance is taken up, not doubled",
        ),
        pytest.param(
            Found(
                releases=releases("a", "b"),
                instances=instances("a.1", "b.1"),
                live="b.1",
                running=frozenset({"a.1", "b.1"}),
            ),
            REPLACE_A,
            id="after the switch: the old one is still let go",
        ),
        pytest.param(
            Found(
                releases=releases("a", "b"),
                instances=instances("a.1", "b.1"),
                live="b.1",
                running=frozenset({"b.1"}),
            ),
            ["remove a.1"],
            id="after the old one stopped",
        ),
        pytest.param(
            Found(
                releases=releases("a", "b"),
                instances=instances("b.1"),
                live="b.1",
                running=frozenset({"b.1", "a.1"}),
            ),
            ["drain a.1", "stop a.1"],
            id="a unit without an instance",
        ),
    ],
)
def test_a_killed_run_is_taken_up(found: Found, expected: list[str]) -> None:
    assert steps(wanted("b"), found) == expected


def test_a_dead_live_instance_is_started_and_asked_for_its_health() -> None:
    found = Found(releases=releases("a"), instances=instances("a.1"), live="a.1")
    assert steps(wanted("a"), found) == ["start a.1", "gate a.1"]


def test_an_instance_with_another_environment_is_not_taken_up() -> None:
    found = Found(
        releases=releases("a", "b"),
        instances={**instances("a.1"), **instances("b.1", checksum="old")},
        live="a.1",
        running=frozenset({"a.1", "b.1"}),
    )
    assert "create b.2" in steps(wanted("b"), found)
    assert "remove b.1" in steps(wanted("b"), found)


def test_a_name_with_other_content_is_refused() -> None:
    with pytest.raises(PlanError, match="other content"):
        make_plan(wanted("a", digest="of something else"), standing())


def test_without_a_source_only_what_is_built_can_go_live() -> None:
    with pytest.raises(PlanError, match="not built"):
        make_plan(wanted("b", can_build=False), standing())


def test_the_live_release_is_never_discarded() -> None:
    found = Found(
        releases={"a": Release("a", built=False)},
        instances=instances("a.1"),
        live="a.1",
        running=frozenset({"a.1"}),
    )
    with pytest.raises(PlanError, match="left alone"):
        make_plan(wanted("b"), found)


@pytest.mark.parametrize(
    ("keep", "gone"),
    [(7, []), (5, ["prune o1"]), (3, ["prune o1", "prune o2", "prune o3"]), (1, 4), (0, 4)],
)
def test_pruning_keeps_the_newest_the_live_and_the_previous(
    keep: int, gone: list[str] | int
) -> None:
    found = standing("a.1", "a", "o1", "o2", "o3", "o4")
    pruned = [step for step in steps(wanted("b", keep=keep), found) if step.startswith("prune")]
    if isinstance(gone, int):
        assert len(pruned) == gone
        assert not {"prune a", "prune b"} & set(pruned)
    else:
        assert pruned == gone


class TestRollback:
    def test_leads_to_the_release_before(self) -> None:
        assert rollback_target(standing("b.1", "a", "b", previous="a")) == "a"

    def test_repeated_stays_there(self) -> None:
        found = standing("a.1", "a", "b", previous="b", rolled_back=True)
        assert rollback_target(found) == "a"

    def test_leads_to_a_named_release(self) -> None:
        assert rollback_target(standing("c.1", "a", "b", "c", previous="b"), "a") == "a"

    @pytest.mark.parametrize(
        ("found", "wanted_release", "message"),
        [
            (Found(), "", "No release is live"),
            (standing(), "", "No release was live before a"),
            (standing("b.1", "b", previous="a"), "", "gone from this host"),
            (standing("b.1", "a", "b"), "z", "z is not on this host.*Releases on this host: a, b"),
        ],
    )
    def test_says_why_there_is_no_way_back(
        self, found: Found, wanted_release: str, message: str
    ) -> None:
        with pytest.raises(PlanError, match=message):
            rollback_target(found, wanted_release)

    def test_neither_builds_nor_migrates(self) -> None:
        found = standing("b.1", "a", "b", previous="a")
        desired = wanted("a", can_build=False, digest="", rollback=True)
        assert steps(desired, found) == [
            *["create a.1", "start a.1", "gate a.1", "switch a.1"],
            *["drain b.1", "stop b.1", "remove b.1"],
        ]
        assert make_plan(desired, found).previous == "b"


def test_a_new_environment_does_not_become_the_release_to_go_back_to() -> None:
    found = standing("b.1", "a", "b", previous="a")
    assert make_plan(wanted("b", "other env"), found).previous == "a"


@pytest.mark.parametrize("name", ["4be1f0a92c7d", "2026-11-23.1", "v1_2"])
def test_names_of_releases(name: str) -> None:
    assert valid_release(name)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65, "a@b", "é"])
def test_what_is_no_name(name: str) -> None:
    assert not valid_release(name)
