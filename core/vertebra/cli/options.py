"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from vertebra.errors import RecipeError

__all__ = ["PluginFiles", "height_width", "plugin_files"]

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file that registers components; may be repeated."),
]


def plugin_files(context: typer.Context, own: list[Path] | None) -> list[Path]:
    """The local plugins named before the command (`vertebra --plugin FILE train ...`) and after it."""
    return [*(context.obj or []), *(own or [])]


def height_width(text: str, option: str) -> tuple[int, int]:
    """`480x640` or `640` to (height, width)."""
    found = re.fullmatch(r"(\d+)(?:\s*[xX,]\s*(\d+))?", text.strip())
    sides = [int(side) if len(side) < 6 else 0 for side in (found[1], found[2] or found[1])] if found else [0]
    if min(sides) < 1:
        raise RecipeError(
            f"{option} is {text[:40]!r}; expected HEIGHTxWIDTH in pixels (up to 99999), such as 480x640, or one number"
        )
    return sides[0], sides[1]
