"""Pictures of label maps, the worst images first: pairs of ground truth and prediction, or sheets of any kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from vertebra.data import read_image
from vertebra.visualize import save_png, side_by_side
from vertebra_eval.report.blocks import Picture

__all__ = ["Read", "draw_pairs", "draw_sheets"]

_WIDEST = 2400  # pixels of a written picture

Draw = Callable[[np.ndarray], np.ndarray]
Read = Callable[[str], np.ndarray]


def draw_pairs(
    items: Iterable[tuple[str, Draw, Draw, str]], folder: Path, count: int, read: Read = read_image
) -> list[Picture]:
    """Draw at most `count` images, ground truth on the left and the prediction on the right.

    Args:
        items: (image file, draw the truth, draw the prediction, what the caption says); both functions take the image
            (H, W, 3) uint8.
        folder, count, read: see `draw_sheets`.
    """
    return draw_sheets(((name, _beside(*draws), said) for name, *draws, said in items), folder, count, read)


def draw_sheets(
    items: Iterable[tuple[str, Draw, str]], folder: Path, count: int, read: Read = read_image
) -> list[Picture]:
    """Draw at most `count` images; those whose file no longer exists are skipped.

    Args:
        items: (image file, what makes the picture of the image (H, W, 3) uint8, what the caption says).
        folder: PNG files go there; those of an earlier evaluation are removed.
        read: an image file to (H, W, 3) uint8.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]_*.png"):
        old.unlink()
    pictures: list[Picture] = []
    for name, draw, said in items:
        if len(pictures) >= count:
            break
        if not name or not Path(name).is_file():
            continue
        drawn = draw(read(name))
        height, width = drawn.shape[:2]
        if width > _WIDEST:
            size = (_WIDEST, max(1, round(height * _WIDEST / width)))
            drawn = np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.LANCZOS))
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).stem)[:60]
        path = folder / f"{len(pictures) + 1:02d}_{stem}.png"
        save_png(drawn, path)
        pictures.append(Picture(path, f"{Path(name).name}: {said}"))
    return pictures


def _beside(draw_truth: Draw, draw_prediction: Draw) -> Draw:
    def draw(image: np.ndarray) -> np.ndarray:
        return side_by_side(draw_truth(image), draw_prediction(image), ("ground truth", "predicted"))

    return draw
