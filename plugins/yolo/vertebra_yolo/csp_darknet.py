"""CSPDarknet: the backbone of YOLOv5, releases 6 and 7.

Layout as published with YOLOv5: a 6x6 stem of stride 2, then four times a 3x3 convolution of stride 2 and a C3 block,
SPPF behind the last. Widths 64 to 1024 and depths 3, 6, 9, 3 are scaled by the two multiples.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from vertebra.models import Backbone, ShapeSpec
from vertebra_yolo.csp_blocks import C3, SPPF, ConvAct, round_channels

__all__ = ["SIZES", "CSPDarknet", "Multiples"]


class Multiples(NamedTuple):
    """Depth and width multipliers of a model size."""

    depth: float
    width: float


SIZES = {
    "n": Multiples(0.33, 0.25),
    "s": Multiples(0.33, 0.50),
    "m": Multiples(0.67, 0.75),
    "l": Multiples(1.0, 1.0),
    "x": Multiples(1.33, 1.25),
}

_WIDTHS = (64, 128, 256, 512, 1024)
_DEPTHS = (3, 6, 9, 3)


class CSPDarknet(Backbone):
    """Features `res2` to `res5` of strides 4 to 32.

    Args:
        size: letter of a published size; its depth and width multiples.
        out_features: which to return.
    """

    yolov5_names: ClassVar = ((r"backbone\.(.+)", r"\1"),)  # see v5_import

    def __init__(
        self,
        size: Literal["n", "s", "m", "l", "x"] = "s",
        out_features: Sequence[str] = ("res3", "res4", "res5"),
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"CSPDarknet: size is {size!r}; it must be one of {', '.join(SIZES)}")
        depth, width = SIZES[size]
        channels = [round_channels(each * width) for each in _WIDTHS]
        self.stem = ConvAct(3, channels[0], 6, 2, padding=2)
        self.stages = nn.ModuleDict()
        shapes = {}
        for i, blocks in enumerate(_DEPTHS):
            name = f"res{i + 2}"
            layers = [
                ConvAct(channels[i], channels[i + 1], 3, 2),
                C3(channels[i + 1], channels[i + 1], max(round(blocks * depth), 1)),
            ]
            if i == len(_DEPTHS) - 1:
                layers.append(SPPF(channels[i + 1], channels[i + 1]))
            self.stages[name] = nn.Sequential(*layers)
            shapes[name] = ShapeSpec(channels=channels[i + 1], stride=2 ** (i + 2))
        unknown = [name for name in out_features if name not in shapes]
        if unknown or not out_features:
            raise ValueError(f"CSPDarknet: out_features are {list(out_features)}; choose among {', '.join(shapes)}")
        self._shapes = {name: shape for name, shape in shapes.items() if name in out_features}
        for name in list(self.stages)[list(shapes).index(list(self._shapes)[-1]) + 1 :]:
            del self.stages[name]  # behind the last requested one

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, H/s, W/s)}."""
        x = self.stem(images)
        features = {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self._shapes:
                features[name] = x
        return features
