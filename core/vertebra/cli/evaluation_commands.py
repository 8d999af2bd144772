"""`compare` and `evaluate-results`: numbers out of result files, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vertebra_eval.regular_files import read_text

if TYPE_CHECKING:
    from vertebra_eval.analysis.compare import Comparison

__all__ = ["compare", "evaluate_results"]

Annotations = Annotated[
    Path | None,
    typer.Option(
        "--annotations", help="COCO ground-truth file: required for result files, or if that of the runs has moved."
    ),
]
Task = Annotated[
    str | None, typer.Option("--task", help="Task: bbox, segm or keypoints. Default: the first of the runs.")
]
Resamples = Annotated[
    int, typer.Option("--resamples", min=0, max=1_000_000, help="Number of bootstrap resamples of the images.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed of the resampling.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this JSON file.")]


def compare(
    run_a: Annotated[
        Path, typer.Argument(metavar="RUN_A", help="A run folder, an evaluation folder, or a COCO result file.")
    ],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The other one, evaluated on the same images.")],
    annotations: Annotations = None,
    task: Task = None,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, max=1_000_000, help="Number of resamples and of swaps.")
    ] = 1000,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Compare the AP of two runs, and test whether the difference is more than noise."""
    from vertebra.evaluation.compare_runs import compare_runs

    _check_task(task, with_panoptic=False)
    _check_free(json_file)
    found, of_task, notes = compare_runs(
        run_a, run_b, annotations=annotations, task=task, resamples=resamples, seed=seed
    )
    for note in notes:
        print(f"note: {note}")
    print(f"A  {run_a}\nB  {run_b}\n")
    print(f"{of_task:<10}{'A':>8}{'B':>9}{'B - A':>10}   {f'{100 * found.level:.0f} % interval':<20}{'p':>6}")
    for name, one in found.differences.items():
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        print(
            f"{name:<10}{one.first:>8.4f}{one.second:>9.4f}{one.difference:>+10.4f}   {interval:<20}{one.p_value:>6.3f}"
        )
    verdict = found.verdict("A", "B")
    print(
        f"\n{verdict}\nThe test covers the choice of images only; training again with another seed can differ by more."
    )
    if json_file is not None:
        _write_json(json_file, _comparison(found, of_task, verdict, run_a, run_b))


def evaluate_results(
    annotations: Annotated[Path, typer.Option("--annotations", help="Ground-truth file in COCO format.")],
    results: Annotated[Path, typer.Option("--results", help="Result file of any tool, in COCO format.")],
    task: Annotated[str, typer.Option("--task", help="Task: bbox, segm, keypoints or panoptic.")],
    annotations_folder: Annotated[
        Path | None,
        typer.Option(help="Panoptic: folder of ground-truth PNG files. Default: the JSON path without .json."),
    ] = None,
    results_folder: Annotated[
        Path | None, typer.Option(help="Panoptic: folder of result PNG files. Default: the JSON path without .json.")
    ] = None,
    max_dets: Annotated[
        str | None,
        typer.Option(help="COCO: numbers of detections per image and class that count, such as 1,10,500."),
    ] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Evaluate result files of any tool: COCO's AP and AR, or panoptic quality. No model is needed."""
    from vertebra.cli.tables import format_metrics
    from vertebra_eval.evaluate_results import evaluate_result_files

    _check_task(task, with_panoptic=True)
    _check_free(json_file)
    numbers = evaluate_result_files(
        annotations,
        results,
        task,
        annotations_folder=annotations_folder,
        results_folder=results_folder,
        max_dets=_limits(max_dets, task),
        resamples=resamples,
        seed=seed,
    )
    print(format_metrics(numbers.metrics, numbers.reasons))
    for name, (low, high) in numbers.intervals.items():
        print(f"95 % interval of {name}: {low:.4f} to {high:.4f}")
    for note in numbers.notes:
        print(f"note: {note}")
    if json_file is not None:
        numbers.write(json_file)
        print(f"written: {json_file}")


def _limits(text: str | None, task: str) -> tuple[int, ...] | None:
    from vertebra.errors import SetupError

    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if task == "panoptic" or not all(word.isdecimal() and 0 < int(word) < 10**6 for word in words):
        what = "panoptic quality has no limit" if task == "panoptic" else "expected numbers from 1, such as 1,10,500"
        raise SetupError(f"--max-dets is {text!r}; {what}")
    return tuple(map(int, words))


def _check_task(task: str | None, *, with_panoptic: bool) -> None:
    from vertebra.errors import SetupError

    tasks = ["bbox", "segm", "keypoints", *(["panoptic"] if with_panoptic else [])]
    if task is not None and task not in tasks:
        raise SetupError(f"--task is {task!r}; expected one of {', '.join(tasks)}")


def _check_free(path: Path | None) -> None:
    """Before anything is counted: --json names a file that may be written. Only an empty one or our own is replaced."""
    import os

    from vertebra.errors import SetupError

    if path is None:
        return
    if not path.parent.is_dir():
        raise SetupError(f"--json {path}: no such folder: {path.parent}")
    if path.exists() and not _is_replaceable(path):
        raise SetupError(f"--json {path}: exists and does not hold evaluation results; choose another file")
    if not os.access(path.parent, os.W_OK):
        raise SetupError(f"--json {path}: the folder {path.parent} cannot be written")


def _is_replaceable(path: Path) -> bool:
    """An empty file, or numbers that these commands wrote before."""
    import json

    try:
        text = read_text(path)
        content = json.loads(text) if text.strip() else {"info": None}
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and bool({"info", "verdict"} & set(content))


def _write_json(path: Path, content: dict) -> None:
    import json

    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(f"written: {path}")


def _comparison(found: Comparison, task: str, verdict: str, run_a: Path, run_b: Path) -> dict:
    numbers = {
        f"{task}/{name}": {
            "a": one.first,
            "b": one.second,
            "difference": one.difference,
            "interval": [one.low, one.high],
            "p_value": one.p_value,
            "noise": one.is_noise,
        }
        for name, one in found.differences.items()
    }
    facts = {"a": str(run_a), "b": str(run_b), "images": found.num_images, "resamples": found.resamples}
    return {**numbers, "verdict": verdict, "info": facts | {"level": found.level}}
