"""How the plots of a report look: colors, fonts, sizes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from vertebra_eval.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = ["BLUE", "COLUMN", "GRAY", "GRID", "INK", "LIGHT_BLUE", "ORANGE", "RED"]
__all__ += ["new_axes", "plot_style", "shades", "short_name"]

INK, GRID = "#1f2a37", "#e3e8ee"
BLUE, LIGHT_BLUE, ORANGE, RED, GRAY = "#2563c9", "#9dc0f2", "#e07b1f", "#c8344f", "#94a0ad"
COLUMN = 5.6  # inches: width of a plot that shares a row with another
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,  # a class may be called a$b^^$
}


def plot_style() -> AbstractContextManager[None]:
    """Plots made within have this look. matplotlib, which loads slowly, is imported at the first."""
    from matplotlib import rc_context

    return rc_context(_STYLE)


def shades(*colors: str) -> Colormap:
    """From 0, the first, to 1, the last color."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", colors)


def new_axes(height: float, width: float = COLUMN) -> tuple[Figure, Axes]:
    """A figure of this size in inches, with 150 pixels per inch, tight around one plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def short_name(name: str) -> str:
    """A label of at most 24 characters."""
    name = printable(name)
    return name if len(name) <= 24 else name[:23] + "…"
