"""The hosts' place among the machine's processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import podman
from lab.podman import Podman


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of a machine, of version 1, after a host was started."""
    folder = tmp_path / "groups"
    for controller in ("cpu", "memory"):
        for group in ("ascent-lab", "ascent-lab-background"):
            (folder / controller / group).mkdir(parents=True)
    monkeypatch.setattr(podman, "_GROUPS", folder)
    return folder


@pytest.fixture
def without_systemd(tmp_path: Path) -> Podman:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "own-group").touch()
    return Podman(tmp_path / "cache", tmp_path / "run")


def test_hosts_weigh_more_than_one_process(groups: Path, without_systemd: Podman) -> None:
    shares = groups / "cpu" / "ascent-lab" / "cpu.shares"
    shares.write_text("1024")
    without_systemd.weigh()
    assert shares.read_text() == "8192"
    assert without_systemd.placement() == ("--cgroup-parent", "/ascent-lab")


def test_hosts_of_a_background_lab_give_way(groups: Path, without_systemd: Podman) -> None:
    shares = groups / "cpu" / "ascent-lab-background" / "cpu.shares"
    shares.write_text("1024")
    without_systemd.weigh()
    assert shares.read_text() == "512"
    placement = without_systemd.placement(background=True)
    assert placement == ("--cgroup-parent", "/ascent-lab-background")


def test_hosts_weigh_more_in_version_2(groups: Path, without_systemd: Podman) -> None:
    (groups / "ascent-lab").mkdir()
    (groups / "ascent-lab" / "cpu.weight").write_text("100")
    without_systemd.weigh()
    assert (groups / "ascent-lab" / "cpu.weight").read_text() == "800"


def test_systemd_places_hosts_itself(groups: Path, tmp_path: Path) -> None:
    placed = Podman(tmp_path / "cache", tmp_path / "run")
    assert placed.placement() == ()
    assert placed.placement(background=True) == ("--cpu-shares", "128")


def test_the_group_goes_with_the_last_lab(groups: Path, without_systemd: Podman) -> None:
    (groups / "cpu" / "ascent-lab" / "conmon").mkdir()
    without_systemd.forget()
    assert list(groups.glob("*/*")) == []
