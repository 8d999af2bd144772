"""Mistakes that are easily made, planted one by one: a fast check catches each, in a sentence that names the cause."""

import copy
import unittest
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_decoding import NEIGHBORS, PLANTED_DECODING, PREDICTED
from planted_heads import ALONE, PLANTED_HEADS, OffByOne
from sample_parts import SampleBackbone, SampleHead
from torch import nn
from torch.nn import functional as F

from vertebra.data import Sample, Sampler, ShapesFormat, Transform
from vertebra.models import Backbone, BaseModel, ShapeSpec, semantic_predictions
from vertebra.registry import BACKBONES, FORMATS, HEADS, MODELS, SAMPLERS, TRANSFORMS
from vertebra.testing import (
    BackboneConformance,
    HeadConformance,
    ModelConformance,
    SamplerConformance,
    TransformConformance,
)
from vertebra.testing.moved_sample import make_sample, misplaced, whole_objects

if "SampleBackbone" not in BACKBONES.registered():
    BACKBONES.register(SampleBackbone)


def caught(kit, test, words, **settings):
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        getattr(type("Kit", (kit,), settings)(), test)()


@pytest.mark.parametrize(
    ("cls", "test", "words"), [*PLANTED_HEADS, *PLANTED_DECODING], ids=lambda value: getattr(value, "__name__", None)
)
def test_of_a_head(tmp_path, cls, test, words):
    if cls.__name__ not in HEADS.registered():
        HEADS.register(cls)
    path = tmp_path / "recipe.yaml"
    fields = ", ".join(f"{name}: {{geometry: {geometry}}}" for name, geometry in cls.needs_fields.items())
    model = f"{{backbone: SampleBackbone, heads: {{task: {{name: {cls.__name__}}}}}}}"
    path.write_text(f"model: {model}\ndata: {{fields: {{{fields}}}}}\n")
    caught(HeadConformance, test, words, component=cls.__name__, recipe=str(path))


@pytest.mark.e2e
def test_a_training_whose_loss_falls_while_nothing_is_found_names_the_cause(tmp_path):
    if "OffByOne" not in HEADS.registered():
        HEADS.register(OffByOne)
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {backbone: SampleBackbone, heads: {task: OffByOne}}\n")
    settings = {"component": "OffByOne", "recipe": str(path), "overfit_lr": 5e-3, "overfit_steps": 300}
    words = "The loss falls, but the predictions do not follow, so more steps will not help.*not the classes: class ids"
    caught(HeadConformance, "test_overfits_eight_images", words, **settings)


@HEADS.register()
class ReadsText(SampleHead):
    """Asks for an input and a declared field."""

    needs_inputs = ("text",)
    needs_fields = {"angle": "rotated_box"}

    def forward(self, features, text):
        assert all(one == "circle" for one in text)
        return super().forward(features)

    def losses(self, raw, batch):
        turned = batch.field("angle")[..., 4][batch.gt_valid]
        return super().losses(raw, batch) | {"angle": 0 * raw.sum() + turned.abs().sum() * 0}


@pytest.mark.parametrize("check", [one for one in dir(HeadConformance) if one.startswith("test_")])
def test_a_head_that_asks_for_inputs_and_fields_gets_them(tmp_path, check):
    if "overfits" in check or "trains" in check:
        return  # these need data of its own
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: {backbone: SampleBackbone, heads: {task: ReadsText}}\n"
        "data: {fields: {angle: {geometry: rotated_box}}}\n"
    )
    settings = {"component": "ReadsText", "recipe": str(path), "inputs": {"text": "circle"}}
    getattr(type("Kit", (HeadConformance,), settings)(), check)()


@BACKBONES.register()
class ReadsDepth(SampleBackbone):
    """Asks for a further image, the padding and an input."""

    needs_fields = {"depth": "image"}
    needs_inputs = ("text",)

    def __init__(self) -> None:
        super().__init__()
        self.of_depth = nn.Conv2d(1, 16, 8, 8)

    def forward(self, images, depth, padding_mask, text):
        assert len(text) == len(images) == len(padding_mask)
        return {"res3": self.layers(images) + self.of_depth(depth)}


@BACKBONES.register()
class NormalizesInPlace(SampleBackbone):
    def forward(self, images):
        return super().forward(images.sub_(images.mean()))


@pytest.mark.parametrize("check", [one for one in dir(BackboneConformance) if one.startswith("test_")])
def test_a_backbone_that_asks_for_more_gets_it(check):
    settings = {"component": "ReadsDepth", "inputs": {"text": "circle"}, "images": {"depth": 1}}
    getattr(type("Kit", (BackboneConformance,), settings)(), check)()


@BACKBONES.register()
class RoundsDown(Backbone):
    """Any size; what does not fill a cell is cut off."""

    size_divisibility = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 7, 7)

    def output_shape(self):
        return {"map": ShapeSpec(channels=8, stride=7)}

    def forward(self, images):
        return {"map": self.layer(images)}


@BACKBONES.register()
class AnySize(SampleBackbone):
    """Rounds up, and normalizes over cells."""

    size_divisibility = 1

    def forward(self, images):
        return {"res3": F.instance_norm(self.layers(images))}


@BACKBONES.register()
class Twins(Backbone):
    """Two images through a backbone that it is given."""

    needs_fields = {"after": "image"}

    def __init__(self, encoder: Backbone) -> None:
        super().__init__()
        self.encoder = encoder

    def output_shape(self):
        return self.encoder.output_shape()

    def forward(self, images, after):
        both = self.encoder(torch.cat((images, after)))
        return {name: maps[: len(images)] - maps[len(images) :] for name, maps in both.items()}


@BACKBONES.register()
class CutsTwoCells(RoundsDown):
    def forward(self, images):
        return {"map": self.layer(images[..., 7:, 7:])}


@pytest.mark.parametrize("check", [one for one in dir(BackboneConformance) if one.startswith("test_")])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("RoundsDown", {}),
        ("AnySize", {}),
        ("Twins", {"arguments": {"encoder": {"name": "SampleBackbone"}}, "images": {"after": 3}}),
    ],
)
def test_a_right_backbone_passes(name, settings, check):
    getattr(type("Kit", (BackboneConformance,), {"component": name, **settings})(), check)()


def test_a_backbone_that_rounds_away_a_whole_cell_is_caught():
    caught(BackboneConformance, "test_gives_the_shapes_it_announces", "stride 7 makes", component="CutsTwoCells")
    words = r"stride 7 makes 1 maps of \(3, 3\), or \(2, 2\) where it rounds down"
    caught(BackboneConformance, "test_takes_the_smallest_and_a_long_image", words, component="CutsTwoCells")


def test_a_local_file_of_the_recipe_offers_the_part(tmp_path):
    (tmp_path / "darker.py").write_text(
        "from vertebra import TRANSFORMS\n"
        "from vertebra.data.transforms import ColorTransform\n\n\n"
        "@TRANSFORMS.register()\n"
        "class Darker(ColorTransform):\n"
        "    def draw(self, rng):\n"
        "        return rng.uniform(0.5, 1.0)\n\n"
        "    def recolor(self, pixels, highest, amounts, rng):\n"
        "        return (pixels * amounts).to(pixels.dtype)\n"
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "plugins: [./darker.py]\n"
        "model: {backbone: SampleBackbone, heads: {task: ReadsText}}\n"
        "data: {image: {name: Bands, bands: 13}, train_transforms: [{name: Darker, prob: 1.0, images: [image]}]}\n"
    )
    settings = {"component": "Darker", "arguments": {"prob": 1.0, "images": ["image"]}, "recipe": str(path)}
    type("Kit", (TransformConformance,), settings)().test_images_of_other_kinds()
    words = "reads images with Bands, which the generated data does not have. Set data = 'recipe'"
    caught(TransformConformance, "test_trains_by_its_recipe", words, **settings)


def test_of_a_backbone():
    words = "NormalizesInPlace changes its inputs in place"
    caught(BackboneConformance, "test_leaves_its_inputs_alone", words, component="NormalizesInPlace")


@MODELS.register()
class RightModel(BaseModel):
    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.score = nn.Conv2d(8, num_classes, 1)

    def network(self, images):
        return self.score(F.relu(self.stem(images)))

    def losses(self, raw, batch):
        labeled = (batch.sem_seg != 255).sum().clamp(min=1)
        return {"pixels": F.cross_entropy(raw, batch.sem_seg, ignore_index=255, reduction="sum") / labeled}

    def predict(self, raw, batch):
        return semantic_predictions(raw, batch)

    def export_raw(self, raw, image_size):
        return {"sem_seg_scores": raw}


@MODELS.register()
class CountsSteps(RightModel):
    """Its steps are not a buffer, so that a resumed run begins with the first again."""

    steps = 0

    def losses(self, raw, batch):
        self.steps += 1
        return {name: loss * self.steps for name, loss in super().losses(raw, batch).items()}


@MODELS.register()
class TurnsLabels(RightModel):
    def losses(self, raw, batch):
        found = super().losses(raw, batch)
        batch.sem_seg[:, :4] = 0
        return found


@MODELS.register()
class NamesNothing(RightModel):
    task_outputs = ()


@MODELS.register()
class OwnStep(RightModel):
    """Minimizes by itself; keeps all promises."""

    def training_step(self, batch, step):
        losses = self.losses(self.compute(batch), batch)
        step.minimize("optimizer", losses["pixels"])
        return losses


@MODELS.register()
class Averaged(OwnStep):
    """Predicts with a frozen average of what its step trains; keeps all promises."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.average = copy.deepcopy(nn.Sequential(self.stem, nn.ReLU(), self.score)).requires_grad_(False)

    def network(self, images):
        return self.average(images)

    def training_step(self, batch, step):
        losses = self.losses(super().network(batch.images), batch)
        step.minimize("optimizer", losses["pixels"])
        return losses


@MODELS.register()
class NegativeStep(RightModel):
    """Logs the loss, and minimizes its opposite."""

    def training_step(self, batch, step):
        losses = self.losses(self.compute(batch), batch)
        step.minimize("optimizer", -losses["pixels"])
        return losses


@MODELS.register()
class StepCountsPadding(OwnStep):
    def losses(self, raw, batch):
        return {name: loss / batch.gt_boxes.shape[1] for name, loss in super().losses(raw, batch).items()}


@MODELS.register()
class StepMirrors(OwnStep):
    def predict(self, raw, batch):
        return super().predict(raw.flip(3), batch)


@MODELS.register()
class MeanOfBatch(RightModel):
    def network(self, images):
        return super().network(images - images.mean(dim=(0, 2, 3), keepdim=True))


@MODELS.register()
class NeverMinimizes(RightModel):
    def training_step(self, batch, step):
        return self.losses(self.compute(batch), batch)


@FORMATS.register()
class PartlyLabeled(ShapesFormat):
    extra_fields = {"labeled": {"geometry": "scalar", "of": "image"}}


@MODELS.register()
class ReadsLabeled(RightModel):
    """Asks for a field of the image that the recipe's format declares."""

    needs_fields = {"labeled": "scalar"}

    def losses(self, raw, batch):
        assert batch.field("labeled").shape == (len(batch),)
        return super().losses(raw, batch)


@pytest.mark.parametrize("check", ["test_every_parameter_gets_a_gradient", "test_images_without_objects"])
def test_a_model_gets_the_fields_of_the_recipes_format(tmp_path, check):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name: ReadsLabeled}\ndata: {train: {format: PartlyLabeled}}\n")
    getattr(type("Kit", (ModelConformance,), {"component": "ReadsLabeled", "recipe": str(path)})(), check)()


def test_nothing_is_fitted_where_frozen_parts_predict(tmp_path):
    settings = {"component": "Averaged", "recipe": model_recipe(tmp_path, "Averaged")}
    with pytest.raises(unittest.SkipTest, match=r"Averaged.* predicts with frozen parts"):
        type("Kit", (ModelConformance,), settings)().test_what_is_learned_is_what_is_predicted()


def model_recipe(folder, name):
    path = folder / f"{name}.yaml"
    path.write_text(f"model: {{name: {name}}}\nevaluate: {{evaluators: [SemSegEvaluator]}}\n")
    return str(path)


@pytest.mark.parametrize("name", ["RightModel", "OwnStep"])
@pytest.mark.parametrize(
    "check", [one for one in dir(ModelConformance) if one.startswith("test_") and "overfit" not in one]
)
def test_a_right_model_passes(tmp_path, name, check):
    getattr(type("Kit", (ModelConformance,), {"component": name, "recipe": model_recipe(tmp_path, name)})(), check)()


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("CountsSteps", "test_a_resumed_training_ends_as_an_uninterrupted_one", "belongs in a buffer"),
        ("TurnsLabels", ALONE, "changes the batch in place.*sem_seg"),
        ("NamesNothing", "test_builds_from_its_recipe", "task_outputs is empty"),
        ("NegativeStep", "test_losses_are_not_negative", 'step.minimize."optimizer". is -.*Is its sign reversed'),
        ("NegativeStep", PREDICTED, "The loss is negative: is its sign reversed"),
        ("StepCountsPadding", "test_padded_ground_truth_changes_no_loss", 'change the loss step.minimize."optimizer"'),
        ("StepMirrors", PREDICTED, "mirrored from left to right"),
        ("MeanOfBatch", NEIGHBORS, "sem_seg of an image depends on the other images"),
        ("NeverMinimizes", "test_every_parameter_gets_a_gradient", "has not called step.minimize"),
    ],
)
def test_of_a_model(tmp_path, name, test, words):
    caught(ModelConformance, test, words, component=name, recipe=model_recipe(tmp_path, name))


@SAMPLERS.register()
class Ends(Sampler):
    def epochs(self, dicts, seed):
        yield np.arange(len(dicts))


@SAMPLERS.register()
class CountsFromOne(Sampler):
    def epochs(self, dicts, seed):
        while True:
            yield np.random.default_rng(seed).permutation(len(dicts)) + 1


@SAMPLERS.register()
class DrawsFromAnywhere(Sampler):
    def epochs(self, dicts, seed):
        while True:
            yield torch.randperm(len(dicts)).numpy()


@SAMPLERS.register()
class HalfLength(Sampler):
    def epochs(self, dicts, seed):
        rng = np.random.default_rng(seed)
        while True:
            yield rng.permutation(len(dicts))[: len(dicts) // 2]


@SAMPLERS.register()
class SameEachEpoch(Sampler):
    def epochs(self, dicts, seed):
        while True:
            yield np.random.default_rng(seed).permutation(len(dicts))


@SAMPLERS.register()
class LosesOne(Sampler):
    def epochs(self, dicts, seed):
        rng = np.random.default_rng(seed)
        while True:
            yield rng.permutation(max(1, len(dicts) - 1))


@SAMPLERS.register()
class OnlyFull(Sampler):
    """Images with objects alone; refuses a dataset that has none."""

    words = "OnlyFull: no image has objects"

    def epochs(self, dicts, seed):
        full = [index for index, one in enumerate(dicts) if one.get("annotations")]
        if not full:
            raise ValueError(self.words)
        rng = np.random.default_rng(seed)
        while True:
            yield rng.permutation(full)

    def epoch_length(self, dicts):
        return sum(bool(one.get("annotations")) for one in dicts)


@SAMPLERS.register()
class Crashes(OnlyFull):
    words = "a cannot be empty unless no samples are taken"


@pytest.mark.parametrize(
    ("name", "settings"),
    [("OnlyFull", {}), ("SameEachEpoch", {"shuffles": False}), ("LosesOne", {"skips_images": True})],
)
@pytest.mark.parametrize("check", [one for one in dir(SamplerConformance) if one.startswith("test_")])
def test_a_sampler_that_does_what_it_is_meant_to_passes(name, settings, check):
    getattr(type("Kit", (SamplerConformance,), {"component": name, **settings})(), check)()


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("SameEachEpoch", "test_epochs_differ", "make the generator once, before the loop over epochs"),
        ("LosesOne", "test_every_image_comes", "indices 39 have not come in .*set skips_images = True"),
        ("Crashes", "test_images_without_objects", "ends with ValueError: a cannot .*says what the images must have"),
        ("Ends", "test_epochs_are_indices_without_end", "ended after 1 epochs; it must go on without end"),
        ("CountsFromOne", "test_epochs_are_indices_without_end", "indices from 1 to 40, expected 0 to 39"),
        ("DrawsFromAnywhere", "test_the_seed_alone_decides", "Make the generator in `epochs`, from its seed"),
        ("HalfLength", "test_the_length_is_the_mean_of_the_epochs", "epoch_length is 40, but epochs have 20"),
    ],
)
def test_of_a_sampler(name, test, words):
    caught(SamplerConformance, test, words, component=name)


@TRANSFORMS.register()
class FlipsPixelsAlone(Transform):
    def __call__(self, sample, rng):
        sample.image = sample.image.flip(2)
        return sample


@TRANSFORMS.register()
class MovesBoxesAlone(Transform):
    def __call__(self, sample, rng):
        sample.boxes = sample.boxes + 20
        return sample


@TRANSFORMS.register()
class GlobalRandom(Transform):
    def __call__(self, sample, rng):
        return sample.flip(horizontal=bool(np.random.random() < 0.5))


@TRANSFORMS.register()
class WritesInto(Transform):
    def __call__(self, sample, rng):
        sample.image[:, :5] = 0
        return sample


@TRANSFORMS.register()
class ForgetsToReturn(Transform):
    def __call__(self, sample, rng):
        sample.flip(horizontal=True)


@TRANSFORMS.register()
class NewSample(Transform):
    def __call__(self, sample, rng):
        return Sample(sample.image, sample.boxes, sample.polygons, keypoints=sample.keypoints, rows=sample.rows)


@TRANSFORMS.register()
class FlipsEverySecond(Transform):
    calls = 0

    def __call__(self, sample, rng):
        self.calls += 1
        return sample.flip(horizontal=self.calls % 2 == 0)


@TRANSFORMS.register()
class LeftStaysLeft(Transform):
    def __call__(self, sample, rng):
        points = sample.keypoints.copy()
        points[..., 0] = sample.size[1] - points[..., 0]
        sample.flip(horizontal=True).keypoints = points
        return sample


@TRANSFORMS.register()
class LinearLabels(Transform):
    def __call__(self, sample, rng):
        labels = F.interpolate(sample.sem_seg[None, None].float(), (60, 90), mode="bilinear")[0, 0]
        sample.resize(60, 90).sem_seg = labels.round().byte()
        return sample


@TRANSFORMS.register()
class PadsLabelsWithGround(Transform):
    def __call__(self, sample, rng):
        labels = F.pad(sample.sem_seg, (0, 30, 0, 20), value=0)
        sample.pad(0, 0, 20, 30).sem_seg = labels
        return sample


@TRANSFORMS.register()
class MovesAMask(Transform):
    """Its middle stays in the object."""

    def __call__(self, sample, rng):
        field = sample.fields["pixels"]
        sample.fields["pixels"] = replace(field, bitmasks=field.bitmasks.roll(6, 2))
        return sample


@TRANSFORMS.register()
class MovesLabels(Transform):
    def __call__(self, sample, rng):
        sample.sem_seg = sample.sem_seg.roll(7, 1)
        return sample


@TRANSFORMS.register()
class ForgetsTheMatrix(Transform):
    def __call__(self, sample, rng):
        matrix = sample.matrix
        sample.crop(10, 10, 80, 110).matrix = matrix
        return sample


@TRANSFORMS.register()
class LeavesTheRegion(Transform):
    def __call__(self, sample, rng):
        region = sample.fields["region"]
        sample.crop(10, 10, 80, 110).fields["region"] = region
        return sample


@pytest.mark.filterwarnings("error")
def test_the_kits_own_sample_is_made_without_warnings():
    assert whole_objects(make_sample()).all()


def test_the_kits_own_sample_is_where_it_belongs():
    assert not misplaced(make_sample())


ALIKE = "test_moves_every_geometry_alike"


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("NewSample", ALIKE, "loses corners, depth, .*return the sample that is given, changed, and not a new one"),
        ("FlipsEverySecond", "test_the_generator_alone_decides", "keep no state between calls"),
        ("LeftStaysLeft", ALIKE, "left and right keypoints do not change places where the image is mirrored"),
        ("LinearLabels", ALIKE, "sem_seg has values that it did not have before.*take the nearest pixel's"),
        ("PadsLabelsWithGround", ALIKE, "sem_seg has the label 0 where the image was padded, expected .*255"),
        ("MovesAMask", ALIKE, "the mask pixels of object 0 is not the area in its polygon"),
        ("MovesLabels", ALIKE, r"sem_seg has the values \[0, 40\] in the polygon of object 0, expected 40"),
        ("ForgetsTheMatrix", ALIKE, "sample.matrix is 14 pixels off.*sample.matrix = move @ sample.matrix"),
        ("LeavesTheRegion", ALIKE, "the box region, of the whole image"),
        ("FlipsPixelsAlone", "test_moves_every_geometry_alike", "the pixels move and the labels stay"),
        ("MovesBoxesAlone", "test_moves_every_geometry_alike", "but its box boxes at"),
        ("GlobalRandom", "test_the_generator_alone_decides", "draw what is random from `rng`"),
        ("WritesInto", "test_what_it_is_given_stays_as_it_is", "writes into the image it is given"),
        (
            "ForgetsToReturn",
            "test_moves_every_geometry_alike",
            "returns a NoneType, expected the Sample: return sample",
        ),
    ],
)
def test_of_a_transform(name, test, words):
    caught(TransformConformance, test, words, component=name)
