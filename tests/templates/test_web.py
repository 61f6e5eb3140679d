"""The web role's templates, rendered with its own defaults."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.templates.rendering import Role

ROLE = Role(
    "web",
    web_application="shop",
    web_domain="shop.test",
    web_source="/src/app",
    inventory_hostname="box",
)
FACTS = {"all_ipv6_addresses": ["fe80::1"], "processor_vcpus": 4}


def render(name: str, facts: dict[str, Any] | None = None, **given: Any) -> str:
    return "\n".join(ROLE.render(f"{name}.j2", FACTS | (facts or {}), **given)) + "\n"


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def servers(text: str) -> list[str]:
    """The server blocks of an nginx configuration."""
    return re.findall(r"^    server \{\n.*?^    \}\n", text, re.MULTILINE | re.DOTALL)


class TestNginx:
    def test_redirects_to_tls_and_refuses_other_names(self) -> None:
        other, plain, main = servers(render("nginx.conf"))
        assert "listen 80 default_server;" in lines(other)
        assert "listen 443 ssl default_server;" in lines(other)
        assert "return 421;" in lines(other)
        assert "location = /health/ready {" in lines(other)
        assert "return 308 https://$host$request_uri;" in lines(plain)
        assert "server_name shop.test;" in lines(main)
        assert "listen [::]:443 ssl;" in lines(main)
        assert "http2 on;" in lines(main)

    def test_connects_to_the_fixed_path_for_each_request(self) -> None:
        text = render("nginx.conf")
        upstream = text.split("upstream application {")[1].split("}")[0]
        assert lines(upstream.strip()) == ["server unix:/run/shop/current.sock;"]
        assert "proxy_next_upstream off;" in lines(text)

    def test_limits_count_each_client_but_those_exempt(self) -> None:
        text = render("nginx.conf", web_limits_exempt=["192.0.2.0/24"], web_request_rate=7)
        geo = text.split("geo $is_counted {")[1].split("}")[0]
        assert lines(geo.strip()) == ["default 1;", "192.0.2.0/24 0;"]
        assert "limit_req_zone $counted_client zone=requests:10m rate=7r/s;" in lines(text)
        main = servers(text)[2]
        # The application is asked for its health by load balancers, and static files are cheap.
        assert main.count("limit_req ") == 1
        assert "limit_req" in main.split("location / {")[1].split("}")[0]
        assert "limit_conn connections 200;" in lines(main)

    def test_no_limits_without_numbers(self) -> None:
        text = render("nginx.conf", web_request_rate=0, web_client_connections=0)
        assert not re.search("limit_(req|conn)|geo |429", text)

    def test_load_balancers_are_believed_and_nobody_else(self) -> None:
        text = render("nginx.conf", web_trusted_proxies=["10.42.0.0/16"])
        assert {"set_real_ip_from 10.42.0.0/16;", "real_ip_header X-Forwarded-For;"} <= set(
            lines(text)
        )
        assert "proxy_set_header X-Forwarded-Proto $client_scheme;" in lines(text)
        alone = render("nginx.conf")
        assert "proxy_set_header X-Forwarded-Proto $scheme;" in lines(alone)
        assert not re.search("real_ip|stub_status|unready", alone)

    def test_tells_its_requests_in_flight_to_those_who_are_named(self) -> None:
        text = render("nginx.conf", web_status_port=8081, web_status_allowed=["192.0.2.0/24"])
        status = servers(text)[1]
        assert "listen 8081;" in lines(status)
        allowed = [line for line in lines(status) if line.startswith(("allow", "deny"))]
        assert allowed == ["allow 127.0.0.1;", "allow 192.0.2.0/24;", "deny all;"]

    def test_is_unready_before_it_stops(self) -> None:
        other = servers(render("nginx.conf", web_unready_seconds=20))[0]
        assert "if (-e /run/shop/unready) {" in lines(other)
        unit = lines(render("unready.service", web_unready_seconds=20))
        assert "Requires=nginx.service" in unit
        assert "TimeoutStopSec=35" in unit
        assert any(line.startswith("ExecStop=") and line.endswith("sleep 20'") for line in unit)

    def test_slow_clients_have_their_time(self) -> None:
        text = render("nginx.conf", web_client_header_timeout=3, web_client_body_timeout=4)
        assert {"client_header_timeout 3s;", "client_body_timeout 4s;"} <= set(lines(text))

    def test_serves_plain_http_without_tls(self) -> None:
        text = render("nginx.conf", web_tls="none")
        assert len(servers(text)) == 2
        assert not re.search(r"443|ssl|308|http2", text)

    def test_listens_to_ipv4_alone_on_a_host_without_ipv6(self) -> None:
        assert "[::]" not in render("nginx.conf", {"all_ipv6_addresses": []})

    def test_speaks_http2_the_way_of_debian_12(self) -> None:
        text = render("nginx.conf", {"distribution_major_version": "12"})
        assert "listen 443 ssl http2;" in lines(text)
        assert "http2 on;" not in text

    def test_the_self_signed_pair_belongs_to_its_names(self) -> None:
        def pair(**given: Any) -> str:
            return re.findall(r"ssl_certificate (\S+);", render("nginx.conf", **given))[0]

        assert pair() != pair(web_domain_aliases=["www.shop.test"])
        assert pair(web_tls="provided") == "/etc/nginx/tls/shop.pem"

    def test_static_files_only_where_there_are_some(self) -> None:
        assert "location /static/" not in render("nginx.conf")
        text = render("nginx.conf", web_static_dir="shop/static/")
        assert "location /static/ {" in lines(text)
        assert "alias /srv/shop/current/shop/static/;" in lines(text)

    def test_every_header_on_every_answer_of_the_main_server(self) -> None:
        text = servers(render("nginx.conf", web_static_dir="s", web_hsts_seconds=60))[2]
        # The server, its static files, and the pages for when it is asked too much, or is down.
        assert text.count("add_header X-Content-Type-Options") == 4
        assert text.count("add_header Strict-Transport-Security") == 4

    def test_hsts_only_when_asked_for_and_with_tls(self) -> None:
        assert "Strict-Transport" not in render("nginx.conf")
        assert "Strict-Transport" not in render("nginx.conf", web_tls="none", web_hsts_seconds=60)

    def test_the_application_may_have_headers_of_its_own(self) -> None:
        text = render("nginx.conf", web_headers={"X-Frame-Options": "DENY"})
        block = text.split("map $upstream_http_x_frame_options $header_1 {")[1].split("}")[0]
        assert lines(block.strip()) == ['default "";', '"" "DENY";']

    @pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed here")
    def test_nginx_takes_it(self, tmp_path: Path) -> None:
        text = render("nginx.conf", web_tls="none", web_static_dir="s")
        path = tmp_path / "nginx.conf"
        path.write_text(text.replace("/run/nginx.pid", str(tmp_path / "pid")))
        done = subprocess.run(["nginx", "-t", "-c", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestUnit:
    def test_is_in_a_sandbox(self) -> None:
        expected = {
            "User=shop",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ReadWritePaths=/srv/shop/shared/uploads /run/shop/instances",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            "CapabilityBoundingSet=",
            "SystemCallFilter=@system-service",
        }
        assert expected <= set(lines(render("application@.service")))

    def test_never_gives_a_crashed_application_up(self) -> None:
        assert {"Restart=always", "StartLimitIntervalSec=0"} <= set(
            lines(render("application@.service"))
        )

    def test_starts_what_belongs_to_the_instance(self) -> None:
        assert {
            "ExecStart=/srv/shop/instances/%i/start",
            "EnvironmentFile=/srv/shop/instances/%i/environment",
            "WorkingDirectory=/srv/shop/instances/%i/release",
        } <= set(lines(render("application@.service")))

    def test_memory_is_limited_when_asked_for(self) -> None:
        assert "MemoryMax" not in render("application@.service")
        text = render("application@.service", web_memory_max="1G")
        assert "MemoryMax=1G" in lines(text)

    def test_systemd_kills_after_the_application_had_its_time(self) -> None:
        text = render("application@.service", web_stop_timeout=20)
        assert "TimeoutStopSec=25" in lines(text)
        assert "--graceful-timeout 20" in ROLE.evaluate("__web_start", FACTS, web_stop_timeout=20)


def test_the_boot_unit_starts_the_live_instance_and_no_other() -> None:
    text = render("application.service")
    assert "ConditionPathExists=/srv/shop/live/start" in lines(text)
    assert (
        "ExecStart=/bin/sh -c 'exec systemctl start "
        '"shop@$$(basename "$$(readlink /srv/shop/live)").service"\'' in lines(text)
    )


def test_the_sockets_come_back_with_every_boot() -> None:
    assert lines(render("tmpfiles.conf")) == [
        "d /run/shop 0755 root root -",
        "d /run/shop/instances 2750 shop www-data -",
        "L+ /run/shop/current.sock - - - - /srv/shop/live/socket",
    ]


def test_a_port_is_reached_through_the_socket_of_its_instance() -> None:
    socket = lines(render("application-port@.socket"))
    assert {
        "ConditionPathExists=/srv/shop/instances/%i/port",
        "ListenStream=/run/shop/instances/%i.sock",
        "SocketGroup=www-data",
        "SocketMode=0660",
        "PartOf=shop@%i.service",
    } <= set(socket)
    service = lines(render("application-port@.service"))
    assert "EnvironmentFile=/srv/shop/instances/%i/port" in service
    assert any(
        line.startswith("ExecStart=/") and line.endswith(" 127.0.0.1:${PORT}") for line in service
    )
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(service)
    assert "Wants=shop-port@%i.socket" in lines(render("application@.service"))


class TestProfile:
    @staticmethod
    def value(name: str, **given: Any) -> Any:
        return ROLE.evaluate(name, FACTS, **given)

    def test_python_starts_gunicorn(self) -> None:
        command = self.value("__web_start")
        assert command.startswith("gunicorn --bind unix:$SOCKET --workers 4 --threads 4 ")
        assert command.endswith(" shop.wsgi:app")

    def test_at_least_two_workers(self) -> None:
        assert "--workers 2 " in ROLE.evaluate("__web_start", {"processor_vcpus": 1})

    def test_what_is_given_wins(self) -> None:
        given = {"web_start": "node server.js", "web_build": ["npm ci"], "web_path": ["bin"]}
        for key, value in given.items():
            assert self.value(f"__{key}", **given) == value

    def test_the_environment_is_complete(self) -> None:
        assert self.value("__web_environment", web_environment={"LOG_LEVEL": "info"}) == {
            "UPLOAD_DIR": "/srv/shop/shared/uploads",
            "STATIC_URL": "/static/",
            "HOST_NAME": "box",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LOG_LEVEL": "info",
        }

    def test_asgi_starts_uvicorn(self) -> None:
        command = self.value("__web_start", web_profile="python_asgi")
        assert command.startswith("uvicorn --uds $SOCKET --workers 4 ")
        assert "--timeout-graceful-shutdown 30 " in command
        assert command.endswith(" shop.asgi:app")
        assert "uvicorn==" in self.value("__web_build", web_profile="python_asgi")[2]

    def test_a_port_instead_of_the_socket(self) -> None:
        assert "--bind $HOST:$PORT " in self.value("__web_start", web_listen="port")
        asgi = self.value("__web_start", web_listen="port", web_profile="python_asgi")
        assert "--host $HOST --port $PORT " in asgi

    def test_node_builds_with_npm_unless_told_otherwise(self) -> None:
        packages = "__web_profile_packages.nodejs"
        assert self.value(packages, web_profile="nodejs") == ["nodejs", "npm"]
        assert self.value(packages, web_profile="nodejs", web_build=["make"]) == ["nodejs"]
        assert self.value("__web_path", web_profile="nodejs") == ["node_modules/.bin"]

    @pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed here")
    @pytest.mark.parametrize(
        ("package", "expected"),
        [
            ({"scripts": {"start": "A=1 printenv A"}}, "1"),
            ({"scripts": {"start": "echo 'two  words'"}}, "two  words"),
            ({"main": "main.js"}, "main"),
            ({}, "server"),
        ],
    )
    def test_node_starts_what_its_package_says(
        self, tmp_path: Path, package: dict[str, Any], expected: str
    ) -> None:
        (tmp_path / "package.json").write_text(json.dumps(package))
        for name in ("main", "server"):
            (tmp_path / f"{name}.js").write_text(f"console.log('{name}')")
        command = "exec " + self.value("__web_start", web_profile="nodejs")
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.rstrip("\n") == expected, done.stderr
