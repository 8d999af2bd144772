"""Suppression: which of a detector's candidates become detections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vertebra.detection.graph_nms import suppressed, suppressed_candidates
from vertebra.detection.nms import batched_nms
from vertebra.detection.postprocess import Candidates
from vertebra.structures import Boxes, Instances

__all__ = ["Suppression", "suppress"]


class Suppression(nn.Module):
    """Of the candidates with enough score, those that survive NMS within their class, and the best of these.

    The arguments are attributes, which may be changed after training; each call goes by what they are then.

    Args:
        score_threshold: candidates need more than this.
        topk: maximum number of candidates before NMS, of a level or an image as the head says. None: no maximum.
        nms_threshold: IoU threshold of NMS: of two boxes of a class that overlap more, the lower score is dropped.
        class_agnostic: boxes of different classes suppress each other too.
        max_detections: maximum number of detections per image.
    Raises:
        ValueError: a threshold above 1 or an IoU threshold below 0, or a number below 1.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(
        self,
        score_threshold: float = 0.05,
        topk: int | None = 1000,
        nms_threshold: float = 0.5,
        class_agnostic: bool = False,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if not score_threshold <= 1:
            raise ValueError(f"score_threshold is {score_threshold}; scores are from 0 to 1")
        if not 0 <= nms_threshold <= 1:
            raise ValueError(f"nms_threshold is {nms_threshold}; it is an IoU, from 0 to 1, where 1 drops nothing")
        for what, number in (("max_detections", max_detections), ("the number of candidates", topk)):
            if number is not None and number < 1:
                raise ValueError(f"{what} is {number}, expected at least 1")
        self.score_threshold = score_threshold
        self.topk = topk
        self.nms_threshold = nms_threshold
        self.class_agnostic = class_agnostic
        self.max_detections = max_detections

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._settings().items())

    def forward(self, candidates: Candidates, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The detections of each image, by falling score.

        Image by image: the offsets that part the groups would cost precision in a box's coordinates, were they
        N times as many.

        Args:
            candidates: those that are valid, by `score_threshold` among others, take part.
            image_sizes: (height, width) of each image, without padding.
        Returns:
            Per image: `pred_boxes`, `scores`, `pred_classes` in input pixels, and `details` (n, D) where there are any.
        """
        detections = []
        *columns, details = candidates
        rest: Iterable[Tensor | None] = [None] * len(image_sizes) if details is None else details
        for boxes, scores, classes, valid, more, size in zip(*columns, rest, image_sizes, strict=True):
            boxes, scores, classes = boxes[valid], scores[valid], classes[valid]
            keep = self.keep(boxes, scores, classes)
            found = Instances(size, pred_boxes=Boxes(boxes[keep]), scores=scores[keep], pred_classes=classes[keep])
            if more is not None:
                found.details = more[valid][keep]
            detections.append(found)
        return detections

    def keep(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Rows (D,) of one image's boxes (T, 4) `xyxy` that survive, by falling score; `scores`, `classes`: (T,)."""
        groups = torch.zeros_like(classes) if self.class_agnostic else classes
        return batched_nms(boxes, scores, groups, self.nms_threshold)[: self.max_detections]

    def in_graph(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """What a head's `export_predictions` returns, from all its boxes (N, R, 4) and scores (N, R, K); see
        `suppressed`."""
        return suppressed(boxes, scores, **self._settings())

    def candidates_in_graph(self, candidates: Candidates, num_classes: int) -> dict[str, Tensor]:
        """The same from candidates; equal to what `forward` returns of them."""
        return suppressed_candidates(candidates, num_classes, **self._settings())

    def _settings(self) -> dict[str, Any]:
        names = ("nms_threshold", "score_threshold", "max_detections", "class_agnostic")
        return {name: getattr(self, name) for name in names}


def suppress(
    candidates: Candidates,
    image_sizes: Sequence[tuple[int, int]],
    *,
    nms_threshold: float,
    max_detections: int,
    class_agnostic: bool = False,
) -> list[Instances]:
    """One call of a `Suppression`; the candidates say themselves which of them are valid."""
    part = Suppression(nms_threshold=nms_threshold, max_detections=max_detections, class_agnostic=class_agnostic)
    return part(candidates, image_sizes)
