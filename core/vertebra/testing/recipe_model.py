"""RecipeModel: a recipe's model and inputs made by hand for it, which checks of whole models work on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from vertebra.config import ComponentSpec, Recipe, load_recipe
from vertebra.config.extra_fields import FieldSection
from vertebra.data import Metadata
from vertebra.data.extra_fields import declared_fields
from vertebra.models import Batch, build_model
from vertebra.registry import REGISTRIES
from vertebra.testing.agreement import check_leaves_alone
from vertebra.testing.checks import backward, check_gradients, once, require
from vertebra.testing.inputs import add_declared, make_input, make_metadata
from vertebra.testing.training import specs_of

__all__ = ["RecipeModel"]


class RecipeModel:
    """What `HeadConformance` and `ModelConformance` check; a subclass may replace any of the methods.

    The recipe is loaded once per class, and its model is built once.
    """

    kind: ClassVar[Literal["head", "model"]]
    component: ClassVar[str] = ""
    recipe: ClassVar[str] = ""
    overrides: ClassVar[Sequence[str]] = ()
    inputs: ClassVar[Mapping[str, Any]] = {}
    num_things: ClassVar[int] = 3
    image_size: ClassVar[tuple[int, int]] = (64, 96)
    overfit_size: ClassVar[tuple[int, int]] = (96, 128)

    def load(self, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe with its overrides."""
        require(bool(self.recipe), f"set `recipe` to a path or plugin:recipe whose model has this {self.kind}")
        key = (type(self), self.recipe, *self.overrides, *overrides)
        return once(_recipes, key, lambda: load_recipe(self.recipe, [*self.overrides, *overrides]))

    def make_model(self, seed: int = 0) -> Any:
        """Builds the recipe's model for the classes of the inputs made by hand, in training mode."""
        torch.manual_seed(seed)
        return build_model(self.load(), metadata=make_metadata(self.num_things), pretrained=False)

    def copy_model(self) -> Any:
        """A copy of `make_model()`, which is called once per class."""
        return copy.deepcopy(self._model())

    def make_input(self, seed: int, size: tuple[int, int] | None = None, **options: Any) -> dict[str, Any]:
        """One input made by hand, see `vertebra.testing.inputs.make_input`, with the further images, inputs and
        declared fields that the recipe and the class name."""
        options = {"num_things": self.num_things, "num_labels": self._num_labels()} | options
        options.setdefault("mask_format", self.load().data.mask_format)
        made = make_input(seed, size or self.image_size, **options) | dict(self.inputs)
        return add_declared(made, self._model().pixels, self._fields())

    def make_inputs(self, **options: Any) -> list[dict[str, Any]]:
        """Two of them."""
        return [self.make_input(seed, **options) for seed in range(2)]

    def make_fixed_inputs(self, factor: int = 1) -> list[dict[str, Any]]:
        """Two images with known objects, of `factor` times `overfit_size` and smaller."""
        h, w = (factor * side for side in self.overfit_size)
        sizes = [(h, w), (17 * h // 24, 25 * w // 32)]  # the second is padded
        return [
            self.make_input(seed, (h, w), fixed=True, original=(2 * h, 3 * w // 2)) for seed, (h, w) in enumerate(sizes)
        ]

    def part_of(self, model: Any) -> nn.Module:
        """The component under test inside the recipe's model."""
        return model

    def task_of(self, model: Any, raw: Any) -> tuple[nn.Module, Any]:
        """What has `losses` and `predict`, and its raw outputs."""
        return model, raw

    def watched(self, model: Any) -> Any:
        """A context in which what goes into the component is checked for changes in place."""
        return check_leaves_alone((), "", "")

    def losses_of(self, model: Any, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The losses of a model in training mode."""
        return model(inputs)

    def losses_of_batch(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """What is minimized of a batch in training, by name."""
        return model.losses(model.compute(batch), batch)

    def losses_of_raw(self, part: Any, raw: Any, batch: Batch, number: int) -> dict[str, torch.Tensor]:
        """What is minimized of raw outputs of `task_of`, in step `number`."""
        return part.train().losses(raw, batch)

    def learns_by_losses(self) -> bool:
        """Whether the model has `losses(raw, batch)`, and not a training step of its own."""
        return True

    def backward(self, model: Any, losses: dict[str, torch.Tensor], what: str) -> None:
        """The backward pass of `losses_of`, and a check of the gradients."""
        backward(model, losses, what)
        check_gradients(model, what)

    def _labels(self) -> str:
        return getattr(REGISTRIES[self.kind].get(self.component), "labels", "things")

    def _num_labels(self) -> int:
        """Semantic classes: what the recipe writes where the component has semantic classes, else those of the
        hand-made metadata."""
        written = next((s.arguments["num_classes"] for s in self._specs() if "num_classes" in s.arguments), None)
        if written and self._labels() == "stuff":
            return written
        return len(make_metadata(self.num_things).stuff_classes)

    def _fields(self) -> dict[str, FieldSection]:
        """The declared fields: those of the recipe's formats, then its own."""
        formats = [REGISTRIES["format"].get(spec.name) for spec in specs_of(self.load()) if spec.kind == "format"]
        declared = {name: field for one in formats for name, field in getattr(one, "extra_fields", {}).items()}
        return declared_fields(Metadata("conformance").set(extra_fields=declared)) | self.load().data.fields

    def _num_classes(self) -> int:
        return self._num_labels() if self._labels() == "stuff" else self.num_things

    def _specs(self) -> list[ComponentSpec]:
        """The recipe's blocks that name this component."""
        return [spec for spec in specs_of(self.load()) if (spec.kind, spec.name) == (self.kind, self.component)]

    def _needs_labels(self) -> bool:
        """Whether some part of the recipe learns semantic labels."""
        specs = [spec for spec in specs_of(self.load()) if spec.kind in ("head", "model")]
        classes = [REGISTRIES[spec.kind].get(spec.name) for spec in specs]
        outputs = [cls.task_outputs for cls in classes]  # of the usual model a property
        return any("sem_seg" in keys for keys in outputs if isinstance(keys, (tuple, list)))

    def _model(self) -> Any:
        return once(_models, (type(self), self.recipe, *self.overrides), self.make_model)


_recipes: dict[tuple, Recipe] = {}
_models: dict[tuple, Any] = {}
