"""Whole models as components: in a recipe, trained, resumed, predicted, evaluated and exported as any model is."""

import json

import pytest
import torch

from vertebra import BaseModel, Hook, Model, PluginError, Predictor, RecipeError, Trainer, build_model, load_recipe
from vertebra.data import Metadata
from vertebra.export import export_onnx
from vertebra.models.follow_classes import follow_classes

PLUGIN = '''
import torch
from torch import nn
from torch.nn import functional as F
from vertebra import BACKBONES, MODELS, Backbone, BaseModel, Head, Model, Neck, ShapeSpec
from vertebra.models.semantic import semantic_predictions

@MODELS.register()
class Pixels(BaseModel):
    """Labels each pixel, without backbone, neck or head."""
    task_outputs = ("sem_seg",)
    labels = "stuff"

    def __init__(self, num_classes: int, in_channels: int, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.score = nn.Conv2d(width, num_classes, 1)

    def network(self, images):
        return self.score(F.relu(self.stem(images)))

    def losses(self, raw, batch):
        return {"loss_pixels": F.cross_entropy(raw, batch.sem_seg, ignore_index=255)}

    def predict(self, raw, batch):
        return semantic_predictions(raw, batch)

    def export_raw(self, raw, image_size):
        return {"sem_seg_scores": raw}

@MODELS.register()
class Distilled(BaseModel):
    """A student that learns from a frozen teacher as well."""
    task_outputs = ("instances",)

    def __init__(self, student: Model, teacher: Model, weight: float = 1.0) -> None:
        super().__init__()
        self.student, self.teacher, self.weight = student, teacher.requires_grad_(False), weight

    def compute(self, batch):
        return self.student.compute(batch)

    def losses(self, raw, batch):
        with torch.no_grad():
            known = self.teacher.features(batch)["res4"]
        distance = F.mse_loss(self.student.backbone(batch.images)["res4"], known)
        return {**self.student.losses(raw, batch), "loss_distill": self.weight * distance}

    def predict(self, raw, batch):
        return self.student.predict(raw, batch)

@MODELS.register()
class Chain(BaseModel):
    """Parts of other names than a Model has."""
    def __init__(self, head: Head, reducer: Neck, encoder: Backbone) -> None: super().__init__()
@MODELS.register()
class Ordered(BaseModel):
    def __init__(self, encoder: Backbone, reducer: Neck, head: Head) -> None:
        super().__init__()
        self.encoder, self.reducer, self.head = encoder, reducer, head

@MODELS.register()
class Several(BaseModel):
    """Models in a list and in a dict."""
    def __init__(self, members: list[Model], others: dict[str, Model]) -> None:
        super().__init__()
        self.members, self.others = nn.ModuleList(members), nn.ModuleDict(others)

@MODELS.register()
class NoLosses(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 1, 1)
    def network(self, images): return self.stem(images)

@MODELS.register()
class Wrapped(BaseModel):
    def __init__(self, inner: BaseModel, odd: Pixels | None = None) -> None:
        super().__init__()
        self.inner = inner

@MODELS.register()
class Segmenter(BaseModel):
    labels = "stuff"
    def __init__(self, num_classes: int, encoder: Backbone, head: Head) -> None:
        super().__init__()
        self.num_classes, self.encoder, self.head = num_classes, encoder, head

@MODELS.register()
class EverySegment(Pixels):
    labels = "all"
    task_outputs = ("panoptic_seg",)

@MODELS.register()
class Odd(nn.Module): ...
'''
SEMANTIC = """
plugins: [parts.py]
model: {name: Pixels, width: 4}
data:
  train: {format: shapes, images: 8, split: train, size: 64, labels: [semantic]}
  val: {format: shapes, images: 8, val_images: 3, split: val, size: 64, labels: [semantic]}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 4, batch_size: 2, device: cpu, amp: "off", checkpoint_every: 2}
evaluate: {evaluators: [SemSegEvaluator], report: false}
"""
PARTS = """{
    backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res4], weights: null},
    neck: {name: FPN, out_channels: 8}, heads: {boxes: {name: RetinaNetHead, num_convs: 0}}}"""
DETECTION = """
plugins: [parts.py]
model:
  name: Distilled
  student: <parts>
  teacher: {name: Model, backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res4], weights: null}, heads: {
    boxes: {name: RetinaNetHead, num_convs: 0}}}
  pixel_mean: [1, 2, 3]
  pixel_order: bgr
data:
  train: {format: shapes, images: 8, split: train, size: 64}
  val: {format: shapes, images: 8, val_images: 3, split: val, size: 64}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 2, batch_size: 2, device: cpu, amp: "off", log_every: 1}
evaluate: {report: false}
"""


class Stopped(Hook):
    def before_step(self, trainer):
        if trainer.step == 2:
            raise RuntimeError("stopped")


SEMANTIC_FACTS = Metadata("s").set(thing_classes=["a"], stuff_classes=["a", "sky", "sea"])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.py").write_text(PLUGIN)
    (tmp_path / "r.yaml").write_text(SEMANTIC)
    (tmp_path / "d.yaml").write_text(DETECTION.replace("<parts>", PARTS))
    return tmp_path


def test_a_whole_model_is_trained_evaluated_predicted_and_resumed_to_the_same_bits(folder):
    results = Trainer(load_recipe("r.yaml"), "one").train()
    assert results["loss"] > 0 and 0 <= results["sem_seg/mIoU"] <= 1
    with pytest.raises(RuntimeError, match="stopped"):
        Trainer(load_recipe("r.yaml"), "two", hooks=[Stopped()]).train()
    Trainer(load_recipe("r.yaml"), "two", resume=True).train()
    one, two = (torch.load(f"{run}/final.pth", weights_only=True)["model"] for run in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)

    predictor = Predictor("one/recipe.yaml", "one/final.pth")
    scores = predictor(torch.zeros(40, 56, 3, dtype=torch.uint8).numpy())["sem_seg"]
    assert scores.shape[-2:] == (40, 56) and scores.shape[0] == predictor.model.score.out_channels
    saved = load_recipe("one/recipe.yaml")
    assert saved.model.whole.name == "Pixels" and saved.model == load_recipe("r.yaml").model


def test_num_classes_are_those_that_the_model_asks_for():
    model = build_model(load_recipe("r.yaml"), metadata=SEMANTIC_FACTS)
    assert model.score.out_channels == 3 and model.metadata is SEMANTIC_FACTS
    assert build_model(load_recipe("r.yaml"), num_classes=7).score.out_channels == 7


def test_a_model_may_ask_for_the_channels_of_the_images():
    recipe = load_recipe("r.yaml", ["data.image={name: Gray}", "model.pixel_mean=[100]", "model.pixel_std=[50]"])
    model = build_model(recipe, metadata=SEMANTIC_FACTS)
    assert model.stem.in_channels == 1 and model.pixels["image"].channels == 1


def test_a_model_that_does_not_ask_for_them_has_its_first_convolution_adapted():
    gray = ["data.image={name: Gray}", "model={name: NoLosses, pixel_mean: [100], pixel_std: [50]}"]
    assert build_model(load_recipe("r.yaml", gray)).stem.weight.shape == (1, 1, 1, 1)


def test_models_nest_by_annotation_and_normalize_as_the_outer_one(folder):
    recipe = load_recipe("d.yaml")
    model = build_model(recipe, num_classes=3)
    assert isinstance(model.student, Model) and isinstance(model.teacher, Model)
    assert model.student.pixels == model.pixels and model.student.pixel_order == "bgr"
    assert model.pixel_mean.flatten().tolist() == [1, 2, 3]
    assert set(model.parts()) == {
        *("student.backbone", "student.neck", "student.heads.boxes"),
        *("teacher.backbone", "teacher.heads.boxes"),
    }
    assert set(recipe.model.parts) == set(model.parts())
    assert model.size_divisibility == 16 and not any("pixel" in key for key in model.state_dict())
    results = Trainer(recipe, "run").train()
    lines = map(json.loads, (folder / "run/metrics.jsonl").read_text().splitlines())
    assert {"loss/boxes/loss_cls", "loss/loss_distill"} <= {
        key for line in lines for key in line
    } and "bbox/AP" in results
    assert "instances" in Predictor("run/recipe.yaml", "run/final.pth")(torch.zeros(64, 64, 3).byte().numpy())


def test_backbones_and_necks_give_their_shapes_to_what_stands_after_them(folder):
    parts = (
        "head: {name: RetinaNetHead, num_convs: 0}, reducer: {name: FPN, out_channels: 8}, "
        "encoder: {name: ResNet, depth: 18, out_features: [res3, res4], weights: null}"
    )
    recipe = load_recipe("r.yaml", [f"model={{name: Ordered, {parts}}}"])  # the order of the arguments counts
    model = build_model(recipe, num_classes=2)
    assert model.head.cls_score.in_channels == 8
    with pytest.raises(RecipeError, match=r"head RetinaNetHead takes `input_shape`.*not known here"):
        build_model(load_recipe("r.yaml", [f"model={{name: Chain, {parts}}}"]), num_classes=2)


def test_models_nest_in_lists_and_dicts(folder):
    parts = PARTS.replace("\n", " ")
    recipe = load_recipe("r.yaml", [f"model={{name: Several, members: [{parts}, {parts}], others: {{one: {parts}}}}}"])
    model = build_model(recipe, num_classes=2)
    inside = ("backbone", "neck", "heads.boxes")
    expected = {f"{place}.{part}" for place in ("members.0", "members.1", "others.one") for part in inside}
    assert set(model.parts()) == expected == set(recipe.model.parts)
    assert model.size_divisibility == 16  # of the members, whose coarsest stride it is


def test_a_whole_model_exports_what_it_says(folder):
    model = build_model(load_recipe("r.yaml"), metadata=SEMANTIC_FACTS).eval()
    report = export_onnx(model, "m.onnx", form="raw", size=(32, 48))
    assert report.outputs == {"sem_seg_scores": [1, 3, 32, 48]}
    with pytest.raises(Exception, match=r"Pixels has no end-to-end export: it has no method export_predictions"):
        export_onnx(model, "n.onnx", size=(32, 48))


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("r.yaml", ["model.widht=3"], r"model\.widht: Pixels has no such argument.*Nearest: width"),
        ("r.yaml", ["model.wieghts=3"], r"model\.wieghts: Pixels has no such argument.*Nearest: weights"),
        (
            "r.yaml",
            ["model.batch_size=3"],
            r"model\.batch_size: Pixels has no such argument.*Nearest: train\.batch_size",
        ),
        ("r.yaml", ["model.name=Pixel"], r"no model has the name 'Pixel'.*Nearest: Pixels"),
        ("r.yaml", ["model.name=ResNet"], "ResNet is a backbone; you asked for a model"),
        ("r.yaml", ["model.in_channels=3"], "model.in_channels is set by the framework"),
        ("r.yaml", ["model.pixel_std=[1, 2]"], "pixel_std has 2 values, but pixel_mean has 3"),
        ("d.yaml", ["model.student.pixel_mean=[1, 2, 3]"], r"model\.student\.pixel_mean is set by the framework"),
        ("d.yaml", ["model.student.heads=null"], r"model\.student\.heads is missing, expected at least one head"),
        ("d.yaml", ["model.student.heads={a-b: RetinaNetHead}"], r"model\.student\.heads has a head called 'a-b'"),
        ("d.yaml", ["model.teacher={name: Pixels}"], r"model\.teacher: Pixels is a model, but not a Model"),
        ("d.yaml", ["model.student.backbone.dept=18"], r"model\.student\.backbone\.dept: ResNet has no such argument"),
    ],
)
def test_mistakes_in_the_block_of_a_whole_model_and_of_nested_ones(recipe, overrides, words):
    with pytest.raises(RecipeError, match=f"(?s){words}"):
        load_recipe(recipe, overrides)


def test_a_model_without_a_method_is_named_before_the_first_step():
    with pytest.raises(PluginError, match=r"model \(.*NoLosses\) has no method losses\(raw, batch\)"):
        Trainer(load_recipe("r.yaml", ["model={name: NoLosses}"]), "run")
    with pytest.raises(PluginError, match=r"model Odd is not a vertebra\.models\.BaseModel"):
        build_model(load_recipe("r.yaml", ["model={name: Odd}"]), num_classes=2)


def test_another_model_laid_over_a_base_replaces_it_whole(folder):
    (folder / "base.yaml").write_text(f"model: {PARTS}\n")
    (folder / "over.yaml").write_text("_base_: base.yaml\nplugins: [parts.py]\nmodel: {name: Pixels}\n")
    assert load_recipe("over.yaml").model.whole.arguments == {}
    (folder / "same.yaml").write_text("_base_: base.yaml\nmodel: {name: Model, neck: null}\n")
    same = load_recipe("same.yaml").model
    assert same.neck is None and same.backbone.name == "ResNet"
    assert "name" not in same.to_dict()  # the usual one is not written


def test_the_usual_model_is_a_component_too(folder):
    (folder / "base.yaml").write_text(f"model: {PARTS}\n")
    recipe = load_recipe("base.yaml")
    assert recipe.model.whole.name == "Model" and recipe.model.whole.kind == "model"
    assert issubclass(Model, BaseModel) and load_recipe("base.yaml", ["model.name=Model"]) == recipe


def test_a_model_in_a_model_gets_the_dataset_and_the_channels():
    recipe = load_recipe("r.yaml", ["model={name: Wrapped, inner: Pixels}"])
    assert build_model(recipe).inner.score.out_channels == 7
    gray = ["data.image={name: Gray}", "model.pixel_mean=[1]", "model.pixel_std=[1]"]
    assert (
        build_model(load_recipe("r.yaml", ["model={name: Wrapped, inner: Pixels}", *gray])).inner.stem.in_channels == 1
    )


def test_a_written_number_of_classes_holds_inside():
    parts = "encoder: {name: ResNet, depth: 18, weights: null}, head: SemSegFPNHead"
    recipe = load_recipe("r.yaml", [f"model={{name: Segmenter, num_classes: 9, {parts}}}"], ["parts.py"])
    model = build_model(recipe, metadata=SEMANTIC_FACTS)
    assert (model.num_classes, model.head.predictor.out_channels) == (9, 9)


def test_rows_of_a_whole_model_for_all_classes_follow_their_names():
    there, here = (
        Metadata(name).set(thing_classes=things, stuff_classes=[*things, "sky"], segment_stuff_classes=["sky"])
        for name, things in (("a", ["circle", "square"]), ("b", ["square", "circle"]))
    )
    recipe = load_recipe("r.yaml", ["model={name: EverySegment}"])
    old, new = (build_model(recipe, metadata=one) for one in (there, here))
    old.score.bias.data = torch.tensor([1.0, 2.0, 3.0])  # circle, square, sky
    found, anew = follow_classes(new, recipe, old.state_dict(), there, here)
    assert found["score.bias"].tolist() == [2, 1, 3] and anew == []


def test_bare_names_and_bases(folder):
    assert load_recipe("r.yaml", ["model=Pixels"]).model.whole.name == "Pixels"
    (folder / "b.yaml").write_text("_base_: d.yaml\nmodel: {student: {name: Model, backbone: {depth: 34}}}\n")
    student = load_recipe("b.yaml").model.whole.arguments["student"]
    assert student.arguments["backbone"].arguments["depth"] == 34 and "heads" in student.arguments
    (folder / "c.yaml").write_text("_base_: d.yaml\nmodel: {name: Pixels}\n")
    model = load_recipe("c.yaml").model
    assert (model.pixel_mean, model.pixel_order, model.whole.arguments) == ((1.0, 2.0, 3.0), "bgr", {})
    with pytest.raises(RecipeError, match=r"model.odd: the model's `name` is missing \(written: width\)"):
        load_recipe("r.yaml", ["model={name: Wrapped, inner: Pixels, odd: {width: 3}}"])
