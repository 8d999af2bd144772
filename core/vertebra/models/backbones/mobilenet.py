"""MobileNetV2 and MobileNetV3.

Sources: Sandler et al., arXiv:1801.04381 (V2); Howard et al., arXiv:1905.02244 (V3); layers and weights: torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torchvision.models import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small

from vertebra.models.backbones.torchvision_features import TorchvisionFeatures
from vertebra.models.contracts import ShapeSpec

__all__ = ["MobileNetV2", "MobileNetV3"]

_STAGES = ("stage2", "stage3", "stage4", "stage5")


class MobileNetV2(TorchvisionFeatures):
    """Features `stage1` to `stage5`: the last block of each stride, 2 to 32; `last`: the 1x1 convolution after them.

    Args:
        width: multiplies all channels.
        out_features: which to return; layers behind the last of these are not built.
        output_stride: 16 or 8: stages of a larger stride keep this one and dilate their 3x3 convolutions instead, as
            DeepLab needs it; what weights trained at stride 32 compute stays the same, at more places.
        weights: a file, URL or `torchvision:MobileNet_V2_Weights.IMAGENET1K_V2` in torchvision's names; None: random.
    """

    def __init__(
        self,
        width: float = 1.0,
        out_features: Sequence[str] = _STAGES,
        output_stride: Literal[8, 16, 32] = 32,
        weights: str | None = None,
    ) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"MobileNetV2: output_stride is {output_stride}; it must be 8, 16 or 32")
        layers = mobilenet_v2(width_mult=width).features
        known, ends = _stages(layers)
        known = {name: ShapeSpec(spec.channels, min(spec.stride, output_stride)) for name, spec in known.items()}
        _dilate(layers, output_stride)
        super().__init__(layers, known, ends, out_features, weights)


class MobileNetV3(TorchvisionFeatures):
    """Features as of MobileNetV2.

    Args:
        size: which of the paper's two nets.
        width: multiplies all channels.
        out_features: which to return; layers behind the last of these are not built.
        weights: a file, URL or `torchvision:MobileNet_V3_Large_Weights.IMAGENET1K_V2` in torchvision's names;
            None: random.
    """

    def __init__(
        self,
        size: Literal["large", "small"] = "large",
        width: float = 1.0,
        out_features: Sequence[str] = _STAGES,
        weights: str | None = None,
    ) -> None:
        if size not in ("large", "small"):
            raise ValueError(f"MobileNetV3: size is {size!r}; it must be 'large' or 'small'")
        layers = (mobilenet_v3_large if size == "large" else mobilenet_v3_small)(width_mult=width).features
        super().__init__(layers, *_stages(layers), out_features, weights)


def _stages(layers: nn.Sequential) -> tuple[dict[str, ShapeSpec], dict[str, int]]:
    """Splits the blocks by stride: each stage ends with the last block before the next halving.

    Returns:
        Shape, and number of the last layer, of each stage.
    """
    ends: dict[str, int] = {}
    known: dict[str, ShapeSpec] = {}
    stride, channels = 1, 3
    for number, layer in enumerate(layers):
        convs = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
        if number == len(layers) - 1:
            name = "last"
        else:
            for conv in convs:
                stride *= conv.stride[0]
            name = f"stage{stride.bit_length() - 1}"
        channels = _out_channels(layer, convs)
        ends[name] = number
        known[name] = ShapeSpec(channels=channels, stride=stride)
    return known, ends


def _dilate(layers: nn.Sequential, output_stride: int) -> None:
    """Takes the strides beyond `output_stride` off, and spreads the kernels behind each by as much."""
    stride, dilation = 1, 1
    for conv in (module for module in layers.modules() if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1):
        behind = dilation
        if conv.stride[0] > 1 and stride >= output_stride:
            behind, conv.stride = dilation * conv.stride[0], (1, 1)
        stride *= conv.stride[0]
        conv.dilation = (dilation, dilation)
        conv.padding = tuple(dilation * (size // 2) for size in conv.kernel_size)
        dilation = behind


def _out_channels(layer: nn.Module, convs: list[nn.Conv2d]) -> int:
    """Of a block or a convolution with norm: its last convolution's (squeeze-excitation comes before that)."""
    return getattr(layer, "out_channels", convs[-1].out_channels)
