"""A switch, and everything that can cut it off: nothing is lost, and no pause is without an end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._motion.cutover import POINTS

from tests.support.motion import LOGIN, Host, Server
from tests.unit.plugins.module_utils._motion.conftest import HARD_S, Bench, freeze

# What a request waits beside the pause itself, on a machine that does other things.
SLACK_MS = 1500


def test_a_copy_is_flushed_as_it_goes_and_what_follows_it_is_not(bench: Bench) -> None:
    """A table that is copied gives its slot back: a crash must not make that undone."""
    how = "SELECT subsynccommit FROM pg_subscription WHERE subname = 'ascent_shop_from_box'"
    assert bench.servers["db"].execute(how) == [("on",)]
    origin, other = bench.mover.connect()
    with origin, other:
        assert bench.mover.verify(origin, other).clean
    assert bench.servers["db"].execute(how) == [("off",)]


def test_what_has_not_arrived_is_waited_for(bench: Bench) -> None:
    """A target that cannot apply what the source has ends the attempt, and keeps nothing back."""
    before = bench.where()
    other = next(server for server in bench.servers.values() if server.port != before.port)
    stuck = psycopg.connect(**other.conninfo())
    with bench.writers() as writers:
        bench.settle()
        with stuck:
            stuck.execute("LOCK TABLE ledger IN SHARE MODE")
            time.sleep(0.5)
            out, _ = bench.attempt().communicate(timeout=30)
        time.sleep(0.3)
    assert "the target has not caught up within" in out
    assert bench.where().port == before.port
    assert not writers.failures
    assert not writers.lost(before)


def test_a_switch_there_and_back_fails_nothing(bench: Bench) -> None:
    for _ in range(2):
        before = bench.where()
        with bench.writers() as writers:
            time.sleep(0.5)
            done = bench.attempt()
            out, _ = done.communicate(timeout=30)
            time.sleep(0.5)
        after = bench.where()
        assert done.returncode == 0, out
        told = json.loads(out)
        assert list(told["points"]) == list(POINTS[1:])
        assert told["pause_ms"] < 1000 * HARD_S
        assert after.port != before.port
        assert bench.lead_to(after)
        assert not writers.failures
        assert not writers.lost(after)
        right = "SELECT has_database_privilege(%s, 'shop', 'CONNECT')"
        assert before.execute(right, LOGIN) == [(False,)]
        assert after.execute(right, LOGIN) == [(True,)]


@pytest.mark.parametrize("point", POINTS)
def test_a_mover_that_is_killed_costs_a_bounded_pause(bench: Bench, point: str) -> None:
    before = bench.where()
    with bench.writers() as writers:
        time.sleep(0.3)
        killed = bench.attempt(die=point)
        killed.wait(30)
        time.sleep(HARD_S + 0.5)
    after = bench.where()
    assert killed.returncode == -signal.SIGKILL
    assert (after.port != before.port) == (point in ("opened", "resumed"))
    assert bench.lead_to(after)
    assert not writers.failures
    assert not writers.lost(after)
    assert writers.longest_ms < 1000 * HARD_S + SLACK_MS


@pytest.mark.parametrize("point", ["paused", "fenced", "committing"])
def test_a_mover_that_wakes_too_late_changes_nothing(bench: Bench, point: str) -> None:
    before = bench.where()
    with bench.writers() as writers:
        time.sleep(0.3)
        late = bench.attempt(stop=point)
        assert late.stdout and late.stdout.readline() == "stopped\n"
        time.sleep(HARD_S + 0.5)
        os.kill(late.pid, signal.SIGCONT)
        out, _ = late.communicate(timeout=30)
        time.sleep(0.3)
    assert late.returncode == 3, out
    assert bench.where().port == before.port
    assert not writers.failures
    assert not writers.lost(before)
    assert writers.longest_ms < 1000 * HARD_S + SLACK_MS


def test_a_door_does_not_open_after_its_time_though_nobody_has_made_it_void(bench: Bench) -> None:
    """By the target's clock alone: mover and guards stand still, as on a host that hangs."""
    before = bench.where()
    with bench.writers() as writers:
        time.sleep(0.3)
        late = bench.attempt(tell="reversed")
        assert late.stdout and late.stdout.readline() == "reversed\n"
        for host in bench.hosts:
            host.freeze_guard(True)
        try:
            time.sleep(HARD_S)
            out, _ = late.communicate("\n", timeout=30)
        finally:
            for host in bench.hosts:
                host.freeze_guard(False)
        time.sleep(0.5)
    assert late.returncode == 3, out
    assert "the time for the switch was over at the target" in out
    assert bench.where().port == before.port
    assert not writers.failures
    assert not writers.lost(before)


@pytest.mark.parametrize("point", ["paused", "fenced"])
@pytest.mark.parametrize("which", ["target", "source"])
def test_a_server_that_dies_is_met_without_loss(bench: Bench, which: str, point: str) -> None:
    """It comes back, as after a reboot; the switch is given up, and the next run makes it."""
    before = bench.where()
    other = next(server for server in bench.servers.values() if server.port != before.port)
    with bench.writers() as writers:
        time.sleep(0.3)
        attempt = bench.attempt(tell=point)
        assert attempt.stdout and attempt.stdout.readline() == f"{point}\n"
        (before if which == "source" else other).ctl("restart", "-m", "immediate")
        out, _ = attempt.communicate("\n", timeout=30)
        time.sleep(HARD_S + 1)
        count = len(writers.acknowledged)
        time.sleep(1)
        assert len(writers.acknowledged) > count, "it does not serve"
    assert attempt.returncode == 3, out
    assert bench.where().port == before.port
    assert not writers.lost(before)
    assert which == "source" or not writers.failures


@pytest.mark.parametrize("point", ["paused", "fenced"])
def test_a_target_that_cannot_be_asked_does_not_hold_the_pause(bench: Bench, point: str) -> None:
    before = bench.where()
    other = next(server for server in bench.servers.values() if server.port != before.port)
    with bench.writers() as writers:
        time.sleep(0.3)
        attempt = bench.attempt(tell=point)
        assert attempt.stdout and attempt.stdout.readline() == f"{point}\n"
        freeze(other, True)
        try:
            time.sleep(HARD_S + 0.5)
            count = len(writers.acknowledged)
            time.sleep(1)
            assert len(writers.acknowledged) > count, "it does not serve"
        finally:
            freeze(other, False)
        out, _ = attempt.communicate("\n", timeout=30)
        time.sleep(0.5)
    assert attempt.returncode == 3, out
    assert bench.where().port == before.port
    assert not writers.failures
    assert not writers.lost(before)
    assert writers.longest_ms < 1000 * HARD_S + SLACK_MS


@pytest.mark.parametrize("point", ["paused", "fenced", "opened"])
def test_a_guard_that_is_killed_goes_on_when_it_is_back(bench: Bench, point: str) -> None:
    before = bench.where()
    host = bench.hosts[0]
    with bench.writers() as writers:
        time.sleep(0.3)
        attempt = bench.attempt(tell=point)
        assert attempt.stdout and attempt.stdout.readline() == f"{point}\n"
        host.kill_guard()
        host.start_guard()
        out, _ = attempt.communicate("\n", timeout=30)
        time.sleep(HARD_S + 0.5)
    after = bench.where()
    assert bench.lead_to(after), (host.directory / "guard.log").read_text()[-1500:]
    assert (after.port != before.port) == (attempt.returncode == 0), out
    assert not writers.failures
    assert not writers.lost(after)
    assert writers.longest_ms < 1000 * HARD_S + SLACK_MS


def test_a_pooler_that_was_away_finds_its_way(bench: Bench) -> None:
    before = bench.where()
    host = bench.hosts[0]
    attempt = bench.attempt(tell="committing")
    assert attempt.stdout and attempt.stdout.readline() == "committing\n"
    host.kill_guard()
    os.kill(host.bouncer, signal.SIGKILL)
    out, _ = attempt.communicate("\n", timeout=30)
    assert attempt.returncode == 0, out
    assert host.leads_to() == before.port
    time.sleep(0.5)
    host.start_bouncer()
    host.start_guard()
    after = bench.where()
    assert bench.lead_to(after)
    with bench.writers() as writers:
        time.sleep(1)
    assert not writers.failures
    assert writers.acknowledged
    assert not writers.lost(after)


def test_what_is_told_while_a_guard_asks_something_is_heard(bench: Bench) -> None:
    before = bench.where()
    waits = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'ascent_guard' AND wait_event_type = 'Lock'"
    )
    attempt = bench.attempt(hard=10, tell="armed")
    assert attempt.stdout and attempt.stdout.readline() == "armed\n"
    with psycopg.connect(**before.conninfo()) as busy:
        busy.execute("LOCK TABLE ascent_move.pooler IN EXCLUSIVE MODE")
        deadline = time.monotonic() + 10
        while before.execute(waits) == [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert attempt.stdin
        attempt.stdin.write("\n")
        attempt.stdin.flush()
        time.sleep(0.2)
    out, _ = attempt.communicate(timeout=30)
    assert attempt.returncode == 0, out
    assert bench.lead_to(bench.where())


def test_a_transaction_that_outlives_the_pause_is_named(bench: Bench) -> None:
    before = bench.where()
    with (
        psycopg.connect(
            host="127.0.0.1", port=bench.hosts[0].port, user=LOGIN, dbname="main"
        ) as slow,
        bench.writers() as writers,
    ):
        slow.execute("SELECT count(*) FROM ledger")
        attempt = bench.attempt()
        out, _ = attempt.communicate(timeout=30)
        time.sleep(0.3)
    assert attempt.returncode == 3
    assert "SELECT count(*) FROM ledger" in out
    assert "web-0 (no answer)" in out
    assert bench.where().port == before.port
    assert not writers.failures
    assert writers.longest_ms < 1000 * HARD_S + SLACK_MS


@contextlib.contextmanager
def crowd(host: Host) -> Iterator[list[str]]:
    """More clients at once than the pool has connections; yields what they were refused with."""
    refused: list[str] = []

    def ask() -> None:
        try:
            with psycopg.connect(
                host="127.0.0.1", port=host.port, user=LOGIN, dbname="main", autocommit=True
            ) as client:
                client.execute("SELECT pg_sleep(0.05)")
        except psycopg.Error as error:
            refused.append(str(error))

    clients = [threading.Thread(target=ask) for _ in range(12)]
    for client in clients:
        client.start()
    yield refused
    for client in clients:
        client.join(30)


def pool_size(host: Host) -> str:
    found = {row["key"]: row["value"] for row in host.show("CONFIG")}
    return str(found["default_pool_size"])


def opening(host: Host) -> int:
    return sum(int(row["sv_login"]) for row in host.show("POOLS"))


@contextlib.contextmanager
def slow_login(bench: Bench, before: Server, seconds: float) -> Iterator[list[str]]:
    """A pool that is just opening a connection, which takes so long, while a switch begins.

    The server's first process stands still: who is logged in is served, and nobody is let in.
    """
    attempt = bench.attempt(tell="armed")
    assert attempt.stdout and attempt.stdout.readline() == "armed\n"
    out: list[str] = []
    os.kill(before.pid, signal.SIGSTOP)
    with crowd(bench.hosts[0]) as refused:
        try:
            deadline = time.monotonic() + 5
            while not opening(bench.hosts[0]):
                assert time.monotonic() < deadline
                time.sleep(0.002)
            assert attempt.stdin
            attempt.stdin.write("\n")
            attempt.stdin.flush()
            time.sleep(seconds)
            yield out
        finally:
            os.kill(before.pid, signal.SIGCONT)
    out.append(attempt.communicate(timeout=30)[0])
    time.sleep(0.5)
    assert not refused


def test_a_connection_that_is_just_being_opened_is_waited_for(bench: Bench) -> None:
    """A pause would end it, and PgBouncer would turn clients away for a second after."""
    before = bench.where()
    # Each comes once a second, so that some come just after the pause.
    with bench.writers(count=32, rate=32) as writers:
        time.sleep(1)
        with slow_login(bench, before, 0.2) as out:
            pass
        time.sleep(1)
    assert not writers.failures
    after = bench.where()
    assert after.port != before.port, out
    assert not writers.lost(after)
    assert [pool_size(host) for host in bench.hosts] == ["20", "20"]


def test_a_server_that_lets_nobody_in_is_not_paused_for(bench: Bench) -> None:
    before = bench.where()
    with bench.writers() as writers:
        time.sleep(0.5)
        with slow_login(bench, before, 0.8) as out:
            pass
        time.sleep(1)
    assert "PgBouncer has been opening a connection for main for more than 0.5 s" in out[0]
    assert not writers.failures
    assert bench.where().port == before.port
    assert [pool_size(host) for host in bench.hosts] == ["20", "20"]


def test_a_guard_that_dies_before_the_pause_leaves_no_small_pool(bench: Bench) -> None:
    before = bench.where()
    host = bench.hosts[0]
    with bench.writers() as writers:
        time.sleep(0.5)
        with slow_login(bench, before, 0.1):
            assert pool_size(host) == "1"
            host.kill_guard()
        host.start_guard()
        time.sleep(HARD_S + 0.5)
    assert pool_size(host) == "20"
    assert not writers.failures
    assert not writers.lost(bench.where())
