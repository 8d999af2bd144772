"""Sentences for the usual causes of numbers that are 0, missing or meaningless.

What is missing in the ground truth (no object in an area range, crowds only) is reported by `coco_metrics`, number by
number; here is what the detections look like: none at all, none from a score on, equal scores, boxes in another format,
ids that do not match.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np

__all__ = [
    "boxes_look_like_xywh",
    "boxes_look_like_xyxy",
    "classes_without_detections",
    "equal_scores",
    "ids_apart",
    "infinite_scores",
    "no_detection_from",
]

_FEWEST = 5  # boxes or scores from which on a pattern is not an accident
_MANY, _NEARLY_ALL = 0.2, 0.98  # shares of the boxes
_SLACK = 1.0  # pixels a box may leave its image by


def no_detection_from(scores: np.ndarray, threshold: float) -> str | None:
    """The sentence for scores (D,) that are all below the threshold, or for none at all."""
    if not len(scores):
        return "there are no detections at all"
    if scores.max() < threshold:
        return f"no detection has a score of {threshold:g} or above; the highest of {len(scores)} is {scores.max():.3g}"
    return None


def classes_without_detections(
    num_truth: np.ndarray, num_detections: np.ndarray, class_names: Sequence[str]
) -> str | None:
    """The sentence for classes that have objects (K,) but no detection (K,), unless no class has any."""
    lacking = np.flatnonzero((num_truth > 0) & (num_detections == 0))
    if not len(lacking) or not num_detections.any():
        return None
    names = ", ".join(class_names[k] for k in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
    count = int(num_truth[lacking].sum())
    return (
        f"no detection of {len(lacking)} of the classes that have objects, so their AP is 0 ({count} missed): {names}"
    )


def equal_scores(scores: np.ndarray) -> str | None:
    """The sentence for scores (D,) that are all the same, so that AP ranks by the order of the file."""
    if len(scores) < _FEWEST or scores.min() < scores.max():
        return None
    return (
        f"all {len(scores)} detections have the score {scores[0]:g}, so nothing ranks them and AP depends on their "
        "order; give each detection its confidence"
    )


def infinite_scores(scores: np.ndarray) -> str | None:
    """The sentence for scores (D,) of which some are infinite."""
    count = int(np.isinf(scores).sum())
    if not count:
        return None
    return (
        f"{count} of {len(scores)} detections have an infinite score; infinity ranks first, minus infinity last, "
        "and equal ones by their order"
    )


def boxes_look_like_xyxy(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """The sentence for boxes that were to be `xywh` but seem to be `xyxy`.

    Args:
        boxes: (n, 4) as given, pixels.
        sizes: (n, 2) width, height of each box's image; NaN where unknown.
    """
    boxes, sizes = _with_size(boxes, sizes)
    if len(boxes) < _FEWEST:
        return None
    outside = (boxes[:, :2] + boxes[:, 2:] > sizes + _SLACK).any(axis=1).mean()
    if outside < _MANY or _inside(boxes, sizes).mean() < _NEARLY_ALL:
        return None
    return (
        f"boxes look like x0, y0, x1, y1 where x, y, width, height is expected: read so, {100 * outside:.0f} % of "
        f"{len(boxes)} leave their image, and as corners none do; write [x0, y0, x1 - x0, y1 - y0]"
    )


def boxes_look_like_xywh(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """The sentence for boxes (n, 4) that were to be `xyxy` but seem to be `xywh`; `sizes` as above."""
    boxes, sizes = _with_size(boxes, sizes)
    if len(boxes) < _FEWEST:
        return None
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1).mean()
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    if inverted < _MANY or _inside(corners, sizes).mean() < _NEARLY_ALL:
        return None
    return (
        f"boxes look like x, y, width, height where x0, y0, x1, y1 is expected: read so, {100 * inverted:.0f} % of "
        f"{len(boxes)} end before they begin; predict [x, y, x + width, y + height]"
    )


def ids_apart(what: str, given: Collection[Hashable], known: Collection[Hashable]) -> str | None:
    """The likely cause why ids of results are not in the ground truth; None where none shows.

    Args:
        what: image or category.
        given: all distinct ids of the results; known: those of the ground truth.
    """
    unknown = [value for value in given if value not in known]
    if unknown and {str(value) for value in unknown} <= {str(value) for value in known}:
        return f"the {what} ids are the same but for text and numbers; write them in the ground truth's type"
    if unknown and what == "category" and _are_class_numbers(given, known):
        return "the category ids look like class numbers from 0; write the ground truth's category ids"
    if unknown and len(unknown) == len(given):
        return f"none of the {what} ids is in the ground truth; the results seem to belong to another dataset"
    return None


def _are_class_numbers(given: Collection[Hashable], known: Collection[Hashable]) -> bool:
    numbers = [value for value in given if isinstance(value, (int, np.integer))]
    return bool(len(numbers) == len(given) and 0 in given and 0 not in known and max(numbers) < len(known))


def _with_size(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(sizes).all(axis=1) & np.isfinite(boxes).all(axis=1)
    return boxes[known], sizes[known]


def _inside(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) bool: a box `xyxy` with positive sides inside its image."""
    positive = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    inside = (corners[:, :2] >= -_SLACK).all(axis=1) & (corners[:, 2:] <= sizes + _SLACK).all(axis=1)
    return np.logical_and(positive, inside)
