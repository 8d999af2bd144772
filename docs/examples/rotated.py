"""Detection of rotated boxes in one file: generated data, an anchor-free head, rotated AP with a part of the report.

Sources: the head is a one-level FCOS (Tian et al., arXiv:1904.01355) that regresses center, size and angle. The angle
is encoded at two frequencies as in Yu and Da, "Phase-Shifting Coder: Predicting Accurate Orientation in Oriented Object
Detection", arXiv:2211.06444, but by cosine and sine instead of three phases. AP is COCO's, with the IoU of rotated
boxes.
Letters: N images, K classes, R cells, M ground-truth boxes in the fullest image, P positive cells, D detections and
G ground-truth boxes of one image, T IoU thresholds. A rotated box is (center x, center y, width, height, angle) in
pixels and degrees counterclockwise, Detectron2's XYWHA_ABS.

    vertebra train docs/examples/rotated.yaml -o runs/rotated
    vertebra predict runs/rotated/recipe.yaml IMAGE -w runs/rotated/final.pth
"""

import numpy as np
import torch
from PIL import Image
from torch import nn

from vertebra import EVALUATORS, FORMATS, HEADS, Batch, Boxes, Evaluator, Head, Instances, ShapeSpec
from vertebra.data import ShapesFormat
from vertebra.detection import batched_nms_rotated
from vertebra.evaluation import Gallery, Section, Table, average_precision, draw_pairs, match_by_overlap
from vertebra.models import finest_first, same_channels
from vertebra.models.layers import ConvNorm, resize
from vertebra.models.losses import SigmoidFocalLoss, SmoothL1Loss
from vertebra.runtime import gather_to_main, on_main_process
from vertebra.structures import RotatedBoxes, pairwise_iou_rotated
from vertebra.visualize import draw_instances

__all__ = ["RotatedAPEvaluator", "RotatedBoxHead", "RotatedShapes"]


@FORMATS.register()
class RotatedShapes(ShapesFormat):
    """`shapes`, each picture turned by a random angle on a gray ground, with a rotated box `rotated` for each object.

    A box goes around the whole outline of its object, in the direction in which the object was drawn, even where the
    object is hidden or leaves the picture. `bbox` encloses its part inside the picture; there are no masks.
    """

    extra_fields = {"rotated": {"geometry": "rotated_box"}}

    def extend(self, folder, image, annotations, scene, rng):
        turn, drawn = rng.uniform(0, 2 * np.pi), Image.fromarray(scene.image)  # clockwise, as `thing.turn`
        picture = drawn.rotate(-np.rad2deg(turn), Image.Resampling.BICUBIC, expand=True, fillcolor=(114, 114, 114))
        picture.save(folder / image["file_name"], quality=92)
        image["width"], image["height"] = picture.size
        for thing, annotation in zip(scene.things, annotations, strict=True):
            points = np.concatenate([polygons[0] for polygons in thing.outlines])  # (P, 2), of all members of a crowd
            turned = (points - np.array(drawn.size) / 2) @ (1, 1j) * np.exp(1j * turn)  # about the picture's center
            box = box_around(turned + complex(*picture.size) / 2, thing.turn + turn)
            corners = RotatedBoxes(box[None]).corners()[0].numpy().clip(0, picture.size)  # (4, 2)
            low, sides = corners.min(axis=0), np.ptp(corners, axis=0)
            annotation["rotated"], annotation["area"] = box.tolist(), float(sides.prod())
            annotation["bbox"] = [*low.tolist(), *sides.tolist()]
            del annotation["segmentation"]


def box_around(points, turn):
    """Points x + iy (P,) to the smallest rotated box (5,) around them that is turned by `turn` radians clockwise.

    y points down, so multiplying by exp(i t) turns a point about the origin by t clockwise on the screen.
    """
    x, y = (own := points * np.exp(-1j * turn)).real, own.imag  # in the box's frame
    center = (x.min() + x.max() + 1j * (y.min() + y.max())) / 2 * np.exp(1j * turn)
    # Angles count counterclockwise, and half a turn makes the same box.
    return np.array([center.real, center.imag, np.ptp(x), np.ptp(y), (90 - np.rad2deg(turn)) % 180 - 90])


@HEADS.register()
class RotatedBoxHead(Head):
    """Rotated boxes from the cells of the finest level; all levels, which must have one width, are added up there.

    `predict` gives `instances` with `pred_rotated_boxes`, and `pred_boxes` around them, which evaluators of upright
    boxes and the files of `vertebra predict` take.

    Args:
        nms_threshold: IoU threshold of NMS, of rotated boxes.
    """

    task_outputs = ("instances",)
    needs_fields = {"rotated": "rotated_box"}

    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int, nms_threshold: float = 0.3) -> None:
        super().__init__()
        self.levels = finest_first("RotatedBoxHead", input_shape)
        self.stride = input_shape[self.levels[0]].stride
        width = same_channels("RotatedBoxHead", input_shape, self.levels)
        self.tower = nn.Sequential(*(ConvNorm(width, width, 3, norm="gn", relu=True) for _ in range(3)))
        self.score, self.box = nn.Conv2d(width, num_classes, 3, padding=1), nn.Conv2d(width, 8, 3, padding=1)
        nn.init.constant_(self.score.bias, -4.6)  # an untrained head predicts 0.01 for every class
        self.cls_loss, self.box_loss = SigmoidFocalLoss(), SmoothL1Loss(beta=0.1)
        self.score_threshold, self.nms_threshold, self.max_detections = 0.05, nms_threshold, 100

    def forward(self, features):
        """{l: (N, C, H/s, W/s)} to logits (N, K, H/s, W/s) and box codes (N, 8, H/s, W/s) of the finest level."""
        x = self.tower(sum(resize(features[name], features[self.levels[0]].shape[-2:]) for name in self.levels))
        return {"scores": self.score(x), "codes": self.box(x)}

    def by_cell(self, raw):
        """Logits (N, R, K), codes (N, R, 8) and the cells' centers (R, 2), x and y in input pixels."""
        scores, codes = (raw[name].flatten(2).transpose(1, 2).float() for name in ("scores", "codes"))
        y, x = torch.meshgrid(*(torch.arange(side) for side in raw["scores"].shape[-2:]), indexing="ij")
        return scores, codes, (torch.stack((x, y), dim=-1).view(-1, 2).to(codes) + 0.5) * self.stride

    def losses(self, raw, batch: Batch):
        """Focal loss on the classes and smooth L1 on the box codes, per positive cell."""
        (scores, codes, centers), boxes = self.by_cell(raw), batch.field("rotated")
        row = assign(centers, boxes, batch.gt_valid, radius=1.5 * self.stride)  # (N, R)
        image, cell = (row >= 0).nonzero(as_tuple=True)  # (P,) each
        row, count = row[image, cell], max(len(image), 1)
        errors = self.box_loss(codes[image, cell], encode(boxes[image, row], centers[cell], self.stride))  # (P, 8)
        target = torch.zeros_like(scores)
        target[image, cell, batch.gt_classes[image, row]] = 1
        return {"loss_cls": self.cls_loss(scores, target).sum() / count, "loss_box": errors.mean(dim=1).sum() / count}

    def predict(self, raw, batch: Batch):
        """The best boxes of each image, after NMS of rotated boxes, scaled to its original size."""
        scores, codes, centers = self.by_cell(raw)
        boxes, (scores, classes) = decode(codes, centers, self.stride), scores.sigmoid().max(dim=2)  # a class per cell
        outputs = []
        for n, (before, after) in enumerate(zip(batch.image_sizes, batch.original_sizes, strict=True)):
            best, cells = scores[n].topk(min(500, scores.shape[1]))
            cells = cells[best > self.score_threshold]
            kept = batched_nms_rotated(boxes[n, cells], scores[n, cells], classes[n, cells], self.nms_threshold)
            kept = cells[kept[: self.max_detections]]
            rotated = RotatedBoxes(boxes[n, kept])
            rotated.scale(after[1] / before[1], after[0] / before[0])
            upright = Boxes(torch.cat(rotated.corners().aminmax(dim=1), dim=1))  # around the corners (D, 4, 2)
            upright.clip(after)
            fields = {"scores": scores[n, kept], "pred_classes": classes[n, kept], "pred_rotated_boxes": rotated}
            found = Instances(after, pred_boxes=upright, **fields)
            outputs.append({"instances": found[upright.nonempty()]})  # those inside the image
        return outputs


def assign(centers, boxes, valid, radius):
    """(R, 2), (N, M, 5), (N, M) bool -> (N, R) row of the box whose center is nearest, -1 where all are too far.

    Far is more than `radius` pixels in x or in y.
    """
    distance = (centers - boxes[:, :, None, :2]).abs().amax(dim=3)  # (N, M, R)
    nearest, row = distance.masked_fill(~valid[..., None], torch.inf).min(dim=1)
    return row.where(nearest < radius, -1)


def encode(boxes, centers, stride):
    """Boxes (P, 5) and centers of their cells (P, 2) to codes (P, 8).

    Two numbers are the offset of the center in strides, two the logarithms of the sides in strides, the longer first,
    and four the cosines and sines of 2a and 4a, where a is the angle of the longer side. Half a turn makes the same
    box, so 2a is all there is to know. Of a square, a quarter turn makes the same box too: which of its sides counts as
    the longer decides between opposite values of 2a, which cannot be learned, but 4a is the same for both.
    """
    turned = boxes[:, [3, 2, 4]] + boxes.new_tensor([0, 0, 90])  # the same box with its height as the width
    longer, shorter, angle = torch.where(boxes[:, 2:3] >= boxes[:, 3:4], boxes[:, 2:], turned).split(1, dim=1)
    sides = (torch.cat((longer, shorter), dim=1).clamp(min=1) / stride).log()
    angles = torch.deg2rad(angle * angle.new_tensor([2, 4]))
    return torch.cat(((boxes[:, :2] - centers) / stride, sides, angles.cos(), angles.sin()), dim=1)


def decode(codes, centers, stride):
    """Codes (..., 8) and centers (..., 2) to boxes (..., 5): 4a gives the angle up to quarter turns, 2a says which."""
    coarse, fine = (torch.rad2deg(torch.atan2(codes[..., 6:], codes[..., 4:6])) / codes.new_tensor([2, 4])).unbind(-1)
    angle = fine + 90 * ((coarse - fine) / 90).round()
    sides = codes[..., 2:4].clamp(max=8).exp() * stride
    return torch.cat((centers + codes[..., :2] * stride, sides, angle[..., None]), dim=-1)


@EVALUATORS.register()
class RotatedAPEvaluator(Evaluator):
    """COCO's AP with the IoU of rotated boxes: `rotated/AP`, the mean over IoU 0.5 to 0.95, and `rotated/AP50`.

    As in COCO, detections that lie in a crowd count neither as right nor as wrong.
    """

    needs_fields = {"rotated": "rotated_box"}

    def __init__(self, dataset):
        self.metadata = dataset.metadata
        self.files_of = {record["image_id"]: record["file_name"] for record in dataset.dicts}
        self.truth = {record["image_id"]: ground_truth(record) for record in dataset.dicts}

    def reset(self):
        self.seen = {}  # by image id: an image that two processes have seen counts once

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            key, found = sample["image_id"], output["instances"].to("cpu")
            self.seen[key] = found, *matched(found, self.truth[key])

    def evaluate(self):
        shares = gather_to_main(self.seen)
        metrics = on_main_process(lambda: self.summary({key: one for share in shares for key, one in share.items()}))
        self.reasons = {name: "the ground truth has no objects" for name, value in metrics.items() if value is None}
        return metrics

    def summary(self, seen):
        """{image id: (detections, right, ignored)} to the metrics; keeps what the report shows."""
        self.images = {key: seen[key] for key in sorted(seen, key=str)}  # in one order, whoever has seen them
        seen = self.images.values()
        scores, classes = (torch.cat([one[0].get(name) for one in seen]) for name in ("scores", "pred_classes"))
        right, ignored = (np.concatenate([one[row] for one in seen], axis=1) for row in (1, 2))
        labels = torch.cat([truth.gt_classes[~truth.crowd] for truth in self.truth.values()])
        self.by_class = {}  # {class: (number of objects, AP (T,))}
        for label, count in torch.stack(labels.unique(return_counts=True), dim=1).tolist():
            of = classes == label
            self.by_class[label] = count, average_precision(scores[of], right[:, of], ignored[:, of], count)
        ap = np.mean([ap for _, ap in self.by_class.values()], axis=0) if self.by_class else None
        return {"rotated/AP": None if ap is None else ap.mean(), "rotated/AP50": None if ap is None else ap[0]}

    def sections(self, folder, pictures):
        names, truth, seen, pairs = self.metadata.thing_classes, self.truth, self.images, []
        rows = [(names[label], count, ap.mean(), ap[0]) for label, (count, ap) in self.by_class.items()]
        missed = {key: int((~truth[key].crowd).sum()) - one[1][0].sum() for key, one in seen.items()}
        for k in sorted(missed, key=missed.get, reverse=True)[:pictures]:
            both = truth[k], seen[k][0]
            shown = [lambda picture, of=of: draw_instances(picture, of, names, score_threshold=0.5) for of in both]
            pairs.append((self.files_of[k], *shown, f"{missed[k]} missed at IoU 0.5"))
        gallery = Gallery(draw_pairs(pairs, folder / "pictures" / "rotated", pictures), "Most missed objects first.")
        return [Section("Rotated boxes", [Table(("class", "objects", "AP", "AP50"), rows, (2, 3)), gallery])]


def ground_truth(record):
    """A dataset's dict to Instances with `gt_rotated_boxes`, `gt_classes` and `crowd` (G,) bool."""
    given = [one for one in record["annotations"] if "rotated" in one]  # a crowd may have none
    labels, crowd = (torch.tensor([one.get(key, 0) for one in given]).long() for key in ("category_id", "iscrowd"))
    boxes = RotatedBoxes([one["rotated"] for one in given])
    return Instances((record["height"], record["width"]), gt_rotated_boxes=boxes, gt_classes=labels, crowd=crowd.bool())


def matched(found, truth):
    """COCO's matching of D detections and G objects of an image by the IoU of rotated boxes, see `match_by_overlap`."""
    boxes, objects = found.pred_rotated_boxes, truth.gt_rotated_boxes
    iou, area = pairwise_iou_rotated(boxes, objects), boxes.area()[:, None]  # (D, G), (D, 1)
    inside = iou / (1 + iou) * (area + objects.area()) / area.clamp(min=1e-9)  # shared area = iou / (1 + iou) * sum
    overlap = torch.where(truth.crowd, inside, iou) * (found.pred_classes[:, None] == truth.gt_classes)
    return match_by_overlap(overlap, truth.crowd)
