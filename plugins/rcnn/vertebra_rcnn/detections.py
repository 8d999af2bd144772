"""From scored, refined regions to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vertebra.detection import Suppression
from vertebra.structures import Boxes, Instances

__all__ = ["select_detections"]


def select_detections(
    scores: Tensor,
    boxes: Tensor,
    image: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    suppression: Suppression,
) -> list[Instances]:
    """The best boxes of each image after suppression within each class, best first, in input pixels.

    Args:
        scores: (T, K).
        boxes: (T, K, 4) or (T, 1, 4) `xyxy`, input pixels.
        image: (T,) int64, which image each region is of.
        image_sizes: (height, width) of each image.
        suppression: its number of candidates is not looked at: the regions are few.
    """
    limit = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=boxes.dtype, device=boxes.device)
    boxes = torch.minimum(boxes.clamp(min=0), limit[image][:, None])
    good = boxes.isfinite().flatten(1).all(dim=1) & scores.isfinite().all(dim=1)
    row, classes = ((scores > suppression.score_threshold) & good[:, None]).nonzero(as_tuple=True)  # (C,) each
    chosen = boxes[row, classes if boxes.shape[1] > 1 else torch.zeros_like(classes)]  # (C, 4)
    likely, place = scores[row, classes], image[row]
    detections = []
    for number, size in enumerate(image_sizes):
        here = (place == number).nonzero().flatten()
        found = chosen[here], likely[here], classes[here]
        keep = suppression.keep(*found)
        boxes_here, scores_here, classes_here = (part[keep] for part in found)
        detections.append(Instances(size, pred_boxes=Boxes(boxes_here), scores=scores_here, pred_classes=classes_here))
    return detections
