"""Where predictions do not find the ground truth: which usual mistake would explain it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vertebra.detection import batched_nms
from vertebra.models.batch import IGNORED_LABEL
from vertebra.testing.found import (
    IOU,
    Outputs,
    average_precision,
    compared,
    ious,
    keypoints_found,
    label_maps,
    labels_found,
    objects_found,
    pairs,
    resized,
    scale_of,
    shares_found,
)

__all__ = ["likely_cause"]

_EXPLAINED = 0.5  # a mistake explains predictions where undoing it finds at least this share, and far more than now
_ENOUGH = 0.9
_FACTORS = (2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_SHIFTS = (2, 4, 8, 16, 32)  # pixels: half a cell
_NMS = 0.5  # IoU

Size = tuple[int, int]


def likely_cause(outputs: Outputs, inputs: Outputs, padded: Size | None = None) -> str:
    """One sentence on why predictions do not fit the ground truth: the mistake that, undone, makes them fit. Otherwise
    the usual ones.

    Args:
        padded: (height, width) of the batch in input pixels; None: the largest of the images.
    """
    keys, shares = compared(outputs, inputs), shares_found(outputs, inputs)
    sizes = [one["image"].shape[-2:] for one in inputs]
    padded = padded or (max(h for h, _ in sizes), max(w for _, w in sizes))
    if "instances" in keys:
        if not any(len(one["instances"]) for one in outputs):
            return (
                "There are no detections at all: all scores are below the threshold (are they decoded as they are "
                "learned, by sigmoid or softmax?), or all boxes are empty (corners in another order than x0, y0, x1, "
                "y1, or center and size taken for corners)"
            )
        if shares["objects"] < _ENOUGH:
            return _cause_in_boxes(outputs, inputs, padded) or _USUAL
        if shares["average precision"] < _ENOUGH:
            return _cause_in_ranking(outputs, inputs)
        if shares.get("keypoints", 1.0) < _ENOUGH:
            return _cause_in_keypoints(outputs, inputs) or _USUAL
    if shares.get("mean IoU", 1.0) < _ENOUGH:
        return _cause_in_labels(outputs, inputs, padded) or _USUAL
    return _USUAL


_USUAL = (
    "Usual causes: predict decodes other numbers than losses learn (another formula, sigmoid, or stride), coordinates "
    "in another order (y before x, center and size for corners, right before top), cells counted "
    "from their corner instead of their center, class ids moved by one (a background class), outputs not scaled to the "
    "original size"
)


def _cause_in_boxes(outputs: Outputs, inputs: Outputs, padded: Size) -> str | None:
    now = objects_found(outputs, inputs)
    causes: dict[str, float] = {}
    for cause, change in _box_changes().items():
        of_input = partial(_in_input, change=change)  # before or after the boxes were scaled to the original size
        causes[cause] = max(
            objects_found(outputs, inputs, change), objects_found(outputs, inputs, of_input, with_input=True)
        )
    pixels = "The boxes are in pixels of the input; scale them to the original size (rescale_instances)"
    causes[pixels] = objects_found(outputs, inputs, _to_original, with_input=True)
    of_padded = partial(_from_padded, padded=padded)
    causes[f"The boxes are {_BY_PADDED}"] = objects_found(outputs, inputs, of_padded, with_input=True)
    anywhere = objects_found(outputs, inputs, by_class=False)
    causes["The boxes fit, but not the classes" + _classes_named(_class_pairs(outputs, inputs))] = anywhere
    return _best(causes, now)


_BY_PADDED = (
    "scaled by the padded size of the batch: scale by each image's own (batch.image_sizes), without the padding on the "
    "right and below"
)


def _box_changes() -> dict[str, Callable[[Tensor, Size], Tensor]]:
    """{mistake: (boxes (n, 4), (height, width)) -> what they would be without it}."""

    def corners(boxes: Tensor, size: Size) -> Tensor:
        return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)

    def far_corner(boxes: Tensor, size: Size) -> Tensor:
        return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)

    def pixels(boxes: Tensor, size: Size) -> Tensor:
        return boxes * boxes.new_tensor([size[1], size[0]]).repeat(2)

    def sides(boxes: Tensor, size: Size) -> Tensor:
        middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).flip(1)
        return torch.cat((middle - side / 2, middle + side / 2), dim=1)

    changes: dict[str, Callable[[Tensor, Size], Tensor]] = {
        "x and y are swapped: coordinates come as x0, y0, x1, y1": lambda boxes, size: boxes[:, [1, 0, 3, 2]],
        "Width and height of the boxes are exchanged, their centers are right": sides,
        "The boxes are center and size where corners x0, y0, x1, y1 are expected": corners,
        "The boxes are corner and size where corners x0, y0, x1, y1 are expected": far_corner,
        "The boxes are fractions of the image where pixels are expected": pixels,
    }
    for factor in _FACTORS:
        for scale, much in ((factor, "small"), (1 / factor, "large")):
            cause = f"The boxes are {factor:g} times too {much}: is the stride of their level that which decodes them?"
            changes[cause] = partial(_scaled, scale=scale)
    for pixel in _SHIFTS:
        for shift, where in ((pixel, "left and to the top"), (-pixel, "right and to the bottom")):
            cause = (
                f"The boxes lie {pixel} pixels too far to the {where}: does the center of a cell lie half a stride in?"
            )
            changes[cause] = partial(_shifted, shift=shift)
    return changes


def _scaled(boxes: Tensor, size: Size, scale: float) -> Tensor:
    return boxes * scale


def _shifted(boxes: Tensor, size: Size, shift: float) -> Tensor:
    return boxes + shift


def _to_original(boxes: Tensor, size: Size, given: dict[str, Any]) -> Tensor:
    return boxes * scale_of(given)


def _in_input(boxes: Tensor, size: Size, given: dict[str, Any], change: Callable[[Tensor, Size], Tensor]) -> Tensor:
    return change(boxes / scale_of(given), tuple(given["image"].shape[-2:])) * scale_of(given)


def _from_padded(boxes: Tensor, size: Size, given: dict[str, Any], padded: Size) -> Tensor:
    height, width = given["image"].shape[-2:]
    return boxes * boxes.new_tensor([padded[1] / width, padded[0] / height]).repeat(2)


def _cause_in_ranking(outputs: Outputs, inputs: Outputs) -> str:
    """All objects are found, but so is much that is none, before them."""
    count, wanted = (
        sum(len(one[key]) for one in many) for many, key in ((outputs, "instances"), (inputs, "instances"))
    )
    extra = f"The objects are found, but among {count} detections for {wanted} objects"
    scores = torch.cat([one["instances"].scores.float().cpu() for one in outputs])
    if float(scores.max() - scores.min()) < 1e-3:
        return f"{extra}, which all have the score {float(scores[0]):.3g}: are the learned scores used?"

    def suppressed(found: Any) -> Any:
        boxes, classes = found.pred_boxes.tensor.float(), found.pred_classes
        return found[batched_nms(boxes, found.scores.float(), classes, _NMS)]

    precision = average_precision(outputs, inputs, suppressed)
    if precision >= _ENOUGH:
        return f"{extra}: one object is detected several times. Suppress duplicates (Suppression, batched_nms)"
    return f"{extra}, and wrong ones have higher scores than right ones: are the scores those that are learned?"


def _cause_in_keypoints(outputs: Outputs, inputs: Outputs) -> str | None:
    count = inputs[0]["instances"].gt_keypoints.tensor.shape[1]
    changes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "x and y of the keypoints are swapped": lambda points, scale: points.flip(2),
        "The keypoints are in pixels of the input; scale them to the original size": lambda points, scale: (
            points * scale
        ),
    }
    orders = {
        (first, second): [second if i == first else first if i == second else i for i in range(count)]
        for first in range(count)
        for second in range(first)
    }
    for (first, second), order in orders.items():
        cause = f"The keypoints {second} and {first} are exchanged"
        changes[cause] = partial(_reordered, order=order)
    causes = {cause: keypoints_found(outputs, inputs, change) for cause, change in changes.items()}
    return _best(causes, keypoints_found(outputs, inputs))


def _reordered(points: Tensor, scale: Tensor, order: list[int]) -> Tensor:
    return points[:, order]


def _class_pairs(outputs: Outputs, inputs: Outputs) -> set[tuple[int, int]]:
    """(true class, predicted class) of the best box of each object."""
    found = set()
    for output, given in pairs(outputs, inputs):
        overlaps = ious(output, given, by_class=False)
        if overlaps.shape[1]:
            best, row = overlaps.max(dim=1)
            for object_, (overlap, number) in enumerate(zip(best.tolist(), row.tolist(), strict=True)):
                if overlap > IOU:
                    true, predicted = given["instances"].gt_classes, output["instances"].pred_classes
                    found.add((int(true[object_]), int(predicted[number])))
    return found


def _classes_named(found: set[tuple[int, int]]) -> str:
    """How predicted classes belong to true ones: by a rule or by none."""
    named = ", ".join(f"{predicted} for {true}" for true, predicted in sorted(found) if true != predicted)
    if not named:
        return ""
    if len({true for true, _ in found}) < len(found):
        return f": one class comes as several ({named}), so no shift explains it. Are scores and boxes of the same row?"
    shifts = [predicted - true for true, predicted in found]
    by_one = any(shifts.count(step) >= len(shifts) - 1 and len(shifts) > 1 for step in (1, -1))  # one may wrap around
    return f": class ids come as {named}" + (": is there a row for the background?" if by_one else "")


def _cause_in_labels(outputs: Outputs, inputs: Outputs, padded: Size) -> str | None:
    classes = outputs[0]["sem_seg"].shape[0]
    maps, labels = label_maps(outputs, inputs)
    known = torch.cat([one[true != IGNORED_LABEL] for one, true in zip(maps, labels, strict=True)])
    true = torch.cat([one[one != IGNORED_LABEL] for one in labels]).long()
    counts = torch.bincount(true * classes + known, minlength=classes**2).view(classes, classes)
    present = counts.sum(dim=1) > 0
    best = counts.argmax(dim=1)
    renamed = torch.full((classes,), IGNORED_LABEL)
    renamed[best[present]] = torch.arange(classes)[present]
    found = {(int(row), int(best[row])) for row in present.nonzero()[:, 0]}
    one_to_one = len(set(best[present].tolist())) == int(present.sum())
    share = labels_found(outputs, inputs, lambda one, given: renamed[one]) if one_to_one else 0.0
    causes = {"The regions fit, but not the classes" + _classes_named(found): share}
    changes: dict[str, Callable[[Tensor, dict[str, Any]], Tensor]] = {
        "The maps are mirrored from left to right": lambda one, given: one.flip(1),
        "The maps are upside down": lambda one, given: one.flip(0),
        "x and y are swapped: sem_seg is (K, height, width)": lambda one, given: resized(one.T[None], one.shape)[0],
        f"The maps are {_BY_PADDED}": partial(_cut_padding, padded=padded),
    }
    causes |= {cause: labels_found(outputs, inputs, change) for cause, change in changes.items()}
    return _best(causes, labels_found(outputs, inputs))


def _cut_padding(one: Tensor, given: dict[str, Any], padded: Size) -> Tensor:
    height, width = (
        max(1, round(side * own / whole))
        for side, own, whole in zip(one.shape, given["image"].shape[-2:], padded, strict=True)
    )
    return resized(one[None, :height, :width], one.shape)[0]


def _best(causes: Mapping[str, float], now: float) -> str | None:
    cause = max(causes, key=lambda one: causes[one])
    if causes[cause] < max(_EXPLAINED, min(2 * now, (1 + now) / 2)):
        return None
    return f"{cause} (with that undone, {causes[cause]:.0%} are found instead of {now:.0%})"
