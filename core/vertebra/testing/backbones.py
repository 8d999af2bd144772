"""BackboneConformance: what every backbone promises."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vertebra.models import Backbone, ShapeSpec
from vertebra.testing.by_recipe import ByRecipe
from vertebra.testing.checks import check_same, require
from vertebra.testing.features import FeatureConformance, check_feature_maps

__all__ = ["BackboneConformance"]


class BackboneConformance(ByRecipe, FeatureConformance):
    """Subclass it with `component`; nothing else is needed where the defaults build a small one without weights.

    Attributes:
        component: the backbone's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it small. A backbone that it holds is a block
            as in a recipe: {"encoder": {"name": "ResNet", "depth": 18}}.
        recipe, overrides, data: see `ByRecipe`; two steps are trained where a recipe is given.
        inputs: {name: value} that each input has, where the backbone names some in `needs_inputs`.
        images: {name: number of channels} of the further images that it asks for.
        cells: (height, width) of the input, in units of the backbone's `size_divisibility`, or of its coarsest cell
            where that is larger.
    """

    kind: ClassVar = "backbone"
    cells: ClassVar[tuple[int, int]] = (2, 3)

    def test_gives_the_shapes_it_announces(self) -> None:
        backbone = self.make().eval()
        images = self.make_images(backbone)
        with torch.no_grad():
            _check_maps(self.run(backbone, images), backbone.output_shape(), images)

    def test_takes_the_smallest_and_a_long_image(self) -> None:
        """One cell, and a row of five; of a backbone that takes any size, two cells and some pixels."""
        backbone = self.make().eval()
        shapes = backbone.output_shape()
        if backbone.size_divisibility >= _coarsest(shapes):
            sizes = [self.make_images(backbone, 1, cells) for cells in ((1, 1), (1, 5))]
        else:
            step = backbone.size_divisibility
            sizes = [self.make_images(backbone, 1, cells)[..., step:, step:] for cells in ((3, 3), (3, 6))]
        for images in sizes:
            with torch.no_grad():
                _check_maps(self.run(backbone, images), shapes, images)

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

    def test_trains_by_its_recipe(self) -> None:
        self.train()

    def make(self, seed: int = 0) -> Any:
        self.load_plugins()
        return super().make(seed)

    def make_inputs(self, part: Backbone) -> Tensor:
        return self.make_images(part)

    def size_of(self, inputs: Tensor) -> tuple[int, tuple[int, int]]:
        return len(inputs), (inputs.shape[2], inputs.shape[3])

    def make_images(self, backbone: Backbone, count: int = 2, cells: tuple[int, int] | None = None) -> Tensor:
        """Noise as normalized images (count, 3, H, W)."""
        step, coarsest = backbone.size_divisibility, _coarsest(backbone.output_shape())
        multiple = -(-coarsest // step) * step
        height, width = (multiple * number for number in cells or self.cells)
        return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def _coarsest(shapes: dict[str, ShapeSpec]) -> int:
    return max((spec.stride for spec in shapes.values()), default=1)


def _check_maps(features: Any, announced: dict[str, ShapeSpec], images: Tensor) -> None:
    """As `check_feature_maps`; where a side is not a multiple of a stride, its cells are rounded up or down."""
    check_feature_maps(features, announced)
    for name, spec in announced.items():
        found = tuple(features[name].shape[2:])
        most = tuple(-(-side // spec.stride) for side in images.shape[2:])
        least = tuple(side // spec.stride for side in images.shape[2:])
        fits = all(low <= cells <= high for low, cells, high in zip(least, found, most, strict=True))
        require(
            fits and len(features[name]) == len(images),
            f"{name} is {tuple(features[name].shape)} for images {tuple(images.shape)}; stride {spec.stride} makes "
            f"{len(images)} maps of {most}" + (f", or {least} where it rounds down" if least != most else ""),
        )
