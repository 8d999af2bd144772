"""What `vertebra train` and `vertebra evaluate` do, as plain functions that other front ends call too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vertebra.evaluation.printed import print_evaluation

__all__ = ["evaluate_weights", "train_recipe"]


def train_recipe(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    output: Path | None = None,
    resume: bool = False,
    plugins: Sequence[Path] = (),
) -> None:
    """Trains and prints the metrics and where everything was written. Without `output` a new run folder is chosen."""
    from vertebra.config import load_recipe
    from vertebra.engine import Trainer
    from vertebra.runtime.process import open_process

    loaded = load_recipe(recipe, overrides, plugins)
    open_process(loaded.train.device)
    trainer = Trainer(loaded, output_dir=output, resume=resume)
    trainer.train()
    if trainer.is_main_process:
        print_evaluation(trainer.folder.evaluation, trainer.folder.path)


def evaluate_weights(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    weights: str | None = None,
    output: Path | None = None,
    split: str | None = None,
    plugins: Sequence[Path] = (),
) -> None:
    """Evaluates weights (None: the recipe's `model.weights`) and prints the metrics.

    Without `output` a new folder beside the weights is taken, or beside the current directory for a URL.
    """
    from vertebra.config import load_recipe
    from vertebra.data import load_split
    from vertebra.engine.trained_model import load_trained_model
    from vertebra.errors import RecipeError
    from vertebra.evaluation import evaluate as run_evaluation
    from vertebra.runtime import use_channels_last
    from vertebra.runtime.distributed import is_main_process, on_main_process
    from vertebra.runtime.folders import drop_if_empty, make_new
    from vertebra.runtime.process import check_ranks_agree, open_process, text_checksum, weights_checksum

    loaded = load_recipe(recipe, overrides, plugins)
    source = weights or loaded.model.weights
    if source is None:
        raise RecipeError(f"{loaded.source}: no weights given. Add --weights runs/NAME/final.pth, or set model.weights")
    device = open_process(loaded.train.device)
    dataset = load_split(loaded, split)
    model = load_trained_model(loaded, source, dataset=dataset).model
    facts = {"images": len(dataset), "recipe": text_checksum(loaded.to_yaml()), "weights": weights_checksum(model)}
    check_ranks_agree(facts, "Every process needs the same recipe, dataset and weights")
    model.channels_last = use_channels_last(loaded.train.channels_last, device, training=False)
    beside = Path(source).parent if Path(source).exists() else Path.cwd()
    folder = output or on_main_process(lambda: make_new(beside / "evaluation"))
    try:
        run_evaluation(model, loaded, dataset=dataset, split=split, output_dir=folder, device=device)
    finally:
        drop_if_empty(folder)
    if is_main_process():
        print_evaluation(folder)
