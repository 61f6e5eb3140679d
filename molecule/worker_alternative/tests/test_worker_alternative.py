"""What the role worker changes on a host that it made otherwise before, while the release stays."""

from __future__ import annotations

from typing import Any

import pytest

BASE = "/srv/clerk/workers"


@pytest.fixture
def writers(host: Any) -> list[str]:
    """The units of the writers that run."""
    told = host.check_output(
        "systemctl list-units --plain --no-legend --state=active 'clerk-worker-writer@*'"
    )
    return [line.split()[0] for line in told.splitlines()]


def test_there_is_one_more_by_its_new_command(host: Any, writers: list[str]) -> None:
    assert len(writers) == 3
    for unit in writers:
        pid = host.check_output(f"systemctl show -P MainPID {unit}")
        command = host.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline").split()
        assert command[-3:] == ["-u", "-m", "clerk.writer"]


def test_they_have_their_new_limits(host: Any, writers: list[str]) -> None:
    for unit in writers:
        limits = host.check_output(f"systemctl show -P MemoryMax -P TimeoutStopUSec {unit}")
        assert sorted(limits.split()) == [str(128 * 1024 * 1024), "30s"]


def test_the_one_that_was_taken_out_is_gone(host: Any) -> None:
    assert host.check_output(f"ls {BASE}").split() == ["start", "writer"]
    assert host.check_output("ls /etc/systemd/system | grep clerk-worker-").split() == [
        "clerk-worker-writer@.service"
    ]
    units = host.check_output("systemctl list-units --all --plain --no-legend 'clerk-worker-*'")
    assert "sleeper" not in units
    assert host.run("pgrep -u clerk -x sleep").stdout == ""


def test_the_jobs_at_hand_were_ended_and_the_release_is_the_same(
    host: Any, writers: list[str]
) -> None:
    """No process of before began what it did not end, nor went on beside those of today."""
    today = {host.check_output(f"systemctl show -P MainPID {unit}") for unit in writers}
    notes = [
        (float(at), what, release, process)
        for at, what, release, process, _ in map(
            str.split, host.check_output("cat /srv/clerk/shared/uploads/notes").splitlines()
        )
    ]
    began = min(at for at, _, _, process in notes if process in today)
    last = {note[3]: note for note in notes if note[3] not in today and note[0] > began - 10}
    assert len(last) == 2
    assert {what for _, what, _, _ in last.values()} == {"end"}
    assert max(at for at, _, _, _ in last.values()) < began
    live = host.check_output("basename $(readlink -f /srv/clerk/current)")
    assert {release for at, _, release, _ in notes if at > began - 10} == {live}
