"""FCOS in one file: torchvision's head and losses, with its own assignment and decoding, as a Vertebra head.

Source: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv:1904.01355, and torchvision's
`torchvision.models.detection.fcos.FCOSHead`, which holds the towers and the three losses.
Letters: N images, K classes, R points over all levels, M ground-truth boxes in the fullest image, C candidates.

    vertebra train docs/examples/bccd_fcos.yaml data.root=PATH/TO/bccd
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.fcos import FCOSHead as TorchvisionHead

from vertebra import HEADS, AnchorGenerator, Batch, ShapeSpec
from vertebra.detection import Candidates, Suppression
from vertebra.models import DetectionHead, finest_first

__all__ = ["FCOSHead"]


class FCOSRaw(NamedTuple):
    """All levels in a row, finest first."""

    logits: Tensor  # (N, R, K) class scores before the sigmoid
    edges: Tensor  # (N, R, 4) distances to left, top, right, bottom edge, in strides
    centerness: Tensor  # (N, R, 1) before the sigmoid
    points: Tensor  # (R, 4) a square around each point, xyxy in input pixels, as wide as the level's stride


@HEADS.register()
class FCOSHead(DetectionHead):
    """Anchor-free detection on any number of levels.

    Args:
        num_convs: 3x3 convolutions with GroupNorm(32) in each of the two towers.
        center_radius: a point is positive within this many strides of a ground-truth box's center (and inside the box).
        score_threshold: minimum score.
        nms_threshold: IoU threshold of NMS: of two boxes of a class that overlap more, the lower score is dropped.
        topk_candidates: best pairs of point and class of an image that go on to the suppression.
        max_detections: maximum number of detections per image.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        num_convs: int = 4,
        center_radius: float = 1.5,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        topk_candidates: int = 1000,
        max_detections: int = 100,
    ) -> None:
        super().__init__(
            num_classes, Suppression(score_threshold, topk_candidates, nms_threshold, max_detections=max_detections)
        )
        self.levels = finest_first("FCOSHead", input_shape)
        channels = {input_shape[name].channels for name in self.levels}
        if len(channels) != 1 or (width := channels.pop()) % 32:
            raise ValueError(f"FCOSHead needs levels of one width, a multiple of 32, got {input_shape}")
        strides = [input_shape[name].stride for name in self.levels]
        self.points = AnchorGenerator([[stride] for stride in strides], [[1.0]], strides, offset=0.5)
        self.head = TorchvisionHead(width, num_anchors=1, num_classes=num_classes, num_convs=num_convs)
        self.center_radius = center_radius

    def forward(self, features: dict[str, Tensor]) -> FCOSRaw:
        """{l: (N, C, H/s, W/s)} to what each point says."""
        maps = [features[name] for name in self.levels]
        out = self.head(maps)
        return FCOSRaw(out["cls_logits"], out["bbox_regression"], out["bbox_ctrness"], torch.cat(self.points(maps)))

    def losses(self, raw: FCOSRaw, batch: Batch) -> dict[str, Tensor]:
        """Focal loss on the classes, GIoU on the boxes, cross entropy on the centerness; per positive point."""
        matched = self.assign(raw.points, batch.gt_boxes, batch.gt_valid)
        targets = [{"labels": c, "boxes": b} for c, b in zip(batch.gt_classes, batch.gt_boxes, strict=True)]
        outputs = {"cls_logits": raw.logits, "bbox_regression": raw.edges, "bbox_ctrness": raw.centerness}
        outputs = {name: value.float() for name, value in outputs.items()}
        found = self.head.compute_loss(targets, outputs, [raw.points] * len(batch), list(matched))
        return {f"loss_{name}": loss for name, loss in found.items()}

    def assign(self, points: Tensor, boxes: Tensor, valid: Tensor) -> Tensor:
        """(R, 4), (N, M, 4), (N, M) bool -> (N, R) row of `boxes`, -1 for background; of several the smallest box."""
        x, y = (points[:, :2] + points[:, 2:]).T / 2  # (R,) each
        stride = points[:, 2] - points[:, 0]  # (R,)
        x0, y0, x1, y1 = boxes[..., None, :].unbind(-1)  # (N, M, 1) each
        edges = torch.stack((x - x0, y - y0, x1 - x, y1 - y))  # (4, N, M, R)
        off_center = torch.maximum((x - (x0 + x1) / 2).abs(), (y - (y0 + y1) / 2).abs())  # (N, M, R)
        reach = edges.amax(dim=0)  # a level takes boxes that reach 4 to 8 strides; the first and last also beyond
        least = torch.where(stride == stride.min(), 0, 4 * stride)
        most = torch.where(stride == stride.max(), torch.inf, 8 * stride)
        fits = (edges.amin(dim=0) > 0) & (off_center < self.center_radius * stride) & valid[..., None]
        fits &= (reach >= least) & (reach < most)
        areas = ((x1 - x0) * (y1 - y0)).where(fits, torch.inf)  # (N, M, R)
        smallest, row = areas.min(dim=1)
        return row.where(smallest.isfinite(), -1)

    def candidates(self, raw: FCOSRaw) -> Candidates:
        """The best (point, class) pairs of each image."""
        scores = (raw.logits.float().sigmoid() * raw.centerness.float().sigmoid()).sqrt()  # (N, R, K)
        num_classes = scores.shape[2]
        best, index = scores.flatten(1).topk(min(self.topk_candidates, scores[0].numel()), dim=1)  # (N, C)
        row, classes = index // num_classes, index % num_classes
        edges = raw.edges.float().gather(1, row[..., None].expand(-1, -1, 4))
        boxes = self.head.box_coder.decode(edges, raw.points[row])  # (N, C, 4)
        return Candidates(boxes, best, classes, best > self.score_threshold)
