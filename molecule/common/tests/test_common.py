"""What the role common promises, asked of the host."""

from __future__ import annotations


def test_a_listed_user_logs_in_and_becomes_root_only_with_sudo(host, ssh):
    assert ssh("alice", "sudo -n id -un").stdout.strip() == "root"
    assert "adm" in ssh("alice", "id -Gn").stdout.split()
    guest = ssh("guest", "id -un; sudo -n true")
    assert guest.stdout.strip() == "guest"
    assert guest.returncode != 0, "guest became root"


def test_a_strange_key_is_taken_away(host, converge):
    host.run_expect([0], "echo 'ssh-ed25519 AAAA stranger' >> /home/alice/.ssh/authorized_keys")
    run = converge()
    assert run.returncode == 0, run.stdout
    keys = host.file("/home/alice/.ssh/authorized_keys").content_string.strip().splitlines()
    assert len(keys) == 1
    assert "stranger" not in keys[0]


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


def test_it_refuses_to_lock_out_the_user_that_ansible_connects_as(host, converge):
    run = converge(common_users=[{"name": "admin", "state": "absent"}])
    assert run.returncode != 0
    assert "Ansible connects as admin, who could not come back" in run.stdout
    assert host.user("admin").exists


def test_the_journal_is_kept_within_its_limit(host):
    limit = host.run("journalctl --unit systemd-journald --grep 'max 200' --no-pager")
    assert limit.rc == 0, host.run("journalctl --unit systemd-journald --no-pager").stdout
    assert host.file("/var/log/journal").is_directory


def test_the_clock_is_in_utc(host):
    assert host.check_output("date +%Z") == "UTC"
    assert host.check_output("readlink /etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"
