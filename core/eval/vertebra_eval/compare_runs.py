"""Compare the evaluations of two runs, from what they left in their folders."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra_eval.analysis.compare import Comparison, compare_matches
from vertebra_eval.coco import read_ground_truth
from vertebra_eval.errors import DataError
from vertebra_eval.evaluate_results import match_results
from vertebra_eval.files import read_json

__all__ = ["FACTS_FILE", "RunResults", "compare_runs"]

FACTS_FILE = "coco_evaluation.json"
"""Says which result files of a run belong to which ground truth, for comparisons with other runs."""


@dataclass
class RunResults:
    """The result files of one evaluation, and on what it was.

    Args:
        results: task -> result file; a lone result file stands under every task ("").
        ground_truth: the COCO file it was judged by; None for a lone result file.
        image_ids, category_ids: those evaluated. fingerprint: of images, classes and annotations.
    """

    name: str
    results: dict[str, Path]
    ground_truth: Path | None = None
    image_ids: list[Hashable] | None = None
    category_ids: list[Hashable] | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, path: str | Path) -> RunResults:
        """Of a run folder, an evaluation folder, or a COCO result file.

        Raises:
            DataError: nothing there that was evaluated with COCOEvaluator.
        """
        path = Path(path)
        if path.is_file():
            return cls(str(path), {"": path})
        for folder in (path, path / "evaluation"):
            if (folder / FACTS_FILE).is_file():
                return cls._of_facts(str(path), folder, read_json(folder / FACTS_FILE))
        if not path.is_dir():
            raise DataError(f"{path}: no such folder or file")
        raise DataError(
            f"{path}: contains no evaluation of boxes, masks or keypoints: no {FACTS_FILE} in it or in its "
            "folder evaluation.\n  Run `vertebra evaluate` on its weights, or name a result file and --annotations"
        )

    @classmethod
    def _of_facts(cls, name: str, folder: Path, facts: Any) -> RunResults:
        try:
            return cls(
                name,
                {task: folder / file for task, file in facts["results"].items()},
                folder / facts["ground_truth"] if facts["ground_truth"] else None,
                facts["image_ids"],
                facts["category_ids"],
                facts["fingerprint"],
            )
        except (KeyError, TypeError, AttributeError) as err:
            raise DataError(
                f"{folder / FACTS_FILE} was not written by an evaluation: it has no {err}; evaluate again"
            ) from err

    def results_of(self, task: str) -> Path:
        path = self.results.get(task) or self.results.get("")
        if path is None:
            raise DataError(f"{self.name}: task {task} was not evaluated, only {', '.join(self.results)}")
        return path


def compare_runs(
    first: str | Path,
    second: str | Path,
    *,
    annotations: str | Path | None = None,
    task: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Comparison, str, list[str]]:
    """Compare AP of two runs on the same images.

    Args:
        first, second: run folders, evaluation folders, or COCO result files.
        annotations: COCO ground truth, for result files and where the recorded one has moved.
        task: bbox, segm or keypoints. None: the first that both were evaluated for.

    Returns:
        The comparison, its task, and notes on the result files.

    Raises:
        DataError: the runs were evaluated on different images, classes or annotations; files that cannot be used.
    """
    runs = RunResults.of(first), RunResults.of(second)
    check_same_data(*runs)
    task = task or _common_task(*runs)
    ground_truth = annotations or runs[0].ground_truth or runs[1].ground_truth
    if ground_truth is None:
        raise DataError(f"{first} and {second} do not record their ground truth; set it with --annotations")
    if not Path(ground_truth).is_file():
        raise DataError(
            f"{ground_truth}: the ground truth of {runs[0].name} no longer exists; set it with --annotations"
        )
    chosen = {name: getattr(runs[0], name) or getattr(runs[1], name) for name in ("image_ids", "category_ids")}
    truth = read_ground_truth(ground_truth, task, **chosen)
    matches, notes = [], []
    for run in runs:
        numbers = match_results(run.results_of(task), truth, task)
        matches.append(numbers.result.matches)
        notes += [note for note in numbers.notes if note not in truth.notes]
    try:
        return compare_matches(*matches, resamples=resamples, seed=seed), task, notes
    except DataError as err:
        raise DataError("\n  ".join([f"{ground_truth}: {err}", *truth.notes])) from err


def check_same_data(first: RunResults, second: RunResults) -> None:
    """Both were judged by the same images, classes and annotations, as far as they tell.

    Raises:
        DataError: saying what differs.
    """
    if None in (first.fingerprint, second.fingerprint) or first.fingerprint == second.fingerprint:
        return
    own, other = set(first.image_ids or ()), set(second.image_ids or ())
    what = "annotations"
    if own != other:
        what = f"images: {len(own)} and {len(other)}, {len(own & other)} of them the same"
    elif set(first.category_ids or ()) != set(second.category_ids or ()):
        what = f"classes: category ids {(first.category_ids or [])[:8]} and {(second.category_ids or [])[:8]}"
    raise DataError(
        f"{first.name} and {second.name} were evaluated on different {what}.\n"
        f"  Ground truth: {first.ground_truth} and {second.ground_truth}.\n"
        "  Evaluate both on the same split with `vertebra evaluate`, then compare"
    )


def _common_task(first: RunResults, second: RunResults) -> str:
    if "" in first.results and "" in second.results:
        return "bbox"
    named = [task for task in {**first.results, **second.results} if task]
    tasks = [task for task in named if all({task, ""} & set(run.results) for run in (first, second))]
    if not tasks:
        raise DataError(
            f"{first.name} and {second.name} have no task in common: one was evaluated for "
            f"{', '.join(first.results)}, the other for {', '.join(second.results)}"
        )
    return tasks[0]
