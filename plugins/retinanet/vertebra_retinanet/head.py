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
    rescale_instances,
    suppress,
    topk_candidates,
)
from vertebra.export import suppressed_candidates
from vertebra.models import Batch, ClassRows, Head, Loss, ShapeSpec
from vertebra.models.layers import NormName, fill_bias, get_norm, normal_fill
from vertebra.models.losses import CIoULoss, DIoULoss, GIoULoss, IoULoss, SigmoidFocalLoss, SmoothL1Loss

__all__ = ["RetinaNetHead", "RetinaNetRaw"]

_OVERLAP_LOSSES = (IoULoss, GIoULoss, DIoULoss, CIoULoss)


class RetinaNetRaw(NamedTuple):
    """What the head computes from the features; one tensor a level, finest level first.

    Args:
        logits: (N, A * K, H_l, W_l), the class scores before the sigmoid; channel a * K + k.
        deltas: (N, A * 4, H_l, W_l), dx, dy, dw, dh against the anchor; channel a * 4 + i.
    """

    logits: list[Tensor]
    deltas: list[Tensor]


class RetinaNetHead(Head):
    """One-stage detection; `predict` gives `instances` with `pred_boxes`, `scores`, `pred_classes`.

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
        box_loss: on deltas, elementwise; the core's IoU losses, and any with an attribute `on_boxes` that is true, on
            decoded boxes (P, 4) instead. None: SmoothL1Loss(beta=0).
        box_loss_weight: factor of the box loss.
        score_threshold: minimum score.
        topk_candidates: best (anchor, class) pairs of each level that go on to the suppression.
        nms_threshold: IoU threshold of NMS: of two boxes of a class that overlap more, the lower score is dropped.
        class_agnostic_nms: boxes of different classes suppress each other too.
        max_detections: maximum number of detections per image.
        loss_normalizer_momentum: of the running mean of positives, which starts at 100.
    """

    detectron2_names: ClassVar = ((r"head\.((?:cls_subnet|bbox_subnet|cls_score|bbox_pred)\..+)", r"\1"),)
    task_outputs: ClassVar = ("instances",)
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
        super().__init__()
        self.levels = sorted(input_shape, key=lambda name: input_shape[name].stride)  # finest first
        strides = [input_shape[name].stride for name in self.levels]
        self.anchor_generator = _octave_anchors(strides) if anchor_generator is None else anchor_generator
        channels = _same_channels(input_shape)
        num_anchors = _same_anchors(self.anchor_generator.num_anchors, self.levels)
        for loss in (cls_loss, box_loss):
            reduction = getattr(loss, "reduction", "none")
            if reduction != "none":
                raise ValueError(
                    f"RetinaNetHead sums its losses and divides them by the running mean of positive anchors, so "
                    f"{type(loss).__name__} needs reduction 'none', not {reduction!r}"
                )
        if num_classes < 1:
            raise ValueError(f"RetinaNetHead needs at least one class, num_classes is {num_classes}")
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
        self._loss_on_boxes = getattr(self.box_loss, "on_boxes", isinstance(self.box_loss, _OVERLAP_LOSSES))
        self.box_loss_weight = box_loss_weight
        self.num_classes = num_classes
        self.score_threshold = score_threshold
        self.topk_candidates = topk_candidates
        self.nms_threshold = nms_threshold
        self.class_agnostic_nms = class_agnostic_nms
        self.max_detections = max_detections
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

        deltas = torch.cat([_by_anchor(x, 4) for x in raw.deltas], dim=1)[image, row].float()  # (P, 4)
        truth = boxes[image, matched[image, row]]  # (P, 4) xyxy, input pixels
        box_loss = self._box_loss(deltas, anchors[row], truth).sum()
        return {
            "loss_cls": self._cls_loss(raw.logits, matched, classes) / normalizer,
            "loss_box_reg": box_loss / normalizer * self.box_loss_weight,
        }

    def predict(self, raw: RetinaNetRaw, batch: Batch) -> list[dict]:
        """The best boxes of each image, scaled to its original size and clipped to it, best first."""
        found = suppress(
            self._candidates(raw),
            batch.image_sizes,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            class_agnostic=self.class_agnostic_nms,
        )
        return [
            {"instances": rescale_instances(one, *size)} for one, size in zip(found, batch.original_sizes, strict=True)
        ]

    def export_predictions(self, raw: RetinaNetRaw, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """As `predict`, all images at once: the best pairs of each level, suppression in the graph."""
        return suppressed_candidates(
            self._candidates(raw),
            self.num_classes,
            nms_threshold=self.nms_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
            class_agnostic=self.class_agnostic_nms,
        )

    def _cls_loss(self, logits: list[Tensor], matched: Tensor, gt_classes: Tensor) -> Tensor:
        """Sum over the anchors that are not ignored. A level at a time, so that no copy of all logits is made."""
        classes = gt_classes.gather(1, matched.clamp(min=0))  # (N, R); any class where there is no match
        positive, valid = matched >= 0, matched != IGNORE
        total = logits[0].new_zeros((), dtype=torch.float32)
        start = 0
        for level in logits:
            scores = _by_anchor(level, self.num_classes)  # (N, R_l, K)
            part = slice(start, start := start + scores.shape[1])
            target = torch.zeros_like(scores)
            target.scatter_(2, classes[:, part, None], positive[:, part, None].to(target))
            loss = self.cls_loss(scores, target).sum(dim=2)  # (N, R_l)
            total = total + (loss * valid[:, part]).sum()
        return total

    def _box_loss(self, deltas: Tensor, anchors: Tensor, truth: Tensor) -> Tensor:
        """Deltas, their anchors and their ground-truth boxes, (P, 4) each, to unreduced losses."""
        if self._loss_on_boxes:
            return self.box_loss(self.box_coder.apply_deltas(deltas, anchors), truth)
        return self.box_loss(deltas, self.box_coder.get_deltas(anchors, truth))

    def _update_normalizer(self, num_positive: int) -> Tensor:
        """Running mean of the positive anchors a step, each process its own, as in Detectron2."""
        if self.training:
            momentum = self.loss_normalizer_momentum
            self.loss_normalizer.mul_(momentum).add_((1 - momentum) * max(num_positive, 1))
        return self.loss_normalizer.clone()  # the buffer may change again before the backward pass

    def _candidates(self, raw: RetinaNetRaw) -> Candidates:
        """The best anchor-class pairs of each level."""
        levels = zip(raw.logits, raw.deltas, self.anchor_generator(raw.deltas), strict=True)
        found = [
            topk_candidates(
                _by_anchor(logits, self.num_classes),
                _by_anchor(deltas, 4),
                anchors,
                decode=self.box_coder.apply_deltas,
                score_threshold=self.score_threshold,
                topk=self.topk_candidates,
            )
            for logits, deltas, anchors in levels
        ]
        return Candidates.cat(found)


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


def _by_anchor(x: Tensor, size: int) -> Tensor:
    """A map (N, A * size, H, W) to (N, H * W * A, size), in the order of the anchors; no copy if channels_last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    normal_fill(conv, std=0.01)  # section 4.1
    return conv


def _octave_anchors(strides: list[int]) -> AnchorGenerator:
    """Three sizes an octave from 4 strides up, three ratios (section 4)."""
    sizes = [[4 * stride * 2 ** (i / 3) for i in range(3)] for stride in strides]
    return AnchorGenerator(sizes=sizes, aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides)


def _same_channels(input_shape: dict[str, ShapeSpec]) -> int:
    channels = {name: shape.channels for name, shape in input_shape.items()}
    if len(set(channels.values())) != 1:
        raise ValueError(
            "RetinaNetHead shares its towers, so all levels need the same number of channels, got "
            f"{channels or 'no levels'}. Put a neck (FPN) between the backbone and the head."
        )
    return next(iter(channels.values()))


def _same_anchors(num_anchors: list[int], levels: list[str]) -> int:
    if len(num_anchors) != len(levels):
        raise ValueError(
            f"RetinaNetHead: the anchor generator has {len(num_anchors)} levels, the features {len(levels)} "
            f"({', '.join(levels)})"
        )
    if len(set(num_anchors)) != 1:
        raise ValueError(f"RetinaNetHead needs the same number of anchors a cell on every level, got {num_anchors}")
    return num_anchors[0]
