"""Legends below pictures: what each color means, and a scale of colors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vertebra.visualize.canvas import font
from vertebra.visualize.palette import Color

__all__ = ["with_legend", "with_scale"]

_PAPER = (250, 250, 248)
_INK = (40, 40, 40)
_FRAME = (150, 150, 150)


def with_legend(picture: np.ndarray, entries: Sequence[tuple[Color, str]]) -> np.ndarray:
    """A picture (H, W, 3) with rows of colored squares and texts below it, as many rows as they need.

    Args:
        entries: color and meaning of each; without any the picture is returned as it is.
    """
    if not entries:
        return picture
    height, width = picture.shape[:2]
    size = _text_size(width)
    gap, box = size // 2, size
    rows: list[list[tuple[Color, str, int]]] = [[]]
    x = gap
    for color, text in entries:
        text = _shortened(text, size, width - box - 3 * gap)
        wide = box + gap + round(font(size).getlength(text)) + 2 * gap
        if rows[-1] and x + wide > width:
            rows.append([])
            x = gap
        rows[-1].append((color, text, x))
        x += wide
    line = round(1.5 * size)
    sheet = _below(picture, line * len(rows) + gap)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        middle = height + gap // 2 + line * number + line // 2
        for color, text, x in row:
            pen.rectangle((x, middle - box // 2, x + box - 1, middle + box // 2 - 1), fill=color, outline=_FRAME)
            pen.text((x + box + gap, middle), text, fill=_INK, font=font(size), anchor="lm")
    return np.asarray(sheet)


def with_scale(picture: np.ndarray, colors: np.ndarray, ends: tuple[str, str], said: str = "") -> np.ndarray:
    """A picture (H, W, 3) with a bar of colors below it, named at both ends.

    Args:
        colors: (n, 3) uint8, from the lowest value to the highest.
        said: written after the bar, where there is room.
    """
    height, width = picture.shape[:2]
    size = _text_size(width)
    gap, line = size // 2, round(1.5 * size)
    sheet = _below(picture, line + gap)
    pen = ImageDraw.Draw(sheet)
    middle = height + gap // 2 + line // 2
    low, high = (_shortened(end, size, width // 3) for end in ends)
    start = min(2 * gap + round(font(size).getlength(low)), width - 1)
    end = min(start + max(width // 4, 2), width)
    pen.text((gap, middle), low, fill=_INK, font=font(size), anchor="lm")
    bar = Image.fromarray(np.ascontiguousarray(colors[None])).resize((end - start, size), Image.Resampling.BILINEAR)
    sheet.paste(bar, (start, middle - size // 2))
    pen.rectangle((start, middle - size // 2, end - 1, middle - size // 2 + size - 1), outline=_FRAME)
    pen.text((end + gap, middle), high, fill=_INK, font=font(size), anchor="lm")
    x = end + 3 * gap + round(font(size).getlength(high))
    if said and x + font(size).getlength(said) <= width:
        pen.text((x, middle), said, fill=_INK, font=font(size), anchor="lm")
    return np.asarray(sheet)


def _text_size(width: int) -> int:
    return int(np.clip(width / 40, 11, 24))


def _below(picture: np.ndarray, extra: int) -> Image.Image:
    """The picture on paper that is `extra` pixels higher."""
    sheet = Image.new("RGB", (picture.shape[1], picture.shape[0] + extra), _PAPER)
    sheet.paste(Image.fromarray(picture), (0, 0))
    return sheet


def _shortened(text: str, size: int, width: int) -> str:
    while len(text) > 1 and font(size).getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text
