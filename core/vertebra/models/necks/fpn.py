"""FPN: a pyramid of equally wide feature maps, each enriched by the coarser ones.

Source: Lin et al., "Feature Pyramid Networks for Object Detection", arXiv:1612.03144, in Detectron2's form;
P6 and P7 as in Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models.contracts import Neck, ShapeSpec
from vertebra.models.convolution import ConvNorm, xavier_fill
from vertebra.models.levels import finest_first
from vertebra.models.norms import NormName

__all__ = ["FPN", "P6P7", "MaxPool", "TopBlock"]


class TopBlock:
    """Describes levels beyond the coarsest of a pyramid; the pyramid, which knows the channels, makes the module.

    Subclasses set `num_levels` and implement `make`.
    """

    component_kind: ClassVar[str] = "part"
    num_levels: ClassVar[int]

    def make(self, input_shape: dict[str, ShapeSpec], output_shape: dict[str, ShapeSpec]) -> nn.Module:
        """A module from {name: tensor} of the backbone's and the pyramid's levels to a list of further levels.

        Args:
            input_shape: the backbone's features, finest first.
            output_shape: the pyramid's levels so far, finest first, all with the pyramid's channels.
        """
        raise NotImplementedError

    def grown(self, shapes: dict[str, ShapeSpec]) -> dict[str, ShapeSpec]:
        """The levels of a pyramid, finest first, and these: each of twice the stride of the one before."""
        coarsest = list(shapes.values())[-1]
        strides = [coarsest.stride * 2**step for step in range(1, self.num_levels + 1)]
        return shapes | {level_name(stride): ShapeSpec(coarsest.channels, stride) for stride in strides}


def level_name(stride: int) -> str:
    """ "p" and the log2 of the stride, a power of 2: "p3" of 8."""
    return f"p{int(math.log2(stride))}"


@dataclass(frozen=True)
class P6P7(TopBlock):
    """Two more levels by 3x3 convolutions of stride 2: RetinaNet's.

    Args:
        in_feature: what P6 is made of: a backbone feature ("res5", as in the paper and in Detectron2) or a level of
            the pyramid ("p5"). None: the backbone's coarsest.
    """

    in_feature: str | None = None

    num_levels: ClassVar[int] = 2

    def make(self, input_shape: dict[str, ShapeSpec], output_shape: dict[str, ShapeSpec]) -> nn.Module:
        known = {**output_shape, **input_shape}
        name = self.in_feature if self.in_feature is not None else list(input_shape)[-1]
        if name not in known:
            raise ValueError(f"top block p6p7: in_feature is {name!r}, but the features are {', '.join(known)}")
        out_channels = next(iter(output_shape.values())).channels
        return _P6P7(name, known[name].channels, out_channels)


@dataclass(frozen=True)
class MaxPool(TopBlock):
    """One more level: every second cell of the pyramid's coarsest. Faster R-CNN's P6."""

    num_levels: ClassVar[int] = 1

    def make(self, input_shape: dict[str, ShapeSpec], output_shape: dict[str, ShapeSpec]) -> nn.Module:
        return _MaxPool(list(output_shape)[-1])


class Pyramid(Neck):
    """What necks have in common whose levels are named for the log2 of their strides. Subclasses call `set_levels`."""

    def set_levels(
        self, shapes: dict[str, ShapeSpec], top_block: TopBlock | None, inputs: dict[str, ShapeSpec]
    ) -> None:
        """Its levels, finest first, and those of the top block, which may be made of the `inputs`."""
        self.top_block = None if top_block is None else top_block.make(inputs, shapes)
        self._size_divisibility = max(spec.stride for spec in shapes.values())
        self._output_shape = shapes if top_block is None else top_block.grown(shapes)

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest level but for the top block's, so that each map is exactly twice the next;
        Detectron2's padding."""
        return self._size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._output_shape)

    def with_top(self, levels: dict[str, Tensor], features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The levels, and those that the top block makes of them or of the features."""
        if self.top_block is None:
            return levels
        further = list(self._output_shape)[len(levels) :]
        return levels | dict(zip(further, self.top_block({**levels, **features}), strict=True))


class FPN(Pyramid):
    """Levels `p2`, `p3`, ... of `out_channels` each, named for the log2 of their strides.

    Sizes need not be divisible: a coarser map is stretched to the size of the finer one (nearest cell).

    Args:
        in_features: the features to use, each of twice the stride of the one before; None: all.
        norm: after every convolution, see `get_norm`.
        top_block: what makes levels beyond the coarsest; None: nothing.
        fuse: the finer and the stretched coarser map are added, or averaged.
    """

    detectron2_names = (
        (r"^backbone\.fpn_lateral(\d+)\.(.*)$", r"lateral.p\1.\2"),
        (r"^backbone\.fpn_output(\d+)\.(.*)$", r"output.p\1.\2"),
        (r"^backbone\.top_block\.(.*)$", r"top_block.\1"),
    )

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        out_channels: int = 256,
        in_features: Sequence[str] | None = None,
        norm: NormName = "",
        top_block: TopBlock | None = None,
        fuse: Literal["sum", "avg"] = "sum",
    ) -> None:
        super().__init__()
        if fuse not in ("sum", "avg"):
            raise ValueError(f"FPN: fuse is {fuse!r}; it must be 'sum' or 'avg'")
        if out_channels < 1:
            raise ValueError(f"FPN: out_channels is {out_channels}, it must be at least 1")
        self.in_features = _finest_first(input_shape, in_features)
        inputs = {name: input_shape[name] for name in self.in_features}
        self.fuse = fuse
        self.levels = [level_name(spec.stride) for spec in inputs.values()]
        lateral: dict[str, ConvNorm] = {}
        output: dict[str, ConvNorm] = {}
        for level, spec in zip(self.levels, inputs.values(), strict=True):
            lateral[level] = ConvNorm(spec.channels, out_channels, 1, norm=norm)
            output[level] = ConvNorm(out_channels, out_channels, 3, norm=norm)
        for conv in (*lateral.values(), *output.values()):
            xavier_fill(conv)
        self.lateral, self.output = nn.ModuleDict(lateral), nn.ModuleDict(output)

        shapes = {
            level: ShapeSpec(channels=out_channels, stride=spec.stride)
            for level, spec in zip(self.levels, inputs.values(), strict=True)
        }
        self.set_levels(shapes, top_block, inputs)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {level: (N, out_channels, H/s, W/s)}, finest first."""
        levels: dict[str, Tensor] = {}
        merged = None
        for name, level in zip(reversed(self.in_features), reversed(self.levels), strict=True):
            lateral = self.lateral[level](features[name])
            if merged is None:
                merged = lateral
            else:
                merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
                if self.fuse == "avg":
                    merged = merged / 2
            levels[level] = self.output[level](merged)
        return self.with_top({level: levels[level] for level in self.levels}, features)


class _P6P7(nn.Module):
    def __init__(self, in_feature: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        xavier_fill(self.p6)
        xavier_fill(self.p7)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        p6 = self.p6(features[self.in_feature])
        return [p6, self.p7(F.relu(p6))]


class _MaxPool(nn.Module):
    def __init__(self, in_feature: str) -> None:
        super().__init__()
        self.in_feature = in_feature

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        return [F.max_pool2d(features[self.in_feature], kernel_size=1, stride=2)]


def _finest_first(input_shape: dict[str, ShapeSpec], wanted: Sequence[str] | None) -> list[str]:
    """The names to use in order of stride, each of twice the one before; strides are powers of 2, as levels are named
    by their exponents."""
    names = finest_first("FPN", input_shape, wanted, doubling=True)
    if math.log2(input_shape[names[0]].stride) % 1:
        raise ValueError(f"FPN: the stride of {names[0]} is {input_shape[names[0]].stride}, not a power of 2")
    return names
