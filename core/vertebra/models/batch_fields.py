"""A declared field of all inputs of a batch as one padded tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from vertebra.errors import DataError
from vertebra.structures import BitMasks, Boxes, DenseMap, Instances, Keypoints, PolygonMasks, RotatedBoxes, pad_rows

__all__ = ["pad_field"]

Size = tuple[int, int]
_STRUCTURES = (Boxes, RotatedBoxes, Keypoints, BitMasks, PolygonMasks, DenseMap)


def pad_field(name: str, inputs: Sequence[dict[str, Any]], length: int, padded_size: Size) -> Tensor:
    """(N, length, ...) of the instances' `gt_<name>`, or (N, ...) of the inputs' own `<name>`; see `Batch.field`.

    Raises:
        DataError: no input has the field.
    """
    instances = [sample.get("instances") for sample in inputs]
    given = [one.get(f"gt_{name}") if one is not None and one.has(f"gt_{name}") else None for one in instances]
    if any(value is not None for value in given):
        rows = [None if value is None else _rows(value, padded_size) for value in given]
        like = next(row for row in rows if row is not None)
        return pad_rows([like[:0] if row is None else row for row in rows], length=length)[0]
    of_images = [sample.get(name) for sample in inputs]
    if not all(isinstance(value, (*_STRUCTURES, Tensor)) for value in of_images):
        known = sorted({key[3:] for one in instances if isinstance(one, Instances) for key in one.get_fields()})
        raise DataError(
            f"the inputs have no ground truth {name!r}; their instances have: {', '.join(known) or 'nothing'}.\n"
            f"  Declare it in the recipe, as data.fields.{name}: {{geometry: ...}}. Only training has ground truth"
        )
    maps = [value for value in of_images if isinstance(value, DenseMap)]
    if len(maps) == len(of_images):
        return _dense(name, maps, padded_size)
    return torch.cat([_rows(value, padded_size) for value in of_images])


def _dense(name: str, maps: Sequence[DenseMap], padded_size: Size) -> Tensor:
    first = maps[0].tensor
    channels = {tuple(one.tensor.shape[:-2]) for one in maps}
    if len(channels) > 1:
        raise DataError(
            f"the field {name!r} has different numbers of channels in one batch: {sorted(channels)}; "
            "its files need the same"
        )
    dtype = reduce(torch.promote_types, (one.tensor.dtype for one in maps))
    batch = first.new_full((len(maps), *first.shape[:-2], *padded_size), maps[0].fill, dtype=dtype)
    for one, slot in zip(maps, batch, strict=True):
        height, width = one.tensor.shape[-2:]
        slot[..., :height, :width] = one.tensor
    return batch


def _rows(value: Any, padded_size: Size) -> Tensor:
    """One row per object."""
    if isinstance(value, (Boxes, RotatedBoxes, Keypoints)):
        return value.tensor
    if isinstance(value, PolygonMasks):
        value = BitMasks.from_polygon_masks(value, *padded_size)
    if isinstance(value, BitMasks):
        masks = value.tensor
        full = masks.new_zeros(len(masks), *padded_size)
        full[:, : masks.shape[1], : masks.shape[2]] = masks
        return full
    return value
