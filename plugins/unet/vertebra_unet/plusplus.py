"""U-Net++: nested skip connections, so that features join at semantic levels that are near each other.

Sources: Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", arXiv:1807.10165.
Letters: N images, K classes, L doublings between the coarsest and the finest feature.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vertebra.models import Batch, Loss, Neck, SemanticHead, ShapeSpec, semantic_losses
from vertebra.models.layers import NormName, fill_bias
from vertebra_unet.decoder import levels_by_stride
from vertebra_unet.stage import ConvStage
from vertebra_unet.upsampling import Interpolation, Upsampling

__all__ = ["UNetPlusPlusDecoder", "UNetPlusPlusHead"]


class UNetPlusPlusDecoder(Neck):
    """The nodes X^{0,1}, ..., X^{0,L} as maps `x1`, ..., `xL`, all at the finest feature's stride.

    X^{i,j} convolves X^{i,0}, ..., X^{i,j-1} side by side with X^{i+1,j-1} enlarged (equation 1); X^{i,0} is the
    encoder's feature i, the finest one 0. Each feature has half the stride of the next.

    Args:
        widths: channels of the nodes X^{i,j}, one number for each i, finest first. None: those of feature i.
        num_convs: 3x3 convolutions of a node.
        norm: behind each convolution, see `get_norm`. "gn" takes up to 32 groups.
        upsampling: None: Interpolation("bilinear"), without a convolution of its own.
        depth: number of the maps that are computed, 1 to L: the paper's pruned networks L^1, ..., L^4. None: all.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        widths: Sequence[int] | None = None,
        num_convs: int = 2,
        norm: NormName = "bn",
        upsampling: Upsampling | None = None,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        upsampling = Interpolation("bilinear") if upsampling is None else upsampling
        levels = levels_by_stride("UNetPlusPlusDecoder", input_shape)
        self.levels = list(levels.values())
        strides = list(levels)
        if len(levels) < 2 or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(
                "UNetPlusPlusDecoder needs two features or more, each with half the stride of the next; the strides "
                f"are {', '.join(map(str, strides))}"
            )
        most = len(levels) - 1
        self.depth = most if depth is None else depth
        if not 1 <= self.depth <= most:
            raise ValueError(f"UNetPlusPlusDecoder: depth is {depth}; with {most + 1} features it must be 1 to {most}")
        incoming = [input_shape[name].channels for name in self.levels]
        widths = incoming[:-1] if widths is None else list(widths)
        if len(widths) != most or min(widths) < 1:
            raise ValueError(f"UNetPlusPlusDecoder: widths {widths} must be {most} numbers of at least 1, finest first")
        self._shape = ShapeSpec(channels=widths[0], stride=strides[0])
        self.ups, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                below = incoming[i + 1] if j == 1 else widths[i + 1]
                self.ups[f"{i}_{j}"] = upsampling.make(below, widths[i])
                joined = incoming[i] + (j - 1) * widths[i] + upsampling.out_channels(below, widths[i])
                self.nodes[f"{i}_{j}"] = ConvStage(joined, widths[i], num_convs=num_convs, norm=norm)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"x{j}": self._shape for j in range(1, self.depth + 1)}

    def forward(self, features: dict[str, Tensor], depth: int | None = None) -> dict[str, Tensor]:
        """{name: (N, C, H/s, W/s)} to {"x<j>": (N, width, H/s, W/s)}.

        Args:
            depth: makes fewer maps than there could be, and only the nodes that these need.
        """
        depth = self.depth if depth is None else depth
        rows = [[features[name]] for name in self.levels[: depth + 1]]  # rows[i][j] is X^{i,j}
        for j in range(1, depth + 1):
            for i in range(depth + 1 - j):
                size = tuple(rows[i][0].shape[-2:])
                larger = self.ups[f"{i}_{j}"](rows[i + 1][j - 1], size)
                rows[i].append(self.nodes[f"{i}_{j}"](torch.cat((*rows[i], larger), dim=1)))
        return {f"x{j}": rows[0][j] for j in range(1, depth + 1)}


class UNetPlusPlusHead(SemanticHead):
    """Semantic segmentation with U-Net++.

    With deep supervision every map is scored and learns by itself; a prediction averages their probabilities
    (the paper's accurate mode) or takes one of them alone, whose deeper nodes are then not computed (the fast mode).

    Args:
        decoder: None: UNetPlusPlusDecoder().
        deep_supervision: False scores the last map alone.
        prune_to: the map that predictions take alone, 1 to L; None: the mean of all of them. Training is unchanged.
        loss, loss_weight, training_only: see `SemanticHead`; the loss is the mean over the maps.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        decoder: UNetPlusPlusDecoder | None = None,
        deep_supervision: bool = True,
        prune_to: int | None = None,
        loss: Loss | None = None,
        loss_weight: float = 1.0,
        training_only: bool = False,
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_weight=loss_weight, training_only=training_only)
        self.decoder = UNetPlusPlusDecoder(input_shape) if decoder is None else decoder
        deepest = self.decoder.depth
        if prune_to is not None and not (deep_supervision and 1 <= prune_to <= deepest):
            raise ValueError(
                f"UNetPlusPlusHead: prune_to is {prune_to}; it must be 1 to {deepest}, and needs deep_supervision"
            )
        channels = next(iter(self.decoder.output_shape().values())).channels
        scored = range(1, deepest + 1) if deep_supervision else (deepest,)
        scores = {f"x{j}": nn.Conv2d(channels, num_classes, kernel_size=1) for j in scored}
        for conv in scores.values():
            nn.init.xavier_uniform_(conv.weight)
            fill_bias(conv, 0.0)
        self.scores = nn.ModuleDict(scores)
        self.prune_to = prune_to

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{l: (N, C_l, H/s_l, W/s_l)} to {"x<j>": scores (N, K, H/s, W/s)}, of all scored maps or the one pruned to."""
        depth = None if self.training else self.prune_to
        maps = self.decoder(features, depth)
        wanted = self.scores if depth is None else [f"x{depth}"]
        return {name: self.scores[name](maps[name]) for name in wanted}

    def losses(self, raw: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss_sem_seg_<map>` of each scored map, each divided by their number."""
        weight = self.loss_weight / len(raw)
        found: dict[str, Tensor] = {}
        for name, scores in raw.items():
            found |= semantic_losses(scores, batch, self.loss, weight, name=f"loss_sem_seg_{name}")
        return found

    def class_scores(self, raw: dict[str, Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (N, K, h, w) whose softmax is the mean of the maps' softmaxes."""
        if len(raw) == 1:
            return next(iter(raw.values()))
        logs = torch.stack([scores.float().log_softmax(dim=1) for scores in raw.values()])
        return logs.logsumexp(dim=0) - math.log(len(raw))
