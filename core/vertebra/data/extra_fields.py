"""Declared fields of annotations and images beyond the usual ones: checked, and read into what a `Sample` moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.config.check import Mistakes, check_section, check_value
from vertebra.config.component import ComponentSpec, where_written
from vertebra.config.extra_fields import FieldSection, ReaderSpec
from vertebra.config.yaml_reader import from_plain
from vertebra.data.annotations import masks_of
from vertebra.data.catalog import Metadata
from vertebra.data.images.read import read_values
from vertebra.data.images.readers import RGB, ImageReader, as_tensor
from vertebra.data.transforms.drawn import (
    BoxesDrawn,
    DenseMapDrawn,
    Drawn,
    ImageDrawn,
    PointsDrawn,
    RotatedBoxesDrawn,
    ScalarsDrawn,
)
from vertebra.errors import DataError, RecipeError
from vertebra_eval.coco.fields import numbers_of
from vertebra_eval.files import Problems

__all__ = [
    "check_fields",
    "check_needs",
    "declared_fields",
    "picture_reader",
    "read_fields",
    "reader_of",
    "readers_of",
    "unused_keys",
    "unused_note",
    "with_fields",
]

_USED = frozenset(
    (
        *("bbox", "bbox_mode", "category_id", "segmentation", "keypoints", "iscrowd", "id", "image_id", "area"),
        *("num_keypoints", "ignore", "difficult", "panoptic_id"),
    )
)
"""Keys of annotations that training or evaluation reads."""

_NUMBERS = {"box": 4, "rotated_box": 5}


def declared_fields(metadata: Metadata) -> dict[str, FieldSection]:
    """The fields that a dataset's metadata declares as `extra_fields`: {name: {geometry: ..., ...}}.

    Raises:
        DataError: one is not a field.
    """
    fields = {}
    for name, values in (metadata.get("extra_fields") or {}).items():
        mistakes, where = Mistakes(), f"metadata of dataset {metadata.name}"
        fields[name] = check_section(FieldSection, from_plain(values, where, Path()), f"extra_fields.{name}", mistakes)
        mistakes.raise_if_any(where)
    return fields


def reader_of(metadata: Metadata) -> ImageReader:
    """The reader of a dataset's images: `image_reader` in its metadata, as a recipe's `data.image`; RGB without it."""
    written = metadata.get("image_reader")
    if written is None:
        return RGB()
    mistakes, where = Mistakes(), f"metadata of dataset {metadata.name}"
    spec = check_value(ReaderSpec, from_plain(written, where, Path()), "image_reader", mistakes)
    mistakes.raise_if_any(where)
    return spec.build()


def picture_reader(metadata: Metadata) -> Callable[[Any], np.ndarray]:
    """A function from the path of one of the dataset's images to (H, W, 3) uint8 for people."""
    reader = reader_of(metadata)
    return lambda path: reader.picture(reader.read(path))


def with_fields(metadata: Metadata, fields: Mapping[str, FieldSection], image: ComponentSpec | None = None) -> Metadata:
    """The metadata, or a copy that declares these fields, and the reader of the images, too.

    Raises:
        RecipeError: the dataset declares one of them otherwise.
    """
    known = declared_fields(metadata)
    for name, field in fields.items():
        if known.setdefault(name, field) != field:
            raise RecipeError(
                f"data.fields.{name} is {field.to_dict()}, but the dataset {metadata.name} declares it as "
                f"{known[name].to_dict()}; remove it from the recipe"
            )
    facts = metadata.as_dict()
    if fields:
        facts["extra_fields"] = {name: field.to_dict() for name, field in known.items()}
    if image is not None and (image.name, image.arguments) != ("RGB", {}):
        facts["image_reader"] = image.to_dict()
    if facts == metadata.as_dict():
        return metadata
    return Metadata(facts.pop("name")).set(**facts)


def unused_keys(keys: Iterable[str], fields: Mapping[str, FieldSection]) -> list[str]:
    """Those of these keys of annotations that nothing reads, sorted."""
    declared = {field.key or name for name, field in fields.items()}
    return sorted(str(key) for key in set(keys) - _USED - declared)


def unused_note(what: str, keys: Collection[str]) -> str:
    """The line on keys that are not used; `what` has them: "annotations", "images"."""
    return (
        f"{what} have keys that are not used: {', '.join(keys)}. "
        "data.fields declares those that a component shall get, with their geometry"
    )


def check_needs(components: Iterable[Any], metadata: Metadata) -> None:
    """The fields that components ask for (`needs_fields`) are declared, with their geometry.

    Raises:
        RecipeError: one is not; names the component and the field.
    """
    declared = declared_fields(metadata)
    for component in components:
        for name, geometry in getattr(component, "needs_fields", {}).items():
            field = declared.get(name)
            if field is not None and field.geometry == geometry:
                continue
            found = "is not declared" if field is None else f"is declared with the geometry {field.geometry}"
            raise RecipeError(
                f"{where_written(component, type(component).__name__)} needs the field {name!r} with the geometry "
                f"{geometry}, which {found} for the dataset {metadata.name}.\n"
                f"  Declare it: data.fields.{name}: {{geometry: {geometry}}}. "
                f"Declared: {', '.join(declared) or 'nothing'}"
            )


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


def readers_of(fields: Mapping[str, FieldSection]) -> dict[str, ImageReader]:
    """The readers of the further images, by name."""
    images = {name: field.reader for name, field in fields.items() if field.geometry == "image"}
    return {name: RGB() if spec is None else spec.build() for name, spec in images.items()}


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
    rows = [empty if value is None else value for value in values]
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
    """What is wrong with one value, or None. Segmentations and files are looked at where they are read."""
    if value is None:
        optional = field.geometry in ("points", "mask") or field.missing is not None
        hint = (
            ""
            if field.geometry in ("dense_map", "image")
            else "; data.fields can say what stands for it (missing: NUMBER)"
        )
        return None if optional else f"{key!r} is missing, a declared field of geometry {field.geometry}{hint}"
    if field.geometry == "mask":
        return None
    if field.geometry in ("dense_map", "image"):
        if isinstance(value, (str, Path)):
            return None if Path(value).is_file() else f"{key} is {str(value)!r}, but there is no such file"
        allowed = field.geometry == "dense_map" and isinstance(value, np.ndarray)
        return None if allowed else f"{key} is {value!r:.60}, expected a path or (of a dense map) an array"
    if field.geometry == "scalar" and field.size is None:
        return None if _is_number(value, field.integer) else f"{key} is {value!r:.60}, expected {_number(field)}"
    numbers = numbers_of(value.tolist() if isinstance(value, np.ndarray) else value)
    if field.geometry == "points":
        lengths = [2 * (field.size or 0), 3 * (field.size or 0)]
        expected = (
            f"{lengths[0]} or {lengths[1]} finite numbers: x, y or x, y, visibility of each of {field.size} points"
        )
    else:
        lengths = [_NUMBERS.get(field.geometry) or field.size or 0]
        expected = f"{lengths[0]} finite numbers"
    if numbers is None or len(numbers) not in lengths or not all(map(math.isfinite, numbers)):
        return f"{key} is {value!r:.60}, expected {expected}"
    if field.integer and not all(_is_number(number, True) for number in numbers):
        return f"{key} is {value!r:.60}, expected whole numbers"
    if field.geometry == "rotated_box" and min(numbers[2:4]) < 0:
        return f"{key} is {value!r:.60}, which has a negative width or height"
    sides = [numbers[2] - numbers[0], numbers[3] - numbers[1]] if field.box_mode == "xyxy" else numbers[2:4]
    if field.geometry == "box" and min(sides) < 0:
        return f"{key} is {value!r:.60}, which has a negative width or height as {field.box_mode}"
    return None


def _number(field: FieldSection) -> str:
    return "a whole number" if field.integer else "a finite number"


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return whole
    try:
        return math.isfinite(value) and (not whole or float(value) == int(value)) and abs(value) < 2**63
    except (TypeError, ValueError, OverflowError):
        return False


def _points(value: Any, count: int) -> np.ndarray:
    """(count, 3): without visibilities all are visible; without a value none is labeled."""
    if value is None:
        return np.zeros((count, 3))
    numbers = np.asarray(value, float).reshape(count, -1)
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
    if array.dtype != np.float32 and (field.smooth or not float(field.fill).is_integer()):
        raise DataError(f"{where} holds whole numbers, but data.fields asks for smooth, or a fill of {field.fill}")
    return DenseMapDrawn(torch.from_numpy(np.ascontiguousarray(array)), float(field.fill), field.smooth, field.labels)
