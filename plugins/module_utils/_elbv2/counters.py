# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many requests a host has in flight, from what its web server or proxy tells (pure)."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence

STUB_STATUS = re.compile(r"Reading:\s*(\d+)\s+Writing:\s*(\d+)\s+Waiting:\s*(\d+)")
BACKEND, SERVER = "1", "2"


class CounterError(Exception):
    """A host did not tell how much it has in flight."""


def nginx(text: str, proxies: Sequence[str] = ()) -> int:
    """Return the requests in flight from the answer of nginx's stub_status.

    Reading and Writing are connections with a request, one of which is the question itself;
    Waiting are idle keep-alive connections, of which a load balancer holds many for long
    (ngx_http_stub_status_module). nginx counts for all its sites together.
    """
    found = STUB_STATUS.search(text)
    if not found:
        raise CounterError("the answer is none of nginx's stub_status")
    return max(0, int(found[1]) + int(found[2]) - 1)


def haproxy(text: str, proxies: Sequence[str] = ()) -> int:
    """Return the requests in flight from HAProxy's statistics as CSV.

    These are the current sessions and the queue of each backend that has servers, of `proxies` if
    any are named. The page that tells this has no server, so it does not count itself. The
    columns are found by their names (HAProxy Management Guide, 9.1 "CSV format").
    """
    lines = text.lstrip("\ufeff# ").splitlines()
    rows = list(csv.DictReader(lines))
    if not rows or not {"pxname", "scur", "qcur", "type"} <= set(rows[0]):
        raise CounterError("the answer is none of HAProxy's statistics as CSV; end the URL in ;csv")
    served = {row["pxname"] for row in rows if row["type"] == SERVER}
    missing = sorted(set(proxies) - served)
    if missing:
        raise CounterError(
            f"HAProxy has no backend {', '.join(missing)} with servers, only "
            f"{', '.join(sorted(served)) or 'none'}"
        )
    chosen = set(proxies) or served
    busy = [row for row in rows if row["type"] == BACKEND and row["pxname"] in chosen]
    return sum(int(row["scur"] or 0) + int(row["qcur"] or 0) for row in busy)


# A further check is a function here and a name among the module's choices.
COUNTERS: dict[str, Callable[[str, Sequence[str]], int]] = {"haproxy": haproxy, "nginx": nginx}
