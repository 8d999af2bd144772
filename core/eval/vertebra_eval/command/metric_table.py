"""Metrics as plain aligned text, the same on a terminal and in a log."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["format_metrics"]


def format_metrics(
    metrics: Mapping[str, float | None], reasons: Mapping[str, str] | None = None, *, per_class: bool = True
) -> str:
    """Metrics as text: a row per task with the summary numbers, then a row per class.

    Args:
        metrics: flat keys `<task>/<name>`, fractions, None where undefined.
        reasons: why a number is undefined, by the same keys.
        per_class: also a row for each class.
    """
    tasks: dict[str, dict[str, float | None]] = {}
    for key, value in metrics.items():
        task, _, name = key.partition("/")
        if name and (value is None or isinstance(value, (int, float))):
            tasks.setdefault(task, {})[name] = value
    lines = []
    for task, values in tasks.items():
        overall = {name: value for name, value in values.items() if "-" not in name}
        widths = [max(len(name), 6) for name in overall]
        lines.append(f"{task:<12}" + "  ".join(f"{name:>{w}}" for name, w in zip(overall, widths, strict=True)))
        lines.append(
            " " * 12 + "  ".join(f"{_number(value):>{w}}" for value, w in zip(overall.values(), widths, strict=True))
        )
        lines += _class_rows(values) if per_class else []
    reasons = reasons or {}
    undefined = [
        key for key, value in metrics.items() if value is None and key in reasons and (per_class or "-" not in key)
    ]
    for reason in dict.fromkeys(reasons[key] for key in undefined):
        keys = [key for key in undefined if reasons[key] == reason]
        lines.append(f"  - undefined: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}: {reason}")
    return "\n".join(lines)


def _class_rows(values: Mapping[str, float | None]) -> list[str]:
    """Rows for `AP-<class>` and `AP50-<class>`, one class a line."""
    classes: dict[str, dict[str, float | None]] = {}
    for name, value in values.items():
        measure, dash, label = name.partition("-")
        if dash:
            classes.setdefault(label, {})[measure] = value
    if not classes:
        return []
    width = max(len(label) for label in classes)
    return [
        f"  {label:<{width}}  " + "  ".join(f"{measure} {_number(value)}" for measure, value in row.items())
        for label, row in classes.items()
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
