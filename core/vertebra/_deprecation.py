"""Names that are to go: each still works, and warns, for one minor release before it goes.

RENAMED = {"OldName": Renamed("NewName", until="0.3")}   # in vertebra 0.2; the line itself goes with 0.3
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

__all__ = ["RENAMED", "Renamed", "VertebraDeprecationWarning", "new_name_of"]


class VertebraDeprecationWarning(FutureWarning):
    """A public name is used that a coming release does not have. Shown by default, as it concerns users."""


class Renamed(NamedTuple):
    """What took a name's place, and the minor release in which the old one is gone."""

    new: str
    until: str


RENAMED: dict[str, Renamed] = {}  # former names of `vertebra.__all__`


def new_name_of(name: str, renamed: dict[str, Renamed] = RENAMED, stacklevel: int = 3) -> str | None:
    """The name that took the place of `name`, after a warning at the caller's line; None for one that never was."""
    if name not in renamed:
        return None
    new, until = renamed[name]
    warnings.warn(
        f"vertebra.{name} is now vertebra.{new}; the old name goes with vertebra {until}",
        VertebraDeprecationWarning,
        stacklevel=stacklevel,
    )
    return new
