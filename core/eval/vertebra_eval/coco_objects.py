"""COCO's annotation records: what stands for "none", and what is legal but rarely meant, in one note for each kind."""

from __future__ import annotations

from collections.abc import Callable, Container
from numbers import Real
from typing import Any

import numpy as np

__all__ = ["COCO_MAX_DETS", "id_cause", "mask_of", "object_notes", "polygons_cause"]

COCO_MAX_DETS = {"bbox": (1, 10, 100), "segm": (1, 10, 100), "keypoints": (20,)}
"""Detections per image and class that count, by task (https://cocodataset.org/#detection-eval)."""

_MANY_CROWDS = 0.2  # share of the objects; in COCO itself 1 of 80
_MORE_THAN_A_PIXEL = 4  # square pixels of a box whose object cannot have area 1


def mask_of(segmentation: Any) -> Any:
    """A `segmentation` without empty polygons; None where that leaves no mask (`null`, `{}`, `[]`, `[[]]`)."""
    if isinstance(segmentation, list):
        segmentation = [one for one in segmentation if not (isinstance(one, (list, tuple)) and not len(one))]
    return None if isinstance(segmentation, (list, dict)) and not segmentation else segmentation


def id_cause(key: Any, known: Container) -> str:
    """`; write 1 ...` for an id that is one of the known ones but for its type; otherwise empty."""
    if isinstance(key, str):
        number = int(key) if len(key) < 20 and key.removeprefix("-").isdecimal() else None
        return f"; the ids are numbers: write {number} without quotes" if number in known else ""
    if isinstance(key, bool) or not isinstance(key, (int, float)) or key != key or key in (np.inf, -np.inf):
        return ""
    whole = int(key)
    if whole == key and str(whole) in known:
        return f'; the ids are texts: write "{whole}"'
    if isinstance(key, float) and whole == key and whole in known:
        return f"; ids are whole numbers: write {whole} (pandas writes {key} where a column has gaps)"
    return ""


def polygons_cause(segmentation: Any) -> str | None:
    """What is wrong with a list that is nearly one of polygons as COCO writes them; None: nothing that is known."""
    if isinstance(segmentation, np.ndarray):
        segmentation = segmentation.tolist()
    if not isinstance(segmentation, (list, tuple)) or not segmentation:
        return None
    if all(isinstance(value, Real) for value in segmentation):
        return "is one flat list of numbers; a pair of brackets is missing: [[x1, y1, x2, y2, ...]]"
    points = segmentation
    if all(isinstance(one, (list, tuple)) and one and not isinstance(one[0], Real) for one in segmentation):
        points = [point for polygon in segmentation for point in polygon]
    pairs = len(points) > 2 and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in points)
    if pairs or all(isinstance(one, dict) for one in points):
        return "is a list of points; write each polygon as one list of numbers: [[x1, y1, x2, y2, ...]]"
    return None


def object_notes(
    image: np.ndarray,
    category: np.ndarray,
    areas: np.ndarray,
    crowd: np.ndarray,
    box_areas: np.ndarray,
    called: Callable[[int], str],
    max_dets: int = COCO_MAX_DETS["bbox"][-1],
    ignored: np.ndarray | None = None,
) -> list[str]:
    """Sentences on N objects, each with a count and the first object.

    Args:
        image, category: (N,) int, any numbering.
        areas: (N,) float, as annotated; NaN where there is none.
        crowd: (N,) bool.
        box_areas: (N,) float, width times height.
        called: a name for the object of a row.
        max_dets: detections of an image and class that evaluation counts.
        ignored: (N,) bool, objects that are not to be found; None: the crowd regions.
    """
    notes = []
    for what, found in (
        ("area 0, which OKS divides by", areas == 0),
        ("area 1, though their boxes are larger", (areas == 1) & (box_areas > _MORE_THAN_A_PIXEL)),
        ("a negative area", areas < 0),
    ):
        if found.any():
            notes.append(
                f"{found.sum()} of {len(areas)} objects have {what} (first: {called(int(found.argmax()))}); size "
                "ranges and keypoint numbers go by `area`: without it, it is computed"
            )
    if crowd.sum() > _MANY_CROWDS * len(crowd):
        notes.append(
            f"{crowd.sum()} of {len(crowd)} objects are crowd regions (iscrowd 1; first: "
            f"{called(int(crowd.argmax()))}): they are not trained on, and not missed in evaluation. Are they masks of "
            "single objects, as some tools write them? Then set iscrowd to 0"
        )
    wanted = np.flatnonzero(~(crowd if ignored is None else ignored))
    if len(wanted):
        many = category.max() + 1
        groups, first, counts = np.unique(
            image[wanted] * many + category[wanted], return_index=True, return_counts=True
        )
        dense = counts > max_dets
        if dense.any():
            row = int(wanted[first[dense].min()])
            notes.append(
                f"{len(np.unique(groups[dense] // many))} images have more than {max_dets} objects of one class (up to "
                f"{counts.max()}; first: {called(row)}), and only the {max_dets} best detections of a class and image "
                "count: the recall cannot reach 1. Raise max_dets of the evaluator (--max-dets of evaluate-results), "
                "and the model's limit"
            )
    return notes
