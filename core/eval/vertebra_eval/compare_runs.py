"""Compare the evaluations of runs, from what they left in their folders."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebra_eval.analysis.compare import Comparison, compare_measured
from vertebra_eval.analysis.image_sums import SUMS_FILES, ImageSums
from vertebra_eval.analysis.measured import Measured, MeasuredAP
from vertebra_eval.coco import read_ground_truth
from vertebra_eval.errors import DataError
from vertebra_eval.evaluate_results import match_results
from vertebra_eval.files import read_bytes, read_json
from vertebra_eval.resamples import RESAMPLES

__all__ = ["FACTS_FILE", "RunResults", "compare_runs"]

FACTS_FILE = "coco_evaluation.json"
"""Says which result files of a run belong to which ground truth, for comparisons with other runs."""


@dataclass
class RunResults:
    """The result files of one evaluation, and on what it was.

    Args:
        results: task -> result file, or file of what each image adds; a lone result file stands under every task ("").
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
        """Of a run folder, an evaluation folder, a COCO result file, or a file of what each image adds (.npz).

        Raises:
            DataError: nothing there that can be compared.
        """
        path = Path(path)
        if path.is_file():
            return cls(str(path), {ImageSums.read(path).task if path.suffix.lower() == ".npz" else "": path})
        for folder in (path, path / "evaluation"):
            sums = {task: folder / name for task, name in SUMS_FILES.items() if (folder / name).is_file()}
            if (folder / FACTS_FILE).is_file():
                run = cls._of_facts(str(path), folder, read_json(folder / FACTS_FILE))
                run.results |= sums
                return run
            if sums:
                return cls(str(path), dict(sums))
        if not path.is_dir():
            raise DataError(f"{path}: no such folder or file")
        raise DataError(
            f"{path}: contains no evaluation: no {FACTS_FILE}, {' or '.join(SUMS_FILES.values())} in it or in its "
            "folder evaluation.\n  Run `vertebra evaluate` on its weights, or name a result file and --annotations"
        )

    @classmethod
    def _of_facts(cls, name: str, folder: Path, facts: Any) -> RunResults:
        try:
            images, categories = (list(facts[key] or ()) for key in ("image_ids", "category_ids"))
            hash((*images, *categories))
            results = {str(task): folder / file for task, file in facts["results"].items()}
            truth = folder / facts["ground_truth"] if facts["ground_truth"] else None
            return cls(name, results, truth, images, categories, facts["fingerprint"])
        except (KeyError, TypeError, AttributeError) as err:
            raise DataError(f"{folder / FACTS_FILE}: not written by an evaluation ({err!r}); evaluate again") from err

    def results_of(self, task: str) -> Path:
        path = self.results.get(task) or (None if task in SUMS_FILES else self.results.get(""))
        if path is None:
            raise DataError(f"{self.name}: task {task} was not evaluated, only {', '.join(self.results)}")
        return path


def compare_runs(
    first: str | Path | Sequence[str | Path],
    second: str | Path | Sequence[str | Path],
    *,
    annotations: str | Path | None = None,
    task: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    sigmas: Sequence[float] | None = None,
    area_of_box: float | None = None,
) -> tuple[Comparison, str, list[str]]:
    """Compare two runs, or two sides of several runs each, on the same images.

    Args:
        first, second: run folders, evaluation folders, COCO result files, or files of what each image adds; of a side
            one, or several trained with different seeds.
        annotations: COCO ground truth, for result files and where the recorded one has moved.
        task: bbox, segm, keypoints, boundary, sem_seg or panoptic. None: the first that all were evaluated for.
        sigmas, area_of_box: of keypoints, as for `coco_evaluate`.

    Returns:
        The comparison, its task, and notes on the result files.

    Raises:
        DataError: the runs were evaluated on different images, classes or annotations; two runs of a side have the same
            results; files that cannot be used.
    """
    given = [[side] if isinstance(side, str | Path) else list(side) for side in (first, second)]
    sides = [[RunResults.of(path) for path in paths] for paths in given]
    runs = [run for side in sides for run in side]
    known = next((run for run in runs if run.fingerprint is not None), None)
    if known is not None:
        for run in runs:
            check_same_data(known, run)
    task = task or _common_task(runs)
    _check_sides(sides, task)
    notes: list[str] = []
    options = {"--annotations": annotations, "--sigmas": sigmas, "--area-of-box": area_of_box}
    if task in SUMS_FILES:
        unused = [option for option, value in options.items() if value is not None]
        if unused:
            raise DataError(f"{' and '.join(unused)}: not for {task}, whose image sums contain the ground truth")
        measured: dict[int, Measured] = {id(run): _sums_of(run, task) for run in runs}
        where = runs[0].name
    else:
        if task != "keypoints" and (sigmas is not None or area_of_box is not None):
            raise DataError(f"--sigmas and --area-of-box are for keypoints, not for {task}")
        changes = {} if sigmas is None else {"sigmas": sigmas}
        measured, where = _matched(runs, task, annotations, area_of_box, changes, notes)
    try:
        found = compare_measured(
            *([measured[id(run)] for run in side] for side in sides), resamples=resamples, seed=seed
        )
    except DataError as err:
        raise DataError("\n  ".join([f"{where}: {err}", *notes])) from err
    return found, task, notes


def _check_sides(sides: Sequence[Sequence[RunResults]], task: str) -> None:
    """Each side has runs of the task, with results of their own."""
    for side in sides:
        if not side:
            raise DataError("a side of the comparison has no run")
        contents: dict[bytes, RunResults] = {}
        for run in side:
            path = run.results_of(task)
            content = hashlib.sha256(read_bytes(path)).digest() if len(side) > 1 else b""
            if contents.setdefault(content, run) is not run:
                raise DataError(
                    f"{run.name} has the results of {contents[content].name}; several runs of a side show the effect "
                    "of the seed only if each is a training of its own"
                )


def _sums_of(run: RunResults, task: str) -> ImageSums:
    sums = ImageSums.read(run.results_of(task))
    if sums.task != task:
        raise DataError(f"{run.name}: its sums are of {sums.task}, not of {task}")
    return sums


def _matched(
    runs: Sequence[RunResults],
    task: str,
    annotations: str | Path | None,
    area_of_box: float | None,
    changes: dict[str, Any],
    notes: list[str],
) -> tuple[dict[int, Measured], str]:
    """The matches of each run, by its `id`; and where the ground truth is from."""
    of_truth = annotations or next((run.ground_truth for run in runs if run.ground_truth is not None), None)
    if of_truth is None:
        names = " and ".join(run.name for run in runs)
        raise DataError(f"{names} do not record their ground truth; set it with --annotations")
    if not Path(of_truth).is_file():
        what = "no such file" if annotations else f"the ground truth of {runs[0].name} no longer exists"
        raise DataError(f"{of_truth}: {what}; set a COCO ground-truth file with --annotations")
    image_ids = next((run.image_ids for run in runs if run.image_ids), None)
    category_ids = next((run.category_ids for run in runs if run.category_ids), None)
    truth = read_ground_truth(of_truth, task, image_ids=image_ids, category_ids=category_ids, area_of_box=area_of_box)
    notes += truth.notes
    measured: dict[int, Measured] = {}
    for run in runs:
        numbers = match_results(run.results_of(task), truth, task, **changes)
        measured[id(run)] = MeasuredAP(numbers.result.matches)
        notes += [note for note in numbers.notes if note not in notes]
    return measured, str(of_truth)


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


def _common_task(runs: Sequence[RunResults]) -> str:
    if all("" in run.results for run in runs):
        return "bbox"
    named = dict.fromkeys(task for run in runs for task in run.results if task)
    tasks = [
        task
        for task in named
        if all(task in run.results or ("" in run.results and task not in SUMS_FILES) for run in runs)
    ]
    if not tasks:
        each = "; ".join(
            f"{run.name} for {', '.join(run.results).strip() or 'boxes, masks or keypoints'}" for run in runs
        )
        raise DataError(f"the runs have no task in common: {each}")
    return tasks[0]
