"""The other form of a panoptic map: one number per pixel that holds class and instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vertebra.data import stuff_segment_names

__all__ = ["num_thing_labels", "panoptic_ids"]


def num_thing_labels(metadata: Any) -> int:
    """Number of a dataset's semantic labels, from 0 on, that are things: all thing classes, one for all, or none."""
    things, names = (getattr(metadata, key, None) for key in ("thing_classes", "stuff_classes"))
    return len(names or ()) - len(stuff_segment_names(things, names))


def panoptic_ids(
    segments: Tensor,
    segments_info: Sequence[Mapping[str, Any]],
    num_things: int,
    *,
    label_divisor: int = 1000,
    void: int = -1,
) -> Tensor:
    """`category * label_divisor + instance` of each pixel, as Cityscapes and Panoptic-DeepLab write it.

    Args:
        segments: (H, W) segment ids, 0 for void. segments_info: as the output's `panoptic_seg` has it.
        num_things: stuff class k becomes category `num_things + k`; things keep theirs.
        label_divisor: above the number of instances of a class in an image.
        void: what void pixels become.
    Returns:
        (H, W) int64. Instances of a class count from 1 in the order of `segments_info`, stuff has instance 0.
    Raises:
        ValueError: more instances of a class than `label_divisor` has room for.
    """
    table = torch.full((1 + max((info["id"] for info in segments_info), default=0),), void, dtype=torch.int64)
    seen: dict[int, int] = {}
    for info in segments_info:
        category, instance = info["category_id"], 0
        if info["isthing"]:
            instance = seen[category] = seen.get(category, 0) + 1
            if instance >= label_divisor:
                raise ValueError(
                    f"panoptic_ids: {instance} instances of class {category}, more than label_divisor {label_divisor}"
                )
        else:
            category += num_things
        table[info["id"]] = category * label_divisor + instance
    return table.to(segments.device)[segments.long()]
