"""FCN head: a classifier slid over the coarsest map, refined by the scores of finer ones.

Source: Long et al., "Fully Convolutional Networks for Semantic Segmentation", arXiv:1411.4038, sections 4.1 and 4.2.
Unlike the paper, which pads the image by 100 pixels and cuts the surplus off, every layer here is padded so that its
output lies over its input: fc6 by 3 cells, a transposed convolution so that it gives exactly `factor` times its input.
A map is then cut only by what rounding up at odd sizes adds on the right and below.
Letters: N images, K classes, H x W padded input pixels; level l has C_l channels and stride s_l, s the finest stride.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vertebra.errors import CheckpointError
from vertebra.models import Loss, ShapeSpec, finest_first, read_weights
from vertebra.models.layers import BilinearConvTranspose2d, crop_like, fill_bias
from vertebra_fcn.scores import FullSizeHead, WideConv2d, score_conv

__all__ = ["FCNHead"]


class FCNHead(FullSizeHead):
    """From any number of levels: one gives FCN-32s, two FCN-16s, three FCN-8s.

    The levels are those of `input_shape`: pool3, pool4 and pool5 of a VGG, res3 to res5 of a ResNet. Layers have the
    paper's names: fc6, fc7, score_fr; score_pool4, score_pool3 (score_ and the level's name); upscore2 and so on.

    Args:
        fc_channels: of fc6 (7x7) and fc7 (1x1), each with ReLU and dropout: 4096 in the paper. 0 omits both: the
            coarsest map is scored as it is, as suits a ResNet.
        dropout: share of the channels of fc6 and fc7 set to 0 in training.
        skip_scale: factors of the finer levels before they are scored, from the coarser one on; None: all 1. The
            paper's authors train FCN-8s at once with 0.01 and 0.0001.
        learned_upsampling: False keeps the last upsampling bilinear, as the paper does; the others always learn.
        loss, loss_weight, training_only: see `SemanticHead`.
        weights: a file, URL or `torchvision:VGG16_Weights.IMAGENET1K_V1` whose classifier becomes fc6 and fc7
            (figure 2); needs pool5 of a VGG and fc_channels 4096. None: random ones.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        fc_channels: int = 0,
        dropout: float = 0.5,
        skip_scale: list[float] | None = None,
        learned_upsampling: bool = True,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.levels = finest_first("FCNHead", input_shape)[::-1]
        self.skip_scale = [1.0] * (len(self.levels) - 1) if skip_scale is None else list(skip_scale)
        if len(self.skip_scale) != len(self.levels) - 1:
            raise ValueError(
                f"FCNHead: {len(self.skip_scale)} factors in skip_scale for {len(self.levels) - 1} levels finer than "
                f"{self.levels[0]}"
            )
        coarsest = input_shape[self.levels[0]].channels
        self.fc6 = WideConv2d(coarsest, fc_channels, 7) if fc_channels else None
        self.fc7 = WideConv2d(fc_channels, fc_channels, 1) if fc_channels else None
        self.dropout = nn.Dropout2d(dropout)
        self.score_fr = score_conv(fc_channels or coarsest, num_classes)
        self.steps = _steps([input_shape[name].stride for name in self.levels])
        names = _upscore_names(self.levels, self.steps)
        for level in self.levels[1:]:
            self.add_module(f"score_{level}", score_conv(input_shape[level].channels, num_classes))
        for name, factor in zip(names, self.steps, strict=True):
            learned = learned_upsampling or name != names[-1]
            self.add_module(name, BilinearConvTranspose2d(num_classes, factor, learned=learned))
        self.upscore_names = names
        if weights is not None:
            self.load_classifier(weights)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """{l: (N, C_l, ceil(H / s_l), ceil(W / s_l))} -> scores (N, K, s ceil(H / s), s ceil(W / s))."""
        x = features[self.levels[0]]
        if self.fc6 is not None and self.fc7 is not None:
            x = self.dropout(self.fc6(x).relu_())
            x = self.dropout(self.fc7(x).relu_())
        scores = self.score_fr(x)
        finer = zip(self.levels[1:], self.skip_scale, self.upscore_names, strict=False)
        for level, scale, upscore in finer:
            x = features[level] if scale == 1 else features[level] * scale
            skip = getattr(self, f"score_{level}")(x)
            scores = skip + crop_like(getattr(self, upscore)(scores), skip, offset=0)
        return getattr(self, self.upscore_names[-1])(scores)

    def load_classifier(self, weights: str) -> None:
        """fc6 and fc7 from a VGG classifier's first two linear layers: the same weights, as convolutions.

        Raises:
            CheckpointError: the file has no such layers, or they do not fit.
        """
        if self.fc6 is None or self.fc7 is None:
            raise ValueError("FCNHead: weights are for fc6 and fc7, but fc_channels is 0")
        given = read_weights(weights)
        for name, conv in (("classifier.0", self.fc6), ("classifier.3", self.fc7)):
            kernel, bias = given.get(f"{name}.weight"), given.get(f"{name}.bias")
            if kernel is None or bias is None or kernel.numel() != conv.weight.numel():
                has = "no such layer" if kernel is None else f"{tuple(kernel.shape)}"
                raise CheckpointError(
                    f"{weights}: {name} must have {tuple(conv.weight.shape)} weights, as a VGG's classifier has for "
                    f"pool5 and fc_channels 4096, but has {has}"
                )
            with torch.no_grad():
                conv.weight.copy_(kernel.view_as(conv.weight))  # a row of pool5 flattened is C, then 7 x 7
            fill_bias(conv, bias)


def _steps(strides: list[int]) -> list[int]:
    """By how much each map is upsampled, to the next finer one and at last to the image."""
    steps = []
    for coarse, fine in zip(strides, [*strides[1:], 1], strict=True):
        if coarse % fine or (coarse == fine and fine != 1):
            raise ValueError(f"FCNHead: strides {strides} must each be a multiple of the next finer one, and differ")
        steps.append(coarse // fine)
    return steps


def _upscore_names(levels: list[str], steps: list[int]) -> list[str]:
    """The paper's: upscore2 behind score_fr, upscore_pool4 behind the sum at pool4, upscore8 the last."""
    names = [f"upscore_{level}" for level in levels]
    names[0] = f"upscore{steps[0]}"
    names[-1] = f"upscore{steps[-1]}" if len(names) < 2 or steps[-1] != steps[0] else "upscore_last"
    return names
