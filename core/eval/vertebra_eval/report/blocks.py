"""What a report is made of. An evaluator hands in sections; how they look is decided in one place, the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Facts", "Figure", "Gallery", "Picture", "Section", "Table", "Text"]


@dataclass
class Text:
    """A paragraph."""

    text: str


@dataclass
class Table:
    """Rows of texts and numbers. A number is shown with three decimals (counts as they are), None as a dash.

    Args:
        bar_columns: columns of fractions that get a bar behind the number.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    bar_columns: Sequence[int] = ()


@dataclass
class Facts:
    """Names and values. A section of facts alone stands beside the other such sections, at the end."""

    rows: Mapping[str, str]


@dataclass
class Figure:
    """A plot, written as PNG."""

    path: Path
    caption: str


@dataclass
class Picture:
    """One image of a gallery, written as PNG."""

    path: Path
    caption: str


@dataclass
class Gallery:
    """Pictures in a row or grid, with one sentence that says what is drawn."""

    pictures: Sequence[Picture]
    explanation: str = ""


@dataclass
class Section:
    """A titled part of the report."""

    title: str
    blocks: Sequence[Text | Table | Facts | Figure | Gallery] = field(default_factory=list)
