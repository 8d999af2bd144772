"""Bars of a quality of each class, in the class's own color, so that they read as the legend of a label map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from vertebra.visualize.canvas import font
from vertebra.visualize.palette import Color, class_color
from vertebra.visualize.style import class_name

__all__ = ["draw_iou_bars"]

_PAPER = (250, 250, 248)
_TRACK = (228, 230, 233)
_INK = (40, 40, 40)


def draw_iou_bars(
    values: Sequence[float | None],
    class_names: Sequence[str] | None = None,
    *,
    colors: Sequence[Color] | None = None,
    title: str = "IoU",
    width: int = 640,
) -> np.ndarray:
    """A bar for each class, in the order of the classes, with their mean. (H, width, 3) uint8.

    Args:
        values: fractions; None or NaN where a class has no value: it stays out of the mean.
        colors: of the classes; None: those of `class_color`.
        title: what the values are.
    """
    if not len(values):
        raise ValueError("bars need the value of at least one class")
    numbers = [None if value is None or np.isnan(value) else float(value) for value in values]
    known = [value for value in numbers if value is not None]
    size = int(np.clip(width / 40, 11, 20))
    line, gap = round(1.6 * size), size // 2
    names = [class_name(index, class_names) for index in range(len(numbers))]
    left = min(max(round(font(size).getlength(name)) for name in names), width // 3) + 2 * gap
    right = width - round(font(size).getlength("0.000")) - 2 * gap
    sheet = Image.new("RGB", (width, line * (len(numbers) + 1) + gap), _PAPER)
    pen = ImageDraw.Draw(sheet)
    mean = f"{title}, mean {sum(known) / len(known):.3f}" if known else f"{title}: no class has a value"
    pen.text((gap, line / 2), mean, fill=_INK, font=font(size), anchor="lm")
    for row, (name, value) in enumerate(zip(names, numbers, strict=True), start=1):
        top, middle = line * row + gap // 2, line * row + line / 2
        while len(name) > 1 and font(size).getlength(name) > left - 2 * gap:
            name = name[:-2].rstrip() + "…"
        pen.text((gap, middle), name, fill=_INK, font=font(size), anchor="lm")
        pen.rectangle((left, top, right, top + size), fill=_TRACK)
        if value is not None:
            color = class_color(row - 1) if colors is None else tuple(int(part) for part in colors[row - 1])
            end = left + round((right - left) * min(max(value, 0.0), 1.0))
            if end > left:
                pen.rectangle((left, top, end, top + size), fill=color)
        text = "-" if value is None else f"{value:.3f}"
        pen.text((right + gap, middle), text, fill=_INK, font=font(size), anchor="lm")
    return np.asarray(sheet)
