"""VGG, with and without batch normalization.

Source: Simonyan & Zisserman, "Very Deep Convolutional Networks", arXiv:1409.1556; layers and weights: torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torchvision.models import vgg

from vertebra.models.backbones.torchvision_features import TorchvisionFeatures
from vertebra.models.contracts import ShapeSpec
from vertebra.models.convolution import msra_fill

__all__ = ["VGG"]

_CONFIGURATIONS = {11: "A", 13: "B", 16: "D", 19: "E"}  # columns of the paper's table 1


class VGG(TorchvisionFeatures):
    """VGG-11/13/16/19.

    Features `conv1` to `conv5` are what goes into each pooling (strides 1 to 16), `pool1` to `pool5` what comes out
    (strides 2 to 32).

    Args:
        batch_norm: normalize after every convolution.
        out_features: which to return; layers behind the last of these are not built.
        weights: a file, URL or `torchvision:VGG16_Weights.IMAGENET1K_V1` in torchvision's names; None: random ones.
    """

    def __init__(
        self,
        depth: Literal[11, 13, 16, 19] = 16,
        batch_norm: bool = False,
        out_features: Sequence[str] = ("conv3", "conv4", "conv5", "pool5"),
        weights: str | None = None,
    ) -> None:
        if depth not in _CONFIGURATIONS:
            raise ValueError(f"VGG: depth is {depth}; it must be 11, 13, 16 or 19")
        layers = vgg.make_layers(vgg.cfgs[_CONFIGURATIONS[depth]], batch_norm)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                msra_fill(layer)
            elif isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True  # as if padded, where a side is odd
        pools = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        ends: dict[str, int] = {}
        shapes = {}
        for stage, (number, channels) in enumerate(zip(pools, (64, 128, 256, 512, 512), strict=True), start=1):
            ends |= {f"conv{stage}": number - 1, f"pool{stage}": number}
            shapes[f"conv{stage}"] = ShapeSpec(channels=channels, stride=2 ** (stage - 1))
            shapes[f"pool{stage}"] = ShapeSpec(channels=channels, stride=2**stage)
        super().__init__(layers, shapes, ends, out_features, weights)
