"""A model's output for one image as columns.

Boxes are `xyxy` in pixels of the original image. Masks are kept run-length encoded. Predictions without a rank (a
NaN score) or a place (a coordinate that is not finite) are dropped and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from vertebra.errors import DataError
from vertebra_eval.coco.columns import can_be_ranked

__all__ = ["ImageDetections"]


@dataclass
class ImageDetections:
    """The n detections of one image.

    Args:
        boxes: (n, 4) float64 `xyxy`, original image pixels.
        scores: (n,) float64.
        classes: (n,) int64, from 0.
        masks: n run-length masks {"size": [h, w], "counts": bytes}; None if the model gives none.
        keypoints: (n, K, 3) float64 x, y, score; None if the model gives none.
        dropped: number of further detections, without a rank or a place.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: list[dict] | None = None
    keypoints: np.ndarray | None = None
    dropped: int = 0

    @classmethod
    def from_output(cls, record: dict, output: dict) -> ImageDetections:
        """A model's output dict to columns.

        Args:
            record: the model's input; `height` and `width` say the original size, where they are there.
            output: its `instances` have `pred_boxes`, `scores`, `pred_classes`, and may have `pred_masks` (bool
                (n, H, W), anything with such a `tensor`, or a list of run-length dicts) and `pred_keypoints`.

        Raises:
            DataError: no instances, a field missing, lengths that differ, masks not in the image's size.
        """
        where = f"the output for image {record.get('image_id', record.get('file_name'))!r}"
        if "instances" not in output:
            raise DataError(
                f"{where} has no 'instances', only {', '.join(map(repr, output)) or 'nothing'}.\n"
                "  COCOEvaluator evaluates instances; choose evaluators for the tasks of the model's heads"
            )
        instances = output["instances"]
        missing = [name for name in ("pred_boxes", "scores", "pred_classes") if not instances.has(name)]
        if missing:
            raise DataError(f"{where}: its instances have no {', '.join(missing)}; a head's predict has to set them")
        boxes = _array(instances.pred_boxes).reshape(-1, 4).astype(np.float64)
        scores = _array(instances.scores).reshape(-1).astype(np.float64)
        classes = _array(instances.pred_classes).reshape(-1).astype(np.int64)
        keypoints = None
        if instances.has("pred_keypoints"):
            keypoints = _array(instances.pred_keypoints).astype(np.float64)
            if keypoints.ndim != 3 or keypoints.shape[-1] != 3:
                raise DataError(
                    f"{where}: pred_keypoints have shape {keypoints.shape}; expected (n, K, 3): x, y, score"
                )
        masks = _encode(instances.pred_masks, record, where) if instances.has("pred_masks") else None
        columns = [column for column in (boxes, scores, classes, masks, keypoints) if column is not None]
        if len({len(column) for column in columns}) > 1:
            raise DataError(
                f"{where}: its fields differ in length: {', '.join(str(len(column)) for column in columns)}"
            )

        points = [] if keypoints is None else [keypoints[..., :2]]
        good = can_be_ranked(scores, boxes, *points)
        if keypoints is not None:
            good &= ~np.isnan(keypoints[..., 2]).any(axis=1)
        if not good.all():
            boxes, scores, classes = boxes[good], scores[good], classes[good]
            keypoints = None if keypoints is None else keypoints[good]
            masks = None if masks is None else [mask for mask, keep in zip(masks, good, strict=True) if keep]
        return cls(boxes, scores, classes, masks, keypoints, dropped=int((~good).sum()))


def _array(value: Any) -> np.ndarray:
    """Tensor, array, list or anything with a `tensor`, to an array on the CPU."""
    value = getattr(value, "tensor", value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _encode(masks: Any, record: dict, where: str) -> list[dict]:
    """Masks of one image to run lengths in COCO's column order."""
    if isinstance(masks, (list, tuple)) and all(isinstance(mask, dict) for mask in masks):
        encoded = [_compressed(mask) for mask in masks]
        sizes = {tuple(mask["size"]) for mask in encoded}
    else:
        array = _array(masks)
        if array.ndim != 3:
            raise DataError(f"{where}: pred_masks have shape {array.shape}; expected (n, height, width)")
        if not len(array):
            return []
        sizes = {array.shape[1:]}
        columns = np.asfortranarray((array > 0.5 if array.dtype != bool else array).transpose(1, 2, 0), dtype=np.uint8)
        encoded = coco_mask.encode(columns)  # takes (h, w, n) in Fortran order
    wanted = (record.get("height"), record.get("width"))
    wrong = [size for size in sizes if None not in wanted and tuple(size) != wanted]
    if wrong:
        raise DataError(
            f"{where}: pred_masks have size {wrong[0]} (height, width), the original image {wanted}.\n"
            "  Masks have to be pasted into the original image's size before they are evaluated"
        )
    return encoded


def _compressed(mask: dict) -> dict:
    if isinstance(mask["counts"], list):
        return coco_mask.frPyObjects(mask, *mask["size"])
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
