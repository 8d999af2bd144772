"""Small parts that keep every promise, for tests that then break one promise at a time."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.detection import batched_nms
from vertebra.models import Backbone, Batch, Head, ShapeSpec
from vertebra.models.losses import CrossEntropy, GIoULoss, SigmoidFocalLoss
from vertebra.structures import Boxes, Instances

WIDTH, STRIDE = 16, 8


class SampleBackbone(Backbone):
    """Three strided convolutions to one map of stride 8."""

    def __init__(self) -> None:
        super().__init__()
        steps = [(3, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH)]
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, padding=1), nn.GroupNorm(4, b), nn.ReLU()) for a, b in steps)
        )

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"res3": ShapeSpec(channels=WIDTH, stride=STRIDE)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"res3": self.layers(images)}


class SampleHead(Head):
    """Boxes on one level: the cells whose center lies in a ground-truth box predict it, by four distances."""

    task_outputs = ("instances",)

    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int, *, score_threshold: float = 0.05) -> None:
        super().__init__()
        (self.level,) = input_shape
        channels, self.stride = input_shape[self.level].channels, input_shape[self.level].stride
        self.tower = nn.Conv2d(channels, channels, 3, padding=1)
        self.scores = nn.Conv2d(channels, num_classes, 1)
        self.distances = nn.Conv2d(channels, 4, 1)
        nn.init.constant_(self.scores.bias, -math.log(99))
        self.num_classes = num_classes
        self.score_threshold = score_threshold
        self.cls_loss, self.box_loss = SigmoidFocalLoss(), GIoULoss()

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """To (N, K + 4, H, W): logits, and distances to left, top, right, bottom in cells, through softplus."""
        x = self.tower(features[self.level]).relu()
        return torch.cat((self.scores(x), F.softplus(self.distances(x))), dim=1)

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """To logits (N, R, K), boxes (N, R, 4) xyxy in input pixels and cell centers (R, 2)."""
        h, w = raw.shape[2:]
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        centers = (torch.stack((xs, ys), dim=-1).reshape(-1, 2) + 0.5) * self.stride
        flat = raw.float().flatten(2).transpose(1, 2)  # (N, R, K + 4)
        logits, away = flat.split((self.num_classes, 4), dim=2)
        away = away * self.stride
        return logits, torch.cat((centers - away[..., :2], centers + away[..., 2:]), dim=2), centers

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits, boxes, centers = self.decode(raw)
        truth = batch.gt_boxes[:, None]  # (N, 1, M, 4)
        inside = torch.cat((centers[None, :, None] - truth[..., :2], truth[..., 2:] - centers[None, :, None]), dim=-1)
        fits = (inside.amin(dim=-1) > 0) & batch.gt_valid[:, None]  # (N, R, M)
        area = (truth[..., 2:] - truth[..., :2]).prod(dim=-1).expand(fits.shape)
        least, row = area.where(fits, math.inf).min(dim=2)
        positive = least.isfinite()
        classes = batch.gt_classes.gather(1, row).where(positive, -1)
        targets = batch.gt_boxes.gather(1, row[..., None].expand(-1, -1, 4))
        count = self.normalizer(positive)
        return {
            "cls": self.cls_loss(logits, classes).sum() / count,
            "box": self.box_loss(boxes[positive], targets[positive]).sum() / count,
        }

    def normalizer(self, positive: Tensor) -> Tensor:
        return positive.sum().clamp(min=1)

    def predict(self, raw: Tensor, batch: Batch) -> list[dict]:
        logits, boxes, _ = self.decode(raw)
        scores, classes = logits.sigmoid().max(dim=2)
        return [
            {"instances": self.to_instances(boxes[i], scores[i], classes[i], size, original)}
            for i, (size, original) in enumerate(zip(batch.image_sizes, batch.original_sizes, strict=True))
        ]

    def to_instances(
        self, boxes: Tensor, scores: Tensor, classes: Tensor, size: tuple[int, int], original: tuple[int, int]
    ) -> Instances:
        scale = torch.tensor([original[1] / size[1], original[0] / size[0]]).repeat(2)
        found = Boxes(boxes * scale)
        found.clip(original)
        likely = (scores > self.score_threshold) & found.nonempty()
        found, scores, classes = found[likely], scores[likely], classes[likely]
        keep = batched_nms(found.tensor, scores, classes, 0.5)[:100]
        return Instances(original, pred_boxes=found[keep], scores=scores[keep], pred_classes=classes[keep])


class SampleSemanticHead(Head):
    """Scores of every class at stride 8, enlarged to the image."""

    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__()
        (self.level,) = input_shape
        channels = input_shape[self.level].channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.ReLU(), nn.Conv2d(4 * channels, num_classes * 16, 1)
        )
        self.loss = CrossEntropy()

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """To (N, K, H / 2, W / 2) scores, by shuffled pixels."""
        return F.pixel_shuffle(self.layers(features[self.level]), 4)

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"sem_seg": self.loss(_resize(raw, batch.padded_size), batch.sem_seg)}

    def predict(self, raw: Tensor, batch: Batch) -> list[dict]:
        scores = _resize(raw.float(), batch.padded_size)
        return [
            {"sem_seg": _resize(score[None, :, :h, :w], original)[0]}
            for score, (h, w), original in zip(scores, batch.image_sizes, batch.original_sizes, strict=True)
        ]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
