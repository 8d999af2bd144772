"""`vertebra rcnn classic | proposals`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Commands for R-CNN.", no_args_is_help=True)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe overrides.")]


@app.callback()
def rcnn() -> None:
    """Commands for R-CNN."""


@app.command("classic")
def classic(
    recipe: Annotated[str, typer.Argument(help="Recipe whose backbone and data are used; its heads are ignored.")],
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder; must be new or empty.")] = Path(
        "runs/rcnn_classic"
    ),
    weights: Annotated[str | None, typer.Option("--weights", "-w", help="Weights of the recipe's model.")] = None,
    proposals: Annotated[int, typer.Option(help="Maximum number of proposals per image.")] = 300,
    size: Annotated[int, typer.Option(help="Side length of a warped region, in pixels.")] = 96,
) -> None:
    """Train and evaluate R-CNN without a trained network: selective search, warped regions, SVMs, ridge regression."""
    from vertebra_rcnn.classic.run import run_classic

    run_classic(recipe, overrides or (), output, weights=weights, max_proposals=proposals, size=size)


@app.command("proposals")
def proposals(
    recipe: Annotated[str, typer.Argument(help="Recipe whose data are used.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output .npz file.")],
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Dataset split: train, val or test.")] = "train",
    most: Annotated[int, typer.Option(help="Maximum number of proposals per image.")] = 2000,
) -> None:
    """Write selective-search proposals of a dataset, for Fast R-CNN (`PrecomputedProposals`)."""
    from vertebra_rcnn.classic.run import write_selective_search

    write_selective_search(recipe, overrides or (), output, split=split, most=most)
