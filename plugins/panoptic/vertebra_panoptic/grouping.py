"""Pixels to the center they point at: the merge of Panoptic-DeepLab.

Source: Cheng et al., "Panoptic-DeepLab", arXiv:1911.10194, section 3.2: centers are local maxima of a heat map, a thing
pixel belongs to the center nearest to where its offset leads, an instance has the class that most of its pixels have.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra_panoptic.merge import Merge, SegmentMap, stuff_segments

__all__ = ["GroupCenters", "find_centers", "nearest_center"]

_PIXELS_AT_ONCE = 1 << 22  # distances held at a time


class GroupCenters(Merge):
    """For a things head that gives `centers` and `offsets`, such as `CenterOffsetHead`.

    Args:
        threshold: a center's heat must be above it.
        nms_kernel: edge of the square, odd, in pixels, in which a center must have the greatest heat.
        max_centers: of an image, the hottest.
        stuff_area: a stuff class with fewer pixels than this is left void.
        min_area: an instance with fewer pixels than this is left void.
    """

    things_outputs: ClassVar[tuple[str, ...]] = ("centers", "offsets")

    def __init__(
        self,
        threshold: float = 0.1,
        nms_kernel: int = 7,
        max_centers: int = 200,
        stuff_area: int = 2048,
        min_area: int = 1,
    ) -> None:
        super().__init__()
        if nms_kernel < 1 or nms_kernel % 2 == 0:
            raise ValueError(f"GroupCenters: nms_kernel is {nms_kernel}; it must be odd")
        if max_centers < 1:
            raise ValueError(f"GroupCenters: max_centers is {max_centers}; it must be at least 1")
        self.threshold = threshold
        self.nms_kernel = nms_kernel
        self.max_centers = max_centers
        self.stuff_area = stuff_area
        self.min_area = min_area

    def forward(self, things: dict[str, Any], labels: Tensor, num_thing_labels: int) -> SegmentMap:
        places, heat = find_centers(things["centers"][0], self.threshold, self.nms_kernel, self.max_centers)
        thing = labels < num_thing_labels
        segments = torch.zeros(labels.shape, dtype=torch.int32, device=labels.device)
        infos: list[dict[str, Any]] = []
        if len(places):
            owner = nearest_center(things["offsets"], places, thing)  # (H, W), from 1, 0 where no thing is
            votes = owner.flatten() * num_thing_labels + labels.clamp(max=num_thing_labels - 1).flatten()
            votes = votes.bincount(minlength=(len(places) + 1) * num_thing_labels).view(-1, num_thing_labels)[1:]
            areas, classes = votes.sum(dim=1), votes.argmax(dim=1)  # (C,) each
            kept = areas >= max(self.min_area, 1)
            number = kept.cumsum(0) * kept
            segments = F.pad(number, (1, 0))[owner].to(segments.dtype)
            columns = (number[kept], classes[kept], heat[kept], areas[kept])
            infos = [
                {"id": i, "isthing": True, "score": score, "category_id": label, "area": area}
                for i, label, score, area in zip(*(column.tolist() for column in columns), strict=True)
            ]
        free = labels.where(~thing, 0) if num_thing_labels else labels
        segments, kept, areas = stuff_segments(segments, free, num_thing_labels, self.stuff_area, len(infos) + 1)
        present = kept.nonzero()[:, 0]
        first = len(infos) + 1
        for row, (label, area) in enumerate(zip(present.tolist(), areas[present].tolist(), strict=True)):
            infos.append({"id": first + row, "isthing": False, "category_id": label, "area": area})
        return segments, infos


def find_centers(heat: Tensor, threshold: float, kernel: int, limit: int) -> tuple[Tensor, Tensor]:
    """Local maxima of a heat map (H, W): their places (C, 2) y, x int64, hottest first, and their heat (C,)."""
    highest = F.max_pool2d(heat[None, None], kernel, stride=1, padding=kernel // 2)[0, 0]
    peaks = heat.where((heat == highest) & (heat > threshold), -torch.inf).flatten()
    values, index = peaks.topk(min(limit, len(peaks)))
    index, values = index[values > -torch.inf], values[values > -torch.inf]
    return torch.stack([index // heat.shape[1], index % heat.shape[1]], dim=1), values


def nearest_center(offsets: Tensor, places: Tensor, wanted: Tensor) -> Tensor:
    """Number, from 1, of the center nearest to where each wanted pixel's offset leads; 0 elsewhere.

    Args:
        offsets: (2, H, W) float y, x in pixels, from the pixel to its center.
        places: (C, 2) y, x. wanted: (H, W) bool.
    Returns:
        (H, W) int64. Distances are made a part of the pixels at a time, so memory stays bounded.
    """
    pixels = wanted.nonzero()  # (P, 2)
    found = torch.zeros(wanted.shape, dtype=torch.int64, device=wanted.device)
    aim = pixels.float() + offsets[:, pixels[:, 0], pixels[:, 1]].T.float()
    parts = [
        torch.cdist(part, places.float()).argmin(dim=1) + 1
        for part in aim.split(max(1, _PIXELS_AT_ONCE // len(places)))
    ]
    if len(pixels):
        found[pixels[:, 0], pixels[:, 1]] = torch.cat(parts)
    return found
