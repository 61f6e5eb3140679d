# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that sizes PostgreSQL for the memory and the processors that it may use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_sizing
author: The Ascent founders (@ascent)
version_added: "0.1.0"
short_description: Size PostgreSQL for the memory and processors of a host
description:
  - Computes the settings of PostgreSQL that depend on the host. Each rule and its source stand
    in the code beside it.
positional: _input, cpus, max_connections
options:
  _input:
    description: Memory that PostgreSQL may count on, in MiB (at least 256).
    type: int
    required: true
  cpus:
    description: Number of processors.
    type: int
    required: true
  max_connections:
    description: The C(max_connections) that the sizes must allow for.
    type: int
    default: 100
"""

EXAMPLES = r"""
- name: Show the sizes for half of the host
  ansible.builtin.debug:
    msg: >-
      {{ (ansible_facts['memtotal_mb'] * 0.5) | int
         | ascent.scaling.postgresql_sizing(ansible_facts['processor_vcpus']) }}
"""

RETURN = r"""
_value:
  description: Names of settings with their values, as C(postgresql.conf) takes them.
  type: dict
  sample: {shared_buffers: 512MB, effective_cache_size: 1024MB}
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError

MINIMUM_MEMORY_MB = 256
# Workers for subscriptions (apply and table sync) that a move of data needs at once.
LOGICAL_WORKERS = 8


def sizing(memory_mb: int, cpus: int, max_connections: int = 100) -> dict[str, str | int]:
    """Return PostgreSQL settings for ``memory_mb`` MiB and ``cpus`` processors.

    Raises ValueError for less memory than 256 MiB, or fewer than one processor or connection.
    """
    if memory_mb < MINIMUM_MEMORY_MB:
        raise ValueError(f"PostgreSQL needs {MINIMUM_MEMORY_MB} MiB or more, not {memory_mb}")
    if cpus < 1 or max_connections < 1:
        raise ValueError(
            f"the numbers of processors ({cpus}) and connections ({max_connections}) must be 1"
            " or more"
        )
    # The manual, 19.4.1: "a reasonable starting value for shared_buffers is 25% of the memory".
    # Down to a multiple of 16 MiB, so that a kernel update does not ask for a restart.
    shared_buffers = memory_mb // 4 // 16 * 16
    # The wiki's "Tuning Your PostgreSQL Server": half of the memory is the conservative setting.
    effective_cache_size = memory_mb // 2 // 16 * 16
    # The manual, 19.4.1: work_mem is per sort or hash, and a query runs several. As PgTune does:
    # what shared_buffers leaves, by three a connection. Never below PostgreSQL's default of 4 MB.
    work_mem = max(4, (memory_mb - shared_buffers) // (max_connections * 3))
    # The manual, 19.4.1: larger than work_mem, and times autovacuum_max_workers (3) at worst.
    # A sixteenth keeps three of them below a fifth; over 1 GiB a vacuum gains nothing before 17.
    maintenance_work_mem = min(1024, max(64, memory_mb // 16))
    # The manual, 19.4.5: parallel workers come out of max_worker_processes, which must hold the
    # logical replication workers too (19.6.4); four are left for the launcher and extensions.
    parallel = max(2, cpus)
    return {
        "shared_buffers": f"{shared_buffers}MB",
        "effective_cache_size": f"{effective_cache_size}MB",
        "work_mem": f"{work_mem}MB",
        "maintenance_work_mem": f"{maintenance_work_mem}MB",
        "max_worker_processes": parallel + LOGICAL_WORKERS + 4,
        "max_parallel_workers": parallel,
        # Short queries of a web application gain nothing from many workers: at most half.
        "max_parallel_workers_per_gather": min(4, cpus // 2),
        "max_logical_replication_workers": LOGICAL_WORKERS,
        "max_sync_workers_per_subscription": 4,
    }


def postgresql_sizing(
    memory_mb: int | str, cpus: int | str, max_connections: int | str = 100
) -> dict[str, str | int]:
    """Return :func:`sizing` of what Ansible's templates hand over, with errors as it expects."""
    try:
        return sizing(int(memory_mb), int(cpus), int(max_connections))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"postgresql_sizing: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, str | int]]]:
        """Return the filters by name."""
        return {"postgresql_sizing": postgresql_sizing}
