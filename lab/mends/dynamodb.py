"""Mends of DynamoDB."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from moto.dynamodb.models.table import Table


def tables_have_ids() -> None:
    """DescribeTable leaves out TableId, which amazon.aws reads."""
    original = Table.describe

    def describe(self: Any, base_key: str = "TableDescription") -> dict[str, Any]:
        found: dict[str, Any] = original(self, base_key)
        found[base_key]["TableId"] = str(uuid.uuid5(uuid.NAMESPACE_URL, self.table_arn))
        return found

    Table.describe = describe


MENDS: tuple[Callable[[], None], ...] = (tables_have_ids,)
