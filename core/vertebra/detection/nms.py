"""Non-maximum suppression within groups (classes, levels, images).

The operator is torchvision's. Its library is loaded without the package, whose import takes as much CPU time as that of
torch (2.5 s); `batched_nms` returns the same indices as torchvision's function of this name.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["batched_nms"]

_BY_OFFSETS, _BY_OFFSETS_ON_GPU = 1_000, 25_000  # up to this many boxes, one call for all groups is faster


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes to keep, by falling score; boxes of different groups never suppress each other.

    Args:
        boxes: (R, 4) `xyxy` in any floating type; compared in float32, since 16 bits are too few.
        scores: (R,).
        idxs: (R,) int64, the group of each box.
        iou_threshold: a box goes if its IoU with a better one of its group is more than this.
    """
    boxes, scores = boxes.float(), scores.float()
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # a graph needs what the package adds to the operator
        from torchvision import ops

        return ops.batched_nms(boxes, scores, idxs, iou_threshold)
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    nms = _operator()
    if len(boxes) <= (_BY_OFFSETS if boxes.is_cpu else _BY_OFFSETS_ON_GPU):
        offsets = idxs.to(boxes) * (boxes.max() + 1)  # groups lie so far apart that their boxes do not overlap
        return nms(boxes + offsets[:, None], scores, iou_threshold)
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for group in idxs.unique():
        rows = torch.where(idxs == group)[0]
        kept[rows[nms(boxes[rows], scores[rows], iou_threshold)]] = True
    rows = torch.where(kept)[0]
    return rows[scores[rows].sort(descending=True)[1]]


@functools.cache
def _operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    """torchvision's `nms`; where its library cannot be loaded, the package's function, which says why."""
    spec = find_spec("torchvision")
    if spec is not None and spec.origin is not None:
        with contextlib.suppress(OSError, AttributeError):
            for library in Path(spec.origin).parent.glob("_C*.so"):
                torch.ops.load_library(library)
            return torch.ops.torchvision.nms
    from torchvision.ops import nms

    return nms
