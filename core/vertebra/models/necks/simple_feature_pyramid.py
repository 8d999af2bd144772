"""Simple feature pyramid: levels of a plain vision transformer's last map, each made of it alone.

Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", arXiv:2203.16527, section 3 and
appendix A.2 (ViTDet), in Detectron2's form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vertebra.models.contracts import ShapeSpec
from vertebra.models.convolution import ConvNorm
from vertebra.models.levels import chosen_level
from vertebra.models.necks.fpn import Pyramid, TopBlock, level_name
from vertebra.models.norms import NormName, get_norm

__all__ = ["SimpleFeaturePyramid"]


class SimpleFeaturePyramid(Pyramid):
    """Levels `p2`, `p3`, ... of `out_channels` each, named for the log2 of their strides, of one feature map.

    A plain transformer keeps one stride (16) throughout and its last map is the best of all, so nothing is merged from
    above or below: the map is stretched by transposed convolutions or halved by pooling, then convolved 1x1 and 3x3.

    Args:
        in_feature: the feature to use; None: the last, a transformer's last block.
        out_channels: of each level.
        scale_factors: the size of each level by the feature's: 4, 2, 1 or 0.5. The default gives p2 to p5 of stride 16.
        norm: after every convolution, see `get_norm`; the paper's is layer normalization over the channels.
        top_block: what makes levels beyond the coarsest; None: nothing. `P6P7` starts from the coarsest level.
    """

    detectron2_names = (
        (r"^backbone\.simfp_(\d+)\.(.*)$", r"level.p\1.\2"),
        (r"^backbone\.top_block\.(.*)$", r"top_block.\1"),
    )

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        in_feature: str | None = None,
        out_channels: int = 256,
        scale_factors: Sequence[float] = (4, 2, 1, 0.5),
        norm: NormName = "ln",
        top_block: TopBlock | None = None,
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"SimpleFeaturePyramid: out_channels is {out_channels}, it must be at least 1")
        name = list(input_shape)[-1] if in_feature is None and input_shape else in_feature or ""
        self.in_feature = chosen_level("SimpleFeaturePyramid", input_shape, name)
        source = input_shape[self.in_feature]
        shapes: dict[str, ShapeSpec] = {}
        levels: dict[str, nn.Module] = {}
        for scale in _checked(scale_factors):
            stride = source.stride / scale
            if stride < 1 or math.log2(stride) % 1:
                raise ValueError(
                    f"SimpleFeaturePyramid: {self.in_feature} has a stride of {source.stride}, and {scale} times its "
                    f"size would have one of {stride:g}, not a power of 2. For a transformer with patches of 14 pixels "
                    "give the backbone patch_size: 16, which resamples its weights, or choose other scale_factors"
                )
            level = level_name(int(stride))
            levels[level] = _level(source.channels, out_channels, scale, norm)
            shapes[level] = ShapeSpec(channels=out_channels, stride=int(stride))
        self.level = nn.ModuleDict(levels)
        self.set_levels(shapes, top_block, shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {level: (N, out_channels, H/s, W/s)}, finest first."""
        source = features[self.in_feature]
        return self.with_top({name: level(source) for name, level in self.level.items()}, {})


def _checked(scale_factors: Sequence[float]) -> list[float]:
    """The factors, finest level first, each half of the one before."""
    factors = sorted(scale_factors, reverse=True)
    known = (4, 2, 1, 0.5)
    if not factors or not set(factors) <= set(known) or len(set(factors)) != len(factors):
        raise ValueError(
            f"SimpleFeaturePyramid: scale_factors is {list(scale_factors)}; it must name some of "
            f"{', '.join(map(str, known))}, each once"
        )
    return factors


def _level(channels: int, out_channels: int, scale: float, norm: NormName) -> nn.Sequential:
    """One level, with Detectron2's modules in Detectron2's order, which is the order in its names."""
    resized: list[nn.Module] = []
    if scale == 0.5:
        resized = [nn.MaxPool2d(2, ceil_mode=True)]  # ceil: a map of odd size keeps its last row
    elif scale == 2:
        resized = [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)]
    elif scale == 4:
        normed = get_norm(norm, channels // 2)
        resized = [
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
            *([] if normed is None else [normed]),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2),
        ]
    inside = int(channels / scale) if scale > 1 else channels
    return nn.Sequential(
        *resized, ConvNorm(inside, out_channels, 1, norm=norm), ConvNorm(out_channels, out_channels, 3, norm=norm)
    )
