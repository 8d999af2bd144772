"""Proposals made beforehand: from a dict's boxes in the file's image to `Instances` in the transformed one."""

from __future__ import annotations

import numpy as np
import torch

from vertebra.errors import DataError
from vertebra.structures import Boxes, BoxMode, Instances

__all__ = ["PROPOSAL_KEYS", "proposals_of"]

PROPOSAL_KEYS = ("proposal_boxes", "proposal_objectness_logits", "proposal_bbox_mode")
"""Detectron2's keys of a standard dict: (P, 4) boxes in the file's image, (P,) logits, the boxes' mode (XYXY_ABS)."""


def proposals_of(dataset_dict: dict, matrix: np.ndarray, size: tuple[int, int]) -> Instances:
    """`proposal_boxes` and `objectness_logits` of the boxes that have some area in the image, best first.

    Args:
        matrix: (3, 3), a point (x, y, 1) of the file's image to its place in the transformed one.
        size: (height, width) of the transformed image.
    Raises:
        DataError: boxes and logits differ in number, or are not numbers.
    """
    where = dataset_dict.get("file_name", "a dataset dict")
    try:
        boxes = np.asarray(dataset_dict["proposal_boxes"], dtype=np.float64).reshape(-1, 4)
        logits = np.asarray(dataset_dict["proposal_objectness_logits"], dtype=np.float64).reshape(-1)
        mode = BoxMode(dataset_dict.get("proposal_bbox_mode", BoxMode.XYXY_ABS))
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(
            f"{where}: proposals are `proposal_boxes` (P, 4), `proposal_objectness_logits` (P,) and, unless the boxes "
            f"are x0, y0, x1, y1 in pixels, `proposal_bbox_mode`; these cannot be read ({err})"
        ) from err
    if len(boxes) != len(logits) or not (np.isfinite(boxes).all() and np.isfinite(logits).all()):
        raise DataError(
            f"{where}: {len(boxes)} proposal_boxes and {len(logits)} logits; expected the same number of finite ones"
        )
    if mode != BoxMode.XYXY_ABS and len(boxes):
        boxes = BoxMode.convert(boxes, mode, BoxMode.XYXY_ABS)
    boxes = _moved(boxes, matrix)
    height, width = size
    boxes = boxes.clip(min=0, max=[width, height, width, height])
    full = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    order = np.argsort(-logits[full], kind="stable")
    return Instances(
        size,
        proposal_boxes=Boxes(torch.from_numpy(boxes[full][order]).float()),
        objectness_logits=torch.from_numpy(logits[full][order]).float(),
    )


def _moved(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(P, 4) xyxy to the upright boxes around their moved corners."""
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    places = np.concatenate((corners, np.ones((len(boxes), 4, 1))), axis=2) @ matrix.T  # (P, 4, 3)
    points = places[..., :2] / places[..., 2:]
    return np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1)
