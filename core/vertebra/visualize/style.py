"""How pictures look: what a caller may choose, and the names that are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Style", "class_name"]


@dataclass(frozen=True)
class Style:
    """How things are drawn.

    Args:
        min_side: a smaller image is enlarged until its shorter side has this many pixels; 0 never enlarges.
        color_by: what has a color of its own; None: objects where there is a single class with masks, else classes.
        labels: whether class names are written; None: not on tiny objects in a crowded picture.
        mask_alpha: strength of the color over a mask, 0 to 1.
    """

    min_side: int = 480
    color_by: Literal["class", "instance"] | None = None
    labels: bool | None = None
    mask_alpha: float = 0.42


def class_name(index: int, names: Sequence[str] | None) -> str:
    """The name of class `index`, or "class 7" where it has none."""
    return str(names[index]) if names is not None and 0 <= index < len(names) else f"class {index}"
