"""BackboneConformance: what every backbone promises."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vertebra.models import Backbone
from vertebra.testing.checks import check_same
from vertebra.testing.features import FeatureConformance, check_feature_maps

__all__ = ["BackboneConformance"]


class BackboneConformance(FeatureConformance):
    """Subclass it with `component`; nothing else is needed where the defaults build a small one without weights.

    Attributes:
        component: the backbone's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it small.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
        inputs: {name: value} that each input has, where the backbone names some in `needs_inputs`.
        images: {name: number of channels} of the further images that it asks for.
        cells: (height, width) of the input, in units of the backbone's `size_divisibility`.
    """

    kind: ClassVar = "backbone"
    cells: ClassVar[tuple[int, int]] = (2, 3)

    def test_gives_the_shapes_it_announces(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            check_feature_maps(self.run(backbone, images), backbone.output_shape(), images)

    def test_takes_the_smallest_and_a_long_image(self) -> None:
        backbone = self.make().eval()
        for cells in ((1, 1), (1, 5)):
            images = self.make_images(backbone, 1, cells)
            with torch.no_grad():
                check_feature_maps(self.run(backbone, images), backbone.output_shape(), images)

    def test_an_image_does_not_see_its_neighbors(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            both, alone = self.run(backbone, images), self.run(backbone, images[:1])
        check_same({k: v[:1] for k, v in both.items()}, alone, "an image alone and in a batch", tolerance=1e-4)

    def test_channels_last_changes_nothing(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            plain = self.run(backbone, images)
            backbone.to(memory_format=torch.channels_last)
            turned = self.run(backbone, images.contiguous(memory_format=torch.channels_last))
        check_same(plain, turned, "channels_last", tolerance=1e-3)

    def make_inputs(self, part: Backbone) -> Tensor:
        return self.make_images(part)

    def size_of(self, inputs: Tensor) -> tuple[int, tuple[int, int]]:
        return len(inputs), (inputs.shape[2], inputs.shape[3])

    def make_images(self, backbone: Backbone, count: int = 2, cells: tuple[int, int] | None = None) -> Tensor:
        """Noise as normalized images (count, 3, H, W)."""
        multiple = backbone.size_divisibility
        height, width = (multiple * number for number in cells or self.cells)
        return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))
