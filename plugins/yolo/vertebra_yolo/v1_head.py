"""YOLOv1 head: fully connected layers that see the whole image and answer for each cell of a coarse grid.

Source: Redmon et al., "You Only Look Once: Unified, Real-Time Object Detection", arXiv:1506.02640, section 2 and
equation 3. Where the centers of two objects fall into one cell, the first one is learned, as in Darknet.
Letters: N images, K classes, S x S cells, B boxes a cell, M ground-truth boxes in the fullest image.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vertebra.detection import Candidates, Suppression
from vertebra.errors import RecipeError
from vertebra.models import Batch, ClassRows, DetectionHead, GroundTruth, ShapeSpec
from vertebra.structures import pairwise_iou
from vertebra_yolo.cells import real_boxes
from vertebra_yolo.darknet import SLOPE
from vertebra_yolo.detections import centers_and_sizes

__all__ = ["YOLOv1Head"]


class YOLOv1Head(DetectionHead):
    """Detection from the coarsest feature; `predict` gives `instances`. The size of the input is fixed.

    Args:
        image_size: edge of the input in pixels, the same as the backbone's.
        grid: S, cells a side.
        num_boxes: B.
        hidden: widths of the fully connected layers before the last one: [4096] in the paper, [256, 4096] in the fast
            network.
        dropout: share of the last hidden layer's values that is dropped in training (section 2.2).
        coord_weight, no_object_weight: lambda_coord and lambda_noobj of equation 3.
        score_threshold, nms_threshold, class_agnostic_nms, max_detections: see `Suppression`; the score is confidence
            times class probability.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        image_size: int = 448,
        grid: int = 7,
        num_boxes: int = 2,
        hidden: Sequence[int] = (4096,),
        dropout: float = 0.5,
        coord_weight: float = 5.0,
        no_object_weight: float = 0.5,
        score_threshold: float = 0.01,
        nms_threshold: float = 0.5,
        class_agnostic_nms: bool = False,
        max_detections: int = 100,
    ) -> None:
        super().__init__(
            num_classes, Suppression(score_threshold, None, nms_threshold, class_agnostic_nms, max_detections)
        )
        if not input_shape:
            raise ValueError("YOLOv1Head needs a feature, input_shape has none")
        if min(num_classes, image_size, grid, num_boxes, *hidden) < 1:
            raise ValueError(
                f"YOLOv1Head: num_classes {num_classes}, image_size {image_size}, grid {grid}, num_boxes {num_boxes} "
                f"and hidden {list(hidden)} must all be at least 1"
            )
        self.level = max(input_shape, key=lambda name: input_shape[name].stride)
        spec = input_shape[self.level]
        self.image_size = image_size
        self.cells = math.ceil(image_size / spec.stride)  # a side of the feature map
        self.grid, self.num_boxes = grid, num_boxes
        widths = [spec.channels * self.cells**2, *hidden]
        hidden_layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.hidden = nn.ModuleList(hidden_layers)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(widths[-1], grid**2 * (5 * num_boxes + num_classes))
        for layer in hidden_layers:
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.output.weight, std=0.1 / math.sqrt(widths[-1]))  # start near 0, whatever the fan-in
        self._start_boxes()

        self.coord_weight = coord_weight
        self.no_object_weight = no_object_weight

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C, H, W)} to (N, S, S, 5 B + K): of each box x, y, sqrt(w), sqrt(h) and confidence, then the classes.

        x and y count from the cell's corner, in cells; w and h are shares of the input's sides.
        """
        x = features[self.level]
        if tuple(x.shape[-2:]) != (self.cells, self.cells):
            size = self.image_size
            raise RecipeError(
                f"YOLOv1Head was built for inputs of {size} x {size} pixels, that is features of "
                f"{self.cells} x {self.cells} cells, and got {x.shape[-2]} x {x.shape[-1]}: its fully connected layers "
                f"take no other size.\n  Resize the images in the recipe, by {{name: ResizeStretch, size: {size}}} or "
                f"{{name: ResizeLetterbox, size: {size}}}, and give backbone and head the same image_size"
            )
        x = x.flatten(1)
        for layer in self.hidden:
            x = nn.functional.leaky_relu(layer(x), SLOPE)
        x = self.output(self.dropout(x))
        return x.view(-1, self.grid, self.grid, 5 * self.num_boxes + self.num_classes)

    def class_rows(self) -> dict[str, ClassRows]:
        return {"output": ClassRows(before=5 * self.num_boxes)}

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms of equation 3, summed, and divided by the images of the batch. Never waits for the device."""
        objects = batch.ground_truth("YOLOv1Head")
        boxes, confidence, scores = self._split(raw)  # (N, S*S, B, 4), (N, S*S, B), (N, S*S, K)
        truth, classes, has = self._truth_of_cells(objects)  # (N, S*S, 4), (N, S*S), (N, S*S) bool
        target = self._encode(truth)  # (N, S*S, 4)
        with torch.no_grad():
            overlap = pairwise_iou(self._decode(boxes), truth[:, :, None])[..., 0]  # (N, S*S, B)
            distance = (boxes - target[:, :, None]).square().sum(dim=-1)  # decides where no box overlaps, as in Darknet
            touches = overlap.amax(dim=2, keepdim=True) > 0
            best = torch.where(touches, overlap, -distance).argmax(dim=2, keepdim=True)  # (N, S*S, 1)
            responsible = torch.zeros_like(overlap).scatter_(2, best, 1.0) * has[..., None]
        coord = ((boxes - target[:, :, None]).square().sum(dim=-1) * responsible).sum()
        one_hot = torch.zeros_like(scores).scatter_(2, classes[..., None], 1.0)  # (N, S*S, K)
        scale = 1 / len(batch)
        return {
            "loss_coord": coord * (scale * self.coord_weight),
            "loss_object": ((confidence - overlap).square() * responsible).sum() * scale,
            "loss_no_object": (confidence.square() * (1 - responsible)).sum() * (scale * self.no_object_weight),
            "loss_cls": ((scores - one_hot).square().sum(dim=2) * has).sum() * scale,
        }

    def candidates(self, raw: Tensor) -> Candidates:
        """All (box, class) pairs, best first."""
        boxes, scores = self._decoded(raw)
        best, index = scores.flatten(1).sort(dim=1, descending=True)  # (N, S*S*B*K)
        rows = (index // self.num_classes)[..., None].expand(-1, -1, 4)
        return Candidates(boxes.gather(1, rows), best, index % self.num_classes, best > self.score_threshold)

    def export_raw(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`output` (N, S*S*B, 5 + K): center x, y, width, height in input pixels, confidence, class probabilities."""
        boxes, confidence, scores = self._split(raw)
        scores = scores[:, :, None].expand(-1, -1, self.num_boxes, -1)
        boxes = centers_and_sizes(self._decode(boxes) * self.image_size)
        return {
            "output": torch.cat((boxes, confidence[..., None].clamp(0, 1), scores.clamp(0, 1)), dim=3).flatten(1, 2)
        }

    def export_predictions(self, raw: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`boxes` (N, D, 4) xyxy in input pixels, `scores` and `classes` (N, D), best first, NMS in the graph."""
        return self.suppression.in_graph(*self._decoded(raw))

    def _decoded(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (N, S*S*B, 4) `xyxy` in input pixels, and their class scores (N, S*S*B, K) in [0, 1]."""
        boxes, confidence, scores = self._split(raw)
        scores = confidence.clamp(0, 1)[..., None] * scores.clamp(0, 1)[:, :, None]  # (N, S*S, B, K)
        return (self._decode(boxes) * self.image_size).flatten(1, 2), scores.flatten(1, 2)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes as the network gives them (N, S*S, B, 4), confidences (N, S*S, B) and class scores (N, S*S, K)."""
        raw = raw.float().flatten(1, 2)
        boxes, scores = raw.split((5 * self.num_boxes, self.num_classes), dim=2)
        boxes = boxes.unflatten(2, (self.num_boxes, 5))
        return boxes[..., :4], boxes[..., 4], scores

    def _corners(self, device: torch.device) -> Tensor:
        """(S*S, 1, 2): column and row of each cell."""
        y, x = torch.meshgrid(*(torch.arange(self.grid, device=device),) * 2, indexing="ij")
        return torch.stack((x, y), dim=-1).view(-1, 1, 2).float()

    def _decode(self, boxes: Tensor) -> Tensor:
        """x, y in cells and roots of w, h (N, S*S, B, 4) to `xyxy` as shares of the input's sides."""
        center = (boxes[..., :2] + self._corners(boxes.device)) / self.grid
        half = boxes[..., 2:].square() / 2
        return torch.cat((center - half, center + half), dim=-1)

    def _encode(self, truth: Tensor) -> Tensor:
        """One box a cell (N, S*S, 4), `xyxy` as shares of the input's sides, to what the network should give."""
        place = (truth[..., :2] + truth[..., 2:]) / 2 * self.grid - self._corners(truth.device)[:, 0]
        return torch.cat((place, (truth[..., 2:] - truth[..., :2]).clamp(min=0).sqrt()), dim=-1)

    def _truth_of_cells(self, objects: GroundTruth) -> tuple[Tensor, Tensor, Tensor]:
        """For each cell its ground-truth box (N, S*S, 4) as fractions of the image, class, and whether it has one."""
        boxes = objects.boxes / self.image_size
        count = boxes.shape[1]
        x, y = ((boxes[..., :2] + boxes[..., 2:]) / 2 * self.grid).floor().long().clamp(0, self.grid - 1).unbind(dim=-1)
        number = torch.arange(count, device=boxes.device).expand(len(boxes), -1)
        number = number.where(real_boxes(objects.boxes, objects.valid), count)
        first = torch.full((len(boxes), self.grid**2), count, device=boxes.device)
        first.scatter_reduce_(1, y * self.grid + x, number, "amin")  # (N, S*S): the first box with its center there
        has = first < count
        first = first.where(has, 0)
        truth = boxes.gather(1, first[..., None].expand(-1, -1, 4))
        return truth, objects.classes.gather(1, first), has

    def _start_boxes(self) -> None:
        """The untrained head's boxes: in the middle of their cells, of different sizes. Zeros would have no area."""
        bias = torch.zeros(self.grid**2, 5 * self.num_boxes + self.num_classes)
        for index in range(self.num_boxes):
            root = math.sqrt((index + 1) / (self.num_boxes + 1))
            bias[:, 5 * index : 5 * index + 4] = torch.tensor([0.5, 0.5, root, root])
        self.output.bias.data.copy_(bias.flatten())
