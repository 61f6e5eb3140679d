"""What the environment says, read once and checked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# The parts of the data that may one day live in databases of their own.
FUNCTIONS = ("users", "catalogue", "orders")


class ConfigError(Exception):
    """The environment lacks something or contradicts itself."""


@dataclass(frozen=True)
class Config:
    """The application's settings."""

    write_urls: Mapping[str, str]  # function -> URL: writes, and reads of what was just written
    read_urls: Mapping[str, str]  # function -> URL: reads that bear some lag
    cache_url: str | None
    session_url: str | None
    static_url: str
    upload_dir: Path
    secret_key: str
    secret_key_fallbacks: tuple[str, ...]  # what they have signed is good, nothing new is signed
    release: str
    host_name: str
    banner: str

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Config:
        """Build the settings; raises ConfigError and says what is missing."""

        def get(name: str) -> str | None:
            return env.get(name, "").strip() or None

        main = get("DATABASE_URL") or get("DATABASE_URL_MAIN")
        write_urls: dict[str, str] = {}
        read_urls: dict[str, str] = {}
        for function in FUNCTIONS:
            own = get(f"DATABASE_URL_{function.upper()}")
            url = own or main
            if url is None:
                raise ConfigError(
                    f"No database for the function '{function}': set DATABASE_URL "
                    f"(or DATABASE_URL_{function.upper()}), for example "
                    "postgresql://shop:password@127.0.0.1:5432/shop"
                )
            write_urls[function] = url
            # The replica of the main database knows nothing of a function that moved out.
            replica = get(f"DATABASE_READ_URL_{function.upper()}")
            read_urls[function] = replica or (own or get("DATABASE_READ_URL") or url)

        static_url = get("STATIC_URL") or "/static/"
        return cls(
            write_urls=write_urls,
            read_urls=read_urls,
            cache_url=get("CACHE_URL"),
            session_url=get("SESSION_URL"),
            static_url=static_url if static_url.endswith("/") else static_url + "/",
            upload_dir=Path(get("UPLOAD_DIR") or "uploads").resolve(),
            secret_key=get("SECRET_KEY") or secrets.token_hex(32),
            secret_key_fallbacks=tuple(
                key for key in (get("SECRET_KEY_FALLBACKS") or "").split(",") if key
            ),
            release=get("RELEASE") or "by-hand",
            host_name=get("HOST_NAME") or "",
            banner=(HERE / "banner.txt").read_text(encoding="utf-8").strip(),
        )


def migrate_urls(env: Mapping[str, str]) -> dict[str, str]:
    """Function -> URL for migrations: DATABASE_MIGRATE_URL[_<FUNCTION>], else as for writes."""
    urls = dict(Config.from_environment(env).write_urls)
    for function in FUNCTIONS:
        own = env.get(f"DATABASE_MIGRATE_URL_{function.upper()}")
        moved_out = env.get(f"DATABASE_URL_{function.upper()}")
        urls[function] = (
            own or (not moved_out and env.get("DATABASE_MIGRATE_URL")) or urls[function]
        )
    return urls
