"""The filter postgresql_sizing, as a table over sizes of EC2 instances."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.postgresql_sizing import postgresql_sizing, sizing


def megabytes(value: str | int) -> int:
    assert isinstance(value, str)
    assert value.endswith("MB")
    return int(value.removesuffix("MB"))


@pytest.mark.parametrize(
    ("memory", "cpus", "connections", "expected"),
    [
        pytest.param(
            1024,
            2,
            100,
            {
                "shared_buffers": "256MB",
                "effective_cache_size": "512MB",
                "work_mem": "4MB",
                "maintenance_work_mem": "64MB",
                "max_worker_processes": 14,
                "max_parallel_workers": 2,
                "max_parallel_workers_per_gather": 1,
                "max_logical_replication_workers": 8,
                "max_sync_workers_per_subscription": 4,
            },
            id="half of a t3.small",
        ),
        pytest.param(
            32768,
            8,
            200,
            {
                "shared_buffers": "8192MB",
                "effective_cache_size": "16384MB",
                "work_mem": "40MB",
                "maintenance_work_mem": "1024MB",
                "max_worker_processes": 20,
                "max_parallel_workers": 8,
                "max_parallel_workers_per_gather": 4,
                "max_logical_replication_workers": 8,
                "max_sync_workers_per_subscription": 4,
            },
            id="an m5.2xlarge",
        ),
        pytest.param(
            256,
            1,
            100,
            {
                "shared_buffers": "64MB",
                "effective_cache_size": "128MB",
                "work_mem": "4MB",
                "maintenance_work_mem": "64MB",
                "max_worker_processes": 14,
                "max_parallel_workers": 2,
                "max_parallel_workers_per_gather": 0,
                "max_logical_replication_workers": 8,
                "max_sync_workers_per_subscription": 4,
            },
            id="the least",
        ),
    ],
)
def test_sizes(memory, cpus, connections, expected):
    assert sizing(memory, cpus, connections) == expected


@pytest.mark.parametrize("memory", [512, 1000, 2048, 8000, 65536])
@pytest.mark.parametrize("connections", [20, 100, 500])
def test_what_must_hold_for_every_size(memory, connections):
    sizes = sizing(memory, 4, connections)
    shared, work = megabytes(sizes["shared_buffers"]), megabytes(sizes["work_mem"])
    assert shared <= memory // 4
    assert shared % 16 == 0
    assert shared <= megabytes(sizes["effective_cache_size"]) <= memory // 2
    # A third of the connections sort once each within what shared_buffers leaves, unless
    # PostgreSQL's own least is what counts.
    assert work == 4 or shared + work * connections * 3 <= memory
    assert int(sizes["max_worker_processes"]) > (
        int(sizes["max_parallel_workers"]) + int(sizes["max_logical_replication_workers"])
    )


def test_a_little_more_memory_asks_for_no_restart():
    assert sizing(1024, 2)["shared_buffers"] == sizing(1024 + 40, 2)["shared_buffers"]


def test_numbers_may_come_as_text():
    assert postgresql_sizing("1024", "2", "100") == sizing(1024, 2, 100)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((255, 2, 100), "256 MiB or more, not 255"),
        ((1024, 0, 100), "must be 1 or more"),
        ((1024, 2, 0), "must be 1 or more"),
        (("much", 2, 100), "invalid literal"),
    ],
)
def test_bad_input_is_refused(arguments, reason):
    with pytest.raises(AnsibleFilterError, match=reason):
        postgresql_sizing(*arguments)
