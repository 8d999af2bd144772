"""What a generated dataset `shapes` is made of: the checked arguments of `make_shapes`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from vertebra.data.shapes_classes import shape_classes
from vertebra.data.shapes_scene import SceneOptions
from vertebra.errors import DataError

__all__ = ["GENERATOR_VERSION", "MAX_IMAGES", "Extent", "ShapesPlan", "is_whole", "plan_shapes"]

GENERATOR_VERSION = 1
"""Goes up whenever the same arguments would give other files."""

MAX_IMAGES = 999_999
"""Most pictures in a split: image ids of split val start above this."""

Extent = int | Sequence[int]
"""A side in pixels, or its (least, largest) range."""


@dataclass(frozen=True)
class ShapesPlan:
    """All that decides what the files hold. Made by `plan_shapes`, which checks it."""

    images: int
    val_images: int
    seed: int
    num_classes: int
    scene: SceneOptions

    def manifest(self) -> dict:
        """Plain data that is equal for plans with equal files."""
        return json.loads(json.dumps({"generator": "vertebra shapes", "version": GENERATOR_VERSION, **asdict(self)}))


def plan_shapes(
    images: int,
    val_images: int | None,
    seed: int,
    size: int | str | Sequence[Extent],
    num_classes: int,
    max_objects: int,
    object_size: Sequence[float],
    crowds: float,
    empty: float,
) -> ShapesPlan:
    """Check the arguments of `make_shapes`; all mistakes are reported together."""
    wrong = []
    if not is_whole(images) or not 1 <= images <= MAX_IMAGES:
        wrong.append(f"images is {images!r}, expected 1 to {MAX_IMAGES}")
    elif val_images is None:
        val_images = max(images // 5, 1)
    if val_images is not None and (not is_whole(val_images) or not 1 <= val_images <= MAX_IMAGES):
        wrong.append(f"val_images is {val_images!r}, expected 1 to {MAX_IMAGES}")
    if not is_whole(seed) or seed < 0:
        wrong.append(f"seed is {seed!r}, expected a whole number from 0")
    if not is_whole(max_objects) or not 1 <= max_objects <= 90:
        wrong.append(f"max_objects is {max_objects!r}, expected 1 to 90")
    if len(object_size) != 2 or not 0.03 <= object_size[0] <= object_size[1] <= 2:
        wrong.append(
            f"object_size is {object_size!r}, expected two shares of the shorter side, 0.03 <= least <= largest <= 2"
        )
    wrong += [
        f"{name} is {share!r}, expected a share from 0 to 1"
        for name, share in (("crowds", crowds), ("empty", empty))
        if not 0 <= share <= 1
    ]
    height = width = (0, 0)
    try:
        height, width = _parse_size(size)
    except ValueError as err:
        wrong.append(str(err))
    if not is_whole(num_classes):
        wrong.append(f"num_classes is {num_classes!r}, expected a whole number")
    if wrong:
        raise DataError("shapes: " + "\n  ".join(wrong))
    shape_classes(num_classes)
    scene = SceneOptions(height, width, max_objects, (float(object_size[0]), float(object_size[1])), crowds, empty)
    return ShapesPlan(images, val_images, seed, num_classes, scene)


def _parse_size(size: int | str | Sequence[Extent]) -> tuple[tuple[int, int], tuple[int, int]]:
    """((least height, largest), (least width, largest)) of every form that `make_shapes` takes."""
    sides: Sequence = (size, size) if isinstance(size, int) else size
    if isinstance(size, str):
        if not re.fullmatch(r"\d+(-\d+)?(x\d+(-\d+)?)?", size):
            raise ValueError(f"size is {size!r}, expected 160, 128x160 (height x width), 128-192 or 96-128x128-192")
        parts = [[int(number) for number in part.split("-")] for part in size.split("x")]
        sides = parts * (2 // len(parts))
    if not isinstance(sides, Sequence) or len(sides) != 2:
        raise ValueError(f"size is {size!r}, expected (height, width), each a number or a (least, largest) range")
    ranges = []
    for side in sides:
        limits = [side] if isinstance(side, int) else list(side) if isinstance(side, Sequence) else []
        if not 1 <= len(limits) <= 2 or not all(is_whole(limit) and 32 <= limit <= 8192 for limit in limits):
            raise ValueError(f"size is {size!r}, expected height and width of 32 to 8192 pixels, or ranges of these")
        if limits[0] > limits[-1]:
            raise ValueError(f"size is {size!r}, with a range that ends before it begins")
        ranges.append((limits[0], limits[-1]))
    return ranges[0], ranges[1]


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
