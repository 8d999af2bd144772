"""Whether a model's predictions are what the contract says: types, sizes, ranges, order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vertebra.structures import Boxes, Instances
from vertebra.testing.checks import require

__all__ = ["check_predictions"]

_ROOM = 1e-2  # pixels that rounding may put a box outside its image


def check_predictions(
    outputs: Any,
    inputs: Sequence[dict[str, Any]],
    *,
    keys: Sequence[str] = (),
    num_things: int | None = None,
    num_labels: int | None = None,
) -> None:
    """One dict per input, everything in the original image's size, finite and in order.

    Args:
        keys: each dict must have these.
        num_things: classes of `instances`; None: not known.
        num_labels: channels of `sem_seg`; None: not known.
    """
    require(isinstance(outputs, list), f"predict returns a list of dicts, got a {type(outputs).__name__}")
    require(len(outputs) == len(inputs), f"predict returned {len(outputs)} dicts for {len(inputs)} images")
    for row, (output, sample) in enumerate(zip(outputs, inputs, strict=True)):
        where = f"prediction {row}"
        require(isinstance(output, dict), f"{where} is a {type(output).__name__}, it must be a dict")
        missing = [key for key in keys if key not in output]
        require(not missing, f"{where} has no {', '.join(missing)}, which the head's task_outputs declare")
        size = (sample["height"], sample["width"])
        for key, value in output.items():
            name, place = key.rpartition("/")[2], f"{where}: {key}"
            if name == "instances":
                _check_instances(value, size, num_things, place)
            elif name == "sem_seg":
                _check_sem_seg(value, size, num_labels, place)
            elif name == "panoptic_seg":
                _check_panoptic(value, size, place)
            elif name == "proposals":
                require(isinstance(value, Instances), f"{place} must be Instances, it is a {type(value).__name__}")


def _check_instances(found: Any, size: tuple[int, int], num_things: int | None, place: str) -> None:
    require(isinstance(found, Instances), f"{place} must be Instances, it is a {type(found).__name__}")
    require(
        tuple(found.image_size) == size,
        f"{place}: image_size is {tuple(found.image_size)}, the input requested {size} (height, width)",
    )
    missing = [name for name in ("pred_boxes", "scores", "pred_classes") if not found.has(name)]
    require(not missing, f"{place} has no {', '.join(missing)}")
    require(isinstance(found.pred_boxes, Boxes), f"{place}.pred_boxes must be Boxes")
    boxes, scores, classes = found.pred_boxes.tensor, found.scores, found.pred_classes
    count = len(found)
    require(boxes.shape == (count, 4) and boxes.is_floating_point(), f"{place}.pred_boxes must be ({count}, 4) float")
    require(scores.shape == (count,) and scores.is_floating_point(), f"{place}.scores must be ({count},) float")
    require(
        classes.shape == (count,) and classes.dtype == torch.int64,
        f"{place}.pred_classes must be ({count},) int64, they are {tuple(classes.shape)} {classes.dtype}",
    )
    for name, values in (("pred_boxes", boxes), ("scores", scores)):
        require(bool(torch.isfinite(values).all()), f"{place}.{name} has values that are not finite")
        require(not values.requires_grad, f"{place}.{name} carries a gradient")
    require(bool(((scores >= 0) & (scores <= 1)).all()), f"{place}.scores must lie in [0, 1]")
    require(bool((scores[:-1] >= scores[1:]).all()), f"{place} must be sorted by score, best first")
    if num_things is not None and count:
        low, high = int(classes.min()), int(classes.max())
        require(low >= 0 and high < num_things, f"{place}.pred_classes run from {low} to {high}, of {num_things}")
    limit = boxes.new_tensor([size[1], size[0]]) + _ROOM
    require(bool((boxes[:, :2] <= boxes[:, 2:]).all()), f"{place}.pred_boxes has swapped corners; expected xyxy")
    inside = bool((boxes >= -_ROOM).all()) and bool((boxes[:, 2:] <= limit).all())
    require(inside, f"{place}.pred_boxes reach out of the image of size {size}; clip them")
    if found.has("pred_masks"):
        _check_masks(found.pred_masks, count, size, place)
    if found.has("pred_keypoints"):
        points = found.pred_keypoints
        good = isinstance(points, Tensor) and points.dim() == 3 and len(points) == count and points.shape[2] == 3
        require(good, f"{place}.pred_keypoints must be ({count}, K, 3): x, y, score")
        require(bool(torch.isfinite(points).all()), f"{place}.pred_keypoints has values that are not finite")


def _check_masks(masks: Any, count: int, size: tuple[int, int], place: str) -> None:
    if isinstance(masks, (list, tuple)):  # run lengths
        require(len(masks) == count, f"{place}.pred_masks: {len(masks)} for {count} objects")
        return
    masks = getattr(masks, "tensor", masks)
    require(
        isinstance(masks, Tensor) and tuple(masks.shape) == (count, *size) and masks.dtype == torch.bool,
        f"{place}.pred_masks must be ({count}, {size[0]}, {size[1]}) bool, they are "
        f"{tuple(getattr(masks, 'shape', ()))} {getattr(masks, 'dtype', type(masks).__name__)}",
    )


def _check_sem_seg(scores: Any, size: tuple[int, int], num_labels: int | None, place: str) -> None:
    require(
        isinstance(scores, Tensor) and scores.dim() == 3 and scores.is_floating_point(),
        f"{place} must be a float tensor (K, height, width)",
    )
    require(
        tuple(scores.shape[1:]) == size,
        f"{place} is {tuple(scores.shape[1:])}, the input requested {size} (height, width)",
    )
    require(
        num_labels is None or scores.shape[0] == num_labels, f"{place} has {scores.shape[0]} classes, not {num_labels}"
    )
    require(bool(torch.isfinite(scores).all()), f"{place} has values that are not finite")
    require(not scores.requires_grad, f"{place} carries a gradient")


def _check_panoptic(value: Any, size: tuple[int, int], place: str) -> None:
    require(isinstance(value, tuple) and len(value) == 2, f"{place} must be (ids, segments_info)")
    ids, segments = value
    good = isinstance(ids, Tensor) and tuple(ids.shape) == size and not ids.is_floating_point()
    require(good, f"{place}: ids must be an integer tensor {size}")
    lacking = [key for info in segments or () for key in ("id", "category_id", "isthing") if key not in info]
    require(not lacking, f"{place}: segments_info has no {', '.join(sorted(set(lacking)))}")
    named, there = {info["id"] for info in segments or ()}, {i for i in ids.unique().tolist() if i > 0}
    require(named == there, f"{place}: ids {sorted(named ^ there)} are in the map or in segments_info, not in both")
