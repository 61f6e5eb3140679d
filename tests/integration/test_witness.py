"""The witness against a real PostgreSQL, a real PgBouncer and a real HTTP server.

Each test does to the system what the witness is there to find, and asks the audit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._witness import control, program
from ansible_collections.ascent.scaling.plugins.modules import witness as module

from tests.support import postgres

SERVER = Path(__file__).parents[1] / "support" / "witness_server.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    if not postgres.binaries() or not postgres.pooler():
        pytest.skip("needs Debian's packages postgresql and pgbouncer")
    directory = Path(tempfile.gettempdir()) / f"ascent-witness-{os.getpid()}"
    try:
        with postgres.running(directory) as cluster:
            yield cluster
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def database(cluster: postgres.Cluster, request: pytest.FixtureRequest) -> str:
    """An empty database for one test."""
    name = "d" + str(abs(hash(request.node.name)) % 10**9)
    cluster.create(name)
    return name


def options(**given: Any) -> dict[str, Any]:
    """The module's options with their defaults, as Ansible would hand them over."""

    def complete(spec: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        full = {}
        for key, option in spec.items():
            value = values.get(key, option.get("default"))
            if value is not None and "options" in option:
                inner = option["options"]
                if option["type"] == "list":
                    value = [complete(inner, item) for item in value]
                elif key != "limits":
                    value = complete(inner, value)
            full[key] = value
        return full

    return complete(module.SPEC, given)


class Witness:
    """One run, driven by the module's own functions."""

    def __init__(self, directory: Path, run_id: str = "run") -> None:
        self.common: dict[str, Any] = {"run_id": run_id, "directory": str(directory)}
        self.place = control.Place(str(directory), run_id)
        self.databases: list[dict[str, Any]] = []

    def sql(self, databases: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        self.databases = databases
        given = {"timeout": 5.0, "rate": 40.0, "read_rate": 40.0, **more}
        return module.started(
            options(**self.common, probe="sql", databases=databases, **given), self.place, False
        )

    def http(self, url: str, **more: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"requests": [{"path": "/", "contains": "hello"}], "rate": 20.0}
        given.update(more)
        given = {"timeout": 2.0, "if_silent": "start", **given}
        return module.started(
            options(**self.common, probe="http", url=url, **given), self.place, False
        )

    def stop(self) -> None:
        module.stopped(options(**self.common, state="stopped"), self.place, False)

    def audit(self, databases: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
        return module.audited(
            options(
                **self.common,
                state="audited",
                databases=self.databases if databases is None else databases,
                **more,
            ),
            self.place,
            False,
        )

    def events(self, probe: str, *kinds: str) -> list[dict[str, Any]]:
        path = self.place.file("journal", f"{probe}-here")
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [event for event in found if event["e"] in kinds]

    def wait(self, probe: str, kind: str, count: int, seconds: float = 15) -> None:
        """Until the journal holds so many events of a kind."""
        deadline = time.monotonic() + seconds
        while len(self.events(probe, kind)) < count:
            assert time.monotonic() < deadline, self.events(probe, kind, "failed", "error")[-5:]
            time.sleep(0.05)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    found = Witness(tmp_path / "witness")
    yield found
    found.stop()


def eventually(check: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- writes -------------------------------------------------------------------------------------


@pytest.fixture
def main(cluster: postgres.Cluster, database: str) -> list[dict[str, Any]]:
    return [{"name": "main", "url": cluster.pooled(database)}]


def test_a_quiet_run_is_clean(witness: Witness, main: list[dict[str, Any]]) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 40)
    witness.stop()
    report = witness.audit()
    assert report["reasons"] == []
    summary = report["summary"]
    assert summary["acknowledged_writes"] >= 40
    assert summary["reads"] >= 20
    assert summary["longest_write_pause_ms"] < 1000


def test_a_lost_row_is_named(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 30)
    witness.stop()
    cluster.execute(database, "DELETE FROM ascent_witness WHERE n IN (7, 11)")
    report = witness.audit()
    assert report["summary"]["lost_writes"] == 2
    assert report["reasons"] == ["2 acknowledged writes are lost: main 7, 11"]


def test_a_row_that_is_lost_while_the_witness_looks_is_also_stale(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 10)
    cluster.execute(
        database,
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN DELETE FROM ascent_witness WHERE n = new.n AND n > 0; RETURN NULL; END'",
    )
    cluster.execute(
        database,
        "CREATE TRIGGER forget AFTER INSERT ON ascent_witness"
        " FOR EACH ROW EXECUTE FUNCTION forget()",
    )
    eventually(lambda: any("stale" in event for event in witness.events("sql", "read")))
    witness.stop()
    summary = witness.audit()["summary"]
    assert summary["lost_writes"] > 0
    assert summary["stale_reads"] > 0


def test_a_row_in_two_databases_is_duplicated(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    second = database + "_two"
    cluster.create(second)
    witness.sql(main)
    witness.wait("sql", "ack", 20)
    witness.stop()
    with program.connect_sql(cluster.url(second), 5) as connection:
        program.ensure_table(connection, program.DEFAULT_TABLE)
    for row in cluster.execute(database, "SELECT writer, n, value FROM ascent_witness WHERE n = 5"):
        cluster.execute(second, "INSERT INTO ascent_witness VALUES (%s, %s, %s)", *row)
    other = {"name": "second", "url": cluster.url(second)}
    report = witness.audit([*main, other])
    assert report["summary"]["duplicated_writes"] == 1
    assert report["reasons"] == ["1 write is duplicated: main 5"]
    # The same rows, where a copy may be; and the first database under a second name.
    copy = {**other, "place": "copy"}
    alias = {"name": "direct", "url": cluster.url(database)}
    assert witness.audit([*main, copy, alias])["verdict"] == "clean"


def test_a_row_twice_in_a_table_without_key_is_duplicated(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 10)
    witness.stop()
    cluster.execute(database, "ALTER TABLE ascent_witness DROP CONSTRAINT ascent_witness_pkey")
    cluster.execute(
        database, "INSERT INTO ascent_witness SELECT * FROM ascent_witness WHERE n IN (3, 4)"
    )
    assert witness.audit()["reasons"] == ["2 writes are duplicated: main 3, 4"]


def test_a_read_url_that_shows_a_frozen_copy_is_stale(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    frozen = database + "_frozen"
    cluster.create(frozen)
    with program.connect_sql(cluster.url(frozen), 5) as connection:
        program.ensure_table(connection, program.DEFAULT_TABLE)
    witness.sql([{**main[0], "read_url": cluster.pooled(frozen)}])
    witness.wait("sql", "ack", 20)
    witness.stop()
    report = witness.audit(main)
    assert report["summary"]["stale_reads"] > 5
    assert report["summary"]["lost_writes"] == 0
    assert "reads were stale" in report["reasons"][0]
    assert {event["via"] for event in report_stale(witness)} == {"read"}


def report_stale(witness: Witness) -> list[dict[str, Any]]:
    stale: list[dict[str, Any]] = json.loads((witness.place.run / "report.json").read_text())[
        "stale"
    ]
    return stale


def test_a_register_that_is_set_back_is_stale(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 20)
    eventually(lambda: set_back(cluster, database, witness))
    witness.stop()
    assert {event["stale"] for event in report_stale_after(witness)} == {"register"}


def set_back(cluster: postgres.Cluster, database: str, witness: Witness) -> bool:
    """Put an old value into the register; tell whether the witness has seen one."""
    cluster.execute(database, "UPDATE ascent_witness SET value = 3 WHERE n = 0")
    return any("stale" in event for event in witness.events("sql", "read"))


def report_stale_after(witness: Witness) -> list[dict[str, Any]]:
    witness.audit()
    return [event for event in report_stale(witness) if event["stale"] != "register at rest"]


def test_a_register_at_rest_is_compared_too(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 10)
    witness.stop()
    cluster.execute(database, "UPDATE ascent_witness SET value = value - 1 WHERE n = 0")
    report = witness.audit()
    assert report["summary"]["stale_reads"] == 1
    assert "register at rest" in report["reasons"][0]


def test_a_stopped_pooler_is_a_pause_of_that_length(
    witness: Witness, cluster: postgres.Cluster, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 20)
    with cluster.pooler_stopped():
        time.sleep(1.5)
    seen = len(witness.events("sql", "ack"))
    witness.wait("sql", "ack", seen + 80)
    witness.stop()
    report = witness.audit()
    assert 1350 <= report["summary"]["longest_write_pause_ms"] <= 2200
    assert 1350 <= report["summary"]["longest_read_pause_ms"] <= 2200
    # Those who waited are in the percentile: the hang cannot hide behind its own quiet.
    assert report["summary"]["write_p99_ms"] > 1000
    assert report["verdict"] == "clean"
    limits = {"longest_write_pause_ms": 1000}
    assert witness.audit(limits=limits)["verdict"] == "unclean"


def test_a_crash_of_the_server_leaves_unknown_and_failed_writes_but_none_lost(
    witness: Witness, cluster: postgres.Cluster, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 20)
    cluster.restart_at_once()
    seen = len(witness.events("sql", "ack"))
    witness.wait("sql", "ack", seen + 20, seconds=30)
    witness.stop()
    report = witness.audit()
    summary = report["summary"]
    assert summary["failed_writes"] + summary["unknown_writes"] > 0
    assert (summary["lost_writes"], summary["duplicated_writes"]) == (0, 0)
    assert report["verdict"] == "unclean"


def test_a_dead_pooler_ends_writes_at_their_deadline(
    witness: Witness, cluster: postgres.Cluster, main: list[dict[str, Any]]
) -> None:
    witness.sql(main, timeout=1.0)
    witness.wait("sql", "ack", 10)
    with cluster.pooler_stopped():
        witness.wait("sql", "unknown", 1, seconds=5)
    seen = len(witness.events("sql", "ack"))
    witness.wait("sql", "ack", seen + 10)
    witness.stop()
    summary = witness.audit()["summary"]
    assert summary["unknown_writes"] > 0
    assert summary["lost_writes"] == 0


def test_what_was_acknowledged_survives_a_kill_of_the_witness(
    witness: Witness, main: list[dict[str, Any]]
) -> None:
    pid = witness.sql(main)["pid"]
    witness.wait("sql", "ack", 30)
    os.kill(pid, signal.SIGKILL)
    lock = witness.place.file("lock", "sql-here")
    eventually(lambda: control.holder(lock) is None)
    journal = witness.place.file("journal", "sql-here")
    with journal.open("a") as out:
        out.write('{"e":"ack","t":1')
    report = witness.audit()
    assert report["summary"]["acknowledged_writes"] >= 30
    assert report["summary"]["lost_writes"] == 0
    assert report["summary"]["torn_lines"] == 1
    assert "no end is on record" in report["reasons"][-1]
    # A second life goes on in the same journal, as a writer of its own.
    assert witness.sql(main)["changed"]
    seen = report["summary"]["acknowledged_writes"]
    eventually(lambda: journal.read_text().count('"ack"') > seen + 10)
    witness.stop()
    report = witness.audit()
    assert report["summary"]["acknowledged_writes"] > seen
    assert report["summary"]["duplicated_writes"] == report["summary"]["lost_writes"] == 0
    assert report["summary"]["blind_ms"] > 0
    assert report["summary"]["torn_lines"] == 1


def test_an_acknowledgement_is_on_the_disk_before_it_counts(
    witness: Witness, main: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Every ack is followed by an fsync before the next read may ask for it (strace shows it)."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    pid = witness.sql(main, rate=5.0, read_rate=0.001)["pid"]
    trace = tmp_path / "trace"
    calls = "trace=write,fsync,fdatasync"
    with subprocess.Popen(
        ["strace", "-f", "-s", "30", "-e", calls, "-o", str(trace), "-p", str(pid)],
        stderr=subprocess.DEVNULL,
    ) as strace:
        seen = len(witness.events("sql", "ack"))
        witness.wait("sql", "ack", seen + 5)
        strace.send_signal(signal.SIGINT)
    lines = trace.read_text().splitlines()
    acks = [i for i, line in enumerate(lines) if '{\\"e\\":\\"ack' in line]
    syncs = [i for i, line in enumerate(lines) if "fsync(" in line]
    assert len(acks) >= 4
    for ack, following in pairwise(acks):
        assert any(ack < sync < following for sync in syncs), lines[ack:following]


def test_a_witness_that_may_not_write_saw_nothing(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    cluster.execute(database, "REVOKE ALL ON SCHEMA public FROM PUBLIC, pg_database_owner")
    witness.sql(main)
    witness.wait("sql", "failed", 2)
    witness.stop()
    report = witness.audit()
    assert "no write was acknowledged: the sql probe saw nothing" in report["reasons"]
    assert "permission denied for schema public" in report["reasons"][0]


def test_a_database_that_cannot_be_read_back_is_told(
    witness: Witness, cluster: postgres.Cluster, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 5)
    witness.stop()
    gone = {"name": "gone", "url": cluster.url("nowhere")}
    report = witness.audit([*main, gone])
    assert "a database could not be read back: gone: " in report["reasons"][0]


def test_the_password_is_in_no_argument_and_goes_when_the_witness_ends(
    witness: Witness, main: list[dict[str, Any]]
) -> None:
    pid = witness.sql(main)["pid"]
    for name in ("cmdline", "environ"):
        assert postgres.PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    with_password = [
        path for path in witness.place.run.iterdir() if postgres.PASSWORD in path.read_text()
    ]
    assert [path.name for path in with_password] == ["secrets-sql-here.json"]
    assert with_password[0].stat().st_mode & 0o777 == 0o600
    witness.wait("sql", "ack", 5)
    witness.stop()
    witness.audit()
    assert not any(postgres.PASSWORD in path.read_text() for path in witness.place.run.iterdir())


def test_the_tables_go_on_request_only(
    witness: Witness, cluster: postgres.Cluster, database: str, main: list[dict[str, Any]]
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 5)
    witness.stop()
    wanted = options(**witness.common, state="absent", databases=main, purge=True)
    there = "SELECT to_regclass('ascent_witness')::text"
    assert module.absent(wanted, witness.place, True)["dropped"] == ["main"]
    assert cluster.execute(database, there) == [("ascent_witness",)]
    assert module.absent(wanted, witness.place, False)["changed"]
    assert cluster.execute(database, there) == [(None,)]
    assert not witness.place.run.exists()
    assert not module.absent(wanted, witness.place, False)["changed"]
    assert not witness.place.run.exists()


# --- requests -----------------------------------------------------------------------------------


class Server:
    """The front door, as a process that can be told to misbehave, stopped and killed."""

    def __init__(self, directory: Path, *certificate: str) -> None:
        self.port = postgres.free_port()
        self._mode = directory / "mode"
        self._certificate = certificate
        self.process: subprocess.Popen[bytes] | None = None
        self.behave("ok")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(self.port), str(self._mode), *self._certificate],
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: postgres_port_open(self.port))

    def behave(self, mode: str) -> None:
        new = self._mode.with_suffix(".new")
        new.write_text(mode)
        new.replace(self._mode)

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self._certificate)}://127.0.0.1:{self.port}"

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def postgres_port_open(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.kill()


def test_a_front_door_that_answers_is_clean(witness: Witness, server: Server) -> None:
    witness.http(server.url, requests=[{"path": "/"}, {"path": "/a", "contains": "hello"}])
    witness.wait("http", "done", 30)
    witness.stop()
    report = witness.audit()
    assert report["reasons"] == []
    assert report["summary"]["requests"] >= 30
    kinds = {(event["r"], event["c"]) for event in witness.events("http", "sent")[4:]}
    assert kinds == {(r, c) for r in ("GET /", "GET /a") for c in ("fresh", "kept")}


@pytest.mark.parametrize(
    ("mode", "cause"),
    [
        ("status 503", "status_503"),
        ("status 404", "status_404"),
        ("body", "body"),
        ("reset", "reset"),
    ],
)
def test_bad_answers_are_failed_requests_by_cause(
    witness: Witness, server: Server, mode: str, cause: str
) -> None:
    witness.http(server.url)
    witness.wait("http", "done", 10)
    server.behave(mode)
    witness.wait("http", "error", 5)
    server.behave("ok")
    seen = len(witness.events("http", "done"))
    witness.wait("http", "done", seen + 5)
    witness.stop()
    report = witness.audit()
    assert set(report["summary"]["failed_by_cause"]) == {cause}
    assert report["summary"]["failed_requests"] >= 5
    assert f" {cause}" in report["reasons"][0]


def test_a_dead_server_refuses(witness: Witness, server: Server) -> None:
    witness.http(server.url)
    witness.wait("http", "done", 10)
    server.kill()
    witness.wait("http", "error", 10)
    server.start()
    seen = len(witness.events("http", "done"))
    witness.wait("http", "done", seen + 10)
    witness.stop()
    report = witness.audit()
    assert report["summary"]["failed_by_cause"].get("refused", 0) >= 8
    assert set(report["summary"]["failed_by_cause"]) <= {"refused", "reset"}
    assert report["summary"]["longest_read_pause_ms"] > 300


def test_a_frozen_server_times_out_and_the_schedule_goes_on(
    witness: Witness, server: Server
) -> None:
    witness.http(server.url, timeout=1.0, workers=4)
    witness.wait("http", "done", 10)
    with server.frozen():
        witness.wait("http", "error", 20)
    witness.stop()
    report = witness.audit()
    assert set(report["summary"]["failed_by_cause"]) == {"timeout"}
    # Only four are under way at once; those who wait for a place count from when they were due.
    assert all(950 <= event["ms"] <= 1600 for event in witness.events("http", "error"))
    seconds = report["summary"]["seconds"]
    assert report["summary"]["requests"] >= 0.8 * 20 * (seconds - 1.5)


def test_a_short_freeze_is_a_pause_and_its_latency_counts(witness: Witness, server: Server) -> None:
    witness.http(server.url, timeout=5.0)
    witness.wait("http", "done", 20)
    with server.frozen():
        time.sleep(1.2)
    witness.wait("http", "done", 60)
    witness.stop()
    report = witness.audit()
    assert report["verdict"] == "clean"
    assert 1000 <= report["summary"]["longest_read_pause_ms"] <= 2000
    assert report["summary"]["p99_ms"] > 900


def test_closing_kept_connections_fails_no_request(witness: Witness, server: Server) -> None:
    witness.http(server.url)
    witness.wait("http", "done", 10)
    server.behave("shut")
    seen = len(witness.events("http", "done"))
    witness.wait("http", "done", seen + 20)
    witness.stop()
    assert witness.audit()["reasons"] == []


def test_a_name_that_does_not_resolve_is_a_dns_failure(witness: Witness) -> None:
    witness.http("http://nowhere.invalid", rate=5.0)
    witness.wait("http", "error", 3)
    witness.stop()
    assert set(witness.audit()["summary"]["failed_by_cause"]) == {"dns"}


def test_tls_is_verified_against_the_name_and_the_given_certificates(
    witness: Witness, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=shop.test -addext subjectAltName=DNS:shop.test -keyout {key}"
        f" -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    server = Server(tmp_path, str(certificate), str(key))
    try:
        address = f"127.0.0.1:{server.port}"
        url = f"https://shop.test:{server.port}"
        requests = [{"path": "/", "contains": f"hello from shop.test:{server.port}"}]
        wanted: dict[str, Any] = {"connect_to": address, "requests": requests, "if_silent": "fail"}
        with pytest.raises(control.WitnessError, match=r"GET https://shop.test:\d+/: tls: "):
            witness.http(url, **wanted)
        wrong = {**wanted, "ca_file": str(certificate)}
        with pytest.raises(control.WitnessError, match="tls: "):
            witness.http(f"https://other.test:{server.port}", **wrong)
        witness.http(url, **wanted, ca_file=str(certificate))
        witness.wait("http", "done", 10)
        witness.stop()
        sent = [event["c"] for event in witness.events("http", "sent")]
        assert sent.count("kept") >= 4
        assert sent.count("fresh") >= 4
        assert witness.audit()["verdict"] == "clean"
    finally:
        server.kill()


JOURNEY = {
    "name": "order",
    "rate": 10.0,
    "before": [
        {
            "method": "POST",
            "path": "/login",
            "form": {"name": "{session}"},
            "capture": {"csrf": 'name="csrf" value="([^"]+)"'},
        }
    ],
    "write": {
        "method": "POST",
        "path": "/orders",
        "form": {"note": "{token}-{n}", "csrf": "{csrf}"},
        "status": [201],
    },
    "read": {"path": "/orders", "contains": "[{token}-{n}]"},
}


def test_a_journey_finds_an_order_that_the_application_forgot(
    witness: Witness, server: Server
) -> None:
    witness.http(server.url, journeys=[JOURNEY])
    witness.wait("http", "jack", 10)
    server.behave("lose")
    lost_from = len(witness.events("http", "jack")) + 1
    witness.wait("http", "jack", lost_from + 3)
    server.behave("ok")
    seen = len(witness.events("http", "jack"))
    witness.wait("http", "jack", seen + 3)
    witness.stop()
    report = witness.audit()
    assert 2 <= report["summary"]["lost_writes"] <= 6
    assert "acknowledged writes are lost: journey order" in report["reasons"][0]
    assert report["summary"]["failed_requests"] == 0


def test_a_journey_logs_in_again_after_the_application_forgot_it(
    witness: Witness, server: Server
) -> None:
    witness.http(server.url, journeys=[JOURNEY])
    witness.wait("http", "jack", 5)
    server.kill()
    server.start()
    seen = len(witness.events("http", "jack"))
    witness.wait("http", "jack", seen + 5)
    witness.stop()
    # The server keeps its orders in memory: the restart has lost what it had acknowledged.
    assert witness.audit()["summary"]["lost_writes"] >= 5


# --- life ---------------------------------------------------------------------------------------


def test_starting_twice_starts_one(witness: Witness, server: Server) -> None:
    first = witness.http(server.url)
    second = witness.http(server.url)
    assert first["changed"]
    assert second == {**first, "changed": False}


def test_what_a_killed_controller_left_running_is_stopped_by_the_next_run(
    witness: Witness, server: Server, tmp_path: Path
) -> None:
    witness.http(server.url)
    following = Witness(tmp_path / "witness", "second")
    wanted = {"requests": [{"path": "/"}], "alone": True, "keep": 0}
    try:
        result = following.http(server.url, **wanted)
        assert (result["changed"], result["replaced"]) == (True, ["run"])
        assert control.holder(witness.place.file("lock", "http-here")) is None
        assert following.http(server.url, **wanted)["replaced"] == []
        following.stop()
        third = Witness(tmp_path / "witness", "third")
        # What is kept is counted: of the two finished runs the older goes.
        following.place.run.touch()
        third.http(server.url, **{**wanted, "keep": 1})
        third.stop()
        assert not witness.place.run.exists()
        assert following.place.run.exists()
    finally:
        following.stop()


def test_a_silent_system_is_skipped_with_the_reason(witness: Witness) -> None:
    result = witness.http("http://127.0.0.1:1", if_silent="skip")
    assert not result["changed"]
    assert result["skipped"]
    assert "refused" in result["skip_reason"]
    assert not list(witness.place.run.glob("secrets-*"))
    with pytest.raises(control.WitnessError, match="see nothing but errors"):
        witness.http("http://127.0.0.1:1", if_silent="fail")


def test_check_mode_starts_and_stops_nothing(witness: Witness, server: Server) -> None:
    wanted = options(**witness.common, probe="http", url=server.url, requests=[{"path": "/"}])
    assert module.started(wanted, witness.place, True)["changed"]
    assert not witness.place.run.exists()
    witness.http(server.url)
    assert not module.started(wanted, witness.place, True)["changed"]
    assert module.stopped(options(**witness.common), witness.place, True)["changed"]
    assert control.holder(witness.place.file("lock", "http-here")) is not None


def test_it_ends_by_itself_at_its_time_limit(witness: Witness, server: Server) -> None:
    witness.http(server.url, max_seconds=1)
    lock = witness.place.file("lock", "http-here")
    eventually(lambda: control.holder(lock) is None)
    assert any("time limit" in reason for reason in witness.audit()["reasons"])


def test_a_full_journal_ends_it_in_the_open(witness: Witness, server: Server) -> None:
    bound = program.JOURNAL_RESERVE + 4000
    witness.http(server.url, max_journal_bytes=bound)
    lock = witness.place.file("lock", "http-here")
    eventually(lambda: control.holder(lock) is None)
    assert witness.place.file("journal", "http-here").stat().st_size <= bound
    assert any("has reached its bound" in reason for reason in witness.audit()["reasons"])


def test_it_outlives_who_started_it_and_hears_no_hangup(witness: Witness, server: Server) -> None:
    result: dict[str, Any] = {}
    starter = threading.Thread(target=lambda: result.update(witness.http(server.url)))
    starter.start()
    starter.join()
    assert os.getsid(result["pid"]) == result["pid"]
    os.kill(result["pid"], signal.SIGHUP)
    witness.wait("http", "done", 5)


def test_its_own_standstill_is_told_and_blamed_on_nobody(
    witness: Witness, main: list[dict[str, Any]]
) -> None:
    pid = witness.sql(main, rate=4.0, read_rate=0.001)["pid"]
    witness.wait("sql", "ack", 8)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.2)
    os.kill(pid, signal.SIGCONT)
    witness.wait("sql", "ack", 16)
    witness.stop()
    summary = witness.audit()["summary"]
    assert 700 <= summary["longest_witness_stall_ms"] <= 2000
    assert summary["longest_write_pause_ms"] < 500


def test_what_is_gathered_on_a_host_is_audited_elsewhere(
    witness: Witness, main: list[dict[str, Any]], tmp_path: Path
) -> None:
    witness.sql(main)
    witness.wait("sql", "ack", 10)
    witness.stop()
    wanted = options(**witness.common, state="gathered", databases=main)
    gathered = module.gathered(wanted, witness.place, False)
    assert gathered["changed"]
    assert not module.gathered(wanted, witness.place, False)["changed"]
    names = [Path(file).name for file in gathered["files"]]
    assert names == ["rows-here.jsonl", "journal-sql-here.jsonl.gz"]
    elsewhere = tmp_path / "controller"
    (elsewhere / "run" / "box").mkdir(parents=True)
    for file in gathered["files"]:
        shutil.copy(file, elsewhere / "run" / "box")
    other = Witness(elsewhere)
    control.mark(other.place, "configure")
    report = other.audit(required_probes=["sql"])
    assert report["reasons"] == []
    assert report["summary"]["acknowledged_writes"] >= 10
    assert [phase["name"] for phase in report["phases"]] == ["configure"]
    picture = (elsewhere / "run" / "timeline.svg").read_text()
    assert "configure" in picture
    assert not other.audit(required_probes=["sql"])["changed"]


# --- through Ansible ----------------------------------------------------------------------------


def ansible(
    tmp_path: Path, *, check: bool = False, **arguments: Any
) -> tuple[bool, dict[str, Any]]:
    """Run the module as a task does; (succeeded, result)."""
    inventory = tmp_path / "inventory.yml"
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": {"here": local}}}))
    command = [sys.executable, "-m", "ansible", "adhoc", "here", "-i", str(inventory)]
    command += ["-m", "ascent.scaling.witness", "-a", json.dumps(arguments)]
    done = subprocess.run(
        [*command, *(["--check"] if check else [])],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "json"},
        check=False,
    )
    result = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["here"]
    return done.returncode == 0, result


def test_an_unclean_audit_fails_the_task_and_says_what_and_where(
    witness: Witness,
    cluster: postgres.Cluster,
    database: str,
    main: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    common = {**witness.common, "databases": main}
    fine, result = ansible(tmp_path, **common, probe="sql", rate=40)
    assert fine, result
    assert result["changed"]
    assert postgres.PASSWORD not in json.dumps(result)
    witness.wait("sql", "ack", 20)
    fine, result = ansible(tmp_path, **common, state="stopped")
    assert (fine, result["stopped"]) == (True, ["sql-here"])
    fine, result = ansible(tmp_path, **common, state="audited")
    assert (fine, result["verdict"]) == (True, "clean")
    cluster.execute(database, "DELETE FROM ascent_witness WHERE n = 9")
    before = (witness.place.run / "report.json").read_text()
    fine, result = ansible(tmp_path, **witness.common, state="audited", databases=main)
    assert not fine
    assert result["msg"] == (
        "The audit is unclean: 1 acknowledged write is lost: main 9."
        f" See {witness.place.run}/report.json"
    )
    assert result["summary"]["lost_writes"] == 1
    assert (witness.place.run / "report.json").read_text() != before
    fine, result = ansible(
        tmp_path, **witness.common, state="audited", databases=main, fail_on_unclean=False
    )
    assert (fine, result["verdict"], result["changed"]) == (True, "unclean", False)


def test_check_mode_of_an_audit_writes_nothing(witness: Witness, tmp_path: Path) -> None:
    fine, result = ansible(tmp_path, check=True, **witness.common, state="audited")
    assert fine, result
    assert not witness.place.run.exists()
    fine, result = ansible(tmp_path, check=True, **witness.common, state="marked", mark="x")
    assert (fine, result["changed"]) == (True, True)
    assert not witness.place.run.exists()
