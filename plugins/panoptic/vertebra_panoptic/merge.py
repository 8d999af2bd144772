"""The contract of what makes one panoptic map of the outputs of two heads."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

__all__ = ["Merge", "SegmentMap", "stuff_segments"]

SegmentMap = tuple[Tensor, list[dict[str, Any]]]
"""(H, W) int32 segment ids, 0 for void, and `segments_info`: `id`, `isthing`, `category_id` counted from 0 among the
things or among the stuff, `score` of things, `area` in pixels."""


class Merge(nn.Module):
    """Called once per image; the result is the output's `panoptic_seg`.

    Attributes:
        things_outputs: the keys that the things head must give for it.
    """

    component_kind: ClassVar[str] = "part"
    things_outputs: ClassVar[tuple[str, ...]] = ("instances",)

    def forward(self, things: dict[str, Any], labels: Tensor, num_thing_labels: int) -> SegmentMap:
        """One image's things and semantic labels to segments.

        Args:
            things: what the things head's `predict` gave for the image, in its original size (H, W).
            labels: (H, W) int64, the best semantic class of each pixel.
            num_thing_labels: labels below are things, the others stuff: label `num_thing_labels` is stuff class 0.
        """
        raise NotImplementedError


def stuff_segments(
    segments: Tensor, labels: Tensor, num_thing_labels: int, stuff_area: int, first_id: Tensor | int
) -> tuple[Tensor, Tensor, Tensor]:
    """Free pixels of each stuff label become a segment, where they are enough.

    Args:
        segments: (H, W) int32 ids of the segments so far, 0 where a pixel is free.
        labels: (H, W) int64.
        stuff_area: least size of a segment, in pixels.
        first_id: of the new segments, which are numbered by ascending label.
    Returns:
        The ids with the new segments, (S,) bool: which stuff classes have one, and (S,) int64 free pixels of each.
    """
    size = max(int(labels.max()) + 1, num_thing_labels)  # the only wait for the device
    areas = labels.where(segments == 0, size).flatten().bincount(minlength=size + 1)[num_thing_labels:size]
    kept = areas >= max(stuff_area, 1)
    ids = (first_id - 1 + kept.cumsum(0)) * kept  # 0: too small
    table = ids.new_zeros(size)
    table[num_thing_labels:] = ids
    segments = segments.where(segments != 0, table[labels].to(segments.dtype))
    return segments, kept, areas
