"""The filter postgresql_disk, as a table over sizes of volumes."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.postgresql_disk import disk, postgresql_disk


@pytest.mark.parametrize(
    ("gib", "max_wal", "min_wal", "kept"),
    [
        pytest.param(1, "256MB", "80MB", "256MB", id="the smallest"),
        pytest.param(8, "1024MB", "256MB", "1600MB", id="no less than the default"),
        pytest.param(20, "2048MB", "512MB", "4096MB", id="stage 1"),
        pytest.param(100, "10240MB", "2560MB", "20480MB", id="a bigger box"),
        pytest.param(1000, "16384MB", "4096MB", "204800MB", id="recovery within minutes"),
    ],
)
def test_wal_follows_the_size(gib: int, max_wal: str, min_wal: str, kept: str) -> None:
    found = disk(gib * 1024)
    assert (found["max_wal_size"], found["min_wal_size"], found["max_slot_wal_keep_size"]) == (
        max_wal,
        min_wal,
        kept,
    )


@pytest.mark.parametrize("gib", [1, 2, 5, 8, 20, 100, 2000])
def test_wal_and_what_slots_keep_leave_more_than_half_of_the_disk(gib: int) -> None:
    found = disk(gib * 1024)
    used = sum(
        int(str(found[name]).removesuffix("MB"))
        for name in ("max_wal_size", "max_slot_wal_keep_size")
    )
    assert used <= gib * 1024 / 2


def test_a_disk_that_seeks_is_read_in_order() -> None:
    assert (disk(20480)["random_page_cost"], disk(20480)["effective_io_concurrency"]) == (1.1, 200)
    seeks = disk(20480, "hdd")
    assert (seeks["random_page_cost"], seeks["effective_io_concurrency"]) == (4, 2)


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (1000, "ssd", "1024 MiB or more, not 1000"),
        (20480, "tape", "ssd or hdd, not tape"),
        ("much", "ssd", "invalid literal"),
    ],
)
def test_bad_input_is_refused(size: int | str, kind: str, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        postgresql_disk(size, kind)
