"""A cache that may be lost at any time: every failure is a miss."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

TIMEOUT = 0.25  # seconds
REST = 2.0  # seconds without asking, after a failure: a dead cache must not slow each request


class Cache:
    """JSON values with a time to live in Valkey or Redis; does nothing without a URL."""

    def __init__(self, url: str | None, prefix: str) -> None:
        self.prefix = prefix
        self.url = url
        self._resting_until = 0.0
        self._client: redis.Redis | None = None

    def _connected(self) -> redis.Redis | None:
        if self.url is None or time.monotonic() < self._resting_until:
            return None
        if self._client is None:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            self._client = redis.Redis.from_url(
                self.url,
                protocol=2,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                # Once again at once: the kept connection may be older than the server.
                retry=Retry(NoBackoff(), 1),
            )
        return self._client

    def _failed(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + REST
        log.warning("cache %s: going on without it: %s", self.prefix, error)

    def get(self, key: str) -> Any:
        """The value, or None when there is none or the cache cannot say."""
        client = self._connected()
        if client is None:
            return None
        try:
            found = client.get(self.prefix + key)
            return None if found is None else json.loads(found)  # type: ignore[arg-type]
        except Exception as error:  # whatever a cache does, it is a miss
            self._failed(error)
            return None

    def set(self, key: str, value: Any, seconds: int) -> None:
        client = self._connected()
        if client is None:
            return
        try:
            client.set(self.prefix + key, json.dumps(value), ex=seconds)
        except Exception as error:
            self._failed(error)

    def delete(self, *keys: str) -> None:
        client = self._connected()
        if client is None:
            return
        try:
            client.delete(*(self.prefix + key for key in keys))
        except Exception as error:
            self._failed(error)

    def check(self) -> str:
        """'ok', 'off' (none configured) or 'away'."""
        if self.url is None:
            return "off"
        client = self._connected()
        if client is None:
            return "away"
        try:
            client.ping()
        except Exception as error:
            self._failed(error)
            return "away"
        return "ok"
