"""wrk as customers of the reference shop: a load generator of the field, over kept connections."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.probe import post_json

# Each thread of wrk has a Lua state of its own; an order has a key that nobody had before.
SHOPPER = """
local token, host, pause = os.getenv("TOKEN"), os.getenv("SHOP"), tonumber(os.getenv("PAUSE"))
local count, thread = 0, 0
function setup(thread_) thread = thread + 1; thread_:set("number", thread) end
function delay() return math.random(0, 2 * pause) end
function request()
  count = count + 1
  if count % 10 < 3 then
    return wrk.format("POST", "/api/orders", {
      ["Host"] = host, ["Content-Type"] = "application/json",
      ["Authorization"] = "Bearer " .. token,
      ["Idempotency-Key"] = string.format("wrk-%s-%d-%d", token:sub(-8), number, count)
    }, string.format('{"items": [{"product_id": %d, "quantity": 1}]}', count % 12 + 1))
  end
  return wrk.format("GET", count % 2 == 0 and "/" or "/api/products/1", {["Host"] = host})
end
function done(summary, latency)
  io.write(string.format(
    'FIGURES {"requests": %d, "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, '
    .. '"median_ms": %.1f, "slowest_ms": %.1f}\\n', summary.requests, summary.errors.status,
    summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.timeout,
    latency:percentile(50) / 1000, latency.max / 1000))
end
"""


class Shoppers:
    """wrk with keep-alive connections to an address, three requests of ten an order, until its end.

    users: connections. pause: ms on average between two requests of one.
    """

    def __init__(self, address: str, domain: str, users: int, pause: int) -> None:
        status, answer = post_json(address, "/api/guests", {}, host=domain)
        assert status == 201, answer
        self.folder = Path(tempfile.mkdtemp(prefix="ascent-wrk-"))
        script = self.folder / "shopper.lua"
        script.write_text(SHOPPER)
        self.process = subprocess.Popen(
            [
                *("wrk", "--threads", "2", "--connections", str(users), "--duration", "2h"),
                *("--timeout", "30s", "--script", str(script), f"https://{address}/"),
            ],
            env={"TOKEN": answer["token"], "SHOP": domain, "PAUSE": str(pause), "PATH": "/usr/bin"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> dict[str, Any]:
        """Stop it; what it has counted: requests, errors by kind, and milliseconds."""
        self.process.send_signal(signal.SIGINT)  # it reports when it is interrupted
        said, _ = self.process.communicate(timeout=60)
        shutil.rmtree(self.folder)
        figures: dict[str, Any] = json.loads(re.findall(r"FIGURES (.*)", said)[0])
        return figures
