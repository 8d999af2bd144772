"""Flat metrics `<task>/<name>` and `<task>/<name>-<class>` as tables, for any evaluator that names its numbers so."""

from __future__ import annotations

from collections.abc import Mapping

from vertebra_eval.coco.metrics import METRIC_MEANINGS
from vertebra_eval.coco.params import TASKS
from vertebra_eval.report.blocks import Table
from vertebra_eval.report.meanings import SEGMENTATION_MEANINGS

__all__ = ["class_tables", "headline", "summary_rows"]

_HEADLINE = ("AP", "AP50", "AP75")


def summary_rows(metrics: Mapping[str, float | None]) -> dict[str, list[tuple[str, float | None, str]]]:
    """By task: (name, value, what it means) of the numbers over all classes."""
    tasks: dict[str, list[tuple[str, float | None, str]]] = {}
    for key, value in metrics.items():
        task, _, name = key.partition("/")
        if "-" not in name:
            tasks.setdefault(task, []).append((name, value, _meaning(task, name)))
    return tasks


def class_tables(metrics: Mapping[str, float | None]) -> dict[str, tuple[Table, list[str]]]:
    """By task that has numbers per class: a row per class, a column per number; and the classes without a number."""
    tasks: dict[str, dict[str, dict[str, float | None]]] = {}
    for key, value in metrics.items():
        task, _, name = key.partition("/")
        measure, dash, label = name.partition("-")
        if dash:
            tasks.setdefault(task, {}).setdefault(label, {})[measure] = value
    tables = {}
    for task, classes in tasks.items():
        columns = list(dict.fromkeys(measure for row in classes.values() for measure in row))
        without = [label for label, row in classes.items() if all(value is None for value in row.values())]
        rows = [
            [label, *(row.get(measure) for measure in columns)]
            for label, row in classes.items()
            if label not in without
        ]
        tables[task] = Table(["class", *columns], rows, bar_columns=range(1, len(columns) + 1)), without
    return tables


def headline(metrics: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    """The few numbers to show large: the AP family of each task, or each task's first three."""
    shown = []
    for task, rows in summary_rows(metrics).items():
        known = [row for row in rows if row[0] in _HEADLINE] or rows[:3]
        shown += [(f"{task} {name}", value) for name, value, _ in known]
    return shown[:9]


def _meaning(task: str, name: str) -> str:
    meanings = [SEGMENTATION_MEANINGS, METRIC_MEANINGS]
    if task.removeprefix("lvis_") in TASKS:  # mIoU of pixels is one number, of matched detections another
        meanings.reverse()
    for known in meanings:
        if name in known:
            return known[name]
    if name.startswith("AR") and name[2:].isdigit():
        count = int(name[2:])
        return f"average recall with at most {count} detection{'s' if count > 1 else ''} per image and class"
    return ""
