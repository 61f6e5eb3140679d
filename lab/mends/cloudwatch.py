"""Mends of CloudWatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.cloudwatch.models import Alarm


def alarms_begin_without_data() -> None:
    """A new alarm is OK at once in moto; on AWS it has INSUFFICIENT_DATA until it is evaluated."""
    original = Alarm.__init__

    def init(self: Any, *values: Any, **options: Any) -> None:
        original(self, *values, **options)
        self.state_value = "INSUFFICIENT_DATA"
        self.state_reason = "Unchecked: Initial alarm creation"

    Alarm.__init__ = init


MENDS: tuple[Callable[[], None], ...] = (alarms_begin_without_data,)
