"""How much a detection and an object overlap, for flat lists of pairs: box IoU, mask IoU, keypoint similarity (OKS).

The order of the floating point operations is pycocotools', so that results are the same to the last bit.
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from vertebra_eval.coco.columns import DetectionColumns, GroundTruthColumns
from vertebra_eval.coco.params import CocoParams
from vertebra_eval.errors import DataError
from vertebra_eval.masks import MaskColumn

__all__ = ["PAIRS_AT_ONCE", "box_overlaps", "keypoint_overlaps", "mask_overlaps", "pair_overlaps"]

PAIRS_AT_ONCE = {"bbox": 1 << 15, "segm": 1 << 15, "boundary": 1 << 15, "keypoints": 1 << 12}
"""Pairs of one call, which bounds its memory: about 3 MiB."""


def pair_overlaps(
    truth: GroundTruthColumns,
    detections: DetectionColumns,
    task: str,
    params: CocoParams,
    detection_rows: np.ndarray,
    truth_rows: np.ndarray,
) -> np.ndarray:
    """(P,) overlap of P pairs, given by rows of both; all objects of an image for one detection after the other."""
    if task == "bbox":
        crowd = truth.crowd[truth_rows]
        return box_overlaps(detections.boxes[detection_rows], truth.boxes[truth_rows], crowd)
    if task in ("segm", "boundary"):
        assert detections.masks is not None and truth.masks is not None  # evaluate_columns has looked
        of_pairs = truth.crowd, detection_rows, truth_rows
        overlaps = mask_overlaps(detections.masks, truth.masks, *of_pairs)
        if task == "segm":
            return overlaps
        assert detections.boundaries is not None and truth.boundaries is not None
        return np.minimum(overlaps, mask_overlaps(detections.boundaries, truth.boundaries, *of_pairs))
    assert detections.keypoints is not None and truth.keypoints is not None
    return keypoint_overlaps(
        detections.keypoints[detection_rows],
        truth.keypoints[truth_rows],
        truth.boxes[truth_rows],
        truth.areas[truth_rows],
        params.sigmas,
    )


def box_overlaps(detected: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(P,) IoU of paired boxes (P, 4) xywh; where `crowd`, the part of the detection that lies inside the crowd."""
    dx, dy, dw, dh = detected.T
    gx, gy, gw, gh = truth.T
    width = np.minimum(dw + dx, gw + gx) - np.maximum(dx, gx)
    height = np.minimum(dh + dy, gh + gy) - np.maximum(dy, gy)
    meet = (width > 0) & (height > 0)
    inside = width * height
    area = dw * dh
    union = np.where(crowd, area, area + gw * gh - inside)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(meet, inside / union, 0.0)


def mask_overlaps(
    detected: MaskColumn,
    truth: MaskColumn,
    crowd: np.ndarray,
    detection_rows: np.ndarray,
    truth_rows: np.ndarray,
) -> np.ndarray:
    """(P,) mask IoU of pairs, by pycocotools' run length code; of a crowd, the part of the detection inside it.

    Args:
        crowd: (G,) per object.
        detection_rows, truth_rows: (P,) the pairs: all objects for one detection after the other. Neighbors that have
            the same objects are one call.
    """
    overlaps = np.empty(len(detection_rows))
    firsts = _changes(detection_rows)  # (d,) each detection's first pair
    starts = firsts[_changes(truth_rows[firsts])]  # where other objects begin
    counts = np.append(firsts[1:], len(overlaps))[np.searchsorted(firsts, starts)] - starts  # objects of each image
    objects = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    found, known = detected.encoded(detection_rows[firsts]), truth.encoded(truth_rows[objects])
    is_crowd = crowd[truth_rows[objects]].astype(np.uint8)
    bounds = zip(starts.tolist(), [*starts[1:].tolist(), len(overlaps)], counts.tolist(), strict=True)
    detection = object_ = 0
    for start, end, count in bounds:
        last, last_object = detection + (end - start) // count, object_ + count
        ious = coco_mask.iou(found[detection:last], known[object_:last_object], is_crowd[object_:last_object])
        overlaps[start:end] = ious.reshape(-1)
        detection, object_ = last, last_object
    return overlaps


def _changes(values: np.ndarray) -> np.ndarray:
    """(c,) int64 places where another value begins, the first one's included."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))[: len(values)]


def keypoint_overlaps(
    detected: np.ndarray, truth: np.ndarray, boxes: np.ndarray, areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """(P,) object keypoint similarity of pairs: the mean over the labeled keypoints of exp(-d² / (2 s² k²)).

    An object without labeled keypoints has every keypoint's distance measured to its box, doubled in width and height.

    Source: https://cocodataset.org/#keypoints-eval, with the constants pycocotools has: k = 2 sigma, s² = area.
    Args:
        detected, truth: (P, J, 3) x, y, and for truth visibility, 0 unlabeled.
        boxes: (P, 4) xywh of the objects. areas: (P,) of the objects. sigmas: (J,).
    """
    if truth.shape[1] != len(sigmas) or detected.shape[1] != len(sigmas):
        raise DataError(
            f"objects have {truth.shape[1]} keypoints, detections {detected.shape[1]}, and there are {len(sigmas)} OKS "
            "sigmas; give one sigma for each keypoint"
        )
    labeled = truth[..., 2] > 0  # (P, J)
    count = labeled.sum(axis=1)
    x, y = detected[..., 0], detected[..., 1]
    dx, dy = x - truth[..., 0], y - truth[..., 1]
    none = count == 0
    if none.any():
        bx, by, bw, bh = (column[none, None] for column in boxes.T)
        dx[none] = np.maximum(0, (bx - bw) - x[none]) + np.maximum(0, x[none] - (bx + bw * 2))
        dy[none] = np.maximum(0, (by - bh) - y[none]) + np.maximum(0, y[none] - (by + bh * 2))
        labeled[none] = True
        count[none] = len(sigmas)
    exponent = (dx**2 + dy**2) / (sigmas * 2) ** 2 / (areas[:, None] + np.spacing(1)) / 2
    similarity = np.zeros(len(detected))
    for number in np.unique(count):  # rows of equal length are summed as each alone would be
        rows = count == number
        terms = np.exp(-exponent[rows][labeled[rows]]).reshape(-1, number)
        similarity[rows] = terms.sum(axis=1) / number
    return similarity
