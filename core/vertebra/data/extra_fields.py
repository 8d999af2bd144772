"""Declared fields of annotations and images beyond the usual ones: who declares, asks for and can move them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vertebra.config.check import Mistakes, check_section, check_value
from vertebra.config.component import ComponentSpec, where_written
from vertebra.config.extra_fields import READ_KEYS, FieldSection, ReaderSpec, name_fault
from vertebra.config.yaml_reader import from_plain
from vertebra.data.catalog import Metadata
from vertebra.data.images.readers import RGB, ImageReader
from vertebra.errors import RecipeError

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = [
    "absent_fields",
    "check_moves",
    "check_needs",
    "declared_fields",
    "picture_reader",
    "reader_of",
    "readers_of",
    "unused_keys",
    "unused_note",
    "with_declared_images",
    "with_fields",
]

_USED = READ_KEYS | {"num_keypoints", "ignore", "difficult", "panoptic_id"}
"""Keys of annotations that training or evaluation reads, or has in another form."""


def declared_fields(metadata: Metadata) -> dict[str, FieldSection]:
    """The fields that a dataset's metadata declares as `extra_fields`: {name: {geometry: ..., ...}}.

    Raises:
        RecipeError: one is not a field.
    """
    written = getattr(metadata, "extra_fields", None) or {}
    where = f"metadata of dataset {getattr(metadata, 'name', None)}"
    mistakes, fields = Mistakes(), {}
    if not isinstance(written, Mapping):
        raise RecipeError(f"{where}: extra_fields is {written!r:.60}, expected {{name: {{geometry: ...}}}}")
    for name, values in written.items():
        plain = values.to_dict() if isinstance(values, FieldSection) else values
        if fault := name_fault(str(name)):
            mistakes.add(where, f"extra_fields {fault}")
        fields[name] = check_section(FieldSection, from_plain(plain, where, Path()), f"extra_fields.{name}", mistakes)
    mistakes.raise_if_any(where)
    return fields


def reader_of(metadata: Metadata) -> ImageReader:
    """The reader of a dataset's images: `image_reader` in its metadata, as a recipe's `data.image`; RGB without it."""
    return RGB() if getattr(metadata, "image_reader", None) is None else _reader_spec(metadata).build()


def _reader_spec(metadata: Metadata) -> ComponentSpec:
    mistakes, where = Mistakes(), f"metadata of dataset {getattr(metadata, 'name', None)}"
    spec = check_value(ReaderSpec, from_plain(metadata.image_reader, where, Path()), "image_reader", mistakes)
    mistakes.raise_if_any(where)
    return spec


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
        measured = {
            key: getattr(field, key) for key in ("pixel_mean", "pixel_std")
        }  # perhaps out of the dataset's `auto`
        if replace(known.setdefault(name, field), **measured) != field:
            raise RecipeError(
                f"data.fields.{name} is {field.to_dict()}, but the dataset {metadata.name} declares it as "
                f"{known[name].to_dict()}; remove it from the recipe"
            )
    facts = metadata.as_dict()
    if fields:
        facts["extra_fields"] = {name: field.to_dict() for name, field in known.items()}
    if image is not None and (image.name, image.arguments) != ("RGB", {}):
        if "image_reader" in facts and _reader_spec(metadata) != image:
            raise RecipeError(
                f"data.image is {image.to_dict()}, but the images of the dataset {metadata.name} are read by "
                f"{facts['image_reader']}; remove it from the recipe"
            )
        facts["image_reader"] = image.to_dict()
    if facts == metadata.as_dict():
        return metadata
    return Metadata(facts.pop("name")).set(**facts)


def with_declared_images(recipe: Recipe, metadata: Metadata | None) -> Recipe:
    """The recipe with the reader and the further images that a dataset's metadata declares: what its models take."""
    data, written = recipe.data, getattr(metadata, "image_reader", None)
    image = data.image
    if metadata is None:
        return recipe
    if written is not None and (image.name, image.arguments) == ("RGB", {}):
        image = _reader_spec(metadata)
    images = {name: field for name, field in declared_fields(metadata).items() if field.geometry == "image"}
    fields = {**images, **data.fields}
    if image is data.image and fields.keys() == data.fields.keys():
        return recipe
    return replace(recipe, data=replace(data, image=image, fields=fields))


def unused_keys(keys: Iterable[str], fields: Mapping[str, FieldSection]) -> list[str]:
    """Those of these keys of annotations that nothing reads, sorted."""
    declared = {field.key or name for name, field in fields.items()}
    return sorted(str(key) for key in set(keys) - _USED - declared)


def unused_note(keys: Collection[str]) -> str:
    """The line on keys of annotations that are not used."""
    return (
        f"annotations have keys that are not used: {', '.join(keys)}. "
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


def check_moves(transforms: Iterable[Any], metadata: Metadata) -> None:
    """Every transform can take along every declared field.

    Raises:
        RecipeError: one says that it cannot; names both.
    """
    for transform in transforms:
        for name, field in declared_fields(metadata).items():
            if reason := transform.refuses(field):
                raise RecipeError(
                    f"{where_written(transform, type(transform).__name__)} cannot take along the field {name!r} "
                    f"({field.geometry}): {reason}.\n  Remove the transform from data.train_transforms, or the field"
                )


def absent_fields(keys: Collection[str], fields: Mapping[str, FieldSection]) -> str:
    """A list of the declared fields of instances whose key no annotation has: a slip, or a dataset without them."""
    absent = {name: field.key or name for name, field in fields.items() if field.of_instances}
    return ", ".join(
        f"{key!r}, which the field {name} stands for" if key != name else repr(key)
        for name, key in absent.items()
        if keys and key not in keys
    )


def readers_of(fields: Mapping[str, FieldSection]) -> dict[str, ImageReader]:
    """The readers of the further images, by name."""
    images = {name: field.reader for name, field in fields.items() if field.geometry == "image"}
    return {name: RGB() if spec is None else spec.build() for name, spec in images.items()}
