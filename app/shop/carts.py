"""The cart: in the signed cookie before the log-in, in the database after it."""

from __future__ import annotations

from flask import session

from .accounts import current_user
from .services import services

MAX_QUANTITY = 99
MAX_LINES = 20  # a cookie has little room


def contents() -> dict[int, int]:
    """Product id -> quantity."""
    user = current_user()
    if user is None:
        stored: dict[str, int] = session.get("cart", {})
        return {int(product_id): quantity for product_id, quantity in stored.items()}
    rows = services().databases.query(
        "orders",
        "SELECT product_id, quantity FROM cart_items WHERE user_id = %s ORDER BY added_at",
        user.id,
    )
    return {row["product_id"]: row["quantity"] for row in rows}


def add(product_id: int, quantity: int) -> None:
    user = current_user()
    if user is None:
        cart = contents()
        if product_id not in cart and len(cart) >= MAX_LINES:
            return
        cart[product_id] = min(cart.get(product_id, 0) + quantity, MAX_QUANTITY)
        session["cart"] = {str(key): value for key, value in cart.items()}
        return
    _add_rows(user.id, {product_id: quantity})


def change(product_id: int, quantity: int) -> None:
    """Set the quantity of a line; 0 removes it."""
    user = current_user()
    if user is None:
        cart = contents()
        if product_id in cart:
            cart[product_id] = quantity
        session["cart"] = {str(key): value for key, value in cart.items() if value > 0}
    elif quantity > 0:
        services().databases.query(
            "orders",
            "UPDATE cart_items SET quantity = %s WHERE user_id = %s AND product_id = %s"
            " RETURNING product_id",
            quantity,
            user.id,
            product_id,
        )
    else:
        services().databases.query(
            "orders",
            "DELETE FROM cart_items WHERE user_id = %s AND product_id = %s RETURNING product_id",
            user.id,
            product_id,
        )


def merge(user_id: int, cart: dict[int, int]) -> None:
    """Bring what was collected before the log-in into the user's cart."""
    if cart:
        _add_rows(user_id, cart)


def _add_rows(user_id: int, cart: dict[int, int]) -> None:
    ordered = sorted(cart.items())  # rows are always locked in the same order
    services().databases.query(
        "orders",
        "INSERT INTO cart_items (user_id, product_id, quantity)"
        " SELECT %s, * FROM unnest(%s::bigint[], %s::integer[])"
        " ON CONFLICT (user_id, product_id) DO UPDATE"
        " SET quantity = least(cart_items.quantity + excluded.quantity, %s) RETURNING product_id",
        user_id,
        [product_id for product_id, _ in ordered],
        [quantity for _, quantity in ordered],
        MAX_QUANTITY,
    )
