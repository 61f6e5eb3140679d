"""Mends of S3."""

from __future__ import annotations

import json
from typing import Any

from moto.s3.models import FakeBucket

from lab.mends._replace import Mend, replace

_PLAIN = {"aws:SecureTransport": "false"}


def policies_against_plain_http_let_the_rest_in() -> None:
    """A bucket's policy is judged without its conditions: what refuses plain HTTP refuses all.

    Hosts come by TLS; the endpoint for operators stands for AWS's own, which are TLS as well.
    """

    def mended(original: Any) -> Any:
        def get_permission(self: Any, action: str, resource: str) -> Any:
            whole = self.policy
            if whole is None:
                return original(self, action, resource)
            document = json.loads(whole)
            statements = document["Statement"]
            listed = statements if isinstance(statements, list) else [statements]
            document["Statement"] = [s for s in listed if not _only_plain(s)]
            self.policy = json.dumps(document).encode()
            try:
                return original(self, action, resource)
            finally:
                self.policy = whole

        return get_permission

    replace(FakeBucket, "get_permission", mended)


def _only_plain(statement: dict[str, Any]) -> bool:
    condition = statement.get("Condition", {}).get("Bool", {})
    return {key: str(value).lower() for key, value in condition.items()} == _PLAIN


MENDS: tuple[Mend, ...] = (policies_against_plain_http_let_the_rest_in,)
