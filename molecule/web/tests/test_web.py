"""What the web role promises of a converged host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("service", ["nginx", "door"])
def test_services_run_and_come_back_at_boot(host: Any, service: str) -> None:
    assert host.service(service).is_running
    assert host.service(service).is_enabled


class TestFrontDoor:
    def test_the_application_answers(self, site: Any) -> None:
        assert site.told()["colour"] == "red"

    def test_the_second_name_answers_too(self, site: Any) -> None:
        assert site.curl("https://www.door.test/")[0] == 200

    def test_plain_requests_are_led_to_tls_with_their_method(self, site: Any) -> None:
        status, headers, _ = site.curl("http://door.test/a?b=c", "-X", "POST")
        assert (status, headers["location"]) == (308, "https://door.test/a?b=c")

    @pytest.mark.parametrize(
        "url", ["https://other.test/", "http://other.test/", "http://127.0.0.1/"]
    )
    def test_other_names_are_refused(self, site: Any, url: str) -> None:
        assert site.curl(url)[0] == 421

    def test_health_answers_by_address_and_without_tls(self, site: Any) -> None:
        assert site.curl("http://127.0.0.1/health/ready")[0] == 200
        assert site.curl("https://127.0.0.1/health/ready")[0] == 200

    def test_the_certificate_bears_all_names(self, site: Any) -> None:
        shown = site.root("openssl x509 -in /etc/nginx/tls/door-*.pem -noout -ext subjectAltName")
        assert "DNS:door.test" in shown
        assert "DNS:www.door.test" in shown

    def test_old_tls_is_refused(self, host: Any) -> None:
        done = host.run("echo | openssl s_client -connect 127.0.0.1:443 -tls1_1 2>&1")
        assert "Cipher is (NONE)" in done.stdout

    def test_headers(self, site: Any) -> None:
        _, headers, _ = site.curl("/")
        assert headers["server"] == "nginx"
        assert headers["x-content-type-options"] == "nosniff"
        # The application's own word counts, once.
        assert headers["referrer-policy"] == "no-referrer"

    def test_the_application_learns_who_asks(self, site: Any) -> None:
        seen = site.told("/headers")
        assert seen["HTTP_HOST"] == "door.test"
        assert seen["HTTP_X_FORWARDED_PROTO"] == "https"
        assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
        assert len(seen["HTTP_X_REQUEST_ID"]) == 32

    def test_a_client_cannot_lie_about_its_address(self, site: Any) -> None:
        _, _, body = site.curl("/headers", "-H", "X-Forwarded-For: 192.0.2.1")
        assert json.loads(body)["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"

    def test_static_files_are_cached(self, site: Any) -> None:
        status, headers, body = site.curl("/static/door.css")
        assert (status, headers["cache-control"]) == (200, "public, max-age=300")
        assert "color: red" in body
        _, headers, _ = site.curl("/static/door.css?v=1")
        assert headers["cache-control"] == "public, max-age=31536000, immutable"
        assert site.curl("/static/door.css", "-H", f"If-None-Match: {headers['etag']}")[0] == 304

    @pytest.mark.parametrize(
        "path", ["/static/../wsgi.py", "/static../wsgi.py", "/static/%2e%2e/wsgi.py"]
    )
    def test_static_files_end_at_their_folder(self, site: Any, path: str) -> None:
        assert "import json" not in site.curl(path, "--path-as-is")[2]

    def test_a_body_may_not_be_larger_than_allowed(self, site: Any) -> None:
        site.root("head -c 900000 /dev/zero > /tmp/fits; head -c 1100000 /dev/zero > /tmp/large")
        assert site.curl("/", "--data-binary", "@/tmp/fits")[0] == 200
        assert site.curl("/", "--data-binary", "@/tmp/large")[0] == 413

    def test_a_client_that_asks_too_much_has_to_wait(self, host: Any, site: Any) -> None:
        address = site.root("hostname -I").split()[0]
        ask = (
            "curl -sk -Z --parallel-immediate -o /dev/null -D - --resolve door.test:443:{} "
            "'https://door.test/?[1-40]'"
        )
        heads = host.run(ask.format(address)).stdout
        refused = heads.count(" 429")
        assert 20 <= refused <= 30, heads
        assert heads.lower().count("retry-after: 1") == refused
        # At the same time, others are served.
        assert " 429" not in host.run(ask.format("127.0.0.1")).stdout

    def test_a_client_that_is_too_slow_is_cut_off(self, site: Any) -> None:
        """Two seconds are allowed here for the head of a request."""
        seconds = site.root(
            'python3 -c \'import socket, time; s = socket.create_connection(("127.0.0.1", 80));'
            ' s.sendall(b"GET / HTTP/1.1\\r\\nHost: door.test\\r\\n"); s.settimeout(20);'
            " began = time.time()\ntry: s.recv(1)\nexcept ConnectionError: pass\n"
            "print(time.time() - began)'"
        )
        assert 1 < float(seconds) < 10

    def test_the_access_log_is_json_without_query_strings(self, site: Any) -> None:
        site.curl("/look-for-me?token=abc", "-H", 'User-Agent: "quoted"')
        line = site.root("grep look-for-me /var/log/nginx/access.log | tail -n 1")
        entry = json.loads(line)
        assert (entry["uri"], entry["status"], entry["agent"]) == ("/look-for-me", 200, '"quoted"')
        assert "abc" not in line

    def test_nothing_of_the_packages_default_site_is_left(self, site: Any) -> None:
        assert "Welcome to nginx" not in site.curl("http://127.0.0.1/")[2]


class TestSandbox:
    def test_systemd_finds_it_tight(self, site: Any) -> None:
        verdict = site.root(f"systemd-analyze security --no-pager door@{site.live} | tail -n 1")
        assert float(verdict.split(": ")[1].split()[0]) <= 2.0

    def test_the_application_cannot_change_itself(self, site: Any) -> None:
        for path in ("/srv/door/current/door/wsgi.py", "/srv/door/live/start", "/etc/door/x"):
            assert "refused" in site.told(f"/write?path={path}"), path

    def test_the_application_can_keep_uploads(self, site: Any) -> None:
        assert "wrote" in site.told("/write?path=/srv/door/shared/uploads/one")

    def test_it_runs_without_privileges(self, site: Any) -> None:
        process = site.root(f"systemctl show -P MainPID door@{site.live}")
        status = site.root(f"cat /proc/{process}/status")
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert "CapEff:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status


class TestSecrets:
    def test_only_root_and_the_application_read_the_environment(self, host: Any, site: Any) -> None:
        path = site.root("readlink -f /etc/door/environment")
        file = host.file(path)
        with host.sudo():
            assert (file.mode, file.user, file.group) == (0o640, "root", "door")
        assert host.run("sudo -u www-data cat /etc/door/environment").rc != 0
        assert "token-of-the-test" in site.root("cat /etc/door/environment")

    def test_no_secret_in_units_process_lists_or_the_journal(self, site: Any) -> None:
        for command in (
            f"systemctl cat door@{site.live}; systemctl show door@{site.live}",
            "ps -eo args",
            "journalctl --no-pager -q",
        ):
            told = site.root(f"{command} | grep -v sudo || true")
            assert "token-of-the-test" not in told, command
            assert "password-of-the-test" not in told, command

    def test_only_nginx_and_the_application_reach_the_socket(self, host: Any, site: Any) -> None:
        ask = "curl -s --unix-socket /run/door/current.sock http://door.test/"
        assert host.run(f"sudo -u www-data {ask}").rc == 0
        assert host.run(f"sudo -u nobody {ask}").rc != 0

    def test_the_private_key_is_roots(self, host: Any, site: Any) -> None:
        path = site.root("ls /etc/nginx/tls/door-*.key")
        with host.sudo():
            assert host.file(path).mode == 0o600


Wait = Callable[[Callable[[], bool], float, str], None]


class TestRecovery:
    def test_a_crash_is_over_within_seconds(self, site: Any, wait: Wait) -> None:
        site.curl("/crash")
        wait(lambda: site.curl("/")[0] == 503, 2, "the crash was seen")
        status, headers, body = site.curl("/")
        if status == 503:
            assert headers["retry-after"] == "5"
            assert "One moment, please" in body
        wait(lambda: site.curl("/")[0] == 200, 10, "the application came back")

    def test_ten_crashes_in_a_row_do_not_end_it(self, site: Any, wait: Wait) -> None:
        for _ in range(10):
            site.root(f"systemctl kill --kill-whom=all -s KILL door@{site.live}")
            wait(lambda: site.curl("/")[0] == 200, 10, "the application came back")

    def test_after_a_boot_the_live_instance_serves_and_no_other(
        self, site: Any, wait: Wait
    ) -> None:
        """What a boot does: nothing runs, /run is empty, the enabled units start."""
        site.root("systemctl stop nginx door; rm -rf /run/door")
        assert site.running == []
        site.root("systemd-tmpfiles --create; systemctl start multi-user.target nginx door")
        wait(lambda: site.curl("/")[0] == 200, 15, "the application came back")
        assert site.running == [site.live]

    def test_stopping_the_application_stops_it_and_tells_visitors(
        self, site: Any, wait: Wait
    ) -> None:
        site.root("systemctl stop door")
        assert site.running == []
        assert site.curl("/")[0] == 503
        site.root("systemctl start door")
        wait(lambda: site.curl("/")[0] == 200, 10, "the application came back")
