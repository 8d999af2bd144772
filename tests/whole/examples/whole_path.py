"""What every example in docs/examples goes through: trained, resumed, evaluated, predicted with, as a user would."""

import ast
import io
import tokenize
from pathlib import Path

import torch

from vertebra import Trainer, evaluate, load_recipe
from vertebra.engine.trained_model import load_trained_model
from vertebra.predictor import WrittenPredictions, predict_files

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"

FEW = (
    "data.train.images=4",
    "data.val.images=4",
    "data.train.size=64",
    "data.val.size=64",
    "data.workers=0",
    "evaluate.report=false",
)
"""Overrides of a recipe for the trainings of a conformance kit."""


def code_lines(file: Path) -> int:
    """Lines of code of a Python file, without blank lines, comments and docstrings."""
    source, lines = file.read_text(encoding="utf-8"), set()
    layout = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def trained(idea: str, folder: Path, *overrides, steps: int = 4) -> dict[str, float | None]:
    """Trains `docs/examples/<idea>.yaml` a few steps on a few small images, and once more from the middle.

    Asserts that the resumed run ends with the same weights, and that evaluating the weights gives the run's numbers.
    Returns the numbers. The weights are `folder/run/final.pth`.
    """
    recipe = load_recipe(
        str(EXAMPLES / f"{idea}.yaml"),
        [
            {"data.train.images": 6, "data.train.val_images": 3, "data.val.images": 6, "data.val.val_images": 3},
            {"data.workers": 0, "train.steps": steps, "train.epochs": None, "train.batch_size": 2},
            {"train.channels_last": False},  # as `load_trained_model` leaves it: other layouts round differently
            {
                "train.checkpoint_every": steps // 2,
                "train.log_every": 1,
                "train.device": "cpu",
                "train.evaluate_every": None,
            },
            {"evaluate.pictures": 2},
            *overrides,
        ],
    )
    metrics = Trainer(recipe, folder / "run").train()
    whole = _weights(folder / "run")
    (folder / "run/final.pth").unlink()
    for path in (folder / "run/checkpoints").glob(f"*{steps:07d}*"):
        path.unlink()
    (folder / "run/checkpoints/last").unlink(missing_ok=True)
    again = Trainer(load_recipe(folder / "run/recipe.yaml"), folder / "run", resume=True)
    again.train()
    resumed = _weights(folder / "run")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    model = load_trained_model(load_recipe(folder / "run/recipe.yaml"), str(folder / "run/final.pth"))
    result = evaluate(model.model.eval(), model.recipe, output_dir=folder / "evaluation")
    assert result.metrics and {name: metrics[name] for name in result.metrics} == result.metrics
    return metrics


def predicted(folder: Path, images: list[str], **settings) -> WrittenPredictions:
    """`vertebra predict` with what `trained` left, into `folder/predictions`."""
    recipe = load_recipe(folder / "run/recipe.yaml")
    return predict_files(
        recipe,
        images,
        weights=str(folder / "run/final.pth"),
        output=folder / "predictions",
        device="cpu",
        **settings,
    )


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "final.pth", weights_only=True)["model"]
