"""NeckConformance: what every neck promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vertebra.models import Neck, ShapeSpec
from vertebra.testing.by_recipe import ByRecipe
from vertebra.testing.checks import check_same
from vertebra.testing.features import FeatureConformance, check_feature_maps, make_features
from vertebra.testing.inputs import INPUT_SHAPE

__all__ = ["NeckConformance"]


class NeckConformance(ByRecipe, FeatureConformance):
    """Subclass it with `component`.

    Attributes:
        component: the neck's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it small.
        recipe, overrides, data: see `ByRecipe`; two steps are trained where a recipe is given.
        inputs, images: see BackboneConformance.
        input_shape: what a backbone would give.
    """

    kind: ClassVar = "neck"
    input_shape: ClassVar[Mapping[str, ShapeSpec]] = INPUT_SHAPE

    def test_gives_the_shapes_it_announces(self) -> None:
        neck = self.make().eval()
        for count, cells in ((2, (2, 3)), (1, (1, 1)), (1, (3, 1))):
            size = self._size(neck, cells)
            images = torch.zeros(count, 3, *size)
            features = make_features(dict(self.input_shape), count, size)
            with torch.no_grad():
                check_feature_maps(self.run(neck, features), neck.output_shape(), images)

    def test_takes_the_levels_in_any_order(self) -> None:
        neck = self.make().eval()
        features = self.make_inputs(neck)
        with torch.no_grad():
            turned = self.run(neck, dict(reversed(features.items())))
            check_same(
                self.run(neck, features), {name: turned[name] for name in neck.output_shape()}, "levels turned round"
            )

    def test_trains_by_its_recipe(self) -> None:
        self.train()

    def make(self, seed: int = 0) -> Any:
        self.load_plugins()
        return super().make(seed)

    def make_facts(self) -> dict[str, Any]:
        return {"input_shape": dict(self.input_shape)}

    def make_inputs(self, part: Neck) -> dict[str, Tensor]:
        return make_features(dict(self.input_shape), 2, self._size(part))

    def size_of(self, inputs: dict[str, Tensor]) -> tuple[int, tuple[int, int]]:
        name = min(self.input_shape, key=lambda one: self.input_shape[one].stride)
        height, width = (side * self.input_shape[name].stride for side in inputs[name].shape[2:])
        return len(inputs[name]), (height, width)

    def _size(self, neck: Neck, cells: tuple[int, int] = (2, 3)) -> tuple[int, int]:
        """(height, width) of an image that a model would give to this neck."""
        multiple = math.lcm(neck.size_divisibility, max(spec.stride for spec in self.input_shape.values()))
        return cells[0] * multiple, cells[1] * multiple
