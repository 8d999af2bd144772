"""The box branch: what is in each region, and where exactly.

Source: Girshick, "Fast R-CNN", arXiv:1504.08083; normalization of the losses as in Detectron2.
Letters: T regions of all images together, K classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from vertebra.detection import Box2BoxTransform
from vertebra.models import ClassRows, Loss, ShapeSpec
from vertebra.models.layers import normal_fill
from vertebra.models.losses import CrossEntropy, SmoothL1Loss
from vertebra_rcnn.box_losses import BoxRegression
from vertebra_rcnn.pooling import RegionPooler, ROIPooler
from vertebra_rcnn.region_heads import FastRCNNConvFCHead, RegionHead
from vertebra_rcnn.regions import Regions, Truth

__all__ = ["BoxBranch", "BoxPredictor", "ROIBoxes", "region_losses"]


class BoxBranch(nn.Module):
    """Scores regions and refines their boxes. It says its `num_classes`."""

    component_kind: ClassVar[str] = "part"
    num_classes: int

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the branch computes of whole feature maps, before any region is known; it joins the features."""
        return {}

    def losses(self, features: dict[str, Tensor], regions: Regions, truth: Truth) -> dict[str, Tensor]:
        """Named scalars, already weighted. Where a mask or keypoint branch shares the maps, `losses_of` is asked."""
        raise NotImplementedError

    def predict(self, features: dict[str, Tensor], rois: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (T, K) without the background's, and boxes (T, K, 4), or (T, 1, 4) for all classes.

        Args:
            rois: (T, 5).
            sizes: (N, 2) width and height of each image, in input pixels.
        """
        raise NotImplementedError

    def region_features(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        """Maps (T, C, S, S) of regions that another branch may share."""
        raise ValueError(f"{type(self).__name__} has no feature maps of regions to share with another branch")

    def losses_of(self, region_features: Tensor, regions: Regions) -> dict[str, Tensor]:
        """The same as `losses`, where `region_features` of the regions are there already."""
        raise ValueError(f"{type(self).__name__} has no feature maps of regions to share with another branch")


class ROIBoxes(BoxBranch):
    """Fast R-CNN's: pool, a region head, a score for each class and four deltas for each.

    Args:
        pooler: None: ROIPooler with 7 x 7 cells.
        head: None: FastRCNNConvFCHead, two layers of 1024.
        class_agnostic: one box for all classes.
        box_coder: None: weights 10, 10, 5, 5.
        cls_loss: on logits (T, K + 1) and labels (T,), K is background. None: CrossEntropy().
        box_loss: see `BoxRegression`. None: SmoothL1Loss(beta=0).
        box_loss_weight: factor of the box loss.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        pooler: RegionPooler | None = None,
        head: RegionHead | None = None,
        class_agnostic: bool = False,
        box_coder: Box2BoxTransform | None = None,
        cls_loss: Loss | None = None,
        box_loss: Loss | None = None,
        box_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pooler = ROIPooler(input_shape, 7) if pooler is None else pooler
        head = FastRCNNConvFCHead() if head is None else head
        self.head = head.make(self.pooler.channels, self.pooler.resolution)
        coder = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)) if box_coder is None else box_coder
        self.predictor = BoxPredictor(
            self.head.out_channels,
            num_classes,
            class_agnostic=class_agnostic,
            regression=BoxRegression(coder, SmoothL1Loss(beta=0.0) if box_loss is None else box_loss),
            cls_loss=cls_loss,
            box_loss_weight=box_loss_weight,
        )

    def losses(self, features: dict[str, Tensor], regions: Regions, truth: Truth) -> dict[str, Tensor]:
        return self.losses_of(self.region_features(features, regions.rois), regions)

    def losses_of(self, region_features: Tensor, regions: Regions) -> dict[str, Tensor]:
        logits, deltas = self.predictor(region_features)
        return self.predictor.losses(logits, deltas, regions)

    def predict(self, features: dict[str, Tensor], rois: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.predictor(self.region_features(features, rois))
        return self.predictor.probabilities(logits), self.predictor.boxes(deltas, rois[:, 1:])

    def region_features(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        """(T, C) or, where the region head keeps maps, (T, C, S, S)."""
        return self.head(self.pooler(features, rois))


class BoxPredictor(nn.Module):
    """The last two layers, their losses, and what their outputs mean.

    Args:
        regression: box coder and box loss.
        cls_loss, box_loss_weight, class_agnostic: see `ROIBoxes`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        regression: BoxRegression,
        class_agnostic: bool = False,
        cls_loss: Loss | None = None,
        box_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"a box branch needs at least one class, num_classes is {num_classes}")
        self.num_classes = num_classes
        self.num_boxes = 1 if class_agnostic else num_classes
        self.cls_score = nn.Linear(in_channels, num_classes + 1)
        self.bbox_pred = nn.Linear(in_channels, self.num_boxes * 4)
        for layer, spread in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            normal_fill(layer, std=spread)
        self.regression = regression
        self.cls_loss = CrossEntropy(ignore_index=-100) if cls_loss is None else cls_loss
        self.box_loss_weight = box_loss_weight

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(T, C), or maps (T, C, S, S) which are averaged, to logits (T, K + 1) and deltas (T, 4 or K * 4)."""
        if regions.dim() > 2:
            regions = regions.mean(dim=(2, 3))
        return self.cls_score(regions), self.bbox_pred(regions)

    def class_rows(self) -> dict[str, ClassRows]:
        return {"cls_score": ClassRows(after=1), "bbox_pred": ClassRows(width=4)}

    def losses(self, logits: Tensor, deltas: Tensor, regions: Regions) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box_reg`, see `region_losses`."""
        deltas = deltas.view(-1, self.num_boxes, 4)
        return region_losses(logits, deltas, regions, self.regression, self.cls_loss, self.box_loss_weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(T, K), without the background's."""
        return logits.float().softmax(dim=1)[:, :-1]

    def boxes(self, deltas: Tensor, sources: Tensor) -> Tensor:
        """(T, K or 1, 4) `xyxy`, not clipped."""
        return self.regression.coder.apply_deltas(deltas, sources).view(-1, self.num_boxes, 4)


def region_losses(
    logits: Tensor,
    deltas: Tensor,
    regions: Regions,
    regression: BoxRegression,
    cls_loss: Loss,
    box_loss_weight: float = 1.0,
) -> dict[str, Tensor]:
    """`loss_cls`: mean over the regions; `loss_box_reg`: sum over those with an object, over all regions.

    Args:
        logits: (T, K + 1), K is background.
        deltas: (T, K, 4), or (T, 1, 4) for all classes.
    """
    rows = (regions.classes < logits.shape[1] - 1).nonzero().flatten()  # (F,) those with an object
    found = regions.take(rows)
    column = torch.zeros_like(found.classes) if deltas.shape[1] == 1 else found.classes
    box_loss = regression(deltas[rows, column], found.boxes, found.truth).sum()
    return {
        "loss_cls": cls_loss(logits, regions.classes),
        "loss_box_reg": box_loss / max(len(regions.classes), 1) * box_loss_weight,
    }
