"""The templates of the backups, by line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.templates.rendering import Role
from tests.templates.test_host_roles import settings

BACKUP: dict[str, Any] = {
    "database_backup_bucket": "ascent-production-backup-123456789012",
    "database_backup_region": "eu-central-1",
    "database_backup_path": "/production/postgresql",
    "database_backup_stanza": "box",
    "database_backup_passphrase": "correct horse battery staple",
}


class TestBackup:
    off = Role("database", database_disk_mb=20480)
    role = Role("database", database_disk_mb=20480, **BACKUP)

    def test_archiving_is_on_from_the_first_day_and_keeps_nothing_back(self) -> None:
        found = settings(self.off.render("ascent.conf.j2"))
        assert found["archive_mode"] == "on"
        assert found["archive_command"] == "/bin/true"
        assert found["archive_timeout"] == "0"

    def test_turning_backups_on_needs_no_restart(self) -> None:
        before = settings(self.off.render("ascent.conf.j2"))
        after = settings(self.role.render("ascent.conf.j2"))
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"archive_command", "archive_timeout"}
        assert after["archive_command"] == "pgbackrest --stanza=box archive-push %p"
        assert after["archive_timeout"] == "1min"

    def test_the_repository(self) -> None:
        assert self.role.render("pgbackrest.conf.j2") == [
            "[global]",
            "repo1-type=s3",
            "repo1-s3-bucket=ascent-production-backup-123456789012",
            "repo1-s3-region=eu-central-1",
            "repo1-s3-endpoint=s3.eu-central-1.amazonaws.com",
            "repo1-s3-key-type=auto",
            "repo1-path=/production/postgresql",
            "repo1-cipher-type=aes-256-cbc",
            "repo1-bundle=y",
            "repo1-retention-full-type=time",
            "repo1-retention-full=35",
            "compress-type=zst",
            "process-max=2",
            "start-fast=y",
            "archive-async=y",
            "spool-path=/var/spool/pgbackrest",
            "archive-push-queue-max=4GiB",
            "log-level-console=warn",
            "log-level-file=warn",
            "log-path=/var/log/pgbackrest",
            "[box]",
            "pg1-path=/var/lib/postgresql/17/main",
            "pg1-socket-path=/var/run/postgresql",
        ]

    def test_as_told(self) -> None:
        lines = self.role.render(
            "pgbackrest.conf.j2",
            {"distribution_major_version": "12"},
            database_backup_region="cn-north-1",
            database_backup_keep_days=90,
            database_backup_queue_max="",
            database_backup_processes=8,
        )
        assert "repo1-s3-endpoint=s3.cn-north-1.amazonaws.com.cn" in lines
        assert "repo1-retention-full=90" in lines
        assert "process-max=8" in lines
        assert "pg1-path=/var/lib/postgresql/15/main" in lines
        assert not any("queue-max" in line for line in lines)
        other = self.role.render("pgbackrest.conf.j2", database_backup_endpoint="s3.example")
        assert "repo1-s3-endpoint=s3.example" in other

    def test_the_passphrase_is_in_a_file_of_its_own(self) -> None:
        secret = BACKUP["database_backup_passphrase"]
        assert self.role.render("pgbackrest-passphrase.conf.j2") == [
            "[global]",
            f"repo1-cipher-pass={secret}",
        ]
        others = ("ascent.conf.j2", "pgbackrest.conf.j2", "ascent-backup@.service.j2")
        for template in (*others, "ascent-backup-check.service.j2"):
            assert secret not in "\n".join(self.role.render(template)), template

    def test_backups_wait_for_each_other(self) -> None:
        lines = self.role.render("ascent-backup@.service.j2")
        assert "Type=oneshot" in lines
        assert "User=postgres" in lines
        start = next(line for line in lines if line.startswith("ExecStart="))
        assert start.startswith("ExecStart=/usr/bin/flock /var/run/postgresql/ascent-backup.lock ")
        assert "  --stanza=box --type=%i --log-level-console=info backup" in lines

    def test_the_archive_is_asked_now_and_then(self) -> None:
        lines = self.role.render("ascent-backup-check.service.j2")
        assert "ExecStart=/usr/bin/pgbackrest --stanza=box check" in lines

    @pytest.mark.parametrize(
        ("index", "unit", "schedule", "delay"),
        [
            (0, "ascent-backup@full.service", "Sun *-*-* 02:00:00 UTC", "1h"),
            (1, "ascent-backup@diff.service", "Mon..Sat *-*-* 02:00:00 UTC", "1h"),
            (2, "ascent-backup-check.service", "*:00/15", "1min"),
        ],
    )
    def test_the_timers(self, index: int, unit: str, schedule: str, delay: str) -> None:
        timer = self.role.evaluate("__database_backup_timers")[index]
        lines = self.role.render("ascent-backup.timer.j2", item=timer)
        assert lines[2:] == [
            "[Timer]",
            f"Unit={unit}",
            f"OnCalendar={schedule}",
            f"RandomizedDelaySec={delay}",
            "FixedRandomDelay=true",
            "Persistent=true",
            "[Install]",
            "WantedBy=timers.target",
        ]

    def test_every_setting_of_pgbackrest_is_known_to_debian_12s(self) -> None:
        """Block-level increments came with 2.46: a repository is to be read from both releases."""
        assert not any("repo1-block" in line for line in self.role.render("pgbackrest.conf.j2"))
