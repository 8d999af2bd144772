"""Mean teacher: semantic segmentation from a few labeled images and many unlabeled ones.

A student learns the labels that there are. A teacher, the running average of the student's weights, labels the other
images; where it is confident, the student has to say the same of pictures whose colors are changed and of which a part
comes from another one. The teacher is what is evaluated and predicts.

Sources: Tarvainen, Valpola, "Mean teachers are better role models", arXiv:1703.01780 (the average, the ramp); Sohn et
al., "FixMatch", arXiv:2001.07685 (weak and strong views, the threshold); French et al., "Semi-supervised semantic
segmentation needs strong, varied perturbations", arXiv:1906.01916 (CutMix, which for segmentation is better than
FixMatch's cutout). Unlike in FixMatch the labels are the teacher's and not the student's own, and the student sees one
view of each image: the weak one where it is labeled.
Letters: N images, C channels, K classes, H x W padded input pixels.

    vertebra train docs/examples/mean_teacher.yaml -o runs/mean_teacher
    vertebra predict runs/mean_teacher/recipe.yaml IMAGE -w runs/mean_teacher/final.pth

The same training, with as many labeled images per step, but without the unlabeled ones:

    vertebra train docs/examples/mean_teacher.yaml -o runs/labeled_only data.sampler.labeled_share=1 train.batch_size=8
"""

import copy
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vertebra import FORMATS, MODELS, SAMPLERS, BaseModel, Batch, Model
from vertebra.data import Sampler, ShapesFormat

__all__ = ["LabeledShareSampler", "MeanTeacher", "PartlyLabeledShapes"]

IGNORED = 255  # label of pixels that have no loss


@MODELS.register()
class MeanTeacher(BaseModel):
    """Two models of one architecture: a student that is trained, and its average, which teaches and predicts.

    The weak view of an image is what `data.train_transforms` make of it.

    Args:
        student: any model that predicts `sem_seg` as logits and has one optimizer.
        decay: of the teacher's average, per step.
        threshold: minimum probability of the teacher's label of a pixel.
        consistency_weight: factor of the loss on unlabeled images, after the ramp.
        ramp: share of the training in which that weight rises.
    """

    task_outputs = ("sem_seg",)
    labels = "stuff"
    needs_fields = {"labeled": "scalar"}

    def __init__(
        self,
        student: Model,
        *,
        decay: float = 0.99,
        threshold: float = 0.9,
        consistency_weight: float = 1.0,
        ramp: float = 0.4,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        self.threshold = threshold
        self.consistency_weight = consistency_weight
        self.ramp = ramp

    def training_step(self, batch: Batch, step) -> dict[str, Tensor]:
        """One view of each image: labeled ones as they are, with their labels; others in their strong view, with the
        teacher's labels of the weak one. Both losses are those of the student's heads."""
        unlabeled = (batch.field("labeled") == 0)[:, None, None]  # (N, 1, 1)
        labels = batch.sem_seg.masked_fill(unlabeled, IGNORED)  # (N, H, W)
        inside = rectangles(len(batch), batch.padded_size, batch.device)
        strong = cut_mix(changed_colors(batch.images, batch.padding_mask), inside)
        padding = cut_mix(batch.padding_mask, inside) | ~unlabeled  # (N, H, W): nothing is taught here
        taught = cut_mix(self.taught_labels(batch), inside).masked_fill(padding, IGNORED)
        # FixMatch, equation 4, is a mean over all unlabeled pixels; the heads' losses are means over labeled ones.
        confident = (taught != IGNORED).sum() / (~padding).sum().clamp(min=1)

        raw = self.student.compute(replace(batch, images=strong.where(unlabeled[:, None], batch.images)))
        losses = self.student.losses(raw, replace(batch, sem_seg=labels))
        consistency = sum(self.student.losses(raw, replace(batch, sem_seg=taught)).values()) * confident
        weight = self.consistency_weight * ramp_up(step.number / max(self.ramp * step.total, 1))
        step.minimize("optimizer", sum(losses.values()) + weight * consistency)
        self.update_teacher(step.number)
        return {**losses, "consistency": consistency, "confident": confident}

    @torch.no_grad()
    def taught_labels(self, batch: Batch) -> Tensor:
        """(N, H, W) int64: the teacher's class of each pixel, 255 where its probability is below the threshold.

        Meanwhile its norms follow the statistics of the weak views: those of the images that it will predict. The
        student's are of strong views too, and would not fit.
        """
        whole = [batch.padded_size] * len(batch)  # outputs of the padded input, all of one size
        outputs = self.teacher.predict(
            self.teacher.compute(batch), replace(batch, image_sizes=whole, original_sizes=whole)
        )
        probabilities, classes = torch.stack([one["sem_seg"] for one in outputs]).softmax(dim=1).max(dim=1)
        return classes.masked_fill(probabilities < self.threshold, IGNORED)

    @torch.no_grad()
    def update_teacher(self, number: int) -> None:
        """teacher = d * teacher + (1 - d) * student, of all weights; statistics of norms are the teacher's own, as in
        the authors' code.

        Args:
            number: steps done before this one. At first the average is a plain mean of all steps, so that the random
                start is forgotten.
        """
        decay = min(self.decay, 1 - 1 / (number + 1))
        for mean, weight in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)

    def compute(self, batch, padding_mask=None):
        return self.teacher.compute(batch, padding_mask)

    def predict(self, raw, batch: Batch) -> list[dict]:
        return self.teacher.predict(raw, batch)


def changed_colors(images: Tensor, padding_mask: Tensor) -> Tensor:
    """Another contrast, brightness and tint for each image.

    Args:
        images: (N, C, H, W) normalized: 0 is the mean color, and what padding holds.
        padding_mask: (N, H, W) bool.
    """
    gain = 0.6 + 0.8 * torch.rand(len(images), 1, 1, 1, device=images.device)
    shift = 0.2 * torch.randn(*images.shape[:2], 1, 1, device=images.device)
    return (images * gain + shift).masked_fill(padding_mask[:, None], 0)


def rectangles(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(N, H, W) bool: True in a rectangle of half the height and width, anywhere inside the image."""
    masks = []
    for length in size:
        first = torch.randint(length - length // 2 + 1, (count, 1), device=device)
        cells = torch.arange(length, device=device)
        masks.append((cells >= first) & (cells < first + length // 2))  # (N, length)
    rows, columns = masks
    return rows[:, :, None] & columns[:, None, :]


def cut_mix(maps: Tensor, inside: Tensor) -> Tensor:
    """Maps (N, H, W) or (N, C, H, W), inside the rectangles (N, H, W) replaced by those of the image before."""
    return maps.roll(1, dims=0).where(inside if maps.dim() == 3 else inside[:, None], maps)


def ramp_up(done: float) -> float:
    """exp(-5 (1 - t)^2), from 0.007 at t = 0 to 1 from t = 1 on: arXiv:1703.01780, section 3."""
    return math.exp(-5 * (1 - min(done, 1.0)) ** 2)


@SAMPLERS.register()
class LabeledShareSampler(Sampler):
    """Draws labeled images more often: about the same share of each batch is labeled, however few there are.

    Args:
        labeled_share: of the images drawn; 1: no unlabeled image is ever seen.
    """

    def __init__(self, labeled_share: float = 0.5) -> None:
        self.labeled_share = labeled_share

    def epochs(self, dicts, seed: int):
        labeled = np.array([bool(record["labeled"]) for record in dicts])
        chances = np.where(
            labeled, self.labeled_share / max(labeled.sum(), 1), (1 - self.labeled_share) / max((~labeled).sum(), 1)
        )
        rng = np.random.default_rng(seed)
        while True:
            yield rng.choice(len(labeled), size=len(labeled), p=chances / chances.sum())


@FORMATS.register()
class PartlyLabeledShapes(ShapesFormat):
    """Generated images with semantic labels, of which only the first few of the split train count as labeled.

    Args:
        labeled: number of labeled images in the split train.
        images, split, val_images, size: see `ShapesFormat`.
    """

    extra_fields = {"labeled": {"geometry": "scalar", "of": "image"}}

    def __init__(
        self,
        labeled: int = 20,
        images: int = 600,
        split: str = "train",
        val_images: int | None = None,
        size: int | str | list[int] = (128, 160),
    ) -> None:
        super().__init__(images, split, val_images, size=size, labels=["semantic"])
        self.labeled = labeled

    def extend(self, folder, image, annotations, scene, rng) -> None:
        image["labeled"] = int(folder.name == "val" or image["id"] <= self.labeled)
