"""Orders: placed in one transaction, and once only for each idempotency key."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from . import catalogue
from .services import services

EPOCH_MS = 1_735_689_600_000  # 2025-01-01: ids stay below 2**53 (exact in JSON) until 2094
MAX_LINES = 50
MAX_QUANTITY = 99
HISTORY = 100


class OrderError(Exception):
    """The order cannot be placed; the message is for the user, the code for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Item:
    """A line of an order, with name and price as they were."""

    product_id: int
    name: str
    price_cents: int
    quantity: int


@dataclass(frozen=True)
class Order:
    """What a user has ordered."""

    id: int
    total_cents: int
    created_at: datetime
    items: list[Item] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "total_cents": self.total_cents,
            "created_at": self.created_at.astimezone(UTC).isoformat(),
            "items": [vars(item) for item in self.items],
        }


def new_id() -> int:
    """Time-ordered: milliseconds and 12 random bits; unique for one user."""
    return (int(time.time() * 1000) - EPOCH_MS) << 12 | secrets.randbits(12)


def place(user_id: int, key: str, wanted: dict[int, int]) -> tuple[Order, bool]:
    """Place an order, or find the one that was placed with this key.

    Returns the order and whether it is new. Raises OrderError, and psycopg.Error with nothing
    changed (when the connection breaks during COMMIT it is unknown: ask again with the same key).
    """
    known = catalogue.prices(list(wanted))
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise OrderError("unknown_product", f"We do not sell product {missing[0]} any more.")
    if not wanted:
        raise OrderError("empty", "There is nothing in this order.")
    items = [
        Item(product_id, known[product_id]["name"], known[product_id]["price_cents"], quantity)
        for product_id, quantity in sorted(wanted.items())
    ]
    for attempt in range(3):
        try:
            placed = _insert(user_id, key, items)
        except psycopg.errors.UniqueViolation:  # the same id in the same millisecond
            if attempt == 2:
                raise
            continue
        break
    if placed is not None:
        return placed, True
    existing = find_by_key(user_id, key)
    if existing is None:
        raise OrderError("conflict", "This order is being placed already; please ask again.")
    if {item.product_id: item.quantity for item in existing.items} != wanted:
        raise OrderError("key_reused", "This idempotency key belongs to a different order.")
    return existing, False


def _insert(user_id: int, key: str, items: list[Item]) -> Order | None:
    """One transaction; None when the key is taken."""
    total = sum(item.price_cents * item.quantity for item in items)
    product_ids = [item.product_id for item in items]
    with services().databases.transaction("orders") as connection:
        row = connection.execute(
            "INSERT INTO orders (user_id, id, idempotency_key, total_cents)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT (user_id, idempotency_key) DO NOTHING"
            " RETURNING id, created_at",
            (user_id, new_id(), key, total),
        ).fetchone()
        if row is None:
            return None
        connection.execute(
            "INSERT INTO order_items (user_id, order_id, product_id, name, price_cents, quantity)"
            " SELECT %s, %s, * FROM"
            " unnest(%s::bigint[], %s::text[], %s::integer[], %s::integer[])",
            (
                user_id,
                row["id"],
                product_ids,
                [item.name for item in items],
                [item.price_cents for item in items],
                [item.quantity for item in items],
            ),
        )
        connection.execute(
            "DELETE FROM cart_items WHERE user_id = %s AND product_id = ANY(%s)",
            (user_id, product_ids),
        )
        # Last, as everybody wants these rows; by product id, so that nobody waits in a circle.
        for item in items:
            taken = connection.execute(
                "UPDATE stock SET available = available - %s"
                " WHERE product_id = %s AND available >= %s",
                (item.quantity, item.product_id, item.quantity),
            )
            if taken.rowcount != 1:
                raise OrderError("out_of_stock", f"{item.name}: there are not enough left.")
    return Order(row["id"], total, row["created_at"], items)


def find_by_key(user_id: int, key: str) -> Order | None:
    return _one(user_id, "o.idempotency_key = %s", key)


def find(user_id: int, order_id: int) -> Order | None:
    return _one(user_id, "o.id = %s", order_id)


def history(user_id: int) -> list[Order]:
    """The newest orders first; without a replica's lag, as the last may be seconds old."""
    return _many(
        user_id,
        "o.id IN (SELECT id FROM orders WHERE user_id = %s ORDER BY id DESC LIMIT %s)",
        user_id,
        HISTORY,
    )


def _one(user_id: int, condition: str, *args: object) -> Order | None:
    found = _many(user_id, condition, *args)
    return found[0] if found else None


def _many(user_id: int, condition: str, *args: object) -> list[Order]:
    rows = services().databases.query(
        "orders",
        "SELECT o.id, o.total_cents, o.created_at, i.product_id, i.name, i.price_cents, i.quantity"  # noqa: S608 (the conditions are the constants above)
        " FROM orders o JOIN order_items i ON i.user_id = o.user_id AND i.order_id = o.id"
        f" WHERE o.user_id = %s AND {condition} ORDER BY o.id DESC, i.product_id",
        user_id,
        *args,
    )
    found: dict[int, Order] = {}
    for row in rows:
        order = found.setdefault(row["id"], Order(row["id"], row["total_cents"], row["created_at"]))
        order.items.append(
            Item(row["product_id"], row["name"], row["price_cents"], row["quantity"])
        )
    return list(found.values())


def stock_of(product_id: int) -> int:
    rows = services().databases.query_replica(
        "orders", "SELECT available FROM stock WHERE product_id = %s", product_id
    )
    return rows[0]["available"] if rows else 0
