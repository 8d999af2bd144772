"""HeadConformance: what every head promises, detection and semantic heads alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from vertebra.config import ComponentSpec, Recipe, load_recipe
from vertebra.config.injection import labels_of
from vertebra.models import Model, ShapeSpec, build_model
from vertebra.registry import HEADS
from vertebra.testing.checks import (
    backward,
    build_from_defaults,
    check_gradients,
    check_losses,
    check_same,
    check_state_round_trip,
    require,
)
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.inputs import bare, make_input, make_metadata
from vertebra.testing.marks import slow
from vertebra.testing.overfit import check_overfits
from vertebra.testing.predictions import check_predictions
from vertebra.testing.training import check_trains_by_recipe, specs_of

__all__ = ["HeadConformance"]


class HeadConformance:
    """Subclass it with `component` and `recipe`; the rest has defaults.

    All checks but the first run on the recipe's whole model, on inputs made by hand, without pretrained weights. The
    recipe is loaded once per class and its model is built once; each check works on a copy.

    Attributes:
        component: the head's name, as a recipe writes it.
        recipe: a path or `plugin:recipe` whose model has this head; the smaller its backbone, the faster the checks.
        overrides: `key=value` laid over the recipe.
        arguments: for constructor arguments without default, besides input_shape, num_classes and metadata.
        image_size: (height, width) of the inputs made by hand, in pixels.
        overfit_steps, overfit_lr, overfit_size: at most this many AdamW steps at this rate on 8 images (height, width).
        overfit_overrides: further `key=value` for that training.
    """

    component: ClassVar[str] = ""
    recipe: ClassVar[str] = ""
    overrides: ClassVar[Sequence[str]] = ()
    arguments: ClassVar[Mapping[str, Any]] = {}
    num_things: ClassVar[int] = 3
    image_size: ClassVar[tuple[int, int]] = (64, 96)
    overfit_steps: ClassVar[int] = 300
    overfit_lr: ClassVar[float] = 1e-3
    overfit_size: ClassVar[tuple[int, int]] = (96, 128)
    overfit_overrides: ClassVar[Sequence[str]] = ()

    def test_builds_from_its_defaults(self) -> None:
        head = build_from_defaults(
            "head",
            self.component,
            self.arguments,
            input_shape=self.make_input_shape(),
            num_classes=self._num_classes(),
            metadata=make_metadata(self.num_things),
        )
        require(bool(tuple(head.task_outputs)), f"{self.component}.task_outputs is empty; name the keys of its outputs")

    def test_builds_from_its_recipe(self) -> None:
        self.head_of(self.copy_model())

    def test_its_recipe_survives_saving(self) -> None:
        import tempfile
        from pathlib import Path

        recipe = self.load()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "saved.yaml"
            recipe.save(path)
            require(load_recipe(path) == recipe, "the recipe, saved resolved and loaded again, is another one")

    def test_same_seed_same_losses_and_predictions(self) -> None:
        inputs = self.make_inputs()
        first, second = self.copy_model(), self.make_model()
        check_same(first.state_dict(), second.state_dict(), "weights of two models of one seed")
        losses, predictions = [], []
        for model in (first, second):
            torch.manual_seed(7)
            losses.append(model.train()(inputs))
            torch.manual_seed(8)
            predictions.append(self._predict(model, inputs))
        check_same(losses[0], losses[1], "losses under one seed")
        check_same(predictions[0], predictions[1], "predictions under one seed")

    def test_every_parameter_gets_a_gradient(self) -> None:
        self.train_on(self.make_inputs(), "two images with objects")

    def test_images_without_objects(self) -> None:
        empty, full = self.make_inputs(objects=0), self.make_inputs()
        unlabeled = [{**one, "instances": one["instances"]} for one in empty]
        self.train_on(empty, "two images without objects")
        self.train_on([full[0], unlabeled[1]], "an image without objects beside one with")

    def test_a_batch_of_one(self) -> None:
        self.train_on(self.make_inputs()[:1], "a batch of one")
        model, inputs = self.copy_model(), self.make_inputs()[:1]
        self._check_predictions(self._predict(model, inputs), inputs, model)

    def test_odd_sizes(self) -> None:
        h, w = self.image_size
        sizes = [(h + 11, w - 43), (h - 31, w + 1)]
        inputs = [self.make_input(seed, size) for seed, size in enumerate(sizes)]
        model = self.train_on(inputs, f"images of {sizes[0]} and {sizes[1]} pixels")
        self._check_predictions(self._predict(model, inputs), inputs, model)

    def test_boxes_of_one_pixel(self) -> None:
        self.train_on(self.make_inputs(edge=(1, 1), objects=5), "boxes of one pixel")

    def test_all_labels_ignored(self) -> None:
        self.train_on(self.make_inputs(ignored=True), "semantic labels all 255, masks all empty")

    def test_predictions_follow_the_contract(self) -> None:
        """Freshly built, then with shaken weights, which find more; in a size other than the input's."""
        model = self.copy_model()
        h, w = self.image_size
        inputs = [self.make_input(0, original=(2 * h, 3 * w)), self.make_input(1, (h - 7, w - 9), original=(h // 2, w))]
        for scale in (0.0, 0.1, 1.0):
            _shake(self.head_of(model), scale)
            self._check_predictions(self._predict(model, inputs), inputs, model)

    def test_prediction_changes_nothing(self) -> None:
        model, inputs = self.copy_model(), self.make_inputs()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        first = self._predict(model, inputs)
        check_same(before, model.state_dict(), "weights and buffers after a prediction")
        check_same(first, self._predict(model, inputs), "two predictions of the same images")

    def test_state_dict_round_trip_is_bit_equal(self) -> None:
        inputs = self.make_inputs()
        check_state_round_trip(self.copy_model(), self.make_model(1), lambda model: self._raw(model, inputs))

    def test_finite_under_bf16_autocast(self) -> None:
        model, inputs = self.copy_model(), self.make_inputs()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model.train()(inputs)
        backward(model, losses, "bf16 autocast")
        check_gradients(model, "bf16 autocast")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = self._predict(model, inputs)
        self._check_predictions(found, inputs, model)

    def test_survives_a_spawned_process(self) -> None:
        model = self.copy_model().eval()
        check_spawned(self.head_of(model), self._features(model))

    def test_forward_exports(self) -> None:
        model = self.copy_model().eval()
        check_export(self.head_of(model), self._features(model))

    def test_trains_by_its_recipe(self) -> None:
        """Two steps on few pictures: the whole way from recipe to checkpoint."""
        specs = self._specs()
        require(bool(specs), f"the heads of recipe {self.recipe} do not name {self.component}")
        check_trains_by_recipe(self.recipe, "head", self.component, self.overrides, semantic=self._needs_labels())

    @slow
    def test_overfits_eight_images(self) -> None:
        check_overfits(
            self.load(self.overfit_overrides),
            semantic=self._needs_labels(),
            size=self.overfit_size,
            steps=self.overfit_steps,
            lr=self.overfit_lr,
        )

    # What the checks are made of; a subclass may replace these.

    def load(self, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe with its overrides."""
        require(bool(self.recipe), "set `recipe` to a path or plugin:recipe whose model has this head")
        key = (type(self), self.recipe, *self.overrides, *overrides)
        return _once(_recipes, key, lambda: load_recipe(self.recipe, [*self.overrides, *overrides]))

    def make_model(self, seed: int = 0) -> Model:
        """Builds the recipe's model for the classes of the inputs made by hand, in training mode."""
        torch.manual_seed(seed)
        model = build_model(self.load(), metadata=make_metadata(self.num_things), pretrained=False)
        if not isinstance(model, Model):
            raise AssertionError(f"recipe {self.recipe} has another model than backbone, neck and heads")
        return model

    def copy_model(self) -> Model:
        """A copy of `make_model()`, which is called once per class."""
        return copy.deepcopy(_once(_models, (type(self), self.recipe, *self.overrides), self.make_model))

    def make_input_shape(self) -> dict[str, ShapeSpec]:
        """Shapes of the features that the recipe's backbone and neck give to the head."""
        model = self.copy_model()
        return (model.neck or model.backbone).output_shape()

    def make_input(self, seed: int, size: tuple[int, int] | None = None, **options: Any) -> dict[str, Any]:
        """One input made by hand, see `vertebra.testing.inputs.make_input`."""
        options = {"num_things": self.num_things, "num_labels": self._num_labels()} | options
        options.setdefault("mask_format", self.load().data.mask_format)
        return make_input(seed, size or self.image_size, **options)

    def make_inputs(self, **options: Any) -> list[dict[str, Any]]:
        """Two of them."""
        return [self.make_input(seed, **options) for seed in range(2)]

    def head_of(self, model: Model) -> nn.Module:
        """The head under test inside the recipe's model."""
        cls = HEADS.get(self.component)
        found = next((module for module in model.heads.modules() if isinstance(module, cls)), None)
        if found is None:
            heads = ", ".join(f"{name}: {type(head).__name__}" for name, head in model.heads.items())
            raise AssertionError(f"the model of recipe {self.recipe} has no {self.component}; its heads are {heads}")
        return found

    def train_on(self, inputs: list[dict[str, Any]], what: str) -> Model:
        """A model in training on these inputs: finite losses, a gradient for every parameter."""
        model = self.copy_model()
        torch.manual_seed(5)
        losses = model.train()(inputs)
        check_losses(losses, what)
        backward(model, losses, what)
        check_gradients(model, what)
        return model

    def _is_semantic(self) -> bool:
        return labels_of(HEADS.get(self.component)) == "stuff"

    def _num_labels(self) -> int:
        """Semantic classes: what the recipe writes for a semantic head, else those of the hand-made metadata."""
        written = next((s.arguments["num_classes"] for s in self._specs() if "num_classes" in s.arguments), None)
        return written if written and self._is_semantic() else len(make_metadata(self.num_things).stuff_classes)

    def _num_classes(self) -> int:
        return self._num_labels() if self._is_semantic() else self.num_things

    def _specs(self) -> list[ComponentSpec]:
        """The recipe's blocks that name this head."""
        return [spec for spec in self._heads() if spec.name == self.component]

    def _heads(self) -> list[ComponentSpec]:
        """All heads of the recipe, those inside others too."""
        return [spec for spec in specs_of(self.load()) if spec.kind == "head"]

    def _needs_labels(self) -> bool:
        """Whether some head of the recipe learns semantic labels."""
        return any("sem_seg" in HEADS.get(spec.name).task_outputs for spec in self._heads())

    @torch.no_grad()
    def _features(self, model: Model) -> dict[str, Tensor]:
        return model.features(model.make_batch(bare(self.make_inputs())))

    @torch.no_grad()
    def _raw(self, model: Model, inputs: list[dict[str, Any]]) -> Any:
        return model.eval().compute(model.make_batch(bare(inputs)))

    @torch.no_grad()
    def _predict(self, model: Model, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return model.eval()(bare(inputs))

    def _check_predictions(self, outputs: Any, inputs: list[dict[str, Any]], model: Model) -> None:
        keys = [key for head in model.heads.values() for key in head.task_outputs]
        labels = self._num_labels() if self._is_semantic() else None
        check_predictions(outputs, inputs, keys=keys, num_things=self.num_things, num_labels=labels)


_recipes: dict[tuple, Recipe] = {}
_models: dict[tuple, Model] = {}
T = TypeVar("T")


def _once(kept: dict[tuple, T], key: tuple, make: Callable[[], T]) -> T:
    """`make()`, kept until another key comes: the checks of one class run one after the other."""
    if key not in kept:
        made = make()
        kept.clear()
        kept[key] = made
    return kept[key]


@torch.no_grad()
def _shake(head: nn.Module, scale: float) -> None:
    """Adds noise to every parameter, so that scores spread and detections appear."""
    generator = torch.Generator().manual_seed(11)
    for parameter in head.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * scale)
