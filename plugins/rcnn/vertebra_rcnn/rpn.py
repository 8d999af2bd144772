"""The region proposal network: of every anchor, whether it holds an object and where that is.

Source: Ren et al., "Faster R-CNN", arXiv:1506.01497, section 3.1; on several levels as in Lin et al., "Feature
Pyramid Networks", arXiv:1612.03144, section 4.1. Numbers, loss and normalization as in Detectron2.
Letters: N images, A anchors a cell, H_l x W_l cells on level l, R anchors over all levels, S sampled ones of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.detection import AnchorGenerator, Box2BoxTransform, Matcher, batched_nms, by_anchor
from vertebra.models import Batch, Loss, ShapeSpec, finest_first, same_channels
from vertebra.models.layers import normal_fill
from vertebra.models.losses import SmoothL1Loss
from vertebra.structures import clip_to_size, pad_rows
from vertebra_rcnn.box_losses import BoxRegression
from vertebra_rcnn.proposals import ProposalGenerator
from vertebra_rcnn.regions import Proposals, Truth
from vertebra_rcnn.samplers import RandomSampler, Sampler

__all__ = ["RPN", "RPNRaw"]


class RPNRaw(NamedTuple):
    """One tensor a level, finest level first.

    Args:
        logits: (N, A, H_l, W_l), before the sigmoid.
        deltas: (N, A * 4, H_l, W_l), dx, dy, dw, dh against the anchor; channel a * 4 + i.
    """

    logits: list[Tensor]
    deltas: list[Tensor]


class RPN(ProposalGenerator):
    """A small convolution network slid over all levels, and the best of its boxes after suppression.

    Args:
        in_features: levels to look at; None: all.
        num_convs: 3x3 convolutions before the two that score.
        anchor_generator: None: edges 8 strides on several levels, 32 to 512 pixels on a single one; ratios 1/2, 1, 2.
        matcher: None: object from IoU 0.7, background below 0.3, ignored between; each ground-truth box keeps its best.
        sampler: which anchors are learned from. None: RandomSampler(256, 0.5).
        box_coder: None: weights 1, 1, 1, 1.
        box_loss: see `BoxRegression`. None: SmoothL1Loss(beta=0).
        box_loss_weight, loss_weight: factor of the box loss, and of both losses.
        pre_nms_topk: best anchors of each level that go on to the suppression, in training and in evaluation.
        post_nms_topk: proposals of an image, in training and in evaluation.
        nms_threshold: IoU threshold of NMS: of two boxes of a level that overlap more, the lower score is dropped.
        min_box_size: proposals have both sides longer than this, in input pixels.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: list[str] | None = None,
        num_convs: int = 1,
        anchor_generator: AnchorGenerator | None = None,
        matcher: Matcher | None = None,
        sampler: Sampler | None = None,
        box_coder: Box2BoxTransform | None = None,
        box_loss: Loss | None = None,
        box_loss_weight: float = 1.0,
        loss_weight: float = 1.0,
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 1000),
        nms_threshold: float = 0.7,
        min_box_size: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = finest_first("RPN", input_shape, in_features)
        strides = [input_shape[name].stride for name in self.in_features]
        self.anchor_generator = _default_anchors(strides) if anchor_generator is None else anchor_generator
        num_anchors = self.anchor_generator.same_number("RPN", self.in_features)
        channels = same_channels("RPN", input_shape, self.in_features)
        if num_convs < 1 or min(*pre_nms_topk, *post_nms_topk) < 1:
            raise ValueError(f"RPN: num_convs {num_convs} and the topk {pre_nms_topk}, {post_nms_topk} must be above 0")
        convs = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(num_convs)]
        self.conv = convs[0] if num_convs == 1 else nn.ModuleList(convs)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        for conv in (*convs, self.objectness_logits, self.anchor_deltas):
            normal_fill(conv, std=0.01)

        self.matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True) if matcher is None else matcher
        self.sampler = RandomSampler(256, 0.5) if sampler is None else sampler
        coder = Box2BoxTransform() if box_coder is None else box_coder
        self.regression = BoxRegression(coder, SmoothL1Loss(beta=0.0) if box_loss is None else box_loss)
        self.box_loss_weight = box_loss_weight * loss_weight
        self.loss_weight = loss_weight
        self.pre_nms_topk = tuple(pre_nms_topk)
        self.post_nms_topk = tuple(post_nms_topk)
        self.nms_threshold = nms_threshold
        self.min_box_size = min_box_size

    def forward(self, features: dict[str, Tensor]) -> RPNRaw:
        """{l: (N, C, H_l, W_l)} to logits and deltas of every anchor."""
        convs = self.conv if isinstance(self.conv, nn.ModuleList) else [self.conv]
        hidden = [features[name] for name in self.in_features]
        for conv in convs:
            hidden = [F.relu(conv(x)) for x in hidden]
        return RPNRaw([self.objectness_logits(x) for x in hidden], [self.anchor_deltas(x) for x in hidden])

    def losses(self, raw: RPNRaw, truth: Truth) -> dict[str, Tensor]:
        """`loss_rpn_cls` and `loss_rpn_loc`: sums over the sampled anchors, over the number that may be sampled."""
        anchors = torch.cat(self.anchor_generator(raw.logits))  # (R, 4)
        matched = self.matcher.match_boxes(anchors, truth.boxes, truth.valid)  # (N, R)
        index, positive, valid = self.sampler(matched)  # (N, S) each
        logits = torch.cat([by_anchor(x, 1) for x in raw.logits], dim=1)[..., 0].gather(1, index).float()
        score_loss = F.binary_cross_entropy_with_logits(logits, positive.to(logits), reduction="none")

        image, slot = positive.nonzero(as_tuple=True)  # (T,) each
        row = index[image, slot]
        deltas = torch.cat([by_anchor(x, 4) for x in raw.deltas], dim=1)[image, row]  # (T, 4)
        box_loss = self.regression(deltas, anchors[row], truth.boxes[image, matched[image, row]])
        count = len(matched) * self.sampler.num_samples
        return {
            "loss_rpn_cls": (score_loss * valid).sum() / count * self.loss_weight,
            "loss_rpn_loc": box_loss.sum() / count * self.box_loss_weight,
        }

    @torch.no_grad()
    def proposals(self, raw: RPNRaw, batch: Batch) -> Proposals:
        """The best boxes of each image, clipped to it, after suppression within each level."""
        boxes, logits, level = self._candidates(raw)
        kept = []
        most = self.post_nms_topk[0 if self.training else 1]
        for one, score, size in zip(boxes, logits, batch.image_sizes, strict=True):
            one = clip_to_size(one, *size)
            good = ((one[:, 2:] - one[:, :2]) > self.min_box_size).all(dim=1) & one.isfinite().all(dim=1)
            one, score, group = one[good], score[good], level[good]
            best = batched_nms(one, score, group, self.nms_threshold)[:most]
            kept.append((one[best], score[best]))
        padded, valid = pad_rows([one for one, _ in kept])
        return Proposals(padded, pad_rows([score for _, score in kept])[0], valid)

    def _candidates(self, raw: RPNRaw) -> tuple[Tensor, Tensor, Tensor]:
        """The best anchors of each level: boxes (N, C, 4) in input pixels, logits (N, C), levels (C,)."""
        most = self.pre_nms_topk[0 if self.training else 1]
        boxes, scores, levels = [], [], []
        for number, (logits, deltas, anchors) in enumerate(
            zip(raw.logits, raw.deltas, self.anchor_generator(raw.logits), strict=True)
        ):
            flat = by_anchor(logits, 1)[..., 0]  # (N, R_l)
            score, row = flat.topk(min(most, flat.shape[1]), dim=1)
            chosen = by_anchor(deltas, 4).gather(1, row[..., None].expand(-1, -1, 4))
            boxes.append(self.regression.coder.apply_deltas(chosen, anchors[row]))
            scores.append(score.float())
            levels.append(torch.full((row.shape[1],), number, device=row.device))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)


def _default_anchors(strides: list[int]) -> AnchorGenerator:
    """One size a level on a pyramid; all five sizes on a single level."""
    sizes = [[32.0, 64.0, 128.0, 256.0, 512.0]] if len(strides) == 1 else [[8.0 * stride] for stride in strides]
    return AnchorGenerator(sizes=sizes, aspect_ratios=[[0.5, 1.0, 2.0]], strides=strides)
