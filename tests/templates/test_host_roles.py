"""The templates of common, database, pooler and cache, by line."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.templates.rendering import ROLES, Role

SHOP = {"name": "main", "database": "shop", "role": "shop", "secret": "SCRAM-SHA-256$4096:a$b:c"}
USERS = SHOP | {"name": "users", "database": "people", "role": "people", "secret": "SCRAM-2"}


def settings(lines: list[str]) -> dict[str, str]:
    """Lines of `name = value` as a dictionary; each name once."""
    pairs = [line.split(" = ", 1) for line in lines if " = " in line]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value.strip("'") for name, value in pairs}


class TestCommon:
    role = Role("common")

    def test_sshd_takes_keys_only(self) -> None:
        lines = self.role.render("sshd.conf.j2")
        assert lines == [
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitEmptyPasswords no",
            "AuthenticationMethods publickey",
            "PermitRootLogin no",
            "MaxAuthTries 6",
            "LoginGraceTime 30",
            "ClientAliveInterval 60",
            "ClientAliveCountMax 3",
            "AllowTcpForwarding local",
            "AllowAgentForwarding no",
            "GatewayPorts no",
            "PermitTunnel no",
            "PermitUserEnvironment no",
            "X11Forwarding no",
            "UseDNS no",
        ]

    def test_sshd_as_told(self) -> None:
        lines = self.role.render(
            "sshd.conf.j2",
            common_ssh_permit_root_login="prohibit-password",
            common_ssh_allow_tcp_forwarding="no",
            common_ssh_max_auth_tries=3,
        )
        assert "PermitRootLogin prohibit-password" in lines
        assert "AllowTcpForwarding no" in lines
        assert "MaxAuthTries 3" in lines

    def test_journald_is_limited(self) -> None:
        lines = self.role.render("journald.conf.d.j2", common_journald_max_use="2G")
        assert lines == [
            "[Journal]",
            "Storage=persistent",
            "SystemMaxUse=2G",
            "MaxRetentionSec=30day",
            "RateLimitIntervalSec=30s",
            "RateLimitBurst=10000",
        ]

    def test_time_comes_from_amazon_unless_told_otherwise(self) -> None:
        assert self.role.render("timesyncd.conf.d.j2") == [
            "[Time]",
            "NTP=169.254.169.123",
            "FallbackNTP=0.debian.pool.ntp.org 1.debian.pool.ntp.org",
        ]
        other = self.role.render(
            "timesyncd.conf.d.j2", common_ntp_servers=["a", "b"], common_ntp_fallback_servers=[]
        )
        assert other == ["[Time]", "NTP=a b", "FallbackNTP="]

    def test_sudo_is_for_one_user(self) -> None:
        assert self.role.render("sudoers.j2", item={"name": "alice"}) == [
            "alice ALL=(ALL:ALL) NOPASSWD: ALL"
        ]

    def test_what_a_user_leaves_out_is_filled_in(self) -> None:
        users = self.role.evaluate(
            "__common_users", common_users=[{"name": "alice", "sudo": True}, {"name": "bob"}]
        )
        assert [(user["name"], user["sudo"], user["state"]) for user in users] == [
            ("alice", True, "present"),
            ("bob", False, "present"),
        ]

    def test_a_container_does_not_keep_the_time(self) -> None:
        assert self.role.evaluate("__common_keeps_time") is True
        container = {"virtualization_tech_guest": ["container", "podman"]}
        assert self.role.evaluate("__common_keeps_time", container) is False


class TestDatabase:
    role = Role("database", database_functions=[SHOP, USERS])

    def test_it_can_be_moved_from_the_first_day(self) -> None:
        found = settings(self.role.render("ascent.conf.j2"))
        assert found["wal_level"] == "logical"
        assert found["max_wal_senders"] == found["max_replication_slots"] == "20"
        assert found["max_slot_wal_keep_size"] == "4GB"
        assert found["password_encryption"] == "scram-sha-256"
        assert found["ssl"] == "on"
        assert found["listen_addresses"] == "127.0.0.1"

    @pytest.mark.parametrize(
        ("given", "shared", "cache"),
        [
            pytest.param({}, "256MB", "512MB", id="half of 2 GiB"),
            pytest.param({"database_memory_share": 0.25}, "128MB", "256MB", id="a quarter"),
            pytest.param({"database_memory_mb": 4096}, "1024MB", "2048MB", id="stated"),
        ],
    )
    def test_it_is_sized(self, given: dict[str, Any], shared: str, cache: str) -> None:
        found = settings(self.role.render("ascent.conf.j2", **given))
        assert (found["shared_buffers"], found["effective_cache_size"]) == (shared, cache)

    def test_a_kernel_that_counts_a_little_less_changes_nothing(self) -> None:
        assert self.role.render("ascent.conf.j2", {"memtotal_mb": 1990}) == self.role.render(
            "ascent.conf.j2", {"memtotal_mb": 1930}
        )

    def test_own_settings_win_and_are_quoted(self) -> None:
        found = self.role.render(
            "ascent.conf.j2",
            database_settings={"work_mem": "32MB", "search_path": "a, 'b'", "fsync": True},
            database_listen_addresses=["127.0.0.1", "10.42.1.10"],
        )
        assert "work_mem = '32MB'" in found
        assert "search_path = 'a, ''b'''" in found
        assert "fsync = on" in found
        assert "listen_addresses = '127.0.0.1,10.42.1.10'" in found
        settings(found)

    def test_only_the_functions_roles_log_in_each_to_its_database(self) -> None:
        assert self.role.render("pg_hba.conf.j2") == [
            "local all postgres peer",
            'local "shop" "shop" scram-sha-256',
            'host "shop" "shop" 127.0.0.1/32 scram-sha-256',
            'host "shop" "shop" ::1/128 scram-sha-256',
            'local "people" "people" scram-sha-256',
            'host "people" "people" 127.0.0.1/32 scram-sha-256',
            'host "people" "people" ::1/128 scram-sha-256',
        ]

    def test_other_networks_log_in_with_tls_only(self) -> None:
        lines = self.role.render(
            "pg_hba.conf.j2",
            database_functions=[SHOP],
            database_allowed_cidrs=["10.42.0.0/16"],
            database_hba_extra=[
                {"type": "local", "database": "all", "user": "monitor", "method": "peer"},
                {
                    "type": "hostssl",
                    "database": "replication",
                    "user": "mover",
                    "address": "10.42.0.0/16",
                    "method": "scram-sha-256",
                },
            ],
        )
        assert lines[4:] == [
            'hostssl "shop" "shop" 10.42.0.0/16 scram-sha-256',
            "local all monitor peer",
            "hostssl replication mover 10.42.0.0/16 scram-sha-256",
        ]

    def test_a_new_cluster_has_checksums_and_utf8(self) -> None:
        assert self.role.render("createcluster.conf.j2") == [
            "initdb_options = '--data-checksums --encoding=UTF8 --locale=C.UTF-8'"
        ]
        other = self.role.render("createcluster.conf.j2", database_locale="de_DE.UTF-8")
        assert "--locale=de_DE.UTF-8" in other[0]

    @pytest.mark.parametrize(("release", "version"), [("12", 15), ("13", 17)])
    def test_the_version_is_that_of_the_release(self, release: str, version: int) -> None:
        facts = {"distribution_major_version": release}
        assert self.role.evaluate("__database_version", facts) == version
        service = self.role.evaluate("__database_service", facts)
        assert service == f"postgresql@{version}-main"

    def test_what_is_printed_has_no_secret(self) -> None:
        assert "SCRAM" not in str(self.role.evaluate("__database_public"))


class TestPooler:
    functions = (
        SHOP | {"host": "127.0.0.1", "port": 5432},
        USERS | {"host": "10.42.1.10", "port": 5433},
    )
    role = Role("pooler", pooler_functions=list(functions))

    def test_an_alias_for_each_function_without_user_or_password(self) -> None:
        lines = self.role.render("pgbouncer.ini.j2")
        aliases = lines[lines.index("[databases]") + 1 : lines.index("[pgbouncer]")]
        assert aliases == [
            "main = host=127.0.0.1 port=5432 dbname=shop",
            "users = host=10.42.1.10 port=5433 dbname=people",
        ]
        assert "SCRAM" not in "\n".join(lines)

    def test_it_pools_transactions_for_scram_clients_on_loopback(self) -> None:
        lines = self.role.render("pgbouncer.ini.j2")
        found = settings(lines[lines.index("[pgbouncer]") :])
        assert found["pool_mode"] == "transaction"
        assert found["auth_type"] == "scram-sha-256"
        assert (found["listen_addr"], found["listen_port"]) == ("127.0.0.1", "6432")
        assert found["server_tls_sslmode"] == "require"
        assert found["max_prepared_statements"] == "200"
        assert found["default_pool_size"] == "20"
        # Nobody but the user that PgBouncer runs as reaches the console.
        assert not {"admin_users", "stats_users", "auth_query"} & set(found)

    def test_own_settings_win(self) -> None:
        lines = self.role.render("pgbouncer.ini.j2", pooler_settings={"dns_max_ttl": 1})
        assert "dns_max_ttl = 1" in lines
        assert "dns_max_ttl = 5" not in lines

    def test_the_release_of_debian_12_is_spared_what_it_does_not_know(self) -> None:
        lines = self.role.render("pgbouncer.ini.j2", {"distribution_major_version": "12"})
        assert "max_prepared_statements" not in "\n".join(lines)

    def test_users_with_their_secrets_each_once(self) -> None:
        twice = [*self.functions, self.functions[0] | {"name": "orders", "database": "orders"}]
        assert self.role.render("userlist.txt.j2", pooler_functions=twice) == [
            '"people" "SCRAM-2"',
            '"shop" "SCRAM-SHA-256$4096:a$b:c"',
        ]

    def test_there_are_descriptors_for_the_most_clients(self) -> None:
        assert self.role.render("limits.conf.j2") == ["[Service]", "LimitNOFILE=10000"]

    @staticmethod
    def console(**differing: str) -> dict[str, Any]:
        """What the console answers when what is written is in force, but for `differing`."""
        role = TestPooler.role
        own = role.evaluate("__pooler_all_settings") | differing
        fixed = ("listen_addr", "listen_port", "unix_socket_dir", "pidfile")
        lines = [f"{k}|{v}||{'no' if k in fixed else 'yes'}" for k, v in own.items()]
        lines += ["verbose|0||yes", "pgbouncer||6432|pgbouncer|pgbouncer|2|0|0"]
        lines += ["main|127.0.0.1|5432|shop||20|0|5", "users|10.42.1.10|5433|people||20|0|5"]
        return {"stdout_lines": lines}

    @pytest.mark.parametrize(
        ("differing", "given", "outdated", "waiting"),
        [
            pytest.param({}, {}, [], [], id="all is read"),
            pytest.param({"dns_max_ttl": "15"}, {}, ["dns_max_ttl"], [], id="to be loaded"),
            pytest.param({"listen_addr": "*"}, {}, [], ["listen_addr"], id="to be restarted"),
            pytest.param(
                {},
                {"pooler_settings": {"syslog": "yes"}},
                [],
                [],
                id="an own setting is not judged",
            ),
        ],
    )
    def test_what_runs_is_compared_with_what_is_written(
        self,
        differing: dict[str, str],
        given: dict[str, Any],
        outdated: list[str],
        waiting: list[str],
    ) -> None:
        given = given | {"__pooler_running": self.console(**differing)}
        assert self.role.evaluate("__pooler_outdated", **given) == outdated
        assert self.role.evaluate("__pooler_waiting", **given) == waiting

    def test_an_alias_that_leads_elsewhere_is_found(self) -> None:
        moved = [self.functions[0] | {"host": "10.42.1.99"}, self.functions[1]]
        given = {"pooler_functions": moved, "__pooler_running": self.console()}
        assert self.role.evaluate("__pooler_outdated", **given) == ["main"]


class TestCache:
    role = Role("cache", cache_password="a-long-enough-password")

    def found(self, **given: Any) -> dict[str, str]:
        return dict(line.split(" ", 1) for line in self.role.render("valkey.conf.j2", **given))

    def test_it_is_bound_limited_and_keeps_what_it_has(self) -> None:
        found = self.found()
        assert found["bind"] == "127.0.0.1"
        assert found["protected-mode"] == "yes"
        assert found["aclfile"] == "/etc/valkey/users.acl"
        # A fifth of 2 GiB, in steps of 16 MiB.
        assert found["maxmemory"] == "400mb"
        assert found["maxmemory-policy"] == "allkeys-lru"
        assert (found["appendonly"], found["appendfsync"], found["save"]) == (
            "yes",
            "everysec",
            '""',
        )

    @pytest.mark.parametrize(
        ("persistence", "appendonly", "save"),
        [("none", "no", '""'), ("snapshot", "no", "3600 1 300 100 60 10000")],
    )
    def test_other_kinds_of_persistence(self, persistence: str, appendonly: str, save: str) -> None:
        found = self.found(cache_persistence=persistence)
        assert (found["appendonly"], found["save"]) == (appendonly, save)
        assert "appendfsync" not in found

    def test_own_settings_and_addresses(self) -> None:
        found = self.found(
            cache_settings={"timeout": 300},
            cache_listen_addresses=["127.0.0.1", "10.42.1.30"],
            cache_memory_mb=512,
        )
        assert found["timeout"] == "300"
        assert found["bind"] == "127.0.0.1 10.42.1.30"
        assert found["maxmemory"] == "512mb"

    def test_the_file_of_users_has_a_hash_and_no_password(self) -> None:
        (line,) = self.role.render("users.acl.j2")
        digest = hashlib.sha256(b"a-long-enough-password").hexdigest()
        assert line.startswith(f"user default on sanitize-payload #{digest} ~* &* +@all -@admin")
        assert "password" not in line

    def test_the_settings_have_neither(self) -> None:
        text = "\n".join(self.role.render("valkey.conf.j2"))
        assert "requirepass" not in text
        assert "a-long-enough-password" not in text


def test_every_template_of_these_roles_is_rendered_here() -> None:
    """A new template needs a test: this one names those that have."""
    text = (ROLES.parent / "tests" / "templates" / "test_host_roles.py").read_text()
    for role in ("common", "database", "pooler", "cache"):
        for template in (ROLES / role / "templates").iterdir():
            assert f'"{template.name}"' in text, f"{role}/{template.name} has no test"
