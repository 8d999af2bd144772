"""The contracting path of U-Net as a backbone.

Source: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv:1505.04597,
section 2 and figure 1.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Backbone, ShapeSpec
from vertebra.models.layers import NormName
from vertebra_unet.stage import ConvStage, Padding
from vertebra_unet.valid import mirror, valid_input, valid_margin

__all__ = ["UNetEncoder"]


class UNetEncoder(Backbone):
    """Features `enc1`, `enc2`, ... at strides 1, 2, 4, ...: each stage convolves, then 2x2 max pooling halves the size.

    Args:
        base_width: channels of the first stage, doubled at each further one. 64 in the paper.
        num_stages: 5 in the paper: strides 1 to 16.
        num_convs: 3x3 convolutions of a stage.
        norm: behind each convolution, see `get_norm`; none in the paper. "gn" takes up to 32 groups.
        padding: "valid" is the paper's: every convolution loses a border, and features do not have the size that their
            stride tells. Only decoders that know this (`UNetDecoder` with `padding: valid`) go with it.
        border: for valid padding: `mirror` continues the images beyond their borders, so that the scores cover them
            whole; `keep` takes them as they are, and the scores cover the middle: right for tiles that bring their
            surroundings with them. A size that does not halve evenly is filled up at its end by mirroring, too.
        dropout: of what goes into each stage but the first.
        last_dropout: of what comes out of the last stage: the paper's drop-out "at the end of the contracting path".
    """

    def __init__(
        self,
        base_width: int = 64,
        num_stages: int = 5,
        num_convs: int = 2,
        norm: NormName = "bn",
        padding: Padding = "same",
        border: Literal["mirror", "keep"] = "mirror",
        dropout: float = 0.0,
        last_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if base_width < 1 or num_stages < 2:
            raise ValueError(
                f"UNetEncoder needs base_width of at least 1 and num_stages of at least 2, got {base_width} and "
                f"{num_stages}"
            )
        if border not in ("mirror", "keep"):
            raise ValueError(f"UNetEncoder: border is {border!r}; it must be 'mirror' or 'keep'")
        if not 0 <= last_dropout < 1:
            raise ValueError(f"UNetEncoder: last_dropout is {last_dropout}; it must be at least 0 and below 1")
        self.num_stages, self.num_convs = num_stages, num_convs
        self.padding, self.border = padding, border
        self.widths = [base_width * 2**index for index in range(num_stages)]
        channels = 3
        for index, width in enumerate(self.widths):
            stage = ConvStage(
                channels,
                width,
                num_convs=num_convs,
                norm=norm,
                padding=padding,
                dropout=dropout if index else 0.0,
            )
            self.add_module(f"enc{index + 1}", stage)
            channels = width
        self.last_dropout = nn.Dropout(last_dropout) if last_dropout else None

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            f"enc{index + 1}": ShapeSpec(channels=width, stride=2**index) for index, width in enumerate(self.widths)
        }

    @property
    def size_divisibility(self) -> int:
        """With valid padding any size will do: it is filled up here, by mirroring."""
        return super().size_divisibility if self.padding == "same" else 1

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {name: (N, C, ceil(H / s), ceil(W / s))}; smaller with valid padding."""
        x = images if self.padding == "same" else self._with_border(images)
        features = {}
        for index in range(self.num_stages):
            if index:
                x = _halved(x)
            x = features[f"enc{index + 1}"] = getattr(self, f"enc{index + 1}")(x)
        if self.last_dropout is not None:
            features[f"enc{self.num_stages}"] = self.last_dropout(x)
        return features

    def _with_border(self, images: Tensor) -> Tensor:
        """Images of a size that valid convolutions take, in mirror mode with their surroundings on every side."""
        margin = valid_margin(self.num_stages, self.num_convs)
        whole = self.border == "mirror"
        sides = [
            valid_input(side if whole else side - 2 * margin, self.num_stages, self.num_convs)
            for side in images.shape[-2:]
        ]
        before = margin if whole else 0
        if not before and tuple(sides) == tuple(images.shape[-2:]):
            return images
        return mirror(images, before, before, *sides)


def _halved(x: Tensor) -> Tensor:
    """2x2 max pooling; a row or column left over at an odd size is a cell of its own.

    Compiled or exported for any size there is none, since the sides are multiples of `size_divisibility`; the rule for
    odd ones would tie the graph to one size.
    """
    return F.max_pool2d(x, kernel_size=2, ceil_mode=not torch.compiler.is_compiling())
