"""Users and their sessions.

The cookie is signed and names the user and the session. The session's record is in the database,
and in the session store in front of it: without a store, or when it loses everything, users stay
logged in; after a log-out a stolen cookie is worth nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

import psycopg
from flask import g, session
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from .services import services

SESSION_DAYS = 30
STORE_SECONDS = 600  # a log-out while the store is away is final after this time
TOKEN_SECONDS = 30 * 86400
HASH_METHOD = "scrypt:16384:8:1"  # 16 MB and some 40 ms: modest, as a box serves everything
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
PASSWORD_MIN, PASSWORD_MAX = 8, 200
# Checked when there is no such user, so that the answer takes as long.
_NOBODY = generate_password_hash(secrets.token_hex(8), HASH_METHOD)


@dataclass(frozen=True)
class User:
    """Somebody who is logged in."""

    id: int
    name: str


class AccountError(Exception):
    """The message is for the user."""


def problems(name: str, email: str, password: str) -> list[str]:
    """What is wrong with the fields of the sign-up form."""
    found = []
    if not 1 <= len(name) <= 80:
        found.append("Please tell us your name (at most 80 letters).")
    if len(email) > 254 or not EMAIL.fullmatch(email):
        found.append("This does not look like an e-mail address.")
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        found.append(f"A password has at least {PASSWORD_MIN} characters.")
    return found


def sign_up(name: str, email: str, password: str) -> User:
    """Create a user; raises AccountError when the address is taken."""
    try:
        rows = services().databases.query(
            "users",
            "INSERT INTO users (email, name, password_hash) VALUES (%s, %s, %s) RETURNING id",
            email,
            name,
            generate_password_hash(password, HASH_METHOD),
        )
    except psycopg.errors.UniqueViolation:
        raise AccountError("There is an account with this address. Log in instead?") from None
    return User(rows[0]["id"], name)


def check_password(email: str, password: str) -> User:
    """The user with this address and password; raises AccountError."""
    rows = services().databases.query(
        "users", "SELECT id, name, password_hash FROM users WHERE lower(email) = lower(%s)", email
    )
    stored = rows[0]["password_hash"] if rows else None
    if not check_password_hash(stored or _NOBODY, password[:PASSWORD_MAX]) or not stored:
        raise AccountError("The address or the password is not right.")
    return User(rows[0]["id"], rows[0]["name"])


def log_in(user: User) -> None:
    """Start a session with a fresh id and a fresh form token."""
    secret = secrets.token_urlsafe(32)
    with services().databases.transaction("users") as connection:
        connection.execute(
            "DELETE FROM sessions WHERE user_id = %s AND expires_at < now()", (user.id,)
        )
        connection.execute(
            "INSERT INTO sessions (user_id, id, expires_at)"
            " VALUES (%s, %s, now() + make_interval(days => %s))",
            (user.id, _digest(secret), SESSION_DAYS),
        )
    session.clear()
    session.permanent = True
    session["user"], session["id"] = user.id, secret
    g.user = user


def log_out() -> None:
    user_id, secret = session.get("user"), session.get("id")
    session.clear()
    g.user = None
    if user_id is None or secret is None:
        return
    services().databases.query(
        "users",
        "DELETE FROM sessions WHERE user_id = %s AND id = %s RETURNING id",
        user_id,
        _digest(secret),
    )
    services().sessions.delete(f"{user_id}:{_digest(secret)}")


def current_user() -> User | None:
    """Who is logged in; asked once a request."""
    if "user" not in g:
        g.user = _from_cookie()
    user: User | None = g.user
    return user


def _from_cookie() -> User | None:
    user_id, secret = session.get("user"), session.get("id")
    if user_id is None or secret is None:
        return None
    key = f"{user_id}:{_digest(secret)}"
    record = services().sessions.get(key)
    if record is None:
        rows = services().databases.query(
            "users",
            "SELECT u.name FROM sessions s JOIN users u ON u.id = s.user_id"
            " WHERE s.user_id = %s AND s.id = %s AND s.expires_at > now()",
            user_id,
            _digest(secret),
        )
        if not rows:
            session.clear()
            return None
        record = {"name": rows[0]["name"]}
        services().sessions.set(key, record, STORE_SECONDS)
    return User(user_id, record["name"])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# Guests of the API: a signed token instead of a session.


def _tokens() -> URLSafeTimedSerializer:
    config = services().config
    # The last one signs.
    keys = [*reversed(config.secret_key_fallbacks), config.secret_key]
    return URLSafeTimedSerializer(keys, salt="api token")


def new_guest() -> tuple[int, str]:
    """A user without address and password, and the token for it."""
    rows = services().databases.query(
        "users", "INSERT INTO users (name) VALUES ('Guest') RETURNING id"
    )
    user_id: int = rows[0]["id"]
    return user_id, _tokens().dumps(user_id)


def user_of_token(token: str) -> int | None:
    try:
        user_id = _tokens().loads(token, max_age=TOKEN_SECONDS)
    except BadSignature:
        return None
    return int(user_id)
