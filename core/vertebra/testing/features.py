"""Feature maps: what backbones and necks both promise of them, and ones made by hand."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from vertebra.config.extra_fields import FieldSection
from vertebra.models import BaseModel, ShapeSpec
from vertebra.models.base_model import IMAGENET_MEAN, IMAGENET_STD
from vertebra.models.given import Given, further_parameters
from vertebra.models.pixels import Pixels
from vertebra.testing.agreement import check_leaves_alone
from vertebra.testing.checks import build_from_defaults, check_gradients, check_same, check_state_round_trip, require
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.inputs import add_declared, make_input
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["FeatureConformance", "check_feature_maps", "make_features"]


class FeatureConformance:
    """The checks of a part that gives feature maps; see `BackboneConformance` and `NeckConformance`."""

    kind: ClassVar[str]
    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    inputs: ClassVar[Mapping[str, Any]] = {}
    images: ClassVar[Mapping[str, int]] = {}

    def test_same_seed_same_weights_and_features(self) -> None:
        first, second = self.make(3), self.make(3)
        check_same(first.state_dict(), second.state_dict(), f"weights of two {self.kind}s of one seed")
        inputs = self.make_inputs(first)
        with torch.no_grad():
            check_same(self.run(first.eval(), inputs), self.run(second.eval(), inputs), "features under one seed")

    def test_every_parameter_gets_a_gradient(self) -> None:
        part = self.make().train()
        _total_of(self.run(part, self.make_inputs(part))).backward()
        check_gradients(part, "a loss on all feature maps")

    def test_state_dict_round_trip_is_bit_equal(self) -> None:
        check_state_round_trip(self.make(1), self.make(2), lambda part: self.run(part, self.make_inputs(part)))

    def test_finite_under_bf16_autocast(self) -> None:
        part = self.make().train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = _total_of(self.run(part, self.make_inputs(part)))
        require(bool(torch.isfinite(total)), "features under bf16 autocast are not finite")
        total.backward()
        check_gradients(part, "bf16 autocast")

    def test_survives_a_spawned_process(self) -> None:
        part = self.make()
        inputs = self.make_inputs(part)
        check_spawned(part, inputs, further=self.further(part, inputs))

    def test_forward_exports(self) -> None:
        part = self.make()
        inputs = self.make_inputs(part)
        check_export(part, inputs, further=self.further(part, inputs))

    def test_leaves_its_inputs_alone(self) -> None:
        for part in (self.make().train(), self.make().eval()):
            inputs = self.make_inputs(part)
            with torch.no_grad(), check_leaves_alone(inputs, self.component, "its inputs"):
                self.run(part, inputs)

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, self.kind, self.component)

    def run(self, part: Any, inputs: Any) -> Any:
        """What its `forward` gives."""
        return part(inputs, **self.further(part, inputs))

    def further(self, part: Any, inputs: Any) -> dict[str, Any]:
        """What its `forward` names beside its first argument, of a batch made by hand."""
        if not further_parameters(type(part).forward):
            return {}
        count, size = self.size_of(inputs)
        fields = {
            name: FieldSection(geometry=geometry, size=1 if geometry == "points" else None)
            for name, geometry in part.needs_fields.items()
        }
        model, pixels = BaseModel(), {"image": Pixels(IMAGENET_MEAN, IMAGENET_STD)}
        pixels |= {name: Pixels((0.0,) * channels, (1.0,) * channels) for name, channels in self.images.items()}
        model.set_pixels(pixels)
        given = [add_declared(make_input(n, size) | dict(self.inputs), pixels, fields) for n in range(count)]
        return Given(model.make_batch(given)).to(part)

    def size_of(self, inputs: Any) -> tuple[int, tuple[int, int]]:
        """Number and (height, width) of the images behind what `forward` takes."""
        raise NotImplementedError

    def make(self, seed: int = 0) -> Any:
        """A new one."""
        torch.manual_seed(seed)
        return build_from_defaults(self.kind, self.component, self.arguments, **self.make_facts())

    def make_facts(self) -> dict[str, Any]:
        """What is injected, besides the facts of the dataset."""
        return {}

    def make_inputs(self, part: Any) -> Any:
        """What its `forward` takes, two images of it."""
        raise NotImplementedError


def check_feature_maps(features: Any, announced: dict[str, ShapeSpec], images: Tensor | None = None) -> None:
    """{name: (N, C, H/s, W/s)}, finest first, as `output_shape` says; finite.

    Args:
        images: (N, 3, H, W) that they were made of; None: sizes are compared among themselves.
    """
    require(isinstance(features, dict), f"forward returns a dict of feature maps, got a {type(features).__name__}")
    require(
        list(features) == list(announced),
        f"forward gives {', '.join(map(str, features))}, output_shape announces {', '.join(announced)}",
    )
    strides = [spec.stride for spec in announced.values()]
    require(strides == sorted(strides), f"output_shape must list the finest level first; the strides are {strides}")
    for name, spec in announced.items():
        feature = features[name]
        require(isinstance(feature, Tensor) and feature.dim() == 4, f"{name} must be a tensor (N, C, H, W)")
        require(feature.shape[1] == spec.channels, f"{name} has {feature.shape[1]} channels, announced {spec.channels}")
        require(bool(torch.isfinite(feature).all()), f"{name} has values that are not finite")
        if images is not None:
            wanted = tuple(-(-side // spec.stride) for side in images.shape[2:])
            require(
                len(feature) == len(images) and tuple(feature.shape[2:]) == wanted,
                f"{name} is {tuple(feature.shape)} for images {tuple(images.shape)}; stride {spec.stride} "
                f"makes {len(images)} maps of {wanted}",
            )


def make_features(
    shapes: dict[str, ShapeSpec], count: int = 2, size: tuple[int, int] = (64, 96), *, learn: bool = False
) -> dict[str, Tensor]:
    """Noise (count, C, H/s, W/s) for every level of images of `size` (height, width)."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(
            count, spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride), generator=generator
        ).requires_grad_(learn)
        for name, spec in shapes.items()
    }


def _total_of(features: dict[str, Tensor]) -> Tensor:
    """A scalar that depends on every value of every map, each in its own way."""
    generator = torch.Generator().manual_seed(2)
    noise = [torch.randn(feature.shape, generator=generator) for feature in features.values()]
    return reduce(operator.add, ((a.float() * b).mean() for a, b in zip(features.values(), noise, strict=True)))
