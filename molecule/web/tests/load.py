"""Keep-alive clients that GET and POST until a file appears; prints what they saw as JSON.

Runs on the host with nothing but Python: load.py SECONDS STOP_FILE HOST
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from pathlib import Path

CLIENTS, PAUSE = 6, 0.05
seconds, stop, host = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
deadline = time.monotonic() + seconds
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
lock = threading.Lock()
seen: dict[str, list[str] | int] = {"requests": 0, "failed": [], "releases": [], "connections": 0}


def client() -> None:
    """One client: a connection is only replaced when it failed."""
    connection, count = None, 0
    while time.monotonic() < deadline and not stop.exists():
        count += 1
        failure, release = "", ""
        try:
            if connection is None:
                connection = http.client.HTTPSConnection("127.0.0.1", timeout=30, context=context)
                with lock:
                    seen["connections"] += 1
            if count % 3:
                connection.request("GET", "/", headers={"Host": host})
            else:
                connection.request("POST", "/", body=b"x" * 20000, headers={"Host": host})
            response = connection.getresponse()
            told = response.read()
            if response.status == 200:
                answer = json.loads(told)
                release = f"{answer['release']} {answer['colour']}"
                if not count % 3 and answer["length"] != 20000:
                    failure = f"body of {answer['length']}"
            else:
                failure = f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            failure, connection = f"{type(error).__name__}: {error}", None
        with lock:
            seen["requests"] += 1
            if failure:
                seen["failed"].append(failure)
            elif release not in seen["releases"]:
                seen["releases"].append(release)
        time.sleep(PAUSE)


threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen))
