"""Mends of CloudWatch."""

from __future__ import annotations

from typing import Any

from moto.cloudwatch.models import Alarm

from lab.mends._replace import Mend, replace


def alarms_begin_without_data() -> None:
    """A new alarm is OK at once in moto; on AWS it has INSUFFICIENT_DATA until it is evaluated."""

    def mended(original: Any) -> Any:
        def init(self: Any, *values: Any, **options: Any) -> None:
            original(self, *values, **options)
            self.state_value = "INSUFFICIENT_DATA"
            self.state_reason = "Unchecked: Initial alarm creation"

        return init

    replace(Alarm, "__init__", mended)


MENDS: tuple[Mend, ...] = (alarms_begin_without_data,)
