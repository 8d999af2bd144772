"""YOLOv5 head: three anchors a cell on three levels; each gives a box, an objectness and class scores.

Source: the architecture and losses as published with YOLOv5 (releases 6 and 7). A box's center lies at (2 s - 0.5)
cells from its cell's corner and its sides are (2 s)^2 times the anchor's, s the sigmoid of what the network gives. CIoU
loss on the boxes of matched anchors, binary cross entropy on classes and on objectness, whose target is the overlap.
Letters: N images, K classes, A anchors a cell, H_l x W_l cells on level l, R anchors over all levels, P matched pairs.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.detection import Candidates, rescale_instances, suppress, top_values
from vertebra.errors import DataError
from vertebra.export import suppressed_candidates
from vertebra.models import Batch, Head, Loss, ShapeSpec
from vertebra.models.losses import BinaryCrossEntropy, CIoULoss
from vertebra.runtime import distributed
from vertebra.structures import matched_pairwise_iou
from vertebra_yolo.assign_ratio import RatioPairs, match_by_ratio

__all__ = ["COCO_ANCHORS", "YOLOv5Head"]

COCO_ANCHORS = [  # width and height in pixels at 640, finest level first, as published
    [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
    [[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
    [[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]],
]
_BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}  # as published


class YOLOv5Head(Head):
    """`predict` gives `instances` with `pred_boxes`, `scores` (objectness times class score), `pred_classes`.

    Args:
        anchors: [level, finest first][anchor][width, height] in input pixels; None: COCO's at 640.
        box_loss: on matched boxes (P, 4), unreduced. None: CIoULoss().
        cls_loss: on class logits (P, K) and targets, unreduced. None: BinaryCrossEntropy.
        box_gain, obj_gain, cls_gain: weights of the losses at three levels, 80 classes and 640 pixels; they are scaled
            to the levels, classes and image size at hand.
        balance: weight of each level's objectness loss, finest first; None: the published 4, 1, 0.4.
        label_smoothing: share taken from the right class's target and spread; 0 in the published settings.
        max_ratio: see `match_by_ratio`.
        scale_by_batch: losses are multiplied by the number of images of a step, over all processes: what published
            learning rates for SGD are made for.
        score_threshold: detections need more than this.
        topk_candidates: best (anchor, class) pairs of each level that go on to the suppression.
        nms_threshold: of two boxes of a class with a greater IoU, the worse one goes.
        class_agnostic_nms: of two boxes of any classes.
        max_detections: kept in an image.
    """

    task_outputs: ClassVar = ("instances",)
    yolov5_names: ClassVar = ((r"head\.m\.(\d+\.(?:weight|bias))", r"predict_maps.\1"),)  # see v5_import

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        anchors: list[list[list[float]]] | None = None,
        box_loss: Loss | None = None,
        cls_loss: Loss | None = None,
        box_gain: float = 0.05,
        obj_gain: float = 1.0,
        cls_gain: float = 0.5,
        balance: list[float] | None = None,
        label_smoothing: float = 0.0,
        max_ratio: float = 4.0,
        scale_by_batch: bool = True,
        score_threshold: float = 0.001,
        topk_candidates: int = 1000,
        nms_threshold: float = 0.6,
        class_agnostic_nms: bool = False,
        max_detections: int = 300,
    ) -> None:
        super().__init__()
        self.levels = sorted(input_shape, key=lambda name: input_shape[name].stride)  # finest first
        strides = [input_shape[name].stride for name in self.levels]
        sizes = _checked_anchors(COCO_ANCHORS if anchors is None else anchors, len(self.levels))
        if num_classes < 1:
            raise ValueError(f"YOLOv5Head needs at least one class, num_classes is {num_classes}")
        if balance is None:
            balance = list(_BALANCE.get(len(self.levels), [1.0] * len(self.levels)))
        if len(balance) != len(self.levels):
            raise ValueError(f"YOLOv5Head: balance has {len(balance)} values for {len(self.levels)} levels")
        for loss in (box_loss, cls_loss):
            if getattr(loss, "reduction", "none") != "none":
                raise ValueError(f"YOLOv5Head averages by itself: {type(loss).__name__} needs reduction 'none'")
        self.num_classes = num_classes
        self.num_anchors = sizes.shape[1]
        self.width = 5 + num_classes  # numbers an anchor: x, y, w, h, objectness, classes
        self.predict_maps = nn.ModuleList(
            nn.Conv2d(input_shape[name].channels, self.num_anchors * self.width, 1) for name in self.levels
        )
        for conv, stride in zip(self.predict_maps, strides, strict=True):
            _start_rarely(conv, stride, self.width)
        self.register_buffer("anchors", sizes, persistent=False)  # (L, A, 2), the recipe's
        self.register_buffer("strides", torch.tensor(strides, dtype=torch.float32), persistent=False)
        self.box_loss = CIoULoss() if box_loss is None else box_loss
        self.cls_loss = BinaryCrossEntropy(reduction="none") if cls_loss is None else cls_loss
        self.box_gain = box_gain
        self.obj_gain = obj_gain
        self.cls_gain = cls_gain
        self.balance = tuple(balance)
        self.label_smoothing = label_smoothing
        self.max_ratio = max_ratio
        self.scale_by_batch = scale_by_batch
        self.score_threshold = score_threshold
        self.topk_candidates = topk_candidates
        self.nms_threshold = nms_threshold
        self.class_agnostic_nms = class_agnostic_nms
        self.max_detections = max_detections

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """{l: (N, C_l, H_l, W_l)} to (N, A * (5 + K), H_l, W_l) a level; channel a * (5 + K) + i."""
        return [conv(features[name]) for conv, name in zip(self.predict_maps, self.levels, strict=True)]

    def losses(self, raw: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss_box` and `loss_cls` over the matched pairs, `loss_obj` over all anchors; means of each level summed."""
        if batch.gt_valid is None:
            raise DataError(
                "YOLOv5Head learns from true boxes, but no input of the batch has `instances`; "
                "the dicts of a dataset to train on need the key `annotations` ([] where an image shows nothing)"
            )
        pairs, counts = self._match(raw, batch)
        truth = batch.gt_boxes[pairs.image, pairs.object]  # (P, 4) xyxy, input pixels
        classes = batch.gt_classes[pairs.image, pairs.object]
        losses = [x.new_zeros((), dtype=torch.float32) for x in (raw[0],) * 3]
        start = 0
        for level, count in enumerate(counts):
            part = slice(start, start := start + count)
            found = self._level_losses(
                raw[level], level, RatioPairs(*(x[part] for x in pairs)), truth[part], classes[part]
            )
            losses = [total + loss for total, loss in zip(losses, found, strict=True)]
        return dict(zip(("loss_box", "loss_obj", "loss_cls"), self._weighted(losses, batch), strict=True))

    def predict(self, raw: list[Tensor], batch: Batch) -> list[dict]:
        """The best boxes of each image, scaled to its original size and clipped to it, best first."""
        found = suppress(
            self._candidates(raw),
            batch.image_sizes,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            class_agnostic=self.class_agnostic_nms,
        )
        return [
            {"instances": rescale_instances(one, *original)}
            for one, original in zip(found, batch.original_sizes, strict=True)
        ]

    def export_raw(self, raw: list[Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`output` (N, R, 5 + K): center x, y, width, height in input pixels, objectness, class scores.

        Rows run level by level, in a level anchor by anchor, then row and column; for three levels at 640 x 640 they
        are 25200.
        """
        rows = []
        for level, x in enumerate(raw):
            n, _, height, width = x.shape
            x = x.view(n, self.num_anchors, self.width, height, width).permute(0, 1, 3, 4, 2).float().sigmoid()
            corner = _cells(height, width, x.device)[None, None]  # (1, 1, H, W, 2)
            stride, anchors = self.strides[level], self.anchors[level].view(1, -1, 1, 1, 2)
            center = (x[..., :2] * 2 - 0.5 + corner) * stride
            size = (x[..., 2:4] * 2) ** 2 * anchors
            rows.append(torch.cat((center, size, x[..., 4:]), dim=-1).reshape(n, -1, self.width))
        return {"output": torch.cat(rows, dim=1)}

    def export_predictions(self, raw: list[Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`boxes` (N, D, 4) xyxy in input pixels, `scores` and `classes` (N, D), best first, NMS in the graph."""
        return suppressed_candidates(
            self._candidates(raw),
            self.num_classes,
            nms_threshold=self.nms_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
            class_agnostic=self.class_agnostic_nms,
        )

    def _match(self, raw: list[Tensor], batch: Batch) -> tuple[RatioPairs, list[int]]:
        """The pairs, sorted by level, and how many each level has. Two waits for the device."""
        real = batch.gt_valid & (batch.gt_boxes[..., 2:] > batch.gt_boxes[..., :2]).all(dim=-1)  # no box without area
        sizes = torch.tensor([(x.shape[3], x.shape[2]) for x in raw], device=batch.gt_boxes.device)
        pairs = match_by_ratio(batch.gt_boxes, real, self.anchors, self.strides, sizes, max_ratio=self.max_ratio)
        counts = (pairs.level == torch.arange(len(raw), device=pairs.level.device)[:, None]).sum(dim=1)
        return pairs, counts.tolist()

    def _level_losses(
        self, x: Tensor, level: int, pairs: RatioPairs, truth: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unweighted box, objectness and class loss of one level's map."""
        height, width = x.shape[2:]
        flat = _by_anchor(x, self.width).flatten(0, 1)  # (N * H * W * A, 5 + K)
        row = ((pairs.image * height + pairs.y) * width + pairs.x) * self.num_anchors + pairs.anchor
        matched = flat.index_select(0, row).float()  # (P_l, 5 + K)
        corner = torch.stack((pairs.x, pairs.y), dim=-1)
        boxes = decode_boxes(matched[:, :4], corner, self.anchors[level][pairs.anchor], self.strides[level])
        box_loss = self.box_loss(boxes / self.strides[level], truth / self.strides[level])  # (P_l,)
        count = max(len(row), 1)
        with torch.no_grad():
            overlap = matched_pairwise_iou(boxes, truth)
            target = flat.new_zeros(len(flat), dtype=torch.float32)
            target.scatter_reduce_(0, row, overlap, reduce="amax")  # of several claims on an anchor, the best
        objectness = F.binary_cross_entropy_with_logits(flat[:, 4].float(), target) * self.balance[level]
        loss_cls = matched.sum() * 0.0
        if self.num_classes > 1:
            smooth = self.label_smoothing
            hot = classes[:, None] == torch.arange(self.num_classes, device=classes.device)  # (P_l, K)
            wanted = hot.float() * (1 - smooth) + smooth / 2
            loss_cls = self.cls_loss(matched[:, 5:], wanted).sum() / (count * self.num_classes)
        return box_loss.sum() / count, objectness, loss_cls

    def _weighted(self, losses: list[Tensor], batch: Batch) -> list[Tensor]:
        levels = 3 / len(self.levels)
        height, width = batch.padded_size
        gains = (
            self.box_gain * levels,
            self.obj_gain * levels * (height * width) / 640**2,
            self.cls_gain * levels * self.num_classes / 80,
        )
        images = len(batch) * distributed.world_size() if self.scale_by_batch else 1
        return [loss * gain * images for loss, gain in zip(losses, gains, strict=True)]

    def _candidates(self, raw: list[Tensor]) -> Candidates:
        return Candidates.cat([self._level_candidates(x, level) for level, x in enumerate(raw)])

    def _level_candidates(self, x: Tensor, level: int) -> Candidates:
        """The best (anchor, class) pairs of one level, all images at once, without a wait for the device."""
        rows = _by_anchor(x, self.width)  # (N, R_l, 5 + K)
        likely = rows[..., 4].float().sigmoid()
        if self.num_classes > 1:
            likely = likely * rows[..., 5:].float().amax(dim=-1).sigmoid()
        _, index = top_values(likely, self.topk_candidates)  # (N, T): the best T pairs lie on the T best anchors
        chosen = rows.gather(1, index[..., None].expand(-1, -1, self.width)).float()  # (N, T, 5 + K)
        scores = chosen[..., 4:5].sigmoid()
        if self.num_classes > 1:
            scores = scores * chosen[..., 5:].sigmoid()
        best, pair = top_values(scores.flatten(1), self.topk_candidates)
        place, classes = pair // self.num_classes, pair % self.num_classes
        index = index.gather(1, place)
        cell, anchor = index // self.num_anchors, index % self.num_anchors
        corners = _cells(*x.shape[2:], x.device).view(-1, 2)[cell]
        regression = chosen[..., :4].gather(1, place[..., None].expand(-1, -1, 4))
        boxes = decode_boxes(regression, corners, self.anchors[level][anchor], self.strides[level])
        return Candidates(boxes, best, classes, best > self.score_threshold)


def decode_boxes(regression: Tensor, corners: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """What the network gives (..., 4) to boxes xyxy in input pixels, in float32.

    Args:
        corners: (..., 2) column and row of the cell.
        anchors: (..., 2) width and height in pixels.
        strides: pixels per cell, broadcast against (..., 1).
    """
    s = regression.float().sigmoid()
    center = (s[..., :2] * 2 - 0.5 + corners) * strides
    half = (s[..., 2:] * 2) ** 2 * anchors / 2
    return torch.cat((center - half, center + half), dim=-1)


def _by_anchor(x: Tensor, width: int) -> Tensor:
    """A map (N, A * width, H, W) to (N, H * W * A, width); no copy if it lies channels_last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def _cells(height: int, width: int, device: torch.device) -> Tensor:
    """Column and row of every cell, (H, W, 2) float32."""
    ys, xs = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((xs, ys), dim=-1).float()


def _checked_anchors(anchors: list[list[list[float]]], num_levels: int) -> Tensor:
    """(L, A, 2) float32."""
    if len(anchors) != num_levels:
        raise ValueError(
            f"YOLOv5Head has {num_levels} levels, but anchors for {len(anchors)}; give one list of [width, height] "
            "for each level, finest first"
        )
    pairs = [pair for level in anchors for pair in level]
    if len({len(level) for level in anchors}) != 1 or any(len(pair) != 2 or min(pair) <= 0 for pair in pairs):
        raise ValueError(
            f"YOLOv5Head: anchors are {anchors}; each level needs the same number of [width, height], in pixels above 0"
        )
    return torch.tensor(anchors, dtype=torch.float32)


@torch.no_grad()
def _start_rarely(conv: nn.Conv2d, stride: int, width: int) -> None:
    """Biases for an untrained head: objectness of 8 objects in an image of 640 pixels, each class 0.6 / K likely."""
    bias = conv.bias.view(-1, width)  # (A, 5 + K)
    bias[:, 4] += math.log(8 / (640 / stride) ** 2)
    bias[:, 5:] += math.log(0.6 / (width - 5 - 0.99999))
