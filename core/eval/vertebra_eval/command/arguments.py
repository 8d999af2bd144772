"""The arguments of `vertebra-eval`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from vertebra_eval.area_ranges import AREA_RANGES
from vertebra_eval.errors import DataError
from vertebra_eval.files import read_text
from vertebra_eval.resamples import COMPARED_TASKS, RESAMPLES, check_resamples, check_swaps

__all__ = ["area_ranges", "class_names", "parser", "range_of"]

_DESCRIPTION = """Evaluate result files of any tool: COCO, LVIS, Pascal VOC, panoptic and semantic segmentation, with
the numbers of the reference tools. Ground truth and results are COCO JSON files; semantic takes two folders of PNG
files."""


def parser() -> argparse.ArgumentParser:
    """With a command for each kind of evaluation; `arguments.command` says which."""
    root = argparse.ArgumentParser(prog="vertebra-eval", description=_DESCRIPTION)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    coco = commands.add_parser("coco", help="COCO's AP and AR of boxes, masks or keypoints")
    _files(coco, "COCO ground truth", "COCO results")
    _task(coco, ["bbox", "segm", "keypoints", "boundary"])
    add_coco_options(coco)
    _resampling(coco)
    crowdpose = commands.add_parser("crowdpose", help="CrowdPose's AP of keypoints, also by how crowded images are")
    _files(crowdpose, "COCO ground truth with a crowdIndex for each image", "COCO results")
    lvis = commands.add_parser("lvis", help="LVIS' federated AP of boxes or masks")
    _files(lvis, "LVIS ground truth", "results in COCO's format")
    _task(lvis, ["bbox", "segm"])
    voc = commands.add_parser("voc", help="Pascal VOC's AP of boxes, of 2007 and of 2010 and later")
    _files(voc, "COCO ground truth; `difficult` objects count neither way", "COCO results")
    voc.add_argument("--iou", type=float, default=0.5, help="IoU from which on a box matches (default: 0.5)")
    panoptic = commands.add_parser("panoptic", help="panoptic quality")
    _files(panoptic, "panoptic JSON", "panoptic JSON")
    panoptic.add_argument("--gt-folder", type=Path, help="PNG files of the ground truth (default: GT without .json)")
    panoptic.add_argument(
        "--results-folder", type=Path, help="PNG files of the results (default: RESULTS without .json)"
    )
    semantic = commands.add_parser("semantic", help="mIoU and its relatives of label images")
    _files(semantic, "folder of label PNG files", "folder of label PNG files with the same names")
    semantic.add_argument(
        "--classes",
        required=True,
        help="number of classes, or a text file with one class name per line, from label 0 on",
    )
    semantic.add_argument(
        "--ignore-label", type=int, default=255, help="label of pixels that do not count (default: 255)"
    )
    for one in (crowdpose, lvis, panoptic, semantic):
        _resampling(one)
    for one in (panoptic, semantic):
        one.add_argument(
            "--image-sums", type=Path, metavar="FILE.npz", help="also write what each image adds, for `compare`"
        )
    for one in (coco, crowdpose, lvis, voc, panoptic, semantic):
        one.add_argument("--per-class", action="store_true", help="also print a row for each class")
        one.add_argument(
            "--report", type=Path, metavar="FILE", help="write a report, one HTML file, with its plots beside"
        )
        _json(one)
    compare = commands.add_parser("compare", help="whether the difference of two results is more than noise")
    compare.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="A B, or A1 A2 ... against B1 B2 ... where the runs of a side are trained with different seeds: COCO "
        "result files, files of --image-sums, or folders of Vertebra runs, all on the same images",
    )
    compare.add_argument("--annotations", type=Path, help="COCO ground truth; required for COCO result files")
    compare.add_argument("--sigmas", type=float, nargs="+", metavar="S", help="OKS standard deviation of each keypoint")
    _area_of_box(compare)
    compare.add_argument("--task", choices=COMPARED_TASKS, help="default: the first of the runs")
    _resampling(compare, check_swaps)
    _json(compare)
    return root


def add_coco_options(one: argparse.ArgumentParser) -> None:
    """What `coco_evaluate` takes beyond files and task."""
    one.add_argument("--max-dets", type=int, nargs="+", metavar="N", help="detections per image and class that count")
    one.add_argument("--iou", type=float, nargs="+", metavar="T", help="IoU thresholds (default: 0.5 to 0.95 by 0.05)")
    one.add_argument(
        "--areas", nargs="+", type=range_of, metavar="NAME:LOW:HIGH", help="area ranges in square pixels, beside all"
    )
    one.add_argument("--sigmas", type=float, nargs="+", metavar="S", help="OKS standard deviation of each keypoint")
    _area_of_box(one)
    one.add_argument("--pooled", action="store_true", help="take all categories for one, as for proposals")
    one.add_argument(
        "--confidence",
        type=_confidence,
        metavar="SCORE",
        help="also F1, precision, recall and mIoU from this score on; best: where F1 is best",
    )


def _area_of_box(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--area-of-box",
        type=float,
        metavar="SHARE",
        help="share of a box's area that replaces its object's area, such as 0.53 for CrowdPose's OKS",
    )


def range_of(text: str) -> tuple[str, tuple[float, float]]:
    """`tiny:0:256` as a named area range."""
    name, *limits = text.split(":")
    try:
        low, high = (float(limit) for limit in limits)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:LOW:HIGH, such as tiny:0:256") from err
    return name, (low, high)


def area_ranges(given: Sequence[tuple[str, tuple[float, float]]] | None) -> dict[str, tuple[float, float]] | None:
    """The named ranges beside `all`; None: COCO's own.

    Raises:
        DataError: a name that occurs twice, or `all`, which holds every object.
    """
    if given is None:
        return None
    ranges = {"all": AREA_RANGES["all"]}
    for name, limits in given:
        if name in ranges:
            why = "is the one that holds every object" if name == "all" else "is given twice"
            raise DataError(f"--areas: the range {name!r} {why}; give each a name of its own")
        ranges[name] = limits
    return ranges


def class_names(text: str) -> list[str] | int:
    """The value of --classes: a number, or the lines of a file."""
    if text.isdecimal():
        return int(text)
    try:
        names = read_text(text).splitlines()
    except (OSError, ValueError) as err:
        raise DataError(f"--classes {text}: expected a number, or a text file with a name per line ({err})") from err
    return [name.strip() for name in names if name.strip()]


def _confidence(text: str) -> float | Literal["best"]:
    try:
        return "best" if text == "best" else float(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor best") from err


def _files(one: argparse.ArgumentParser, truth: str, results: str) -> None:
    one.add_argument("gt", metavar="GT", type=Path, help=truth)
    one.add_argument("results", metavar="RESULTS", type=Path, help=results)


def _task(one: argparse.ArgumentParser, tasks: list[str]) -> None:
    one.add_argument("--task", choices=tasks, default=tasks[0], help=f"default: {tasks[0]}")


def _resampling(one: argparse.ArgumentParser, check: Callable[[int], int] = check_resamples) -> None:
    none = "; 0: no intervals" if check is check_resamples else ""
    one.add_argument(
        "--resamples",
        type=lambda text: _whole(text, check),
        default=RESAMPLES,
        help=f"number of resamples of the images (default: {RESAMPLES}{none})",
    )
    one.add_argument(
        "--seed", type=lambda text: _whole(text, _not_negative), default=0, help="random seed of them (default: 0)"
    )


def _whole(text: str, check: Callable[[int], int]) -> int:
    try:
        return check(int(text))
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from err
    except DataError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


def _not_negative(seed: int) -> int:
    if seed < 0:
        raise DataError(f"seed is {seed}; expected a whole number from 0 on")
    return seed


def _json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")
