#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack what a host has logged in a span of time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_logs
short_description: Pack what a host has logged in a span of time
version_added: 0.1.0
description:
  - Writes the journals of units, and lines of log files, of a span of time into one archive on the
    host, for M(ansible.builtin.fetch).
  - What is more than O(max_bytes) is left out of the biggest sources, the oldest lines first, and a
    first line says so.
  - Values of O(secrets), and passwords in URLs, are replaced by C((secret)).
options:
  archive:
    description: The archive to write, C(.tar.gz). Its folder must exist.
    type: path
    required: true
  since:
    description: Begin, seconds since 1970.
    type: float
    required: true
  until:
    description: End, seconds since 1970.
    type: float
    required: true
  units:
    description: Units of systemd, with wildcards. The kernel's messages always come along.
    type: list
    elements: str
    default: []
  files:
    description: Log files, with wildcards. Rotated ones that gzip has packed are read as well.
    type: list
    elements: str
    default: []
  facts:
    description: Texts to put in, by the name of the file.
    type: dict
    default: {}
  secrets:
    description: Values that must not be in the archive.
    type: list
    elements: str
    default: []
  max_bytes:
    description: The most that all sources may take, before it is packed.
    type: int
    default: 20000000
attributes:
  check_mode:
    description: Reads and counts, and writes nothing.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Pack the last hour's logs
  ascent.scaling.host_logs:
    archive: /run/logs.tar.gz
    since: "{{ now(utc=true).timestamp() - 3600 }}"
    until: "{{ now(utc=true).timestamp() }}"
    units: ["shop@*.service", nginx.service]
    files: [/var/log/nginx/*.log*]
    secrets: "{{ passwords }}"
  no_log: true
"""

RETURN = r"""
sources:
  description: The bytes of each file in the archive, by its name there.
  returned: always
  type: dict
  sample: {"journal/nginx.service.log": 1024}
shortened:
  description: The names of those that had more than their share.
  returned: always
  type: list
  elements: str
"""

import calendar
import gzip
import io
import re
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ascent.scaling.plugins.module_utils import process

# 2026-11-23T09:00:00, 2026-11-23 09:00:00 and nginx's 2026/11/23 09:00:00, all in UTC as the role
# `common` sets hosts up; an offset is taken into account.
STAMP = re.compile(
    rb"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:([+-])(\d\d):?(\d\d))?"
)
URL_PASSWORD = re.compile(rb"(\w+://[^\s:/@\"']*:)[^\s@/\"']+@")
HIDDEN = b"(secret)"


def moment(line: bytes) -> float | None:
    """Return the time at the start of a line, seconds since 1970; None without one."""
    match = STAMP.search(line[:200])
    if not match:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        seconds = float(calendar.timegm((year, month, day, hour, minute, second)))
    except (ValueError, OverflowError):
        return None
    if match[7]:
        offset = int(match[8]) * 3600 + int(match[9]) * 60
        seconds += -offset if match[7] == b"+" else offset
    return seconds


def within(lines: Iterable[bytes], since: float, until: float) -> Iterator[bytes]:
    """Return the lines of a span of time; one without a time belongs to the one before."""
    inside = False
    for line in lines:
        when = moment(line)
        if when is not None:
            inside = since <= when <= until
        if inside:
            yield line


def hide(line: bytes, secrets: list[bytes]) -> bytes:
    """Return a line without secrets."""
    for secret in secrets:
        line = line.replace(secret, HIDDEN)
    return URL_PASSWORD.sub(rb"\1" + HIDDEN + b"@", line)


def last(lines: Iterable[bytes], most: int) -> tuple[bytes, bool]:
    """Return the last lines that fit into `most` bytes, and whether some did not."""
    kept: deque[bytes] = deque()
    size = left = 0
    for line in lines:
        kept.append(line)
        size += len(line)
        while size > most and kept:
            gone = len(kept.popleft())
            size, left = size - gone, left + gone
    head = b"(%d bytes before this were left out)\n" % left if left else b""
    return head + b"".join(kept), left > 0


def journal(unit: str, since: float, until: float) -> Iterator[bytes]:
    """Return the journal of a unit, or of the kernel for `kernel`. Raises OSError."""
    choice = ["--dmesg"] if unit == "kernel" else ["--unit", unit]
    return process.lines_of(
        [
            *("journalctl", "--quiet", "--no-pager", "--utc", "--output=short-iso", *choice),
            *(f"--since=@{since:.0f}", f"--until=@{until:.0f}"),
        ]
    )


def read(path: Path, since: float, until: float) -> Iterator[bytes]:
    """Return the lines of a log file in a span of time."""
    return within(lines_of(path), since, until)


def lines_of(path: Path) -> Iterator[bytes]:
    """Return the lines of a log file, packed or not. Raises OSError."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        yield from file


def level(sizes: list[int], most: int) -> int:
    """Return the size to which each source is cut, so that all together have `most` bytes."""
    left, count = most, len(sizes)
    for size in sorted(sizes):
        if size * count > left:
            return left // count
        left, count = left - size, count - 1
    return max(sizes, default=0)


def sources(wish: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Iterable[bytes]]]]:
    """Return (name in the archive, what reads its lines) of everything that there is."""
    since, until = wish["since"], wish["until"]
    for unit in [*wish["units"], "kernel"]:
        name = f"journal/{unit.replace('*', 'all')}.log"
        yield name, partial(journal, unit, since, until)
    found = {path for pattern in wish["files"] for path in Path("/").glob(pattern.lstrip("/"))}
    for path in sorted(found):
        if path.is_file() and path.stat().st_mtime >= since:
            name = str(path).lstrip("/").removesuffix(".gz")
            yield f"files/{name}", partial(read, path, since, until)


def pack(wish: dict[str, Any], dry: bool) -> dict[str, Any]:
    """Return what the module returns. Raises OSError."""
    # Longest first, so that what a shorter one would leave of it cannot be read.
    secrets = sorted({s.encode() for s in wish["secrets"] if len(s) >= 6}, key=len, reverse=True)
    found = list(sources(wish))
    # Read twice, so that not more than asked for is ever held in memory.
    share = level([sum(map(len, lines())) for _, lines in found], wish["max_bytes"])
    texts: dict[str, bytes] = {}
    shortened = []
    for name, lines in found:
        text, cut = last((hide(line, secrets) for line in lines()), share)
        if text:
            texts[name] = text
        if cut:
            shortened.append(name)
    for name, fact in wish["facts"].items():
        texts[name] = hide(str(fact).encode(), secrets) + b"\n"
    if not dry:
        with tarfile.open(wish["archive"], "w:gz") as archive:
            for name, text in texts.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.mtime = len(text), 0o640, int(time.time())
                archive.addfile(info, io.BytesIO(text))
        Path(wish["archive"]).chmod(0o600)
    return {
        "changed": not dry,
        "sources": {name: len(text) for name, text in texts.items()},
        "shortened": sorted(shortened),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "since": {"type": "float", "required": True},
            "until": {"type": "float", "required": True},
            "units": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
            "facts": {"type": "dict", "default": {}},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "max_bytes": {"type": "int", "default": 20_000_000},
        },
        supports_check_mode=True,
    )
    try:
        result = pack(module.params, module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"the logs could not be packed: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
