"""RetinaNet head: two small convolution towers, shared by all levels, over a dense grid of anchors.

Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002; sections 3 and 4.
As in Detectron2 and unlike the paper, the losses are divided by a running mean of the number of positive
anchors, and the box loss is plain L1 on the deltas.
Letters: N images, K classes, A anchors a cell, H_l x W_l cells on level l, R anchors over all levels,
M ground-truth boxes in the fullest image, P positive anchors.
"""

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vertebra.detection import (
    IGNORE,
    AnchorGenerator,
    Box2BoxTransform,
    Candidates,
    Matcher,
    Suppression,
    by_anchor,
    topk_candidates,
)
from vertebra.models import Batch, ClassRows, DetectionHead, Loss, ShapeSpec, finest_first, same_channels
from vertebra.models.layers import NormName, fill_bias, get_norm, normal_fill
from vertebra.models.losses import SigmoidFocalLoss, SmoothL1Loss, check_unreduced

__all__ = ["RetinaNetHead", "RetinaNetRaw"]


class RetinaNetRaw(NamedTuple):
    """What the head computes from the features; one tensor a level, finest level first.

    Args:
        logits: (N, A * K, H_l, W_l), the class scores before the sigmoid; channel a * K + k.
        deltas: (N, A * 4, H_l, W_l), dx, dy, dw, dh against the anchor; channel a * 4 + i.
    """

    logits: list[Tensor]
    deltas: list[Tensor]


class RetinaNetHead(DetectionHead):
    """One-stage detection on any number of levels.

    Args:
        num_convs: 3x3 convolutions in each tower, before the one that scores.
        prior_prob: what an untrained head answers for every class; keeps the first steps stable (section 4.1).
        norm: after each tower convolution, see `get_norm`. Batch normalization gets statistics, scale and shift of its
            own for each level; GroupNorm is shared by the levels like the convolutions.
        anchor_generator: None: edges 4 * stride * 2^(0, 1/3, 2/3), ratios 1/2, 1, 2.
        matcher: None: positive from IoU 0.5, background below 0.4, ignored between; each ground-truth box
            keeps its best.
        box_coder: None: weights 1, 1, 1, 1.
        cls_loss: elementwise on logits and targets of 0 and 1, both (..., K). None: SigmoidFocalLoss().
        box_loss: on deltas, elementwise; one with a true `on_boxes`, as the IoU losses have, on decoded boxes (P, 4)
            instead. None: SmoothL1Loss(beta=0).
        box_loss_weight: factor of the box loss.
        score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections: see `Suppression`; the
            candidates are (anchor, class) pairs of each level.
        loss_normalizer_momentum: of the running mean of positives, which starts at 100.
    """

    detectron2_names: ClassVar = ((r"head\.((?:cls_subnet|bbox_subnet|cls_score|bbox_pred)\..+)", r"\1"),)
    loss_normalizer: Tensor

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        num_convs: int = 4,
        prior_prob: float = 0.01,
        norm: NormName = "",
        anchor_generator: AnchorGenerator | None = None,
        matcher: Matcher | None = None,
        box_coder: Box2BoxTransform | None = None,
        cls_loss: Loss | None = None,
        box_loss: Loss | None = None,
        box_loss_weight: float = 1.0,
        score_threshold: float = 0.05,
        topk_candidates: int = 1000,
        nms_threshold: float = 0.5,
        class_agnostic_nms: bool = False,
        max_detections: int = 100,
        loss_normalizer_momentum: float = 0.9,
    ) -> None:
        super().__init__(
            num_classes,
            Suppression(score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections),
        )
        self.levels = finest_first("RetinaNetHead", input_shape)
        strides = [input_shape[name].stride for name in self.levels]
        self.anchor_generator = _octave_anchors(strides) if anchor_generator is None else anchor_generator
        channels = same_channels("RetinaNetHead", input_shape, self.levels)
        num_anchors = self.anchor_generator.same_number("RetinaNetHead", self.levels)
        check_unreduced("RetinaNetHead", cls_loss, box_loss)
        if num_convs < 0:
            raise ValueError(f"RetinaNetHead: num_convs is {num_convs}, it must be at least 0")
        if not 0 < prior_prob < 1:
            raise ValueError(f"RetinaNetHead: prior_prob is {prior_prob}, it must lie between 0 and 1")

        self.cls_subnet = _Tower(channels, num_convs, norm, len(self.levels))
        self.bbox_subnet = _Tower(channels, num_convs, norm, len(self.levels))
        self.cls_score = _conv(channels, num_anchors * num_classes)
        self.bbox_pred = _conv(channels, num_anchors * 4)
        fill_bias(self.cls_score, -math.log((1 - prior_prob) / prior_prob))

        self.matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True) if matcher is None else matcher
        self.box_coder = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)) if box_coder is None else box_coder
        self.cls_loss = SigmoidFocalLoss() if cls_loss is None else cls_loss
        self.box_loss = SmoothL1Loss(beta=0.0) if box_loss is None else box_loss
        self.box_loss_weight = box_loss_weight
        self.loss_normalizer_momentum = loss_normalizer_momentum
        self.register_buffer("loss_normalizer", torch.tensor(100.0))

    def forward(self, features: dict[str, Tensor]) -> RetinaNetRaw:
        """{l: (N, C, H_l, W_l)} to logits and deltas of every anchor."""
        maps = [features[name] for name in self.levels]
        return RetinaNetRaw(
            logits=[self.cls_score(self.cls_subnet(x, level)) for level, x in enumerate(maps)],
            deltas=[self.bbox_pred(self.bbox_subnet(x, level)) for level, x in enumerate(maps)],
        )

    def class_rows(self) -> dict[str, ClassRows]:
        return {"cls_score": ClassRows()}

    def losses(self, raw: RetinaNetRaw, batch: Batch) -> dict[str, Tensor]:
        """`loss_cls` over all anchors that are not ignored, `loss_box_reg` over the positive ones."""
        boxes, classes, valid = batch.ground_truth("RetinaNetHead")
        anchors = torch.cat(self.anchor_generator(raw.deltas))  # (R, 4)
        real = valid & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)  # no box without area
        matched = self.matcher.match_boxes(anchors, boxes, real)  # (N, R)
        image, row = (matched >= 0).nonzero(as_tuple=True)  # (P,) each; the only wait for the device
        normalizer = self._update_normalizer(len(row))

        deltas = torch.cat([by_anchor(x, 4) for x in raw.deltas], dim=1)[image, row].float()  # (P, 4)
        truth = boxes[image, matched[image, row]]  # (P, 4) xyxy, input pixels
        box_loss = self._box_loss(deltas, anchors[row], truth).sum()
        return {
            "loss_cls": self._cls_loss(raw.logits, matched, classes) / normalizer,
            "loss_box_reg": box_loss / normalizer * self.box_loss_weight,
        }

    def candidates(self, raw: RetinaNetRaw) -> Candidates:
        """The best (anchor, class) pairs of each level."""
        levels = zip(raw.logits, raw.deltas, self.anchor_generator(raw.deltas), strict=True)
        found = [
            topk_candidates(
                by_anchor(logits, self.num_classes),
                by_anchor(deltas, 4),
                anchors,
                decode=self.box_coder.apply_deltas,
                score_threshold=self.score_threshold,
                topk=self.topk_candidates,
            )
            for logits, deltas, anchors in levels
        ]
        return Candidates.cat(found)

    def _cls_loss(self, logits: list[Tensor], matched: Tensor, gt_classes: Tensor) -> Tensor:
        """Sum over the anchors that are not ignored. A level at a time, so that no copy of all logits is made."""
        classes = gt_classes.gather(1, matched.clamp(min=0))  # (N, R); any class where there is no match
        positive, valid = matched >= 0, matched != IGNORE
        total = logits[0].new_zeros((), dtype=torch.float32)
        start = 0
        for level in logits:
            scores = by_anchor(level, self.num_classes)  # (N, R_l, K)
            part = slice(start, start := start + scores.shape[1])
            target = torch.zeros_like(scores)
            target.scatter_(2, classes[:, part, None], positive[:, part, None].to(target))
            loss = self.cls_loss(scores, target).sum(dim=2)  # (N, R_l)
            total = total + (loss * valid[:, part]).sum()
        return total

    def _box_loss(self, deltas: Tensor, anchors: Tensor, truth: Tensor) -> Tensor:
        """Deltas, their anchors and their ground-truth boxes, (P, 4) each, to unreduced losses."""
        if getattr(self.box_loss, "on_boxes", False):
            return self.box_loss(self.box_coder.apply_deltas(deltas, anchors), truth)
        return self.box_loss(deltas, self.box_coder.get_deltas(anchors, truth))

    def _update_normalizer(self, num_positive: int) -> Tensor:
        """Running mean of the positive anchors a step, each process its own, as in Detectron2."""
        if self.training:
            momentum = self.loss_normalizer_momentum
            self.loss_normalizer.mul_(momentum).add_((1 - momentum) * max(num_positive, 1))
        return self.loss_normalizer.clone()  # the buffer may change again before the backward pass


class _Tower(nn.ModuleList):
    """Convolution, norm where there is one, ReLU, `num_convs` times; numbered as in Detectron2."""

    def __init__(self, channels: int, num_convs: int, norm: NormName, num_levels: int) -> None:
        super().__init__()
        for _ in range(num_convs):
            self.append(_conv(channels, channels))
            norms = [get_norm(norm, channels) for _ in range(1 if norm == "gn" else num_levels)]
            layers = [layer for layer in norms if layer is not None]
            if layers:
                self.append(layers[0] if norm == "gn" else nn.ModuleList(layers))
            self.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor, level: int) -> Tensor:
        for layer in self:
            x = layer[level](x) if isinstance(layer, nn.ModuleList) else layer(x)
        return x


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    normal_fill(conv, std=0.01)  # section 4.1
    return conv


def _octave_anchors(strides: list[int]) -> AnchorGenerator:
    """Three sizes an octave from 4 strides up, three ratios (section 4)."""
    sizes = [[4 * stride * 2 ** (i / 3) for i in range(3)] for stride in strides]
    return AnchorGenerator(sizes=sizes, aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides)
