"""What the role common changes on a host that it made otherwise before."""

from __future__ import annotations


def test_a_user_that_left_is_gone_and_sudo_is_taken_away(host, ssh):
    assert not host.user("guest").exists
    answer = ssh("alice", "id -un; sudo -n true")
    assert answer.stdout.strip() == "alice"
    assert answer.returncode != 0, "alice still becomes root"
    assert not host.file("/etc/sudoers.d/ascent-alice").exists


def test_root_logs_in_with_a_key_where_that_is_allowed(host, ssh):
    host.run_expect([0], "mkdir -p /root/.ssh; cp /home/alice/.ssh/authorized_keys /root/.ssh/")
    try:
        answer = ssh("root", "id -un")
    finally:
        host.run_expect([0], "rm /root/.ssh/authorized_keys")
    assert answer.stdout.strip() == "root", answer.stderr


def test_no_port_is_forwarded_where_that_is_forbidden(ssh):
    answer = ssh("alice", "true", "-R8022:localhost:22", "-oExitOnForwardFailure=yes")
    assert "remote port forwarding failed" in answer.stderr


def test_the_clock_shows_the_time_of_the_place(host):
    assert host.check_output("date +%Z") in ("CET", "CEST")


def test_a_further_package_is_there(host):
    assert host.package("htop").is_installed


def test_the_journal_has_its_new_limit(host):
    told = host.check_output("journalctl --unit systemd-journald --grep 'max 100' --no-pager")
    assert "max 100" in told


def test_updates_have_their_new_time_and_may_reboot(host):
    timer = host.check_output("systemctl show apt-daily-upgrade.timer --property=TimersCalendar")
    assert "OnCalendar=Sun *-*-* 03:00:00 UTC" in timer
    assert timer.count("OnCalendar") == 1
    settings = host.check_output("apt-config dump Unattended-Upgrade::Automatic-Reboot")
    assert 'Automatic-Reboot "true"' in settings
    assert host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist") in (
        "",
        'Unattended-Upgrade::Package-Blacklist "";',
    )


def test_the_packet_filter_has_the_new_rules_alone(host):
    rules = host.check_output("nft list table inet ascent").splitlines()
    told = [line.strip() for line in rules if " saddr " in line and "dport 546" not in line]
    operator = told[0].split()[2]
    assert told == [
        f"ip saddr {operator} tcp dport 22 accept",
        "ip saddr 10.0.0.0/8 tcp dport 8000-8100 accept",
        "ip saddr 10.0.0.0/8 udp dport 8000-8100 accept",
    ]


def test_an_own_kernel_setting_wins(host):
    assert host.check_output("sysctl -n net.ipv4.tcp_keepalive_time") == "60"


def test_the_packet_filter_can_be_turned_off_and_on(hosts, converge):
    """Off leaves a table without a chain: nothing is closed."""
    run = converge(start="firewall | Render the rules", common_firewall=False)
    assert run.returncode == 0, run.stdout
    for host in hosts.values():
        assert "chain" not in host.check_output("nft list table inet ascent")
    run = converge(start="firewall | Render the rules")
    assert run.returncode == 0, run.stdout
    for host in hosts.values():
        assert "policy drop" in host.check_output("nft list table inet ascent")
