"""Colors that tell classes and objects apart. sRGB triples, 0 to 255."""

from __future__ import annotations

import colorsys

__all__ = ["PALETTE", "Color", "class_color", "readable_on", "shade"]

Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (  # neighbors differ in hue and in brightness; none is close to white, black or gray
    (230, 57, 70),
    (29, 120, 226),
    (252, 191, 33),
    (32, 165, 90),
    (155, 66, 201),
    (255, 127, 39),
    (20, 190, 200),
    (240, 98, 176),
    (140, 190, 40),
    (92, 84, 214),
    (176, 96, 48),
    (96, 214, 150),
)


def class_color(index: int) -> Color:
    """The color of class `index`, the same in every picture; beyond the palette, hues spread by the golden ratio."""
    if 0 <= index < len(PALETTE):
        return PALETTE[index]
    hue = (index * 0.618033988749895) % 1.0
    saturation, value = 0.6 + 0.1 * (index % 4), 0.95 - 0.12 * (index // 4 % 3)
    return _rgb(hue, saturation, value)


def shade(color: Color, number: int) -> Color:
    """A variant of `color` for object `number` of a class: hue and brightness move a little, 0 leaves it as it is."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in color))
    hue = (hue + (0, 0.05, -0.05, 0.09, -0.09)[number % 5]) % 1.0
    value = min(max(value * (1, 0.72, 1.18, 0.86)[number % 4], 0.35), 1.0)
    return _rgb(hue, saturation, value)


def readable_on(background: Color) -> Color:
    """White or near-black text, whichever stands out more (relative luminance of Rec. 709)."""
    red, green, blue = background
    return (255, 255, 255) if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 150 else (20, 20, 20)


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
