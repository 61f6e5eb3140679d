"""What all requests have in common: form tokens, headers, log lines, error pages."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from datetime import datetime
from urllib.parse import urlsplit

from flask import Flask, Response, abort, g, jsonify, render_template, request, session
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from .db import AWAY
from .services import services

log = logging.getLogger("shop.request")

RETRY_AFTER = 2  # seconds
REQUEST_ID = re.compile(r"[A-Za-z0-9_.=-]{8,100}")


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookies, marked secure when the visitor came by HTTPS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def static_url(name: str) -> str:
    """The address of a static file; the release in it lets browsers keep it for long."""
    config = services().config
    return f"{config.static_url}{name}?v={config.release}"


def money(cents: int) -> str:
    """Cents as euros: 123456 -> '€1,234.56'."""
    return f"€{cents / 100:,.2f}"


def day(moment: datetime) -> str:
    """A date as people write it: '23 November 2026'."""
    return f"{moment.day} {moment:%B %Y}"


def csrf_token() -> str:
    """The token that each form of this session must send."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    token: str = session["csrf"]
    return token


def local_path(target: str) -> str:
    """A path of this site to go on to, else the front page: never another site."""
    fine = target.startswith("/") and not target.startswith("//") and "\\" not in target
    return target if fine and target.isprintable() else "/"


def content_security_policy(static: str) -> str:
    """Nothing but our own files; `static` may be on another host."""
    parts = urlsplit(static)
    other = f" {parts.scheme or 'https'}://{parts.netloc}" if parts.netloc else ""
    return (
        f"default-src 'none'; img-src 'self'{other}; style-src 'self'{other}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _before() -> None:
    g.started = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _check_form() -> None:
    # The API has no cookies to abuse: it takes tokens only.
    if request.method != "POST" or request.blueprint == "api":
        return
    sent = request.form.get("csrf_token", "")
    known = session.get("csrf", "")
    if not known or not hmac.compare_digest(sent.encode(), known.encode()):
        abort(400, "This form has expired. Please go back, reload the page and send it again.")


def _after(response: Response) -> Response:
    config = services().config
    headers = response.headers
    headers["X-Release"] = config.release
    headers["X-Request-ID"] = g.get("request_id", "")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    headers["Content-Security-Policy"] = content_security_policy(config.static_url)
    if request.endpoint not in ("static", "pages.upload"):
        page = request.blueprint == "pages"
        headers["Cache-Control"] = "private, no-cache" if page else "no-store"
    if request.blueprint != "health" or response.status_code != 200:
        user = g.get("user")
        fields = {
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "ms": round((time.perf_counter() - g.get("started", time.perf_counter())) * 1000, 1),
            "bytes": response.content_length,
            "remote": request.remote_addr,
            "user": user.id if user else None,
            "request_id": g.get("request_id"),
            "release": config.release,
        }
        log.info("request", extra={"fields": fields})
    return response


def _database_away(error: Exception) -> ResponseReturnValue:
    log.warning("database away: %s", error, extra={"fields": {"path": request.path}})
    message = "We cannot reach our books for a moment. Please try again in a few seconds."
    if request.blueprint == "api":
        response = jsonify(error={"code": "database_away", "message": message})
    else:
        response = Response(render_template("error.html", title="Back in a moment", text=message))
    response.status_code = 503
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _http_error(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error.get_response()
    title = "Nothing here" if error.code == 404 else error.name
    text = error.description or ""
    if error.code == 404:
        text = "This path leads nowhere. The shop is the other way."
    return render_template("error.html", title=title, text=text), error.code


def _for_templates() -> dict[str, object]:
    config = services().config
    return {"release": config.release, "host_name": config.host_name, "banner": config.banner}


def set_up(app: Flask) -> None:
    """Attach all this to the application."""
    app.session_interface = Sessions()
    app.before_request(_before)
    app.before_request(_check_form)
    app.after_request(_after)
    for kind in AWAY:
        app.register_error_handler(kind, _database_away)
    app.register_error_handler(HTTPException, _http_error)
    app.jinja_env.filters.update(money=money, day=day)
    app.jinja_env.globals.update(
        static_url=static_url,
        csrf_token=csrf_token,
    )
    app.context_processor(_for_templates)
