"""Instances laid over semantic labels: the merge of Panoptic FPN.

Source: Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv:1901.02446, section 3, and "Panoptic Segmentation",
arXiv:1801.00868, section 7: instances by falling score, each keeps the pixels that no better one has; then stuff.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.structures import decode_rle
from vertebra_panoptic.merge import Merge, SegmentMap, stuff_segments

__all__ = ["CombineInstances"]


class CombineInstances(Merge):
    """For any things head whose `instances` have `pred_masks`, as pixels or as COCO's run lengths.

    Args:
        overlap_threshold: an instance goes if more than this share of its mask belongs to better ones.
        stuff_area: a stuff class with fewer free pixels than this is left void.
        instance_score: instances with a lower score are dropped.
    """

    def __init__(self, overlap_threshold: float = 0.5, stuff_area: int = 4096, instance_score: float = 0.5) -> None:
        super().__init__()
        if not 0 <= overlap_threshold <= 1:
            raise ValueError(f"CombineInstances: overlap_threshold is {overlap_threshold}; it must lie in [0, 1]")
        self.overlap_threshold = overlap_threshold
        self.stuff_area = stuff_area
        self.instance_score = instance_score

    def forward(self, things: dict[str, Any], labels: Tensor, num_thing_labels: int) -> SegmentMap:
        instances = things["instances"]
        if not instances.has("pred_masks"):
            raise DataError(
                "the things head of a panoptic head gave instances without `pred_masks`; give it a mask branch, or "
                "choose a things head that predicts masks"
            )
        order = instances.scores.argsort(descending=True)
        order = order[instances.scores[order] >= self.instance_score]
        given = instances.pred_masks
        if isinstance(given, list):  # run lengths: one mask at a time is decoded
            masks = (torch.from_numpy(decode_rle(given[row])).to(labels.device) for row in order.tolist())
        else:
            masks = getattr(given, "tensor", given)[order]
        segments, ids = self._lay(masks, labels)
        segments, kept, areas = stuff_segments(
            segments, labels, num_thing_labels, self.stuff_area, ids.amax() + 1 if len(ids) else 1
        )
        infos = _thing_infos(ids, order, instances)
        next_id = len(infos) + 1
        present = kept.nonzero()[:, 0]
        for number, (label, area) in enumerate(zip(present.tolist(), areas[present].tolist(), strict=True)):
            infos.append({"id": next_id + number, "isthing": False, "category_id": label, "area": area})
        return segments, infos

    def _lay(self, masks: Iterable[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (H, W) like the labels, best first, to ids (H, W) int32 and each mask's, (n,) int64, 0 if it went.

        Every mask waits for those before it, but never for the host: whether it stays is a number on the device.
        """
        segments = torch.zeros_like(labels, dtype=torch.int32)
        last = torch.zeros((), dtype=torch.int64, device=labels.device)
        ids = []
        for mask in masks:
            mask = mask.bool()
            area = mask.sum()
            taken = (mask & (segments != 0)).sum()
            stays = (area > 0) & (taken <= self.overlap_threshold * area)
            last = last + stays
            segments = torch.where(mask & (segments == 0) & stays, last.to(segments.dtype), segments)
            ids.append(last * stays)
        return segments, torch.stack(ids) if ids else last.new_zeros(0)


def _thing_infos(ids: Tensor, order: Tensor, instances: Any) -> list[dict[str, Any]]:
    """`segments_info` of the instances that stayed, with their row in `instances`."""
    columns = (ids, order, instances.scores[order], instances.pred_classes[order])
    return [
        {"id": number, "isthing": True, "score": score, "category_id": label, "instance_id": row}
        for number, row, score, label in zip(*(column.tolist() for column in columns), strict=True)
        if number
    ]
