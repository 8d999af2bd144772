"""How much of the ground truth predictions find, and where they do not: which usual mistake would explain it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vertebra.models.batch import IGNORED_LABEL
from vertebra.structures import BitMasks, Boxes, pairwise_iou

__all__ = ["compared", "likely_cause", "mean_iou", "shares_found"]

Outputs = Sequence[dict[str, Any]]
_IOU = 0.5
_EXPLAINED = 0.5  # a mistake explains predictions where undoing it finds at least this share, and twice as much as now
_FACTORS = (2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def compared(outputs: Outputs, inputs: Outputs) -> set[str]:
    """Keys of predictions that have a counterpart in the ground truth of all inputs."""
    return {key for key in ("instances", "sem_seg") if all(key in one for one in (*outputs, *inputs))}


def shares_found(outputs: Outputs, inputs: Outputs) -> dict[str, float]:
    """{what: share from 0 to 1}: of the objects, those that a prediction of their class overlaps by an IoU of 0.5, in
    boxes and in masks; of semantic labels the mean IoU.

    Args:
        outputs: predictions, in the original size.
        inputs: the images' dicts with `instances` and `sem_seg`, in the input's size.
    """
    found, keys = {}, compared(outputs, inputs)
    if "instances" in keys:
        found["objects"] = _objects_found(outputs, inputs)
        if all(one["instances"].has("pred_masks") for one in outputs):
            found["masks"] = _masks_found(outputs, inputs)
    if "sem_seg" in keys:
        found["mean IoU"] = _labels_found(outputs, inputs)
    return found


def likely_cause(outputs: Outputs, inputs: Outputs) -> str:
    """One sentence on why predictions do not fit the ground truth: the mistake that, undone, makes them fit. Otherwise
    the usual ones."""
    keys = compared(outputs, inputs)
    if "instances" in keys and _objects_found(outputs, inputs) < 0.9:
        if not any(len(one["instances"]) for one in outputs):
            return (
                "There are no detections at all: all scores are below the threshold (are they decoded as they are "
                "learned, by sigmoid or softmax?), or all boxes are empty (corners in another order than x0, y0, x1, "
                "y1, or center and size taken for corners)"
            )
        return _cause_in_boxes(outputs, inputs) or _USUAL
    if "sem_seg" in keys and _labels_found(outputs, inputs) < 0.9:
        return _cause_in_labels(outputs, inputs) or _USUAL
    return _USUAL


_USUAL = (
    "Usual causes: predict decodes other numbers than losses learn (another formula, sigmoid, or stride), coordinates "
    "in another order (y before x, center and size for corners), class ids moved by one (a background class), outputs "
    "not scaled to the original size"
)


def _cause_in_boxes(outputs: Outputs, inputs: Outputs) -> str | None:
    now = _objects_found(outputs, inputs)
    causes: dict[str, float] = {}
    for cause, change in _box_changes().items():
        of_input = partial(_in_input, change=change)  # before or after the boxes were scaled to the original size
        causes[cause] = max(
            _objects_found(outputs, inputs, change), _objects_found(outputs, inputs, of_input, with_input=True)
        )
    pixels = "The boxes are in pixels of the input; scale them to the original size (rescale_instances)"
    causes[pixels] = _objects_found(outputs, inputs, _to_original, with_input=True)
    anywhere = _objects_found(outputs, inputs, by_class=False)
    causes["The boxes fit, but not the classes" + _shift_named(_class_pairs(outputs, inputs))] = anywhere
    return _best(causes, now)


def _box_changes() -> dict[str, Callable[[Tensor, tuple[int, int]], Tensor]]:
    """{mistake: (boxes (n, 4), (height, width)) -> what they would be without it}."""

    def corners(boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)

    def far_corner(boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)

    def pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return boxes * boxes.new_tensor([size[1], size[0]]).repeat(2)

    changes: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
        "x and y are swapped: coordinates come as x0, y0, x1, y1": lambda boxes, size: boxes[:, [1, 0, 3, 2]],
        "The boxes are center and size where corners x0, y0, x1, y1 are expected": corners,
        "The boxes are corner and size where corners x0, y0, x1, y1 are expected": far_corner,
        "The boxes are fractions of the image where pixels are expected": pixels,
    }
    for factor in _FACTORS:
        for scale, much in ((factor, "small"), (1 / factor, "large")):
            cause = f"The boxes are {factor:g} times too {much}: is the stride of their level that which decodes them?"
            changes[cause] = partial(_scaled, scale=scale)
    return changes


def _scaled(boxes: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    return boxes * scale


def _to_original(boxes: Tensor, size: tuple[int, int], given: dict[str, Any]) -> Tensor:
    return boxes * _scale(given)


def _in_input(
    boxes: Tensor, size: tuple[int, int], given: dict[str, Any], change: Callable[[Tensor, tuple[int, int]], Tensor]
) -> Tensor:
    return change(boxes / _scale(given), tuple(given["image"].shape[-2:])) * _scale(given)


def _objects_found(
    outputs: Outputs,
    inputs: Outputs,
    change: Callable[..., Tensor] | None = None,
    *,
    by_class: bool = True,
    with_input: bool = False,
) -> float:
    hits = total = 0
    for output, given in _pairs(outputs, inputs):
        size = (given["height"], given["width"])
        boxes, truth = output["instances"].pred_boxes.tensor.float().cpu(), _true_boxes(given)
        if change is not None:
            boxes = change(boxes, size, given) if with_input else change(boxes, size)
        fits = pairwise_iou(Boxes(truth), Boxes(boxes)) > _IOU
        if by_class:
            fits &= given["instances"].gt_classes[:, None] == output["instances"].pred_classes.cpu()
        hits, total = hits + int(fits.any(dim=1).sum()), total + len(truth)
    return hits / max(total, 1)


def _masks_found(outputs: Outputs, inputs: Outputs) -> float:
    hits = total = 0
    for output, given in _pairs(outputs, inputs):
        masks = getattr(output["instances"].pred_masks, "tensor", output["instances"].pred_masks)
        truth = given["instances"].gt_masks
        size, original = given["image"].shape[-2:], (given["height"], given["width"])
        if not isinstance(truth, BitMasks):
            truth = BitMasks.from_polygon_masks(truth, *size)
        total += len(truth.tensor)
        if not len(masks):
            continue
        wanted = _resized(truth.tensor, original).flatten(1).float()
        given_masks = masks.cpu().flatten(1).float()
        common = wanted @ given_masks.T
        union = wanted.sum(dim=1)[:, None] + given_masks.sum(dim=1) - common
        hits += int((common / union.clamp(min=1) > _IOU).any(dim=1).sum())
    return hits / max(total, 1)


def _class_pairs(outputs: Outputs, inputs: Outputs) -> set[tuple[int, int]]:
    """(true class, predicted class) of the best box of each object."""
    pairs = set()
    for output, given in _pairs(outputs, inputs):
        found, truth = output["instances"], given["instances"]
        iou = pairwise_iou(Boxes(_true_boxes(given)), Boxes(found.pred_boxes.tensor.float().cpu()))
        if iou.shape[1]:
            best, row = iou.max(dim=1)
            for object_, (overlap, number) in enumerate(zip(best.tolist(), row.tolist(), strict=True)):
                if overlap > _IOU:
                    pairs.add((int(truth.gt_classes[object_]), int(found.pred_classes[number])))
    return pairs


def _shift_named(pairs: set[tuple[int, int]]) -> str:
    shifts = {predicted - true for true, predicted in pairs}
    pairs_named = ", ".join(f"{predicted} for {true}" for true, predicted in sorted(pairs) if true != predicted)
    of_background = ": is there a row for the background?" if shifts & {1, -1} else ""
    return f": class ids come as {pairs_named}{of_background}" if pairs_named else ""


def _labels_found(outputs: Outputs, inputs: Outputs, change: Callable[[Tensor], Tensor] | None = None) -> float:
    maps, labels = _label_maps(outputs, inputs, change)
    return mean_iou(maps, labels, outputs[0]["sem_seg"].shape[0])


def _label_maps(
    outputs: Outputs, inputs: Outputs, change: Callable[[Tensor], Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    maps, labels = [], []
    for output, given in _pairs(outputs, inputs):
        best = output["sem_seg"].cpu().argmax(dim=0)
        maps.append(best if change is None else change(best))
        labels.append(_resized(given["sem_seg"][None], maps[-1].shape)[0])
    return maps, labels


def _cause_in_labels(outputs: Outputs, inputs: Outputs) -> str | None:
    classes = outputs[0]["sem_seg"].shape[0]
    maps, labels = _label_maps(outputs, inputs)
    known = torch.cat([one[true != IGNORED_LABEL] for one, true in zip(maps, labels, strict=True)])
    true = torch.cat([one[one != IGNORED_LABEL] for one in labels]).long()
    counts = torch.bincount(true * classes + known, minlength=classes**2).view(classes, classes)
    present = counts.sum(dim=1) > 0
    best = counts.argmax(dim=1)
    renamed = torch.full((classes,), IGNORED_LABEL)
    renamed[best[present]] = torch.arange(classes)[present]
    pairs = {(int(row), int(best[row])) for row in present.nonzero()[:, 0]}
    one_to_one = len(set(best[present].tolist())) == int(present.sum())
    found = _labels_found(outputs, inputs, lambda one: renamed[one]) if one_to_one else 0.0
    causes = {"The regions fit, but not the classes" + _shift_named(pairs): found}
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "The maps are mirrored from left to right": lambda one: one.flip(1),
        "The maps are upside down": lambda one: one.flip(0),
        "x and y are swapped: sem_seg is (K, height, width)": lambda one: _resized(one.T[None], one.shape)[0],
    }
    causes |= {cause: _labels_found(outputs, inputs, change) for cause, change in changes.items()}
    return _best(causes, _labels_found(outputs, inputs))


def mean_iou(predicted: list[Tensor], truth: list[Tensor], num_classes: int) -> float:
    """Mean over the classes that occur in `truth` of intersection over union, over all images.

    Args:
        predicted: (H, W) int64 class ids, one per image.
        truth: the same, 255 where a pixel does not count.
    """
    pairs = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)  # [true, predicted]
    for found, labels in zip(predicted, truth, strict=True):
        valid = labels != IGNORED_LABEL
        index = labels[valid].long() * (num_classes + 1) + found[valid].clamp(max=num_classes)
        pairs += torch.bincount(index, minlength=pairs.numel()).view(pairs.shape)
    hits, true, claimed = pairs.diagonal(), pairs.sum(dim=1), pairs.sum(dim=0)[:-1]
    occurs = true > 0
    return float((hits / (true + claimed - hits).clamp(min=1))[occurs].mean())


def _true_boxes(given: dict[str, Any]) -> Tensor:
    """In the original size, (n, 4) xyxy."""
    return given["instances"].gt_boxes.tensor * _scale(given)


def _scale(given: dict[str, Any]) -> Tensor:
    """(4,), from the input's pixels to those of the original."""
    height, width = given["image"].shape[-2:]
    return torch.tensor([given["width"] / width, given["height"] / height]).repeat(2)


def _resized(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """(n, H, W) of any type to another size, by the nearest pixel."""
    kept = maps.to(torch.float64)[None]
    return torch.nn.functional.interpolate(kept, size=tuple(size), mode="nearest-exact")[0].to(maps.dtype)


def _pairs(outputs: Outputs, inputs: Outputs) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(outputs, inputs, strict=True))


def _best(causes: dict[str, float], now: float) -> str | None:
    cause = max(causes, key=lambda one: causes[one])
    if causes[cause] < max(_EXPLAINED, 2 * now):
        return None
    return f"{cause} (with that undone, {causes[cause]:.0%} are found instead of {now:.0%})"
