"""The templates of common, database, pooler and cache, by line."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

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

    def test_what_comes_in_is_what_is_named(self) -> None:
        lines = self.role.render(
            "nftables.conf.j2",
            common_firewall_allow=[
                {"port": 22, "sources": ["198.51.100.7/32", "2001:db8::/32"]},
                {"port": 443},
                {"port": "60000-60020", "protocol": "udp", "sources": ["10.42.0.0/16"]},
            ],
        )
        begin = lines.index("    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept") + 1
        assert lines[begin : begin + 5] == [
            "    ip saddr 198.51.100.7/32 tcp dport 22 accept",
            "    ip6 saddr 2001:db8::/32 tcp dport 22 accept",
            "    ip saddr 0.0.0.0/0 tcp dport 443 accept",
            "    ip6 saddr ::/0 tcp dport 443 accept",
            "    ip saddr 10.42.0.0/16 udp dport 60000-60020 accept",
        ]
        assert "    type filter hook input priority filter; policy drop;" in lines
        # The table is replaced in one transaction, and no other table is touched.
        assert lines[:3] == [
            "table inet ascent",
            "delete table inet ascent",
            "table inet ascent {",
        ]
        assert "flush ruleset" not in "\n".join(lines)

    def test_a_packet_filter_that_is_off_closes_nothing(self) -> None:
        lines = self.role.render("nftables.conf.j2", common_firewall=False)
        assert not [line for line in lines if "chain" in line or "policy" in line]

    def test_rules_are_told_apart_by_their_sum(self) -> None:
        def comment(**given: Any) -> str:
            lines = self.role.render("nftables.conf.j2", **given)
            (found,) = (line for line in lines if line.startswith('  comment "'))
            return found

        sums = {
            comment(),
            comment(common_firewall=False),
            comment(common_firewall_allow=[{"port": 22}, {"port": 80}]),
        }
        assert len(sums) == 3
        assert comment() == comment()

    @pytest.mark.parametrize(
        ("allowed", "connection", "lets_in"),
        [
            pytest.param([{"port": 22}], "192.0.2.1 5555 192.0.2.2 22", True, id="by itself"),
            pytest.param([{"port": "20-30"}], "192.0.2.1 5555 192.0.2.2 22", True, id="in a range"),
            pytest.param([{"port": 22}], "192.0.2.1 5555 192.0.2.2 2222", False, id="another"),
            pytest.param(
                [{"port": 22, "protocol": "udp"}], "192.0.2.1 5555 192.0.2.2 22", False, id="udp"
            ),
            pytest.param([], "", True, id="not by SSH"),
        ],
    )
    def test_the_port_of_ansible_must_be_open(
        self, allowed: list[dict[str, Any]], connection: str, lets_in: bool
    ) -> None:
        given = {"common_firewall_allow": allowed, "__common_ssh": {"stdout": connection}}
        assert self.role.evaluate("__common_firewall_lets_ansible_in", **given) is lets_in

    def test_security_updates_alone_are_installed(self) -> None:
        lines = self.role.render("apt.conf.j2")
        assert (
            'Unattended-Upgrade::Origins-Pattern { "origin=Debian,'
            'codename=${distro_codename}-security,label=Debian-Security"; };'
        ) in lines
        assert (
            'Unattended-Upgrade::Package-Blacklist { "postgresql"; "pgbouncer"; "valkey"; "redis";'
            ' "memcached"; };'
        ) in lines
        assert 'Unattended-Upgrade::Automatic-Reboot "false";' in lines
        assert 'APT::Periodic::Unattended-Upgrade "1";' in lines
        # A list of Debian's that is not emptied is added to.
        text = (ROLES / "common" / "templates" / "apt.conf.j2").read_text()
        for name in ("Origins-Pattern", "Allowed-Origins", "Package-Blacklist"):
            assert f"\n#clear Unattended-Upgrade::{name};\n" in text

    def test_updates_as_told(self) -> None:
        lines = self.role.render(
            "apt.conf.j2",
            common_upgrades=False,
            common_upgrades_exclude=[],
            common_upgrades_reboot=True,
            common_upgrades_reboot_time="02:30",
        )
        assert 'APT::Periodic::Unattended-Upgrade "0";' in lines
        assert "Unattended-Upgrade::Package-Blacklist { };" in lines
        assert 'Unattended-Upgrade::Automatic-Reboot "true";' in lines
        assert 'Unattended-Upgrade::Automatic-Reboot-Time "02:30";' in lines

    def test_updates_come_at_one_time_only(self) -> None:
        lines = self.role.render(
            "apt-daily-upgrade.timer.d.j2", common_upgrades_schedule="Sun *-*-* 03:00:00 UTC"
        )
        assert lines == [
            "[Timer]",
            "OnCalendar=",
            "OnCalendar=Sun *-*-* 03:00:00 UTC",
            "RandomizedDelaySec=1h",
            "Persistent=false",
        ]

    def test_kernel_settings_with_own_ones(self) -> None:
        lines = self.role.render(
            "sysctl.conf.j2",
            common_sysctl={"net.ipv4.tcp_keepalive_time": 60, "vm.swappiness": 1},
        )
        assert "net.ipv4.tcp_keepalive_time = 60" in lines
        assert "vm.swappiness = 1" in lines
        assert "kernel.panic = 10" in lines

    def test_a_container_is_asked_for_its_own_settings_only(self) -> None:
        running = {"stdout_lines": ["net.ipv4.tcp_keepalive_time = 7200", "kernel.panic = 0"]}
        container = {"virtualization_tech_guest": ["container"]}
        given = {"__common_sysctl_running": running}
        assert self.role.evaluate("__common_sysctl_differing", **given) == [
            "net.ipv4.tcp_keepalive_time=120",
            "kernel.panic=10",
        ]
        assert self.role.evaluate("__common_sysctl_differing", container, **given) == [
            "net.ipv4.tcp_keepalive_time=120"
        ]

    def test_a_container_does_not_keep_the_time(self) -> None:
        assert self.role.evaluate("__common_keeps_time") is True
        container = {"virtualization_tech_guest": ["container", "podman"]}
        assert self.role.evaluate("__common_keeps_time", container) is False


class TestDatabase:
    role = Role("database", database_functions=[SHOP, USERS], database_disk_mb=20480)

    def test_it_can_be_moved_from_the_first_day(self) -> None:
        found = settings(self.role.render("ascent.conf.j2"))
        assert found["wal_level"] == "logical"
        assert found["max_wal_senders"] == found["max_replication_slots"] == "20"
        assert found["max_slot_wal_keep_size"] == "4096MB"
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

    def test_it_fits_its_disk(self) -> None:
        found = settings(self.role.render("ascent.conf.j2"))
        assert (found["max_wal_size"], found["random_page_cost"]) == ("2048MB", "1.1")
        # What df says, when nothing is stated.
        asked = {"database_disk_mb": 0, "__database_df": {"stdout_lines": ["1M-blocks", " 102400"]}}
        found = settings(self.role.render("ascent.conf.j2", **asked, database_disk="hdd"))
        assert (found["max_wal_size"], found["random_page_cost"]) == ("10240MB", "4")
        found = settings(self.role.render("ascent.conf.j2", database_max_wal_size="3GB"))
        assert (found["max_wal_size"], found["max_slot_wal_keep_size"]) == ("3GB", "4096MB")

    def test_plans_are_logged_when_asked_without_a_restart(self) -> None:
        assert settings(self.role.render("ascent.conf.j2"))["session_preload_libraries"] == ""
        found = settings(self.role.render("ascent.conf.j2", database_explain_min_duration="2s"))
        assert found["session_preload_libraries"] == "auto_explain"
        assert found["auto_explain.log_min_duration"] == "2s"
        assert "auto_explain" not in found["shared_preload_libraries"]

    def test_the_monitoring_role_logs_in_as_a_local_user_or_with_its_secret(self) -> None:
        given: dict[str, Any] = {"database_functions": [], "database_monitoring_role": "monitor"}
        assert self.role.render("pg_hba.conf.j2", **given) == [
            "local all postgres peer",
            'local all "monitor" peer',
        ]
        given |= {"database_monitoring_secret": "S", "database_allowed_cidrs": ["10.42.0.0/16"]}
        assert self.role.render("pg_hba.conf.j2", **given)[2:] == [
            'host all "monitor" 127.0.0.1/32 scram-sha-256',
            'host all "monitor" ::1/128 scram-sha-256',
            'hostssl all "monitor" 10.42.0.0/16 scram-sha-256',
        ]

    def test_extensions_go_with_the_databases_of_their_functions(self) -> None:
        given = {"database_extensions": {"users": ["citext"], "main": ["pg_trgm", "unaccent"]}}
        assert self.role.evaluate("__database_extensions", **given) == [
            {"database": "shop", "name": "pg_trgm"},
            {"database": "shop", "name": "unaccent"},
            {"database": "people", "name": "citext"},
        ]

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

    def test_logins_come_in_as_members_of_the_functions_role(self) -> None:
        logins = [{"role": "shop_b", "secret": "NEW"}, {"role": "shop_a", "secret": "OLD"}]
        shop = {k: v for k, v in SHOP.items() if k != "secret"} | {"logins": logins}
        assert self.role.render("pg_hba.conf.j2", database_functions=[shop])[1:] == [
            'local "shop" +"shop" scram-sha-256',
            'host "shop" +"shop" 127.0.0.1/32 scram-sha-256',
            'host "shop" +"shop" ::1/128 scram-sha-256',
        ]
        old = {"database_functions": [{**shop, "logins": logins[:1]}]}
        assert self.role.evaluate("__database_old_logins", **old) == ["shop", "shop_a"]

    def test_the_roles_of_a_move_come_in_only_while_there_is_one(self) -> None:
        given = {
            "database_functions": [SHOP],
            "database_allowed_cidrs": ["10.42.1.4/32"],
            "database_move_secrets": {"guard": "G", "mover": "M", "replication": "R"},
            "database_move_cidrs": ["10.42.1.9/32", "10.42.1.4/32"],
        }
        lines = [line for line in self.role.render("pg_hba.conf.j2", **given) if "ascent_" in line]
        assert lines == [
            line
            for who in ("ascent_guard", "ascent_mover", "ascent_replication")
            for line in (
                f'host "shop" "{who}" 127.0.0.1/32 scram-sha-256',
                f'hostssl "shop" "{who}" 10.42.1.4/32 scram-sha-256',
                f'hostssl "shop" "{who}" 10.42.1.9/32 scram-sha-256',
            )
        ]
        given["database_move_secrets"] = {}
        assert "ascent_" not in "".join(self.role.render("pg_hba.conf.j2", **given))

    def test_a_way_in_for_a_move_is_the_private_address_alone(self) -> None:
        given = {"database_move_listen": "10.42.1.4"}
        lines = self.role.render("ascent-move.socket.j2", **given)
        assert "ListenStream=10.42.1.4:5432" in lines
        lines = self.role.render("ascent-move.service.j2", **given)
        assert "DynamicUser=true" in lines
        assert any(
            line.endswith("systemd-socket-proxyd --connections-max=64 127.0.0.1:5432")
            for line in lines
        )

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


class TestDatabaseUnit:
    def test_a_server_that_died_is_started_again_for_ever(self) -> None:
        lines = Role("database").render("restart.conf.j2")
        assert lines == [
            "[Unit]",
            "StartLimitIntervalSec=0",
            "[Service]",
            "Restart=on-failure",
            "RestartSec=5",
            "ExecStart=",
            "ExecStart=/bin/sh -c '/usr/bin/pg_ctlcluster --skip-systemctl-redirect %i start"
            " || grep -qsx postgres /proc/$$(cat /run/postgresql/%i.pid)/comm'",
        ]


class TestPooler:
    functions = (
        SHOP | {"host": "127.0.0.1", "port": 5432},
        USERS | {"host": "10.42.1.10", "port": 5433},
    )
    role = Role("pooler", pooler_functions=list(functions))

    def test_an_alias_for_each_function_without_user_or_password(self) -> None:
        lines = self.role.render("databases.ini.j2")
        assert lines[lines.index("[databases]") + 1 :] == [
            "main = host=127.0.0.1 port=5432 dbname=shop",
            "users = host=10.42.1.10 port=5433 dbname=people",
        ]
        assert "SCRAM" not in "\n".join(lines)
        assert "%include /etc/pgbouncer/databases.ini" in self.role.render("pgbouncer.ini.j2")

    def test_the_guard_runs_as_the_consoles_user_and_comes_back(self) -> None:
        lines = self.role.render("ascent-guard.service.j2")
        assert {"User=postgres", "Restart=always", "ProtectSystem=strict"} <= set(lines)
        assert "ReadWritePaths=/etc/pgbouncer" in lines

    def test_an_alias_that_a_move_has_led_elsewhere_stays_there(self) -> None:
        there = "[databases]\nmain = host=10.42.1.77 port=5432 dbname=shop2\n"
        read = {"__pooler_databases": {"content": base64.b64encode(there.encode()).decode()}}
        lines = self.role.render("databases.ini.j2", **read)
        assert lines[-2:] == [
            "main = host=10.42.1.77 port=5432 dbname=shop2",
            "users = host=10.42.1.10 port=5433 dbname=people",
        ]
        lines = self.role.render("databases.ini.j2", pooler_keep_servers=False, **read)
        assert lines[-2] == "main = host=127.0.0.1 port=5432 dbname=shop"

    def test_it_pools_transactions_for_scram_clients_on_loopback(self) -> None:
        lines = self.role.render("pgbouncer.ini.j2")
        found = settings(lines[lines.index("[pgbouncer]") :])
        assert found["pool_mode"] == "transaction"
        assert found["auth_type"] == "scram-sha-256"
        assert (found["listen_addr"], found["listen_port"]) == ("127.0.0.1", "6432")
        assert found["server_tls_sslmode"] == "require"
        assert found["max_prepared_statements"] == "200"
        assert found["default_pool_size"] == "20"
        # Whatever logins there are, the database sees no more than pool and reserve.
        assert found["max_db_connections"] == "25"
        # Nobody but the user that PgBouncer runs as reaches the console.
        assert not {"admin_users", "stats_users", "auth_query"} & set(found)

    def test_the_playbooks_count_with_the_roles_own_pools(self) -> None:
        """What the database is told to expect of the poolers that nobody has changed."""
        told = yaml.safe_load((ROLES.parent / "playbooks" / "vars" / "roles.yml").read_text())
        hosts = {"groups": {"tier_pooler": ["web-1", "web-2"]}}
        counted = self.role.evaluate(
            told["database_pooler_connections"].strip().removeprefix("{{").removesuffix("}}"),
            **hosts,
        )
        assert counted == 2 * self.role.evaluate("pooler_pool_size + pooler_reserve_pool_size")
        untold = Role("database").evaluate(
            told["database_pooler_connections"].strip().removeprefix("{{").removesuffix("}}"),
            **hosts,
        )
        assert untold == counted

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

    def test_logins_take_the_place_of_the_role(self) -> None:
        logins = [{"role": "shop_b", "secret": "NEW"}, {"role": "shop_a", "secret": "OLD"}]
        shop = {k: v for k, v in self.functions[0].items() if k != "secret"} | {"logins": logins}
        assert self.role.render("userlist.txt.j2", pooler_functions=[shop]) == [
            '"shop_a" "OLD"',
            '"shop_b" "NEW"',
        ]

    def test_there_are_descriptors_for_the_most_clients(self) -> None:
        lines = self.role.render("limits.conf.j2")
        assert "LimitNOFILE=10000" in lines
        assert "Restart=always" in lines

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

    def found(self, facts: dict[str, Any] | None = None, **given: Any) -> dict[str, str]:
        lines = self.role.render("settings.conf.j2", facts, **given)
        return dict(line.split(" ", 1) for line in lines)

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

    def test_debian_12_has_redis_in_its_own_folders(self) -> None:
        found = self.found(facts={"distribution_major_version": "12"})
        assert found["aclfile"] == "/etc/redis/users.acl"
        assert found["dir"] == "/var/lib/redis"
        assert found["pidfile"] == "/run/redis/redis-server.pid"

    def test_with_tls_the_port_takes_nothing_else(self) -> None:
        found = self.found(cache_tls=True, cache_tls_certificate="/c.pem", cache_tls_key="/c.key")
        assert (found["port"], found["tls-port"]) == ("0", "6379")
        assert (found["tls-cert-file"], found["tls-key-file"]) == ("/c.pem", "/c.key")
        assert found["tls-ca-cert-file"] == "/c.pem"
        assert not [name for name in self.found() if name.startswith("tls")]

    def test_the_file_of_users_has_hashes_and_no_password(self) -> None:
        def digest(password: str) -> str:
            return "#" + hashlib.sha256(password.encode()).hexdigest()

        lines = self.role.render(
            "users.acl.j2",
            cache_passwords_also=["the-password-before"],
            cache_users=[
                {"name": "jobs", "password": "the-password-of-jobs"},
                {"name": "metrics", "password": "the-password-of-metrics", "rules": "+info"},
            ],
            __cache_operator={"content": base64.b64encode(b"of-the-operator\n").decode()},
        )
        rules = "~* &* +@all -@admin -@dangerous +info"
        assert lines == [
            f"user default on sanitize-payload {digest('a-long-enough-password')}"
            f" {digest('the-password-before')} {rules}",
            f"user jobs on sanitize-payload {digest('the-password-of-jobs')} {rules}",
            f"user metrics on sanitize-payload {digest('the-password-of-metrics')} +info",
            f"user operator on sanitize-payload {digest('of-the-operator')} ~* &* +@all",
        ]

    def test_the_settings_have_neither(self) -> None:
        text = "\n".join(self.role.render("settings.conf.j2"))
        assert "requirepass" not in text
        assert "a-long-enough-password" not in text

    def test_memcached_is_bound_and_limited_and_has_no_udp(self) -> None:
        given = {"cache_engine": "memcached", "cache_memory_mb": 64}
        lines = [
            "-P /run/memcached/memcached.pid",
            "-U 0",
            "-c 4000",
            "-l 127.0.0.1",
            "-m 64",
            "-p 11211",
            "-u memcache",
        ]
        assert self.role.render("memcached.conf.j2", **given) == lines
        full = self.role.render(
            "memcached.conf.j2",
            **given,
            cache_eviction_policy="noeviction",
            cache_settings={"-I": "2m"},
        )
        assert sorted(full) == sorted([*lines, "-M", "-I 2m"])

    @pytest.mark.parametrize(
        ("release", "asked", "engine"),
        [
            ("12", "", "Redis"),
            ("13", "", "Valkey"),
            ("12", "memcached", "memcached"),
            ("13", "valkey", "Valkey"),
        ],
    )
    def test_the_engine_is_that_of_the_release(self, release: str, asked: str, engine: str) -> None:
        facts = {"distribution_major_version": release}
        assert self.role.evaluate("__cache_engine.title", facts, cache_engine=asked) == engine


def test_every_template_of_these_roles_is_rendered_here() -> None:
    """A new template needs a test: those of this folder name what they render."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for role in ("common", "database", "pooler", "cache"):
        for template in (ROLES / role / "templates").iterdir():
            assert f'"{template.name}"' in text, f"{role}/{template.name} has no test"


def test_no_two_roles_have_a_handler_of_the_same_name() -> None:
    """Of two with one name in a play the last alone runs, after the other role's own handlers.

    So nginx was once reloaded before systemd had read how: the next run did it again.
    """
    names = [
        handler["name"]
        for path in ROLES.glob("*/handlers/main.yml")
        for handler in yaml.safe_load(path.read_text())
    ]
    assert sorted(set(names)) == sorted(names)
