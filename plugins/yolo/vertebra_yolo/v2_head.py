"""YOLOv2 head: one 1x1 convolution on one level; anchors, direct location prediction, softmax over the classes.

Source: Redmon & Farhadi, "YOLO9000: Better, Faster, Stronger", arXiv:1612.08242, section 2.
The paper gives no formula for the loss; this one has the gradients of Darknet's layer `[region]`: cross entropy on the
place in the cell and on the objectness, whose target is the overlap, half the squared error on the log sizes, softmax
cross entropy on the classes; summed, and divided by the images of the batch.
Letters: N images, K classes, A anchors a cell, H_l x W_l cells, R rows (anchors of all cells), M ground-truth boxes in
the fullest image, P pairs of a row and a ground-truth box.
"""

import math

import torch
from torch import Tensor, nn

from vertebra.detection import Candidates, Suppression, by_anchor
from vertebra.models import Batch, ClassRows, DetectionHead, ShapeSpec
from vertebra.models.layers import normal_fill
from vertebra.structures import matched_pairwise_iou
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

__all__ = ["YOLOv2Head"]

_CELLS = ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828))
_COCO_ANCHORS = {1: [[(32 * w, 32 * h) for w, h in _CELLS]]}  # yolov2.cfg gives them in cells of 32 pixels


class YOLOv2Head(DetectionHead):
    """One-stage detection on one level.

    Args:
        anchors: width and height of each anchor in input pixels. None: the five of Darknet's yolov2.cfg.
            `vertebra yolo anchors DATA --number 5` finds others, its last line is what goes here.
        ignore_threshold: predictions that overlap a ground-truth box more, and are not responsible for it, have no
            loss.
        object_weight, no_object_weight: of the objectness where there is an object, and where not.
        box_weight, cls_weight: factors of the other two losses. A box's has 2 - area beside it (the image's is 1).
        warm_images: for this many images in training, rows without an object are drawn weakly (0.01) to their anchors.
        score_threshold, topk_candidates, nms_threshold, class_agnostic_nms, max_detections: see `Suppression`; the
            candidates are (row, class) pairs of an image, the score is objectness times class probability.
    """

    anchors: Tensor
    images_seen: Tensor

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        anchors: list[tuple[float, float]] | None = None,
        ignore_threshold: float = 0.6,
        object_weight: float = 5.0,
        no_object_weight: float = 1.0,
        box_weight: float = 1.0,
        cls_weight: float = 1.0,
        warm_images: int = 12800,
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
        if len(input_shape) != 1:
            raise ValueError(
                f"YOLOv2Head takes one level, got {', '.join(input_shape) or 'none'}. Put YOLOv2Neck before it, or "
                "choose one by the backbone's out_features"
            )
        ((self.level, spec),) = input_shape.items()
        self.strides = [spec.stride]
        (shapes,) = checked_anchors("YOLOv2Head", None if anchors is None else [anchors], [self.level], _COCO_ANCHORS)
        self.counts = [len(shapes)]
        self.register_buffer("anchors", torch.tensor(shapes), persistent=False)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.predictor = nn.Conv2d(spec.channels, len(shapes) * (5 + num_classes), 1)
        normal_fill(self.predictor, std=0.01)

        self.ignore_threshold = ignore_threshold
        self.object_weight = object_weight
        self.no_object_weight = no_object_weight
        self.box_weight = box_weight
        self.cls_weight = cls_weight
        self.warm_images = warm_images

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C, H_l, W_l)} to (N, A * (5 + K), H_l, W_l).

        Channel a * (5 + K) + i of anchor a: tx, ty, tw, th, objectness, then the classes; as in Darknet.
        """
        return self.predictor(features[self.level])

    def class_rows(self) -> dict[str, ClassRows]:
        return {"predictor": ClassRows(before=5)}

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`loss_box` (and the pull to the anchors while it is warm), `loss_objectness`, `loss_cls`."""
        objects = batch.ground_truth("YOLOv2Head")
        found = by_anchor(raw, 5 + self.num_classes).float()  # (N, R, 5 + K)
        rows = self._rows(raw)
        valid = real_boxes(objects.boxes, objects.valid)
        grid = Grid.of([(raw.shape[-2], raw.shape[-1])], self.strides, self.counts, raw.device)
        pairs = pair_by_shape(objects.boxes, valid, self.anchors, grid)
        owner = last_of_each_row(pairs, *found.shape[:2])
        kept = owner == torch.arange(len(owner), device=owner.device)  # two boxes on one row: the last one counts
        chosen = found[pairs.image, pairs.row]  # (P, 5 + K)
        truth = objects.boxes[pairs.image, pairs.truth]  # (P, 4)
        classes = objects.classes[pairs.image, pairs.truth]

        area = (truth[:, 2:] - truth[:, :2]).prod(dim=1) / math.prod(batch.padded_size)
        box = regression_loss(chosen[:, :4], *encode_boxes(truth, rows[pairs.row]))
        box = (box * (2 - area.clamp(max=1)) * kept).sum()
        cls = (nn.functional.cross_entropy(chosen[:, 5:], classes, reduction="none") * kept).sum()
        scale = 1 / len(batch)
        return {
            "loss_box": (box + self._pull_to_anchors(found, pairs)) * (scale * self.box_weight),
            "loss_objectness": self._objectness_loss(found, rows, pairs, kept, objects.boxes, valid) * scale,
            "loss_cls": cls * (scale * self.cls_weight),
        }

    def export_raw(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`output` (N, R, 5 + K): center x, y, width, height in input pixels, objectness, class probabilities.

        Rows run cell by cell, and in a cell anchor by anchor.
        """
        found = by_anchor(raw, 5 + self.num_classes).float()
        boxes = centers_and_sizes(decode_boxes(found[..., :4], self._rows(raw)))
        return {"output": torch.cat((boxes, found[..., 4:5].sigmoid(), found[..., 5:].softmax(dim=2)), dim=2)}

    def darknet_order(self) -> list[nn.Conv2d]:
        """The convolutions as a Darknet file lists them: the only one."""
        return [self.predictor]

    def candidates(self, raw: Tensor) -> Candidates:
        found = by_anchor(raw, 5 + self.num_classes).float()
        return objectness_candidates(
            found[..., 4],
            found[..., 5:].log_softmax(dim=2),
            found[..., :4],
            self._rows(raw),
            decode=decode_boxes,
            score_threshold=self.score_threshold,
            topk=self.topk_candidates,
            activation=torch.exp,
        )

    def _rows(self, raw: Tensor) -> Tensor:
        """(R, 5), see `cell_rows`."""
        return cell_rows([(raw.shape[-2], raw.shape[-1])], self.strides, [self.anchors])

    def _objectness_loss(
        self, found: Tensor, rows: Tensor, pairs: Pairs, kept: Tensor, boxes: Tensor, valid: Tensor
    ) -> Tensor:
        """Cross entropy: with the overlap at responsible rows, with 0 at those that overlap little."""
        with torch.no_grad():
            decoded = decode_boxes(found[..., :4], rows)  # (N, R, 4)
            weight = self.no_object_weight * (best_overlaps(decoded, boxes, valid) <= self.ignore_threshold)
            weight[pairs.image, pairs.row] = 0
            overlap = matched_pairwise_iou(decoded[pairs.image, pairs.row], boxes[pairs.image, pairs.truth])  # (P,)
        entropy = nn.functional.binary_cross_entropy_with_logits(
            found[pairs.image, pairs.row, 4], overlap, weight=kept.float(), reduction="sum"
        )
        return self.object_weight * entropy + (weight * nn.functional.softplus(found[..., 4])).sum()

    def _pull_to_anchors(self, found: Tensor, pairs: Pairs) -> Tensor:
        """0.01 times the box loss of all rows without an object, with their anchors in the cells' middles."""
        warm = (self.images_seen < self.warm_images).to(found.dtype)
        if self.training:
            self.images_seen += len(found)
        if not self.warm_images:
            return warm
        free = torch.ones_like(found[..., 0])
        free[pairs.image, pairs.row] = 0
        middle, same = torch.full_like(found[..., :2], 0.5), torch.zeros_like(found[..., :2])
        return 0.01 * warm * (regression_loss(found[..., :4], middle, same) * free).sum()
