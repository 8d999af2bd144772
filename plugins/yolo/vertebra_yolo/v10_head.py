"""YOLOv10 head: anchor-free, trained with two assignments at once so that it needs no suppression of doubles.

Sources: Wang et al., "YOLOv10", arXiv:2405.14458, section 3.1 (consistent dual assignments); Feng et al., "TOOD",
arXiv:2108.07755 (task-aligned assignment); Li et al., "Generalized Focal Loss", arXiv:2006.04388 (distribution focal
loss); Zheng et al., "Distance-IoU Loss", arXiv:1911.08287 (CIoU).
In training a one-to-many branch teaches the features, and a one-to-one branch learns on what they are (no gradient goes
back from it, as published with YOLOv10). Only the one-to-one branch predicts.
Letters: N images, K classes, B bins a side, R cells over all levels, P matched cells, D detections.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.detection import rescale_instances, top_values
from vertebra.models import Batch, GroundTruth, Head, Loss, ShapeSpec, finest_first
from vertebra.models.losses import CIoULoss, check_unreduced
from vertebra.runtime import world_size
from vertebra.structures import Boxes, Instances
from vertebra_yolo.assign_aligned import match_aligned
from vertebra_yolo.cells import real_boxes
from vertebra_yolo.dfl import boxes_from_distances, distances_from_boxes, distribution_loss, expected_distances
from vertebra_yolo.v10_branch import Branch, BranchRaw, by_cell, make_cells

__all__ = ["YOLOv10Head", "YOLOv10Raw"]


class YOLOv10Raw(NamedTuple):
    """What the two branches compute from the features."""

    one: BranchRaw
    """Of the one-to-one branch."""
    many: BranchRaw | None
    """Of the one-to-many branch; None in eval mode, which does not need it."""


class YOLOv10Head(Head):
    """`predict` gives `instances` with `pred_boxes`, `scores`, `pred_classes`, without NMS.

    Args:
        num_bins: of each distance's distribution: 0 to num_bins - 1 cells (`reg_max` elsewhere).
        topk: cells an object takes in the one-to-many branch.
        alpha, beta: powers of class score and IoU in the alignment of both branches.
        box_loss: on boxes (P, 4), unreduced. None: CIoULoss().
        box_gain, cls_gain, distribution_gain: weights of the losses.
        one_to_one: how strongly the one-to-one branch counts beside the other.
        scale_by_batch: losses are multiplied by the number of images of a step, over all processes: what published
            learning rates for SGD are made for.
        score_threshold: minimum score.
        max_detections: maximum number of detections per image.
    """

    task_outputs: ClassVar = ("instances",)

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        num_bins: int = 16,
        topk: int = 10,
        alpha: float = 0.5,
        beta: float = 6.0,
        box_loss: Loss | None = None,
        box_gain: float = 7.5,
        cls_gain: float = 0.5,
        distribution_gain: float = 1.5,
        one_to_one: float = 1.0,
        scale_by_batch: bool = True,
        score_threshold: float = 0.001,
        max_detections: int = 300,
    ) -> None:
        super().__init__()
        if num_classes < 1 or num_bins < 2 or topk < 1 or max_detections < 1:
            raise ValueError(
                f"YOLOv10Head needs num_classes, topk and max_detections of at least 1 and num_bins of at least 2, got "
                f"{num_classes}, {topk}, {max_detections} and {num_bins}"
            )
        check_unreduced("YOLOv10Head", box_loss)
        self.levels = finest_first("YOLOv10Head", input_shape)
        shapes = [input_shape[name] for name in self.levels]
        self.strides = [shape.stride for shape in shapes]
        self.one = Branch(shapes, num_classes, num_bins)
        self.many = Branch(shapes, num_classes, num_bins)
        self.many.load_state_dict(self.one.state_dict())  # both start alike
        self.box_loss = CIoULoss() if box_loss is None else box_loss
        self.num_classes = num_classes
        self.num_bins = num_bins
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.box_gain = box_gain
        self.cls_gain = cls_gain
        self.distribution_gain = distribution_gain
        self.one_to_one = one_to_one
        self.scale_by_batch = scale_by_batch
        self.score_threshold = score_threshold
        self.max_detections = max_detections

    def forward(self, features: dict[str, Tensor]) -> YOLOv10Raw:
        """{l: (N, C_l, H_l, W_l)} to boxes and class scores of every cell."""
        maps = [features[name] for name in self.levels]
        if not self.training:
            return YOLOv10Raw(one=self.one(maps), many=None)
        return YOLOv10Raw(one=self.one([x.detach() for x in maps]), many=self.many(maps))

    def losses(self, raw: YOLOv10Raw, batch: Batch) -> dict[str, Tensor]:
        """`many_box`, `many_cls`, `many_dfl` and the same of `one`: one wait for the device each branch."""
        objects = batch.ground_truth("YOLOv10Head")
        branches = {} if raw.many is None else {"many": (raw.many, self.topk, 1.0)}
        branches["one"] = (raw.one, 1, self.one_to_one)
        images = len(batch) * world_size() if self.scale_by_batch else 1
        losses: dict[str, Tensor] = {}
        for name, (branch, topk, weight) in branches.items():
            found = self._branch_losses(branch, objects, topk)
            losses |= {f"{name}_{key}": loss * weight * images for key, loss in found.items()}
        return losses

    def predict(self, raw: YOLOv10Raw, batch: Batch) -> list[dict]:
        """The best boxes of each image, scaled to its original size and clipped to it, best first."""
        found = self._best(raw.one)
        outputs = []
        for *parts, size, original in zip(*found, batch.image_sizes, batch.original_sizes, strict=True):
            boxes, scores, classes = (part[parts[1] > self.score_threshold] for part in parts)
            instances = Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
            outputs.append({"instances": rescale_instances(instances, *original)})
        return outputs

    def export_predictions(self, raw: YOLOv10Raw, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`boxes` (N, D, 4) xyxy in input pixels, `scores` and `classes` (N, D), best first: nothing to suppress."""
        boxes, scores, classes = self._best(raw.one)
        return {"boxes": boxes, "scores": scores * (scores > self.score_threshold), "classes": classes}

    def export_raw(self, raw: YOLOv10Raw, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`output` (N, R, 4 + K): box xyxy in input pixels and class scores of every cell."""
        cells = make_cells(raw.one.logits, self.strides)
        distances = expected_distances(by_cell(raw.one.boxes))
        boxes = boxes_from_distances(distances, cells.points, cells.strides)
        return {"output": torch.cat((boxes, by_cell(raw.one.logits).float().sigmoid()), dim=-1)}

    def _branch_losses(self, raw: BranchRaw, objects: GroundTruth, topk: int) -> dict[str, Tensor]:
        """Unweighted by the batch: each is a sum over the matched cells divided by the sum of their targets."""
        cells = make_cells(raw.logits, self.strides)
        logits, bins = by_cell(raw.logits), by_cell(raw.boxes)  # (N, R, K), (N, R, 4 * B)
        with torch.no_grad():
            boxes = boxes_from_distances(expected_distances(bins), cells.points, cells.strides)
        real = real_boxes(objects.boxes, objects.valid)
        matches = match_aligned(
            logits,
            boxes,
            cells.points * cells.strides,
            objects.boxes,
            objects.classes,
            real,
            topk=topk,
            alpha=self.alpha,
            beta=self.beta,
        )
        image, cell = (matches.object >= 0).nonzero(as_tuple=True)  # (P,) each; the wait for the device
        row, target = matches.object[image, cell], matches.target[image, cell]
        total = target.sum().clamp(min=1)
        stride = cells.strides[cell]
        truth = objects.boxes[image, row] / stride  # (P, 4) in cells
        matched = bins[image, cell]  # (P, 4 * B)
        found = boxes_from_distances(expected_distances(matched), cells.points[cell], torch.ones_like(stride))
        box = (self.box_loss(found, truth) * target).sum()
        dfl = (
            distribution_loss(matched, distances_from_boxes(truth, cells.points[cell], self.num_bins)) * target
        ).sum()
        # binary cross entropy with a target t is softplus(x) - t x, and t is 0 almost everywhere
        cls = F.softplus(logits.float()).sum()
        cls = cls - (logits[image, cell, objects.classes[image, row]].float() * target).sum()
        gains = {"box": self.box_gain, "cls": self.cls_gain, "dfl": self.distribution_gain}
        return {key: loss / total * gains[key] for key, loss in (("box", box), ("cls", cls), ("dfl", dfl))}

    def _best(self, raw: BranchRaw) -> tuple[Tensor, Tensor, Tensor]:
        """The D best (cell, class) pairs of each image: boxes (N, D, 4), scores (N, D), classes (N, D)."""
        logits, bins = by_cell(raw.logits).float(), by_cell(raw.boxes)
        top, rows = top_values(logits.amax(dim=2), self.max_detections)  # (N, D): the best D pairs lie there
        short = logits.gather(1, rows[..., None].expand(-1, -1, self.num_classes))  # (N, D, K)
        short = short.masked_fill(top[..., None] == -torch.inf, -torch.inf)  # what only fills up an exported graph
        best, pair = top_values(short.flatten(1), self.max_detections)
        rows, classes = rows.gather(1, pair // self.num_classes), pair % self.num_classes
        cells = make_cells(raw.logits, self.strides)
        chosen = bins.gather(1, rows[..., None].expand(-1, -1, bins.shape[2]))
        boxes = boxes_from_distances(expected_distances(chosen), cells.points[rows], cells.strides[rows])
        return boxes, best.sigmoid(), classes
