"""The conformance kit passes parts that keep their promises and catches each promise that is broken."""

import random

import pytest
import torch
from planted_decoding import PLANTED_DECODING
from planted_heads import PLANTED_HEADS
from sample_parts import SampleBackbone, SampleHead, SampleSemanticHead
from torch import nn
from torch.nn import functional as F

from vertebra.config import load_recipe
from vertebra.engine import Hook
from vertebra.errors import PluginError
from vertebra.evaluation import Evaluator
from vertebra.models import Backbone, Head, Loss, Neck, ShapeSpec, build_model
from vertebra.registry import BACKBONES, EVALUATORS, HEADS, HOOKS, LOSSES, NECKS
from vertebra.testing import (
    BackboneConformance,
    EvaluatorConformance,
    HeadConformance,
    HookConformance,
    LossConformance,
    NeckConformance,
    recipe_model,
)

if "SampleBackbone" not in BACKBONES.registered():
    BACKBONES.register(SampleBackbone)
HEADS.register(SampleHead)
HEADS.register(SampleSemanticHead)


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory):
    """Writes a recipe around a head of this process and returns its path."""

    def write(head):
        path = tmp_path_factory.mktemp("recipes") / f"{head}.yaml"
        path.write_text(f"model: {{backbone: SampleBackbone, heads: {{task: {{name: {head}}}}}}}\n")
        return str(path)

    return write


@pytest.fixture
def check(recipe_of):
    """Runs one check on a head class of this process."""

    def run(cls, test, **settings):
        if cls.__name__ not in HEADS.registered():
            HEADS.register(cls)
        kit = type(
            "Kit", (HeadConformance,), {"component": cls.__name__, "recipe": recipe_of(cls.__name__), **settings}
        )
        getattr(kit(), test)()

    return run


CHECKS = [name for name in dir(HeadConformance) if name.startswith("test_")]


@pytest.mark.parametrize("cls", [SampleHead, SampleSemanticHead])
@pytest.mark.parametrize("test", [name for name in CHECKS if "overfits" not in name])
def test_a_head_that_keeps_its_promises_passes(check, cls, test):
    check(cls, test)


@pytest.mark.e2e
@pytest.mark.parametrize("cls", [SampleHead, SampleSemanticHead])
def test_a_head_that_learns_overfits(check, cls):
    check(cls, "test_overfits_eight_images", overfit_lr=5e-3, overfit_steps=600)


def test_the_kit_loads_a_recipe_and_builds_its_model_once_per_class(recipe_of, monkeypatch):
    loaded, built = [], []
    monkeypatch.setattr(recipe_model, "load_recipe", lambda *args: loaded.append(args) or load_recipe(*args))
    monkeypatch.setattr(
        recipe_model, "build_model", lambda *args, **more: built.append(args) or build_model(*args, **more)
    )
    kit = type("Kit", (HeadConformance,), {"component": "SampleHead", "recipe": recipe_of("SampleHead")})
    for test in CHECKS:
        if test in ("test_every_parameter_gets_a_gradient", "test_odd_sizes", "test_prediction_changes_nothing"):
            getattr(kit(), test)()
    assert (len(loaded), len(built)) == (1, 1)
    first, second = kit().copy_model(), kit().copy_model()
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


class UnusedParameter(SampleHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.spare = nn.Linear(2, 2)


class NoGradientWithoutObjects(SampleHead):
    def losses(self, raw, batch):
        found = super().losses(raw, batch)
        return found if batch.gt_valid.any() else {"cls": (self.scores.weight**2).mean()}


class NoLossWithoutObjects(SampleHead):
    def losses(self, raw, batch):
        return super().losses(raw, batch) if batch.gt_valid.any() else {"cls": torch.zeros(())}


class NaNWithoutObjects(SampleHead):
    def normalizer(self, positive):
        return positive.sum()


class Unseeded(SampleHead):
    def losses(self, raw, batch):
        return {name: loss * random.SystemRandom().uniform(1, 2) for name, loss in super().losses(raw, batch).items()}


class AloneFails(SampleHead):
    def losses(self, raw, batch):
        return super().losses(raw.squeeze(0), batch)


class LogOfEdges(SampleHead):
    """Divides by the edges of ground-truth boxes minus one pixel."""

    def losses(self, raw, batch):
        edges = (batch.gt_boxes[..., 2:] - batch.gt_boxes[..., :2] - 1)[batch.gt_valid]
        return super().losses(raw, batch) | {"edges": raw.mean() * edges.log().mean()}


class Unclipped(SampleHead):
    """Forgets that images end before the padded batch does."""

    def to_instances(self, boxes, scores, classes, size, original):
        found = super().to_instances(boxes, scores, classes, size, original)
        found.pred_boxes.tensor += 30
        return found


class Unscaled(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        return super().to_instances(boxes, scores, classes, size, size)


class Unsorted(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        found = super().to_instances(boxes, scores, classes, size, original)
        return found[torch.arange(len(found) - 1, -1, -1)]


class Int32Classes(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        found = super().to_instances(boxes, scores, classes, size, original)
        found.pred_classes = found.pred_classes.int()
        return found


class LogitsAsScores(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        found = super().to_instances(boxes, scores, classes, size, original)
        found.scores = found.scores.logit()
        return found


class HiddenState(SampleHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.hidden = torch.randn(1)

    def forward(self, features):
        return super().forward(features) * (1 + 0.01 * self.hidden)


class CountsPredictions(SampleHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def predict(self, raw, batch):
        self.calls += 1
        return super().predict(raw, batch)


class SaturatesInBf16(SampleHead):
    """log(1 - p) by hand: p is 1 in bf16 long before it is in fp32."""

    def losses(self, raw, batch):
        p = (raw[:, : self.num_classes] * 0 + 8).sigmoid()
        return super().losses(raw, batch) | {"certain": -(1 - p).log().mean()}


class HoldsALambda(SampleHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.activation = lambda x: x.relu()


class BranchesOnValues(SampleHead):
    def forward(self, features):
        raw = super().forward(features)
        return raw if raw.mean() > 0 else raw * 2


class LearnsNothing(SampleHead):
    def forward(self, features):
        return super().forward({name: 0 * feature for name, feature in features.items()})


class NaNWhereAllIsIgnored(SampleSemanticHead):
    def losses(self, raw, batch):
        raw = F.interpolate(raw, size=batch.padded_size)
        return {"sem_seg": F.cross_entropy(raw, batch.sem_seg, ignore_index=255)}


class PaddedScores(SampleSemanticHead):
    def predict(self, raw, batch):
        return [{"sem_seg": score} for score in F.interpolate(raw, size=batch.padded_size)]


class DeclaresNothing(SampleHead):
    task_outputs = ()


class NeedsAnArgument(SampleHead):
    def __init__(self, input_shape: dict[str, ShapeSpec], num_classes: int, *, width: int) -> None:
        super().__init__(input_shape, num_classes)


BROKEN_HEADS = [
    (UnusedParameter, "test_every_parameter_gets_a_gradient", r"2 parameters get no gradient \(heads.task.spare"),
    (NoGradientWithoutObjects, "test_images_without_objects", "17 parameters get no gradient"),
    (NoLossWithoutObjects, "test_images_without_objects", "the losses have no gradient"),
    (NaNWithoutObjects, "test_images_without_objects", "loss task/.* is (nan|inf)"),
    (Unseeded, "test_same_seed_same_losses_and_predictions", "losses under one seed.*differs"),
    (LogOfEdges, "test_boxes_of_one_pixel", "boxes of one pixel: loss task/edges is (-?inf|nan)"),
    (Unclipped, "test_predictions_follow_the_contract", "reach out of the image"),
    (Unscaled, "test_predictions_follow_the_contract", "image_size is"),
    (Unsorted, "test_predictions_follow_the_contract", "sorted by score"),
    (Int32Classes, "test_predictions_follow_the_contract", "int64, they are"),
    (LogitsAsScores, "test_predictions_follow_the_contract", r"scores must lie in \[0, 1\]"),
    (HiddenState, "test_state_dict_round_trip_is_bit_equal", "neither parameter nor buffer"),
    (CountsPredictions, "test_prediction_changes_nothing", "weights and buffers after a prediction"),
    (SaturatesInBf16, "test_finite_under_bf16_autocast", "bf16 autocast: loss task/certain is inf"),
    (HoldsALambda, "test_survives_a_spawned_process", "HoldsALambda cannot be pickled.*Hold no lambdas"),
    (BranchesOnValues, "test_forward_exports", "torch.export cannot trace BranchesOnValues.forward"),
    (NaNWhereAllIsIgnored, "test_all_labels_ignored", "loss task/sem_seg is nan"),
    (PaddedScores, "test_odd_sizes", "the input requested"),
    (DeclaresNothing, "test_builds_from_its_defaults", "task_outputs is empty"),
]


@pytest.mark.parametrize(("cls", "test", "words"), BROKEN_HEADS, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_head_is_caught(check, cls, test, words):
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        check(cls, test)


def test_a_head_that_fails_on_a_batch_of_one_is_caught(check):
    with pytest.raises(Exception, match=r"Dimension|dimension|unpack|expand|tuple|index"):
        check(AloneFails, "test_a_batch_of_one")


def test_a_head_with_an_argument_without_default_is_caught(check):
    with pytest.raises(Exception, match="width is missing"):
        check(NeedsAnArgument, "test_builds_from_its_defaults")


def test_a_head_that_learns_nothing_is_caught(check):
    with pytest.raises(AssertionError, match="after 5 steps on 8 images the loss went from"):
        check(LearnsNothing, "test_overfits_eight_images", overfit_steps=5)


def test_a_recipe_without_the_head_is_caught(recipe_of):
    kit = type("Kit", (HeadConformance,), {"component": "SampleHead", "recipe": recipe_of("SampleSemanticHead")})
    with pytest.raises(AssertionError, match="has no SampleHead; its heads are task: SampleSemanticHead"):
        kit().test_builds_from_its_recipe()
    with pytest.raises(AssertionError, match="do not name SampleHead"):
        kit().test_trains_by_its_recipe()


def run_check(kit, component, test, **settings):
    getattr(type("Kit", (kit,), {"component": component, **settings})(), test)()


@BACKBONES.register()
class WrongStride(SampleBackbone):
    def output_shape(self):
        return {"res3": ShapeSpec(channels=16, stride=4)}


@BACKBONES.register()
class SeesNeighbors(SampleBackbone):
    def forward(self, images):
        return super().forward(images - images.mean(dim=0))


@BACKBONES.register()
class Unannounced(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, stride=4, padding=1)

    def output_shape(self):
        return {"c2": ShapeSpec(channels=4, stride=4)}

    def forward(self, images):
        return {"c2": self.layer(images), "more": images}


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("WrongStride", "test_gives_the_shapes_it_announces", "stride 4 makes"),
        ("SeesNeighbors", "test_an_image_does_not_see_its_neighbors", "alone and in a batch"),
        ("Unannounced", "test_gives_the_shapes_it_announces", "output_shape announces c2"),
    ],
)
def test_a_broken_backbone_is_caught(name, test, words):
    with pytest.raises(AssertionError, match=words):
        run_check(BackboneConformance, name, test)


@NECKS.register()
class InPlaceNeck(Neck):
    """Scales its inputs where they lie, and takes them by position."""

    def __init__(self, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()
        self.shapes = input_shape
        self.scale = nn.Parameter(torch.ones(len(input_shape)))

    def output_shape(self):
        return dict(self.shapes)

    def forward(self, features):
        values = [feature.mul_(2) * s for feature, s in zip(features.values(), self.scale, strict=True)]
        return dict(zip(self.shapes, values, strict=True))


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("test_leaves_its_inputs_alone", "changes its inputs in place"),
        ("test_takes_the_levels_in_any_order", "levels turned round"),
    ],
)
def test_a_broken_neck_is_caught(test, words):
    with pytest.raises(AssertionError, match=words):
        run_check(NeckConformance, "InPlaceNeck", test)


@LOSSES.register()
class NaiveCrossEntropy(Loss):
    def forward(self, logits, targets):
        p = logits.sigmoid()
        return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


@LOSSES.register()
class UpsideDown(Loss):
    def forward(self, logits, targets):
        return -F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


@LOSSES.register()
class DetachedLoss(Loss):
    def forward(self, logits, targets):
        return (logits.detach().float() - targets).abs()


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("NaiveCrossEntropy", "test_finite_at_the_extremes", "not finite for predictions of 1e4"),
        ("NaiveCrossEntropy", "test_nothing_in_nothing_lost", "no elements at all is nan"),
        ("UpsideDown", "test_right_predictions_cost_less_than_wrong_ones", "right predictions have the loss"),
        ("DetachedLoss", "test_gradient_reaches_the_predictions", "does not depend on its first argument"),
    ],
)
def test_a_broken_loss_is_caught(name, test, words):
    with pytest.raises(AssertionError, match=words):
        run_check(LossConformance, name, test)


@EVALUATORS.register()
class Forgetful(Evaluator):
    """Counts detections, remembers them over resets, and names no task."""

    count = 0

    def reset(self) -> None:
        pass

    def process(self, inputs, outputs):
        self.count += sum(len(output["instances"]) for output in outputs)

    def evaluate(self):
        return {"found": float(self.count), "x/y": None}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("test_metrics_follow_the_contract", "must be named `<task>/<name>`"),
        ("test_reset_forgets", "after reset and when new: found"),
    ],
)
def test_a_broken_evaluator_is_caught(test, words):
    if test == "test_reset_forgets":
        with pytest.raises(AssertionError, match=words):
            RememberingKit().test_reset_forgets()
        return
    with pytest.raises(AssertionError, match=words):
        run_check(EvaluatorConformance, "Forgetful", test)


class RememberingKit(EvaluatorConformance):
    """Feeds right predictions before the reset, so that what is remembered shows."""

    component = "Forgetful"

    def make_outputs(self):
        outputs = super().make_outputs()
        return outputs | {"none": outputs["shifted"]}


@HOOKS.register()
class DrawsNumbers(Hook):
    def after_step(self, trainer):
        torch.rand(1)


@HOOKS.register()
class ForgetsItsState(Hook):
    def __init__(self) -> None:
        self.steps = 0

    def after_step(self, trainer):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}


@HOOKS.register()
class KeepsAnObject(ForgetsItsState):
    def state_dict(self):
        return {"owner": self.__class__}


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("DrawsNumbers", "test_an_observer_leaves_the_training_alone", "does it draw random numbers"),
        ("ForgetsItsState", "test_its_state_is_plain_and_comes_back", "state_dict gives something else"),
        ("ForgetsItsState", "test_a_resumed_training_ends_as_an_uninterrupted_one", "put all of it in state_dict"),
        (
            "KeepsAnObject",
            "test_its_state_is_plain_and_comes_back",
            "holds numbers, strings, tensors, lists and dicts only",
        ),
    ],
)
def test_a_broken_hook_is_caught(name, test, words):
    with pytest.raises((AssertionError, PluginError), match=words):
        run_check(HookConformance, name, test)


def test_a_class_without_a_component_says_what_to_set():
    for kit in (BackboneConformance, NeckConformance, LossConformance, HookConformance):
        with pytest.raises(AssertionError, match="set `component` to the component's name"):
            kit().make()


def test_every_head_check_is_tried_on_a_broken_head():
    tried = {test for _, test, _ in BROKEN_HEADS}
    tried |= {"test_a_batch_of_one", "test_overfits_eight_images"}
    tried |= {"test_builds_from_its_recipe", "test_trains_by_its_recipe"}
    tried |= {test for _, test, _ in [*PLANTED_HEADS, *PLANTED_DECODING]}
    assert set(CHECKS) - tried == {"test_its_recipe_survives_saving"}
    assert issubclass(SampleHead, Head)
