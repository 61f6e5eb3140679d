"""The pages: plain HTML and forms, nothing that needs a script."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import wraps
from urllib.parse import quote, urlsplit

from flask import (
    Blueprint,
    abort,
    flash,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
)
from flask.typing import ResponseReturnValue

from . import accounts, carts, catalogue, orders, uploads
from .api import KEY
from .services import services
from .web import local_path

blueprint = Blueprint("pages", __name__)

LOW_STOCK = 20


def logged_in(view: Callable[..., ResponseReturnValue]) -> Callable[..., ResponseReturnValue]:
    """Send visitors to the log-in page first."""

    @wraps(view)
    def wrapped(**args: object) -> ResponseReturnValue:
        if accounts.current_user() is None:
            came_from = urlsplit(request.referrer or "").path or "/"
            target = request.full_path if request.method == "GET" else local_path(came_from)
            return redirect(f"/login?next={quote(target.rstrip('?'), safe='')}", 303)
        return view(**args)

    return wrapped


def _user() -> accounts.User:
    user = accounts.current_user()
    if user is None:
        abort(401)
    return user


def _whole_number(name: str, low: int, high: int) -> int:
    """A form field as a number, brought into the range."""
    try:
        value = int(request.form.get(name, ""))
    except ValueError:
        abort(400, "Please enter a number.")
    return max(low, min(value, high))


def _page(template: str, **values: object) -> str:
    return render_template(
        template, user=accounts.current_user(), cart_count=sum(carts.contents().values()), **values
    )


@blueprint.get("/")
def front() -> ResponseReturnValue:
    rows = catalogue.products()
    category, words = request.args.get("category", ""), request.args.get("q", "")[:100]
    return _page(
        "front.html",
        products=catalogue.search(rows, category, words),
        categories=list(dict.fromkeys(row["category"] for row in rows)),
        category=category,
        words=words,
    )


@blueprint.get("/products/<slug>")
def product(slug: str) -> ResponseReturnValue:
    row = catalogue.by_slug(slug)
    if row is None:
        abort(404)
    found = catalogue.reviews(row["id"], fresh=accounts.current_user() is not None)
    return _page(
        "product.html",
        product=row,
        available=orders.stock_of(row["id"]),
        low_stock=LOW_STOCK,
        reviews=found,
        rating=sum(review["rating"] for review in found) / len(found) if found else None,
    )


@blueprint.post("/products/<slug>/reviews")
@logged_in
def review(slug: str) -> ResponseReturnValue:
    row = catalogue.by_slug(slug)
    if row is None:
        abort(404)
    rating = _whole_number("rating", 1, 5)
    body = request.form.get("body", "").strip()[:2000]
    picture = request.files.get("picture")
    name = None
    if not body:
        flash("A review needs a few words.", "error")
        return redirect(f"/products/{slug}#reviews", 303)
    if picture is not None and picture.filename:
        try:
            name = uploads.store(picture.stream, services().config.upload_dir)
        except uploads.UploadError as error:
            flash(str(error), "error")
            return redirect(f"/products/{slug}#reviews", 303)
    user = _user()
    catalogue.write_review(row["id"], user.id, user.name, rating, body, name)
    flash("Thank you for your review.", "good")
    return redirect(f"/products/{slug}#reviews", 303)


@blueprint.get("/uploads/<name>")
def upload(name: str) -> ResponseReturnValue:
    path = uploads.path_of(name)
    if path is None:
        abort(404)
    response = send_from_directory(services().config.upload_dir, path, mimetype="image/jpeg")
    # A name is never used twice.
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


# The cart and orders


def _cart_lines() -> list[dict[str, object]]:
    """What is in the cart and still on sale."""
    known = {row["id"]: row for row in catalogue.products()}
    return [
        {"product": known[product_id], "quantity": quantity}
        for product_id, quantity in carts.contents().items()
        if product_id in known
    ]


@blueprint.get("/cart")
def cart() -> ResponseReturnValue:
    lines = _cart_lines()
    total = sum(line["product"]["price_cents"] * line["quantity"] for line in lines)  # type: ignore[index,operator]
    # The key goes with the form: sending it twice still makes one order.
    return _page("cart.html", lines=lines, total=total, key=secrets.token_urlsafe(16))


@blueprint.post("/cart/add")
def add_to_cart() -> ResponseReturnValue:
    row = catalogue.product(_whole_number("product_id", 0, 2**62))
    if row is None:
        abort(404)
    carts.add(row["id"], _whole_number("quantity", 1, carts.MAX_QUANTITY))
    flash(f"{row['name']} is in your cart.", "good")
    return redirect("/cart", 303)


@blueprint.post("/cart/change")
def change_cart() -> ResponseReturnValue:
    quantity = 0 if "remove" in request.form else _whole_number("quantity", 0, carts.MAX_QUANTITY)
    carts.change(_whole_number("product_id", 0, 2**62), quantity)
    return redirect("/cart", 303)


@blueprint.post("/orders")
@logged_in
def place_order() -> ResponseReturnValue:
    user, key = _user(), request.form.get("key", "")
    if not KEY.fullmatch(key):
        abort(400, "This form is not complete. Please open your cart again.")
    placed = orders.find_by_key(user.id, key)
    if placed is None:
        try:
            placed, _ = orders.place(user.id, key, carts.contents())
        except orders.OrderError as error:
            flash(str(error), "error")
            return redirect("/cart", 303)
        flash("Thank you! Your order is placed.", "good")
    return redirect(f"/orders/{placed.id}", 303)


@blueprint.get("/orders")
@logged_in
def order_history() -> ResponseReturnValue:
    return _page("orders.html", orders=orders.history(_user().id))


@blueprint.get("/orders/<int:order_id>")
@logged_in
def order(order_id: int) -> ResponseReturnValue:
    found = orders.find(_user().id, order_id) if order_id < 2**63 else None
    if found is None:
        abort(404)
    pictures = {row["id"]: row for row in catalogue.products()}
    return _page("order.html", order=found, known=pictures)


# The account


def _enter(user: accounts.User) -> ResponseReturnValue:
    """Log in, take the cart along, go on to where the visitor wanted to be."""
    collected = {} if accounts.current_user() else carts.contents()
    accounts.log_in(user)
    carts.merge(user.id, collected)
    return redirect(local_path(request.form.get("next", "/")), 303)


@blueprint.get("/signup")
def sign_up_form() -> ResponseReturnValue:
    return _page("signup.html", next=local_path(request.args.get("next", "/")), problems=[])


@blueprint.post("/signup")
def sign_up() -> ResponseReturnValue:
    name, email = request.form.get("name", "").strip(), request.form.get("email", "").strip()
    password = request.form.get("password", "")
    problems = accounts.problems(name, email, password)
    if not problems:
        try:
            return _enter(accounts.sign_up(name, email, password))
        except accounts.AccountError as error:
            problems = [str(error)]
    target = local_path(request.form.get("next", "/"))
    return _page("signup.html", next=target, problems=problems, name=name, email=email), 422


@blueprint.get("/login")
def log_in_form() -> ResponseReturnValue:
    return _page("login.html", next=local_path(request.args.get("next", "/")), problems=[])


@blueprint.post("/login")
def log_in() -> ResponseReturnValue:
    email = request.form.get("email", "").strip()
    try:
        user = accounts.check_password(email, request.form.get("password", ""))
    except accounts.AccountError as error:
        target = local_path(request.form.get("next", "/"))
        return _page("login.html", next=target, problems=[str(error)], email=email), 422
    return _enter(user)


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    accounts.log_out()
    session.permanent = False
    flash("You are logged out. See you on the trail.", "good")
    return redirect("/", 303)
