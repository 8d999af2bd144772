"""The mistakes most worth a look: false detections of highest score, and missed objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vertebra_eval.analysis import BACKGROUND_IOU
from vertebra_eval.coco.columns import corners
from vertebra_eval.coco.matches import Matches

__all__ = ["Mistake", "worst_false", "worst_missed"]

_PER_IMAGE = 2  # one bad image shall not fill the gallery


@dataclass(frozen=True)
class Mistake:
    """One false detection or missed object.

    Args:
        image: row of its image.
        box: (4,) float64 `xyxy`, original image pixels.
        text: class, score where it has one, and what seems to be the cause.
    """

    image: int
    box: np.ndarray
    text: str


def worst_false(matches: Matches, index: int, threshold: float, count: int) -> list[Mistake]:
    """At most `count` detections from `threshold` on that matched no object, best score first.

    Args:
        index: number of the IoU threshold from which on a detection matches an object; the texts compare boxes for
            every task.
    """
    false = np.flatnonzero((matches.state(index) == 0) & (matches.score >= threshold))
    order = false[np.argsort(-matches.score[false], kind="stable")]
    boxes = corners(matches.detections.boxes[matches.detection])
    return [
        Mistake(
            int(matches.image[row]),
            boxes[row],
            f"{_name(matches, matches.category[row])} {matches.score[row]:.2f}, "
            f"{_why_false(matches, boxes[row], row, index)}",
        )
        for row in _spread(order, matches.image, count)
    ]


def worst_missed(matches: Matches, index: int, threshold: float, count: int) -> list[Mistake]:
    """At most `count` objects that no detection from `threshold` on matched.

    First those that none matched at any score, then by the score of the one that did; large ones before small ones.
    Arguments as of `worst_false`.
    """
    objects = matches.objects
    score = np.where(matches.object_ignored, np.inf, matches.truth_score(index))
    missed = np.flatnonzero(~(score >= threshold))
    order = missed[np.lexsort((-objects.areas[missed], score[missed], ~np.isnan(score[missed])))]
    boxes = corners(objects.boxes)
    return [
        Mistake(
            int(objects.image[row]),
            boxes[row],
            f"{_name(matches, objects.category[row])}, "
            f"{_why_missed(matches, row, float(score[row]), threshold, index)}",
        )
        for row in _spread(order, objects.image, count)
    ]


def _spread(order: np.ndarray, image: np.ndarray, count: int) -> Iterable[int]:
    """The first `count` rows of `order`, with at most `_PER_IMAGE` of one image."""
    used: dict[int, int] = {}
    chosen: list[int] = []
    for row in order.tolist():
        if len(chosen) == count:
            break
        seen = used.get(int(image[row]), 0)
        if seen < _PER_IMAGE:
            used[int(image[row])] = seen + 1
            chosen.append(row)
    return chosen


def _why_false(matches: Matches, box: np.ndarray, row: int, index: int) -> str:
    own = np.flatnonzero((matches.objects.image == matches.image[row]) & ~matches.object_ignored)
    overlap = _iou(box, corners(matches.objects.boxes[own]))
    if not len(overlap) or overlap.max() < BACKGROUND_IOU:
        return "where nothing is annotated"
    same = matches.objects.category[own] == matches.category[row]
    if same.any() and overlap[same].max() >= matches.iou_thresholds[index]:
        return "on an object that another detection has found"
    best = int(overlap.argmax())
    if same[best]:
        return f"badly placed: IoU {overlap[best]:.2f}"
    return f"but a {_name(matches, matches.objects.category[own[best]])} is annotated (IoU {overlap[best]:.2f})"


def _why_missed(matches: Matches, row: int, score: float, threshold: float, index: int) -> str:
    if not np.isnan(score):
        return f"found with score {score:.2f} only"
    objects = matches.objects
    near = np.flatnonzero((matches.image == objects.image[row]) & (matches.score >= threshold))
    overlap = _iou(corners(objects.boxes[row][None])[0], corners(matches.detections.boxes[matches.detection[near]]))
    if not len(overlap) or overlap.max() < BACKGROUND_IOU:
        return "no detection here"
    best = int(overlap.argmax())
    found = f"{_name(matches, matches.category[near[best]])} {matches.score[near[best]]:.2f}"
    if overlap[best] >= matches.iou_thresholds[index] and matches.category[near[best]] == objects.category[row]:
        return f"the detection here, {found} (IoU {overlap[best]:.2f}), is matched to another object"
    return f"nearest detection: {found} (IoU {overlap[best]:.2f})"


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) IoU of one box (4,) with others (n, 4), all `xyxy`; 0 where there is no area."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.divide(common, union, out=np.zeros(len(others)), where=union > 0)


def _name(matches: Matches, number: int) -> str:
    return matches.objects.category_names[int(number)]
