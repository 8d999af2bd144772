"""`train`, `evaluate`, `import-detectron2` and `import-torchvision`: what needs a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.options import PluginFiles, plugin_files
from vertebra.cli.runs import evaluate_weights, train_recipe

__all__ = ["evaluate", "import_detectron2", "import_torchvision", "train"]

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or `plugin:recipe` for one that a plugin ships.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe overrides, such as train.batch_size=8."),
]
Weights = Annotated[
    str | None, typer.Option("--weights", "-w", help="Checkpoint or weights file (.pth, .safetensors, .pkl), or URL.")
]
RecipeOption = Annotated[str, typer.Option("--recipe", help="Recipe of the same model.")]
OutputFile = Annotated[Path, typer.Option("--output", help="Output .pth file.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output file if it exists.")]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Import only what fits: parameters missing from the file stay as initialized, entries of the file without "
        "a place in the model are dropped, and both are listed. The default is to refuse such a file.",
    ),
]


def train(
    context: typer.Context,
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder. Default: a new one, runs/<recipe>, runs/<recipe>-2, ..."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume the run in the run folder (default: the newest one) exactly where it stopped."
        ),
    ] = False,
    plugin: PluginFiles = None,
) -> None:
    """Train from a recipe, evaluate at the end, and print the metrics and where everything was written."""
    train_recipe(recipe, overrides or (), output=output, resume=resume, plugins=plugin_files(context, plugin))


def evaluate(
    context: typer.Context,
    recipe: RecipeArgument,
    overrides: Overrides = None,
    weights: Weights = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Output directory. Default: evaluation, evaluation-2, ... beside the weights."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Dataset split: train, val or test. Default: the recipe's evaluate.split.")
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Evaluate weights on a recipe's dataset: metrics.json, COCO results, pictures and a report."""
    files = plugin_files(context, plugin)
    evaluate_weights(recipe, overrides or (), weights=weights, output=output, split=split, plugins=files)


def import_detectron2(
    weights: Annotated[str, typer.Option("--weights", help="Detectron2's .pkl or .pth file; no code in it is run.")],
    recipe: RecipeOption,
    output: OutputFile,
    force: Force = False,
    partial: Partial = False,
    overrides: Overrides = None,
) -> None:
    """Translate Detectron2 weights into weights of a recipe's model."""
    from vertebra.config import load_recipe
    from vertebra.models.import_detectron2 import import_detectron2 as run_import

    print(run_import(weights, load_recipe(recipe, overrides or ()), output, force=force, partial=partial))


def import_torchvision(
    weights: Annotated[str, typer.Option("--weights", help="A .pth file, or torchvision:NAME; no code in it is run.")],
    recipe: RecipeOption,
    output: OutputFile,
    force: Force = False,
    partial: Partial = False,
    overrides: Overrides = None,
) -> None:
    """Translate torchvision's segmentation weights into weights of a recipe's model."""
    from vertebra.config import load_recipe
    from vertebra.models.import_torchvision import import_torchvision as run_import

    print(run_import(weights, load_recipe(recipe, overrides or ()), output, force=force, partial=partial))
