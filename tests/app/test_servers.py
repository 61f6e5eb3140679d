"""The application against a real PostgreSQL and a real Valkey or Redis."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from shop import health, migrate
from shop.application import create_app
from shop.config import Config, migrate_urls

APP = Path(__file__).parents[2] / "app"


def _server_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """A cluster in a directory of its own, on a unix socket only."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self.data = directory / "data"
        if os.geteuid() == 0:
            directory.chmod(0o755)
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "--no-sync")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(
            command, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )

    def _control(self, *arguments: str) -> None:
        log = str(self.directory / "log")
        self._run("pg_ctl", "-D", str(self.data), "-l", log, "-w", *arguments)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -k {self.directory}"
        self._control("-o", options, "start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def url(self, database: str, user: str = "shop") -> str:
        return f"postgresql://{user}@/{database}?host={self.directory}"

    def ask(self, database: str, sql: str, *args: object) -> list[tuple]:
        with psycopg.connect(self.url(database, "postgres"), autocommit=True) as connection:
            cursor = connection.execute(sql, args)
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        name = "t" + uuid.uuid4().hex[:12]
        self.ask("postgres", f"CREATE DATABASE {name} OWNER shop")
        return name


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    programs = _server_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's server programs (Debian package: postgresql)")
    # pytest's own directories are closed to other users, and socket paths must be short.
    directory = Path(tempfile.mkdtemp(prefix="shop-pg-"))
    server = Postgres(programs, directory)
    server.ask("postgres", "CREATE ROLE shop LOGIN")
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def database(postgres: Postgres) -> str:
    """A fresh database with the application's schema."""
    name = postgres.new_database()
    migrate.migrate(migrate_urls({"DATABASE_URL": postgres.url(name)}))
    return name


Build = Callable[..., Flask]


@pytest.fixture
def build(postgres: Postgres, database: str, tmp_path: Path) -> Iterator[Build]:
    """Make an application for this database, with further settings."""
    made: list[Flask] = []

    def _build(**env: str) -> Flask:
        health._schema_seen.clear()
        settings = {
            "DATABASE_URL": postgres.url(database),
            "SECRET_KEY": "k" * 32,
            "UPLOAD_DIR": str(tmp_path / "uploads"),
            "RELEASE": "r1",
        }
        made.append(create_app(Config.from_environment(settings | env)))
        return made[-1]

    yield _build
    for app in made:
        app.extensions["shop"].databases.close()


class Visitor:
    """Somebody with a browser: keeps cookies, sends the form's token."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str):  # type: ignore[no-untyped-def]
        return self.client.get(path)

    def post(self, path: str, page: str = "/login", **fields: object):  # type: ignore[no-untyped-def]
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.get(page).text)
        assert token, f"no form on {page}"
        return self.client.post(path, data={"csrf_token": token[1], **fields})

    def sign_up(self, email: str = "ann@example.test") -> None:
        answer = self.post("/signup", name="Ann", email=email, password="long enough")
        assert answer.status_code == 303, answer.text

    def add(self, product_id: int, quantity: int = 1) -> None:
        page = "/products/camp-mug"
        answer = self.post("/cart/add", page, product_id=product_id, quantity=quantity)
        assert answer.status_code == 303


@pytest.fixture
def visitor(build: Build) -> Visitor:
    return Visitor(build().test_client())


def guest(client: FlaskClient) -> dict[str, str]:
    answer = client.post("/api/guests")
    assert answer.status_code == 201
    return {"Authorization": f"Bearer {answer.json['token']}"}


def order(client: FlaskClient, who: dict[str, str], key: str, *items: tuple[int, int]):  # type: ignore[no-untyped-def]
    body = {"items": [{"product_id": product, "quantity": count} for product, count in items]}
    return client.post("/api/orders", json=body, headers={**who, "Idempotency-Key": key})


# Migrations


def test_migrating_again_changes_nothing(postgres: Postgres, database: str) -> None:
    postgres.ask(database, "UPDATE stock SET available = 7 WHERE product_id = 1")
    assert migrate.migrate(migrate_urls({"DATABASE_URL": postgres.url(database)})) == []
    # Even without the ledger, the files themselves spoil nothing.
    postgres.ask(database, "DELETE FROM schema_migrations")
    assert len(migrate.migrate(migrate_urls({"DATABASE_URL": postgres.url(database)}))) == 5
    assert postgres.ask(database, "SELECT available FROM stock WHERE product_id = 1") == [(7,)]


def test_migrations_at_the_same_time_apply_each_file_once(postgres: Postgres) -> None:
    name = postgres.new_database()
    command = [sys.executable, "-m", "shop.migrate"]
    env = {**os.environ, "DATABASE_URL": postgres.url(name)}
    runs = [
        subprocess.Popen(command, cwd=APP, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    applied = re.findall(r"^applied (\S+)", "".join(outputs), re.MULTILINE)
    assert len(applied) == len(set(applied)) == 5


def test_a_migration_waits_for_the_run_under_way(postgres: Postgres) -> None:
    name = postgres.new_database()
    with psycopg.connect(postgres.url(name)) as under_way:
        under_way.execute("SELECT pg_advisory_xact_lock(%s)", (migrate.LOCK,))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            second = pool.submit(
                migrate.migrate, migrate_urls({"DATABASE_URL": postgres.url(name)})
            )
            time.sleep(0.7)
            assert postgres.ask(name, "SELECT to_regclass('users')") == [(None,)]
            under_way.rollback()
            assert len(second.result(timeout=20)) == 5


def test_a_migration_never_makes_requests_wait_for_long(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = migrate_urls({"DATABASE_URL": postgres.url(database)})
    postgres.ask(database, "DROP TABLE sessions")
    postgres.ask(database, "DELETE FROM schema_migrations WHERE function = 'users'")
    there = "SELECT to_regclass('sessions') IS NOT NULL"
    with psycopg.connect(postgres.url(database, "postgres")) as live:
        live.execute("LOCK TABLE users")  # a long request of the release before
        monkeypatch.setattr(migrate, "ATTEMPTS", 1)
        started = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            migrate.migrate(urls)
        assert time.monotonic() - started < 2.5
        assert postgres.ask(database, there) == [(False,)]

        monkeypatch.undo()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            patient = pool.submit(migrate.migrate, urls)
            time.sleep(1.5)
            live.rollback()
            assert patient.result(timeout=20) == ["users/0001_tables"]
    assert postgres.ask(database, there) == [(True,)]


def test_not_ready_before_the_schema_is_there(
    postgres: Postgres, build: Build, database: str
) -> None:
    empty = postgres.url(postgres.new_database())
    client = build(DATABASE_URL=empty).test_client()
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "run python -m shop.migrate" in answer.json["checks"]["users"]
    migrate.migrate(migrate_urls({"DATABASE_URL": empty}))
    assert client.get("/health/ready").json["status"] == "ready"


# Visitors


def test_ready_with_nothing_but_a_database(visitor: Visitor) -> None:
    answer = visitor.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ready",
        "release": "r1",
        "host_name": "",
        "checks": {
            "users": "ok",
            "catalogue": "ok",
            "orders": "ok",
            "cache": "off",
            "sessions": "off",
        },
    }


def test_from_the_front_page_to_an_order(
    visitor: Visitor, postgres: Postgres, database: str
) -> None:
    front = visitor.get("/").text
    assert front.count('class="card"') == 12
    assert (APP / "shop" / "banner.txt").read_text().strip() in front
    assert visitor.get("/?category=Cook").text.count('class="card"') == 2
    assert visitor.get("/?q=enamel").text.count('class="card"') == 1

    visitor.add(5, 2)
    visitor.add(1)
    assert "Log in to order" in visitor.get("/cart").text
    visitor.sign_up()
    cart = visitor.get("/cart").text
    assert "€221.00" in cart, "the cart came along"
    key = re.search(r'name="key" value="([^"]+)"', cart)
    assert key

    placed = visitor.post("/orders", "/cart", key=key[1])
    assert placed.status_code == 303
    page = visitor.get(placed.location).text
    assert "€221.00" in page and "2 × €16.00" in page  # noqa: RUF001
    assert "still empty" in visitor.get("/cart").text
    assert placed.location in visitor.get("/orders").text

    again = visitor.post("/orders", "/orders", key=key[1])
    assert again.location == placed.location, "the form sent twice is one order"
    assert postgres.ask(database, "SELECT count(*) FROM orders") == [(1,)]
    stock = postgres.ask(database, "SELECT available FROM stock WHERE product_id IN (1, 5)")
    assert sorted(stock) == [(999_998,), (999_999,)]


def test_changing_the_cart(visitor: Visitor) -> None:
    for signed_up in (False, True):
        if signed_up:
            visitor.sign_up()
        visitor.add(5)
        visitor.post("/cart/change", "/cart", product_id=5, quantity=3)
        assert "€48.00" in visitor.get("/cart").text
        visitor.post("/cart/change", "/cart", product_id=5, quantity=3, remove="1")
        assert "still empty" in visitor.get("/cart").text


def test_log_in_and_out(visitor: Visitor, build: Build) -> None:
    visitor.sign_up("Ann@Example.test")
    stolen = visitor.client.get_cookie("shop").value
    thief = build().test_client()
    thief.set_cookie("shop", stolen)
    assert thief.get("/orders").status_code == 200

    assert visitor.post("/logout", "/").status_code == 303
    assert visitor.get("/orders").location == "/login?next=%2Forders"
    thief.set_cookie("shop", stolen)
    assert thief.get("/orders").status_code == 303, "a log-out ends the session everywhere"

    wrong = visitor.post("/login", email="ann@example.test", password="not this one")
    nobody = visitor.post("/login", email="bob@example.test", password="not this one")
    assert wrong.status_code == nobody.status_code == 422
    message = "The address or the password is not right."
    assert message in wrong.text and message in nobody.text
    fine = visitor.post("/login", email="ann@example.test", password="long enough", next="//x.test")
    assert (fine.status_code, fine.location) == (303, "/")


def test_an_address_signs_up_once(visitor: Visitor, build: Build) -> None:
    visitor.sign_up()
    other = Visitor(build().test_client())
    fields = {"name": "Eve", "email": "ANN@example.test", "password": "long enough"}
    answer = other.post("/signup", **fields)
    assert answer.status_code == 422 and "There is an account" in answer.text


def test_an_order_is_shown_to_its_owner_only(visitor: Visitor, build: Build) -> None:
    visitor.sign_up()
    visitor.add(5)
    placed = visitor.post("/orders", "/cart", key="a-key-of-mine")
    other = Visitor(build().test_client())
    other.sign_up("eve@example.test")
    assert visitor.get(placed.location).status_code == 200
    assert other.get(placed.location).status_code == 404


def test_a_review_with_a_picture(visitor: Visitor, build: Build) -> None:
    page = "/products/camp-mug"
    visitor.sign_up()
    sent = io.BytesIO()
    Image.new("RGB", (50, 50), "red").save(sent, "PNG")
    sent.seek(0)
    fields = {"rating": "4", "body": "Good <b>tea</b>", "picture": (sent, "../../x.png")}
    assert visitor.post(page + "/reviews", page, **fields).status_code == 303
    shown = visitor.get(page).text
    assert "Good &lt;b&gt;tea&lt;/b&gt;" in shown and "4.0 of 5" in shown
    path = re.search(r'src="(/uploads/[0-9a-f]{32}\.jpg)"', shown)
    assert path
    picture = build().test_client().get(path[1])
    assert (picture.status_code, picture.mimetype) == (200, "image/jpeg")
    assert "immutable" in picture.headers["Cache-Control"]

    broken = {"rating": "1", "body": "x", "picture": (io.BytesIO(b"<script>"), "x.jpg")}
    visitor.post(page + "/reviews", page, **broken)
    shown = visitor.get(page).text
    assert "not a picture that we can read" in shown and "4.0 of 5" in shown


# Orders by the API


def test_an_order_by_the_api(build: Build) -> None:
    client = build().test_client()
    who = guest(client)
    first = order(client, who, "key-number-1", (1, 2), (5, 1))
    assert first.status_code == 201
    placed = first.json["order"]
    assert placed["total_cents"] == 2 * 18900 + 1600
    assert first.json["release"] == "r1"

    again = order(client, who, "key-number-1", (5, 1), (1, 2))
    assert (again.status_code, again.json["order"]) == (200, placed)
    reused = order(client, who, "key-number-1", (5, 2))
    assert (reused.status_code, reused.json["error"]["code"]) == (422, "key_reused")
    assert order(client, who, "short", (5, 1)).status_code == 400
    assert order(client, who, "key-number-2", (999, 1)).status_code == 422

    assert client.get("/api/orders", headers=who).json["orders"] == [placed]
    path = f"/api/orders/{placed['id']}"
    assert client.get(path, headers=who).json["order"] == placed
    assert client.get(path, headers=guest(client)).status_code == 404
    assert client.get(f"/api/orders/{2**70}", headers=who).status_code == 404


def test_products_by_the_api(build: Build) -> None:
    client = build(STATIC_URL="https://cdn.test/s").test_client()
    rows = client.get("/api/products").json["products"]
    assert [row["id"] for row in rows] == list(range(1, 13))
    assert rows[0]["picture"] == "https://cdn.test/s/img/pack.svg?v=r1"
    assert client.get("/api/products/5").json["product"]["available"] == 1_000_000
    missing = client.get("/api/products/99")
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "not_found")


def test_what_is_sold_out_leaves_no_trace(build: Build, postgres: Postgres, database: str) -> None:
    client = build().test_client()
    who = guest(client)
    postgres.ask(database, "UPDATE stock SET available = 2 WHERE product_id = 7")
    answer = order(client, who, "too-many-boots", (1, 1), (7, 3))
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "out_of_stock")
    for table in ("orders", "order_items"):
        assert postgres.ask(database, f"SELECT count(*) FROM {table}") == [(0,)]
    assert postgres.ask(
        database, "SELECT sum(available) FROM stock WHERE product_id IN (1, 7)"
    ) == [(1_000_002,)]
    assert order(client, who, "too-many-boots", (7, 2)).status_code == 201


def test_many_at_once_get_what_there_is_and_no_more(
    build: Build, postgres: Postgres, database: str
) -> None:
    app = build()
    who = guest(app.test_client())
    postgres.ask(database, "UPDATE stock SET available = 5 WHERE product_id IN (1, 2)")

    def try_one(number: int) -> int:
        items = [(1, 1), (2, 1)] if number % 2 else [(2, 1), (1, 1)]
        return order(app.test_client(), who, f"crowd-{number:04}", *items).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(try_one, range(24)))
    assert (answers.count(201), answers.count(409)) == (5, 19)
    assert postgres.ask(database, "SELECT available FROM stock WHERE product_id < 3") == [
        (0,),
        (0,),
    ]
    assert postgres.ask(database, "SELECT count(*) FROM orders") == [(5,)]


def test_the_same_key_at_once_is_one_order(build: Build, postgres: Postgres, database: str) -> None:
    app = build()
    who = guest(app.test_client())

    def try_one(_: int) -> tuple[int, int]:
        answer = order(app.test_client(), who, "pressed-twice", (5, 1))
        return answer.status_code, answer.json["order"]["id"]

    with concurrent.futures.ThreadPoolExecutor(8) as fingers:
        answers = list(fingers.map(try_one, range(16)))
    assert sorted(status for status, _ in answers) == [200] * 15 + [201]
    assert len({number for _, number in answers}) == 1
    assert postgres.ask(database, "SELECT available FROM stock WHERE product_id = 5") == [
        (999_999,)
    ]


# Where the data may live


def test_functions_in_databases_of_their_own(
    postgres: Postgres, build: Build, database: str
) -> None:
    urls = {
        "DATABASE_URL_ORDERS": postgres.url(postgres.new_database()),
        "DATABASE_URL_USERS": postgres.url(postgres.new_database()),
    }
    migrate.migrate(migrate_urls({"DATABASE_URL": postgres.url(database), **urls}))
    visitor = Visitor(build(**urls).test_client())
    assert visitor.get("/health/ready").status_code == 200
    visitor.sign_up()
    visitor.add(5)
    placed = visitor.post("/orders", "/cart", key="one-for-all")
    assert "€16.00" in visitor.get(placed.location).text
    for table in ("orders", "users", "sessions"):
        assert postgres.ask(database, f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_replica_that_is_away_is_replaced_by_the_primary(build: Build) -> None:
    client = build(DATABASE_READ_URL="postgresql://shop@127.0.0.1:1/shop").test_client()
    assert client.get("/api/products/5").status_code == 200
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["checks"]["orders_replica"].startswith("away")


def test_own_writes_are_read_from_the_primary(
    postgres: Postgres, build: Build, database: str
) -> None:
    stale = postgres.new_database()  # a replica that lags behind for ever
    migrate.migrate(migrate_urls({"DATABASE_URL": postgres.url(stale)}))
    visitor = Visitor(build(DATABASE_READ_URL=postgres.url(stale)).test_client())
    page = "/products/camp-mug"
    visitor.sign_up()
    visitor.add(5)
    placed = visitor.post("/orders", "/cart", key="seen-at-once")
    assert visitor.get(placed.location).status_code == 200
    assert placed.location in visitor.get("/orders").text
    visitor.post(page + "/reviews", page, rating="5", body="Warm hands")
    assert "Warm hands" in visitor.get(page).text
    postgres.ask(stale, "UPDATE products SET name = 'Replica Mug' WHERE id = 5")
    assert "Replica Mug" in visitor.get(page).text, "what bears lag comes from the replica"


def test_nothing_stays_in_a_database_session(build: Build, postgres: Postgres) -> None:
    """PgBouncer's transaction pooling gives each transaction another session."""
    app = build()
    visitor = Visitor(app.test_client())
    visitor.sign_up()
    visitor.add(5)
    for number in range(8):
        visitor.get("/orders")
        order(app.test_client(), guest(app.test_client()), f"session-{number}", (5, 1))
    pool = app.extensions["shop"].databases.pool("orders")
    with pool.connection() as connection:
        assert connection.execute("SELECT * FROM pg_prepared_statements").fetchall() == []
        changed = "SELECT name FROM pg_settings WHERE source = 'session'"
        assert connection.execute(changed).fetchall() == []
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert connection.execute(held).fetchall() == []


@pytest.fixture
def pooler(postgres: Postgres) -> Iterator[str]:
    """PgBouncer in transaction pooling with two server connections; its URL, less the database."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("needs PgBouncer (Debian package: pgbouncer)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = postgres.directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = user=shop host={postgres.directory}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
    )
    command = [program, str(settings)]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, "no PgBouncer"
            time.sleep(0.05)
    yield f"postgresql://shop@127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def test_all_of_it_through_pgbouncer(pooler: str, postgres: Postgres, build: Build) -> None:
    url = f"{pooler}/{postgres.new_database()}"
    assert len(migrate.migrate(migrate_urls({"DATABASE_URL": url}))) == 5
    app = build(DATABASE_URL=url)

    def shop(number: int) -> int:
        visitor = Visitor(app.test_client())
        visitor.sign_up(f"ann-{number}@example.test")
        for _ in range(3):
            visitor.add(5)
        placed = visitor.post("/orders", "/cart", key=f"pooled-{number:04}")
        assert "€48.00" in visitor.get(placed.location).text
        who = guest(visitor.client)
        return order(visitor.client, who, f"pooled-{number:04}", (1, 1)).status_code

    with concurrent.futures.ThreadPoolExecutor(6) as crowd:
        assert list(crowd.map(shop, range(12))) == [201] * 12


# The database goes away and comes back


def test_a_database_that_restarts(build: Build, postgres: Postgres) -> None:
    app = build()
    client = app.test_client()
    who = guest(client)
    with concurrent.futures.ThreadPoolExecutor(6) as users:  # several connections in the pool
        list(users.map(lambda n: order(app.test_client(), who, f"before-{n}", (5, 1)), range(12)))
    postgres.stop()
    try:
        for path in ("/", "/api/products", "/health/ready"):
            started = time.monotonic()
            answer = client.get(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
            assert time.monotonic() - started < 1
        assert order(client, who, "while-away", (5, 1)).status_code == 503
        assert client.get("/health/alive").status_code == 200
    finally:
        postgres.start()
    # The very first requests succeed, whatever the pool held before.
    for number in range(12):
        assert order(client, who, f"afterwards-{number}", (5, 1)).status_code == 201
    assert client.get("/health/ready").status_code == 200


def test_a_database_that_hangs_is_not_ready(build: Build, postgres: Postgres) -> None:
    client = build().test_client()
    assert client.get("/health/ready").status_code == 200
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'shop'"
    backends = [row[0] for row in postgres.ask("postgres", sql)]
    assert backends

    def tell(number: int) -> None:
        for pid in backends:
            os.kill(pid, number)

    awake = threading.Timer(6, tell, [signal.SIGCONT])  # so that a failure does not hang as well
    awake.start()
    tell(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert client.get("/health/ready").status_code == 503
        assert time.monotonic() - started < 2
    finally:
        awake.cancel()
        tell(signal.SIGCONT)
    assert client.get("/health/ready").status_code == 200


# Cache and session store


class Store:
    """A Valkey or Redis server."""

    def __init__(self, program: str, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.command = [program, "--port", str(self.port), "--save", "", "--dir", str(directory)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the store does not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self):  # type: ignore[no-untyped-def]
        import redis

        return redis.Redis.from_url(self.url)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("needs a server (Debian package: valkey-server or redis-server)")
    made = Store(program, tmp_path)
    yield made
    made.stop()


def test_sessions_and_catalogue_come_from_the_store(
    build: Build, store: Store, postgres: Postgres, database: str
) -> None:
    visitor = Visitor(build(SESSION_URL=store.url, CACHE_URL=store.url).test_client())
    visitor.sign_up()
    assert visitor.get("/").status_code == 200
    keys = {key.decode().rsplit(":", 1)[0] for key in store.client().keys("*")}
    assert keys == {"shop:cache:products", "shop:session:1"}
    postgres.ask(database, "ALTER TABLE sessions RENAME TO elsewhere")
    assert visitor.get("/orders").status_code == 200, "the session was found in the store"
    postgres.ask(database, "ALTER TABLE elsewhere RENAME TO sessions")
    postgres.ask(database, "UPDATE products SET name = 'New Mug' WHERE id = 5")
    assert "New Mug" not in visitor.get("/").text, "the catalogue came from the cache"

    assert visitor.post("/logout", "/").status_code == 303
    assert not store.client().keys("shop:session:*")


def test_losing_the_store_logs_nobody_out(build: Build, store: Store) -> None:
    app = build(SESSION_URL=store.url, CACHE_URL=store.url)
    visitor = Visitor(app.test_client())
    visitor.sign_up()
    visitor.add(5)
    store.client().flushall()
    assert visitor.get("/orders").status_code == 200

    store.stop()
    for _ in range(3):
        assert visitor.get("/orders").status_code == 200
        assert visitor.get("/").status_code == 200
    ready = visitor.get("/health/ready")
    assert (ready.status_code, ready.json["status"]) == (200, "degraded")
    assert ready.json["checks"]["cache"] == ready.json["checks"]["sessions"] == "away"
    placed = visitor.post("/orders", "/cart", key="without-a-cache")
    assert visitor.get(placed.location).status_code == 200

    store.start()
    deadline = time.monotonic() + 5
    while visitor.get("/health/ready").json["status"] != "ready":
        assert time.monotonic() < deadline, "the store is back, and the application does not see it"
        time.sleep(0.1)


# Under gunicorn, as it is deployed


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


def call(path: Path, method: str, target: str, body: object = None, **headers: str):  # type: ignore[no-untyped-def]
    connection = UnixConnection(path)
    sent = None if body is None else json.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, target, sent, {"Content-Type": "application/json", **names})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_request_in_flight_is_finished_when_the_server_is_told_to_stop(
    postgres: Postgres, database: str
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="shop-"))
    path = directory / "a.sock"
    env = {
        **os.environ,
        "SOCKET": str(path),
        "DATABASE_URL": postgres.url(database),
        "SECRET_KEY": "k" * 32,
        "RELEASE": "r9",
        "WEB_CONCURRENCY": "1",
    }
    command = [str(Path(sys.executable).with_name("gunicorn")), "shop.wsgi:app"]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=APP, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                assert call(path, "GET", "/health/ready")[0] == 200
                break
            except OSError:
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.1)
        _, given = call(path, "POST", "/api/guests")
        who = {"Authorization": f"Bearer {given['token']}", "Idempotency_Key": "in-flight"}
        body = {"items": [{"product_id": 5}]}
        with (
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            psycopg.connect(postgres.url(database, "postgres")) as blocker,
        ):
            blocker.execute("SELECT 1 FROM stock WHERE product_id = 5 FOR UPDATE")
            waiting = pool.submit(call, path, "POST", "/api/orders", body, **who)
            blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not postgres.ask(database, blocked):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert server.poll() is None, "the server ended with a request in flight"
            blocker.rollback()
            status, answer = waiting.result()
        assert (status, answer["release"]) == (201, "r9")
        assert server.wait(15) == 0
        lines = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
        assert any(line.get("path") == "/api/orders" and line["status"] == 201 for line in lines)
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(directory)
