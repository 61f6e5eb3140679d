"""The WSGI application: `gunicorn shop.wsgi:app`."""

from __future__ import annotations

import os

from . import log
from .application import create_app
from .config import Config

log.configure()
app = create_app(Config.from_environment(os.environ))
