"""Overlaps of detections with the objects of their image, of whatever class: what same-class matching does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vertebra_eval.coco.matches import Matches
from vertebra_eval.coco.overlap import box_overlaps, mask_overlaps

__all__ = ["Overlaps", "overlaps"]

_PAIRS = 2_000_000  # detections x objects at a time


class Overlaps(NamedTuple):
    """P pairs of a detection and an object of its image, image after image.

    Args:
        detection, truth: (P,) int64, rows of the matches.
        iou: (P,) float64; with an object that does not count, the share of the detection that lies inside it, as COCO
            has it for crowds.
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray


def overlaps(matches: Matches, least: float, task: str = "bbox") -> Overlaps:
    """All pairs with an IoU of at least `least` (above 0), by the places of the detections among the matches.

    Args:
        task: bbox or segm, whose overlap is computed.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    truth_image = matches.objects.image
    objects = np.argsort(truth_image, kind="stable")
    images = np.arange(matches.num_images + 1)
    first = np.searchsorted(truth_image[objects], images)  # (N + 1,), where an image's objects start
    counts = np.diff(first)[matches.image]  # (D,) objects in the image of each detection
    ordered = np.argsort(matches.image, kind="stable")
    for chunk in _chunks(counts[ordered]):
        rows = ordered[chunk]
        detection = np.repeat(rows, counts[rows])
        offset = np.arange(len(detection)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        truth = objects[first[matches.image[detection]] + offset]
        own = matches.detection[detection]
        if task == "bbox":
            boxes = matches.detections.boxes[own], matches.objects.boxes[truth]
            iou = box_overlaps(*boxes, matches.object_ignored[truth])
        else:
            masks, true_masks = matches.detections.masks, matches.objects.masks
            assert masks is not None and true_masks is not None  # what was evaluated by masks has them
            iou = mask_overlaps(masks, true_masks, matches.object_ignored, own, truth)
        keep = iou >= least
        found.append((detection[keep], truth[keep], iou[keep]))
    return Overlaps(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _chunks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in runs of at most `_PAIRS` pairs, or of one row."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _PAIRS, side="right")))
        yield np.arange(start, stop)
        start = stop
