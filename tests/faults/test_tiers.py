"""A tier fails under the eyes of customers: what they see, how long, and that nothing is lost.

Every case ends without hands: whoever mends the cause does not have to start anything.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.conftest import DOMAIN
from tests.support.customers import Customers
from tests.support.host import Host
from tests.support.probe import get, get_json

pytestmark = pytest.mark.lab

Shoppers = Callable[[], Customers]
Stored = Callable[[], set[int]]
Figure = Callable[[str], None]
DATA = "/var/lib/postgresql/*/main"


def nothing_is_lost(customers: Customers, stored: Stored) -> None:
    acknowledged = {number for _, number in customers.orders}
    assert acknowledged
    assert acknowledged - stored() == set(), str(customers)


def only_clear_answers(customers: Customers) -> None:
    """What was not served was a 503 that says when to come again."""
    assert set(customers.failures) <= {"503"}, str(customers)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, f"{what}: not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - begun


def test_a_stopped_database_gives_clear_answers_until_it_is_back(
    host: Host, box: str, shoppers: Shoppers, stored: Stored, figure: Figure
) -> None:
    with shoppers() as customers:
        customers.wait_for_orders(10, 20)
        host.run("systemctl stop 'postgresql@*'")
        stopped = customers.now
        status, headers, body = get(box, "/health/ready", host=DOMAIN)
        assert (status, headers["retry-after"], "unavailable" in body) == (503, "2", True)
        assert get(box, "/health/alive", host=DOMAIN)[0] == 200
        time.sleep(8)
        host.run("systemctl start postgresql")
        seconds = customers.wait_for_orders(3, 30)
        assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
        figure(f"{customers.now - stopped:.1f} s; orders again {seconds:.1f} s after its start")
    only_clear_answers(customers)
    assert customers.slowest < 10, "a customer waited for a database that was not there"
    nothing_is_lost(customers, stored)
    figure(str(customers))


@pytest.fixture
def small_disk(host: Host) -> Iterator[None]:
    """PostgreSQL's data on a disk with 64 MB of room, in the host's memory."""
    host.run(
        f"""set -e
        systemctl stop 'postgresql@*'
        data=$(echo {DATA})
        size=$(($(du -sm "$data" | cut -f1) + 64))m
        install -d /mnt/small
        mount -t tmpfs -o size=$size,mode=0700,uid=postgres,gid=postgres tmpfs /mnt/small
        cp -a "$data"/. /mnt/small/
        mount --bind /mnt/small "$data"
        systemctl start postgresql"""
    )
    yield
    host.run(
        f"""set -e
        systemctl stop postgresql 'postgresql@*'
        data=$(echo {DATA})
        rm -f "$data"/fill
        umount "$data"
        find "$data" -mindepth 1 -delete
        cp -a /mnt/small/. "$data"/
        umount /mnt/small
        systemctl start postgresql"""
    )


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_refuses_orders_and_takes_them_again_once_there_is_room(
    host: Host, box: str, shoppers: Shoppers, stored: Stored, figure: Figure
) -> None:
    """First the tables find no room, then the log of changes, which ends PostgreSQL."""
    log = "SELECT pg_logical_emit_message(true, 'fill', repeat('x', 30000000))"
    with shoppers() as customers:
        customers.wait_for_orders(10, 20)
        host.run(f"cd {DATA} && dd if=/dev/zero of=fill bs=1M; test -s fill")
        full = customers.now
        host.run(
            f"""for try in $(seq 20); do
                sudo -u postgres psql -qAtc "{log}" shop || break
            done
            grep -q 'PANIC:.*No space left' /var/log/postgresql/*.log"""
        )
        wait_until(lambda: get(box, "/health/ready", host=DOMAIN)[0] == 503, 20, "not ready")
        time.sleep(8)
        host.run(f"rm {DATA}/fill")
        room = customers.now
        seconds = customers.wait_for_orders(3, 60)
        assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
        figure(f"full for {room - full:.1f} s; orders again {seconds:.1f} s after there was room")
    only_clear_answers(customers)
    nothing_is_lost(customers, stored)
    figure(str(customers))


def test_a_lost_cache_costs_no_order(
    host: Host, box: str, shoppers: Shoppers, stored: Stored, figure: Figure
) -> None:
    unit = "$(systemctl list-units --plain --no-legend 'valkey*' 'redis*' | cut -d' ' -f1)"
    with shoppers() as customers:
        customers.wait_for_orders(10, 20)
        # Killed, it is back at once by itself; stopped, it stays away until someone starts it.
        host.run(f"systemctl kill --signal=KILL {unit}")
        customers.wait_for_orders(10, 20)
        units = host.run(f"units={unit}; systemctl stop $units; echo $units").strip()
        wait_until(
            lambda: get_json(box, "/health/ready", host=DOMAIN)["status"] == "degraded",
            10,
            "health does not tell",
        )
        customers.wait_for_orders(20, 20)
        host.run(f"systemctl start {units}")
        seconds = wait_until(
            lambda: get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready", 15, "ready"
        )
        figure(f"health whole {seconds:.1f} s after its start")
    assert not customers.failures, str(customers)
    nothing_is_lost(customers, stored)
    figure(f"{customers}, longest time without an order {customers.pause_of_orders():.1f} s")


@pytest.fixture
def limited(host: Host) -> Iterator[None]:
    """The unit's MemoryMax in force, where this machine's systemd cannot bring it about.

    Hosts of the lab have it from systemd on a machine with version 2 of the control groups, as on
    AWS. On one with version 1 the same limit is put upon the unit's processes from outside.
    """
    shown = host.run("systemctl show 'shop@*' -p MemoryMax -p MemoryCurrent")
    limit = next(line for line in shown.splitlines() if line.startswith("MemoryMax="))[10:]
    assert limit.isdigit(), f"the unit has no limit: {shown}"
    if "MemoryCurrent=[not set]" not in shown:
        yield
        return
    line = host.run("grep :memory: /proc/1/cgroup").strip()
    parent = f"/sys/fs/cgroup/memory{line.split(':', 2)[2]}"
    enter = f"""set -e
        mkdir -p {parent}/limited
        echo {limit} > {parent}/limited/memory.limit_in_bytes
        for pid in $(cat {parent}/cgroup.procs); do
            if tr '\\0' ' ' < /proc/$pid/cmdline | grep -q shop.wsgi; then
                echo $pid > {parent}/limited/cgroup.procs
            fi
        done
        grep -q . {parent}/limited/cgroup.procs"""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*root, "bash", "-c", enter], check=True, timeout=30)
    yield
    leave = f"""for pid in $(cat {parent}/limited/cgroup.procs); do
            echo $pid > {parent}/cgroup.procs
        done
        rmdir {parent}/limited"""
    subprocess.run([*root, "bash", "-c", leave], check=True, timeout=30)


@pytest.mark.usefixtures("limited")
def test_a_leak_ends_one_process_of_the_application_and_no_order(
    host: Host, box: str, shoppers: Shoppers, stored: Stored, figure: Figure
) -> None:
    pids = "pgrep -u shop -f shop.wsgi | sort"
    before = set(host.run(pids).split())
    database = host.run("pgrep -o -u postgres -f bin/postgres").strip()
    with shoppers() as customers:
        customers.wait_for_orders(10, 20)
        begun = customers.now
        for _ in range(40):
            with contextlib.suppress(OSError):
                get(box, "/leak", host=DOMAIN, seconds=5)
            if set(host.run(pids).split()) != before:
                break
        else:
            pytest.fail("40 leaks of 24 MB each, and nothing ended")
        ended = customers.now
        seconds = customers.wait_for_orders(20, 30)
        figure(
            f"ended after {ended - begun:.1f} s of leaks; 20 orders in the {seconds:.1f} s after"
        )
    assert get_json(box, "/health/ready", host=DOMAIN)["status"] == "ready"
    assert host.run("pgrep -o -u postgres -f bin/postgres").strip() == database
    # Requests that the killed process had in hand end so; nobody else's do.
    assert sum(customers.failures.values()) <= 8, str(customers)
    nothing_is_lost(customers, stored)
    figure(f"{customers}, longest time without an order {customers.pause_of_orders():.1f} s")
