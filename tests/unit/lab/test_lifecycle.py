"""The end of a lab's server, with real processes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from lab import hosts, lifecycle
from lab.settings import Settings


@pytest.mark.parametrize("goes_on", ["1", "60"])
def test_what_a_server_has_just_begun_ends_before_its_lab_goes(
    goes_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a start of a container does, which would outlive the lab: it has time, and not forever."""
    monkeypatch.setattr(lifecycle, "PATIENCE_S", 3.0)
    settings = Settings(run=tmp_path)
    settings.state.mkdir(parents=True)
    begun = tmp_path / "begun"
    server = subprocess.Popen(
        ["sh", "-c", f"sleep {goes_on} & echo $! >{begun}.new; mv {begun}.new {begun}; wait"],
        start_new_session=True,
    )
    deadline = time.monotonic() + 10
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    settings.pid_file.write_text(f"{server.pid} {hosts.start_time(server.pid)}\n")
    started = time.monotonic()
    lifecycle.Server(settings).stop()
    took = time.monotonic() - started
    server.wait(5)
    with pytest.raises(OSError):
        hosts.start_time(int(begun.read_text()))
    assert (took < 3) == (goes_on == "1")
