"""Errors on purpose: AWS throttles and fails, and tests must be able to ask for it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from lab.errors import LabError

# What AWS answers with, by code (EC2 API reference, "Error codes"; others answer alike).
_STATUS = {
    "InternalError": 500,
    "InternalFailure": 500,
    "InternalServerError": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "Unavailable": 503,
}


@dataclass(frozen=True)
class Fault:
    """Answer calls with an error: the next `count` ones, or a share `rate` of all."""

    code: str
    service: str = "*"
    action: str = "*"
    count: int | None = None
    rate: float = 1.0
    status: int = 0

    @classmethod
    def of(cls, data: dict[str, Any]) -> Fault:
        """Read what a test sent. Raises LabError."""
        try:
            fault = cls(**data)
            count = None if fault.count is None else int(fault.count)
            rate = float(fault.rate)
        except (TypeError, ValueError) as error:
            raise LabError(f"no fault: {error}") from error
        if not fault.code or not 0 <= rate <= 1 or (count is not None and count < 1):
            raise LabError("a fault has a code, a rate from 0 to 1, and a count of 1 or more")
        status = fault.status or _STATUS.get(fault.code, 400)
        return replace(fault, count=count, rate=rate, status=status)

    def concerns(self, service: str, action: str) -> bool:
        """Say whether a call is meant."""
        return self.service in ("*", service) and self.action in ("*", action)


class Faults:
    """The faults that are armed."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._armed: list[Fault] = []
        self._lock = threading.Lock()

    def arm(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._armed.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed.clear()

    def armed(self) -> list[dict[str, Any]]:
        """List the faults that are left."""
        with self._lock:
            return [asdict(fault) for fault in self._armed]

    def strike(self, service: str, action: str) -> Fault | None:
        """Return the fault that this call meets, if any, and count it."""
        with self._lock:
            for index, fault in enumerate(self._armed):
                if not fault.concerns(service, action) or self._chance() >= fault.rate:
                    continue
                if fault.count is not None:
                    if fault.count == 1:
                        del self._armed[index]
                    else:
                        self._armed[index] = replace(fault, count=fault.count - 1)
                return fault
        return None
