"""The backgrounds of the generated dataset `shapes`: textured regions of sky, grass, sand and water."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["STUFF", "background", "smooth_noise"]

STUFF = ("sky", "grass", "sand", "water")


def background(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A background of one to three regions, one above the other, with wavy borders.

    Returns:
        (H, W, 3) float32 colors from 0 to 255; (H, W) uint8 rows of `STUFF`; (H, W) bool, true on the borders
        (two pixels wide), which belong to no region.
    """
    regions = _choose_regions(rng)
    rows = np.arange(height)[:, None]
    level = np.zeros((height, width), np.uint8)  # which region, from the top
    border = np.zeros((height, width), bool)
    for index in range(1, len(regions)):
        middle = height * (index + rng.uniform(-0.25, 0.25)) / len(regions)
        wave = smooth_noise(rng, 1, width, 1, max(width / rng.uniform(1, 5), 2.0))[0]
        line = np.round(middle + wave * height * rng.uniform(0.01, 0.08))  # (W,)
        level += rows >= line
        border |= (rows >= line - 1) & (rows < line + 1)
    colors = np.empty((height, width, 3), np.float32)
    for index, name in enumerate(regions):
        here = level == index
        filled = np.flatnonzero(here.any(axis=1))
        if len(filled):
            top, bottom = filled[0], filled[-1] + 1
            paint = _PAINTERS[name](rng, bottom - top, width)
            colors[top:bottom][here[top:bottom]] = paint[here[top:bottom]]
    lookup = np.array([STUFF.index(name) for name in regions], np.uint8)
    return colors, lookup[level], border


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cell_height: float, cell_width: float
) -> np.ndarray:
    """(H, W) float32 noise in about [-1, 1] that varies over cells of this size in pixels."""
    grid_size = (max(int(np.ceil(height / cell_height)) + 1, 2), max(int(np.ceil(width / cell_width)) + 1, 2))
    grid = Image.fromarray(rng.random(grid_size, np.float32) * 2 - 1)
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def _choose_regions(rng: np.random.Generator) -> list[str]:
    """Sky above, mostly; never the same stuff twice."""
    number = int(rng.choice((1, 2, 3), p=(0.15, 0.55, 0.3)))
    ground = [STUFF[1 + i] for i in rng.permutation(3)]
    has_sky = rng.random() < 0.8
    return (["sky", *ground] if has_sky else ground)[:number]


def _sky(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    top = np.array((96, 150, 214), np.float32) + rng.uniform(-22, 22, 3)
    bottom = np.array((186, 210, 232), np.float32) + rng.uniform(-18, 18, 3)
    fade = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    clouds = smooth_noise(rng, h, w, 14, 34) + 0.6 * smooth_noise(rng, h, w, 6, 12)
    cover = np.clip(clouds * 1.3 - rng.uniform(-0.2, 0.6), 0, 1)[..., None]
    return (top + (bottom - top) * fade) * (1 - cover) + np.float32(240) * cover


def _grass(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base = np.array((84, 132, 58), np.float32) + rng.uniform(-18, 18, 3)
    blades = smooth_noise(rng, h, w, 5, 1.6)
    patches = smooth_noise(rng, h, w, 18, 26)
    return base + blades[..., None] * (16, 26, 10) + patches[..., None] * (14, 8, 4)


def _sand(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base = np.array((206, 184, 134), np.float32) + rng.uniform(-18, 18, 3)
    grains = smooth_noise(rng, h, w, 1.2, 1.2)
    dunes = smooth_noise(rng, h, w, 9, 40)
    return base + grains[..., None] * (15, 15, 14) + dunes[..., None] * (16, 14, 12)


def _water(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base = np.array((44, 104, 128), np.float32) + rng.uniform(-18, 18, 3)
    ripples = smooth_noise(rng, h, w, 2.2, 12)
    glints = np.clip(smooth_noise(rng, h, w, 1.6, 7) - 0.45, 0, 1)
    return base + ripples[..., None] * (12, 18, 18) + glints[..., None] * 120


_PAINTERS = {"sky": _sky, "grass": _grass, "sand": _sand, "water": _water}
