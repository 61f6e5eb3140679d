"""Products and reviews: read by everyone, cached for a short time."""

from __future__ import annotations

from typing import Any

from .services import services

CACHE_SECONDS = 30
REVIEWS_SHOWN = 50

Row = dict[str, Any]


def products() -> list[Row]:
    """All products on sale, as the shop shows them."""
    # A release may change the fields: it must not read what the one before has cached.
    key = f"products:{services().config.release}"
    found: list[Row] | None = services().cache.get(key)
    if found is None:
        found = services().databases.query_replica(
            "catalogue",
            "SELECT id, slug, name, category, summary, description, price_cents, picture"
            " FROM products WHERE active ORDER BY id",
        )
        services().cache.set(key, found, CACHE_SECONDS)
    return found


def product(product_id: int) -> Row | None:
    return next((row for row in products() if row["id"] == product_id), None)


def by_slug(slug: str) -> Row | None:
    return next((row for row in products() if row["slug"] == slug), None)


def search(rows: list[Row], category: str, words: str) -> list[Row]:
    """Those of a category ('' is any) whose texts contain all words."""
    wanted = words.lower().split()
    return [
        row
        for row in rows
        if category in ("", row["category"])
        and all(
            word in f"{row['name']} {row['summary']} {row['description']}".lower()
            for word in wanted
        )
    ]


def prices(product_ids: list[int]) -> dict[int, Row]:
    """Name and price to order by: never from a cache or a replica."""
    rows = services().databases.query(
        "catalogue",
        "SELECT id, name, price_cents FROM products WHERE active AND id = ANY(%s)",
        product_ids,
    )
    return {row["id"]: row for row in rows}


def reviews(product_id: int, *, fresh: bool) -> list[Row]:
    """The newest reviews; fresh for those who may just have written one."""
    databases = services().databases
    ask = databases.query if fresh else databases.query_replica
    return ask(
        "catalogue",
        "SELECT author, rating, body, picture, created_at FROM reviews"
        " WHERE product_id = %s ORDER BY created_at DESC LIMIT %s",
        product_id,
        REVIEWS_SHOWN,
    )


def write_review(
    product_id: int, user_id: int, author: str, rating: int, body: str, picture: str | None
) -> None:
    """Write or replace a user's review of a product."""
    services().databases.query(
        "catalogue",
        "INSERT INTO reviews (product_id, user_id, author, rating, body, picture)"
        " VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (product_id, user_id) DO UPDATE SET author = excluded.author,"
        " rating = excluded.rating, body = excluded.body, created_at = now(),"
        " picture = coalesce(excluded.picture, reviews.picture) RETURNING product_id",
        product_id,
        user_id,
        author,
        rating,
        body,
        picture,
    )
