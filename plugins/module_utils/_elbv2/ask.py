# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks hosts how many requests they have in flight, over HTTP, all at the same time."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.counters import (
    COUNTERS,
    CounterError,
)
from ansible_collections.ascent.scaling.plugins.module_utils._elbv2.model import TargetError

AT_ONCE = 20
MOST_BYTES = 4_000_000


@dataclass(frozen=True)
class Question:
    """What hosts are asked: the counter, and the URL with {address} in it."""

    check: str
    url: str
    proxies: Sequence[str] = ()
    username: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 5.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url.replace("{address}", "host"))
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise TargetError(
                f"the URL of the drain's check {self.check} is 'http://{{address}}:8080/path' or "
                "the like, without a password in it (that is what username and password are for). "
                "Nothing was changed"
            )
        if "{address}" not in self.url:
            raise TargetError(
                f"the URL {self.url} of the drain's check {self.check} has no {{address}}, so that "
                "every host would be asked at the same place. Nothing was changed"
            )

    def ask(self, address: str) -> int:
        """Return the requests in flight at one host. Raises CounterError."""
        written = f"[{address}]" if ":" in address else address
        url = self.url.replace("{address}", written)
        parts = urlsplit(url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        headers = {}
        if self.username:
            secret = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {secret}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            text = response.read(MOST_BYTES).decode("utf-8", "replace")
            if response.status != 200:
                raise CounterError(f"{url} answers {response.status} {response.reason}")
            count: int = COUNTERS[self.check](text, self.proxies)
            return count
        except (OSError, http.client.HTTPException) as error:
            raise CounterError(f"{url}: {type(error).__name__}: {error}") from error
        except ValueError as error:
            raise CounterError(f"{url}: the answer cannot be read: {error}") from error
        except CounterError as error:
            raise CounterError(str(error) if url in str(error) else f"{url}: {error}") from error
        finally:
            connection.close()


def asker(
    question: Question, addresses: Mapping[str, str]
) -> Callable[[Iterable[str]], dict[str, int | str]]:
    """Return what asks hosts, given by id, at their addresses; a text is why one does not tell."""

    def one(host: str) -> int | str:
        if not addresses.get(host):
            return "its address is not known: give it, or leave describe_instances on"
        try:
            return question.ask(addresses[host])
        except CounterError as error:
            return str(error)

    def ask(hosts: Iterable[str]) -> dict[str, int | str]:
        names = list(hosts)
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            return dict(zip(names, pool.map(one, names), strict=True))

    return ask
