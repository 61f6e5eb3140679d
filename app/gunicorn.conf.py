"""Gunicorn's settings: found by itself when gunicorn starts in this directory."""

from __future__ import annotations

import os
import secrets
from typing import Any

_shm = "/dev/shm"  # noqa: S108 (a directory for heartbeats, not a file of a known name)

if os.environ.get("SOCKET"):
    bind = "unix:" + os.environ["SOCKET"]
else:
    bind = os.environ.get("HOST", "127.0.0.1") + ":" + os.environ.get("PORT", "8000")

worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or max(2, os.cpu_count() or 1))
threads = int(os.environ.get("WEB_THREADS") or 8)

# A worker that finishes its requests within this time is never cut off.
graceful_timeout = 30
timeout = 60
keepalive = 5

# The heartbeat is a file: in memory it never waits for a disk.
worker_tmp_dir = _shm if os.access(_shm, os.W_OK) else None
control_socket_disable = True

# The application writes one line a request itself (shop/log.py).
accesslog = None
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "shop.log.JsonFormatter"}},
    "handlers": {
        "out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}
    },
    "root": {"level": "INFO", "handlers": ["out"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["out"], "propagate": False},
        "gunicorn.access": {"level": "ERROR", "handlers": [], "propagate": False},
    },
}

# By hand and without a key, all workers must at least agree on one.
_key_is_temporary = not os.environ.get("SECRET_KEY")
if _key_is_temporary:
    os.environ["SECRET_KEY"] = secrets.token_hex(32)


def when_ready(server: Any) -> None:
    """Say what a run by hand lacks, once and not for each worker."""
    if _key_is_temporary:
        server.log.warning("SECRET_KEY is not set: visitors are logged out at each restart")
