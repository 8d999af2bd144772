"""Parts that keep their promises in an unusual way pass the checks."""

import unittest

import pytest
import torch
from planted_decoding import NEIGHBORS, PREDICTED, PointHead
from sample_parts import WIDTH, SampleBackbone, SampleHead
from torch import nn
from torch.nn import functional as F

from vertebra.models import Backbone, BaseModel, SemanticHead, ShapeSpec, semantic_predictions
from vertebra.registry import BACKBONES, HEADS, MODELS
from vertebra.testing import HeadConformance, ModelConformance

if "SampleBackbone" not in BACKBONES.registered():
    BACKBONES.register(SampleBackbone)


@BACKBONES.register()
class Stride16(Backbone):
    """Nothing but one coarse map."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, WIDTH, 16, 16)

    def output_shape(self):
        return {"res4": ShapeSpec(channels=WIDTH, stride=16)}

    def forward(self, images):
        return {"res4": self.layer(images)}


class CoarseLabels(SemanticHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(num_classes)
        (self.level,) = input_shape
        self.score = nn.Conv2d(input_shape[self.level].channels, num_classes, 1)

    def forward(self, features):
        return self.score(features[self.level])


class PixelBoxes(SampleHead):
    """Its raw distances are pixels."""

    def forward(self, features):
        raw = super().forward(features)
        return torch.cat((raw[:, : self.num_classes], raw[:, self.num_classes :] * self.stride), dim=1)

    def decode(self, raw):
        k = self.num_classes
        return super().decode(torch.cat((raw[:, :k], raw[:, k:].clamp(min=0.5) / self.stride), dim=1))


class DecodesInEvaluation(SampleHead):
    def forward(self, features):
        raw = super().forward(features)
        return raw if self.training else self.decode(raw)[:2]

    def predict(self, raw, batch):
        logits, boxes = raw
        scores, classes = logits.sigmoid().max(dim=2)
        return [
            {"instances": self.to_instances(boxes[i], scores[i], classes[i], size, original)}
            for i, (size, original) in enumerate(zip(batch.image_sizes, batch.original_sizes, strict=True))
        ]


class GradientPenalty(SampleHead):
    def losses(self, raw, batch):
        scores = raw[:, : self.num_classes]
        (slope,) = torch.autograd.grad(F.softplus(scores).mean(), scores, create_graph=True)
        return super().losses(raw, batch) | {"penalty": (slope**2).sum()}


def run(folder, cls, test, backbone="SampleBackbone", **settings):
    if cls.__name__ not in HEADS.registered():
        HEADS.register(cls)
    path = folder / "recipe.yaml"
    path.write_text(f"model: {{backbone: {backbone}, heads: {{task: {{name: {cls.__name__}}}}}}}\n")
    kit = type("Kit", (HeadConformance,), {"component": cls.__name__, "recipe": str(path), **settings})
    getattr(kit(), test)()


@pytest.mark.parametrize(
    ("cls", "test", "backbone"),
    [
        (CoarseLabels, PREDICTED, "Stride16"),
        (PixelBoxes, PREDICTED, "SampleBackbone"),
        (PointHead, PREDICTED, "SampleBackbone"),
        (PointHead, "test_trains_by_its_recipe", "SampleBackbone"),
        (DecodesInEvaluation, NEIGHBORS, "SampleBackbone"),
        (GradientPenalty, "test_padded_ground_truth_changes_no_loss", "SampleBackbone"),
        (GradientPenalty, "test_leaves_what_others_need_alone", "SampleBackbone"),
    ],
)
def test_a_right_head_passes(tmp_path, cls, test, backbone):
    run(tmp_path, cls, test, backbone)


def test_other_raw_outputs_in_evaluation_are_not_compared(tmp_path):
    with pytest.raises(unittest.SkipTest, match="of another form in evaluation than in training"):
        run(tmp_path, DecodesInEvaluation, PREDICTED)


def test_a_loss_that_still_falls_names_the_rate(tmp_path):
    with pytest.raises(AssertionError, match=r"still falling: set fit_lr \(1e-05\)"):
        run(tmp_path, SampleHead, PREDICTED, fit_lr=1e-5)


@MODELS.register()
class TakesTurns(BaseModel):
    """Two networks of which one is trained every second step, from the second on."""

    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.main = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.critic = nn.Conv2d(num_classes, 1, 3, padding=1)

    def network(self, images):
        return self.main(images)

    def training_step(self, batch, step):
        raw = self.compute(batch)
        labeled = (batch.sem_seg != 255).sum().clamp(min=1)
        pixels = F.cross_entropy(raw, batch.sem_seg, ignore_index=255, reduction="sum") / labeled
        critic = F.softplus(self.critic(raw.detach().softmax(dim=1))).mean()
        step.minimize("critic", critic)
        if step.number % 2 == 1:
            step.minimize("main", pixels + 0.1 * F.softplus(-self.critic(raw.softmax(dim=1))).mean())
        return {"pixels": pixels, "critic": critic}

    def predict(self, raw, batch):
        return semantic_predictions(raw, batch)


def model_kit(folder, **settings):
    path = folder / "recipe.yaml"
    path.write_text(
        "model: {name: TakesTurns}\nevaluate: {evaluators: [SemSegEvaluator]}\n"
        "train: {optimizers: {main: {name: AdamW}, critic: {name: AdamW}}}\n"
    )
    return type("Kit", (ModelConformance,), {"component": "TakesTurns", "recipe": str(path), **settings})()


@pytest.mark.parametrize(
    "test",
    [PREDICTED, "test_every_parameter_gets_a_gradient", "test_losses_are_not_negative", "test_trains_by_its_recipe"],
)
def test_a_model_whose_steps_skip_a_loss_passes(tmp_path, test):
    getattr(model_kit(tmp_path), test)()


def test_a_model_with_its_own_step_is_overfitted_by_its_steps(tmp_path):
    kit = model_kit(tmp_path, overfit_steps=2, overfit_size=(64, 64))
    with pytest.raises(AssertionError, match=r"after 2 steps on 8 images .* mIoU"):
        kit.test_overfits_eight_images()
