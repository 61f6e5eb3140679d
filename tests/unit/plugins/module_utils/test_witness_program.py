"""The witness's program: journal, schedule, deadlines, descriptions."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._witness import control, program


def journal(path: Path, limit: int = 10 * program.JOURNAL_RESERVE) -> program.Journal:
    return program.Journal(path, limit)


def test_a_line_torn_by_a_crash_is_closed_by_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"e":"ack","n":1}\n{"e":"ack","n"')
    journal(path).record("start")
    lines = path.read_text().splitlines()
    assert lines[1] == '{"e":"ack","n"'
    assert json.loads(lines[2])["e"] == "start"


def test_a_whole_journal_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"e":"end"}\n')
    journal(path).record("start")
    assert len(path.read_text().splitlines()) == 2


def test_the_bound_leaves_room_for_the_answers_of_what_was_sent(tmp_path: Path) -> None:
    book = journal(tmp_path / "journal", program.JOURNAL_RESERVE + 200)
    book.append("sent", n=1)
    with pytest.raises(program.JournalFull):
        for n in range(2, 10):
            book.append("sent", n=n)
    book.record("ack", n=1)
    assert (tmp_path / "journal").stat().st_size < program.JOURNAL_RESERVE + 200


def loop(rate: float, action: Any, tmp_path: Path, cap: float = 1000, workers: int = 2) -> Any:
    failures: list[str] = []
    made = program.OpenLoop(
        "test", rate, cap, workers, journal(tmp_path / "journal"), lambda: action, failures.append
    )
    return made, failures


def test_requests_are_due_on_schedule_however_slow_the_answers_are(tmp_path: Path) -> None:
    dues: list[float] = []

    def slow(due: float) -> None:
        dues.append(due)
        time.sleep(0.2)

    made, _failures = loop(50, slow, tmp_path, workers=20)
    made.start()
    time.sleep(0.6)
    made.stop()
    assert made.join(time.monotonic() + 5)
    assert len(dues) >= 15
    gaps = [b - a for a, b in pairwise(sorted(dues))]
    assert max(gaps) < 0.27


def test_what_waited_is_sent_no_faster_than_the_cap(tmp_path: Path) -> None:
    free = threading.Event()
    sent: list[float] = []

    def stuck(_due: float) -> None:
        free.wait()
        sent.append(time.monotonic())

    made, _failures = loop(40, stuck, tmp_path, cap=50, workers=1)
    made.start()
    time.sleep(0.5)
    free.set()
    time.sleep(0.4)
    made.stop()
    made.join(time.monotonic() + 5)
    burst = [b - a for a, b in pairwise(sent)]
    assert len(burst) >= 5
    assert sum(burst) / len(burst) > 0.019


def test_a_defect_ends_the_witness_in_the_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _arguments: None)

    def broken(_due: float) -> None:
        raise KeyError("oops")

    made, failures = loop(50, broken, tmp_path)
    made.start()
    deadline = time.monotonic() + 5
    while not failures and time.monotonic() < deadline:
        time.sleep(0.01)
    made.stop()
    assert failures[0] == "internal error: KeyError('oops')"


def test_the_watchdog_ends_a_conversation_that_drips() -> None:
    dog = program.Watchdog()
    dog.start()
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(5)
        begin = time.monotonic()
        with dog.limit(here.fileno(), begin + 0.2) as fired:
            assert here.recv(1) == b""
            assert fired()
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(-2, "unknown"), "dns"),
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError(), "reset"),
        (BrokenPipeError(), "reset"),
        (http.client.RemoteDisconnected(), "reset"),
        (TimeoutError(), "timeout"),
        (ssl.SSLCertVerificationError(), "tls"),
        (http.client.BadStatusLine("x"), "protocol"),
        (http.client.IncompleteRead(b""), "protocol"),
        (OSError(113, "No route to host"), "unreachable"),
    ],
)
def test_each_error_has_one_cause(error: Exception, cause: str) -> None:
    assert program.cause_of(error) == cause


def test_an_error_that_is_no_answer_of_the_system_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        program.cause_of(KeyError("ours"))


@pytest.mark.parametrize(
    ("url", "connect_to", "address", "host"),
    [
        ("http://shop.test", None, ("shop.test", 80), "shop.test"),
        ("https://shop.test/x/", None, ("shop.test", 443), "shop.test"),
        ("http://shop.test:81", None, ("shop.test", 81), "shop.test:81"),
        ("http://shop.test", "198.51.100.7", ("198.51.100.7", 80), "shop.test"),
        ("https://shop.test", "198.51.100.7:8443", ("198.51.100.7", 8443), "shop.test"),
        ("https://shop.test", "2001:db8::1", ("2001:db8::1", 443), "shop.test"),
        ("https://shop.test", "[2001:db8::1]:444", ("2001:db8::1", 444), "shop.test"),
    ],
)
def test_where_and_as_whom_it_connects(
    url: str, connect_to: str | None, address: tuple[str, int], host: str
) -> None:
    config = {"url": url, "connect_to": connect_to, "timeout": 1}
    door = program.FrontDoor(config, program.Watchdog())
    assert door._address == address
    assert door.host_header == host


@pytest.mark.parametrize("descriptions", [1, 2, 3, 4])
def test_each_description_meets_fresh_and_kept_connections_alike(descriptions: int) -> None:
    met: dict[int, list[bool]] = {}
    for number in range(1, 4 * descriptions + 1):
        kept = program.is_turn_of_kept(number, descriptions)
        met.setdefault(number % descriptions, []).append(kept)
    assert all(kinds.count(True) == kinds.count(False) == 2 for kinds in met.values())


def test_names_are_filled_in_everywhere_and_braces_of_others_stay() -> None:
    step = {"path": "/o/{n}", "json": {"note": ["{token}-{n}", 7]}, "contains": '{"a": {n}}'}
    assert program.fill(step, {"n": "5", "token": "t"}) == {
        "path": "/o/5",
        "json": {"note": ["t-5", 7]},
        "contains": '{"a": 5}',
    }


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], []), ([3], [[3, 3]]), ([1, 2, 3, 5, 7, 8], [[1, 3], [5, 5], [7, 8]])],
)
def test_ranges(numbers: list[int], expected: list[list[int]]) -> None:
    assert program.ranges(numbers) == expected


@pytest.mark.parametrize(
    ("state", "unknown"),
    [
        ("08006", True),
        ("08P01", True),
        ("57P01", True),
        ("40003", True),
        ("58030", True),
        ("23505", False),
        ("25006", False),
        ("40001", False),
        ("42P01", False),
    ],
)
def test_only_an_answer_that_rolled_back_is_a_failure(state: str, unknown: bool) -> None:
    assert bool(program.UNKNOWN_STATES.match(state)) is unknown


@pytest.mark.parametrize("table", ["x; DROP TABLE y", 'a"b', "a.b.c", "Public.t", ""])
def test_a_table_name_is_plain_or_refused(table: str) -> None:
    assert not program.TABLE_NAME.match(table)


def test_a_lagging_read_must_show_what_was_promised_before_the_lag(tmp_path: Path) -> None:
    config = {"run_id": "r", "name": "n", "timeout": 1, "rate": 1, "read_rate": 1}
    database = {"name": "main", "url": "postgresql://a/b", "read_url": "postgresql://c/d"}
    probe = program.SqlProbe(
        database, {**config, "read_lag_ms": 200}, journal(tmp_path / "j"), program.Watchdog(), print
    )
    now = time.monotonic()
    probe._newest, probe._recent = 3, [(now - 5, 1), (now - 1, 2), (now, 3)]
    assert probe._promised("write") == 3
    assert probe._promised("read") == 2


def test_an_environment_file_is_read_as_systemd_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text("# comment\n; other\n\nA=1\nURL='postgresql://u:p=q@h/d'\nB=\"x y\"\nnoise\n")
    assert control.read_environment(str(path)) == {
        "A": "1",
        "URL": "postgresql://u:p=q@h/d",
        "B": "x y",
    }


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"name": "main"}, "give url, or environment_file"),
        ({"name": "main", "environment_file": "/nowhere"}, "No such file"),
        ({"name": "main", "environment_file": "{file}", "variable": "X"}, "does not set X"),
    ],
)
def test_a_database_without_a_url_is_refused(
    tmp_path: Path, database: dict[str, Any], message: str
) -> None:
    (tmp_path / "e").write_text("A=1\n")
    database = {k: v.replace("{file}", str(tmp_path / "e")) for k, v in database.items()}
    with pytest.raises(control.WitnessError, match=message):
        control.resolve([database])


def test_a_lock_tells_who_holds_it_and_nobody_after_their_death(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert control.holder(path) is None
    fd = program.hold_lock(path)
    assert control.holder(path)
    with pytest.raises(program.AlreadyRunning):
        program.hold_lock(path)
    os.close(fd)
    assert control.holder(path) is None


def test_whoever_asks_for_a_moment_keeps_no_witness_from_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    asking = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)
    release = threading.Timer(0.3, os.close, [asking])
    release.start()
    held = program.hold_lock(path)
    release.join()
    assert control.holder(path) == os.getpid()
    os.close(held)


def test_a_second_witness_of_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "LOCK_PATIENCE_S", 0.1)
    first = program.hold_lock(tmp_path / "lock")
    with pytest.raises(program.AlreadyRunning):
        program.hold_lock(tmp_path / "lock")
    os.close(first)


def test_each_loop_has_its_own_rate_and_none_is_above_the_cap(tmp_path: Path) -> None:
    step = {"path": "/"}
    config = {
        "run_id": "r",
        "name": "n",
        "url": "http://shop.test",
        "timeout": 1,
        "rate": 500,
        "workers": 1,
        "requests": [{"name": "home", "path": "/"}],
        "journeys": [
            {"name": "a", "write": step, "read": step},
            {"name": "b", "rate": 4, "write": step, "read": step},
        ],
    }
    probe = program.HttpProbe(config, journal(tmp_path / "j"), program.Watchdog(), print)
    assert [round(1 / loop._interval) for loop in probe.loops] == [50, 1, 4]
    assert probe.describe()["journey_rates"] == {"a": 1.0, "b": 4.0}


def test_a_process_lives_while_its_number_and_its_start_are_the_same() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        assert program.lives({"pid": process.pid, "started": started})
        assert not program.lives({"pid": process.pid, "started": "1"}), "another with its number"
        process.kill()
    assert not program.lives({"pid": process.pid, "started": started})
    assert program.lives(None), "whoever watches for no run is not ended by one"
