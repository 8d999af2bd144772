"""NMS inside an exported graph: an operator with fixed output shapes.

In PyTorch the operator is a loop over images around torchvision's NMS; torch.export sees one node, whose shapes are
those of its inputs; `vertebra.export` translates it to ONNX.
Letters: N images, R boxes an image, K classes, D detections kept.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from vertebra.detection.nms import batched_nms
from vertebra.detection.postprocess import Candidates

__all__ = ["suppressed", "suppressed_candidates"]


def suppressed(
    boxes: Tensor,
    scores: Tensor,
    *,
    nms_threshold: float,
    score_threshold: float,
    max_detections: int,
    class_agnostic: bool = False,
) -> dict[str, Tensor]:
    """What a detector's `export_predictions` returns, from all its boxes: NMS in the graph, then the best D.

    Equal to `vertebra.detection.suppress` on the same candidates.

    Args:
        boxes: (N, R, 4) xyxy, input pixels.
        scores: (N, R, K) in [0, 1]; (box, class) pairs that are not candidates have 0.
        nms_threshold: IoU threshold of NMS: of two boxes of a class that overlap more, the lower score is dropped.
        score_threshold: candidates need more than this.
        max_detections: D.
        class_agnostic: a box suppresses those of other classes too, and has its best class alone.
    Returns:
        `boxes` (N, D, 4), `scores` (N, D) falling, `classes` (N, D) int64; rows that are all 0 only fill up.
    """
    boxes, scores = boxes.float(), scores.float().transpose(1, 2)  # (N, K, R)
    best_class = None
    if class_agnostic:
        scores, best_class = scores.max(dim=1, keepdim=True)  # (N, 1, R)
    kept = torch.ops.vertebra.suppressed_scores(
        boxes, scores.contiguous(), float(nms_threshold), float(score_threshold), int(max_detections)
    )
    num_groups = kept.shape[1]
    # As many pairs of score 0 again as are requested, so that there are always enough, whatever R is.
    pairs = pad(kept.transpose(1, 2).flatten(1), (0, max_detections))  # (N, R * K + D)
    best, index = pairs.topk(max_detections, dim=1)  # (N, D)
    row, classes = (index // num_groups).clamp(max=kept.shape[2] - 1), index % num_groups
    if best_class is not None:
        classes = best_class[:, 0].gather(1, row)
    found = best > 0
    boxes = boxes.gather(1, row[..., None].expand(-1, -1, 4))  # (N, D, 4)
    return {"boxes": boxes * found[..., None], "scores": best, "classes": classes * found}


def suppressed_candidates(
    candidates: Candidates,
    num_classes: int,
    *,
    nms_threshold: float,
    score_threshold: float,
    max_detections: int,
    class_agnostic: bool = False,
) -> dict[str, Tensor]:
    """`suppressed` for a detector whose candidates are (box, class) pairs, such as `topk_candidates` gives."""
    scores = torch.where(candidates.valid, candidates.scores, 0.0)[..., None]  # (N, T, 1)
    pairs = scores.new_zeros(()).expand(*scores.shape[:2], num_classes)
    pairs = pairs.scatter(2, candidates.classes[..., None], scores)  # (N, T, K)
    return suppressed(
        candidates.boxes,
        pairs,
        nms_threshold=nms_threshold,
        score_threshold=score_threshold,
        max_detections=max_detections,
        class_agnostic=class_agnostic,
    )


@torch.library.custom_op("vertebra::suppressed_scores", mutates_args=())
def suppressed_scores(
    boxes: Tensor, scores: Tensor, nms_threshold: float, score_threshold: float, max_per_class: int
) -> Tensor:
    """Scores (N, K, R) of the (box, class) pairs that survive NMS within their class; 0 for all others."""
    kept = torch.zeros_like(scores)
    for image in range(len(scores)):
        classes, rows = (scores[image] > score_threshold).nonzero(as_tuple=True)
        values = scores[image][classes, rows]
        keep = batched_nms(boxes[image][rows], values, classes, nms_threshold)
        before = one_hot(classes[keep], scores.shape[1]).cumsum(0)  # of its class, with itself
        keep = keep[before.gather(1, classes[keep, None])[:, 0] <= max_per_class]
        kept[image, classes[keep], rows[keep]] = values[keep]
    return kept


@suppressed_scores.register_fake
def _(boxes: Tensor, scores: Tensor, nms_threshold: float, score_threshold: float, max_per_class: int) -> Tensor:
    return torch.empty_like(scores)
