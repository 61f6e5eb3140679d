"""What can be asked without a server."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from pathlib import Path

import pytest
from shop import accounts, api, carts, catalogue, config, migrate, orders, uploads, web
from shop.cache import Cache
from shop.db import Slow, _bounded
from shop.log import JsonFormatter


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("/cart", "/cart"),
        ("/?q=a b", "/?q=a b"),
        ("//evil.test/", "/"),
        ("https://evil.test/", "/"),
        ("/\\evil.test", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("", "/"),
    ],
)
def test_we_only_lead_on_to_our_own_pages(target: str, result: str) -> None:
    assert web.local_path(target) == result


@pytest.mark.parametrize(
    ("cents", "text"), [(0, "€0.00"), (5, "€0.05"), (1600, "€16.00"), (123456, "€1,234.56")]
)
def test_money(cents: int, text: str) -> None:
    assert web.money(cents) == text


@pytest.mark.parametrize(
    ("static", "source"),
    [
        ("/static/", "style-src 'self';"),
        ("https://cdn.test/s/", "style-src 'self' https://cdn.test;"),
        ("//cdn.test/", "style-src 'self' https://cdn.test;"),
    ],
)
def test_the_content_security_policy_names_where_static_files_are(static: str, source: str) -> None:
    policy = web.content_security_policy(static)
    assert source in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    ("name", "email", "password", "count"),
    [
        ("Ann", "ann@example.test", "long enough", 0),
        ("", "ann@example.test", "long enough", 1),
        ("Ann", "ann", "long enough", 1),
        ("Ann", "ann@localhost", "long enough", 1),
        ("Ann", "a b@example.test", "long enough", 1),
        ("Ann", "ann@example.test", "short", 1),
        ("x" * 81, "@", "", 3),
    ],
)
def test_sign_up_fields(name: str, email: str, password: str, count: int) -> None:
    assert len(accounts.problems(name, email, password)) == count


def test_ids_of_orders_rise_and_stay_exact_in_json() -> None:
    first = orders.new_id()
    time.sleep(0.002)
    assert 0 < first < orders.new_id() < 2**53


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"items": [{"product_id": 1, "quantity": 2}, {"product_id": 5}]}, {1: 2, 5: 1}),
        ({"items": [{"product_id": 1}, {"product_id": 1, "quantity": 3}]}, {1: 4}),
    ],
)
def test_items_of_an_order(body: object, wanted: dict[int, int]) -> None:
    assert api.wanted_items(body) == wanted


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"items": []},
        {"items": "1"},
        {"items": [1]},
        {"items": [{"product_id": "1"}]},
        {"items": [{"product_id": True}]},
        {"items": [{"product_id": 0}]},
        {"items": [{"product_id": 2**63}]},
        {"items": [{"product_id": 1, "quantity": 0}]},
        {"items": [{"product_id": 1, "quantity": -1}]},
        {"items": [{"product_id": 1, "quantity": 1.5}]},
        {"items": [{"product_id": 1, "quantity": 60}, {"product_id": 1, "quantity": 60}]},
        {"items": [{"product_id": n} for n in range(1, orders.MAX_LINES + 2)]},
    ],
)
def test_items_that_are_refused(body: object) -> None:
    with pytest.raises(api.ApiError) as refused:
        api.wanted_items(body)
    assert refused.value.status == 400


def test_search_needs_all_words_and_the_category() -> None:
    rows = [
        {"category": "Cook", "name": "Mug", "summary": "Enamel", "description": "Holds tea"},
        {"category": "Wear", "name": "Boots", "summary": "Leather", "description": "Holds feet"},
    ]

    def names(category: str, words: str) -> list[str]:
        return [row["name"] for row in catalogue.search(rows, category, words)]

    assert names("", "") == ["Mug", "Boots"]
    assert names("Wear", "") == ["Boots"]
    assert names("", "HOLDS tea") == ["Mug"]
    assert names("Wear", "tea") == []


def test_uploaded_names_cannot_lead_elsewhere() -> None:
    good = "ab" * 16 + ".jpg"
    assert uploads.path_of(good) == f"ab/{good}"
    for bad in ("../" + good, good + "/x", good.upper(), "a.jpg", good + "\n", ""):
        assert uploads.path_of(bad) is None


def test_a_query_that_is_not_answered_ends_at_its_limit() -> None:
    def silent_server():  # type: ignore[no-untyped-def]
        while True:
            yield "wait"

    exchange = _bounded(silent_server(), time.monotonic() + 0.05)
    assert next(exchange) == "wait"
    assert exchange.send(None) == "wait"
    time.sleep(0.06)
    with pytest.raises(Slow):
        exchange.send(None)


def test_a_dead_cache_is_a_miss_and_is_left_alone_for_a_while() -> None:
    with socket.socket() as listener:  # accepts nothing: the worst kind of dead
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        cache = Cache(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", "t:")
        assert cache.get("a") is None
        started = time.monotonic()
        for _ in range(50):
            cache.set("a", 1, 10)
            assert cache.get("a") is None
        assert time.monotonic() - started < 0.1
        assert cache.check() == "away"


def test_no_cache_configured_is_no_problem() -> None:
    cache = Cache(None, "t:")
    cache.set("a", 1, 10)
    cache.delete("a")
    assert (cache.get("a"), cache.check()) == (None, "off")


def test_log_lines_are_json_with_fields_and_errors() -> None:
    try:
        raise ValueError("broken\nrope")
    except ValueError as error:
        raised = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "hi %s", ("you",), raised)
    record.fields = {"status": 200}
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert (line["message"], line["status"], line["level"]) == ("hi you", 200, "info")
    assert "broken" in line["exception"]


@pytest.mark.parametrize("function", config.FUNCTIONS)
def test_migrations_are_numbered_and_only_expand(function: str) -> None:
    found = migrate.files(function)
    assert list(found) == list(range(1, len(found) + 1))
    for path in found.values():
        text = re.sub(r"--.*", "", path.read_text()).upper()
        for contracting in ("DROP ", "RENAME ", "TRUNCATE ", "SET NOT NULL", "CONCURRENTLY"):
            assert contracting not in text, f"{path.name}: {contracting}"
        for create in re.findall(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX)(?: \w+){3}", text):
            assert "IF NOT EXISTS" in create, f"{path.name}: {create}"
        assert text.count("INSERT INTO") == text.count("ON CONFLICT")


def test_pages_need_no_script_and_no_inline_style() -> None:
    for template in (config.HERE / "templates").glob("*.html"):
        text = template.read_text()
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", text), template.name
        posts = len(re.findall(r'method="post"', text))
        assert text.count('name="csrf_token"') == posts, template.name
        assert "|safe" not in text and "autoescape" not in text, template.name


def test_every_picture_of_the_catalogue_is_shipped() -> None:
    sql = migrate.files("catalogue")[2].read_text()
    names = re.findall(r"'(\w+\.svg)'", sql)
    assert len(names) == 12
    for name in names:
        assert (config.HERE / "static" / "img" / name).is_file()


def test_limits_agree() -> None:
    assert carts.MAX_LINES <= orders.MAX_LINES
    assert carts.MAX_QUANTITY <= orders.MAX_QUANTITY


def test_the_banner_is_one_line() -> None:
    text = (Path(config.HERE) / "banner.txt").read_text()
    assert text.endswith("\n") and text.count("\n") == 1
