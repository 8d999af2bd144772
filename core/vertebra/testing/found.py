"""How much of the ground truth predictions find, and how many of them are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vertebra.models.batch import IGNORED_LABEL
from vertebra.structures import BitMasks, Boxes, pairwise_iou

__all__ = [
    "IOU",
    "average_precision",
    "compared",
    "ious",
    "keypoints_found",
    "label_maps",
    "labels_found",
    "mean_iou",
    "objects_found",
    "pairs",
    "resized",
    "scale_of",
    "shares_found",
]

Outputs = Sequence[dict[str, Any]]
IOU = 0.75  # of a box that is found: at 0.5 one that is moved by half a cell, or has its sides exchanged, would pass
_LOOSE = 0.5  # IoU of masks, which are coarse, and of what counts as a right detection
_NEAR = 0.15  # distance of a keypoint that is found, as a share of the square root of its object's area
_MOST = 1000  # detections per image that are looked at


def compared(outputs: Outputs, inputs: Outputs) -> set[str]:
    """Keys of predictions that have a counterpart in the ground truth of all inputs."""
    return {key for key in ("instances", "sem_seg") if all(key in one for one in (*outputs, *inputs))}


def shares_found(outputs: Outputs, inputs: Outputs) -> dict[str, float]:
    """{what: share from 0 to 1}: objects that a box of their class overlaps by an IoU of 0.75; the average precision of
    all detections at 0.5; masks by an IoU of 0.5; keypoints near their place; the mean IoU of semantic labels.

    Args:
        outputs: predictions, in the original size.
        inputs: the images' dicts with `instances` and `sem_seg`, in the input's size.
    """
    found, keys = {}, compared(outputs, inputs)
    if "instances" in keys:
        found["objects"] = objects_found(outputs, inputs)
        found["average precision"] = average_precision(outputs, inputs)
        if all(one["instances"].has("pred_masks") for one in outputs):
            found["masks"] = _masks_found(outputs, inputs)
        if _with_keypoints(outputs, inputs):
            found["keypoints"] = keypoints_found(outputs, inputs)
    if "sem_seg" in keys:
        found["mean IoU"] = labels_found(outputs, inputs)
    return found


def objects_found(
    outputs: Outputs,
    inputs: Outputs,
    change: Callable[..., Tensor] | None = None,
    *,
    by_class: bool = True,
    with_input: bool = False,
) -> float:
    """Share of the objects that a box of their class overlaps by `IOU`.

    Args:
        change: (boxes (n, 4), (height, width) of the output) -> boxes, before they are compared.
        with_input: `change` gets the input as its third argument.
    """
    hits = total = 0
    for output, given in pairs(outputs, inputs):
        overlaps = ious(output, given, change, by_class=by_class, with_input=with_input)
        hits, total = hits + int((overlaps > IOU).any(dim=1).sum()), total + len(overlaps)
    return hits / max(total, 1)


def ious(
    output: dict[str, Any],
    given: dict[str, Any],
    change: Callable[..., Tensor] | None = None,
    *,
    by_class: bool = True,
    with_input: bool = False,
) -> Tensor:
    """(objects, detections) IoU, 0 where the classes differ; arguments of `objects_found`."""
    found, size = output["instances"], (given["height"], given["width"])
    boxes = found.pred_boxes.tensor.float().cpu()
    if change is not None:
        boxes = change(boxes, size, given) if with_input else change(boxes, size)
    overlaps = pairwise_iou(Boxes(_true_boxes(given)), Boxes(boxes))
    same = given["instances"].gt_classes[:, None] == found.pred_classes.cpu()
    return overlaps * same if by_class else overlaps


def average_precision(outputs: Outputs, inputs: Outputs, keep: Callable[[Any], Any] | None = None) -> float:
    """Of all detections in the order of their scores, at an IoU of 0.5, over all classes.

    Args:
        keep: Instances -> those that count.
    """
    ranked: list[tuple[float, bool]] = []
    total = 0
    for output, given in pairs(outputs, inputs):
        kept = output["instances"] if keep is None else keep(output["instances"])
        kept = kept[kept.scores.argsort(descending=True, stable=True)[:_MOST]]
        overlaps = ious({"instances": kept}, given)
        total += len(overlaps)
        for score, row in zip(kept.scores.tolist(), overlaps.T, strict=True):
            hit = len(row) > 0 and float(row.max()) > _LOOSE
            if hit:
                overlaps[int(row.argmax())] = 0.0  # each object is found once
            ranked.append((score, hit))
    ranked.sort(key=lambda one: -one[0])
    hits, precision = 0, 0.0
    for place, (_, hit) in enumerate(ranked, 1):
        hits += hit
        precision += hits / place if hit else 0.0
    return precision / max(total, 1)


def _masks_found(outputs: Outputs, inputs: Outputs) -> float:
    hits = total = 0
    for output, given in pairs(outputs, inputs):
        masks = getattr(output["instances"].pred_masks, "tensor", output["instances"].pred_masks)
        truth = given["instances"].gt_masks
        size, original = given["image"].shape[-2:], (given["height"], given["width"])
        if not isinstance(truth, BitMasks):
            truth = BitMasks.from_polygon_masks(truth, *size)
        total += len(truth.tensor)
        if not len(masks):
            continue
        wanted = resized(truth.tensor, original).flatten(1).float()
        given_masks = masks.cpu().flatten(1).float()
        common = wanted @ given_masks.T
        union = wanted.sum(dim=1)[:, None] + given_masks.sum(dim=1) - common
        hits += int((common / union.clamp(min=1) > _LOOSE).any(dim=1).sum())
    return hits / max(total, 1)


def _with_keypoints(outputs: Outputs, inputs: Outputs) -> bool:
    """Whether all have keypoints, and as many per object as the ground truth."""
    if not all(one["instances"].has("pred_keypoints") for one in outputs):
        return False
    if not all(one["instances"].has("gt_keypoints") for one in inputs):
        return False
    sizes = {one["instances"].pred_keypoints.shape[1] for one in outputs if len(one["instances"])}
    return sizes <= {one["instances"].gt_keypoints.tensor.shape[1] for one in inputs}


def keypoints_found(outputs: Outputs, inputs: Outputs, change: Callable[..., Tensor] | None = None) -> float:
    """Share of the labeled keypoints that lie near those of the detection that overlaps their object most.

    Args:
        change: (points (n, K, 2), scale (2,) from input to output) -> points, before they are compared.
    """
    hits = total = 0
    for output, given in pairs(outputs, inputs):
        truth, scale = given["instances"].gt_keypoints.tensor, scale_of(given)[:2]
        labeled = truth[..., 2] > 0  # (objects, K)
        total += int(labeled.sum())
        overlaps = ious(output, given)
        if not overlaps.numel():
            continue
        best, row = overlaps.max(dim=1)
        points = output["instances"].pred_keypoints.float().cpu()[row, :, :2]  # (objects, K, 2)
        points = points if change is None else change(points, scale)
        boxes = _true_boxes(given)
        reach = _NEAR * (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
        near = (points - truth[..., :2] * scale).norm(dim=2) < reach[:, None]
        hits += int((near & labeled & (best > _LOOSE)[:, None]).sum())
    return hits / max(total, 1)


def labels_found(
    outputs: Outputs, inputs: Outputs, change: Callable[[Tensor, dict[str, Any]], Tensor] | None = None
) -> float:
    """Mean IoU of `sem_seg`; `change` as of `label_maps`."""
    maps, labels = label_maps(outputs, inputs, change)
    return mean_iou(maps, labels, outputs[0]["sem_seg"].shape[0])


def label_maps(
    outputs: Outputs, inputs: Outputs, change: Callable[[Tensor, dict[str, Any]], Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Predicted and true class ids (H, W) of each image, after `change(class ids, input)`."""
    maps, labels = [], []
    for output, given in pairs(outputs, inputs):
        best = output["sem_seg"].cpu().argmax(dim=0)
        maps.append(best if change is None else change(best, given))
        labels.append(resized(given["sem_seg"][None], maps[-1].shape)[0])
    return maps, labels


def mean_iou(predicted: list[Tensor], truth: list[Tensor], num_classes: int) -> float:
    """Mean over the classes that occur in `truth` of intersection over union, over all images.

    Args:
        predicted: (H, W) int64 class ids, one per image.
        truth: the same, 255 where a pixel does not count.
    """
    counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)  # [true, predicted]
    for found, labels in zip(predicted, truth, strict=True):
        valid = labels != IGNORED_LABEL
        index = labels[valid].long() * (num_classes + 1) + found[valid].clamp(max=num_classes)
        counts += torch.bincount(index, minlength=counts.numel()).view(counts.shape)
    hits, true, claimed = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)[:-1]
    occurs = true > 0
    return float((hits / (true + claimed - hits).clamp(min=1))[occurs].mean())


def _true_boxes(given: dict[str, Any]) -> Tensor:
    """In the original size, (n, 4) xyxy."""
    return given["instances"].gt_boxes.tensor * scale_of(given)


def scale_of(given: dict[str, Any]) -> Tensor:
    """(4,), from the input's pixels to those of the original."""
    height, width = given["image"].shape[-2:]
    return torch.tensor([given["width"] / width, given["height"] / height]).repeat(2)


def resized(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """(n, H, W) of any type to another size, by the nearest pixel."""
    kept = maps.to(torch.float64)[None]
    return torch.nn.functional.interpolate(kept, size=tuple(size), mode="nearest-exact")[0].to(maps.dtype)


def pairs(outputs: Outputs, inputs: Outputs) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each prediction with its input."""
    return list(zip(outputs, inputs, strict=True))
