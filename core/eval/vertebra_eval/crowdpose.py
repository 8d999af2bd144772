"""CrowdPose's average precision of keypoints: `crowdpose_evaluate`.

Li et al., "CrowdPose: Efficient Crowded Scenes Pose Estimation and A New Benchmark", arXiv:1812.00324. It is COCO's
with 14 keypoints of their own constants, the area of a person being 0.53 of its box, no area ranges, and AP by how
crowded an image is. The numbers are those of https://github.com/Jeff-sjtu/CrowdPose, which rounds AP by crowding to
four digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vertebra_eval.coco.data import read_coco
from vertebra_eval.coco.evaluate import evaluate_columns
from vertebra_eval.coco.metrics import coco_metrics
from vertebra_eval.coco.numbers import CocoNumbers, odd_detections
from vertebra_eval.coco.params import CocoParams
from vertebra_eval.coco.read_detections import read_detections
from vertebra_eval.coco.read_truth import read_ground_truth
from vertebra_eval.errors import DataError

__all__ = ["AREA_OF_BOX", "CROWDPOSE_SIGMAS", "crowdpose_evaluate"]

AREA_OF_BOX = 0.53
_TENFOLD = (
    *(0.79, 0.79, 0.72, 0.72, 0.62, 0.62),  # shoulders, elbows, wrists
    *(1.07, 1.07, 0.87, 0.87, 0.89, 0.89),  # hips, knees, ankles
    *(0.79, 0.79),  # head, neck
)
CROWDPOSE_SIGMAS = np.array(_TENFOLD) / 10
"""OKS standard deviations of its 14 keypoints."""
_LEVELS = {"easy": (-np.inf, 0.2), "medium": (0.2, 0.8), "hard": (0.8, np.inf)}
"""Name -> crowd index, from the first on and below the second."""


def crowdpose_evaluate(gt: Any, dt: Any) -> CocoNumbers:
    """AP, AP50, AP75, AR, AR50, AR75, and AP_easy, AP_medium, AP_hard, as `crowdpose/<name>`.

    Args:
        gt: path of COCO ground truth whose images have `crowdIndex`, or the dict in it.
        dt: path of COCO results with 14 keypoints, or the list in it.

    Raises:
        DataError: what cannot be read; other than 14 keypoints; images without a crowd index.
    """
    data = read_coco(gt)
    truth = read_ground_truth(data, "keypoints", area_of_box=AREA_OF_BOX)
    detections = read_detections(dt, truth, "keypoints")
    for part in (truth, detections):
        if len(part) and part.keypoints is not None and part.keypoints.shape[1] != len(CROWDPOSE_SIGMAS):
            raise DataError(
                f"{part.source}: {part.keypoints.shape[1]} keypoints; CrowdPose has {len(CROWDPOSE_SIGMAS)}. Other "
                "sets of keypoints are evaluated by `coco --task keypoints --area-of-box 0.53 --sigmas ...`"
            )
    index = np.array([data.images.crowd_index.get(data.images.rows[key], np.nan) for key in truth.image_ids])
    unknown = np.flatnonzero(~((index >= 0) & (index <= 1)))
    if len(unknown):
        raise DataError(
            f"{truth.source}: {len(unknown)} of {len(index)} images have no crowdIndex, a number from 0 to 1; the "
            f"first is image {truth.image_ids[int(unknown[0])]!r}"
        )
    params = CocoParams.for_task("keypoints", sigmas=CROWDPOSE_SIGMAS, area_ranges={"all": (0.0, 1e10)})
    result = evaluate_columns(truth, detections, "keypoints", params)
    found, why = coco_metrics(result, [])
    metrics = {f"crowdpose/{name}": found[f"keypoints/{name}"] for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75")}
    reasons = {f"crowdpose/{name.partition('/')[2]}": sentence for name, sentence in why.items()}
    for level, (low, high) in _LEVELS.items():
        images = np.flatnonzero((index >= low) & (index < high))
        objects, found_there = (
            truth.take(np.isin(truth.image, images)),
            detections.take(np.isin(detections.image, images)),
        )
        own = evaluate_columns(objects, found_there, "keypoints", params)
        value = coco_metrics(own, [])[0]["keypoints/AP"]
        metrics[f"crowdpose/AP_{level}"] = value
        if value is None:
            reasons[f"crowdpose/AP_{level}"] = (
                f"none of the {len(images)} images with a crowd index from {max(low, 0):g} to {min(high, 1):g} has a "
                "person with labeled keypoints"
            )
    notes = [*truth.notes, *detections.notes, *odd_detections(truth, detections, "keypoints")]
    return CocoNumbers(metrics, reasons, notes, result, truth, detections)
