"""Runs `vertebra-eval`: exit code 0 if all was done, 2 for what a user can fix, with one message."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertebra_eval.analysis.compare import Comparison
from vertebra_eval.command.arguments import area_ranges, class_names, parser
from vertebra_eval.command.metric_table import format_metrics
from vertebra_eval.compare_runs import compare_runs
from vertebra_eval.errors import DataError, VertebraError
from vertebra_eval.evaluate_results import (
    ResultNumbers,
    evaluate_crowdpose_files,
    evaluate_label_maps,
    evaluate_lvis_files,
    evaluate_result_files,
)
from vertebra_eval.files import read_json, write_json
from vertebra_eval.printable import printable
from vertebra_eval.report.coco_plots import task_sections
from vertebra_eval.report.html import write_report
from vertebra_eval.voc import voc_evaluate

__all__ = ["check_json_file", "check_report", "main", "print_comparison", "tell", "two_sides", "write_comparison"]


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
    sums = getattr(given, "image_sums", None)
    check_sums_file(sums)
    check_distinct({"--json": given.json, "--report": given.report, "--image-sums": sums})
    numbers = _numbers(given)
    tell(numbers, given.gt, given.results, given.json, given.report, per_class=given.per_class)
    write_sums(sums, numbers)


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
    if given.command == "voc":
        own = voc_evaluate(str(given.gt), str(given.results), iou=given.iou)
        facts = {"annotations": str(given.gt), "results": str(given.results), "task": "voc"}
        return ResultNumbers(dict(own), {}, own.reasons, own.notes, facts)
    if given.command == "crowdpose":
        return evaluate_crowdpose_files(given.gt, given.results, resamples=given.resamples, seed=given.seed)
    sampling = {"resamples": given.resamples, "seed": given.seed}
    if given.command == "panoptic":
        folders = {"annotations_folder": given.gt_folder, "results_folder": given.results_folder}
        return evaluate_result_files(given.gt, given.results, "panoptic", **folders, **sampling)
    if given.command == "semantic":
        names = class_names(given.classes)
        return evaluate_label_maps(given.gt, given.results, names, ignore_label=given.ignore_label, **sampling)
    return evaluate_lvis_files(given.gt, given.results, given.task, **sampling)


def coco_changes(given: argparse.Namespace) -> dict:
    """The options of `add_coco_options` as arguments of `coco_evaluate`; None where not given."""
    return {
        "max_dets": given.max_dets,
        "iou_thresholds": given.iou and sorted(given.iou),
        "area_ranges": area_ranges(given.areas),
        "sigmas": given.sigmas,
        "area_of_box": given.area_of_box,
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
    sides = two_sides(given.runs)
    changes = {"sigmas": given.sigmas, "area_of_box": given.area_of_box}
    found, task, notes = compare_runs(
        *sides, annotations=given.annotations, task=given.task, resamples=given.resamples, seed=given.seed, **changes
    )
    print_comparison(found, task, notes, *sides)
    if given.json is not None:
        write_comparison(given.json, found, task, *sides)


def two_sides(runs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The runs of both sides, from `A B` or `A1 A2 ... against B1 B2 ...`.

    Raises:
        DataError: neither.
    """
    words = [str(run) for run in runs]
    if words.count("against") == 1:
        at = words.index("against")
        sides = list(runs[:at]), list(runs[at + 1 :])
        if all(sides):
            return sides
    elif "against" not in words and len(runs) == 2:
        return [runs[0]], [runs[1]]
    raise DataError(
        f"compare: expected two runs, or two sides with the word against between them, got {' '.join(words)}"
        "\n  compare A B\n  compare A1 A2 A3 against B1 B2 B3"
    )


def print_comparison(found: Comparison, task: str, notes: Sequence[str], a: Sequence[Path], b: Sequence[Path]) -> None:
    """The table of differences, and the verdict in a sentence."""
    for note in notes:
        print(f"note: {printable(note)}")
    for side, paths in (("A", a), ("B", b)):
        print("\n".join(f"{side if not row else ' '}  {printable(str(path))}" for row, path in enumerate(paths)))
    width = max(10, *(len(name) + 2 for name in found.differences))
    header = f"{task:<{width}}{'A':>8}{'B':>9}{'B - A':>10}   {f'{100 * found.level:.0f} % interval':<20}{'p':>6}"
    print(f"\n{header}")
    for name, one in found.differences.items():
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        values = f"{one.first:>8.4f}{one.second:>9.4f}{one.difference:>+10.4f}"
        print(f"{name:<{width}}{values}   {interval:<20}{one.p_value:>6.3f}")
    print(f"\n{found.verdict('A', 'B')}")
    if not found.covers_seeds:
        print(
            "The test covers the choice of images only; training again with another seed can differ by more. "
            "Give several runs a side to cover that too."
        )


def write_comparison(path: Path, found: Comparison, task: str, a: Sequence[Path], b: Sequence[Path]) -> None:
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
    facts: dict[str, Any] = {"a": list(map(str, a)), "b": list(map(str, b)), "images": found.num_images}
    facts |= {"resamples": found.resamples, "level": found.level, "covers_seeds": found.covers_seeds}
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


def check_distinct(outputs: Mapping[str, Path | None]) -> None:
    """Before anything is counted: no two options name the same file.

    Raises:
        DataError: two do.
    """
    first: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is not None and first.setdefault(path.resolve(), option) != option:
            raise DataError(f"{option} {path}: {first[path.resolve()]} names the same file; choose another")


def check_sums_file(path: Path | None) -> None:
    """Before anything is counted: --image-sums names a new file in a folder that exists.

    Raises:
        DataError: it may not be written.
    """
    if path is None:
        return
    if path.suffix != ".npz":
        raise DataError(f"--image-sums {path}: expected a name that ends in .npz")
    if path.exists() or not path.parent.is_dir():
        what = "exists; choose another name" if path.exists() else f"no such folder: {path.parent}"
        raise DataError(f"--image-sums {path}: {what}")


def write_sums(path: Path | None, numbers: ResultNumbers) -> None:
    """What each image adds to the numbers of segmentation, for comparisons."""
    if path is not None and numbers.sums is not None:
        numbers.sums.write(path)
        print(printable(f"written: {path}"))


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
        content = read_json(path) if path.stat().st_size else {"info": {"task": None}}
    except (OSError, DataError):
        return False
    if not isinstance(content, dict) or {"images", "annotations", "categories"} & content.keys():
        return False
    info = content.get("info")
    return isinstance(info, dict) and bool({"task", "resamples"} & info.keys())
