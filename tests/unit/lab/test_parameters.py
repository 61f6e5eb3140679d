"""Parameters: which there are, what they may be, and what the server runs with."""

from __future__ import annotations

import pytest

from lab.parameters import ParameterError, check, differing, effective, evaluate
from tests.unit.lab.conftest import ENGINE

KNOWN = ENGINE.parameters
GIB = 2**30


def test_the_list_is_the_servers_and_rds_own() -> None:
    assert "work_mem" in KNOWN
    assert "timezone" in KNOWN, "RDS writes names in small letters"
    assert "block_size" not in KNOWN, "it cannot be set at all"
    assert KNOWN["rds.logical_replication"].apply_type == "static"
    assert KNOWN["rds.force_ssl"].apply_type == "dynamic"
    assert KNOWN["max_connections"].apply_type == "static"
    assert KNOWN["work_mem"].apply_type == "dynamic"
    assert not KNOWN["wal_level"].modifiable


@pytest.mark.parametrize(
    ("name", "value", "method"),
    [
        ("work_mem", "4096", "immediate"),
        ("WORK_MEM", "64", "pending-reboot"),
        ("max_connections", "{DBInstanceClassMemory/20000000}", "pending-reboot"),
        ("jit", "0", "immediate"),
        ("jit", "ON", "immediate"),
        ("log_statement", "ddl", "immediate"),
        ("random_page_cost", "1.1", "immediate"),
        ("timezone", "Europe/Berlin", "immediate"),
        ("rds.logical_replication", "1", "pending-reboot"),
    ],
)
def test_what_may_be_set(name: str, value: str, method: str) -> None:
    assert check(KNOWN, name, value, method).name == name.lower()


@pytest.mark.parametrize(
    ("name", "value", "method", "words"),
    [
        ("work_memory", "1", "immediate", "Could not find parameter with name: work_memory"),
        ("block_size", "1", "immediate", "Could not find"),
        ("wal_level", "logical", "pending-reboot", "cannot be modified"),
        ("max_connections", "50", "immediate", "immediate apply method for static parameter"),
        ("work_mem", "63", "immediate", "allowed values are: 64-2147483647"),
        ("work_mem", "4MB", "immediate", "Invalid parameter value: 4MB for: work_mem"),
        ("work_mem", "{Disk/2}", "immediate", "Invalid parameter value"),
        ("jit", "maybe", "immediate", "allowed values are: 0,1"),
        ("log_statement", "some", "immediate", "allowed values are: none,ddl,mod,all"),
        ("random_page_cost", "cheap", "immediate", "Invalid parameter value"),
        ("timezone", "UTC\nfsync = off", "immediate", "Invalid parameter value"),
    ],
)
def test_what_may_not_be_set(name: str, value: str, method: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        check(KNOWN, name, value, method)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("{DBInstanceClassMemory/32768}", "32768"),
        ("LEAST({DBInstanceClassMemory/9531392},5000)", "112"),
        ("GREATEST({DBInstanceClassMemory*1024/63963136},65536)", "65536"),
        ("SUM({DBInstanceVCPU*2},1)", "5"),
        ("{DBInstanceClassMemory - 1073741823}", "1"),
    ],
)
def test_formulas(formula: str, expected: str) -> None:
    assert evaluate(formula, memory=GIB, cpus=2) == expected


@pytest.mark.parametrize(
    "formula", ["", "{", "{DBInstanceClassMemory/0}", "__import__('os')", "{2.5}", "MAX(1,2)"]
)
def test_what_is_no_formula(formula: str) -> None:
    with pytest.raises(ParameterError):
        evaluate(formula, memory=GIB, cpus=2)


def test_what_a_server_runs_with() -> None:
    small = effective(KNOWN, {"work_mem": "8192", "rds.logical_replication": "1"}, GIB, 2)
    assert small["shared_buffers"] == "32768"
    assert small["max_connections"] == "112"
    assert small["work_mem"] == "8192"
    assert small["rds.logical_replication"] == "on"
    assert "jit" not in small, "PostgreSQL's own default is not written down"
    large = effective(KNOWN, {"work_mem": "8192", "rds.logical_replication": "true"}, 2 * GIB, 2)
    assert differing(small, large) == {"shared_buffers", "max_connections"}


def test_a_formula_stays_within_what_is_allowed() -> None:
    assert effective(KNOWN, {"shared_buffers": "{DBInstanceVCPU*1}"}, GIB, 2)["shared_buffers"] == (
        "16"
    )
