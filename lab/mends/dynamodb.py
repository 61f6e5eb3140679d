"""Mends of DynamoDB."""

from __future__ import annotations

import uuid
from typing import Any

from moto.dynamodb.models.table import Table

from lab.mends._replace import Mend, replace


def tables_have_ids() -> None:
    """DescribeTable leaves out TableId, which amazon.aws reads."""

    def mended(original: Any) -> Any:
        def describe(self: Any, base_key: str = "TableDescription") -> dict[str, Any]:
            found: dict[str, Any] = original(self, base_key)
            found[base_key]["TableId"] = str(uuid.uuid5(uuid.NAMESPACE_URL, self.table_arn))
            return found

        return describe

    replace(Table, "describe", mended)


MENDS: tuple[Mend, ...] = (tables_have_ids,)
