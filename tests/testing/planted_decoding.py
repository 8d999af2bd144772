"""Heads whose predictions mean something else than their losses learn, or depend on more than their own image."""

import torch
from sample_parts import SampleHead, SampleSemanticHead, _resize
from torch import nn

from vertebra.detection import batched_nms
from vertebra.models import ShapeSpec
from vertebra.structures import Boxes, Instances


class ChangesBoxes(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        return super().to_instances(self.changed(boxes), scores, self.renamed(classes), size, original)

    def changed(self, boxes):
        return boxes

    def renamed(self, classes):
        return classes


class WidthHeight(ChangesBoxes):
    def changed(self, boxes):
        middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).flip(1)
        return torch.cat((middle - sides / 2, middle + sides / 2), dim=1)


class HalfCell(ChangesBoxes):
    def changed(self, boxes):
        return boxes - self.stride / 2


class RightBeforeTop(SampleHead):
    """Reads left, top, right, bottom as left, right, top, bottom."""

    def predict(self, raw, batch):
        k = self.num_classes
        return super().predict(raw[:, [*range(k), k, k + 2, k + 1, k + 3]], batch)


class ClassesByRow(ChangesBoxes):
    """One class comes as several."""

    def renamed(self, classes):
        return (classes + torch.arange(len(classes)) // 20) % self.num_classes


class EveryCell(SampleHead):
    """Without suppression."""

    threshold = 0.05

    def to_instances(self, boxes, scores, classes, size, original):
        found = Boxes(boxes * torch.tensor([original[1] / size[1], original[0] / size[0]]).repeat(2))
        found.clip(original)
        order = scores.argsort(descending=True)
        order = order[((scores > self.threshold) & found.nonempty())[order]]
        scores = self.of(scores[order])
        return Instances(original, pred_boxes=found[order], scores=scores, pred_classes=classes[order])

    def of(self, scores):
        return scores


class ScoreOne(EveryCell):
    threshold = 0.0

    def of(self, scores):
        return torch.ones_like(scores)


class ByPadded(SampleHead):
    def predict(self, raw, batch):
        logits, boxes, _ = self.decode(raw)
        scores, classes = logits.sigmoid().max(dim=2)
        return [
            {"instances": self.to_instances(boxes[i], scores[i], classes[i], batch.padded_size, original)}
            for i, original in enumerate(batch.original_sizes)
        ]


class NoCrop(SampleSemanticHead):
    def predict(self, raw, batch):
        scores = zip(raw.float(), batch.original_sizes, strict=True)
        return [{"sem_seg": _resize(score[None], original)[0]} for score, original in scores]


class PointHead(SampleHead):
    """Keypoints beside the boxes, as offsets from the cell; keeps all promises."""

    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.points = nn.Conv2d(16, 10, 1)

    def forward(self, features):
        x = self.tower(features[self.level]).relu()
        return torch.cat((super().forward(features), self.points(x)), dim=1)

    def decode(self, raw):
        return super().decode(raw[:, : self.num_classes + 4])

    def decoded_points(self, raw, centers):
        """(N, R, 5, 2) in input pixels."""
        return centers[:, None] + raw[:, -10:].float().flatten(2).transpose(1, 2).unflatten(2, (5, 2)) * self.stride

    def losses(self, raw, batch):
        centers = self.decode(raw)[2]
        points, total, count = self.decoded_points(raw, centers), raw[:, -10:].sum() * 0, 1
        for found, one in zip(points, batch.instances, strict=True):
            truth, boxes = one.gt_keypoints.tensor, one.gt_boxes.tensor
            inside = ((centers[:, None] > boxes[:, :2]) & (centers[:, None] < boxes[:, 2:])).all(dim=-1)
            cell, row = inside.nonzero(as_tuple=True)
            total = total + ((found[cell] - truth[row, :, :2]).abs() * (truth[row, :, 2:] > 0)).sum() / self.stride
            count += len(cell)
        return super().losses(raw, batch) | {"points": total / count}

    def predict(self, raw, batch):
        logits, boxes, centers = self.decode(raw)
        scores, classes = logits.sigmoid().max(dim=2)
        points, outputs = self.decoded_points(raw, centers), []
        for i, (size, original) in enumerate(zip(batch.image_sizes, batch.original_sizes, strict=True)):
            scale = torch.tensor([original[1] / size[1], original[0] / size[0]])
            found = Boxes(boxes[i] * scale.repeat(2))
            found.clip(original)
            likely = ((scores[i] > self.score_threshold) & found.nonempty()).nonzero()[:, 0]
            keep = likely[batched_nms(found.tensor[likely], scores[i][likely], classes[i][likely], 0.5)[:100]]
            placed = torch.cat((self.placed(points[i, keep], scale), torch.ones(len(keep), 5, 1)), dim=2)
            fields = {"scores": scores[i][keep], "pred_classes": classes[i][keep], "pred_keypoints": placed}
            outputs.append({"instances": Instances(original, pred_boxes=found[keep], **fields)})
        return outputs

    def placed(self, points, scale):
        return points * scale


class PointsSwapped(PointHead):
    def placed(self, points, scale):
        return (points * scale).flip(-1)


class PointsUnscaled(PointHead):
    def placed(self, points, scale):
        return points


class PointsExchanged(PointHead):
    def placed(self, points, scale):
        return (points * scale)[:, [0, 1, 4, 3, 2]]


class AcrossBatch(SampleHead):
    def forward(self, features):
        raw = super().forward(features)
        return raw - raw.mean(dim=0, keepdim=True).detach() / 2


class KeepsGrid(SampleHead):
    """The cells of the first size serve all others."""

    centers = None

    def decode(self, raw):
        logits, boxes, centers = super().decode(raw)
        if self.centers is None:
            self.centers = centers
        shift = (self.centers - centers).repeat(1, 2)
        return logits, boxes + shift, self.centers


class ReadsTruth(SampleHead):
    def predict(self, raw, batch):
        return super().predict(raw + 0 * batch.gt_boxes.sum(), batch)


class Undeclared(SampleHead):
    def predict(self, raw, batch):
        return [one | {"labels": torch.zeros(1)} for one in super().predict(raw, batch)]


class TruthInPlace(SampleHead):
    def losses(self, raw, batch):
        found = super().losses(raw, batch)
        for one in batch.instances:
            one.gt_boxes.tensor.div_(8)
        return found


class InputsInPlace(SampleHead):
    def losses(self, raw, batch):
        found = super().losses(raw, batch)
        for one in batch.inputs:
            one["instances"].gt_classes += 1
        return found


class FieldInPlace(SampleHead):
    needs_fields = {"angle": "rotated_box"}

    def losses(self, raw, batch):
        batch.field("angle").mul_(0.5)
        return super().losses(raw, batch)


class MaskInPlace(SampleHead):
    def forward(self, features, padding_mask):
        padding_mask[:] = False
        return super().forward(features)


class AssignsFeature(SampleHead):
    def forward(self, features):
        features[self.level] = features[self.level] * 2
        return super().forward(features)


PREDICTED = "test_what_is_learned_is_what_is_predicted"
ALONE = "test_leaves_what_others_need_alone"
NEIGHBORS = "test_an_image_does_not_see_its_neighbors"
CONTRACT = "test_predictions_follow_the_contract"
PLANTED_DECODING = [
    (WidthHeight, PREDICTED, "Width and height of the boxes are exchanged"),
    (HalfCell, PREDICTED, "lie 4 pixels too far to the left and to the top.*half a stride"),
    (RightBeforeTop, PREDICTED, "objects [0-8].*Usual causes.*right before top"),
    (ClassesByRow, PREDICTED, "not the classes: one class comes as several.*so no shift"),
    (EveryCell, PREDICTED, "objects 100%.*one object is detected several times. Suppress duplicates"),
    (ScoreOne, PREDICTED, "which all have the score 1: are the learned scores used"),
    (ByPadded, PREDICTED, "boxes are scaled by the padded size"),
    (NoCrop, PREDICTED, "maps are scaled by the padded size"),
    (PointsSwapped, PREDICTED, "x and y of the keypoints are swapped"),
    (PointsUnscaled, PREDICTED, "keypoints are in pixels of the input"),
    (PointsExchanged, PREDICTED, "keypoints 2 and 4 are exchanged"),
    (AcrossBatch, NEIGHBORS, "AcrossBatch: instances of an image depends on the other images in the batch"),
    (KeepsGrid, NEIGHBORS, "KeepsGrid.*nothing may be kept from the first size"),
    (ReadsTruth, CONTRACT, "ReadsTruth fails on inputs without ground truth.*prediction has no ground truth"),
    (Undeclared, CONTRACT, r"predictions have labels, which task_outputs do not declare \(instances\)"),
    (TruthInPlace, ALONE, r"changes the batch in place.*instances.*gt_boxes"),
    (InputsInPlace, ALONE, r"changes the batch in place.*instances.*gt_classes"),
    (FieldInPlace, ALONE, r"changes the batch in place .*field\('angle'\)"),
    (MaskInPlace, ALONE, "MaskInPlace changes its input padding_mask in place"),
    (AssignsFeature, ALONE, "assigns into a dict of the features it is given .res3"),
]
