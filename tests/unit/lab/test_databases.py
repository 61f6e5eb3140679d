"""A database's storage on the machine, and what its thread waits for."""

from __future__ import annotations

import datetime
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab import rds
from lab.databases import Database, DatabasePlan, archive, backup, restorable
from lab.hosts import Event, Order
from lab.postgres import Place
from lab.settings import Settings

PLAN = DatabasePlan(
    instance="db-0123456789abcdef0",
    image="postgres:1",
    hostname="ip-10-1-1-4",
    address="10.1.1.4",
    subnet="10.1.1.0/24",
    mac="02:00:00:00:00:01",
    memory=1024,
    cpus=2,
    archive="db-0123456789abcdef0",
    endpoint="main.c0.us-east-1.rds.amazonaws.com",
    parameters=(("rds.force_ssl", "on"), ("work_mem", "64")),
)


def report(key: str, event: Event, reason: str) -> None:
    raise AssertionError((key, event, reason))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    own = Settings.of("unit", "198.18.7.0/24", rds_delay=1.5)
    return replace(own, cache=tmp_path / "cache", run=tmp_path / "run")


def database(settings: Settings, source: rds.Source | None = None) -> Database:
    return Database(PLAN, settings, report, "", source)


def test_its_files_are_roots_and_its_key_is_secret(settings: Settings) -> None:
    one = database(settings)
    one._lay_out()
    one._configure()
    config = one.folder / "config"
    assert stat.S_IMODE(settings.databases.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((config / "server.key").stat().st_mode) == 0o600
    assert "work_mem = '64'" in (config / "postgresql.conf").read_text()
    assert "hostssl" in (config / "pg_hba.conf").read_text()
    assert (config / "environment").read_text() == "PGPORT=5432\n"
    assert (config / "archives").exists()
    one.plan = replace(PLAN, archives=False, port=6000)
    one._configure()
    assert not (config / "archives").exists()
    assert (config / "environment").read_text() == "PGPORT=6000\n"


@pytest.mark.parametrize("until", [None, "2026-01-01 00:00:00+00:00"])
def test_a_restore_takes_a_copy_of_the_backup_and_the_archive_as_it_is(
    settings: Settings, until: str | None
) -> None:
    base = backup(settings, "one")
    base.mkdir(parents=True)
    (base / "PG_VERSION").write_text("17")
    (base / "postgresql.auto.conf").write_text("recovery_target_time = 'of an earlier restore'")
    shelf = archive(settings, "db-1")
    shelf.mkdir(parents=True)
    (shelf / "1.gz").write_text("segment")
    one = database(settings, rds.Source("one", "db-1", until))
    one._lay_out()
    assert (one.folder / "db" / "PG_VERSION").read_text() == "17"
    assert (one.folder / "db" / "recovery.signal").exists()
    assert (one.folder / "restore" / "1.gz").stat().st_nlink == 2
    recovery = (one.folder / "db" / "postgresql.auto.conf").read_text()
    assert ("recovery_target_time" in recovery) is (until is not None)
    assert "earlier" not in recovery
    assert "earlier" in (base / "postgresql.auto.conf").read_text()


def test_a_restored_snapshot_does_not_go_on_from_an_archive(settings: Settings) -> None:
    base = backup(settings, "one")
    base.mkdir(parents=True)
    one = database(settings, rds.Source("one"))
    one._lay_out()
    assert not (one.folder / "db" / "recovery.signal").exists()
    assert not (one.folder / "restore").exists()


@pytest.mark.parametrize(("content", "expected"), [(None, None), ("", None), ("1.5", 1.5)])
def test_until_when_the_archive_reaches(
    settings: Settings, content: str | None, expected: float | None
) -> None:
    shelf = archive(settings, "db-1")
    shelf.mkdir(parents=True)
    if content is not None:
        (shelf / "latest").write_text(content)
    moment = datetime.datetime.fromtimestamp(expected, datetime.UTC) if expected else None
    assert restorable(settings, "db-1") == moment


def test_jobs_wait_for_the_answer_and_orders_do_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    one = database(settings)
    assert not one._interrupted()
    one.order(lambda: None)
    assert not one._interrupted()
    one.order(Order.TERMINATE)
    assert one._interrupted()


def test_changes_take_as_long_as_the_labs_user_wants(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    database(settings)._settle()
    assert slept == [1.5]


def test_a_standby_is_made_of_the_copy_of_its_primary(settings: Settings) -> None:
    original = settings.databases / "db-1" / "out" / "db-2"
    original.mkdir(parents=True)
    (original / "PG_VERSION").write_text("17")
    place = Place("db-2", "10.1.1.5", follows=True, word="word")
    one = Database(replace(PLAN, place=place), settings, report, "", None, original)
    one._lay_out()
    one._configure()
    assert (one.folder / "db" / "PG_VERSION").read_text() == "17"
    assert (one.folder / "db" / "standby.signal").exists()
    assert not original.exists()
    config = (one.folder / "config" / "postgresql.conf").read_text()
    assert "archive_mode = 'always'" in config
    assert "application_name=db-2" in config
    assert not (one.folder / "config" / "archives").exists(), "its primary has the heartbeat"
    one.plan = replace(PLAN, place=Place("db-2"))
    one._configure()
    assert (one.folder / "config" / "archives").exists()


def test_one_of_a_pair_stays_down_until_the_watch_over_it_decides(settings: Settings) -> None:
    one = Database(replace(PLAN, place=Place("db-1")), settings, report, "", None)
    one._ended()
    assert one.ended
