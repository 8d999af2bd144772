"""Runs `vertebra-eval`: exit code 0 if all was done, 2 for what a user can fix, with one message."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vertebra_eval.analysis.compare import Comparison
from vertebra_eval.command.arguments import area_ranges, class_names, parser
from vertebra_eval.command.metric_table import format_metrics
from vertebra_eval.compare_runs import compare_runs
from vertebra_eval.errors import DataError, VertebraError
from vertebra_eval.evaluate_results import ResultNumbers, evaluate_result_files
from vertebra_eval.files import read_json, write_json
from vertebra_eval.label_maps import semantic_evaluate
from vertebra_eval.lvis import lvis_evaluate
from vertebra_eval.printable import printable
from vertebra_eval.report.coco_plots import task_sections
from vertebra_eval.report.html import write_report
from vertebra_eval.voc import voc_evaluate

__all__ = ["check_json_file", "check_report", "main", "print_comparison", "tell", "write_comparison"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    given = parser().parse_args(arguments)
    try:
        check_json_file(given.json)
        if given.command == "compare":
            _compare(given)
        else:
            _evaluate(given)
    except (VertebraError, OSError) as err:
        print(f"vertebra-eval: {printable(str(err))}", file=sys.stderr)
        return 2
    return 0


def _evaluate(given: argparse.Namespace) -> None:
    check_report(given.report)
    tell(_numbers(given), given.gt, given.results, given.json, given.report, per_class=given.per_class)


def tell(
    numbers: ResultNumbers,
    truth: Path,
    results: Path,
    json_file: Path | None,
    report: Path | None,
    *,
    per_class: bool = True,
) -> None:
    """Print the numbers of result files, and write the files that are wanted (checked before by `check_...`)."""
    print(printable(format_metrics(numbers.metrics, numbers.reasons, per_class=per_class)))
    for name, (low, high) in numbers.intervals.items():
        print(f"95 % interval of {name}: {low:.4f} to {high:.4f}")
    for note in numbers.notes:
        print(f"note: {printable(note)}")
    if json_file is not None:
        numbers.write(json_file)
        print(printable(f"written: {json_file}"))
    if report is not None:
        print(printable(f"written: {_write_report(report, numbers, truth, results)}"))


def _numbers(given: argparse.Namespace) -> ResultNumbers:
    if given.command == "coco":
        return evaluate_result_files(
            given.gt, given.results, given.task, resamples=given.resamples, seed=given.seed, **coco_changes(given)
        )
    if given.command == "panoptic":
        folders = {"annotations_folder": given.gt_folder, "results_folder": given.results_folder}
        return evaluate_result_files(given.gt, given.results, "panoptic", **folders)
    if given.command == "semantic":
        names = class_names(given.classes)
        scores = semantic_evaluate(given.gt, given.results, names, ignore_label=given.ignore_label)
        found = ResultNumbers(scores.metrics, {}, scores.reasons, scores.notes)
    else:
        lvis = given.command == "lvis"
        own = (
            lvis_evaluate(str(given.gt), str(given.results), given.task)
            if lvis
            else voc_evaluate(str(given.gt), str(given.results), iou=given.iou)
        )
        found = ResultNumbers(dict(own), {}, own.reasons, own.notes)
    found.info = {"annotations": str(given.gt), "results": str(given.results), "task": given.command}
    return found


def coco_changes(given: argparse.Namespace) -> dict:
    """The options of `add_coco_options` as arguments of `coco_evaluate`; None where not given."""
    return {
        "max_dets": given.max_dets,
        "iou_thresholds": given.iou and sorted(given.iou),
        "area_ranges": area_ranges(given.areas),
        "sigmas": given.sigmas,
        "use_categories": False if given.pooled else None,
        "confidence": given.confidence,
    }


def _write_report(path: Path, numbers: ResultNumbers, truth: Path, results: Path) -> Path:
    """The report of result files; its plots go to a folder `<name>_plots` beside it."""
    sections = [] if numbers.result is None else task_sections(numbers.result, _plots_of(path))
    facts = {name: str(value) for name, value in numbers.info.items()}
    return write_report(
        path,
        title=f"{results.name}: evaluation",
        subtitle=f"{results} on {truth}",
        metrics=numbers.metrics,
        reasons=numbers.reasons,
        notes=numbers.notes,
        intervals=numbers.intervals,
        sections=sections,
        facts={"Files": facts},
    )


def _compare(given: argparse.Namespace) -> None:
    found, task, notes = compare_runs(
        given.a, given.b, annotations=given.annotations, task=given.task, resamples=given.resamples, seed=given.seed
    )
    print_comparison(found, task, notes, given.a, given.b)
    if given.json is not None:
        write_comparison(given.json, found, task, given.a, given.b)


def print_comparison(found: Comparison, task: str, notes: Sequence[str], a: Path, b: Path) -> None:
    """The table of differences, and the verdict in a sentence."""
    for note in notes:
        print(f"note: {printable(note)}")
    print(f"A  {printable(str(a))}\nB  {printable(str(b))}\n")
    print(f"{task:<10}{'A':>8}{'B':>9}{'B - A':>10}   {f'{100 * found.level:.0f} % interval':<20}{'p':>6}")
    for name, one in found.differences.items():
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        print(
            f"{name:<10}{one.first:>8.4f}{one.second:>9.4f}{one.difference:>+10.4f}   {interval:<20}{one.p_value:>6.3f}"
        )
    print(f"\n{found.verdict('A', 'B')}")
    print("The test covers the choice of images only; training again with another seed can differ by more.")


def write_comparison(path: Path, found: Comparison, task: str, a: Path, b: Path) -> None:
    """The comparison as a JSON file."""
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
    facts = {"a": str(a), "b": str(b), "images": found.num_images, "resamples": found.resamples, "level": found.level}
    content = {**numbers, "verdict": found.verdict("A", "B"), "info": facts}
    write_json(path, content)
    print(printable(f"written: {path}"))


def check_json_file(path: Path | None) -> None:
    """Before anything is counted: --json names a file that may be written. Only an empty one or our own is replaced.

    Raises:
        DataError: it may not be written.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise DataError(f"--json {path}: no such folder: {path.parent}")
    if path.exists() and not _is_replaceable(path):
        raise DataError(f"--json {path}: exists and does not hold evaluation results; choose another file")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"--json {path}: the folder {path.parent} cannot be written")


def check_report(path: Path | None) -> None:
    """Before anything is counted: --report names a new file in a folder that exists.

    Raises:
        DataError: it may not be written.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise DataError(f"--report {path}: no such folder: {path.parent}")
    place = path if path.exists() else _plots_of(path)  # an empty text is ".", which exists
    if place.exists():
        raise DataError(f"--report {path}: {place} exists; choose another name")


def _plots_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_plots")


def _is_replaceable(path: Path) -> bool:
    """An empty file, or numbers that these commands wrote before."""
    try:
        content = read_json(path) if path.stat().st_size else {"info": None}
    except (OSError, DataError):
        return False
    return isinstance(content, dict) and bool({"info", "verdict"} & set(content))
