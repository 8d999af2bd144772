"""Several pictures in one: side by side with titles, or as a contact sheet; and the PNG file of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vertebra.errors import DataError
from vertebra.visualize.canvas import font
from vertebra.visualize.marks import as_image
from vertebra_eval.files import open_whole

__all__ = ["contact_sheet", "save_png", "side_by_side"]

_PAPER = (250, 250, 248)
_INK = (40, 40, 40)
_GAP = 8  # pixels between and around pictures


def side_by_side(left: Any, right: Any, titles: tuple[str, str] | None = None) -> np.ndarray:
    """Two pictures beside each other, the lower one enlarged to the height of the other. (H, W, 3) uint8."""
    pictures = [Image.fromarray(as_image(picture)) for picture in (left, right)]
    height = max(picture.height for picture in pictures)
    pictures = [
        p if p.height == height else p.resize((max(round(p.width * height / p.height), 1), height)) for p in pictures
    ]
    return _arrange(pictures, columns=2, titles=titles)


def contact_sheet(
    images: Sequence[Any],
    columns: int | None = None,
    *,
    titles: Sequence[str] | None = None,
    cell_size: tuple[int, int] = (480, 480),
) -> np.ndarray:
    """Pictures in rows, each fitted into a cell without changing its proportions. (H, W, 3) uint8.

    Args:
        columns: pictures in a row; by default about as many as make the sheet square.
        titles: written above the pictures.
        cell_size: most (width, height) of a picture in pixels; larger ones are made smaller, others are left.
    """
    if not len(images):
        raise ValueError("a contact sheet needs at least one image")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images")
    pictures = [Image.fromarray(as_image(image)) for image in images]
    for picture in pictures:
        picture.thumbnail(cell_size, Image.Resampling.LANCZOS)
    return _arrange(pictures, columns or math.ceil(math.sqrt(len(pictures))), titles)


def save_png(image: Any, path: str | os.PathLike) -> Path:
    """Write a picture as PNG, whole or not at all. Makes missing folders.

    Raises:
        DataError: the place cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(target) as file:
            Image.fromarray(as_image(image)).save(file, format="PNG")
    except OSError as err:
        raise DataError(f"cannot write the picture {target}: {err.strerror or err}") from err
    return target


def _arrange(pictures: list[Image.Image], columns: int, titles: Sequence[str] | None) -> np.ndarray:
    """Rows of pictures on paper; a column is as wide as its widest picture, a row as high as its highest."""
    columns = max(min(columns, len(pictures)), 1)
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    widths = [max(row[c].width for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    size = int(np.clip(min(widths) / 24, 12, 26))
    head = round(1.6 * size) if titles else 0
    sheet_size = (sum(widths) + _GAP * (columns + 1), sum(heights) + (head + _GAP) * len(rows) + _GAP)
    sheet = Image.new("RGB", sheet_size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    y = _GAP
    for r, row in enumerate(rows):
        x = _GAP
        for c, picture in enumerate(row):
            if titles:
                text = _shortened(str(titles[r * columns + c]), size, widths[c])
                pen.text((x, y + head / 2), text, fill=_INK, font=font(size), anchor="lm")
            sheet.paste(picture, (x + (widths[c] - picture.width) // 2, y + head + (heights[r] - picture.height) // 2))
            x += widths[c] + _GAP
        y += heights[r] + head + _GAP
    return np.asarray(sheet)


def _shortened(text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than its picture."""
    while len(text) > 1 and font(size).getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text
