"""`train`, `evaluate`, `predict` and `import-detectron2`: what needs a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vertebra.cli.tables import print_metrics

__all__ = ["evaluate", "import_detectron2", "predict", "train"]

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or `plugin:recipe` for one that a plugin ships.")
]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's, such as train.batch_size=8."),
]
Weights = Annotated[
    Optional[str], typer.Option("--weights", "-w", help="A checkpoint or weights file (.pth, .safetensors, .pkl) or URL.")
]


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="The run folder. Default: runs/<recipe>, then -2, -3, ...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on exactly where the run in the folder stopped (default: its newest).")
    ] = False,
) -> None:
    """Train from a recipe, evaluate at the end, and print the metrics and where everything was written."""
    from vertebra.config import load_recipe
    from vertebra.engine import Trainer, choose_run_folder

    loaded = load_recipe(recipe, overrides or ())
    folder = choose_run_folder(loaded, output, resume=resume)
    trainer = Trainer(loaded, output_dir=folder, resume=resume)
    metrics = trainer.train()
    if trainer.is_main_process:
        print_metrics(metrics, folder)


def evaluate(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    weights: Weights = None,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Where results go. Default: evaluation beside the weights.")
    ] = None,
    split: Annotated[Optional[str], typer.Option(help="val, test or train. Default: what the recipe says.")] = None,
) -> None:
    """Evaluate weights on a recipe's dataset: metrics.json, COCO results, pictures and a report."""
    from vertebra import build_model, load_recipe
    from vertebra import evaluate as run_evaluation
    from vertebra.data import load_split
    from vertebra.models import load_weights, read_weights

    loaded = load_recipe(recipe, overrides or ())
    source = weights or loaded.model.weights
    if source is None:
        raise typer.BadParameter("say which weights to evaluate: --weights runs/NAME/final.pth")
    dataset = load_split(loaded, split or loaded.evaluate.split)
    model = build_model(loaded, metadata=dataset.metadata)
    load_weights(model, read_weights(source), source=source)
    folder = output or Path(source).parent / "evaluation"
    result = run_evaluation(model, loaded, dataset=dataset, split=split, output_dir=folder)
    print_metrics(result.metrics, folder, result.reasons)


def predict(
    recipe: RecipeArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders of images.")],
    weights: Weights = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures and predictions.json.")] = Path(
        "predictions"
    ),
    score: Annotated[float, typer.Option(help="Draw and write detections from this score on.")] = 0.5,
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="Recipe overrides, KEY=VALUE.")] = None,
) -> None:
    """Detect on pictures: each drawn with its detections, and predictions.json in COCO's result format."""
    from vertebra.predictor import predict_files

    written = predict_files(recipe, images, weights=weights, output=output, score=score, overrides=set_ or ())
    for path in written.pictures:
        print(path)
    print(f"{written.num_images} images, {written.num_detections} detections from score {score:g}: {written.results}")


def import_detectron2(
    weights: Annotated[str, typer.Option("--weights", help="Detectron2's .pkl or .pth; no code in it is run.")],
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe of the same model.")],
    output: Annotated[Path, typer.Option("--output", help="The .pth to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the output file where it exists.")] = False,
    overrides: Overrides = None,
) -> None:
    """Translate Detectron2 weights into weights of a recipe's model."""
    from vertebra.config import load_recipe
    from vertebra.models.import_detectron2 import import_detectron2 as run_import

    print(run_import(weights, load_recipe(recipe, overrides or ()), output, force=force))
