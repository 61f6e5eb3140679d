# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that fits PostgreSQL to the disk that holds its data."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_disk
author: The Ascent founders (@ascent)
version_added: "0.1.0"
short_description: Fit PostgreSQL to the size and the kind of a disk
description:
  - Computes the settings of PostgreSQL that depend on the disk of its data. Each rule and its
    source stand in the code beside it.
positional: _input, kind
options:
  _input:
    description: Size of the file system that holds the data and the WAL, in MiB (at least 1024).
    type: int
    required: true
  kind:
    description: What the disk is. All current EBS volumes but C(st1) and C(sc1) are C(ssd).
    type: str
    choices: [ssd, hdd]
    default: ssd
"""

EXAMPLES = r"""
- name: Show the settings for a volume of 20 GiB
  ansible.builtin.debug:
    msg: "{{ 20480 | ascent.scaling.postgresql_disk }}"
"""

RETURN = r"""
_value:
  description: Settings by name, as postgresql.conf takes them.
  type: dict
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError

MINIMUM_DISK_MB = 1024
_KINDS: dict[str, dict[str, str | int | float]] = {
    # The manual, 19.7.2: random_page_cost is 4 for disks that seek; storage with a low random read
    # cost, such as solid-state drives, is modelled with 1.1. 19.4.5: SSDs take hundreds of requests
    # at a time, so "the best value might be in the hundreds"; a disk that seeks takes its spindles.
    "ssd": {"random_page_cost": 1.1, "effective_io_concurrency": 200},
    "hdd": {"random_page_cost": 4, "effective_io_concurrency": 2},
}


def disk(disk_mb: int, kind: str = "ssd") -> dict[str, str | int | float]:
    """Return PostgreSQL settings for a disk of ``disk_mb`` MiB.

    Raises ValueError for a disk below 1 GiB, or another kind than ssd and hdd.
    """
    if disk_mb < MINIMUM_DISK_MB:
        raise ValueError(f"PostgreSQL needs a disk of {MINIMUM_DISK_MB} MiB or more, not {disk_mb}")
    if kind not in _KINDS:
        raise ValueError(f"the kind of a disk is {' or '.join(_KINDS)}, not {kind}")
    # The manual, 30.5 and 19.5.2: max_wal_size sets how far apart checkpoints are; it is a soft
    # limit. A tenth of the disk, no less than the default of 1 GB where there is room, and no more
    # than what is replayed within minutes after a crash.
    max_wal = min(16384, max(min(1024, disk_mb // 4), disk_mb // 10)) // 64 * 64
    # 19.6.1: the WAL that a slot may keep is on top of that. A fifth of the disk, so that a reader
    # that is gone cannot fill it.
    kept = max(256, disk_mb // 5 // 64 * 64)
    return {
        **_KINDS[kind],
        "max_wal_size": f"{max_wal}MB",
        # What is kept for reuse between checkpoints: a quarter of the above, so that a burst after
        # a quiet night does not create its files anew.
        "min_wal_size": f"{max(80, max_wal // 4)}MB",
        "max_slot_wal_keep_size": f"{kept}MB",
    }


def postgresql_disk(disk_mb: int | str, kind: str = "ssd") -> dict[str, str | int | float]:
    """Return :func:`disk` of what Ansible's templates hand over, with errors as it expects."""
    try:
        return disk(int(disk_mb), kind)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"postgresql_disk: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, str | int | float]]]:
        """Return the filters by name."""
        return {"postgresql_disk": postgresql_disk}
