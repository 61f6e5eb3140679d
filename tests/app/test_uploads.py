from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from shop import uploads


def encoded(kind: str, size: tuple[int, int] = (60, 40), **options: object) -> io.BytesIO:
    out = io.BytesIO()
    mode = "RGB" if kind == "JPEG" else "RGBA"
    Image.new(mode, size, (200, 30, 30, 128)[: len(mode)]).save(out, kind, **options)
    out.seek(0)
    return out


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_stored_under_a_random_name(kind: str, tmp_path: Path) -> None:
    names = {uploads.store(encoded(kind), tmp_path) for _ in range(2)}
    assert len(names) == 2
    for name in names:
        stored = tmp_path / str(uploads.path_of(name))
        assert stored.stat().st_mode & 0o777 == 0o644
        with Image.open(stored) as picture:
            assert (picture.format, picture.size) == ("JPEG", (60, 40))


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    name = uploads.store(encoded("PNG", (3000, 1500)), tmp_path)
    with Image.open(tmp_path / str(uploads.path_of(name))) as picture:
        assert picture.size == (1280, 640)


def test_what_the_camera_wrote_is_applied_and_dropped(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010F] = "camera that knows where you live"
    name = uploads.store(encoded("JPEG", exif=exif), tmp_path)
    path = tmp_path / str(uploads.path_of(name))
    with Image.open(path) as picture:
        assert picture.size == (40, 60)
        assert not picture.getexif()
    assert b"camera" not in path.read_bytes()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        encoded("PNG").getvalue()[:60],
        encoded("GIF").getvalue(),
    ],
    ids=["empty", "text", "svg", "broken", "cut", "gif"],
)
def test_anything_else_is_refused_and_leaves_nothing(sent: bytes, tmp_path: Path) -> None:
    with pytest.raises(uploads.UploadError):
        uploads.store(io.BytesIO(sent), tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_PIXELS", 1000)
    with pytest.raises(uploads.UploadError, match="too many pixels"):
        uploads.store(encoded("PNG"), tmp_path)
