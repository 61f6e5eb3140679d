"""AWS for tests that need no host: moto's server, and the lab's RDS without a database behind it.

moto's own RDS knows no parameters of a new group, and forgets that there are Performance Insights.

  python -m tests.support.aws_server PORT
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from moto.ec2.models import EC2Backend
from moto.server import main

from lab import rds
from lab.engine import Engine
from lab.hosts import Event, Order
from lab.parameters import catalogue

SETTING: dict[str, Any] = {
    "name": "log_min_duration_statement",
    "context": "superuser",
    "vartype": "integer",
    "short_desc": "Logs slow statements.",
    "min_val": "-1",
    "max_val": "2147483647",
    "enumvals": None,
}
SOON = 0.2
BECOMES = {Order.TERMINATE: Event.TERMINATED, Order.STOP: Event.STOPPED}


class Nothing:
    """The physical layer of RDS, in which everything succeeds a moment later."""

    engine = Engine("postgres:1", "17.6", catalogue([SETTING]))

    def addresses(self) -> set[str]:
        return set()

    def launch(self, instance: Any, sql: str, source: rds.Source | None) -> None:
        self._happens(instance, Event.RUNNING)

    def order(self, instance: Any, order: Order, sql: str = "") -> None:
        self._happens(instance, BECOMES.get(order, Event.RUNNING))

    def reload(self, instance: Any, done: rds.Done) -> None:
        threading.Timer(SOON, done, [""]).start()

    def run_sql(self, instance: Any, sql: str, done: rds.Done) -> None:
        threading.Timer(SOON, done, [""]).start()

    def back_up(self, instance: Any, name: str, done: rds.Done) -> None:
        threading.Timer(SOON, done, [""]).start()

    def remove_backup(self, name: str) -> None:
        pass

    def remove_archive(self, name: str) -> None:
        pass

    def restorable(self, archive: str) -> Any:
        return None

    def pair(self, instance: Any) -> None:
        def report(backend: Any) -> None:
            if not instance.standby:
                backend.add_standby(instance)
            backend.secured(instance)

        self._soon(instance, report)

    def fail_over(self, instance: Any) -> None:
        self._soon(instance, lambda backend: backend.failed_over(instance))

    def remove(self, server: rds.Server) -> None:
        found = next(i for _, i in rds.instances() if server in i.servers)
        self._soon(found, lambda backend: backend.gone(found, server.key))

    def _happens(self, instance: Any, event: Event) -> None:
        self._soon(instance, lambda backend: backend.happened(instance, event, ""))

    def _soon(self, instance: Any, report: Callable[[Any], None]) -> None:
        def call() -> None:
            for backend, standing in list(rds.instances()):
                if standing is instance:
                    report(backend)

        threading.Timer(SOON, call).start()


if __name__ == "__main__":
    nothing = Nothing()
    rds.install(nothing)
    # Asked for the addresses that hosts have taken.
    EC2Backend.physics = nothing  # type: ignore[attr-defined]
    main(["-p", sys.argv[1]])
