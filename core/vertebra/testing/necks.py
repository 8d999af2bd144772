"""NeckConformance: what every neck promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from vertebra.models import Neck, ShapeSpec
from vertebra.testing.checks import (
    build_from_defaults,
    check_gradients,
    check_same,
    check_state_round_trip,
    require,
)
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.features import check_feature_maps, make_features, total_of
from vertebra.testing.inputs import INPUT_SHAPE
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["NeckConformance"]


class NeckConformance:
    """Subclass it with `component`.

    Attributes:
        component: the neck's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it small.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
        input_shape: what a backbone would give.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    input_shape: ClassVar[Mapping[str, ShapeSpec]] = INPUT_SHAPE

    def test_gives_the_shapes_it_announces(self) -> None:
        neck = self.make().eval()
        for count, cells in ((2, (2, 3)), (1, (1, 1)), (1, (3, 1))):
            size = self._size(neck, cells)
            images = torch.zeros(count, 3, *size)
            features = make_features(dict(self.input_shape), count, size)
            with torch.no_grad():
                check_feature_maps(neck(features), neck.output_shape(), images)

    def test_takes_the_levels_in_any_order(self) -> None:
        neck = self.make().eval()
        features = self._features(neck)
        with torch.no_grad():
            turned = neck(dict(reversed(features.items())))
            check_same(neck(features), {name: turned[name] for name in neck.output_shape()}, "levels turned round")

    def test_leaves_its_inputs_alone(self) -> None:
        neck = self.make().train()
        features = self._features(neck)
        before = {name: feature.clone() for name, feature in features.items()}
        with torch.no_grad():
            neck(features)
        check_same(before, features, "the neck's inputs after forward")

    def test_same_seed_same_weights_and_features(self) -> None:
        first, second = self.make(3), self.make(3)
        check_same(first.state_dict(), second.state_dict(), "weights of two necks of one seed")
        features = self._features(first)
        with torch.no_grad():
            check_same(first.eval()(features), second.eval()(features), "features under one seed")

    def test_every_parameter_gets_a_gradient(self) -> None:
        neck = self.make().train()
        total_of(neck(self._features(neck))).backward()
        check_gradients(neck, "a loss on all feature maps")

    def test_state_dict_round_trip_is_bit_equal(self) -> None:
        check_state_round_trip(self.make(1), self.make(2), lambda neck: neck(self._features(neck)))

    def test_finite_under_bf16_autocast(self) -> None:
        neck = self.make().train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = total_of(neck(self._features(neck)))
        require(bool(torch.isfinite(total)), "features under bf16 autocast are not finite")
        total.backward()
        check_gradients(neck, "bf16 autocast")

    def test_survives_a_spawned_process(self) -> None:
        neck = self.make()
        check_spawned(neck, self._features(neck))

    def test_forward_exports(self) -> None:
        neck = self.make()
        check_export(neck, self._features(neck))

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, "neck", self.component)

    def make(self, seed: int = 0) -> Neck:
        """A new neck."""
        torch.manual_seed(seed)
        return build_from_defaults("neck", self.component, self.arguments, input_shape=dict(self.input_shape))

    def _size(self, neck: Neck, cells: tuple[int, int] = (2, 3)) -> tuple[int, int]:
        """(height, width) of an image that a model would give to this neck."""
        multiple = math.lcm(neck.size_divisibility, max(spec.stride for spec in self.input_shape.values()))
        return cells[0] * multiple, cells[1] * multiple

    def _features(self, neck: Neck) -> dict[str, torch.Tensor]:
        return make_features(dict(self.input_shape), 2, self._size(neck))
