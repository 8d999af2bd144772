"""From scored, refined regions to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vertebra.detection import batched_nms
from vertebra.structures import Boxes, Instances

__all__ = ["select_detections"]


def select_detections(
    scores: Tensor,
    boxes: Tensor,
    image: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    class_agnostic: bool = False,
) -> list[Instances]:
    """The best boxes of each image after suppression within each class, best first, in input pixels.

    Args:
        scores: (T, K).
        boxes: (T, K, 4) or (T, 1, 4) `xyxy`, input pixels.
        image: (T,) int64, which image each region is of.
        image_sizes: (height, width) of each image.
        score_threshold: minimum score.
        nms_threshold: IoU threshold of NMS: of two boxes of a class that overlap more, the lower score is dropped.
        max_detections: kept of each image.
        class_agnostic: boxes suppress each other whatever their classes.
    """
    limit = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=boxes.dtype, device=boxes.device)
    boxes = torch.minimum(boxes.clamp(min=0), limit[image][:, None])
    good = boxes.isfinite().flatten(1).all(dim=1) & scores.isfinite().all(dim=1)
    row, classes = ((scores > score_threshold) & good[:, None]).nonzero(as_tuple=True)  # (C,) each
    chosen = boxes[row, classes if boxes.shape[1] > 1 else torch.zeros_like(classes)]  # (C, 4)
    likely, place = scores[row, classes], image[row]
    detections = []
    for number, size in enumerate(image_sizes):
        here = (place == number).nonzero().flatten()
        found = chosen[here], likely[here], classes[here]
        group = torch.zeros_like(found[2]) if class_agnostic else found[2]
        keep = batched_nms(*found[:2], group, nms_threshold)[:max_detections]
        boxes_here, scores_here, classes_here = (part[keep] for part in found)
        detections.append(Instances(size, pred_boxes=Boxes(boxes_here), scores=scores_here, pred_classes=classes_here))
    return detections
