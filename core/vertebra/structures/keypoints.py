"""`Keypoints` of one image's objects, and heat maps of them in both directions. Detectron2's meaning.

Source: He et al., "Mask R-CNN", arXiv:1703.06870, section 5; continuous coordinates as in Heckbert, "What are the
coordinates of a pixel?" (1990): pixel i covers [i, i + 1), its center is at i + 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Keypoints", "heatmaps_to_keypoints"]


class Keypoints:
    """K keypoints of each of N objects in one image.

    Args:
        keypoints: (N, K, 3): x and y in pixels, and visibility: 0 not labeled, 1 hidden, 2 visible.

    Attributes:
        tensor: (N, K, 3) float32.
    """

    def __init__(self, keypoints: Tensor | Sequence[Sequence[Sequence[float]]]) -> None:
        tensor = torch.as_tensor(keypoints).to(torch.float32)
        if tensor.ndim != 3 or tensor.shape[2] != 3:
            raise ValueError(f"Keypoints takes (N, K, 3): x, y, visibility; got shape {tuple(tensor.shape)}")
        self.tensor = tensor

    @staticmethod
    def cat(keypoints_list: Sequence[Keypoints]) -> Keypoints:
        """The objects of several `Keypoints` with the same K in one."""
        for keypoints in keypoints_list:
            if not isinstance(keypoints, Keypoints):
                raise ValueError(f"Keypoints.cat takes a list of Keypoints, found {type(keypoints).__name__} in it")
        if len(keypoints_list) == 0:
            raise ValueError("Keypoints.cat got an empty list; it needs at least one Keypoints")
        return Keypoints(torch.cat([keypoints.tensor for keypoints in keypoints_list]))

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        return Keypoints(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to_heatmap(self, boxes: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
        """The cell that each keypoint falls into, in a square grid over its object's box.

        Args:
            boxes: (N, 4) `xyxy`, one for each object.
        Returns:
            (N, K) int64, the cell as row * heatmap_size + column (0 where not valid), and (N, K) int64, 1 where the
            keypoint is labeled and inside the box, else 0. A keypoint on the right or bottom edge is inside.
        """
        if len(boxes) != len(self):
            raise ValueError(f"Keypoints.to_heatmap needs a box for each object, got {len(boxes)} and {len(self)}")
        points, visibility = self.tensor[..., :2], self.tensor[..., 2]
        corner, end = boxes[:, None, :2], boxes[:, None, 2:]  # (N, 1, 2)
        cells = ((points - corner) * (heatmap_size / (end - corner))).floor().long()  # (N, K, 2)
        cells = torch.where(points == end, heatmap_size - 1, cells)
        inside = ((cells >= 0) & (cells < heatmap_size)).all(dim=-1)
        valid = (inside & (visibility > 0)).long()
        column, row = cells.unbind(dim=-1)
        return (row * heatmap_size + column) * valid, valid

    def __getitem__(self, item: int | slice | Tensor) -> Keypoints:
        """`keypoints[i]` is a `Keypoints` of one object; slices, bool masks and index tensors select objects."""
        return Keypoints(self.tensor[item][None] if isinstance(item, int) else self.tensor[item])

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor (K, 3) at a time."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)}, num_keypoints={self.tensor.shape[1]})"


@torch.no_grad()
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """The best place of each keypoint in each box, at the resolution of the image.

    Each map is enlarged (bicubic) to its box's size in whole pixels; the keypoint is its highest pixel.

    Args:
        maps: (N, K, S, S) logits, a map over the box for each keypoint.
        rois: (N, 4) `xyxy`.
    Returns:
        (N, K, 4): x and y in pixels, the logit there, and its softmax probability over the S x S map.
    """
    num_rois, num_keypoints = maps.shape[:2]
    maps, rois = maps.float(), rois.float()
    sizes = (rois[:, 2:] - rois[:, :2]).clamp(min=1)  # (N, 2): width, height
    pixels = sizes.ceil()
    logits = maps.new_zeros(num_rois, num_keypoints)
    best = torch.zeros(num_rois, num_keypoints, dtype=torch.int64, device=maps.device)
    for index, (width, height) in enumerate(pixels.long().tolist()):  # every box has a size of its own
        enlarged = F.interpolate(maps[index : index + 1], (height, width), mode="bicubic", align_corners=False)
        logits[index], best[index] = enlarged[0].flatten(1).max(dim=1)  # (K,)
    widths = pixels[:, :1].long()
    positions = torch.stack((best % widths, best // widths), dim=-1)  # (N, K, 2): column, row
    points = (positions + 0.5) * (sizes / pixels)[:, None] + rois[:, None, :2]
    log_sum = maps.flatten(2).logsumexp(dim=2)  # (N, K), of the map before enlarging
    scores = (logits - log_sum).exp()
    return torch.cat((points, logits[..., None], scores[..., None]), dim=-1)
