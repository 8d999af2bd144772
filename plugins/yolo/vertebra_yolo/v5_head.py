"""YOLOv5 head: three anchors a cell on three levels; each gives a box, an objectness and class scores.

Source: the architecture and losses as published with YOLOv5 (releases 6 and 7). A box's center lies at (2 s - 0.5)
cells from its cell's corner and its sides are (2 s)^2 times the anchor's, s the sigmoid of what the network gives. CIoU
loss on the boxes of matched anchors, binary cross entropy on classes and on objectness, whose target is the overlap.
Letters: N images, K classes, A anchors a cell, H_l x W_l cells on level l, R anchors over all levels, P matched pairs,
Q prototypes of masks.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.detection import Candidates, Suppression, by_anchor, top_values
from vertebra.models import Batch, ClassRows, DetectionHead, GroundTruth, Loss, ShapeSpec, finest_first
from vertebra.models.losses import BinaryCrossEntropy, CIoULoss, check_unreduced
from vertebra.runtime import world_size
from vertebra.structures import matched_pairwise_iou
from vertebra_yolo.assign_ratio import RatioPairs, match_by_ratio
from vertebra_yolo.cells import real_boxes
from vertebra_yolo.prototypes import MaskedRaw, MaskPairs, PrototypeMasks, maps_of
from vertebra_yolo.v5_maps import (
    COCO_ANCHORS,
    anchor_rows,
    by_row,
    cells_of,
    checked_anchors,
    decode_boxes,
    decoded_rows,
    start_rarely,
)

__all__ = ["COCO_ANCHORS", "YOLOv5Head"]

_BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06), 5: (4.0, 1.0, 0.25, 0.06, 0.02)}  # as published


class YOLOv5Head(DetectionHead):
    """`predict` gives `instances` with `pred_boxes`, `scores` (objectness times class score), `pred_classes`, and with
    masks `pred_masks` (n, height, width) bool.

    Args:
        masks: the mask branch. None: no masks.
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
        score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections: see `Suppression`; the
            candidates are (anchor, class) pairs of each level.
    """

    yolov5_names: ClassVar = ((r"head\.m\.(\d+\.(?:weight|bias))", r"predict_maps.\1"),)  # see v5_import
    anchors: Tensor
    strides: Tensor

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        masks: PrototypeMasks | None = None,
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
        super().__init__(
            num_classes,
            Suppression(score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections),
        )
        self.levels = finest_first("YOLOv5Head", input_shape)
        strides = [input_shape[name].stride for name in self.levels]
        sizes = checked_anchors(COCO_ANCHORS if anchors is None else anchors, len(self.levels))
        if balance is None:
            balance = list(_BALANCE.get(len(self.levels), [1.0] * len(self.levels)))
        if len(balance) != len(self.levels):
            raise ValueError(f"YOLOv5Head: balance has {len(balance)} values for {len(self.levels)} levels")
        check_unreduced("YOLOv5Head", box_loss, cls_loss)
        self.num_anchors = sizes.shape[1]
        self.width = 5 + num_classes  # numbers an anchor: x, y, w, h, objectness, classes
        convs = [nn.Conv2d(input_shape[name].channels, self.num_anchors * self.width, 1) for name in self.levels]
        for conv, stride in zip(convs, strides, strict=True):
            start_rarely(conv, stride, self.width)
        self.predict_maps = nn.ModuleList(convs)
        self.masks = masks
        if masks is not None:
            self.coefficients = nn.ModuleList(
                nn.Conv2d(input_shape[name].channels, self.num_anchors * masks.num_prototypes, 1)
                for name in self.levels
            )
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

    def forward(self, features: dict[str, Tensor]) -> list[Tensor] | MaskedRaw:
        """{l: (N, C_l, H_l, W_l)} to (N, A * (5 + K), H_l, W_l) a level; channel a * (5 + K) + i."""
        levels = [features[name] for name in self.levels]
        maps = [conv(x) for conv, x in zip(self.predict_maps, levels, strict=True)]
        if self.masks is None:
            return maps
        coefficients = [conv(x) for conv, x in zip(self.coefficients, levels, strict=True)]
        return MaskedRaw(maps, coefficients, self.masks(features))

    def class_rows(self) -> dict[str, ClassRows]:
        return {"predict_maps": ClassRows(before=5)}

    def losses(self, raw: list[Tensor] | MaskedRaw, batch: Batch) -> dict[str, Tensor]:
        """`loss_box` and `loss_cls` over the matched pairs, `loss_obj` over all anchors; means of each level summed.

        With masks also `loss_mask`, the mean over the matched pairs.
        """
        objects = batch.ground_truth("YOLOv5Head")
        maps = maps_of(raw)
        pairs, counts, most = self._match(maps, objects)
        truth = objects.boxes[pairs.image, pairs.object]  # (P, 4) xyxy, input pixels
        classes = objects.classes[pairs.image, pairs.object]
        losses = [maps[0].new_zeros((), dtype=torch.float32)] * 3
        coefficients: list[Tensor] = []
        start = 0
        for level, count in enumerate(counts):
            part = slice(start, start := start + count)
            own = RatioPairs(*(x[part] for x in pairs))
            found = self._level_losses(maps[level], level, own, truth[part], classes[part])
            losses = [total + loss for total, loss in zip(losses, found, strict=True)]
            if isinstance(raw, MaskedRaw):
                coefficients.append(self._chosen_coefficients(raw.coefficients[level], own))
        images = len(batch) * world_size() if self.scale_by_batch else 1
        named = dict(zip(("loss_box", "loss_obj", "loss_cls"), self._weighted(losses, batch), strict=True))
        if self.masks is not None and isinstance(raw, MaskedRaw):
            of_masks = MaskPairs(torch.cat(coefficients), pairs.image, pairs.object, most)
            named |= self.masks.losses(raw.prototypes, of_masks, batch)
        return {name: loss * images for name, loss in named.items()}

    def predict(self, raw: list[Tensor] | MaskedRaw, batch: Batch) -> list[dict]:
        """The best boxes of each image, scaled to its original size and clipped to it, best first."""
        outputs = super().predict(raw, batch)
        if self.masks is not None and isinstance(raw, MaskedRaw):
            for output, prototypes, size in zip(outputs, raw.prototypes, batch.image_sizes, strict=True):
                sides = zip(batch.padded_size, output["instances"].image_size, size, strict=True)
                height, width = (padded * wanted / own for padded, wanted, own in sides)
                self.masks.finish(output["instances"], prototypes, (height, width))
        return outputs

    def export_raw(self, raw: list[Tensor] | MaskedRaw, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`output` (N, R, 5 + K): center x, y, width, height in input pixels, objectness, class scores.

        Rows run level by level, in a level anchor by anchor, then row and column; for three levels at 640 x 640 they
        are 25200. With masks also `mask_weights` (N, R, Q) and `prototypes` (N, Q, h, w): the sigmoid of their product
        is the mask, within the box.
        """
        outputs = {"output": decoded_rows(maps_of(raw), self.anchors, self.strides)}
        if self.masks is not None and isinstance(raw, MaskedRaw):
            rows = [by_row(x, self.num_anchors).flatten(1, 3).float() for x in raw.coefficients]
            outputs["mask_weights"] = self.masks.weights(torch.cat(rows, dim=1))
            outputs["prototypes"] = raw.prototypes
        return outputs

    def export_predictions(self, raw: list[Tensor] | MaskedRaw, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`boxes` (N, D, 4) xyxy in input pixels, `scores` and `classes` (N, D), best first, NMS in the graph.

        Masks come with the raw form alone.
        """
        return super().export_predictions(maps_of(raw), image_size)

    def _match(self, maps: list[Tensor], objects: GroundTruth) -> tuple[RatioPairs, list[int], int]:
        """The pairs, sorted by level; how many each level has, and with masks the image with most of them (else 0).

        Two waits for the device.
        """
        real = real_boxes(objects.boxes, objects.valid)
        sizes = torch.tensor([(x.shape[3], x.shape[2]) for x in maps], device=objects.boxes.device)
        pairs = match_by_ratio(objects.boxes, real, self.anchors, self.strides, sizes, max_ratio=self.max_ratio)
        of_levels = (pairs.level == torch.arange(len(maps), device=pairs.level.device)[:, None]).sum(dim=1)  # (L,)
        if self.masks is None:
            return pairs, of_levels.tolist(), 0
        numbers = torch.arange(len(objects.boxes), device=of_levels.device)
        of_images = (pairs.image == numbers[:, None]).sum(dim=1)  # (N,)
        *counts, most = torch.cat((of_levels, of_images.amax(dim=0, keepdim=True))).tolist()
        return pairs, counts, most

    def _chosen_coefficients(self, x: Tensor, pairs: RatioPairs) -> Tensor:
        """(P_l, Q) of the pairs of one level, out of its map of coefficients (N, A * Q, H_l, W_l)."""
        flat = by_anchor(x, x.shape[1] // self.num_anchors).flatten(0, 1)
        return flat.index_select(0, anchor_rows(pairs, x.shape[2:], self.num_anchors))

    def _level_losses(
        self, x: Tensor, level: int, pairs: RatioPairs, truth: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unweighted box, objectness and class loss of one level's map."""
        flat = by_anchor(x, self.width).flatten(0, 1)  # (N * H * W * A, 5 + K)
        row = anchor_rows(pairs, x.shape[2:], self.num_anchors)
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
        return [loss * gain for loss, gain in zip(losses, gains, strict=True)]

    def candidates(self, raw: list[Tensor] | MaskedRaw) -> Candidates:
        """With a MaskedRaw, `details` are the coefficients."""
        maps = maps_of(raw)
        coefficients = raw.coefficients if isinstance(raw, MaskedRaw) else [None] * len(maps)
        levels = zip(maps, coefficients, strict=True)
        return Candidates.cat([self._level_candidates(x, c, level) for level, (x, c) in enumerate(levels)])

    def _level_candidates(self, x: Tensor, coefficients: Tensor | None, level: int) -> Candidates:
        """The best (anchor, class) pairs of one level, all images at once, without a wait for the device."""
        rows = by_anchor(x, self.width)  # (N, R_l, 5 + K)
        likely = rows[..., 4].float().sigmoid()
        if self.num_classes > 1:
            likely = likely * rows[..., 5:].float().amax(dim=-1).sigmoid()
        top, index = top_values(likely, self.topk_candidates)  # (N, T): the best T pairs lie on the T best anchors
        chosen = rows.gather(1, index[..., None].expand(-1, -1, self.width)).float()  # (N, T, 5 + K)
        scores = chosen[..., 4:5].sigmoid()
        if self.num_classes > 1:
            scores = scores * chosen[..., 5:].sigmoid()
        scores = scores.masked_fill(top[..., None] == -torch.inf, 0.0)  # what only fills up an exported graph
        best, pair = top_values(scores.flatten(1), self.topk_candidates)
        place, classes = pair // self.num_classes, pair % self.num_classes
        index = index.gather(1, place)
        cell, anchor = index // self.num_anchors, index % self.num_anchors
        corners = cells_of(x.shape[2], x.shape[3], x.device).view(-1, 2)[cell]
        regression = chosen[..., :4].gather(1, place[..., None].expand(-1, -1, 4))
        boxes = decode_boxes(regression, corners, self.anchors[level][anchor], self.strides[level])
        details = None
        if coefficients is not None:
            width = coefficients.shape[1] // self.num_anchors  # Q
            details = by_anchor(coefficients, width).gather(1, index[..., None].expand(-1, -1, width))  # (N, T, Q)
        return Candidates(boxes, best, classes, best > self.score_threshold, details)
