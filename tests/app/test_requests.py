"""Requests to an application whose database and caches are not there."""

from __future__ import annotations

import time

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from shop import accounts
from shop.application import create_app
from shop.config import Config


@pytest.fixture
def client() -> FlaskClient:
    env = {
        "DATABASE_URL": "postgresql://shop@127.0.0.1:1/shop",
        "CACHE_URL": "redis://127.0.0.1:1/0",
        "SECRET_KEY": "k" * 32,
        "RELEASE": "r7",
    }
    return create_app(Config.from_environment(env)).test_client()


def test_alive_needs_nothing(client: FlaskClient) -> None:
    answer = client.get("/health/alive")
    assert answer.status_code == 200
    assert answer.get_json() == {"status": "alive", "release": "r7"}
    assert answer.headers["X-Release"] == "r7"


def test_not_ready_without_the_database_and_it_says_so_soon(client: FlaskClient) -> None:
    started = time.monotonic()
    answer = client.get("/health/ready")
    assert time.monotonic() - started < 1.5
    assert answer.status_code == 503
    body = answer.get_json()
    assert body["status"] == "unavailable"
    assert body["checks"]["orders"].startswith("away")
    assert body["checks"]["cache"] == "away"
    assert body["checks"]["sessions"] == "off"


@pytest.mark.parametrize("path", ["/", "/products/camp-mug", "/cart"])
def test_pages_answer_503_while_the_database_is_away(client: FlaskClient, path: str) -> None:
    if path == "/cart":
        with client.session_transaction() as session:
            session["user"], session["id"] = 1, "x"
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert b"Back in a moment" in answer.data


def test_the_api_answers_503_as_json(client: FlaskClient) -> None:
    answer = client.get("/api/products")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.get_json()["error"]["code"] == "database_away"


def test_a_server_that_lets_nobody_in_any_more_is_away(client: FlaskClient) -> None:
    """PgBouncer passes on what a server said at a login, as if it were a statement's error."""

    def refused() -> None:
        raise psycopg.errors.InsufficientPrivilege('permission denied for database "shop"')

    client.application.add_url_rule("/refused", view_func=refused)
    answer = client.get("/refused")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_what_the_key_before_has_signed_is_still_good() -> None:
    def app(**keys: str) -> Flask:
        return create_app(Config.from_environment({"DATABASE_URL": "postgresql://x", **keys}))

    with app(SECRET_KEY="old").app_context():
        token = accounts._tokens().dumps(7)
    rotated = app(SECRET_KEY="new", SECRET_KEY_FALLBACKS="old")
    with rotated.app_context():
        assert accounts.user_of_token(token) == 7
        fresh = accounts._tokens().dumps(8)
    with app(SECRET_KEY="new").app_context():
        assert accounts.user_of_token(token) is None, "the old key's time is over"
        assert accounts.user_of_token(fresh) == 8, "the new key signs"
    assert rotated.config["SECRET_KEY_FALLBACKS"] == ["old"]


def test_forms_need_their_token(client: FlaskClient) -> None:
    fields = {"email": "a@b.test", "password": "long enough"}
    assert client.post("/login", data=fields).status_code == 400
    client.get("/login")
    assert client.post("/login", data=fields | {"csrf_token": "guess"}).status_code == 400
    with client.session_transaction() as session:
        token = session["csrf"]
    assert client.post("/login", data=fields | {"csrf_token": token}).status_code == 503


@pytest.mark.parametrize(("proto", "secure"), [("http", False), ("https", True)])
def test_cookies_are_secure_when_the_visitor_came_by_https(
    client: FlaskClient, proto: str, secure: bool
) -> None:
    cookie = client.get("/login", headers={"X-Forwarded-Proto": proto}).headers["Set-Cookie"]
    assert ("Secure" in cookie) is secure
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_security_headers(client: FlaskClient) -> None:
    headers = client.get("/login").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "no-cache" in headers["Cache-Control"]


def test_the_footer_shows_the_release(client: FlaskClient) -> None:
    assert b'<code id="release">r7</code>' in client.get("/login").data


def test_what_a_visitor_types_is_escaped(client: FlaskClient) -> None:
    page = client.get("/login?next=/%22%3E%3Cscript%3E").data
    assert b"<script" not in page and b"&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("given", "kept"), [("abcdefgh-1234", True), ("short", False), ('x" onload="', False)]
)
def test_request_ids_are_kept_when_they_are_harmless(
    client: FlaskClient, given: str, kept: bool
) -> None:
    answer = client.get("/health/alive", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept


def test_unknown_paths(client: FlaskClient) -> None:
    assert client.get("/nowhere").status_code == 404
    assert client.get("/uploads/..%2f..%2fetc%2fpasswd").status_code == 404
    assert client.get("/static/shop.css").status_code == 200


def test_a_body_that_is_too_large_is_refused(client: FlaskClient) -> None:
    client.get("/login")
    answer = client.post("/login", data={"csrf_token": "x", "email": b"x" * 6_000_000})
    assert answer.status_code == 413


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nonsense", "Basic abc"])
def test_orders_of_the_api_need_a_token(client: FlaskClient, header: str) -> None:
    answer = client.post("/api/orders", json={}, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.get_json()["error"]["code"] == "no_token"
