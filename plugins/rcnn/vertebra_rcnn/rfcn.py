"""R-FCN's box branch: score maps for each cell of a region, so that nothing is computed for a region but averages.

Source: Dai et al., "R-FCN: Object Detection via Region-based Fully Convolutional Networks", arXiv:1605.06409. Unlike
the paper, regions are sampled as in Fast R-CNN and not by their loss (online hard example mining).
Letters: N images, C channels, k cells along each side of a region, K classes, T regions.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.detection import Box2BoxTransform
from vertebra.models import Loss, ShapeSpec
from vertebra.models.layers import normal_fill, xavier_fill
from vertebra.models.losses import CrossEntropy, SmoothL1Loss
from vertebra_rcnn.box_losses import BoxRegression
from vertebra_rcnn.boxes import BoxBranch, region_losses
from vertebra_rcnn.pooling import PSROIPool, RegionOperator
from vertebra_rcnn.regions import Regions, Truth

__all__ = ["RFCNBoxes"]

_SCORES, _DELTAS = "rfcn_scores", "rfcn_deltas"  # names under which the maps join the features


class RFCNBoxes(BoxBranch):
    """k * k groups of maps, one for each cell; a region's answer is the mean over its cells.

    Args:
        in_feature: the one level that it works on, usually a dilated res5 of stride 16; None: the coarsest.
        channels: of the 1x1 convolution before the maps; 0: none. Its weights start in proportion to its input
            (Xavier), not with a deviation of 0.01, with which a narrow one hardly lets anything through.
        bins: k.
        class_agnostic: one box for all classes, as in the paper.
        operator: None: PSROIPool().
        box_coder: None: weights 10, 10, 5, 5.
        cls_loss: see `ROIBoxes`.
        box_loss: see `BoxRegression`. None: SmoothL1Loss(beta=1), the paper's.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        in_feature: str | None = None,
        channels: int = 1024,
        bins: int = 7,
        class_agnostic: bool = True,
        operator: RegionOperator | None = None,
        box_coder: Box2BoxTransform | None = None,
        cls_loss: Loss | None = None,
        box_loss: Loss | None = None,
    ) -> None:
        super().__init__()
        if in_feature is None:
            in_feature = max(input_shape, key=lambda name: input_shape[name].stride)
        if in_feature not in input_shape:
            raise ValueError(f"RFCNBoxes: in_feature {in_feature} is not one of the features {', '.join(input_shape)}")
        if bins < 1 or num_classes < 1:
            raise ValueError(f"RFCNBoxes: bins {bins} and num_classes {num_classes} must be at least 1")
        self.num_classes = num_classes
        self.num_boxes = 1 if class_agnostic else num_classes
        self.in_feature = in_feature
        self.stride = input_shape[in_feature].stride
        self.bins = bins
        width = input_shape[in_feature].channels
        self.reduce = nn.Conv2d(width, channels, 1) if channels else None
        width = channels or width
        self.score_maps = nn.Conv2d(width, bins**2 * (num_classes + 1), 1)
        self.delta_maps = nn.Conv2d(width, bins**2 * self.num_boxes * 4, 1)
        if self.reduce is not None:
            xavier_fill(self.reduce)
        for conv in (self.score_maps, self.delta_maps):
            normal_fill(conv, std=0.01)
        self.operator = PSROIPool() if operator is None else operator
        coder = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)) if box_coder is None else box_coder
        self.regression = BoxRegression(coder, SmoothL1Loss(beta=1.0) if box_loss is None else box_loss)
        self.cls_loss = CrossEntropy(ignore_index=-100) if cls_loss is None else cls_loss

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps (N, (K + 1) * k * k, H, W) of scores and (N, 4 or 4 * K * k * k, H, W) of deltas."""
        x = features[self.in_feature]
        if self.reduce is not None:
            x = F.relu(self.reduce(x))
        return {_SCORES: self.score_maps(x), _DELTAS: self.delta_maps(x)}

    def losses(self, features: dict[str, Tensor], regions: Regions, truth: Truth) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box_reg`, see `region_losses`."""
        logits, deltas = self._answers(features, regions.rois)
        return region_losses(logits, deltas, regions, self.regression, self.cls_loss)

    def predict(self, features: dict[str, Tensor], rois: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self._answers(features, rois)
        boxes = self.regression.coder.apply_deltas(deltas.flatten(1), rois[:, 1:])
        return logits.softmax(dim=1)[:, :-1], boxes.view(-1, self.num_boxes, 4)

    def _answers(self, features: dict[str, Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (T, K + 1) and deltas (T, K or 1, 4): the mean over each region's cells."""
        pooled = [self.operator(features[name], rois, self.bins, 1 / self.stride) for name in (_SCORES, _DELTAS)]
        logits, deltas = (x.mean(dim=(2, 3)) for x in pooled)
        return logits, deltas.view(-1, self.num_boxes, 4)
