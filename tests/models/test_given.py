"""What `forward` names by a reserved parameter name it gets; all else that it requires is an error at registration."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vertebra import (
    BACKBONES,
    HEADS,
    MODELS,
    Backbone,
    BaseModel,
    DataError,
    ExportError,
    Head,
    Model,
    Neck,
    PluginError,
    Predictor,
    Trainer,
    build_model,
    load_recipe,
)
from vertebra.export import export_onnx
from vertebra.export.graph import ExportGraph
from vertebra.models import ShapeSpec

SHAPES = {"map": ShapeSpec(3, 4)}


class Pooled(Backbone):
    def output_shape(self):
        return SHAPES

    def forward(self, images):
        return {"map": nn.functional.avg_pool2d(images, 4)}


class Told(Head):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(3, 1, 1)


class Plain(Told):
    def forward(self, features):
        return self.score(features["map"])


class Everything(Told):
    needs = ("plain",)
    needs_inputs = ("text",)

    def forward(self, features, batch, padding_mask, raw, text):
        self.told = {"batch": batch, "padding_mask": padding_mask, "raw": raw, "text": text}
        return self.score(features["map"])


class MasksOnly(Told):
    def forward(self, features, padding_mask):
        kept = nn.functional.avg_pool2d((~padding_mask).float()[:, None], 4)
        return self.score(features["map"]) * kept

    def export_raw(self, raw, image_size):
        return {"score": raw}


def image(height, width, **more):
    return {"image": torch.full((3, height, width), 9, dtype=torch.uint8), **more}


INPUTS = [image(4, 8, text=["cat"]), image(8, 6, text=["dog", "cow"])]


def test_a_head_gets_what_its_forward_names():
    model = Model(Pooled(), None, {"all": Everything(), "plain": Plain()}).eval()  # `plain` runs first all the same
    batch = model.make_batch(INPUTS)
    raw = model.compute(batch)
    told = model.heads["all"].told
    assert list(raw) == ["all", "plain"]
    assert told["batch"] is batch
    assert told["raw"].keys() == {"plain"} and told["raw"]["plain"] is raw["plain"]
    assert told["text"] == [["cat"], ["dog", "cow"]]
    expected = torch.ones(2, 8, 8, dtype=torch.bool)
    expected[0, :4, :] = False  # 4 x 8 pixels of 8 x 8
    expected[1, :, :6] = False
    assert torch.equal(told["padding_mask"], expected)


def test_necks_and_backbones_get_it_too():
    class Masked(Neck):
        def output_shape(self):
            return SHAPES

        def forward(self, features, padding_mask, batch=None):
            assert batch is not None
            return {"map": features["map"] * ~padding_mask[:, None, ::4, ::4]}

    class Reading(Pooled):
        needs_inputs = ("text",)

        def forward(self, images, text):
            assert text == [["cat"], ["dog", "cow"]]
            return super().forward(images)

    model = Model(Reading(), Masked(), {"plain": Plain()}).eval()
    features = model.features(model.make_batch(INPUTS))["map"]
    assert features[0, :, 1].eq(0).all() and features[0, :, 0].ne(0).all()


def test_a_whole_models_network_gets_it_too():
    class Whole(BaseModel):
        needs_inputs = ("text",)

        def network(self, images, padding_mask, text, batch=None):
            return images, padding_mask, text, batch

    model = Whole()
    batch = model.make_batch(INPUTS)
    images, mask, text, given = model.compute(batch)
    assert images is batch.images and given is batch and text == [["cat"], ["dog", "cow"]]
    assert torch.equal(mask, batch.padding_mask)


def test_content_that_was_padded_before_is_not_masked_as_image():
    model = Model(Pooled(), None, {"plain": Plain()})
    mask = model.make_batch([image(8, 8, content_size=(8, 5))]).padding_mask
    assert mask[0].all(dim=0).tolist() == [False] * 5 + [True] * 3


def test_optional_parameters_get_what_there_is():
    class Optional(Told):
        needs_inputs = ("text",)

        def forward(self, features, text="nothing", batch="no batch", scale=2.0):
            return text, batch, scale

    model = Model(Pooled(), None, {"one": Optional()}).eval()
    assert model.compute(torch.zeros(1, 3, 8, 8))["one"] == ("nothing", "no batch", 2.0)
    batch = model.make_batch([image(8, 8)])
    assert model.compute(batch)["one"] == ("nothing", batch, 2.0)
    assert model.extra_inputs == {"text": False}


def test_a_missing_input_is_named():
    class Asking(Told):
        needs_inputs = ("text",)

        def forward(self, features, text):
            return text

    model = Model(Pooled(), None, {"one": Asking()})
    with pytest.raises(DataError, match=r"input 1 of the batch \(b\.jpg\) has no 'text', which Asking takes"):
        model.compute(model.make_batch([image(8, 8, text="a"), image(8, 8, file_name="b.jpg")]))


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("targets", r"<string>:2: head Odd: forward requires 'targets', which nothing gives it"),
        ("padding_masks", r"Is it 'padding_mask'\?"),
        ("text", r"needs_inputs \('text',\)"),
    ],
)
def test_a_parameter_that_nothing_gives_is_an_error_at_registration(parameter, words):
    space = {"Head": Head}
    exec(f"class Odd(Head):\n    def forward(self, features, {parameter}): ...", space)
    with pytest.raises(PluginError, match=f"(?s){words}"):
        HEADS.register()(space["Odd"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "needs_inputs = 'text'\n    def forward(self, features, text): ...",
            r"needs_inputs is 'text', expected a tuple",
        ),
        (
            "needs_inputs = ('text',)\n    def forward(self, features, txt=None): ...",
            r"forward has no parameter of that",
        ),
        (
            "needs_inputs = ('times',)\n    def forward(self, features, times): ...",
            r"'times', which means something else",
        ),
        ("def forward(self, features, padding_mask, /): ...", r"takes 'padding_mask' by position only"),
        ("def forward(self, *features, targets): ...", r"requires 'targets', which nothing gives"),
    ],
)
def test_inputs_and_signatures_that_cannot_work_are_errors_at_registration(body, words):
    space = {"Head": Head}
    exec(compile(f"class Odd(Head):\n    {body}", "odd.py", "exec"), space)
    with pytest.raises(PluginError, match=rf"odd\.py:[23]: head Odd: .*{words}"):
        HEADS.register()(space["Odd"])


def test_a_mask_that_is_required_is_not_made_up():
    model = Model(Pooled(), None, {"one": MasksOnly()}).eval()
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(PluginError, match=r"requires 'padding_mask', but was given images alone: .*padding_mask\)"):
        model.compute(images)
    assert model.compute(images, torch.zeros(1, 8, 8, dtype=torch.bool))["one"].shape == (1, 1, 2, 2)


def test_what_nothing_gives_is_not_asked_of_the_data():
    class Odd(Told):  # not registered, so not checked before
        def forward(self, features, targets):
            return targets

    model = Model(Pooled(), None, {"one": Odd()})
    with pytest.raises(PluginError, match=r"Odd requires 'targets', which is not an input in its needs_inputs"):
        model.compute(model.make_batch([image(8, 8, targets=1)]))


def test_each_kind_is_checked_at_registration():
    class OddBackbone(Pooled):
        def forward(self, images, raw):
            return images

    class OddModel(BaseModel):
        def network(self, images, features):
            return images

    with pytest.raises(PluginError, match=r"forward requires 'raw', which nothing gives"):
        BACKBONES.register(OddBackbone)
    with pytest.raises(PluginError, match=r"network requires 'features', which nothing gives"):
        MODELS.register(OddModel)

    class WithDepth(Pooled):
        needs_fields = {"depth": "image"}

        def forward(self, images, depth):
            return images

    assert BACKBONES.register(WithDepth) is WithDepth


def test_heads_that_cannot_be_ordered():
    class Needs(Told):
        def __init__(self, *needs, training_only=False):
            super().__init__()
            self.needs, self.training_only = needs, training_only

        def forward(self, features, raw):
            return raw

    with pytest.raises(PluginError, match=r"needs the raw outputs of the head 'plan'\.\n  Heads beside it: plain"):
        Model(Pooled(), None, {"a": Needs("plan"), "plain": Plain()})
    with pytest.raises(PluginError, match=r"heads a, b need each other's raw outputs in a circle"):
        Model(Pooled(), None, {"a": Needs("b"), "b": Needs("a")})
    with pytest.raises(PluginError, match=r"`needs` names no head"):
        Model(Pooled(), None, {"a": Needs()})
    with pytest.raises(PluginError, match=r"the head 'a', which is for training only"):
        Model(Pooled(), None, {"a": Needs("plain", training_only=True), "plain": Plain(), "b": Needs("a")})


def test_a_head_may_be_added_later_and_one_that_is_only_trained_asks_a_predictor_for_nothing():
    class Aux(Told):
        needs_inputs = ("text",)
        training_only = True

        def forward(self, features, text):
            return text

    class Seen(Model):
        def features(self, batch):
            self.asked = True
            return super().features(batch)

    model = Seen(Pooled(), None, {"plain": Plain(), "aux": Aux()}).eval()
    model.heads["later"] = Plain()
    assert list(model.compute(torch.zeros(1, 3, 8, 8))) == ["plain", "later"] and model.asked
    assert model.extra_inputs == {}


def test_an_optional_input_is_given_to_all_of_a_batch_or_to_none():
    class Optional(Told):
        needs_inputs = ("text",)

        def forward(self, features, text=None):
            return text

    model = Model(Pooled(), None, {"one": Optional()})
    with pytest.raises(DataError, match=r"input 1 of the batch has no 'text'"):
        model.compute(model.make_batch([image(8, 8, text="a"), image(8, 8)]))


def test_export_refuses_ground_truth_and_inputs_and_makes_the_padding_mask(tmp_path):
    for head, words in (
        (Everything(), "Everything takes the batch with its ground truth in forward"),
        (
            type("T", (Told,), {"needs_inputs": ("text",), "forward": lambda self, features, text: text})(),
            "T takes 'text'",
        ),
    ):
        with pytest.raises(ExportError, match=words):
            export_onnx(Model(Pooled(), None, {"plain": Plain(), "one": head}), tmp_path / "m.onnx", form="raw")
    model = Model(Pooled(), None, {"one": MasksOnly()}).eval()
    report = export_onnx(model, tmp_path / "m.onnx", form="raw", size=(10, 14), dynamic=True)  # padded to 12 x 16
    assert report.comparisons and all(one.agrees for one in report.comparisons)
    batch = model.make_batch([image(10, 14)])
    same = ExportGraph(model, "raw", 255)(batch.inputs[0]["image"][None].float())["score"]
    torch.testing.assert_close(same, model.compute(batch)["one"])


PROMPTS = """
import torch
from torch import nn
from vertebra import HEADS, Head, Instances
from vertebra.structures import Boxes

@HEADS.register()
class Prompted(Head):
    '''Scores by how often a prompt's first letter is given: a toy.'''
    task_outputs = ("instances",)
    needs_inputs = ("text",)
    def __init__(self, input_shape, num_classes) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))
    def forward(self, features, text):
        return [self.one * len(words) for words in text]
    def losses(self, raw, batch):
        return {"loss": sum(raw).sum()}
    def predict(self, raw, batch):
        return [{"instances": Instances(size, pred_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4]])), scores=one.clamp(max=1),
            pred_classes=torch.zeros(1).long())} for one, size in zip(raw, batch.original_sizes)]
"""
RECIPE = """
plugins: [prompted.py]
model: {backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res2], weights: null},
  heads: {boxes: {name: Prompted}}}
data:
  train: {format: shapes, images: 4, split: train, size: 64}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 1, batch_size: 2, device: cpu, amp: "off"}
"""


def test_a_predictor_takes_further_inputs(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompted.py").write_text(PROMPTS)
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = load_recipe("r.yaml")
    with pytest.raises(DataError, match=r"0000001\.jpg has no 'text', which .*head Prompted takes"):
        Trainer(recipe, "run").train()
    torch.save(build_model(recipe, num_classes=3).state_dict(), "w.pth")
    predictor = Predictor(recipe, "w.pth")
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    assert len(predictor(picture, text=["cat", "dog"])["instances"]) == 1
    with pytest.raises(DataError, match=r"was not given text\. Beside images it takes: text"):
        predictor(picture)
    with pytest.raises(DataError, match=r"does not take txt\. Beside images it takes: text"):
        predictor(picture, txt=["cat"])
    (found,) = predictor.stream(picture, inputs={"text": ["cat"]})
    assert len(found.outputs["instances"]) == 1
    Image.fromarray(picture).save("a.png")
    base = ("predict", "r.yaml", "a.png", "-w", "w.pth", "--save", "csv", "-o")
    command_line(*base, "out", "--input", "text=[cat, dog]", cwd=tmp_path, code=0)
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 2
    assert "was not given text" in command_line(*base, "two", cwd=tmp_path, code=2).stderr
    twice = ("--input", "text=[a]", "--input", "text=[b]")
    assert "--input text is given twice" in command_line(*base, "two", *twice, cwd=tmp_path, code=2).stderr
    assert "expected NAME=VALUE" in command_line(*base, "two", "--input", "text", cwd=tmp_path, code=2).stderr
