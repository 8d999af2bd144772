"""Anchors for a dataset: k-means with IoU as the distance, then improved by chance; and how good anchors are.

Source of the clustering: Redmon & Farhadi, "YOLO9000", arXiv:1612.08242, section 2, "Dimension clusters".
A shape is width and height, in input pixels; the overlap of two shapes is the IoU of boxes with one center.
Letters: B boxes, A anchors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vertebra.errors import DataError
from vertebra.structures import BoxMode

__all__ = ["AnchorReport", "box_shapes", "cluster_shapes", "describe_anchors", "evolve_anchors", "split_levels"]

RECALL_IOU = 0.5
RECALL_RATIO = 4.0  # of the widths, and of the heights: YOLOv5's bound for a match
_MUTATED = 0.9  # chance of a number to change in a generation
_SIGMA = 0.1  # of the logarithm of the change
_SAMPLE = 5_000  # boxes looked at where a mean over them says enough


@dataclass(frozen=True)
class AnchorReport:
    """How well anchors fit the boxes of a dataset, each box counted with the anchor that fits it best.

    Args:
        mean_iou: of a box's shape and its best anchor's.
        recall: best possible recall: share of boxes whose shape has an IoU above 0.5 with an anchor.
        recall_by_ratio: share of boxes with an anchor that is less than 4 times wider, narrower, higher and lower.
        boxes: number of boxes.
    """

    mean_iou: float
    recall: float
    recall_by_ratio: float
    boxes: int


def box_shapes(records: Iterable[Mapping[str, Any]], size: tuple[int, int], stretch: bool = False) -> np.ndarray:
    """(B, 2) float64: width and height, in input pixels, of all boxes that are not crowds and have an area.

    Args:
        records: standard dataset dicts.
        size: (height, width) of the network's input.
        stretch: images are stretched to the input; otherwise they are made to fit into it (letterbox).
    """
    shapes = []
    for record in records:
        scale_x, scale_y = size[1] / record["width"], size[0] / record["height"]
        if not stretch:
            scale_x = scale_y = min(scale_x, scale_y)
        for item in record.get("annotations", ()):
            if item.get("iscrowd", 0):
                continue
            x0, y0, x1, y1 = BoxMode.convert(list(item["bbox"]), item["bbox_mode"], BoxMode.XYXY_ABS)
            shapes.append(((x1 - x0) * scale_x, (y1 - y0) * scale_y))
    found = np.array(shapes, dtype=np.float64).reshape(-1, 2)
    return found[(found > 0).all(axis=1)]


def cluster_shapes(shapes: np.ndarray, number: int, seed: int = 0, rounds: int = 300, starts: int = 10) -> np.ndarray:
    """k-means with the distance 1 - IoU; the centers are the clusters' means.

    Args:
        shapes: (B, 2).
        rounds: maximum number; it ends when no box changes its cluster.
        starts: number of starts by k-means++, tried on a random part of the boxes; the best one is continued.
    Returns:
        (A, 2), by growing area.
    Raises:
        DataError: fewer different shapes than anchors.
    """
    different = len(np.unique(shapes, axis=0))
    if number < 1 or different < number:
        raise DataError(f"{number} anchors are wanted, but the dataset has {different} different shapes of boxes")
    rng = np.random.default_rng(seed)
    few = shapes[rng.permutation(len(shapes))[:_SAMPLE]]
    tried = [_move_centers(few, _spread_start(few, number, rng), rounds) for _ in range(starts)]
    best = max(tried, key=lambda centers: _overlaps(shapes, centers).max(axis=1).mean())
    return _by_area(_move_centers(shapes, best, rounds))


def evolve_anchors(shapes: np.ndarray, anchors: np.ndarray, generations: int = 1000, seed: int = 0) -> np.ndarray:
    """Changes the anchors by chance, `generations` times, and keeps each change that raises the mean IoU.

    Args:
        shapes: (B, 2); of more than 5,000 a random part is looked at.
        anchors: (A, 2).
    Returns:
        (A, 2), by growing area; never worse than `anchors` on the boxes that were looked at.
    """
    rng = np.random.default_rng(seed)
    if len(shapes) > _SAMPLE:
        shapes = shapes[rng.permutation(len(shapes))[:_SAMPLE]]
    best, best_fit = anchors, _overlaps(shapes, anchors).max(axis=1).mean()
    for _ in range(generations):
        change = np.exp(rng.normal(0.0, _SIGMA, anchors.shape) * (rng.random(anchors.shape) < _MUTATED) * rng.random())
        tried = best * change
        fit = _overlaps(shapes, tried).max(axis=1).mean()
        if fit > best_fit:
            best, best_fit = tried, fit
    return _by_area(best)


def describe_anchors(shapes: np.ndarray, anchors: np.ndarray) -> AnchorReport:
    """Mean IoU and best possible recall of anchors (A, 2) on the boxes (B, 2)."""
    if not len(shapes):
        raise DataError("there is no box to compare the anchors with")
    iou = _overlaps(shapes, anchors).max(axis=1)  # (B,)
    ratio = shapes[:, None] / anchors[None]  # (B, A, 2)
    worst = np.maximum(ratio, 1 / ratio).max(axis=2).min(axis=1)  # (B,)
    return AnchorReport(
        mean_iou=float(iou.mean()),
        recall=float((iou > RECALL_IOU).mean()),
        recall_by_ratio=float((worst < RECALL_RATIO).mean()),
        boxes=len(shapes),
    )


def split_levels(anchors: np.ndarray, levels: int, digits: int = 0) -> list[list[list[float]]]:
    """Anchors by growing area, equally many per level, finest first: what a head's `anchors` takes.

    Raises:
        ValueError: the number of anchors is not a multiple of `levels`.
    """
    if levels < 1 or len(anchors) % levels:
        raise ValueError(f"{len(anchors)} anchors are not divisible by {levels} levels")
    rounded = np.maximum(_by_area(anchors).round(digits), 1).reshape(levels, -1, 2)
    return rounded.astype(int).tolist() if digits == 0 else rounded.tolist()


def _overlaps(shapes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(B, A) IoU of shapes around one center."""
    shared = np.minimum(shapes[:, None, 0], anchors[:, 0]) * np.minimum(shapes[:, None, 1], anchors[:, 1])
    return shared / (shapes.prod(axis=1)[:, None] + anchors.prod(axis=1) - shared)


def _move_centers(shapes: np.ndarray, centers: np.ndarray, rounds: int) -> np.ndarray:
    """Each center to the mean of the boxes (B, 2) that are nearest to it, until these stay the same."""
    nearest = None
    for _ in range(rounds):
        now = _overlaps(shapes, centers).argmax(axis=1)  # (B,)
        if nearest is not None and np.array_equal(now, nearest):
            break
        nearest = now
        counts = np.bincount(nearest, minlength=len(centers))
        sums = [np.bincount(nearest, weights=shapes[:, i], minlength=len(centers)) for i in range(2)]
        means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
        centers = np.where(counts[:, None] > 0, means, centers)  # an empty cluster keeps its center
    return centers


def _spread_start(shapes: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next center is a box, drawn with a chance that grows with the square of its distance."""
    centers = shapes[[rng.integers(len(shapes))]]
    while len(centers) < number:
        distance = (1 - _overlaps(shapes, centers).max(axis=1)).clip(min=0) ** 2
        chance = distance / distance.sum() if distance.sum() > 0 else None  # all the same: any of them
        centers = np.concatenate((centers, shapes[[rng.choice(len(shapes), p=chance)]]))
    return centers


def _by_area(anchors: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    anchors = np.asarray(anchors, dtype=np.float64)
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
