"""A declared field of all inputs of a batch as one padded tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.structures import BitMasks, Boxes, DenseMap, Instances, Keypoints, PolygonMasks, RotatedBoxes, pad_rows

__all__ = ["pad_field"]

Size = tuple[int, int]


def pad_field(name: str, inputs: Sequence[dict[str, Any]], length: int, padded_size: Size) -> Tensor:
    """(N, length, ...) of the instances' `gt_<name>`, or (N, ...) of the inputs' own `<name>`; see `Batch.field`.

    Raises:
        DataError: no input has the field.
    """
    instances = [sample.get("instances") for sample in inputs]
    given = [one.get(f"gt_{name}") if one is not None and one.has(f"gt_{name}") else None for one in instances]
    if any(value is not None for value in given):
        sizes = [None if one is None else one.image_size for one in instances]
        rows = [
            None if value is None else _rows(value, size, padded_size) for value, size in zip(given, sizes, strict=True)
        ]
        like = next(row for row in rows if row is not None)
        return pad_rows([like[:0] if row is None else row for row in rows], length=length)[0]
    of_images = [sample.get(name) for sample in inputs]
    if any(isinstance(value, str) or value is None for value in of_images):
        known = sorted({key[3:] for one in instances if isinstance(one, Instances) for key in one.get_fields()})
        raise DataError(
            f"the inputs have no ground truth {name!r}; their instances have: {', '.join(known) or 'nothing'}.\n"
            f"  Declare it in the recipe, as data.fields.{name}: {{geometry: ...}}. Only training has ground truth"
        )
    maps = [value for value in of_images if isinstance(value, DenseMap)]
    if len(maps) == len(of_images):
        return _dense(maps, padded_size)
    return torch.cat([_rows(value, None, padded_size) for value in of_images])


def _dense(maps: Sequence[DenseMap], padded_size: Size) -> Tensor:
    first = maps[0].tensor
    batch = first.new_full((len(maps), *first.shape[:-2], *padded_size), maps[0].fill)
    for one, slot in zip(maps, batch, strict=True):
        height, width = one.tensor.shape[-2:]
        slot[..., :height, :width] = one.tensor
    return batch


def _rows(value: Any, size: Size | None, padded_size: Size) -> Tensor:
    """One row per object."""
    if isinstance(value, (Boxes, RotatedBoxes, Keypoints)):
        return value.tensor
    if isinstance(value, PolygonMasks) and size is not None:
        value = BitMasks.from_polygon_masks(value, *size)
    if isinstance(value, BitMasks):
        masks = value.tensor
        full = masks.new_zeros(len(masks), *padded_size)
        full[:, : masks.shape[1], : masks.shape[2]] = masks
        return full
    return value
