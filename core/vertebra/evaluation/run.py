"""Evaluate a model on a dataset: the loop, and what it leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vertebra.config.injection import known_facts
from vertebra.data import build_eval_loader, load_split
from vertebra.data.extra_fields import check_needs
from vertebra.data.match_classes import match_classes
from vertebra.errors import RecipeError
from vertebra.evaluation.evaluator import Evaluator, check_methods, metrics_of
from vertebra.evaluation.loop import device_of, predict_all
from vertebra.evaluation.report import Section, dataset_sections, write_report
from vertebra.evaluation.run_facts import dataset_name, model_facts, versions
from vertebra.evaluation.subset import SubsetOfClasses
from vertebra.models.given import check_inputs
from vertebra.models.inference import with_inference
from vertebra.runtime.distributed import initialize, on_main_process, rank, world_size
from vertebra.runtime.folders import check_can_be_written
from vertebra_eval.evaluate_results import ResultNumbers

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["EvaluationResult", "build_evaluators", "check_evaluation", "evaluate"]

_FILES = ("metrics.json", "report.html", "coco_results.json")

logger = logging.getLogger(__name__)


@dataclass
class EvaluationResult:
    """What an evaluation found, the same in every process.

    Args:
        metrics: flat keys `<task>/<name>`, fractions, None where undefined.
        reasons: one sentence for each None.
        notes: what one should know before trusting the numbers.
        intervals: (low, high) of some metrics, 95 % over images.
        info: dataset, split, number of images, seconds, images per second.
        paths: what was written: metrics, report, pictures, plots, coco_results, ...
    """

    metrics: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)


def evaluate(
    model: nn.Module,
    recipe: Recipe,
    *,
    dataset: Any = None,
    split: str | None = None,
    output_dir: str | Path | None = None,
    device: str | torch.device | None = None,
    report: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Predict a dataset and let the recipe's evaluators judge it. The model's training mode is as before afterwards.

    Under torch.distributed each process predicts its share; all of them have to call this.

    Args:
        dataset: has `.dicts` and `.metadata`. None: the recipe's `data.<split>`. Its classes are matched with those of
            `model.metadata` by name; of a subset, detections of the other classes are dropped and counted in `notes`.
        split: train, val or test. None: the recipe's `evaluate.split`.
        output_dir: for metrics.json, result files, plots, pictures and report.html. None: `evaluation` in the
            recipe's run folder.
        device: the model is moved there. None: it stays where it is.
        report: whether to draw plots and pictures and write report.html. None: as the recipe says.
        progress: called with (images done, images in all) of this process after each batch.
    """
    initialize(torch.device(device) if device is not None else device_of(model))
    split = split or recipe.evaluate.split
    if dataset is None:
        dataset = load_split(recipe, split)
    dataset = match_classes(dataset, getattr(model, "metadata", None))
    folder = Path(output_dir) if output_dir is not None else Path(recipe.run_folder) / "evaluation"
    on_main_process(lambda: check_can_be_written(folder, files=_FILES).mkdir(parents=True, exist_ok=True))
    if device is not None:
        model.to(device)
    check_inputs(model, dataset, training=False)
    evaluators = build_evaluators(recipe, dataset, folder)
    loader = build_eval_loader(recipe, dataset, rank(), world_size())
    predict = with_inference(model, recipe.evaluate.inference, dataset.metadata)
    subset = SubsetOfClasses(predict, dataset.metadata) if SubsetOfClasses.is_needed(dataset.metadata) else None
    timing = predict_all(
        model, loader, evaluators, amp=recipe.evaluate.amp, progress=progress, predict=subset or predict
    )

    result = EvaluationResult(metrics={})
    if subset is not None:
        result.notes.append(subset.note())
        logger.warning("evaluation: %s", result.notes[-1])
    result.notes += getattr(dataset.metadata, "notes", None) or []  # logged when it was read
    for evaluator in evaluators:
        _merge(result, evaluator)
    result.info = {"dataset": dataset_name(dataset), "split": split, **timing.over_processes().as_info()}
    result.paths["metrics"] = folder / "metrics.json"
    show = recipe.evaluate.report if report is None else report
    result.paths |= on_main_process(lambda: _write(folder, result, evaluators, model, recipe, dataset, show))
    return result


def build_evaluators(recipe: Recipe, dataset: Any, output_dir: Path | None) -> list[Evaluator]:
    """The recipe's evaluators for one dataset, with what the framework knows."""
    facts = known_facts(dataset.metadata, dataset=dataset, output_dir=output_dir)
    evaluators = [spec.build(**facts) for spec in recipe.evaluate.evaluators]
    for evaluator in evaluators:
        check_methods(evaluator)
    check_needs(evaluators, dataset.metadata)
    return evaluators


def check_evaluation(recipe: Recipe, dataset: Any) -> None:
    """Before a training: its evaluations will find what they need. All processes have to call this.

    Raises:
        DataError: ground truth that an evaluator cannot use; names file and record.
    """

    def check() -> None:
        for evaluator in build_evaluators(recipe, dataset, None):
            evaluator.check()

    on_main_process(check)


def _merge(result: EvaluationResult, evaluator: Evaluator) -> None:
    """The evaluator's numbers into the result; two that give the same number would hide one."""
    metrics = metrics_of(evaluator)
    twice = sorted(set(metrics) & set(result.metrics))
    if twice:
        raise RecipeError(
            f"two evaluators return {', '.join(twice[:3])}; evaluate.evaluators may evaluate each task only once.\n"
            "  Set `tasks` of COCOEvaluator so that they differ"
        )
    result.metrics |= metrics
    result.reasons |= evaluator.reasons
    result.notes += evaluator.notes
    result.intervals |= evaluator.intervals
    result.paths |= evaluator.files


def _write(
    folder: Path,
    result: EvaluationResult,
    evaluators: list[Evaluator],
    model: nn.Module,
    recipe: Recipe,
    dataset: Any,
    show: bool,
) -> dict[str, Path]:
    """metrics.json always; plots, pictures and the report where they are wanted. Returns the further paths."""
    numbers = ResultNumbers(result.metrics, result.intervals, result.reasons, result.notes, result.info)
    numbers.write(folder / "metrics.json")
    if not show:
        return {}
    sections: list[Section] = []
    for evaluator in evaluators:
        sections += evaluator.sections(folder, recipe.evaluate.pictures)
    sections += dataset_sections(dataset, folder / "plots")
    path = write_report(
        folder / "report.html",
        title=f"{recipe.name}: evaluation",
        subtitle=f"{result.info['dataset']}, split {result.info['split']}, {result.info['images']} images",
        metrics=result.metrics,
        reasons=result.reasons,
        notes=result.notes,
        intervals=result.intervals,
        sections=sections,
        facts={"Run": _run_facts(result.info), "Model": model_facts(model, recipe), "Versions": versions()},
        recipe_yaml=recipe.to_yaml(),
    )
    places = {name: folder / name for name in ("plots", "pictures", "mistakes")}
    logger.info("evaluation report: %s", path)
    return {"report": path, **{name: place for name, place in places.items() if place.is_dir()}}


def _run_facts(info: dict[str, Any]) -> dict[str, str]:
    facts = {
        "device": info["device"],
        "processes": str(info["processes"]),
        "number format": info["precision"],
        "predicting": f"{info['predict_seconds']:.1f} s for {info['images']} images",
        "of this, waiting for data": f"{info['data_seconds']:.1f} s",
        "of this, in the model": f"{info['model_seconds']:.1f} s",
    }
    if info["images"]:
        facts["images per second"] = f"{info['images_per_second']:.2f}"
        facts["median per image in the model"] = f"{1000 * info['median_seconds_per_image']:.1f} ms"
    return facts
