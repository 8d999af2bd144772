"""The table of injected arguments is kept: a probe of each kind, built as a run builds it, is given each of them."""

import inspect
import re
from collections import defaultdict

import pytest
import torch
from torch import nn

from vertebra import (
    Backbone,
    Evaluator,
    Head,
    Hook,
    Instances,
    Loss,
    Neck,
    Predictor,
    Trainer,
    Transform,
    build_model,
    evaluate,
    load_recipe,
)
from vertebra.config import ComponentSpec
from vertebra.config.injection import INJECTED
from vertebra.data import Metadata, TrainingSampler, build_train_loader, load_split
from vertebra.errors import RecipeError
from vertebra.models import Model, ShapeSpec
from vertebra.models.inference import InferenceMode
from vertebra.registry import REGISTRIES
from vertebra.structures import Boxes

SHAPES = {"format": "shapes", "images": 6, "val_images": 3, "size": 64}
CLASSES = ["circle", "square", "triangle"]
LEVELS = {"c3": ShapeSpec(channels=3, stride=8)}


class ProbedBackbone(Backbone):
    def output_shape(self):
        return LEVELS

    def forward(self, images):
        return {"c3": nn.functional.avg_pool2d(images, 8, ceil_mode=True) * self.gain}


class ProbedNeck(Neck):
    def output_shape(self):
        return LEVELS

    def forward(self, features):
        return features


class ProbedHead(Head):
    task_outputs = ("instances",)

    def forward(self, features):
        return features["c3"]

    def losses(self, raw, batch):
        return {"loss": raw.mean()}

    def predict(self, raw, batch):
        empty = {
            "pred_boxes": Boxes(torch.zeros(0, 4)),
            "scores": torch.zeros(0),
            "pred_classes": torch.zeros(0).long(),
        }
        return [{"instances": Instances(size, **empty)} for size in batch.original_sizes]


class ProbedModel(Model):
    """The usual model, with arguments beside."""


class ProbedTransform(Transform):
    def __call__(self, sample, rng):
        return sample


class ProbedEvaluator(Evaluator):
    def reset(self): ...

    def process(self, inputs, outputs): ...

    def evaluate(self):
        return {"probe/one": 1.0}


class ProbedMode(InferenceMode):
    def __call__(self, predict, inputs):
        return predict(inputs)


class PlainPart:
    component_kind = "part"


BASES = {
    "model": ProbedModel,
    "backbone": ProbedBackbone,
    "neck": ProbedNeck,
    "head": ProbedHead,
    "loss": Loss,
    "part": PlainPart,
    "transform": ProbedTransform,
    "sampler": TrainingSampler,
    "evaluator": ProbedEvaluator,
}


@pytest.fixture
def seen():
    """{kind, or `place: part`: [what each probe of it was given, ...]}; the probes are registered as `Probe`."""
    found = defaultdict(list)
    for kind, base in BASES.items():
        if kind != "part":
            nested = {"part": PlainPart, "loss": Loss} if kind in ("neck", "head") else {"part": PlainPart}
            nested |= {"backbone": Backbone, "neck": Neck, "heads": dict[str, Head]} if kind == "model" else {}
            REGISTRIES[kind].register(_probe(kind, base, found, **({} if kind == "loss" else nested)))
    REGISTRIES["part"].register(_probe("part", PlainPart, found, place=str))
    REGISTRIES["part"].register(_probe("part", ProbedMode, found, name="ProbeMode", place=str))
    REGISTRIES["hook"].register(_probe("hook", Hook, found, part=PlainPart))
    return found


def _probe(kind, base, found, name="Probe", **own):
    """A subclass of `base` whose constructor takes all that the table promises to its kind, and `own` arguments."""

    def init(self, **given):
        of_model = ("backbone", "neck", "heads", "metadata") if isinstance(self, Model) else ()
        super(cls, self).__init__(**{one: given[one] for one in of_model})
        if isinstance(self, ProbedBackbone):
            self.gain = nn.Parameter(torch.ones(1))
        key = f"{given['place']}: part" if "place" in given else kind
        found[key].append({one: given[one] for one in INJECTED.get(kind, ()) if one in given})

    keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    names = [*INJECTED.get(kind, ()), *own]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # features are known in necks and heads alone, so elsewhere a part does without them
    default = {"input_shape": None} if kind == "part" else {}
    arguments = [inspect.Parameter(one, keyword, default=default.get(one, empty)) for one in names]
    init.__signature__ = inspect.Signature([this, *arguments])
    init.__annotations__ = own
    cls = type(name, (base,), {"__init__": init})
    return cls


@pytest.fixture
def recipe(tmp_path, monkeypatch, seen):
    """Names a probe wherever a component may stand."""
    monkeypatch.chdir(tmp_path)

    def block(place, **more):
        return {"name": "Probe", "part": {"name": "Probe", "place": place}, **more}

    content = {
        "model": block("model"),
        "model.backbone": block("backbone"),
        "model.neck": block("neck", loss="Probe"),
        "model.heads": {"boxes": block("head", loss="Probe")},
        "data.train": {**SHAPES, "split": "train"},
        "data.val": {**SHAPES, "split": "val"},
        "data.train_transforms": [block("train transform")],
        "data.eval_transforms": [block("eval transform")],
        "data.sampler": block("sampler"),
        "data.workers": 0,
        "train": {"steps": 1, "batch_size": 2, "hooks": [block("hook")]},
        "evaluate.evaluators": [block("evaluator")],
        "evaluate.inference": {"name": "ProbeMode", "place": "inference"},
        "evaluate.report": False,
    }
    (tmp_path / "recipe.yaml").write_text("{}")
    return load_recipe("recipe.yaml", [content])


def is_right(argument, value, images):
    """Whether a probe was given the right thing, on a dataset of this many images."""
    checks = {
        "input_shape": lambda: value == LEVELS,
        "num_classes": lambda: value == len(CLASSES),
        "metadata": lambda: value.thing_classes == CLASSES,
        "dataset": lambda: len(value) in images and value.metadata.thing_classes == CLASSES,
        "in_channels": lambda: value == 3,
        "output_dir": lambda: value is None or value.name == "evaluation" or value.name.startswith("step"),
    }
    return checks[argument]()


def test_every_kind_is_given_what_the_table_promises_it(recipe, seen):
    """Training, evaluation during and after it, prediction: all places where a recipe's components are built."""
    Trainer(recipe, "run").train()
    predictor = Predictor(recipe, "run/final.pth")
    evaluate(predictor.model, recipe, output_dir="evaluation")
    assert {key for key in seen if ": " not in key} == {*INJECTED, "hook"} - {"part"}
    assert {key.partition(":")[0] for key in seen if ": " in key} == {
        *(
            "model",
            "backbone",
            "neck",
            "head",
            "train transform",
            "eval transform",
            "sampler",
            "hook",
            "evaluator",
            "inference",
        )
    }
    for key, probes in seen.items():
        for given in probes:
            kind = "part" if "part" in key else key
            unknown = {"input_shape"} if kind == "part" and not key.startswith(("neck", "head")) else set()
            assert given.keys() == {*INJECTED.get(kind, ())} - unknown, key
            for argument, value in given.items():
                assert is_right(argument, value, {6, 3}), f"{key} was given {argument} = {value!r}"


def test_a_sampler_counts_the_images_that_are_trained_on(recipe, seen):
    """Dropped images are gone, for the length of an epoch too."""
    dataset = load_split(recipe, "train")
    loader = build_train_loader(recipe, dataset)
    assert {len(given["dataset"]) for given in seen["sampler"]} == {len(loader.dicts)}


def test_a_predictors_transforms_know_the_classes_of_the_checkpoint(recipe, seen):
    Trainer(recipe, "run", hooks=()).train()
    seen.clear()
    moved = load_recipe("recipe.yaml", [_plain(recipe), {"data.train": None, "data.val": None}])
    Predictor(moved, "run/final.pth")
    assert [given["metadata"].thing_classes for given in seen["transform"]] == [CLASSES]
    assert [given["num_classes"] for given in seen["inference: part"]] == [3]


def _plain(recipe):
    content = recipe.to_dict()
    return {f"{section}.{key}": value for section in ("model", "data") for key, value in content[section].items()} | {
        f"evaluate.{key}": value for key, value in content["evaluate"].items()
    }


def test_what_is_not_known_where_a_component_stands_is_an_error_that_says_so(seen):
    spec = ComponentSpec("transform", "Probe", {"part": None}, "r.yaml:7")
    with pytest.raises(
        RecipeError, match=r"(?s)r\.yaml:7: transform Probe takes `metadata`, which .* not known here.*dataset"
    ):
        spec.build()
    loss = ComponentSpec("loss", "Probe", {}, "r.yaml:9")
    with pytest.raises(RecipeError, match=r"(?s)r\.yaml:9: loss Probe takes `input_shape`.*necks and heads"):
        loss.build(num_classes=3, metadata=Metadata("x"))


def test_a_dataset_that_names_no_classes_has_no_count_of_them(recipe):
    with pytest.raises(RecipeError, match=r"(?s)Probe takes `num_classes`.*thing_classes or stuff_classes"):
        build_model(recipe, metadata=Metadata("nameless"))


def test_only_what_the_table_promises_is_given():
    """An argument of that name of another kind is the recipe's to write."""

    @REGISTRIES["hook"].register()
    class CountingHook(Hook):
        def __init__(self, num_classes: int = 7) -> None:
            self.num_classes = num_classes

    assert ComponentSpec("hook", "CountingHook").build(num_classes=3).num_classes == 7


def test_the_page_on_plugins_has_the_table(repository):
    text = (repository / "docs" / "plugins.md").read_text(encoding="utf-8")
    lines = text.partition("## What the framework sets")[2].partition("\n## ")[0].splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("| ")][2:]
    written = {
        kind.strip(): {*re.findall(r"`(\w+)`", arguments)} for kinds, arguments in rows for kind in kinds.split(",")
    }
    assert written == {kind: {*arguments} for kind, arguments in INJECTED.items()}
