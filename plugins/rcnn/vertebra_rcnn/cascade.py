"""Cascade R-CNN's box branch: several heads in a row, each trained on the boxes of the one before at a higher IoU.

Source: Cai and Vasconcelos, "Cascade R-CNN", arXiv:1712.00726. As in Detectron2: one box for all classes, the gradient
into the features divided by the number of stages, and in evaluation the mean of all stages' probabilities with the
last one's boxes.
Letters: N images, M ground-truth boxes in the fullest image, T regions of all images together, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vertebra.detection import Box2BoxTransform, Matcher
from vertebra.models import Loss, ShapeSpec
from vertebra.models.losses import SmoothL1Loss
from vertebra_rcnn.box_losses import BoxRegression
from vertebra_rcnn.boxes import BoxBranch, BoxPredictor
from vertebra_rcnn.pooling import RegionPooler, ROIPooler
from vertebra_rcnn.region_heads import FastRCNNConvFCHead, RegionHead, RegionModule
from vertebra_rcnn.regions import Regions, Truth

__all__ = ["CascadeBoxes"]


class CascadeBoxes(BoxBranch):
    """As many stages as `box_coders`, each a region head and a predictor of its own.

    Args:
        pooler: None: ROIPooler with 7 x 7 cells.
        head: of each stage. None: FastRCNNConvFCHead, two layers of 1024.
        ious: of each stage: a region holds an object from this IoU on. The first is that of the sampled regions, which
            the head's matcher decides; it only has to agree with that.
        box_coders: of each stage. None: weights 10, 10, 5, 5, and twice and three times as much.
        cls_loss: see `ROIBoxes`.
        box_loss: see `BoxRegression`. None: SmoothL1Loss(beta=0).
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        pooler: RegionPooler | None = None,
        head: RegionHead | None = None,
        ious: Sequence[float] = (0.5, 0.6, 0.7),
        box_coders: list[Box2BoxTransform] | None = None,
        cls_loss: Loss | None = None,
        box_loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pooler = ROIPooler(input_shape, 7) if pooler is None else pooler
        head = FastRCNNConvFCHead() if head is None else head
        if box_coders is None:
            box_coders = [Box2BoxTransform((10.0 * k, 10.0 * k, 5.0 * k, 5.0 * k)) for k in range(1, len(ious) + 1)]
        if len(box_coders) != len(ious) or not ious:
            raise ValueError(f"CascadeBoxes: {len(ious)} ious and {len(box_coders)} box_coders; each stage needs one")
        box_loss = SmoothL1Loss(beta=0.0) if box_loss is None else box_loss
        self.matchers = [Matcher([iou], [0, 1]) for iou in ious]
        self.stages = nn.ModuleList()
        for coder in box_coders:
            region_head = head.make(self.pooler.channels, self.pooler.resolution)
            regression = BoxRegression(coder, box_loss)
            predictor = BoxPredictor(
                region_head.out_channels, num_classes, class_agnostic=True, regression=regression, cls_loss=cls_loss
            )
            self.stages.append(_Stage(region_head, predictor))

    def losses(self, features: dict[str, Tensor], regions: Regions, truth: Truth) -> dict[str, Tensor]:
        """`loss_cls_stage0`, `loss_box_reg_stage0`, and so on."""
        losses: dict[str, Tensor] = {}
        for number, stage in enumerate(self._stages()):
            logits, deltas = self._run(stage, features, regions.rois)
            found = stage.predictor.losses(logits, deltas, regions)
            losses |= {f"{name}_stage{number}": loss for name, loss in found.items()}
            if number + 1 < len(self.stages):
                regions = self._refined(stage, deltas, regions, truth, self.matchers[number + 1])
        return losses

    def predict(self, features: dict[str, Tensor], rois: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        scores, boxes = [], rois[:, None, 1:]  # (T, 1, 4)
        limit = sizes[rois[:, 0].long()].repeat(1, 2)  # (T, 4): width, height, width, height
        for stage in self._stages():
            start = torch.minimum(boxes[:, 0].clamp(min=0), limit)
            logits, deltas = self._run(stage, features, torch.cat((rois[:, :1], start), dim=1))
            scores.append(stage.predictor.probabilities(logits))
            boxes = stage.predictor.boxes(deltas, start)
        return torch.stack(scores).mean(dim=0), boxes

    def _stages(self) -> list[_Stage]:
        return cast("list[_Stage]", list(self.stages))

    def _run(self, stage: _Stage, features: dict[str, Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        pooled = _ScaledGradient.apply(self.pooler(features, rois), 1.0 / len(self.stages))
        return stage(pooled)

    @torch.no_grad()
    def _refined(self, stage: _Stage, deltas: Tensor, regions: Regions, truth: Truth, matcher: Matcher) -> Regions:
        """The boxes that a stage has made, matched anew with the truth of their images; empty ones are dropped."""
        boxes = stage.predictor.boxes(deltas, regions.boxes)[:, 0]  # (T, 4)
        boxes = torch.minimum(boxes.clamp(min=0), truth.image_sizes.to(boxes)[regions.image].repeat(1, 2))
        full = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, image = boxes[full], regions.image[full]
        here = truth.boxes[image], truth.valid[image]  # (T, M, 4), (T, M): each region has a truth of its own
        row = matcher.match_boxes(boxes[:, None], *here)[:, 0] if len(boxes) else image
        known = row.clamp(min=0)
        return Regions(
            rois=torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1),
            classes=truth.classes[image, known].where(row >= 0, self.num_classes),
            truth=truth.boxes[image, known],
            row=known,
        )


class _Stage(nn.Module):
    """A region head and the predictor behind it."""

    def __init__(self, head: RegionModule, predictor: BoxPredictor) -> None:
        super().__init__()
        self.head = head
        self.predictor = predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (T, C, S, S) to logits (T, K + 1) and deltas (T, 4)."""
        return self.predictor(self.head(pooled))


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
