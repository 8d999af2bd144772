"""HeadConformance: what every head promises, detection and semantic heads alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from vertebra.models import Model, ShapeSpec
from vertebra.registry import HEADS
from vertebra.testing.agreement import check_leaves_alone
from vertebra.testing.checks import build_from_defaults, require
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.inputs import bare, make_metadata
from vertebra.testing.whole_model import WholeModelConformance

__all__ = ["HeadConformance"]


class HeadConformance(WholeModelConformance):
    """Subclass it with `component` and `recipe`; the rest has defaults.

    All checks but the first run on the recipe's whole model, on inputs made by hand, without pretrained weights. The
    recipe is loaded once per class and its model is built once; each check works on a copy.

    Attributes:
        component: the head's name, as a recipe writes it.
        recipe: a path or `plugin:recipe` whose model has this head; the smaller its backbone, the faster the checks.
        overrides: `key=value` laid over the recipe.
        arguments: for constructor arguments without default, besides input_shape, num_classes and metadata.
        inputs: {name: value} that each input has for the parts that name it in `needs_inputs`. Declared fields and
            further images come from the recipe's `data.fields`.
        data: what the trainings run on: "generated" images, or the data of the "recipe", for what those do not have.
        negative_losses: names of losses that may be negative.
        image_size: (height, width) of the inputs made by hand, in pixels.
        fit_lr: rate at which raw outputs are fitted to the losses, in their own unit: 150 steps of Adam at 0.1 move a
            number by 15 at most. Where the loss still falls after them, ten times the rate is tried too.
        overfit_steps, overfit_lr, overfit_size: at most this many AdamW steps at this rate on 8 images (height, width).
        overfit_overrides: further `key=value` for that training.
    """

    kind: ClassVar = "head"
    arguments: ClassVar[Mapping[str, Any]] = {}

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

    def test_survives_a_spawned_process(self) -> None:
        model = self.copy_model().eval()
        features, further = self._given(model)
        check_spawned(self.head_of(model), features, further=further)

    def test_forward_exports(self) -> None:
        model = self.copy_model().eval()
        features, further = self._given(model)
        check_export(self.head_of(model), features, further=further)

    # What the checks are made of; a subclass may replace these.

    def make_model(self, seed: int = 0) -> Model:
        """Builds the recipe's model for the classes of the inputs made by hand, in training mode."""
        model = super().make_model(seed)
        if not isinstance(model, Model):
            raise AssertionError(f"recipe {self.recipe} has another model than backbone, neck and heads")
        return model

    def make_input_shape(self) -> dict[str, ShapeSpec]:
        """Shapes of the features that the recipe's backbone and neck give to the head."""
        model = self.copy_model()
        return (model.neck or model.backbone).output_shape()

    def head_of(self, model: Model) -> nn.Module:
        """The head under test inside the recipe's model."""
        cls = HEADS.get(self.component)
        found = next((module for module in model.heads.modules() if isinstance(module, cls)), None)
        if found is None:
            heads = ", ".join(f"{name}: {type(head).__name__}" for name, head in model.heads.items())
            raise AssertionError(f"the model of recipe {self.recipe} has no {self.component}; its heads are {heads}")
        return found

    def part_of(self, model: Model) -> nn.Module:
        return self.head_of(model)

    def task_of(self, model: Model, raw: Any) -> tuple[nn.Module, Any]:
        """The head of the model that is the one under test, or has it inside."""
        head = self.head_of(model)
        name = next(name for name, one in model.heads.items() if head in list(one.modules()))
        return model.heads[name], raw[name]

    @contextmanager
    def watched(self, model: Model) -> Iterator[None]:
        """The features and further inputs that the head gets."""
        head = self.head_of(model)
        seen: list[Any] = []

        def before(module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
            given = {"the features it is given": arguments[:1]}
            given |= {f"its input {name}": value for name, value in keywords.items()}
            for what, value in given.items():
                check = check_leaves_alone(value, type(head).__name__, what)
                check.__enter__()
                seen.append(check)

        handle = head.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        require(bool(seen), f"{type(head).__name__} was not called: a head that has heads calls them as functions")
        for check in seen:
            check.__exit__(None, None, None)

    @torch.no_grad()
    def _given(self, model: Model) -> tuple[Any, dict[str, Any]]:
        """What the head's `forward` gets: features, and whatever else it names, in a dict."""
        given: list[tuple] = []
        head = self.head_of(model)
        handle = head.register_forward_pre_hook(lambda _, *call: given.append(call), with_kwargs=True)
        try:
            model.compute(model.make_batch(bare(self.make_inputs())))
        finally:
            handle.remove()
        (features, *_), further = given[0]
        return features, further
