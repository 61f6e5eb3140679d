"""The worker role's templates, rendered with its own defaults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.templates.rendering import Role

ROLE = Role("worker", worker_application="shop", role_path="roles/worker")
WORKER = {"__worker_name": "mailer", "__worker_stop_timeout": 120, "__worker_memory_max": ""}


@pytest.fixture(autouse=True)
def at_the_roles_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """`role_path` is a variable of Ansible's."""
    monkeypatch.setitem(ROLE.variables, "role_path", str(ROLE.directory))


def render(name: str, **given: Any) -> list[str]:
    return [line.strip() for line in ROLE.render(name, **{**WORKER, **given})]


def test_a_process_starts_what_lies_in_its_folder() -> None:
    assert {
        "User=shop",
        "ExecStart=/srv/shop/workers/mailer/%i/start",
        "EnvironmentFile=/srv/shop/workers/mailer/%i/environment",
        "WorkingDirectory=/srv/shop/workers/mailer/%i/release",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "SyslogIdentifier=shop-mailer",
    } <= set(render("worker@.service.j2"))


def test_it_is_in_the_sandbox_of_the_web_instances() -> None:
    text = render("worker@.service.j2")
    web = Role("web", web_application="shop", __web_base="/srv/shop")
    sandbox = [line.strip() for line in web.render("sandbox.j2")]
    assert len(sandbox) > 20
    assert set(sandbox) <= set(text)


def test_it_has_its_time_and_its_memory() -> None:
    assert "TimeoutStopSec=600" in render("worker@.service.j2", __worker_stop_timeout=600)
    assert "MemoryMax=1G" in render("worker@.service.j2", __worker_memory_max="1G")
    assert not any(line.startswith("MemoryMax") for line in render("worker@.service.j2"))


def test_the_boot_unit_starts_and_stops_all() -> None:
    text = render("workers.service.j2")
    assert "ExecStart=/srv/shop/workers/start" in text
    assert "ExecStop=/bin/systemctl stop shop-worker-*@*.service" in text
    script = "\n".join(render("start.sh.j2"))
    assert '"shop-worker-${process%%/*}@${process#*/}.service"' in script
