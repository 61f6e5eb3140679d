"""What the role common promises, asked of the host."""

from __future__ import annotations

import socket
import time

import pytest


def test_a_listed_user_logs_in_and_becomes_root_only_with_sudo(host, ssh):
    assert ssh("alice", "sudo -n id -un").stdout.strip() == "root"
    assert "adm" in ssh("alice", "id -Gn").stdout.split()
    guest = ssh("guest", "id -un; sudo -n true")
    assert guest.stdout.strip() == "guest"
    assert guest.returncode != 0, "guest became root"


def test_root_does_not_log_in(host, ssh):
    host.run_expect([0], "mkdir -p /root/.ssh; cp /home/alice/.ssh/authorized_keys /root/.ssh/")
    try:
        answer = ssh("root", "true")
    finally:
        host.run_expect([0], "rm /root/.ssh/authorized_keys")
    assert answer.returncode == 255
    assert "Permission denied (publickey)" in answer.stderr


def test_a_password_is_not_asked_for(ssh):
    answer = ssh("alice", "true", "-oPubkeyAuthentication=no", "-oBatchMode=no")
    assert answer.returncode == 255
    # The server offers keys and nothing else.
    assert "Permission denied (publickey)" in answer.stderr


def test_a_port_of_the_host_is_not_opened_by_forwarding(ssh):
    answer = ssh("alice", "true", "-R2222:localhost:22", "-oExitOnForwardFailure=yes")
    assert answer.returncode == 255
    assert "remote port forwarding failed" in answer.stderr


def test_the_journal_is_kept_within_its_limit(host):
    limit = host.run("journalctl --unit systemd-journald --grep 'max 200' --no-pager")
    assert limit.rc == 0, host.run("journalctl --unit systemd-journald --no-pager").stdout
    assert host.file("/var/log/journal").is_directory


def test_the_clock_is_in_utc(host):
    assert host.check_output("date +%Z") == "UTC"
    assert host.check_output("readlink /etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"


def test_security_updates_and_no_others_are_installed_by_themselves(host, release):
    codename = {12: "bookworm", 13: "trixie"}[release]
    told = host.check_output("unattended-upgrade --dry-run --debug 2>&1")
    origins = [line for line in told.splitlines() if line.startswith("Allowed origins are")]
    assert origins == [
        f"Allowed origins are: origin=Debian,codename={codename}-security,label=Debian-Security"
    ]
    excluded = [line for line in told.splitlines() if line.startswith("Initial blacklist")]
    assert excluded == ["Initial blacklist: postgresql pgbouncer valkey redis memcached"]
    told = host.check_output("apt-config dump Unattended-Upgrade::Automatic-Reboot")
    assert told == 'Unattended-Upgrade::Automatic-Reboot "false";'


def test_updates_come_at_their_time_only(host):
    timer = host.check_output(
        "systemctl show apt-daily-upgrade.timer --property=TimersCalendar,Persistent,ActiveState"
        ",UnitFileState,RandomizedDelayUSec"
    )
    assert "OnCalendar=*-*-* 04:00:00 UTC" in timer
    assert timer.count("OnCalendar") == 1
    assert "Persistent=no" in timer
    assert "RandomizedDelayUSec=1h" in timer
    assert "ActiveState=active" in timer
    assert "UnitFileState=enabled" in timer


class Listener:
    """A server on a port of the host, and whether it is reached from outside."""

    def __init__(self, host, outside):
        self.host = host
        self.outside = outside

    def reached(self, port):
        self.host.run_expect(
            [0],
            f"systemd-run --quiet --collect --unit=listener-{port} python3 -m http.server"
            f" --directory /usr/share/zoneinfo {port};"
            f" for i in $(seq 100); do ss -Hlnt 'sport = :{port}' | grep -q . && exit; sleep 0.1;"
            " done; exit 1",
        )
        try:
            with socket.create_connection((self.outside, port), timeout=3):
                return True
        except TimeoutError:
            return False
        finally:
            self.host.run(f"systemctl stop listener-{port}")


@pytest.fixture
def listener(host, address):
    return Listener(host, address)


def test_only_named_ports_are_open(listener):
    """The security group lets both in, so it is the packet filter that closes one."""
    assert listener.reached(8443)
    assert not listener.reached(8444)


# What follows runs the playbook again, for all hosts at once.


def test_it_refuses_to_lock_out_the_user_that_ansible_connects_as(hosts, converge):
    run = converge(on="debian-13", common_users=[{"name": "admin", "state": "absent"}])
    assert run.failed("debian-13")
    assert "Ansible connects as admin, who could not come back" in run.told("debian-13")
    assert hosts["debian-13"].user("admin").exists


def test_rules_without_ansibles_own_port_are_refused(hosts, converge):
    before = hosts["debian-13"].check_output("nft list ruleset")
    run = converge(
        on="debian-13", common_firewall_allow=[{"port": 443}, {"port": 22, "protocol": "udp"}]
    )
    assert run.failed("debian-13")
    told = "Ansible comes in at port 22, which common_firewall_allow would close"
    assert told in run.told("debian-13")
    assert hosts["debian-13"].check_output("nft list ruleset") == before


def test_a_setting_that_the_kernel_does_not_know_is_refused(hosts, converge):
    run = converge(
        start="sysctl | Render the kernel settings", common_sysctl={"net.ipv4.no_such_setting": 1}
    )
    for name in hosts:
        assert run.failed(name)
        assert "has no setting net.ipv4.no_such_setting" in run.told(name)


def test_rules_that_shut_ansible_out_take_themselves_away(hosts, converge, log_in):
    """The address is another one, so nobody can prove that he comes in."""
    run = converge(
        start="firewall | Render the rules",
        common_firewall_allow=[{"port": 22, "sources": ["192.0.2.1/32"]}],
        common_firewall_grace=15,
    )
    deadline = time.monotonic() + 30
    for name in hosts:
        assert run.failed(name)
        assert "The packet filter was not taken into use" in run.told(name)
        while (answer := log_in(name, "alice", "true", "-oConnectTimeout=2")).returncode:
            assert time.monotonic() < deadline, answer.stderr
        enabled = log_in(name, "alice", "systemctl is-enabled nftables").stdout.strip()
        assert enabled == "disabled", "the next start would close it again"
        assert "ascent" not in hosts[name].check_output("nft list tables")


def test_what_was_changed_by_hand_is_put_right(hosts, converge):
    """What the two tests before have left, a strange key and a kernel setting; others' table stays.

    No filter is in force, and the files have the settings that were refused.
    """
    for host in hosts.values():
        host.run_expect([0], "echo 'ssh-ed25519 AAAA stranger' >> /home/alice/.ssh/authorized_keys")
        host.run_expect([0], "nft add table inet other; nft delete table inet ascent || true")
        host.run_expect([0], "sysctl -q -w net.ipv4.tcp_keepalive_time=7200")
    try:
        run = converge()
        tables = {name: host.check_output("nft list tables") for name, host in hosts.items()}
    finally:
        for host in hosts.values():
            host.run("nft delete table inet other")
    assert run.returncode == 0, run.stdout
    for name, host in hosts.items():
        keys = host.file("/home/alice/.ssh/authorized_keys").content_string.strip().splitlines()
        assert len(keys) == 1
        assert "stranger" not in keys[0]
        assert sorted(tables[name].splitlines()) == ["table inet ascent", "table inet other"]
        assert host.service("nftables").is_enabled
        assert host.check_output("sysctl -n net.ipv4.tcp_keepalive_time") == "120"
        # A host of the lab is a container: its kernel is the machine's, and that is said.
        assert "stay as they are: kernel.panic, kernel.yama.ptrace_scope" in run.told(name)
        settings = host.file("/etc/sysctl.d/90-ascent.conf").content_string
        assert "kernel.panic = 10" in settings
        assert "no_such_setting" not in settings
