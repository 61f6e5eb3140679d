"""The smallest ASGI application: it tells its release, and what it knows of the request."""

from __future__ import annotations

import json
import os
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] != "http":
        return
    told = {
        "release": os.environ["RELEASE"],
        "scheme": scope["scheme"],
        "client": (scope["client"] or [""])[0],
    }
    status = 503 if os.environ.get("HEALTH") == "bad" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
