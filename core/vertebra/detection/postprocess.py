"""From a network's raw outputs to detections in the original image's size: what detectors share.

A dense detector runs these in order: `topk_candidates` per level -> `Suppression` -> `rescale_instances`, which clips
the boxes to the image as Detectron2 does. A two-stage one takes what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.structures import Instances, paste_masks_in_image

__all__ = [
    "Candidates",
    "by_anchor",
    "rescale_instances",
    "sem_seg_postprocess",
    "top_values",
    "topk_candidates",
]


class Candidates(NamedTuple):
    """T boxes for each of N images, before suppression. Rows that are not valid only fill up."""

    boxes: Tensor
    """(N, T, 4) `xyxy`, input pixels."""
    scores: Tensor
    """(N, T) in [0, 1]."""
    classes: Tensor
    """(N, T) int64."""
    valid: Tensor
    """(N, T) bool."""
    details: Tensor | None = None
    """(N, T, D) what else belongs to each of them, such as coefficients of its mask."""

    @staticmethod
    def cat(levels: Sequence[Candidates]) -> Candidates:
        """All candidates of several levels."""
        *columns, details = zip(*levels, strict=True)
        boxes, scores, classes, valid = (torch.cat(parts, dim=1) for parts in columns)
        return Candidates(boxes, scores, classes, valid, None if details[0] is None else torch.cat(details, dim=1))


def topk_candidates(
    logits: Tensor,
    regression: Tensor,
    anchors: Tensor,
    *,
    decode: Callable[[Tensor, Tensor], Tensor],
    score_threshold: float,
    topk: int | None,
) -> Candidates:
    """The best (anchor, class) pairs of one level, decoded. All images at once, no host sync, fixed shapes.

    Args:
        logits: (N, R, K) before the sigmoid.
        regression: (N, R, D), what `decode` takes.
        anchors: (R, A): anchors (A = 4), or points (A = 2).
        decode: (N, T, D), (N, T, A) -> boxes (N, T, 4) `xyxy`; for example `Box2BoxTransform.apply_deltas`.
        score_threshold: candidates at or below it are not valid.
        topk: at most this many pairs of each image. None: all.
    """
    num_classes = logits.shape[2]
    # The best k pairs lie on the k anchors whose best class is best: sort R values, then k * K, rather than R * K.
    best_class, rows = top_values(logits.amax(dim=2), topk)  # (N, few)
    pairs = logits.gather(1, rows[..., None].expand(-1, -1, num_classes))  # (N, few, K)
    pairs = pairs.masked_fill(best_class[..., None] == -torch.inf, -torch.inf).flatten(1)
    best, index = top_values(pairs, topk)  # (N, T)
    rows, classes = rows.gather(1, index // num_classes), index % num_classes
    chosen = regression.gather(1, rows[..., None].expand(-1, -1, regression.shape[2]))  # (N, T, D)
    scores = best.float().sigmoid()
    return Candidates(decode(chosen, anchors[rows]), scores, classes, scores > score_threshold)


def top_values(values: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """The best `count` values of each row and their places, as `topk`; all of them where there are fewer, or for None.

    In a graph that is exported for any image size, where R is a symbol, there are always `count`: minus infinity, at
    some place, fills up what is missing.

    Args:
        values: (N, R).
    Returns:
        Values (N, T), falling, and places (N, T) int64 in [0, R).
    """
    size = values.shape[1]
    if count is None or isinstance(size, int):
        return values.topk(size if count is None else min(count, size), dim=1)
    best, index = F.pad(values, (0, count), value=-torch.inf).topk(count, dim=1)
    return best, index.clamp(max=size - 1)


def by_anchor(x: Tensor, size: int) -> Tensor:
    """A map (N, A * size, H, W) to rows (N, H * W * A, size): row (y * W + x) * A + a, the order of anchors. No copy if
    the map is channels_last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)


def rescale_instances(instances: Instances, height: int, width: int, mask_threshold: float = 0.5) -> Instances:
    """Detections in input pixels to the requested size; new objects, the given ones stay as they are.

    Boxes are scaled and clipped, and those that are empty then are dropped with all their fields; masks are
    pasted into the whole image; keypoints are scaled.

    Args:
        instances: `pred_boxes` or `proposal_boxes`; optional `pred_masks` (n, 1, S, S) probabilities in the frame
            of their boxes, and `pred_keypoints` (n, K, 3 or more), x and y first.
        height: of the output, in pixels.
        width: of the output, in pixels.
        mask_threshold: see `paste_masks_in_image`.
    Returns:
        Instances of size (height, width); `pred_masks` is (n, height, width) bool.
    """
    name = "pred_boxes" if instances.has("pred_boxes") else "proposal_boxes"
    if not instances.has(name):
        raise ValueError("rescale_instances needs the field pred_boxes or proposal_boxes")
    scale_x, scale_y = width / instances.image_size[1], height / instances.image_size[0]
    result = Instances((height, width), **instances.get_fields())
    boxes = instances.get(name).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip((height, width))
    result.set(name, boxes)
    result = result[boxes.nonempty()]
    if result.has("pred_masks"):
        masks = result.get("pred_masks")
        if not isinstance(masks, Tensor) or masks.ndim != 4 or masks.shape[1] != 1:
            raise ValueError(
                "rescale_instances takes pred_masks (n, 1, S, S) in the frame of the boxes, got"
                f" {tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__}"
            )
        result.set("pred_masks", paste_masks_in_image(masks[:, 0], result.get(name), (height, width), mask_threshold))
    if result.has("pred_keypoints"):
        keypoints = result.get("pred_keypoints").clone()
        keypoints[..., 0] *= scale_x
        keypoints[..., 1] *= scale_y
        result.set("pred_keypoints", keypoints)
    return result


def sem_seg_postprocess(scores: Tensor, image_size: tuple[int, int], height: int, width: int) -> Tensor:
    """Class scores of one image without their padding, resized (bilinear) to the requested size.

    Args:
        scores: (K, H, W) at the padded input size.
        image_size: (height, width) of the image in it, without padding.
        height: of the output, in pixels.
        width: of the output, in pixels.
    Returns:
        (K, height, width).
    """
    unpadded = scores[None, :, : image_size[0], : image_size[1]]
    return F.interpolate(unpadded, size=(height, width), mode="bilinear", align_corners=False)[0]
