"""What goes into an archive of logs, and what never does."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.modules import host_logs

NINE = 1795424400.0  # 2026-11-23 09:00:00 UTC


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"2026-11-23 09:00:05.123 UTC [12] LOG: x", 5),
        (b'{"time":"2026-11-23T10:00:07+01:00","status":200}', 7),
        (b"2026/11/23 09:00:09 [error] 1#1: x", 9),
        (b"2026-11-23T09:00:11+0000 box nginx[1]: x", 11),
        (b"no time at all", None),
        (b"2026-99-23 09:00:05 x", None),
    ],
)
def test_the_time_of_a_line_is_read(line: bytes, seconds: int | None) -> None:
    assert host_logs.moment(line) == (None if seconds is None else NINE + seconds)


def test_a_line_without_a_time_belongs_to_the_one_before() -> None:
    lines = [
        b"2026-11-23 08:59:59 UTC early\n",
        b"\tits detail\n",
        b"2026-11-23 09:00:01 UTC ERROR\n",
        b"\tSTATEMENT: SELECT\n",
        b"2026-11-23 09:10:00 UTC late\n",
    ]
    assert list(host_logs.within(lines, NINE, NINE + 60)) == lines[2:4]


def test_secrets_and_passwords_in_urls_are_hidden() -> None:
    line = b"login hunter2hunter2 at postgresql://shop:p%40ss@127.0.0.1/x and https://a.b/c"
    assert host_logs.hide(line, [b"hunter2hunter2"]) == (
        b"login (secret) at postgresql://shop:(secret)@127.0.0.1/x and https://a.b/c"
    )


def test_of_too_much_the_last_lines_stay_and_it_is_said() -> None:
    text, cut = host_logs.last([b"%03d\n" % n for n in range(100)], 12)
    assert cut
    assert text == b"(388 bytes before this were left out)\n097\n098\n099\n"
    assert host_logs.last([b"a\n"], 12) == (b"a\n", False)


@pytest.mark.parametrize(
    ("sizes", "most", "level"),
    [
        ([], 100, 0),
        ([10, 20, 30], 100, 30),
        ([10, 20, 300], 100, 70),
        ([10, 200, 300], 100, 45),
        ([200, 200], 100, 50),
    ],
)
def test_only_the_biggest_are_cut(sizes: list[int], most: int, level: int) -> None:
    assert host_logs.level(sizes, most) == level
    assert sum(min(size, level) for size in sizes) <= most


def wish(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "archive": str(tmp_path / "logs.tar.gz"),
        "since": NINE,
        "until": NINE + 60,
        "units": [],
        "files": [str(tmp_path / "*.log*")],
        "facts": {"state.txt": "release 1, key sesame-open-up"},
        "secrets": ["sesame-open-up"],
        "max_bytes": 10_000,
        **more,
    }


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.log").write_text("2026-11-23 09:00:01 UTC sesame-open-up\n")
    with gzip.open(tmp_path / "a.log.1.gz", "wb") as packed:
        packed.write(b"2026-11-23 09:00:00 UTC packed\n")
    (tmp_path / "old.log").write_text("2026-11-23 09:00:01 UTC not written since\n")
    os.utime(tmp_path / "old.log", (NINE - 10, NINE - 10))
    monkeypatch.setattr(host_logs, "journal", lambda unit, since, until: iter([]))
    return tmp_path


def test_the_archive_has_the_span_and_no_secret(files: Path) -> None:
    result = host_logs.pack(wish(files), dry=False)
    with tarfile.open(files / "logs.tar.gz") as archive:
        texts = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]
    assert set(texts) == set(result["sources"])
    assert not any("old.log" in name for name in texts)
    whole = b"".join(texts.values())
    assert b"packed" in whole
    assert b"UTC (secret)\n" in whole
    assert b"sesame" not in whole
    assert (files / "logs.tar.gz").stat().st_mode & 0o777 == 0o600


def test_check_mode_writes_nothing(files: Path) -> None:
    result = host_logs.pack(wish(files), dry=True)
    assert not result["changed"]
    assert result["sources"]
    assert not (files / "logs.tar.gz").exists()
