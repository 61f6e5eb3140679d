"""The JSON API: products for all, orders for guests with a token."""

from __future__ import annotations

import re

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from . import accounts, catalogue, orders
from .services import services
from .web import static_url

blueprint = Blueprint("api", __name__, url_prefix="/api")

KEY = re.compile(r"[\x21-\x7e]{8,100}")
STATUS = {"unknown_product": 422, "key_reused": 422, "empty": 422}  # else 409


class ApiError(Exception):
    """Answered as JSON with this status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@blueprint.errorhandler(ApiError)
def _refused(error: ApiError) -> ResponseReturnValue:
    response = jsonify(error={"code": error.code, "message": str(error)})
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response, error.status


@blueprint.errorhandler(orders.OrderError)
def _no_order(error: orders.OrderError) -> ResponseReturnValue:
    body = {"code": error.code, "message": str(error)}
    return jsonify(error=body), STATUS.get(error.code, 409)


@blueprint.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> ResponseReturnValue:
    name = (error.name or "error").lower().replace(" ", "_")
    return jsonify(error={"code": name, "message": error.description}), error.code or 500


@blueprint.get("/products")
def list_products() -> ResponseReturnValue:
    rows = catalogue.search(
        catalogue.products(), request.args.get("category", ""), request.args.get("q", "")
    )
    return jsonify(products=[_shown(row) for row in rows], release=services().config.release)


@blueprint.get("/products/<int:product_id>")
def one_product(product_id: int) -> ResponseReturnValue:
    row = catalogue.product(product_id)
    if row is None:
        raise ApiError(404, "not_found", f"There is no product {product_id}.")
    return jsonify(product=_shown(row) | {"available": orders.stock_of(product_id)})


def _shown(row: catalogue.Row) -> catalogue.Row:
    return row | {"currency": "EUR", "picture": static_url(f"img/{row['picture']}")}


@blueprint.post("/guests")
def new_guest() -> ResponseReturnValue:
    user_id, token = accounts.new_guest()
    return jsonify(user_id=user_id, token=token), 201


def _user_id() -> int:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    user_id = accounts.user_of_token(token) if scheme.lower() == "bearer" else None
    if user_id is None:
        raise ApiError(
            401, "no_token", "Send 'Authorization: Bearer <token>'; POST /api/guests gives one."
        )
    return user_id


@blueprint.post("/orders")
def place_order() -> ResponseReturnValue:
    """201 for a new order; 200 with the first one when the key has been used for it."""
    user_id = _user_id()
    key = request.headers.get("Idempotency-Key", "")
    if not KEY.fullmatch(key):
        raise ApiError(
            400,
            "no_idempotency_key",
            "Send an Idempotency-Key of 8 to 100 printable characters, a new one for each order.",
        )
    order, created = orders.place(user_id, key, wanted_items(request.get_json(silent=True)))
    body = {"order": order.as_json(), "release": services().config.release}
    return jsonify(body), 201 if created else 200


def wanted_items(body: object) -> dict[int, int]:
    """Product id -> quantity of a request's body; raises ApiError."""
    lines = body.get("items") if isinstance(body, dict) else None
    if not isinstance(lines, list) or not 1 <= len(lines) <= orders.MAX_LINES:
        raise ApiError(400, "bad_items", 'Send {"items": [{"product_id": 1, "quantity": 1}, ...]}.')
    wanted: dict[int, int] = {}
    for line in lines:
        product_id = line.get("product_id") if isinstance(line, dict) else None
        quantity = line.get("quantity", 1) if isinstance(line, dict) else None
        if type(product_id) is not int or not 0 < product_id < 2**63:
            raise ApiError(400, "bad_items", "Each item needs a product_id, a whole number.")
        if type(quantity) is not int:
            raise ApiError(400, "bad_items", "A quantity is a whole number.")
        wanted[product_id] = wanted.get(product_id, 0) + quantity
        if quantity < 1 or wanted[product_id] > orders.MAX_QUANTITY:
            raise ApiError(400, "bad_items", f"A quantity is 1 to {orders.MAX_QUANTITY}.")
    return wanted


@blueprint.get("/orders")
def list_orders() -> ResponseReturnValue:
    return jsonify(orders=[order.as_json() for order in orders.history(_user_id())])


@blueprint.get("/orders/<int:order_id>")
def one_order(order_id: int) -> ResponseReturnValue:
    order = orders.find(_user_id(), order_id) if order_id < 2**63 else None
    if order is None:
        raise ApiError(404, "not_found", f"You have no order {order_id}.")
    return jsonify(order=order.as_json())
