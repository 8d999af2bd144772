"""What is to be drawn of an image's objects, as plain arrays, whether it comes as predictions or as ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vertebra.structures import (
    BoxMode,
    Instances,
    PolygonMasks,
    RotatedBoxes,
    polygons_to_bitmask,
    segmentation_to_bitmask,
)

__all__ = ["Marks", "as_array", "as_image", "check_size", "read_marks"]


@dataclass
class Marks:
    """N objects of one image, in its pixels. What is not known is None.

    Args:
        boxes: (N, 4) `xyxy`.
        classes: (N,) class indices.
        scores: (N,) from 0 to 1.
        masks: N masks (H, W) bool, or None for an object without one.
        keypoints: (N, K, 3) x, y and how it is drawn: 0 not at all, 1 as hidden, 2 as visible.
        crowd: (N,) bool.
        corners: (N, 4, 2) of rotated boxes, which are drawn instead of `boxes`; these enclose them.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None
    masks: Sequence[np.ndarray | None] | None
    keypoints: np.ndarray | None
    crowd: np.ndarray
    corners: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: np.ndarray) -> Marks:
        """The objects at these indices (M,) int, in this order."""
        return Marks(
            self.boxes[keep],
            self.classes[keep],
            None if self.scores is None else self.scores[keep],
            None if self.masks is None else [self.masks[i] for i in keep],
            None if self.keypoints is None else self.keypoints[keep],
            self.crowd[keep],
            None if self.corners is None else self.corners[keep],
        )


def read_marks(source: Any, size: tuple[int, int], keypoint_threshold: float = 0.05) -> Marks:
    """Instances (fields `pred_*` or `gt_*`), a dict with `instances`, or a standard dataset dict.

    Args:
        size: (height, width) of the image that is drawn on.
        keypoint_threshold: predicted keypoints with a lower score are not drawn.

    Raises:
        ValueError: the objects belong to an image of another size, or `source` is nothing of the above.
    """
    if isinstance(source, Mapping) and "instances" in source:
        source = source["instances"]
    if isinstance(source, Instances):
        return _from_instances(source, size, keypoint_threshold)
    if isinstance(source, Mapping):
        return _from_dataset_dict(source, size)
    raise ValueError(
        f"nothing to draw in a {type(source).__name__}: expected Instances, or a dict with them or annotations"
    )


def as_image(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 from an array (H, W, 3) or (H, W), or a tensor (3, H, W), with values from 0 to 255."""
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    else:
        array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ValueError(f"expected an image (H, W, 3) or a tensor (3, H, W), got shape {tuple(np.shape(image))}")
    if array.dtype != np.uint8:
        array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def as_array(values: Any) -> np.ndarray:
    """A tensor of any device, or anything that numpy takes, as an array."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def check_size(labels: np.ndarray, image: np.ndarray, what: str) -> None:
    """An error where a map (H, W) is not of the image's size."""
    if labels.shape != image.shape[:2]:
        raise ValueError(f"{what} of shape {labels.shape} do not fit an image of {image.shape[:2]} (height, width)")


def _from_instances(instances: Instances, size: tuple[int, int], keypoint_threshold: float) -> Marks:
    if tuple(instances.image_size) != tuple(size):
        raise ValueError(
            f"the instances belong to an image of {tuple(instances.image_size)}, this one is {tuple(size)}"
        )
    predicted = instances.has("pred_boxes") or instances.has("pred_classes") or instances.has("scores")
    prefix = "pred_" if predicted else "gt_"
    count = len(instances)

    def field(name: str) -> Any:
        return instances.get(name) if instances.has(name) else None

    masks = _masks(field(f"{prefix}masks"), size)
    rotated = [v for k, v in instances.get_fields().items() if k.startswith(prefix) and isinstance(v, RotatedBoxes)]
    corners = _array(rotated[0].corners()) if rotated else None
    boxes = _array(field(f"{prefix}boxes"))
    if corners is not None:
        boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    keypoints = _array(field(f"{prefix}keypoints"))
    if predicted and keypoints is not None:
        keypoints = keypoints.copy()
        keypoints[..., 2] = np.where(keypoints[..., 2] >= keypoint_threshold, 2, 0)
    classes = _array(field(f"{prefix}classes"))
    scores = _array(field("scores"))
    return Marks(
        _boxes_of(masks, count) if boxes is None else boxes.reshape(-1, 4).astype(np.float64),
        np.zeros(count, np.int64) if classes is None else classes.astype(np.int64),
        None if scores is None else scores.astype(np.float64),
        masks,
        keypoints,
        np.zeros(count, bool),
        None if corners is None else corners.astype(np.float64),
    )


def _from_dataset_dict(record: Mapping, size: tuple[int, int]) -> Marks:
    annotations = record.get("annotations", ())
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    masks = [segmentation_to_bitmask(a["segmentation"], *size) if a.get("segmentation") else None for a in annotations]
    points = [np.reshape(a["keypoints"], (-1, 3)) if a.get("keypoints") is not None else None for a in annotations]
    most = max((len(p) for p in points if p is not None), default=0)
    keypoints = [np.zeros((most, 3)) if p is None else p for p in points]
    return Marks(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in annotations], np.int64),
        None,
        masks if any(mask is not None for mask in masks) else None,
        np.array(keypoints, np.float64) if most else None,
        np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool),
    )


def _array(value: Any) -> np.ndarray | None:
    """Boxes, Keypoints, tensors and arrays as an array."""
    if value is None:
        return None
    tensor = getattr(value, "tensor", value)
    return tensor.detach().cpu().float().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)


def _masks(value: Any, size: tuple[int, int]) -> list[np.ndarray] | None:
    """BitMasks, PolygonMasks, a tensor (N, H, W) of bools or probabilities, or a list of COCO segmentations."""
    if value is None:
        return None
    if isinstance(value, PolygonMasks):
        return [polygons_to_bitmask(polygons, *size) for polygons in value]
    if isinstance(value, (list, tuple)):
        return [segmentation_to_bitmask(segmentation, *size) for segmentation in value]
    array = as_array(getattr(value, "tensor", value))
    array = array.reshape(len(array), *array.shape[-2:])  # (N, 1, H, W) too
    if array.shape[1:] != tuple(size):
        raise ValueError(f"masks of {array.shape[1:]} pixels do not fit an image of {tuple(size)}; paste them first")
    return list(array > 0.5)


def _boxes_of(masks: list[np.ndarray] | None, count: int) -> np.ndarray:
    """(N, 4) boxes around the masks, zeros where there is none."""
    boxes = np.zeros((count, 4))
    for i, mask in enumerate(masks or ()):
        ys, xs = np.nonzero(mask)
        if len(ys):
            boxes[i] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return boxes
