"""Semantic labels and instance masks out of a panoptic PNG, so that one file is the truth of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from vertebra.data.catalog import Metadata
from vertebra.data.images.read import read_image
from vertebra.errors import DataError
from vertebra_eval.nearest import listed

__all__ = [
    "PanopticLabels",
    "panoptic_label_names",
    "read_panoptic_ids",
    "segment_stuff_names",
    "stuff_segment_names",
    "with_panoptic_masks",
]

LabelMode = Literal["all", "stuff"]
_ONE_FOR_THINGS = "things"


def panoptic_label_names(things: Sequence[str], stuff: Sequence[str], mode: LabelMode) -> list[str]:
    """The names of the semantic labels.

    Args:
        mode: `all`: things, then stuff. `stuff`: one label, 0, for all things, then stuff (as Panoptic FPN learns it).
    """
    return [*things, *stuff] if mode == "all" else [_ONE_FOR_THINGS, *stuff]


def stuff_segment_names(things: Sequence[str] | None, labels: Sequence[str] | None) -> list[str]:
    """The stuff classes that panoptic segments count from 0, out of a dataset's `thing_classes` and `stuff_classes`.

    The latter are the names of semantic labels, and may begin with those of things, see `panoptic_label_names`.
    """
    things, labels = list(things or ()), list(labels or ())
    if things and labels[: len(things)] == things:
        return labels[len(things) :]
    return labels[1:] if labels[:1] == [_ONE_FOR_THINGS] else labels


def segment_stuff_names(metadata: Any) -> list[str]:
    """The stuff classes that a dataset's `segments_info` count from 0: `segment_stuff_classes`, or from its labels."""
    named = getattr(metadata, "segment_stuff_classes", None)
    if named is not None:
        return list(named)
    return stuff_segment_names(getattr(metadata, "thing_classes", None), getattr(metadata, "stuff_classes", None))


def read_panoptic_ids(path: str) -> np.ndarray:
    """(H, W) int32 segment ids R + 256 G + 65536 B of a panoptic PNG, 0 for void."""
    colors = read_image(path).astype(np.int32)
    return colors[..., 0] | (colors[..., 1] << 8) | (colors[..., 2] << 16)


class PanopticLabels:
    """Makes semantic labels of segment ids.

    Args:
        metadata: the dataset's; `panoptic_labels` says which labels, `thing_classes` how many things there are.
        none: the label of pixels without a segment.
    """

    def __init__(self, metadata: Metadata, none: int) -> None:
        self.mode: LabelMode = metadata.panoptic_labels
        self.num_things = len(metadata.get("thing_classes") or ())
        self.none = none

    def read(self, record: Mapping[str, Any]) -> np.ndarray:
        """(H, W) int32 labels of the PNG that a dataset dict names.

        Raises:
            DataError: no such file, damaged, or it has ids that `segments_info` does not know.
        """
        path = record["pan_seg_file_name"]
        ids = read_panoptic_ids(path)
        infos = record["segments_info"]
        known = np.array([0, *(info["id"] for info in infos)], np.int64)
        labels = np.array([self.none, *(self._label(info) for info in infos)], np.int32)
        order = np.argsort(known)
        place = np.searchsorted(known[order], ids).clip(max=len(known) - 1)
        strange = known[order[place]] != ids
        if strange.any():
            shown = ", ".join(map(str, np.unique(ids[strange])[:5].tolist()))
            raise DataError(f"{path}: segment ids {shown} are not in the image's segments_info")
        place = order[place]
        pixels = np.bincount(place.ravel(), minlength=len(known))
        _refuse_empty(path, known[1:][pixels[1:] == 0])
        return labels[place]

    def _label(self, info: Mapping[str, Any]) -> int:
        if info["isthing"]:
            return info["category_id"] if self.mode == "all" else 0
        return info["category_id"] + (self.num_things if self.mode == "all" else 1)


def with_panoptic_masks(annotations: list[dict], path: str) -> list[dict]:
    """Annotations with a `panoptic_id` get their mask from the panoptic PNG, as run lengths; others stay."""
    ids = read_panoptic_ids(path)
    wanted = [item["panoptic_id"] for item in annotations if "panoptic_id" in item]
    masks = np.asfortranarray((ids[..., None] == np.array(wanted)).astype(np.uint8))  # (H, W, n)
    _refuse_empty(path, np.array(wanted)[~masks.any(axis=(0, 1))])
    encoded = iter(coco_mask.encode(masks))
    return [{**item, "segmentation": next(encoded)} if "panoptic_id" in item else item for item in annotations]


def _refuse_empty(path: str, empty: np.ndarray) -> None:
    """Raises DataError where segments have no pixel in the PNG: objects that no one could find."""
    if len(empty):
        raise DataError(
            f"{path}: segments {listed(empty.tolist(), 8)} of the image's segments_info have no pixel in it"
        )
