"""Up is idempotent and cleans up after the dead; down leaves nothing; labs stand side by side."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import lifecycle
from lab.errors import LabError
from lab.podman import Podman
from lab.settings import Settings
from tests.integration.lab.conftest import Aws, Box, eventually, opens
from tests.support.lab import ROOT

pytestmark = pytest.mark.lab

OTHER = Settings.of("labother", "198.18.11.0/24")


def said(capsys: pytest.CaptureFixture[str], settings: Settings) -> str:
    lifecycle.up(settings, print)
    return capsys.readouterr().out


def traces(settings: Settings) -> list[str]:
    """Return everything on the machine that bears a lab's name."""
    found = [str(c["Names"]) for c in Podman.of(settings).containers(settings.name)]
    for command in (
        ["ip", "netns"],
        ["ip", "-o", "link"],
        ["ip", "-4", "route"],
        ["nft", "list", "tables"],
        ["iptables-save"],
        ["ps", "-eo", "args"],
        ["cat", "/etc/hosts", "/proc/mounts"],
    ):
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        words = (f"ascent-{settings.name}", settings.table, settings.uplink, f"lab {settings.name}",
                 f"lab.server {settings.name}")  # fmt: skip
        found += [line for line in lines.splitlines() if any(word in line for word in words)]
    return found + [str(path) for path in settings.run.glob(f"{settings.name}*")]


def test_a_second_up_changes_nothing(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    before = lifecycle.Server(aws.settings).process()
    assert "stands already" in said(capsys, aws.settings)
    assert lifecycle.Server(aws.settings).process() == before


def test_a_taken_subnet_is_refused(aws: Aws) -> None:
    with pytest.raises(LabError, match="has the subnet"):
        lifecycle.up(Settings.of("labthird", str(aws.settings.subnet)), print)
    assert not traces(Settings.of("labthird", str(aws.settings.subnet)))


def test_two_labs_and_their_ends(
    aws: Aws,
    pair: tuple[Box, Box],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another lab with the same network, killed, started afresh, taken down: ours lives on."""
    lifecycle.up(OTHER, print)
    try:
        other = Aws(OTHER, tmp_path)
        box = other.launch().wait("running")
        assert box.private in {b.private for b in pair}, "the same address, twice on one machine"
        assert box.run("hostname -I").strip() == box.private
        public = box.public
        with_server = lifecycle.Server(OTHER).process()
        assert with_server is not None
        assert f"ascent-{OTHER.name}" in "\n".join(traces(OTHER))

        os.kill(with_server, signal.SIGKILL)
        while lifecycle.Server(OTHER).process() is not None:
            pass
        with pytest.raises(LabError, match="is dead"):
            lifecycle.status(OTHER)
        out = said(capsys, OTHER)
        assert "server died" in out
        assert "removing 1 host" in out
        assert lifecycle.status(OTHER)["hosts"] == []
        assert not opens(public)
        assert not any(box.id[-10:] in trace for trace in traces(OTHER))
    finally:
        lifecycle.down(OTHER, print)
    assert traces(OTHER) == []
    assert pair[0].run("echo alive") == "alive"
    assert traces(aws.settings)


def test_down_of_nothing_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    lifecycle.down(OTHER, print)
    assert traces(OTHER) == []


def test_an_image_build_that_is_killed_leaves_no_mount(tmp_path: Path) -> None:
    """What it leaves is removed by the next build, which must not reach the machine's own files."""
    program = (
        "import sys; from pathlib import Path; from lab import image; place = Path(sys.argv[1]);"
        " image._bootstrap(image.recipe('trixie', b''), place, place / 'root.tar', print)"
    )
    build = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, start_new_session=True
    )

    def mounted() -> bool:
        for path in Path("/proc").glob("[0-9]*/mountinfo"):
            with contextlib.suppress(OSError):
                if f"{tmp_path}/" in path.read_text():
                    return True
        return False

    try:
        eventually(mounted)
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    finally:
        os.killpg(build.pid, signal.SIGKILL)
        build.wait()
    eventually(lambda: not mounted())
    shutil.rmtree(tmp_path)
