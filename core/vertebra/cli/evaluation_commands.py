"""`compare` and `evaluate-results`: numbers out of result files, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.errors import SetupError
from vertebra_eval.resamples import COMPARED_TASKS, RESAMPLES, check_resamples, check_swaps

__all__ = ["compare", "evaluate_results"]

Annotations = Annotated[
    Path | None,
    typer.Option(
        "--annotations", help="COCO ground-truth file: required for result files, or if that of the runs has moved."
    ),
]
Task = Annotated[
    str | None,
    typer.Option("--task", help=f"Task: {', '.join(COMPARED_TASKS)}. Default: the first of the runs."),
]
Resamples = Annotated[int, typer.Option("--resamples", help="Number of resamples of the images. 0: no intervals.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed of the resampling.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this JSON file.")]


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A B, or A1 A2 ... against B1 B2 ... where the runs of a side are trained with different seeds: run "
            "folders, evaluation folders, COCO result files or files of image sums, all on the same images.",
        ),
    ],
    annotations: Annotations = None,
    task: Task = None,
    resamples: Annotated[int, typer.Option("--resamples", help="Number of swaps of images.")] = RESAMPLES,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Compare two runs, or several of each of two kinds, and test whether the difference is more than noise."""
    from vertebra_eval.command.main import check_json_file, print_comparison, two_sides, write_comparison
    from vertebra_eval.compare_runs import compare_runs

    _check_task(task, *COMPARED_TASKS)
    check_swaps(resamples)
    check_json_file(json_file)
    sides = two_sides(runs)
    found, of_task, notes = compare_runs(*sides, annotations=annotations, task=task, resamples=resamples, seed=seed)
    print_comparison(found, of_task, notes, *sides)
    if json_file is not None:
        write_comparison(json_file, found, of_task, *sides)


def evaluate_results(
    annotations: Annotated[Path, typer.Option("--annotations", help="Ground-truth file in COCO format.")],
    results: Annotated[Path, typer.Option("--results", help="Result file of any tool, in COCO format.")],
    task: Annotated[str, typer.Option("--task", help="Task: bbox, segm, keypoints, boundary or panoptic.")],
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
    iou: Annotated[str | None, typer.Option(help="COCO: IoU thresholds, such as 0.5,0.75.")] = None,
    areas: Annotated[
        str | None, typer.Option(help="COCO: area ranges in square pixels beside all, such as tiny:0:256,big:1e4:1e10.")
    ] = None,
    area_of_box: Annotated[
        float | None,
        typer.Option(help="COCO keypoints: share of a box's area that replaces the object's area, such as 0.53."),
    ] = None,
    pooled: Annotated[
        bool, typer.Option("--pooled", help="COCO: take all categories for one, as for proposals.")
    ] = False,
    confidence: Annotated[
        str | None,
        typer.Option(help="COCO: also F1, precision, recall and mIoU from this score on; best: where F1 is best."),
    ] = None,
    resamples: Resamples = RESAMPLES,
    seed: Seed = 0,
    json_file: JsonFile = None,
    image_sums: Annotated[
        Path | None, typer.Option(help="Panoptic: also write what each image adds to this .npz file, for compare.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a report, one HTML file, with its plots beside.")
    ] = None,
) -> None:
    """Evaluate result files of any tool: COCO's AP and AR, or panoptic quality. No model is needed."""
    from vertebra_eval.command.main import (
        check_distinct,
        check_json_file,
        check_report,
        check_sums_file,
        tell,
        write_sums,
    )
    from vertebra_eval.evaluate_results import evaluate_result_files

    _check_task(task, "bbox", "segm", "keypoints", "boundary", "panoptic")
    check_resamples(resamples)
    check_json_file(json_file)
    check_report(report)
    if image_sums is not None and task != "panoptic":
        raise SetupError(f"--image-sums belongs to the task panoptic, not to {task}")
    check_sums_file(image_sums)
    check_distinct({"--json": json_file, "--report": report, "--image-sums": image_sums})
    numbers = evaluate_result_files(
        annotations,
        results,
        task,
        annotations_folder=annotations_folder,
        results_folder=results_folder,
        max_dets=_limits(max_dets, task),
        iou_thresholds=_thresholds(iou),
        area_ranges=_areas(areas),
        area_of_box=area_of_box,
        use_categories=False if pooled else None,
        confidence=_confidence(confidence),
        resamples=resamples,
        seed=seed,
    )
    tell(numbers, annotations, results, json_file, report)
    write_sums(image_sums, numbers)


def _limits(text: str | None, task: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if task == "panoptic" or not all(word.isdecimal() and 0 < int(word) < 10**6 for word in words):
        what = "panoptic quality has no limit" if task == "panoptic" else "expected numbers from 1, such as 1,10,500"
        raise SetupError(f"--max-dets is {text!r}; {what}")
    return tuple(map(int, words))


def _thresholds(text: str | None) -> list[float] | None:
    try:
        found = None if text is None else sorted(float(word) for word in text.split(","))
    except ValueError:
        found = [0.0]
    if found is not None and not all(0 < iou <= 1 for iou in found):
        raise SetupError(f"--iou is {text!r}; expected numbers above 0 up to 1, such as 0.5,0.75")
    return found


def _areas(text: str | None) -> dict[str, tuple[float, float]] | None:
    from argparse import ArgumentTypeError

    from vertebra_eval.command.arguments import area_ranges, range_of

    try:
        return area_ranges(None if text is None else list(map(range_of, text.split(","))))
    except ArgumentTypeError as err:
        raise SetupError(f"--areas: {err}") from err


def _confidence(text: str | None) -> float | str | None:
    try:
        return text if text in (None, "best") else float(str(text))
    except ValueError as err:
        raise SetupError(f"--confidence is {text!r}; expected a number or best") from err


def _check_task(task: str | None, *tasks: str) -> None:
    if task is not None and task not in tasks:
        raise SetupError(f"--task is {task!r}; expected one of {', '.join(tasks)}")
