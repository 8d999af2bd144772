"""What semantic heads share, and heads that take part in the training only."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models import Backbone, Model, SemanticHead, ShapeSpec
from vertebra.models.losses import CrossEntropy
from vertebra.models.semantic import exported_labels, exported_scores, semantic_losses, semantic_predictions


class Halves(Backbone):
    """Features at half the resolution."""

    def output_shape(self):
        return {"half": ShapeSpec(channels=3, stride=2)}

    def forward(self, images):
        return {"half": F.avg_pool2d(images, 2)}


class Scores(SemanticHead):
    def __init__(self, num_classes=4, training_only=False):
        super().__init__(num_classes, loss_weight=0.5 if training_only else 1.0, training_only=training_only)
        self.conv = nn.Conv2d(3, num_classes, 1)
        self.calls = 0

    def forward(self, features):
        self.calls += 1
        return self.conv(features["half"])


def make_inputs(labels=True):
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for height, width in ((6, 9), (7, 4)):
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        inputs.append({"image": image, "height": 2 * height, "width": width})
        if labels:
            inputs[-1]["sem_seg"] = torch.randint(0, 4, (height, width), generator=generator)
    return inputs


def test_predictions_have_the_original_sizes_and_never_see_the_padding():
    model = Model(Halves(), heads={"labels": Scores()}).eval()
    with torch.no_grad():
        found = model(make_inputs(labels=False))
        alone = model(make_inputs(labels=False)[:1])
    assert [tuple(one["sem_seg"].shape) for one in found] == [(4, 12, 9), (4, 14, 4)]
    torch.testing.assert_close(found[0]["sem_seg"][:, :9, :5], alone[0]["sem_seg"][:, :9, :5])


def test_predictions_in_the_input_size_are_the_scores_themselves():
    scores = torch.randn(2, 4, 8, 10)
    inputs = [{"image": one["image"]} for one in make_inputs()]
    batch = Model(Halves(), heads={"labels": Scores()}).make_batch(inputs)
    assert batch.padded_size == (8, 10)
    found = semantic_predictions(scores, batch)
    assert torch.equal(found[0]["sem_seg"], scores[0, :, :6, :9])
    assert torch.equal(found[1]["sem_seg"], scores[1, :, :7, :4])


def test_losses_count_no_padding():
    model = Model(Halves(), heads={"labels": Scores()})
    batch = model.make_batch(make_inputs())
    scores = torch.randn(2, 4, 8, 10, requires_grad=True)
    semantic_losses(scores, batch, CrossEntropy())["loss_sem_seg"].backward()
    assert (scores.grad[0, :, 6:] == 0).all()
    assert (scores.grad[1, :, :, 4:] == 0).all()
    assert (scores.grad[1, :, :7, :4] != 0).all()


def test_training_without_labels_says_what_is_missing():
    model = Model(Halves(), heads={"labels": Scores()})
    with pytest.raises(DataError, match="no input of the batch has `sem_seg`"):
        model(make_inputs(labels=False))


def test_exported_forms_are_at_the_input_size():
    scores = torch.randn(2, 4, 3, 5)
    full = exported_scores(scores, (6, 10))["sem_seg_scores"]
    torch.testing.assert_close(full, F.interpolate(scores, size=(6, 10), mode="bilinear", align_corners=False))
    assert torch.equal(exported_labels(scores, (6, 10))["sem_seg"], full.argmax(1))


def test_an_auxiliary_head_learns_with_its_own_weight_and_is_left_out_afterwards():
    torch.manual_seed(0)
    model = Model(Halves(), heads={"aux": Scores(training_only=True), "labels": Scores()})
    model.heads["aux"].load_state_dict(model.heads["labels"].state_dict())
    losses = model(make_inputs())
    assert set(losses) == {"aux/loss_sem_seg", "labels/loss_sem_seg"}
    torch.testing.assert_close(losses["aux/loss_sem_seg"], 0.5 * losses["labels/loss_sem_seg"])
    assert model.task_outputs == {"labels": ("sem_seg",)}
    model.eval()
    calls = model.heads["aux"].calls
    with torch.no_grad():
        found = model(make_inputs())
        batch = model.make_batch(make_inputs())
        raw = model.compute(batch.images)
    assert model.heads["aux"].calls == calls
    assert all(set(one) == {"sem_seg"} for one in found)
    assert set(raw) == {"labels"}
    assert set(model.losses(raw, batch)) == {"labels/loss_sem_seg"}


def test_an_auxiliary_head_computed_in_training_gives_no_prediction():
    model = Model(Halves(), heads={"aux": Scores(training_only=True), "labels": Scores()}).train()
    batch = model.make_batch(make_inputs())
    with torch.no_grad():
        raw = model.compute(batch.images)
        assert set(raw) == {"aux", "labels"}
        assert all(set(one) == {"sem_seg"} for one in model.predict(raw, batch))
