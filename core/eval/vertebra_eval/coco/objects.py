"""What is legal in COCO ground truth but rarely meant, in one note for each kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["COCO_MAX_DETS", "object_notes"]

COCO_MAX_DETS = {"bbox": (1, 10, 100), "segm": (1, 10, 100), "boundary": (1, 10, 100), "keypoints": (20,)}
"""Detections per image and class that count, by task (https://cocodataset.org/#detection-eval)."""

_MANY_CROWDS = 0.2  # share of the objects; in COCO itself 1 of 80
_MORE_THAN_A_PIXEL = 4  # square pixels of a box whose object cannot have area 1


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
