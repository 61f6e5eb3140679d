"""Which updates count, what they interrupt, and what runs with replaced files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ascent.scaling.plugins.modules import host_updates

SIMULATED = """\
Inst libssl3t64 [3.5.1-1] (3.5.1-1+deb13u1 Debian-Security:13/stable-security [amd64])
Inst postgresql-17 [17.5-1] (17.6-0+deb13u1 Debian:13.2/stable, Debian-Security:13/stable-security [amd64])
Inst tzdata [2025b-4] (2025b-4+deb13u1 Debian:13.2/stable [all])
Inst linux-image-6.12.57-amd64 (6.12.57-1 Debian-Security:13/stable-security [amd64])
Inst linux-image-amd64 [6.12.48-1] (6.12.57-1 Debian-Security:13/stable-security [amd64])
Conf libssl3t64 (3.5.1-1+deb13u1 Debian-Security:13/stable-security [amd64])
"""  # noqa: E501 - as apt prints it


def test_only_upgrades_from_the_security_archive_count() -> None:
    found = host_updates.parse(SIMULATED, security_only=True)
    assert [(item["package"], item["interrupts"]) for item in found] == [
        ("libssl3t64", ""),
        ("linux-image-amd64", "reboot"),
        ("postgresql-17", "restart"),
    ]
    assert found[0] | {"interrupts": ""} == {
        "package": "libssl3t64",
        "installed": "3.5.1-1",
        "available": "3.5.1-1+deb13u1",
        "interrupts": "",
    }


def test_all_upgrades_count_on_request() -> None:
    found = host_updates.parse(SIMULATED, security_only=False)
    assert "tzdata" in [item["package"] for item in found]
    assert "linux-image-6.12.57-amd64" not in [item["package"] for item in found]


@pytest.mark.parametrize(
    ("package", "interrupts"),
    [
        ("postgresql-17", "restart"),
        ("postgresql-client-17", ""),
        ("pgbouncer", "restart"),
        ("valkey-server", "restart"),
        ("libc6", "reboot"),
        ("libc6-dev", ""),
        ("nginx", ""),
    ],
)
def test_what_an_upgrade_interrupts(package: str, interrupts: str) -> None:
    assert host_updates.interruption(package) == interrupts


def test_the_newest_kernel_is_found_by_its_numbers() -> None:
    kernels = ["6.12.9-amd64", "6.12.57-amd64"]
    assert host_updates.newer(kernels, "6.12.9-amd64") == "6.12.57-amd64"
    assert host_updates.newer(kernels, "6.12.57-amd64") == ""
    assert host_updates.newer(kernels, "4.4.0-of-the-machine-underneath") == ""
    assert host_updates.newer([], "6.12.9-amd64") == ""


def test_the_reason_of_a_reboot_is_told(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "run").mkdir()
    assert host_updates.reboot_needed(tmp_path, "1") == ""
    for kernel in ("1", "2"):
        (tmp_path / f"boot/vmlinuz-{kernel}").touch()
    assert host_updates.reboot_needed(tmp_path, "1") == "the kernel 1 runs, 2 is installed"
    (tmp_path / "run/reboot-required").touch()
    (tmp_path / "run/reboot-required.pkgs").write_text("libc6\ndbus\nlibc6\n")
    assert host_updates.reboot_needed(tmp_path, "1") == "packages ask for it: dbus, libc6"


def test_units_with_replaced_files_are_found(tmp_path: Path) -> None:
    line = "7f0000000000-7f0000001000 r-xp 00000000 00:00 1                  "
    for pid, mapped, group in (
        ("10", "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", "0::/system.slice/ssh.service"),
        ("11", "/usr/lib/x86_64-linux-gnu/libssl.so.3", "0::/system.slice/cron.service"),
        ("12", "/dev/zero (deleted)", "0::/system.slice/postgresql@17-main.service"),
        ("13", "/usr/sbin/nginx (deleted)", "0::/user.slice/user-0.slice/session-1.scope"),
    ):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "maps").write_text(f"{line} {mapped}\n")
        (tmp_path / pid / "cgroup").write_text(f"{group}\n")
    (tmp_path / "self").mkdir()
    assert host_updates.outdated_units(tmp_path) == ["ssh.service"]
