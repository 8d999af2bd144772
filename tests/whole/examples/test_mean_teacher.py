"""docs/examples/mean_teacher.py: a student, and the average of it that teaches it."""

import json
import math
import sys

import pytest
import torch
from torch import nn
from whole_path import EXAMPLES, code_lines, predicted, trained

from vertebra import FORMATS, MODELS, SAMPLERS, build_model, load_recipe
from vertebra.testing import ModelConformance, SamplerConformance
from vertebra.testing.inputs import make_input, make_metadata

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "mean_teacher.yaml")
IMAGES = "{{format: PartlyLabeledShapes, images: 6, labeled: 3, val_images: 3, size: 64, split: {0}}}"
SMALL = (
    "model.student.backbone.out_features=[res3]",
    *(f"data.{split}={IMAGES.format(split)}" for split in ("train", "val")),
)


@pytest.fixture(scope="module", autouse=True)
def loaded(clean_slate_per_file, cache):
    return load_recipe(RECIPE, SMALL)


class TestMeanTeacher(ModelConformance):
    component = "MeanTeacher"
    recipe = RECIPE
    data = "recipe"
    overrides = SMALL
    overfit_overrides = ("data.train.labeled=6",)

    def make_input(self, seed, size=None, **options):
        made = super().make_input(seed, size, **options)
        made["labeled"] = made["labeled"] * ((seed + 1) % 2)  # the second image is unlabeled
        return made


class TestLabeledShareSampler(SamplerConformance):
    component = "LabeledShareSampler"

    def make_dicts(self):
        return [{**record, "labeled": int(number < 4)} for number, record in enumerate(super().make_dicts())]


class Recorded:
    """A step that changes nothing."""

    def __init__(self, number, total=100):
        self.number, self.total, self.loss = number, total, None

    def minimize(self, name, loss):
        self.loss = loss


@pytest.fixture(scope="module")
def example(loaded):
    return sys.modules[MODELS.get("MeanTeacher").__module__]


@pytest.fixture
def model(loaded):
    torch.manual_seed(0)
    return build_model(loaded, metadata=make_metadata()).train()


def batch_of(model, *labeled):
    inputs = [make_input(number) | {"labeled": torch.tensor([float(one)])} for number, one in enumerate(labeled)]
    return model.make_batch(inputs)


def test_the_teacher_is_the_plain_mean_of_the_first_steps_and_then_an_exponential_one(model):
    weight = "heads.labels.score_fr.bias"
    for number, value in enumerate((1.0, 2.0, 6.0)):
        nn.init.constant_(model.student.get_parameter(weight), value)
        model.update_teacher(number)
    assert model.teacher.get_parameter(weight).tolist() == pytest.approx([3.0] * 5)
    nn.init.constant_(model.student.get_parameter(weight), 4.0)
    model.update_teacher(10_000)
    assert model.teacher.get_parameter(weight).tolist() == pytest.approx([0.99 * 3 + 0.01 * 4] * 5)


def test_norms_of_the_teacher_follow_the_images_as_they_are(model):
    """Its statistics come from its own passes over weak views: brighter strong views leave them as they are."""
    name = "backbone.stem.conv1.norm.running_mean"
    batch, first = batch_of(model, 0, 0), model.teacher.backbone.stem.conv1.weight.clone()
    model.training_step(batch, Recorded(0))
    maps = nn.functional.conv2d(batch.images, first, stride=2, padding=3)
    torch.testing.assert_close(model.teacher.get_buffer(name), 0.1 * maps.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(model.teacher.get_buffer(name), model.student.get_buffer(name), rtol=0.01)


def test_the_teacher_is_never_trained(model):
    assert not any(one.requires_grad for one in model.teacher.parameters())


def test_labels_of_unlabeled_images_are_not_used(model):
    batch, found = batch_of(model, 1, 0), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for labels in (batch.sem_seg[1].clone(), torch.zeros(64, 96, dtype=torch.int64), torch.full((64, 96), 255)):
        batch.sem_seg[1] = labels
        model.load_state_dict(before)
        torch.manual_seed(3)
        losses = model.training_step(batch, Recorded(50))
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert found[0] == found[1] == found[2] and found[0]["labels/loss_sem_seg"] > 0


def test_only_confident_labels_are_taught_and_only_on_unlabeled_images(model, monkeypatch):
    logits = torch.zeros(5, 64, 96)
    logits[2, :, :48] = 5.0  # probability 0.97; 0.2 elsewhere
    monkeypatch.setattr(model.teacher, "predict", lambda raw, batch: [{"sem_seg": logits}] * len(batch))
    batch = batch_of(model, 1, 0)
    taught = model.taught_labels(batch)
    assert (taught[:, :, :48] == 2).all() and (taught[:, :, 48:] == 255).all()
    step = Recorded(number=0)
    losses = {name: loss.detach() for name, loss in model.training_step(batch, step).items()}
    assert float(losses["confident"]) == 0.5
    # An untrained FCNHead scores all 5 classes alike: ln 5 for each confident pixel, of which there are half.
    assert float(losses["consistency"]) == pytest.approx(math.log(5) / 2, rel=1e-5)
    assert float(step.loss.detach()) == pytest.approx(math.log(5) * (1 + math.exp(-5) / 2), rel=1e-5)
    assert float(model.training_step(batch_of(model, 1, 1), Recorded(0))["consistency"].detach()) == 0


def test_colors_change_evenly_and_padding_stays(example):
    images = torch.randn(4, 3, 40, 60)
    padding = torch.zeros(4, 40, 60, dtype=torch.bool)
    padding[:, :, 50:] = True
    torch.manual_seed(1)
    changed = example.changed_colors(images, padding)
    assert (changed[..., 50:] == 0).all()
    gains = changed[..., :50].std(dim=(2, 3)) / images[..., :50].std(dim=(2, 3))  # (4, 3): of an image all the same
    torch.testing.assert_close(gains, gains[:, :1].expand(-1, 3), rtol=1e-4, atol=0)
    assert gains.min() >= 0.6 and gains.max() <= 1.4
    torch.manual_seed(1)
    assert torch.equal(changed, example.changed_colors(images, padding))


def test_a_quarter_of_each_image_comes_from_the_one_before(example):
    inside = example.rectangles(200, (40, 61), torch.device("cpu"))
    assert (inside.flatten(1).sum(dim=1) == 20 * 30).all()
    assert inside[:, 0].any() and inside[:, -1].any() and inside[..., 0].any() and inside[..., -1].any()
    number = torch.arange(200)[:, None, None].expand(-1, 40, 61)
    mixed = example.cut_mix(number, inside)
    assert torch.equal(mixed[inside], (number[inside] - 1) % 200) and torch.equal(mixed[~inside], number[~inside])
    assert torch.equal(example.cut_mix(number[:, None].expand(-1, 3, -1, -1), inside)[:, 1], mixed)


def test_labels_move_with_what_they_belong_to(model, monkeypatch):
    """Each image has a color, which is the teacher's class: after mixing, each pixel's label is that of its color."""
    batch, seen = batch_of(model, 0, 0, 0), []
    batch.images[:] = torch.arange(3.0)[:, None, None, None]
    scores = [torch.nn.functional.one_hot(torch.full((64, 96), number), 5).movedim(-1, 0) * 9.0 for number in range(3)]
    monkeypatch.setattr(model.teacher, "predict", lambda raw, batch: [{"sem_seg": one} for one in scores])
    monkeypatch.setattr(sys.modules[type(model).__module__], "changed_colors", lambda images, padding_mask: images)
    original = model.student.losses
    monkeypatch.setattr(model.student, "losses", lambda raw, batch: seen.append(batch) or original(raw, batch))
    compute = model.student.compute
    monkeypatch.setattr(model.student, "compute", lambda batch: seen.append(batch) or compute(batch))
    model.training_step(batch, Recorded(0))
    views, _, taught = seen
    assert torch.equal(views.images[:, 0], taught.sem_seg.float()) and len(taught.sem_seg[0].unique()) == 2


def test_the_weight_of_consistency_rises_from_almost_nothing_to_1(example):
    assert [example.ramp_up(done) for done in (0.0, 0.5, 1.0, 3.0)] == pytest.approx(
        [math.exp(-5), math.exp(-1.25), 1, 1]
    )


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_labeled_images_are_the_wanted_share_of_those_drawn(loaded, share):
    dicts = [{"labeled": int(number < 4)} for number in range(1000)]
    drawn = next(SAMPLERS.get("LabeledShareSampler")(share).epochs(dicts, seed=0))
    assert abs((drawn < 4).mean() - share) < 0.05 and (share < 1 or (drawn < 4).all())


def test_the_first_images_are_labeled_and_all_to_evaluate_on(loaded):
    train, val = (FORMATS.get("PartlyLabeledShapes")(2, 5, split, 3, 64).load() for split in ("train", "val"))
    assert [record["labeled"] for record in train] == [1, 1, 0, 0, 0]
    assert [record["labeled"] for record in val] == [1, 1, 1]


def test_it_has_at_most_150_lines_of_code():
    assert code_lines(EXAMPLES / "mean_teacher.py") <= 150


@pytest.mark.e2e
def test_the_whole_path(tmp_path):
    metrics = trained("mean_teacher", tmp_path, *SMALL)
    assert 0 <= metrics["sem_seg/mIoU"] <= 1
    logged = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert {"loss/labels/loss_sem_seg", "loss/consistency", "loss/confident"} <= logged.keys()
    image = next(FORMATS.get("PartlyLabeledShapes")(3, 6, "val", 3, 64).folder.glob("images/val/*.jpg"))
    written = predicted(tmp_path, [str(image)])
    assert f"{image.stem}.png" in {path.name for path in written.files}
