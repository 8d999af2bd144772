"""Features of warped regions: each box, with some of what is around it, at one size through a backbone.

Source: Girshick et al., "Rich feature hierarchies for accurate object detection", arXiv:1311.2524, section 2.1 and
appendix A (anisotropic warping with context).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.models import Backbone

__all__ = ["WarpedFeatures"]


class WarpedFeatures(nn.Module):
    """Boxes of an image to feature vectors.

    Args:
        backbone: any; its coarsest feature map is used. It is not trained here.
        pixel_mean, pixel_std: (3, 1, 1), see `vertebra.models.Model`.
        size: side of a warped region, in pixels.
        context: pixels of the warped region on each side that lie outside the box; beyond the image is the mean color.
        cells: the feature map is averaged to this many cells along each side.
        at_once: regions in a batch.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        pixel_mean: Tensor,
        pixel_std: Tensor,
        *,
        size: int = 96,
        context: int = 7,
        cells: int = 2,
        at_once: int = 128,
    ) -> None:
        super().__init__()
        if not 0 <= 2 * context < size or cells < 1:
            raise ValueError(f"WarpedFeatures: size {size} has no room for a context of {context}, or cells is {cells}")
        self.backbone = backbone.eval()
        shapes = backbone.output_shape()
        self.level = max(shapes, key=lambda name: shapes[name].stride)
        self.out_channels = shapes[self.level].channels * cells**2
        self.register_buffer("pixel_mean", pixel_mean.clone(), persistent=False)
        self.register_buffer("pixel_std", pixel_std.clone(), persistent=False)
        self.size = size
        self.context = context
        self.cells = cells
        self.at_once = at_once

    @torch.no_grad()
    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Image (3, H, W) uint8 in the backbone's channel order, boxes (P, 4) xyxy in pixels -> (P, D) float32."""
        normal = ((image.to(self.pixel_mean) - self.pixel_mean) / self.pixel_std)[None]
        vectors = [self._features(normal, part) for part in boxes.to(normal).split(self.at_once)]
        return torch.cat(vectors) if vectors else normal.new_zeros(0, self.out_channels)

    def _features(self, image: Tensor, boxes: Tensor) -> Tensor:
        from torchvision import ops  # loads slowly

        margin = (boxes[:, 2:] - boxes[:, :2]) * self.context / (self.size - 2 * self.context)
        wide = torch.cat((boxes[:, :2] - margin, boxes[:, 2:] + margin), dim=1)
        warped = ops.roi_align(image, [wide], (self.size, self.size), sampling_ratio=0, aligned=True)
        maps = self.backbone(warped)[self.level].float()
        return F.adaptive_avg_pool2d(maps, self.cells).flatten(1)
