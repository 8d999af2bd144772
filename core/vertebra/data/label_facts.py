"""Number of pixels of each class in a dataset's label files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vertebra.data.formats import Dataset
from vertebra.data.labels import LabelReader

__all__ = ["LabelFacts", "count_labels", "describe_labels", "evenly_spaced"]

_FILES = 500  # that many say enough of a large dataset


@dataclass(frozen=True)
class LabelFacts:
    """Counts over label files.

    Args:
        files: number of files that were read, of `of_files`.
        pixels: (K + 1,) int64, of each class, and last those without one.
        images: (K + 1,) int64, files that have any.
    """

    files: int
    of_files: int
    pixels: np.ndarray
    images: np.ndarray


def evenly_spaced(number: int, limit: int) -> list[int]:
    """At most `limit` of the numbers 0 to `number` - 1, at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, min(limit, number)).round().astype(int)).tolist()


def count_labels(dataset: Dataset, limit: int = _FILES) -> LabelFacts | None:
    """Read the label files, at most `limit` at even distances; None if there are none, or the classes have no names.

    Raises:
        DataError: a file that cannot be read, or has labels that are not classes.
    """
    names = dataset.metadata.get("stuff_classes")
    if "sem_seg_file_name" not in dataset.fields or not names:
        return None
    reader = LabelReader(dataset.metadata, none=len(names))
    rows = [row for row, record in enumerate(dataset) if record.get("sem_seg_file_name")]
    chosen = [rows[i] for i in evenly_spaced(len(rows), limit)]
    pixels, images = np.zeros((2, len(names) + 1), np.int64)
    for row in chosen:
        counts = np.bincount(reader.read(dataset[row]).reshape(-1), minlength=len(names) + 1)
        pixels += counts
        images += counts > 0
    return LabelFacts(len(chosen), len(rows), pixels, images)


def describe_labels(dataset: Dataset) -> list[str]:
    """The counts as lines for a terminal; none where there is nothing to count."""
    facts = count_labels(dataset)
    if facts is None:
        return []
    names = dataset.metadata.stuff_classes
    total, ignored = int(facts.pixels.sum()), int(facts.pixels[-1])
    some = f" (counted in {facts.files}, at even distances)" if facts.files < facts.of_files else ""
    wide = max(len("label"), *map(len, names))
    lines = [
        f"labels     {facts.of_files} files{some}, {len(names)} classes",
        f"           {ignored / max(total, 1):.1%} of the pixels have no class",
        "",
        f"{'label':<{wide}}  {'share':>6}  {'images':>7}",
    ]
    for number, name in enumerate(names):
        share = facts.pixels[number] / max(total - ignored, 1)
        lines.append(f"{name:<{wide}}  {share:>6.2%}  {facts.images[number]:>7}")
    return lines
