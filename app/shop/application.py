"""The application, put together."""

from __future__ import annotations

from datetime import timedelta

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from . import accounts, api, health, pages, uploads, web
from .config import Config
from .services import Services


def create_app(config: Config) -> Flask:
    """Build the application for these settings; connects to nothing yet."""
    app = Flask("shop", static_url_path="/static")
    app.secret_key = config.secret_key
    app.config.update(
        SECRET_KEY_FALLBACKS=list(config.secret_key_fallbacks),
        MAX_CONTENT_LENGTH=uploads.MAX_BYTES + 64 * 1024,
        SEND_FILE_MAX_AGE_DEFAULT=3600,
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(days=accounts.SESSION_DAYS),
    )
    app.extensions["shop"] = Services.build(config)
    web.set_up(app)
    for part in (health, api, pages):
        app.register_blueprint(part.blueprint)
    # nginx is the one hop in front; what it says about the visitor is believed.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
    return app
