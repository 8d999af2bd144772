"""A picture to draw on: small images become larger and legible, lines are smooth, labels keep clear of each other.

All coordinates that come in are pixels of the original image; the canvas knows its own scale.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vertebra.visualize.palette import Color, readable_on

__all__ = ["Canvas", "font", "inner_point"]

_FINER = 2  # shapes are drawn finer by this factor and averaged, which smooths their edges


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that pictures look the same on every machine."""
    return ImageFont.load_default(size=size)


class Canvas:
    """Draw masks, lines and labels over an image, then take the `result`.

    Args:
        image: (H, W, 3) uint8.
        min_side: an image whose shorter side has fewer pixels is enlarged to this; 0 leaves every image as it is.
    """

    def __init__(self, image: np.ndarray, min_side: int = 0) -> None:
        height, width = image.shape[:2]
        self.scale = max(1.0, min_side / min(height, width))
        if max(height, width) * self.scale > 4 * max(min_side, 1):  # a very long strip would become huge
            self.scale = max(1.0, 4 * min_side / max(height, width))
        self.size = (round(width * self.scale), round(height * self.scale))  # (width, height), as Pillow has it
        picture = Image.fromarray(image)
        self._base = picture if self.scale == 1 else picture.resize(self.size, Image.Resampling.BICUBIC)
        self._layer = Image.new("RGBA", (self.size[0] * _FINER, self.size[1] * _FINER))
        self._pen = ImageDraw.Draw(self._layer)
        self._labels: list[tuple[tuple[int, int, int, int], str, Color]] = []
        short = min(self.size)
        self.line_width = float(np.clip(short / 260, 1.5, 6.0))
        self.font_size = int(np.clip(short / 34, 11, 36))

    def fill(
        self, mask: np.ndarray, color: Color, *, alpha: float, outline: Color | None, hatched: bool = False
    ) -> None:
        """Lay a color over a mask (H, W) bool, with a line along its inner edge; `hatched` leaves stripes free."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return
        top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, mask.shape[0])
        left, right = max(columns[0] - 1, 0), min(columns[-1] + 2, mask.shape[1])
        x0, y0, x1, y1 = (round(edge * self._factor) for edge in (left, top, right, bottom))
        x1, y1 = min(x1, self._layer.width), min(y1, self._layer.height)
        crop = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
        inside = self._smoothed(crop.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC))
        strength = inside * np.float32(alpha)
        if hatched:
            period = max(round(9 * self.line_width), 8)
            stripes = (np.arange(x0, x1) + np.arange(y0, y1)[:, None]) % period < period // 2
            strength = np.where(stripes, strength, strength * 0.25)
        patch = np.empty((y1 - y0, x1 - x0, 4), np.uint8)
        patch[..., :3] = color
        patch[..., 3] = strength * 255
        if outline is not None:
            edge = inside & ~_eroded(inside, max(round(0.75 * self.line_width * _FINER), 1))
            patch[edge, :3] = outline
            patch[edge, 3] = 255
        self._layer.alpha_composite(Image.fromarray(patch), (x0, y0))

    def box(self, box: np.ndarray, color: Color, *, dashed: bool = False) -> None:
        """The edges of a box `xyxy`, on a thin dark line that keeps them visible on any background."""
        width = self.line_width * _FINER
        x0, y0, x1, y1 = _near_frame(np.asarray(box) * self._factor, self._layer.size)
        x1, y1 = max(x1 - 1, x0), max(y1 - 1, y0)
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        if dashed:
            for start, end in pairwise(corners):
                self._dashes(start, end, color, round(width))
            return
        grown = round(width / 2) + 1
        dark = (x0 - grown + 1, y0 - grown + 1, x1 + grown - 1, y1 + grown - 1)
        self._pen.rectangle(dark, outline=(0, 0, 0, 110), width=round(width) + 2)
        inner = round(width / 2) - 1
        self._pen.rectangle((x0 - inner, y0 - inner, x1 + inner, y1 + inner), outline=color, width=round(width))

    def polygon(self, corners: np.ndarray, color: Color) -> None:
        """The edges of a polygon (P, 2), as those of a box."""
        limits = np.array(self._layer.size)
        points = [tuple(one) for one in np.clip(corners * self._factor, -limits, 2 * limits).tolist()]
        width = round(self.line_width * _FINER)
        for fill, thick in (((0, 0, 0, 110), width + 2), (color, width)):
            self._pen.line([*points, *points[:2]], fill=fill, width=thick, joint="curve")

    def line(self, start: np.ndarray, end: np.ndarray, color: Color) -> None:
        """A straight line between two points (x, y)."""
        points = [tuple(float(part) * self._factor for part in point) for point in (start, end)]
        self._pen.line(points, fill=(0, 0, 0, 140), width=round(1.1 * self.line_width * _FINER) + 2)
        self._pen.line(points, fill=color, width=round(1.1 * self.line_width * _FINER))

    def dot(self, point: np.ndarray, color: Color, *, hollow: bool = False, size: float = 1.0) -> None:
        """A point (x, y), `size` times as large as usual; white around a core, or `hollow` and dark."""
        x, y = (float(part) * self._factor for part in point)
        radius = 1.9 * size * self.line_width * _FINER
        ring = max(round(0.8 * size * self.line_width * _FINER), 1)
        self._pen.ellipse((x - radius - 2, y - radius - 2, x + radius + 2, y + radius + 2), fill=(0, 0, 0, 170))
        fill = (255, 255, 255) if not hollow else (40, 40, 40)
        self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        inner = radius - ring
        self._pen.ellipse((x - inner, y - inner, x + inner, y + inner), fill=color if not hollow else (40, 40, 40))

    def label(self, text: str, box: np.ndarray, color: Color) -> None:
        """Text on a colored plate at a box `xyxy`: above it where there is room, and clear of earlier labels."""
        x0, y0, x1, y1 = _near_frame(np.asarray(box) * self.scale, self.size)
        width, height = self._plate_size(text)
        half = round(self.line_width / 2)
        left, right, above, below = x0 - half, x1 + half - width, y0 - half - height, y1 + half
        places = [(left, above), (right, above), (left, below), (right, below)]
        places += [(left, y0), (right, y0), (left, y1 - height), (right, y1 - height)]
        self._place(text, places, (width, height), color)

    def label_at(self, text: str, point: tuple[float, float], color: Color) -> None:
        """The same centered on a point (x, y)."""
        width, height = self._plate_size(text)
        x, y = (round(part * self.scale) for part in point)
        middle = x - width // 2
        places = [(middle, y - height // 2 + shift * height) for shift in (0, -1, 1, -2, 2)]
        self._place(text, places, (width, height), color)

    def result(self) -> np.ndarray:
        """(H', W', 3) uint8, the enlarged picture with everything on it."""
        picture = self._base.convert("RGBA")
        picture.alpha_composite(self._layer.reduce(_FINER))
        pen = ImageDraw.Draw(picture)
        padding = self._padding()
        for (x0, y0, x1, y1), text, color in self._labels:
            pen.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=max(self.font_size // 5, 2), fill=color)
            middle = (y0 + y1) / 2
            pen.text((x0 + padding, middle), text, fill=readable_on(color), font=font(self.font_size), anchor="lm")
        return np.asarray(picture.convert("RGB"))

    @property
    def _factor(self) -> float:
        """Original pixels to pixels of the layer."""
        return self.scale * _FINER

    def _smoothed(self, enlarged: Image.Image) -> np.ndarray:
        """Where an enlarged mask is set, without the stairs of its pixels; a single pixel remains one."""
        if self.scale < 1.5:
            return np.asarray(enlarged) >= 128
        return np.asarray(enlarged.filter(ImageFilter.GaussianBlur(0.5 * self._factor))) >= 105

    def _padding(self) -> int:
        return max(self.font_size // 4, 2)

    def _plate_size(self, text: str) -> tuple[int, int]:
        return round(font(self.font_size).getlength(text)) + 2 * self._padding(), round(1.3 * self.font_size)

    def _place(self, text: str, places: list[tuple[int, int]], size: tuple[int, int], color: Color) -> None:
        """Take the first place that is free and in the frame, otherwise the one that overlaps earlier labels least."""
        width, height = size
        candidates = []
        for number, (x, y) in enumerate(places):
            x_in = min(max(x, 0), max(self.size[0] - width, 0))
            y_in = min(max(y, 0), max(self.size[1] - height, 0))
            plate = (x_in, y_in, x_in + width, y_in + height)
            moved = abs(x - x_in) // 4 + abs(y - y_in)
            overlap = sum(_shared_area(plate, other) for other, _, _ in self._labels) + moved * width + number
            candidates.append((overlap, plate))
        _, best = min(candidates, key=lambda candidate: candidate[0])
        self._labels.append((best, text, color))

    def _dashes(self, start: tuple[int, int], end: tuple[int, int], color: Color, width: int) -> None:
        length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        dash = max(4.0 * width, 6.0)
        for begin in np.arange(0, length, 2 * dash):
            ends = (begin / length, min(begin + dash, length) / length)
            points = [(start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])) for t in ends]
            self._pen.line(points, fill=color, width=width)


def inner_point(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) of a pixel well inside a mask (H, W) bool: where most of the surroundings belong to it."""
    radius = max(min(mask.shape) / 12, 1)
    padded = np.pad(mask, 1).astype(np.uint8) * 255  # the frame counts as outside
    around = np.asarray(Image.fromarray(padded).filter(ImageFilter.BoxBlur(radius)), np.int64)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.where(mask, around, -1).argmax()), mask.shape)
    return column + 0.5, row + 0.5


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """The pixels whose neighbors `steps` away in the four directions belong to it; beyond the frame is inside."""
    padded = np.pad(mask, steps, mode="edge")
    height, width = mask.shape
    inner = slice(steps, steps + height), slice(steps, steps + width)
    return (
        padded[:height, inner[1]]
        & padded[2 * steps :, inner[1]]
        & padded[inner[0], :width]
        & padded[inner[0], 2 * steps :]
    )


def _near_frame(box: np.ndarray, size: tuple[int, int]) -> list[int]:
    """A box in whole pixels, at most a picture's size away from the picture: enough to draw what of it is inside."""
    limits = np.array((*size, *size))
    return np.round(np.clip(box, -limits, 2 * limits)).astype(int).tolist()


def _shared_area(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
