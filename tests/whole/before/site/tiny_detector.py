"""A plugin as its authors wrote it for vertebra 0.1: a backbone, a head with a loss, a transform, a hook, an evaluator.

It stays as it is. It uses public names alone, so newer versions have to run it.
"""

import numpy as np
import torch
from torch import nn

from vertebra import Backbone, BoxMode, Evaluator, Head, Hook, Loss, ShapeSpec
from vertebra.data import Sample, Transform
from vertebra.detection import Candidates, rescale_instances, suppress
from vertebra.evaluation import COCOEvaluator, coco_evaluate, voc_evaluate


class TinyBackbone(Backbone):
    """Three convolutions to a map of stride 8."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        self.width = width

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"c3": ShapeSpec(self.width, 8)}

    def forward(self, images):
        return {"c3": self.layers(images)}


class SquaredError(Loss):
    """Mean of squared differences of probabilities."""

    def forward(self, logits, targets):
        return (logits.sigmoid() - targets).square().mean()


class TinyHead(Head):
    """Each cell predicts the classes and the box of the object whose center lies in it."""

    task_outputs = ("instances",)

    def __init__(
        self, input_shape: dict[str, ShapeSpec], num_classes: int, *, cls_loss: Loss, score_threshold: float = 0.0
    ) -> None:
        super().__init__()
        (self.level, spec), *_ = input_shape.items()
        self.stride = spec.stride
        self.score = nn.Conv2d(spec.channels, num_classes, 1)
        self.reach = nn.Conv2d(spec.channels, 4, 1)
        self.cls_loss = cls_loss
        self.score_threshold = score_threshold

    def forward(self, features):
        found = features[self.level]
        return {"scores": self.score(found), "reach": nn.functional.softplus(self.reach(found))}

    def decode(self, raw):
        scores, reach = (raw[name].flatten(2).transpose(1, 2).float() for name in ("scores", "reach"))
        height, width = raw["scores"].shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        center = (torch.stack((x, y), dim=-1).view(-1, 2).to(reach) + 0.5) * self.stride
        reach = reach * self.stride
        return scores, torch.cat((center - reach[..., :2], center + reach[..., 2:]), dim=2)

    def losses(self, raw, batch):
        scores, boxes = self.decode(raw)
        height, width = raw["scores"].shape[-2:]
        x, y = ((batch.gt_boxes[..., :2] + batch.gt_boxes[..., 2:]) / 2 / self.stride).long().unbind(-1)
        cell = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        image, row = batch.gt_valid.nonzero(as_tuple=True)
        cell, classes = cell[image, row], batch.gt_classes[image, row]
        target = torch.zeros_like(scores)
        target[image, cell, classes] = 1
        distance = (boxes[image, cell] - batch.gt_boxes[image, row]).abs().mean() / self.stride
        return {"loss_cls": self.cls_loss(scores, target), "loss_box": distance}

    def predict(self, raw, batch):
        scores, boxes = self.decode(raw)
        best, classes = scores.sigmoid().max(dim=2)
        candidates = Candidates(boxes, best, classes, best > self.score_threshold)
        found = suppress(candidates, batch.image_sizes, nms_threshold=0.5, max_detections=50)
        pairs = zip(found, batch.original_sizes, strict=True)
        return [{"instances": rescale_instances(one, *size)} for one, size in pairs]


class Darker(Transform):
    """Halves the brightness, at times."""

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < self.prob:
            sample.image = sample.image // 2
        return sample


class CountSteps(Hook):
    """Counts steps over restarts."""

    def __init__(self) -> None:
        self.count = 0

    def after_step(self, trainer) -> None:
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state) -> None:
        self.count = state["count"]


class WithVOC(COCOEvaluator):
    """COCO's numbers, and those of the functions that evaluate lists, over the same detections."""

    def reset(self) -> None:
        super().reset()
        self.results = []

    def process(self, inputs, outputs) -> None:
        super().process(inputs, outputs)
        for record, output in zip(inputs, outputs, strict=True):
            found = output["instances"]
            boxes = BoxMode.convert(found.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
            columns = zip(boxes, found.scores.tolist(), found.pred_classes.tolist(), strict=True)
            self.results += [
                {"image_id": record["image_id"], "category_id": label + 1, "bbox": box, "score": score}
                for box, score, label in columns
            ]

    def evaluate(self):
        metrics = super().evaluate()
        truth = self.dataset.metadata.json_file
        metrics["tiny/AP"] = coco_evaluate(truth, self.results, "bbox")["bbox/AP"]
        metrics["tiny/VOC"] = voc_evaluate(truth, self.results)["voc/AP"]
        return metrics


class Brightness(Evaluator):
    """Mean brightness of the images that were evaluated, from 0 to 1."""

    def reset(self) -> None:
        self.values = []

    def process(self, inputs, outputs) -> None:
        self.values += [float(one["image"].float().mean()) / 255 for one in inputs]

    def evaluate(self):
        self.notes = [f"{len(self.values)} images"]
        return {"brightness/mean": float(np.mean(self.values))}
