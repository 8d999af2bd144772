"""From feature maps and boxes to one small map for each box.

Sources: RoI pooling, Girshick, "Fast R-CNN", arXiv:1504.08083; RoI align, He et al., "Mask R-CNN", arXiv:1703.06870;
position-sensitive pooling, Dai et al., "R-FCN", arXiv:1605.06409; the level of a box, Lin et al., "Feature Pyramid
Networks", arXiv:1612.03144, equation 1. The operators are torchvision's, which is imported at the first call.
Letters: T regions, C channels, S cells along each side.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vertebra.models import ShapeSpec, finest_first

__all__ = ["PSROIAlign", "PSROIPool", "ROIAlign", "ROIPool", "ROIPooler", "RegionOperator", "RegionPooler"]


class RegionOperator:
    """Pools regions from one feature map."""

    component_kind: ClassVar[str] = "part"

    def __call__(self, feature: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        """(T, C', size, size) from a map (N, C, H, W) float32 and rois (T, 5).

        Args:
            scale: cells per input pixel.
        """
        raise NotImplementedError


class ROIAlign(RegionOperator):
    """Bilinear samples, averaged in each cell.

    Args:
        sampling_ratio: samples along each side of a cell; 0: as many as the cell is pixels of the map wide.
        aligned: pixel centers at half numbers (Detectron2's ROIAlignV2); otherwise the first version's shift by half.
    """

    def __init__(self, sampling_ratio: int = 0, aligned: bool = True) -> None:
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def __call__(self, feature: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        from torchvision import ops

        return ops.roi_align(feature, rois, (size, size), scale, self.sampling_ratio, self.aligned)


class ROIPool(RegionOperator):
    """The greatest value of each cell, whose borders are rounded to pixels of the map."""

    def __call__(self, feature: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        from torchvision import ops

        return ops.roi_pool(feature, rois, (size, size), scale)


class PSROIPool(RegionOperator):
    """Each cell averages a group of channels of its own: (N, C * S * S, H, W) gives (T, C, S, S).

    torchvision's operator never looks at the map's last row and column.
    """

    def __call__(self, feature: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        from torchvision import ops

        return ops.ps_roi_pool(feature, rois, (size, size), scale)


class PSROIAlign(RegionOperator):
    """As `PSROIPool`, with bilinear samples.

    Args:
        sampling_ratio: see `ROIAlign`.
    """

    def __init__(self, sampling_ratio: int = 0) -> None:
        self.sampling_ratio = sampling_ratio

    def __call__(self, feature: Tensor, rois: Tensor, size: int, scale: float) -> Tensor:
        from torchvision import ops

        return ops.ps_roi_align(feature, rois, (size, size), scale, self.sampling_ratio or -1)


class RegionPooler:
    """What a branch sees of each region: `channels` maps of `resolution` x `resolution` cells."""

    component_kind: ClassVar[str] = "part"
    channels: int
    resolution: int

    def __call__(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        """Feature maps and rois (T, 5) to (T, channels, resolution, resolution)."""
        raise NotImplementedError


class ROIPooler(RegionPooler):
    """Each region from the one level that suits its size.

    Args:
        resolution: cells along each side.
        in_features: levels to pool from; None: those of strides up to 32, or the finest where all are coarser.
        operator: None: ROIAlign().
        canonical_size: side of the square box that belongs to the canonical level, in input pixels; a box twice as
            large belongs to the next coarser one.
        canonical_level: log2 of that level's stride.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        resolution: int = 7,
        *,
        in_features: list[str] | None = None,
        operator: RegionOperator | None = None,
        canonical_size: float = 224.0,
        canonical_level: int = 4,
    ) -> None:
        if resolution < 1 or canonical_size <= 0:
            raise ValueError(f"ROIPooler: resolution {resolution} and canonical_size {canonical_size} must be above 0")
        self.in_features = _levels(input_shape, in_features)
        shapes = [input_shape[name] for name in self.in_features]
        if len({shape.channels for shape in shapes}) != 1:
            raise ValueError(
                "ROIPooler's levels need the same number of channels, got "
                f"{ {name: input_shape[name].channels for name in self.in_features} }; put an FPN before the head"
            )
        self.strides = [shape.stride for shape in shapes]
        self.channels = shapes[0].channels
        self.resolution = resolution
        self.operator = ROIAlign() if operator is None else operator
        self.canonical_size = canonical_size
        self.canonical_level = canonical_level

    def __call__(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        maps = [features[name].float() for name in self.in_features]  # the operators know no bfloat16
        if len(maps) == 1:
            return self.operator(maps[0], rois, self.resolution, 1 / self.strides[0])
        level = self.levels_of(rois[:, 1:])
        pooled = maps[0].new_zeros(len(rois), self.channels, self.resolution, self.resolution)
        for number, (x, stride) in enumerate(zip(maps, self.strides, strict=True)):
            row = (level == number).nonzero().flatten()
            pooled[row] = self.operator(x, rois[row], self.resolution, 1 / stride)
        return pooled

    def levels_of(self, boxes: Tensor) -> Tensor:
        """(T, 4) `xyxy` in input pixels to (T,) int64, the number of each box's level, finest 0."""
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
        level = torch.floor(self.canonical_level + torch.log2(size / self.canonical_size + 1e-8))
        low, high = (round(math.log2(stride)) for stride in (self.strides[0], self.strides[-1]))
        return level.clamp(low, high).long() - low


def _levels(input_shape: dict[str, ShapeSpec], wanted: list[str] | None) -> list[str]:
    """Names, finest first, whose strides are consecutive powers of two."""
    if wanted is None:
        names = finest_first("ROIPooler", input_shape)
        wanted = [name for name in names if input_shape[name].stride <= 32] or names[:1]
    return finest_first("ROIPooler", input_shape, wanted, doubling=True)
