"""`vertebra rcnn classic | proposals`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Around R-CNN.", no_args_is_help=True)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe overrides.")]


@app.callback()
def rcnn() -> None:
    """Around R-CNN."""


@app.command("classic")
def classic(
    recipe: Annotated[str, typer.Argument(help="Its backbone and data are used; its heads are not.")],
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")] = Path("runs/rcnn_classic"),
    weights: Annotated[str | None, typer.Option("--weights", "-w", help="Of the recipe's model.")] = None,
    proposals: Annotated[int, typer.Option(help="Of each image at most.")] = 300,
    size: Annotated[int, typer.Option(help="Side of a warped region, in pixels.")] = 96,
) -> None:
    """Train and evaluate R-CNN without a trained network: selective search, warped regions, SVMs, ridge regression."""
    from vertebra_rcnn.classic.run import run_classic

    run_classic(recipe, overrides or (), output, weights=weights, max_proposals=proposals, size=size)


@app.command("proposals")
def proposals(
    recipe: Annotated[str, typer.Argument(help="Its data are used.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz to write.")],
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    most: Annotated[int, typer.Option(help="Of each image at most.")] = 2000,
) -> None:
    """Write selective-search proposals of a dataset, for Fast R-CNN (`PrecomputedProposals`)."""
    from vertebra_rcnn.classic.run import write_selective_search

    write_selective_search(recipe, overrides or (), output, split=split, most=most)
