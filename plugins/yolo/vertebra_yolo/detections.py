"""From objectness and class scores to candidates for suppression: what the YOLO heads with objectness share.

Letters: N images, R rows (anchors over all levels), K classes, T candidates an image.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vertebra.detection import Candidates, top_values

__all__ = ["centers_and_sizes", "objectness_candidates"]


def objectness_candidates(
    objectness: Tensor,
    logits: Tensor,
    regression: Tensor,
    anchors: Tensor,
    *,
    decode: Callable[[Tensor, Tensor], Tensor],
    score_threshold: float,
    topk: int | None,
    activation: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> Candidates:
    """The best (row, class) pairs by sigmoid(objectness) * activation(logits), decoded; all images at once.

    Args:
        objectness: (N, R) before the sigmoid.
        logits: (N, R, K) before `activation`.
        regression: (N, R, D), what `decode` takes.
        anchors: (R, A), what `decode` takes beside it.
        decode: (N, T, D), (N, T, A) -> boxes (N, T, 4) `xyxy`, input pixels.
        score_threshold: candidates at or below it are not valid.
        topk: at most this many pairs of each image. None: all.
        activation: elementwise and rising, from logits to [0, 1].
    """
    num_classes = logits.shape[2]
    sure = objectness.float().sigmoid()  # (N, R)
    best, rows = top_values(sure * activation(logits.amax(dim=2).float()), topk)  # (N, few): the best pairs lie there
    pairs = activation(logits.gather(1, rows[..., None].expand(-1, -1, num_classes)).float())  # (N, few, K)
    pairs = pairs * sure.gather(1, rows)[..., None]
    pairs = pairs.masked_fill(best[..., None] == -torch.inf, 0.0).flatten(1)  # what only fills up, in an exported graph
    scores, index = top_values(pairs, topk)  # (N, T)
    rows, classes = rows.gather(1, index // num_classes), index % num_classes
    chosen = regression.gather(1, rows[..., None].expand(-1, -1, regression.shape[2])).float()  # (N, T, D)
    return Candidates(decode(chosen, anchors[rows]), scores, classes, scores > score_threshold)


def centers_and_sizes(boxes: Tensor) -> Tensor:
    """`xyxy` (..., 4) to center x, y, width, height (..., 4)."""
    low, high = boxes.split(2, dim=-1)
    return torch.cat(((low + high) / 2, high - low), dim=-1)
