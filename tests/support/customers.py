"""Customers of the reference shop: they look and order, and remember what was acknowledged."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.support.probe import post_json, request

PRODUCTS = 12


@dataclass
class Customers:
    """Customers in threads, each with a new connection a request, until the block ends.

    orders: ids that were acknowledged, in time. failures: status or error of what was not served,
    a 503 with Retry-After apart from one without. Times are seconds since the block began.
    """

    address: str
    host: str
    customers: int = 3
    pause: float = 0.1
    requests: int = 0
    orders: list[tuple[float, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    refused: list[float] = field(default_factory=list)
    slowest: float = 0.0

    def __enter__(self) -> Customers:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.started = time.monotonic()
        status, answer = post_json(self.address, "/api/guests", {}, host=self.host)
        assert status == 201, answer
        self.token = str(answer["token"])
        self._threads = [
            threading.Thread(target=self._shop, args=(number,), daemon=True)
            for number in range(self.customers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=40)

    @property
    def now(self) -> float:
        return time.monotonic() - self.started

    def order(self, key: str, product: int = 1) -> tuple[int, dict[str, str], Any]:
        status, headers, body = request(
            "POST",
            self.address,
            "/api/orders",
            host=self.host,
            seconds=30,
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.token}",
                "Idempotency-Key": key,
            },
            body=json.dumps({"items": [{"product_id": product, "quantity": 1}]}),
        )
        return status, headers, json.loads(body) if status in (200, 201) else body

    def wait_for_orders(self, count: int, seconds: float) -> float:
        """Seconds until `count` more orders are acknowledged; fails after `seconds`."""
        begun, seen = time.monotonic(), len(self.orders)
        while len(self.orders) < seen + count:
            assert time.monotonic() < begun + seconds, f"no {count} orders in {seconds} s: {self}"
            time.sleep(0.02)
        return time.monotonic() - begun

    def pause_of_orders(self) -> float:
        """The longest time without an acknowledged order."""
        times = [moment for moment, _ in sorted(self.orders)]
        return max(later - sooner for sooner, later in itertools.pairwise(times))

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {sum(self.failures.values())} failed "
            f"{dict(self.failures)}, {len(self.orders)} orders, slowest answer {self.slowest:.1f} s"
        )

    def _shop(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            begun = time.monotonic()
            cause = ""
            try:
                if count % 3:
                    status, headers, answer = self.order(
                        f"customer-{number}-{count}-{time.time_ns()}", 1 + count % PRODUCTS
                    )
                else:
                    status, headers, answer = request(
                        "GET", self.address, "/", host=self.host, seconds=30
                    )
                if status >= 400:
                    wait = (
                        "" if status != 503 or "retry-after" in headers else " without Retry-After"
                    )
                    cause = f"{status}{wait}"
            except (OSError, http.client.HTTPException) as error:
                status, cause = 0, type(error).__name__
            with self._lock:
                self.requests += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
                if cause:
                    self.failures[cause] += 1
                    self.refused.append(self.now)
                elif status == 201:
                    self.orders.append((self.now, int(answer["order"]["id"])))
            self._stop.wait(self.pause)
