"""What the request handlers work with, made once a process."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from .cache import Cache
from .config import Config
from .db import Databases


@dataclass(frozen=True)
class Services:
    """The settings and the connections of this process."""

    config: Config
    databases: Databases
    cache: Cache
    sessions: Cache

    @classmethod
    def build(cls, config: Config) -> Services:
        return cls(
            config=config,
            databases=Databases(config),
            cache=Cache(config.cache_url, "shop:cache:"),
            sessions=Cache(config.session_url, "shop:session:"),
        )


def services() -> Services:
    """The services of the current application."""
    found: Services = current_app.extensions["shop"]
    return found
