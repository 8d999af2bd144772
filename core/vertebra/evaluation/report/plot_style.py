"""How the plots of a report look: colors, fonts, sizes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["BLUE", "GRAY", "GRID", "INK", "LIGHT_BLUE", "ORANGE", "RED", "STYLE", "new_axes", "short_name"]

INK, GRID = "#1f2a37", "#e3e8ee"
BLUE, LIGHT_BLUE, ORANGE, RED, GRAY = "#2563c9", "#9dc0f2", "#e07b1f", "#c8344f", "#94a0ad"
STYLE = {
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
}
"""For matplotlib's `rc_context`."""


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of width x height inches at 150 pixels per inch, tight around one plot."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def short_name(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
