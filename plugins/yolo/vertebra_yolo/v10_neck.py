"""The neck of YOLOv10: PANet's two ways with C2f blocks; the coarsest level is reached by decoupled downsampling.

Source: Wang et al., arXiv:2405.14458, section 3.2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.models import Neck, ShapeSpec, finest_first
from vertebra_yolo.csp_blocks import ConvAct
from vertebra_yolo.v10_blocks import SCDown
from vertebra_yolo.v10_sizes import V10_SIZES, V10SizeName, make_stage

__all__ = ["YOLOv10Neck"]


class YOLOv10Neck(Neck):
    """Three levels `p3`, `p4`, `p5`, as wide as the features that come in.

    Args:
        size: letter of a published size: sets the depth of the blocks and their kind.
    """

    def __init__(self, input_shape: dict[str, ShapeSpec], size: V10SizeName = "s") -> None:
        super().__init__()
        if size not in V10_SIZES:
            raise ValueError(f"YOLOv10Neck: size is {size!r}; it must be one of {', '.join(V10_SIZES)}")
        sized = V10_SIZES[size]
        self.features = finest_first("YOLOv10Neck", input_shape, argument="out_features", doubling=True)
        strides = [input_shape[name].stride for name in self.features]
        if len(strides) != 3:
            raise ValueError(f"YOLOv10Neck needs three features, got {', '.join(self.features)}")
        fine, middle, coarse = (input_shape[name].channels for name in self.features)
        self.top4 = make_stage(sized, "top4", middle + coarse, middle, 3)
        self.top3 = make_stage(sized, "top3", fine + middle, fine, 3)
        self.down4 = ConvAct(fine, fine, 3, 2)
        self.level4 = make_stage(sized, "p4", fine + middle, middle, 3)
        self.down5 = SCDown(middle, middle)
        self.level5 = make_stage(sized, "p5", middle + coarse, coarse, 3)
        self._shapes = {
            f"p{stride.bit_length() - 1}": ShapeSpec(channels=width, stride=stride)
            for stride, width in zip(strides, (fine, middle, coarse), strict=True)
        }

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride: each level must be exactly twice the next."""
        return max(shape.stride for shape in self._shapes.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {p3: ..., p4: ..., p5: ...} of the same strides."""
        fine, middle, coarse = (features[name] for name in self.features)
        top4 = self.top4(torch.cat((_doubled(coarse), middle), dim=1))
        p3 = self.top3(torch.cat((_doubled(top4), fine), dim=1))
        p4 = self.level4(torch.cat((self.down4(p3), top4), dim=1))
        p5 = self.level5(torch.cat((self.down5(p4), coarse), dim=1))
        return dict(zip(self._shapes, (p3, p4, p5), strict=True))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
