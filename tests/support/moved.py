"""A move of the reference shop's database while customers shop, and what it leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.customers import Customers
from tests.support.home import BUILD
from tests.support.host import Host
from tests.support.lab import TestLab
from tests.support.playbook import Run, play, succeed


@dataclass(frozen=True)
class Moved:
    """What a run that moved the database left: its report, and what customers saw meanwhile."""

    customers: Customers
    report: dict[str, Any]
    run: Run

    def lost_nothing(self, stored: set[str]) -> None:
        """No request failed, and every acknowledged order is among those that are stored."""
        assert not self.customers.failures, str(self.customers)
        assert len(self.customers.orders) > 100, str(self.customers)
        assert {str(order) for _, order in self.customers.orders} <= stored
        assert self.report["pause_ms"] < 2000
        assert self.report["verification"]["clean"]


def public_address(lab: TestLab, host: str) -> str:
    """The Elastic IP of a host of the environment."""
    filters = [{"Name": "tag:ascent:name", "Values": [host]}]
    (found,) = lab.client("ec2").describe_addresses(Filters=filters)["Addresses"]
    return str(found["PublicIp"])


def host(lab: TestLab, name: str) -> Host:
    return Host(public_address(lab, name), BUILD / "ssh" / "id_ed25519")


def ask(server: Host, statement: str, database: str = "shop") -> str:
    """The answer of a host's own PostgreSQL, asked by its superuser."""
    return server.run(
        f"runuser -u postgres -- psql -XAtq -d {database}", data=statement, check=False
    ).strip()


def as_the_application(box: Host, statement: str, port: int = 0) -> str:
    """The answer to the application's login: through the pooler, or at a port of the box itself."""
    other = f"url=$(echo $url | sed 's|:6432/main|:{port}/shop|');" if port else ""
    return box.run(
        f". /etc/shop/environment; url=$DATABASE_URL; {other} psql -XAtq $url",
        data=statement,
        check=False,
    ).strip()


def reports() -> set[Path]:
    return set((BUILD / "moves").glob("*.json"))


def under_customers(
    lab: TestLab, domain: str, playbook: str, *arguments: str, kill_at: str | None = None
) -> Moved:
    """Run a playbook that moves the database while customers shop; killed once before, if told."""
    before = reports()
    with Customers(public_address(lab, "box"), domain) as customers:
        if kill_at:
            killed = play(lab, playbook, *arguments, kill_at=kill_at)
            assert killed.killed_at, killed.tail()
        run = succeed(lab, playbook, *arguments)
    written = [json.loads(path.read_text()) for path in sorted(reports() - before)]
    (report,) = [report for report in written if report["pause_ms"]]
    return Moved(customers, report, run)
