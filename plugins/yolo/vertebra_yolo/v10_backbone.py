"""The backbone of YOLOv10.

Source: Wang et al., arXiv:2405.14458, section 3.2: four stages of C2f blocks, the last two entered by decoupled
downsampling, pooling pyramid and partial self-attention behind the last.
"""

from typing import ClassVar

from torch import Tensor, nn

from vertebra.models import Backbone, ShapeSpec
from vertebra_yolo.csp_blocks import SPPF, ConvAct
from vertebra_yolo.v10_blocks import PSA, SCDown
from vertebra_yolo.v10_sizes import V10_SIZES, V10SizeName, make_stage

__all__ = ["YOLOv10Backbone"]


class YOLOv10Backbone(Backbone):
    """Features `res3`, `res4`, `res5` of strides 8, 16, 32.

    Args:
        size: letter of a published size.
    """

    _STAGES: ClassVar = {"res2": (128, 3), "res3": (256, 6), "res4": (512, 6), "res5": (1024, 3)}  # channels, blocks

    def __init__(self, size: V10SizeName = "s") -> None:
        super().__init__()
        if size not in V10_SIZES:
            raise ValueError(f"YOLOv10Backbone: size is {size!r}; it must be one of {', '.join(V10_SIZES)}")
        sized = V10_SIZES[size]
        channels = sized.channels(64)
        self.stem = ConvAct(3, channels, 3, 2)
        self.stages = nn.ModuleDict()
        self._shapes = {}
        for i, (name, (base, blocks)) in enumerate(self._STAGES.items()):
            wide = sized.channels(base)
            down = ConvAct(channels, wide, 3, 2) if i < 2 else SCDown(channels, wide)
            layers = [down, make_stage(sized, name, wide, wide, blocks)]
            if name == "res5":
                layers += [SPPF(wide, wide), PSA(wide)]
            self.stages[name] = nn.Sequential(*layers)
            self._shapes[name] = ShapeSpec(channels=wide, stride=4 * 2**i)
            channels = wide
        del self._shapes["res2"]

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
