"""BackboneConformance: what every backbone promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vertebra.models import Backbone
from vertebra.testing.checks import (
    build_from_defaults,
    check_gradients,
    check_same,
    check_state_round_trip,
    require,
)
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.features import check_feature_maps, total_of
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["BackboneConformance"]


class BackboneConformance:
    """Subclass it with `component`; nothing else is needed where the defaults build a small one without weights.

    Attributes:
        component: the backbone's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it small.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
        cells: (height, width) of the input, in units of the backbone's `size_divisibility`.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    cells: ClassVar[tuple[int, int]] = (2, 3)

    def test_gives_the_shapes_it_announces(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            check_feature_maps(backbone(images), backbone.output_shape(), images)

    def test_takes_the_smallest_and_a_long_image(self) -> None:
        backbone = self.make().eval()
        for cells in ((1, 1), (1, 5)):
            images = self.make_images(backbone, 1, cells)
            with torch.no_grad():
                check_feature_maps(backbone(images), backbone.output_shape(), images)

    def test_same_seed_same_weights_and_features(self) -> None:
        first, second = self.make(3), self.make(3)
        check_same(first.state_dict(), second.state_dict(), "weights of two backbones of one seed")
        images = self.make_images(first)
        with torch.no_grad():
            check_same(first.eval()(images), second.eval()(images), "features under one seed")

    def test_every_parameter_gets_a_gradient(self) -> None:
        backbone = self.make().train()
        total_of(backbone(self.make_images(backbone))).backward()
        check_gradients(backbone, "a loss on all feature maps")

    def test_an_image_does_not_see_its_neighbors(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            both, alone = backbone(images), backbone(images[:1])
        check_same({k: v[:1] for k, v in both.items()}, alone, "an image alone and in a batch", tolerance=1e-4)

    def test_state_dict_round_trip_is_bit_equal(self) -> None:
        check_state_round_trip(self.make(1), self.make(2), lambda backbone: backbone(self.make_images(backbone)))

    def test_finite_under_bf16_autocast(self) -> None:
        backbone = self.make().train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = total_of(backbone(self.make_images(backbone)))
        require(bool(torch.isfinite(total)), "features under bf16 autocast are not finite")
        total.backward()
        check_gradients(backbone, "bf16 autocast")

    def test_channels_last_changes_nothing(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            plain = backbone(images)
            backbone.to(memory_format=torch.channels_last)
            turned = backbone(images.contiguous(memory_format=torch.channels_last))
        check_same(plain, turned, "channels_last", tolerance=1e-3)

    def test_survives_a_spawned_process(self) -> None:
        backbone = self.make()
        check_spawned(backbone, self.make_images(backbone))

    def test_forward_exports(self) -> None:
        backbone = self.make()
        check_export(backbone, self.make_images(backbone))

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, "backbone", self.component)

    def make(self, seed: int = 0) -> Backbone:
        """A new backbone."""
        torch.manual_seed(seed)
        return build_from_defaults("backbone", self.component, self.arguments)

    def make_images(self, backbone: Backbone, count: int = 2, cells: tuple[int, int] | None = None) -> Tensor:
        """Noise as normalized images (count, 3, H, W)."""
        multiple = backbone.size_divisibility
        height, width = (multiple * number for number in cells or self.cells)
        return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))
