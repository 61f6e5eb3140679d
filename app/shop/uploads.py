"""Pictures that users send: looked at, made anew, stored under a random name."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import warnings
from pathlib import Path
from typing import IO

MAX_BYTES = 5 * 1024 * 1024
MAX_PIXELS = 40_000_000
MAX_SIDE = 1280
FORMATS = ("JPEG", "PNG", "WEBP")
NAME = re.compile(r"[0-9a-f]{32}\.jpg")


class UploadError(Exception):
    """The message is for the user."""


def store(stream: IO[bytes], directory: Path) -> str:
    """Store a picture and return its name.

    Never the bytes that were sent: the picture is decoded and encoded anew, which drops location,
    camera and whatever else a file may carry. Raises UploadError.
    """
    from PIL import Image, ImageOps  # here, as it would slow each start

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise UploadError("This picture has too many pixels.")
                picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except UploadError:
        raise
    except Exception as error:  # decoders raise many kinds for broken files
        raise UploadError("This is not a picture that we can read (JPEG, PNG, WebP).") from error
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A"))

    name = secrets.token_hex(16) + ".jpg"
    folder = directory / name[:2]
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            flat.save(file, "JPEG", quality=85, optimize=True)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).rename(folder / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return name


def path_of(name: str) -> str | None:
    """Where a picture lies below the directory; None for a name that is not ours."""
    return f"{name[:2]}/{name}" if NAME.fullmatch(name) else None
