"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["PluginFiles", "plugin_files"]

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file that registers components; may be repeated."),
]


def plugin_files(context: typer.Context, own: list[Path] | None) -> list[Path]:
    """The local plugins named before the command (`vertebra --plugin FILE train ...`) and after it."""
    return [*(context.obj or []), *(own or [])]
