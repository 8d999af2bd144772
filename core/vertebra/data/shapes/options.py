"""What decides the files of a generated dataset `shapes`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vertebra.data.shapes.outlines import KINDS
from vertebra.errors import DataError

__all__ = ["MAX_IMAGES", "ShapesOptions", "parse_size"]

GENERATOR_VERSION = 1
"""Goes up whenever the same options would give other files."""

MAX_IMAGES = 999_999
"""Most pictures in a split: image ids of split val start above this."""

_LIMITS = {
    "images": (1, MAX_IMAGES),
    "val_images": (1, MAX_IMAGES),
    "seed": (0, 2**63 - 1),
    "num_classes": (1, len(KINDS)),
    "max_objects": (1, 90),
    "crowds": (0.0, 1.0),
    "empty": (0.0, 1.0),
}


@dataclass(frozen=True)
class ShapesOptions:
    """The arguments of `ShapesFormat` that decide what the pictures show; sides are (least, largest) in pixels.

    Raises:
        DataError: arguments out of range, all in one message.
    """

    images: int
    val_images: int
    seed: int
    height: tuple[int, int]
    width: tuple[int, int]
    num_classes: int
    max_objects: int
    object_size: tuple[float, float]
    crowds: float
    empty: float

    def __post_init__(self) -> None:
        wrong = []
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, (int, type(least))) or not least <= value <= most:
                wrong.append(f"{name} is {value!r}, expected {least} to {most}")
        if len(self.object_size) != 2 or not 0.03 <= self.object_size[0] <= self.object_size[1] <= 2:
            wrong.append(
                f"object_size is {list(self.object_size)}, expected two shares of the shorter side, "
                "0.03 <= least <= largest <= 2"
            )
        if wrong:
            raise DataError("shapes: " + "\n  ".join(wrong))

    def manifest(self) -> dict[str, Any]:
        """Plain data that is equal for options with equal files."""
        return {"generator": "vertebra shapes", "version": GENERATOR_VERSION, **asdict(self)}


def parse_size(size: int | str | Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """((least height, largest), (least width, largest)) of 160, [128, 160], "128x160", "128-192", "96-128x128-192"."""
    text = "x".join(map(str, size)) if isinstance(size, (list, tuple)) else str(size)
    if re.fullmatch(r"\d{1,4}(-\d{1,4})?(x\d{1,4}(-\d{1,4})?)?", text):
        parts = [[int(number) for number in part.split("-")] for part in text.split("x")]
        height, width = ((part[0], part[-1]) for part in (parts[0], parts[-1]))
        if all(32 <= least <= largest <= 8192 for least, largest in (height, width)):
            return height, width
    raise DataError(
        f"shapes: size is {size!r}, expected 160, 128x160 (height x width), or ranges as 128-192 and 96-128x128-192, "
        "of 32 to 8192 pixels"
    )
