"""What a recipe or a dataset says of a field that annotations or images have beyond the usual ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from vertebra.config.component import ComponentSpec, Kind
from vertebra.config.section import Section, within

__all__ = ["READ_KEYS", "RESERVED", "FieldSection", "Geometry", "ReaderSpec", "name_fault"]

ReaderSpec = Annotated[ComponentSpec, Kind("part", "ImageReader")]

Nan = Literal["nan"]  # as text: the number is not equal to itself, and a resumed run compares recipes

Geometry = Literal["box", "rotated_box", "points", "mask", "dense_map", "scalar", "image"]

RESERVED = frozenset(
    (
        *(
            "boxes",
            "classes",
            "masks",
            "keypoints",
            "sem_seg",
            "rows",
            "valid",
            "proposals",
            "instances",
            "annotations",
        ),
        *("image", "image_id", "file_name", "height", "width", "content_size", "segments_info"),
        *("sem_seg_file_name", "pan_seg_file_name", "sem_seg_label_map"),
    )
)
"""Names that mean something already."""

READ_KEYS = frozenset(
    ("bbox", "bbox_mode", "category_id", "segmentation", "keypoints", "iscrowd", "area", "id", "image_id")
)
"""Keys of annotations that are read as what they are."""

_OF_IMAGES = ("dense_map", "image")

_OPTIONS = {
    "box_mode": ("box",),
    "size": ("points", "scalar"),
    "mirror": ("points",),
    "missing": ("box", "rotated_box", "scalar"),
    "integer": ("scalar",),
    "fill": ("dense_map",),
    "smooth": ("dense_map",),
    "labels": ("dense_map",),
    "reader": ("image",),
    "pixel_mean": ("image",),
    "pixel_std": ("image",),
}
"""Which geometries an option is for."""


@dataclass(frozen=True, kw_only=True)
class FieldSection(Section):
    """One of `data.fields`: a field of each annotation, or of each image, and how transforms move it.

    Args:
        geometry: `box`: 4 numbers; `rotated_box`: center x, center y, width, height in pixels, angle in degrees
            counterclockwise (`BoxMode.XYWHA_ABS`); `points`: x, y or x, y, visibility of each; `mask`: a COCO
            segmentation; `dense_map`: one value per pixel, as the path of an image or .npy file, or an array;
            `scalar`: numbers that no transform changes; `image`: a further image of the same size, as a path, which
            models get in evaluation and prediction too.
        key: of the annotation, or of the image's dict; None: the field's name.
        of: what has the field; None: the image for a dense map, otherwise each instance.
        box_mode: what the 4 numbers are, in pixels; as in COCO files by default.
        size: number of points; number of numbers of a scalar, None for a single one.
        mirror: pairs of numbers (from 0) of the points that change places when the image is mirrored, [] for none;
            None refuses mirroring.
        missing: the number, or `nan`, that stands for those of an instance without the field, of boxes `nan` alone;
            None: each must have it. Points and masks may always be missing: they are not labeled, or empty, then.
        integer: the numbers are whole (int64), otherwise float32.
        fill: value of pixels that padding adds.
        smooth: interpolate where the image is resized; only for values of which a mean makes sense, without gaps.
        reader: of an image; None: RGB.
        pixel_mean, pixel_std: as of the model's section, for this image; None: the same, for as many channels.
        labels: the values are classes or the like: where images are mixed, those of the stronger one stay.
    """

    brief: ClassVar[bool] = True
    geometry: Geometry
    key: str | None = None
    of: Literal["instance", "image"] | None = None
    box_mode: Literal["xyxy", "xywh"] = "xywh"
    size: int | None = None
    mirror: list[tuple[int, int]] | None = None
    missing: float | Nan | None = None
    integer: bool = False
    fill: float | Nan = 0.0
    smooth: bool = False
    labels: bool = False
    reader: ReaderSpec | None = None
    pixel_mean: tuple[float, ...] | Literal["auto"] | None = None
    pixel_std: tuple[float, ...] | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        for name in ("missing", "fill"):
            value = getattr(self, name)
            if isinstance(value, float) and math.isnan(value):
                object.__setattr__(self, name, "nan")
        if self.of == ("image" if self.geometry in _OF_IMAGES else "instance"):
            object.__setattr__(self, "of", None)  # two ways to say the same are equal
        super().__post_init__()

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        geometry, size = values.get("geometry"), values.get("size")
        yield from within(values, size=(1, 1 << 16))
        for name, allowed in _OPTIONS.items():
            given = name in values and values[name] != cls.__dataclass_fields__[name].default
            if given and geometry is not None and geometry not in allowed:
                yield name, f"is {values[name]!r}, but it is for {', '.join(allowed)}; the geometry is {geometry}"
        if geometry == "points" and size is None:
            yield "size", "is missing, expected the number of points"
        if geometry in _OF_IMAGES and values.get("of") == "instance":
            yield (
                "of",
                f"is 'instance', but a {geometry} is of the whole image; masks of instances are `geometry: mask`",
            )
        key = values.get("key")
        if key in READ_KEYS and (geometry, key) != ("rotated_box", "bbox"):
            yield "key", f"is {key!r}, which is read already, as a part of `instances`; expected another key"
        missing = values.get("missing")
        is_nan = missing == "nan" or missing != missing
        if geometry in ("box", "rotated_box") and missing is not None and not is_nan:
            yield "missing", f"is {missing}, expected nan: transforms would move other numbers"
        elif values.get("integer") and missing is not None and (is_nan or missing % 1 or abs(missing) >= 2**63):
            yield "missing", f"is {missing}, expected a whole number, as the field is `integer`"
        pairs = values.get("mirror") or ()
        for pair in pairs:
            if size is not None and not all(0 <= number < size for number in pair):
                yield "mirror", f"has the pair {list(pair)}, expected numbers from 0 to {size - 1}"
        if len({number for pair in pairs for number in pair}) < 2 * len(pairs):
            yield "mirror", f"is {[list(pair) for pair in pairs]}, expected each point in one pair at most"

    @property
    def of_instances(self) -> bool:
        return self.geometry not in _OF_IMAGES and self.of != "image"


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a field, or None."""
    if name.isidentifier() and name not in RESERVED:
        return None
    return f"has a field called {name!r}, expected letters, digits and _, and none of the usual names"
