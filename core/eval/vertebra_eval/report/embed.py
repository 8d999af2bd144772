"""Images inside an HTML file as data URIs, made small enough that all of them fit a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

__all__ = ["jpeg_uris", "png_uri"]

_STEPS = ((1200, 84), (1000, 80), (800, 76), (640, 70), (480, 62))  # widest side in pixels, JPEG quality


def png_uri(path: Path) -> tuple[str, float]:
    """A plot as it is (few colors, which PNG keeps small and sharp), and its width over its height."""
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    return _uri(few, "png", optimize=True), few.width / few.height


def jpeg_uris(paths: Sequence[Path], budget: int) -> list[str]:
    """Photographs as JPEG, as large as `budget` bytes allow; the last are omitted if even the smallest do not fit."""
    uris: list[str] = []
    for side, quality in _STEPS:
        uris = [_jpeg(path, side, quality) for path in paths]
        if sum(map(len, uris)) <= budget:
            return uris
    kept, used = [], 0
    for uri in uris:
        used += len(uri)
        if used > budget:
            break
        kept.append(uri)
    return kept


def _jpeg(path: Path, side: int, quality: int) -> str:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((side, 2 * side), Image.Resampling.LANCZOS)
    return _uri(picture, "jpeg", quality=quality, optimize=True)


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
