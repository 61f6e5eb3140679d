"""The smallest application that can show what the role promises."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with what the application sees."""
    path = environ["PATH_INFO"]
    query = {key: value[0] for key, value in parse_qs(environ["QUERY_STRING"]).items()}
    status, told = "200 OK", {"release": os.environ["RELEASE"], "colour": os.environ["COLOUR"]}
    if path == "/health/ready" and os.environ.get("HEALTH") == "bad":
        status, told = "503 Service Unavailable", {"why": "the test wants it unhealthy"}
    elif path == "/slow":
        time.sleep(float(query["seconds"]))
    elif path == "/crash":
        os.kill(os.getppid(), signal.SIGKILL)
    elif path == "/write":
        try:
            Path(query["path"]).write_text("written\n")
            told["wrote"] = query["path"]
        except OSError as error:
            told["refused"] = str(error)
    elif path == "/headers":
        told |= {key: value for key, value in environ.items() if key.startswith("HTTP_")}
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    told["length"] = len(body)
    answer = json.dumps(told).encode()
    start_response(
        status, [("Content-Type", "application/json"), ("Referrer-Policy", "no-referrer")]
    )
    return [answer]
