"""The plots of a section as PNG files. Two stand in a row of the report, and are drawn with one height."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vertebra_eval.files import open_whole
from vertebra_eval.report.blocks import Figure
from vertebra_eval.report.plot_style import COLUMN, plot_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

__all__ = ["write_plots"]

_WHOLE = 2 * COLUMN + 0.25  # inches: both columns and what is between them


def write_plots(
    plots: Iterable[tuple[str, Drawing | None, str]], folder: Path, *, prefix: str = "", facts_beside: bool = False
) -> list[Figure]:
    """Write each plot as `<prefix><name>.png`; those that are None have nothing to show and are skipped.

    The lower of two in a row is drawn as high as the other. The last of an odd number is drawn as wide as a row.

    Args:
        plots: (name, plot, caption), in the order of the section.
        facts_beside: facts of the section stand beside the last plot, which stays as it is.
    """
    drawn = [(folder / f"{prefix}{name}.png", plot, caption) for name, plot, caption in plots if plot is not None]
    if drawn:
        folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(drawn), 2):
        row = [plot for _, plot, _ in drawn[start : start + 2]]
        height = max(plot.get_figheight() for plot in row)
        for plot in row:
            plot.set_figheight(height)
            if len(row) == 1 and not facts_beside:
                plot.set_figwidth(_WHOLE)
    with plot_style():  # ticks are made when they are drawn
        for path, plot, _ in drawn:
            with open_whole(path) as file:
                plot.savefig(file, format="png")
    return [Figure(path, caption) for path, _, caption in drawn]
