"""Whether an exported file gives what the model gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.export.trace import InputShape

__all__ = ["Comparison", "compare", "pictures"]

TOLERANCE = 1e-3
"""Of floats: times the greatest value of the output, which is at least counted as 1."""
LABEL_SHARE = 1e-3
"""Share of whole numbers that may differ: two classes with equal scores but for rounding."""
ROW_SHARE = 0.02
"""Share of detections that may have no counterpart: rounding decides at the threshold of the overlap."""
EQUAL_SCORES = 1e-5
"""Of equal scores, rounding decides which suppresses the other; an untrained head may have nothing else."""


@dataclass(frozen=True)
class Comparison:
    """One output for one input, in both.

    Args:
        shape: of the input, (N, 3, H, W).
        difference: the greatest absolute one, in the output's unit; of whole numbers the share that differs.
        agrees: whether it is no more than rounding.
        detail: what else there is to say, as the number of detections.
    """

    output: str
    shape: tuple[int, ...]
    difference: float
    agrees: bool
    detail: str = ""

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        verdict = "" if self.agrees else "  DIFFERS"
        return (
            f"{self.output} at {size}: max difference {self.difference:.2g}"
            + (f" ({self.detail})" if self.detail else "")
            + verdict
        )


def compare(
    model: Callable[[Tensor], dict[str, Tensor]],
    exported: Callable[[Tensor], dict[str, Tensor]],
    inputs: Iterator[Tensor],
) -> list[Comparison]:
    """Runs both on each input and compares all outputs."""
    found = []
    for images in inputs:
        with torch.no_grad():
            expected, given = model(images), exported(images)
        if expected.keys() != given.keys():
            raise AssertionError(f"outputs {list(given)}, expected {list(expected)}")
        names = list(expected)
        if {"boxes", "scores", "classes"} <= expected.keys():
            found.append(_compare_detections(expected, given, tuple(images.shape)))
            names = [name for name in names if name not in ("boxes", "scores", "classes")]
        found += [_compare_tensor(name, expected[name], given[name], tuple(images.shape)) for name in names]
    return found


def pictures(shape: InputShape, pixel_range: float, seed: int = 0) -> Iterator[Tensor]:
    """Inputs to compare on: what the graph takes, three sizes of it where it takes any, and one to three images.

    Each is of smooth colors with rectangles and noise, which trained models answer more to than to noise alone.
    """
    height, width = shape.size
    sizes = [shape.size]
    if shape.any_size:
        sizes += [(height // 2 + 5, width), (height + 37, width // 2 + 3)]
    counts = [shape.batch] * len(sizes) if shape.batch is not None else [2, 1, 3]
    if shape.batch is None and len(sizes) == 1:
        sizes *= 3
    generator = torch.Generator().manual_seed(seed)
    for count, size in zip(counts, sizes, strict=False):
        yield torch.stack([_picture(size, shape.channels, generator) for _ in range(count)]) * pixel_range


def _picture(size: tuple[int, int], channels: int, generator: torch.Generator) -> Tensor:
    coarse = torch.rand(1, channels, 5, 5, generator=generator)
    image = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0]
    for _ in range(12):
        y0, x0, y1, x1 = (torch.rand(4, generator=generator) * torch.tensor([*size, *size])).long().tolist()
        image[:, min(y0, y1) : max(y0, y1) + 1, min(x0, x1) : max(x0, x1) + 1] = torch.rand(
            channels, 1, 1, generator=generator
        )
    return (image + 0.03 * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def _compare_tensor(name: str, expected: Tensor, given: Tensor, shape: tuple[int, ...]) -> Comparison:
    if expected.shape != given.shape:
        detail = f"shape {tuple(given.shape)}, expected {tuple(expected.shape)}"
        return Comparison(name, shape, float("inf"), False, detail)
    if not expected.is_floating_point():
        share = float((expected != given).float().mean()) if expected.numel() else 0.0
        return Comparison(name, shape, share, share <= LABEL_SHARE, "share of values that differ")
    difference = float((expected - given).abs().nan_to_num(torch.inf).max()) if expected.numel() else 0.0
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return Comparison(name, shape, difference, difference <= TOLERANCE * max(1.0, largest))


def _compare_detections(expected: dict[str, Tensor], given: dict[str, Tensor], shape: tuple[int, ...]) -> Comparison:
    """Each detection has a counterpart of its class, score and place in the other. Order among equals is free."""
    if any(expected[name].shape != given[name].shape for name in ("boxes", "scores", "classes")):
        return Comparison("detections", shape, float("inf"), False, f"boxes {tuple(given['boxes'].shape)}")
    total, missing, undecided, worst = 0, 0, 0, 0.0
    for image in range(len(expected["scores"])):
        rows, other = (_rows(outputs, image) for outputs in (expected, given))
        for these, those in ((rows, other), (other, rows)):
            distance = _distance_to_nearest(these, those, max(shape[2:]))
            alone = distance > TOLERANCE
            cut = these[:, 5].min() + TOLERANCE if len(these) == expected["scores"].shape[1] else -np.inf
            tied = alone & (_has_equal_score(these) | (these[:, 5] <= cut))  # the last few may have fallen out
            undecided += int(tied.sum())
            missing += int((alone & ~tied).sum())
            worst = max(worst, float(distance[~alone].max(initial=0.0)))
            total += len(these)
    detail = f"{total // 2} detections"
    detail += f", {missing} without a counterpart" if missing else ""
    detail += f", {undecided} of equal scores ignored" if undecided else ""
    return Comparison("detections", shape, worst, missing <= ROW_SHARE * total, detail)


def _rows(outputs: dict[str, Tensor], image: int) -> np.ndarray:
    """(n, 6) x0, y0, x1, y1, class, score of the detections of an image."""
    scores = outputs["scores"][image].double()
    columns = (outputs["boxes"][image].double(), outputs["classes"][image].double()[:, None], scores[:, None])
    return torch.cat(columns, dim=1)[scores > 0].numpy()


def _distance_to_nearest(these: np.ndarray, those: np.ndarray, side: int) -> np.ndarray:
    """For each detection the greatest difference in score, and in place in parts of the image, to its counterpart."""
    if not len(those):
        return np.full(len(these), np.inf)
    apart = np.abs(these[:, None] - those[None])  # (n, m, 6)
    apart[..., :4] /= side
    apart[..., 4] *= 1e9  # another class is not a counterpart
    return apart.max(axis=2).min(axis=1)


def _has_equal_score(rows: np.ndarray) -> np.ndarray:
    """(n,) bool: whether another detection of the class has the same score but for rounding."""
    equal = np.abs(rows[:, None, 5] - rows[None, :, 5]) <= EQUAL_SCORES
    return (equal & (rows[:, None, 4] == rows[None, :, 4])).sum(axis=1) > 1
