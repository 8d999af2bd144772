"""Values of declared fields: checked in the dicts of a dataset, and read into what a `Sample` moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.config.extra_fields import FieldSection
from vertebra.data.annotations import masks_of
from vertebra.data.images.read import read_values
from vertebra.data.images.readers import ImageReader, as_tensor
from vertebra.data.transforms.drawn import BoxesDrawn, Drawn, PointsDrawn, RotatedBoxesDrawn, ScalarsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, ImageDrawn
from vertebra.errors import DataError
from vertebra_eval.coco.fields import numbers_of
from vertebra_eval.files import Problems
from vertebra_eval.masks import mask_faults

__all__ = ["check_fields", "read_fields"]

_NUMBERS = {"box": 4, "rotated_box": 5}
_LARGEST = float(np.finfo(np.float32).max)


def check_fields(dicts: Iterable[dict], fields: Mapping[str, FieldSection], problems: Problems) -> None:
    """Looks at every value of the declared fields; `problems` gets the faulty ones, with image and annotation."""
    for item in dicts:
        where = item["file_name"]
        for name, field in fields.items():
            key = field.key or name
            if not field.of_instances:
                if fault := _fault(field, key, item.get(key)):
                    problems.add(where, fault)
                continue
            for number, annotation in enumerate(item.get("annotations") or ()):
                if not annotation.get("iscrowd", 0) and (fault := _fault(field, key, annotation.get(key))):
                    problems.add(f"{where}: annotation {number}", fault)


def read_fields(
    fields: Mapping[str, FieldSection],
    dataset_dict: dict,
    annotations: list[dict],
    size: tuple[int, int],
    readers: Mapping[str, ImageReader],
) -> dict[str, Drawn]:
    """What a `Sample` holds of one image's declared fields.

    Args:
        annotations: those of its instances.
        size: (height, width) of the image.
        readers: of further images, see `readers_of`.
    Raises:
        DataError: a value is missing or not what its geometry needs; names the image and annotation.
    """
    where = dataset_dict["file_name"]
    return {
        name: _read(name, field, dataset_dict, annotations, size, where, readers.get(name))
        for name, field in fields.items()
    }


def _read(
    name: str,
    field: FieldSection,
    dataset_dict: dict,
    annotations: list[dict],
    size: tuple[int, int],
    where: str,
    reader: ImageReader | None,
) -> Drawn:
    key, of = field.key or name, field.of_instances
    values = [item.get(key) for item in annotations] if of else [dataset_dict.get(key)]
    for number, value in enumerate(values):
        if fault := _fault(field, key, value):
            raise DataError(f"{where}: annotation {number}: {fault}" if of else f"{where}: {fault}")
    if field.geometry == "dense_map":
        return _dense_map(field, values[0], size, f"{where}: {key}")
    if field.geometry == "image":
        assert reader is not None and values[0] is not None  # `_fault` has looked
        pixels = as_tensor(reader.read(values[0]))
        if pixels.shape[1:] != size:
            raise DataError(
                f"{values[0]} has {pixels.shape[2]}x{pixels.shape[1]} pixels (width x height), but {where} has "
                f"{size[1]}x{size[0]}"
            )
        return ImageDrawn(pixels, highest=reader.highest)
    if field.geometry == "mask":
        drawn = masks_of(values, size, f"{where}: {key} of annotation")
        drawn.of_instances = of
        return drawn
    if field.geometry == "points":
        points = [_points(value, field.size or 0) for value in values]
        return PointsDrawn(
            np.array(points, float).reshape(-1, field.size or 0, 3),
            of,
            _mirror(field),
            f"set mirror in data.fields.{name} (pairs of numbers from 0, or [])",
        )
    length = _NUMBERS.get(field.geometry, field.size)
    missing = None if field.missing is None else float(field.missing)
    empty = missing if length is None else [missing] * length
    rows = [empty if value is None else value if length is None else _numbers(value) for value in values]
    array = np.array(rows, np.int64 if field.integer else np.float64)
    if length is not None:
        array = array.reshape(-1, length)
    if field.geometry == "scalar":
        return ScalarsDrawn(array, of)
    if field.geometry == "rotated_box":
        return RotatedBoxesDrawn(array, of)
    if field.box_mode == "xywh":
        array = np.concatenate((array[:, :2], array[:, :2] + array[:, 2:]), axis=1)
    return BoxesDrawn(array, of)


def _fault(field: FieldSection, key: str, value: Any) -> str | None:
    """What is wrong with one value, or None. What is in files is looked at where they are read."""
    of_file = field.geometry in ("dense_map", "image")
    if value is None:
        optional = field.geometry in ("points", "mask") or field.missing is not None
        hint = "" if of_file else "; data.fields can say what stands for it (missing: NUMBER)"
        return None if optional else f"{key!r} is missing, a declared field of geometry {field.geometry}{hint}"
    if field.geometry == "mask":
        faults = mask_faults(value, None)
        return faults[0].replace("segmentation", key, 1) if faults else None
    if of_file:
        if isinstance(value, (str, Path)):
            return None if Path(value).is_file() else f"{key} is {str(value)!r}, but there is no such file"
        allowed = field.geometry == "dense_map" and isinstance(value, np.ndarray)
        return None if allowed else f"{key} is {value!r:.60}, expected a path or (of a dense map) an array"
    if field.geometry == "scalar" and field.size is None:
        expected = "a whole number of at most 64 bits" if field.integer else "a finite number"
        return None if _is_number(value, field.integer) else f"{key} is {value!r:.60}, expected {expected}"
    numbers = _numbers(value)
    if field.geometry == "points":
        lengths = [2 * (field.size or 0), 3 * (field.size or 0)]
        expected = (
            f"{lengths[0]} or {lengths[1]} finite numbers: x, y or x, y, visibility of each of {field.size} points"
        )
    else:
        lengths = [_NUMBERS.get(field.geometry) or field.size or 0]
        expected = f"{lengths[0]} {'whole' if field.integer else 'finite'} numbers"
    if numbers is None or len(numbers) not in lengths or not all(_is_number(one, field.integer) for one in numbers):
        return f"{key} is {value!r:.60}, expected {expected}"
    if field.geometry == "points" and len(numbers) == lengths[1] and not {0, 1, 2}.issuperset(numbers[2::3]):
        return f"{key} is {value!r:.60}, whose visibilities are not all 0 (not labeled), 1 (hidden) or 2"
    if field.geometry in _NUMBERS:
        ends = field.geometry == "box" and field.box_mode == "xyxy"
        sides = [numbers[2] - numbers[0], numbers[3] - numbers[1]] if ends else numbers[2:4]
        mode = f" as {field.box_mode}" if field.geometry == "box" else ""
        if min(sides) < 0:
            return f"{key} is {value!r:.60}, which has a negative width or height{mode}"
    return None


def _numbers(value: Any) -> list | None:
    """The numbers in a list or array, however nested ([[x, y], ...]); None where it is something else."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, (list, tuple)) for one in value):
        value = [number for one in value for number in one]
    return numbers_of(value)


def _is_number(value: Any, whole: bool) -> bool:
    """Whether int64, or float32, holds it."""
    if whole and isinstance(value, (Integral, np.bool_)):
        return -(2**63) <= int(value) < 2**63
    try:
        return isinstance(value, Real) and abs(float(value)) <= _LARGEST and (not whole or float(value).is_integer())
    except OverflowError:
        return False


def _points(value: Any, count: int) -> np.ndarray:
    """(count, 3): without visibilities all are visible; without a value none is labeled."""
    if value is None:
        return np.zeros((count, 3))
    numbers = np.array(_numbers(value), float).reshape(count, -1)
    return numbers if numbers.shape[1] == 3 else np.column_stack((numbers, np.full(count, 2.0)))


def _mirror(field: FieldSection) -> np.ndarray | None:
    if field.mirror is None:
        return None
    order = np.arange(field.size or 0)
    for first, second in field.mirror:
        order[[first, second]] = second, first
    return order


def _dense_map(field: FieldSection, value: Any, size: tuple[int, int], where: str) -> DenseMapDrawn:
    array = value if isinstance(value, np.ndarray) else read_values(value)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        if array.dtype.kind not in "iu" or (array.size and (array.max() > 2**31 - 1 or array.min() < -(2**31))):
            raise DataError(f"{where} holds {array.dtype}, expected whole numbers below 2^31 or floats")
        array = array.astype(np.int32)
    if array.shape[-2:] != size or array.ndim not in (2, 3):
        raise DataError(
            f"{where} has the shape {array.shape}, expected (height, width) or (channels, height, width) "
            f"with height x width {size[0]}x{size[1]}, as the image has"
        )
    if array.dtype == np.uint8 and not 0 <= float(field.fill) <= 255:
        array = array.astype(np.int32)  # holds what padding adds
    if array.dtype != np.float32 and (
        field.smooth or not float(field.fill).is_integer() or abs(float(field.fill)) >= 2**31
    ):
        raise DataError(f"{where} holds whole numbers, but data.fields asks for smooth, or a fill of {field.fill}")
    return DenseMapDrawn(torch.from_numpy(np.ascontiguousarray(array)), float(field.fill), field.smooth, field.labels)
