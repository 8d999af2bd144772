"""YOLOv3 head: on each level one 1x1 convolution; boxes from anchors, an objectness, independent logistic classes.

Source: Redmon & Farhadi, "YOLOv3: An Incremental Improvement", arXiv:1804.02767, sections 2.1 to 2.3.
What the paper leaves open is as in Darknet: cross entropy on the place in the cell, half the squared error on the log
sizes, both weighted by 2 - area of the ground-truth box (the image's is 1), all summed and divided by the number of
images in the batch.
Letters: N images, K classes, A_l anchors a cell, H_l x W_l cells and stride s_l on level l, R rows (anchors of all
cells and levels), M ground-truth boxes in the fullest image, P pairs of a row and a ground-truth box.
"""

import math

import torch
from torch import Tensor, nn

from vertebra.detection import Candidates, Suppression, by_anchor
from vertebra.models import Batch, ClassRows, DetectionHead, Loss, ShapeSpec, finest_first
from vertebra.models.layers import fill_bias, normal_fill
from vertebra.models.losses import BinaryCrossEntropy, check_unreduced
from vertebra_yolo.cells import (
    Grid,
    Pairs,
    best_overlaps,
    cell_rows,
    checked_anchors,
    decode_boxes,
    encode_boxes,
    last_of_each_row,
    pair_by_shape,
    real_boxes,
    regression_loss,
)
from vertebra_yolo.detections import centers_and_sizes, objectness_candidates

__all__ = ["YOLOv3Head"]

_COCO_ANCHORS = {  # section 2.3, and yolov3-tiny.cfg; width and height in pixels, by the number of levels
    3: [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]],
    2: [[[10, 14], [23, 27], [37, 58]], [[81, 82], [135, 169], [344, 319]]],
}


class YOLOv3Head(DetectionHead):
    """One-stage detection on any number of levels.

    Args:
        anchors: per level, finest first: width and height of each anchor in input pixels. None: the paper's nine for
            three levels, YOLOv3-tiny's six for two. `vertebra yolo anchors` finds others.
        ignore_threshold: a prediction that overlaps a ground-truth box more, and is not responsible for it, has no
            loss.
        pair_threshold: besides the best anchor, those are responsible whose shape has a greater IoU with the true
            box's; 1: the best alone, as in the paper.
        prior_prob: objectness of an untrained head; keeps the first steps stable.
        box_loss: on decoded boxes (P, 4) and true ones, unreduced (an IoU loss). None: the paper's on the regression.
        objectness_loss, cls_loss: unreduced, on logits and targets of one shape. None: binary cross entropy.
        box_weight, objectness_weight, cls_weight: factors of the three losses.
        score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections: see `Suppression`; the
            candidates are (row, class) pairs of an image, the score is objectness times class probability.
    """

    anchors: Tensor

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        anchors: list[list[tuple[float, float]]] | None = None,
        ignore_threshold: float = 0.5,
        pair_threshold: float = 1.0,
        prior_prob: float = 0.01,
        box_loss: Loss | None = None,
        objectness_loss: Loss | None = None,
        cls_loss: Loss | None = None,
        box_weight: float = 1.0,
        objectness_weight: float = 1.0,
        cls_weight: float = 1.0,
        score_threshold: float = 0.005,
        topk_candidates: int = 1000,
        nms_threshold: float = 0.45,
        class_agnostic_nms: bool = False,
        max_detections: int = 100,
    ) -> None:
        super().__init__(
            num_classes,
            Suppression(score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections),
        )
        self.levels = finest_first("YOLOv3Head", input_shape)
        self.strides = [input_shape[name].stride for name in self.levels]
        shapes = checked_anchors("YOLOv3Head", anchors, self.levels, _COCO_ANCHORS)
        if not 0 < prior_prob < 1:
            raise ValueError(f"YOLOv3Head: prior_prob is {prior_prob}, it must lie between 0 and 1")
        check_unreduced("YOLOv3Head", box_loss, objectness_loss, cls_loss)
        self.counts = [len(level) for level in shapes]
        self.register_buffer("anchors", torch.tensor([one for level in shapes for one in level]), persistent=False)
        self.predictors = nn.ModuleDict()
        for name, count in zip(self.levels, self.counts, strict=True):
            conv = nn.Conv2d(input_shape[name].channels, count * (5 + num_classes), 1)
            normal_fill(conv, std=0.01)
            start = torch.zeros(count, 5 + num_classes)
            start[:, 4] = -math.log((1 - prior_prob) / prior_prob)
            fill_bias(conv, start.flatten())
            self.predictors[name] = conv

        self.ignore_threshold = ignore_threshold
        self.pair_threshold = pair_threshold
        self.box_loss = box_loss
        self.objectness_loss = objectness_loss or BinaryCrossEntropy(reduction="none")
        self.cls_loss = cls_loss or BinaryCrossEntropy(reduction="none")
        self.box_weight = box_weight
        self.objectness_weight = objectness_weight
        self.cls_weight = cls_weight

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """{l: (N, C_l, H_l, W_l)} to one map (N, A_l * (5 + K), H_l, W_l) a level, finest first.

        Channel a * (5 + K) + i of anchor a: tx, ty, tw, th, objectness, then the classes; as in Darknet.
        """
        return [self.predictors[name](features[name]) for name in self.levels]

    def class_rows(self) -> dict[str, ClassRows]:
        return {"predictors": ClassRows(before=5)}

    def losses(self, raw: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss_box` and `loss_cls` over the pairs, `loss_objectness` over all rows that are not ignored."""
        objects = batch.ground_truth("YOLOv3Head")
        found = self._by_row(raw)  # (N, R, 5 + K)
        rows = self._rows(raw)
        valid = real_boxes(objects.boxes, objects.valid)
        grid = Grid.of(_sizes(raw), self.strides, self.counts, found.device)
        pairs = pair_by_shape(objects.boxes, valid, self.anchors, grid, self.pair_threshold)
        owner = last_of_each_row(pairs, *found.shape[:2])
        kept = owner == torch.arange(len(owner), device=owner.device)  # two boxes on one row: the last one's place
        chosen = found[pairs.image, pairs.row].float()  # (P, 5 + K)
        truth = objects.boxes[pairs.image, pairs.truth]  # (P, 4)

        area = (truth[:, 2:] - truth[:, :2]).prod(dim=1) / math.prod(batch.padded_size)
        box = self._box_loss(chosen[:, :4], rows[pairs.row], truth) * (2 - area.clamp(max=1)) * kept
        classes = torch.zeros_like(chosen[:, 5:])
        classes[owner, objects.classes[pairs.image, pairs.truth]] = 1  # ... but the classes of both
        cls = self.cls_loss(chosen[:, 5:], classes).sum(dim=1) * kept
        scale = 1 / len(batch)
        return {
            "loss_box": box.sum() * (scale * self.box_weight),
            "loss_objectness": self._objectness_loss(found, rows, pairs, objects.boxes, valid)
            * (scale * self.objectness_weight),
            "loss_cls": cls.sum() * (scale * self.cls_weight),
        }

    def export_raw(self, raw: list[Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`output` (N, R, 5 + K): center x, y, width, height in input pixels, objectness, class scores.

        Rows run level by level, cell by cell, and in a cell anchor by anchor.
        """
        found = self._by_row(raw).float()
        boxes = centers_and_sizes(decode_boxes(found[..., :4], self._rows(raw)))
        return {"output": torch.cat((boxes, found[..., 4:].sigmoid()), dim=2)}

    def darknet_order(self) -> list[nn.Conv2d]:
        """The convolutions as a Darknet file lists them: one for each level, coarsest first."""
        return [conv for conv in list(self.predictors.values())[::-1] if isinstance(conv, nn.Conv2d)]

    def candidates(self, raw: list[Tensor]) -> Candidates:
        found = self._by_row(raw)
        return objectness_candidates(
            found[..., 4],
            found[..., 5:],
            found[..., :4],
            self._rows(raw),
            decode=decode_boxes,
            score_threshold=self.score_threshold,
            topk=self.topk_candidates,
        )

    def _by_row(self, raw: list[Tensor]) -> Tensor:
        """All levels' maps as rows (N, R, 5 + K)."""
        return torch.cat([by_anchor(level, 5 + self.num_classes) for level in raw], dim=1)

    def _rows(self, raw: list[Tensor]) -> Tensor:
        """(R, 5), see `cell_rows`."""
        return cell_rows(_sizes(raw), self.strides, self.anchors.split(self.counts))

    def _box_loss(self, regression: Tensor, rows: Tensor, truth: Tensor) -> Tensor:
        """(P,) from the regression (P, 4), its rows (P, 5) and ground-truth boxes (P, 4)."""
        if self.box_loss is not None:
            return self.box_loss(decode_boxes(regression, rows), truth)
        return regression_loss(regression, *encode_boxes(truth, rows))

    def _objectness_loss(self, found: Tensor, rows: Tensor, pairs: Pairs, boxes: Tensor, valid: Tensor) -> Tensor:
        """Sum over the rows that are responsible (target 1) and those that are not ignored (target 0)."""
        with torch.no_grad():
            overlap = best_overlaps(decode_boxes(found[..., :4].float(), rows), boxes, valid)  # (N, R)
            counts = (overlap <= self.ignore_threshold).float()
            target = torch.zeros_like(counts)
            counts[pairs.image, pairs.row] = 1
            target[pairs.image, pairs.row] = 1
        return (self.objectness_loss(found[..., 4], target) * counts).sum()


def _sizes(raw: list[Tensor]) -> list[tuple[int, int]]:
    return [(level.shape[-2], level.shape[-1]) for level in raw]
