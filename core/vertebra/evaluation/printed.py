"""How metrics are printed: plain aligned text, the same on a terminal and in a log."""

from __future__ import annotations

from pathlib import Path

from vertebra_eval.command.metric_table import format_metrics
from vertebra_eval.files import read_json

__all__ = ["format_metrics", "print_evaluation"]

_PATHS = ("final.pth", "recipe.yaml", "report.html", "metrics.json", "pictures", "mistakes", "plots")


def print_evaluation(evaluation: Path | str, *also: Path | str) -> None:
    """Prints the table of an evaluation's `metrics.json` where there is one, and the paths of what lies there and in
    `also`. A training without a dataset to evaluate on has none."""
    evaluation = Path(evaluation)
    metrics = evaluation / "metrics.json"
    if metrics.is_file():
        content = read_json(metrics)
        print(f"\n{format_metrics(content, content.get('reasons'))}\n")
        for note in content.get("notes", ()):
            print(f"note: {note}")
    for folder in (*map(Path, also), evaluation):
        for name in _PATHS:
            path = folder / name
            if path.is_dir():
                print(f"  {name:<12} {path} ({sum(1 for _ in path.iterdir())} files)")
            elif path.is_file():
                print(f"  {name:<12} {path}")
