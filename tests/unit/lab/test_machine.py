"""What the lab writes on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError
from lab.machine import egress_rules, with_block, write_names
from lab.settings import Settings

BLOCK = "# BEGIN ascent lab unit\n192.0.2.1 a.test\n192.0.2.2 b.test\n# END ascent lab unit\n"
NAMES = {"b.test": "192.0.2.2", "a.test": "192.0.2.1"}
HOSTS = "127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        (HOSTS, NAMES, HOSTS + BLOCK),
        (HOSTS.rstrip(), NAMES, HOSTS + BLOCK),
        (HOSTS + BLOCK, NAMES, HOSTS + BLOCK),
        (HOSTS + BLOCK, {}, HOSTS),
        (HOSTS, {}, HOSTS),
        (BLOCK + HOSTS, {"c.test": "192.0.2.3"}, HOSTS + BLOCK.replace(
            "192.0.2.1 a.test\n192.0.2.2 b.test", "192.0.2.3 c.test")),
        (BLOCK.replace("unit", "other") + HOSTS, {}, BLOCK.replace("unit", "other") + HOSTS),
        ("", NAMES, BLOCK),
    ],
)  # fmt: skip
def test_a_labs_block_in_the_hosts_file(text: str, names: dict[str, str], expected: str) -> None:
    assert with_block(text, "unit", names) == expected


def test_the_hosts_file_keeps_its_mode_and_leaves_no_copy(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(HOSTS)
    file.chmod(0o640)
    write_names("unit", NAMES, file)
    assert file.read_text() == HOSTS + BLOCK
    assert file.stat().st_mode & 0o777 == 0o640
    write_names("unit", {}, file)
    assert file.read_text() == HOSTS
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]


def test_a_hosts_file_without_changes_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(HOSTS + BLOCK)
    before = file.stat().st_ino
    write_names("unit", NAMES, file)
    assert file.stat().st_ino == before


def test_labs_reach_the_internet_but_not_each_other() -> None:
    rules = egress_rules(Settings.of("unit", "198.18.7.0/24"))
    assert 'iifname "asc-unit" oifname "asc*" drop' in rules
    assert 'ip saddr 198.18.7.0/24 oifname != "asc-unit" masquerade' in rules


@pytest.mark.parametrize(
    ("name", "subnet", "message"),
    [
        ("Lab", "198.18.0.0/24", "no name"),
        ("my-lab", "198.18.0.0/24", "no hyphen"),
        ("", "198.18.0.0/24", "no name"),
        ("a" * 17, "198.18.0.0/24", "no name"),
        ("lab", "198.18.0.0/25", "must be a /24"),
        ("lab", "198.18.0.7/24", "no subnet"),
        ("lab", "here", "no subnet"),
    ],
)
def test_settings_that_cannot_be(name: str, subnet: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        Settings.of(name, subnet)


def test_names_in_the_kernel_are_short_and_differ() -> None:
    names = ["a", "ascent", "abcdefghijk", "abcdefghijkl", "abcdefghijklm"]
    links = [Settings.of(name, "198.18.0.0/24").uplink for name in names]
    assert all(len(link) <= 15 and link.startswith("asc") for link in links)
    assert len(set(links)) == len(links)


def test_addresses_follow_from_the_subnet() -> None:
    lab = Settings.of("unit", "198.18.7.0/24")
    assert lab.endpoint == "http://198.18.7.2:4566"
    assert lab.machine_address == "198.18.7.1"
    assert [str(address) for address in lab.public_pool] == ["198.18.7.16", "198.18.7.250"]
