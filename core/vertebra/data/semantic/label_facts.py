"""Number of pixels of each class in a dataset's label files."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import chain

import numpy as np

from vertebra.data.catalog import Metadata
from vertebra.data.formats import Dataset
from vertebra.data.semantic.label_reader import LabelReader
from vertebra.errors import DataError

__all__ = ["LabelFacts", "count_labels", "describe_labels", "evenly_spaced", "look_for_labels"]

_FILES = 500  # that many say enough of a large dataset
_FILES_AT_START = 200  # before a training, which they must not delay


@dataclass
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

    @classmethod
    def of_none(cls, num_classes: int, of_files: int) -> LabelFacts:
        """Before the first file."""
        return cls(0, of_files, *np.zeros((2, num_classes + 1), np.int64))

    def add(self, labels: np.ndarray) -> None:
        """Count a file's labels, K where a pixel has no class."""
        counts = np.bincount(labels.reshape(-1), minlength=len(self.pixels))
        self.files += 1
        self.pixels += counts
        self.images += counts > 0


def evenly_spaced(number: int, limit: int) -> list[int]:
    """At most `limit` of the numbers 0 to `number` - 1, at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, min(limit, number)).round().astype(int)).tolist()


def count_labels(dataset: Dataset, limit: int = _FILES) -> LabelFacts | None:
    """Read the label files, at most `limit` at even distances; None if there are none, or the classes have no names.

    Raises:
        DataError: a file that cannot be read, or has labels that are not classes.
    """
    names = dataset.metadata.get("stuff_classes")
    if not names:
        return None
    reader = LabelReader(dataset.metadata, none=len(names))
    rows = [row for row, record in enumerate(dataset) if reader.has_labels(record)]
    facts = LabelFacts.of_none(len(names), len(rows))
    for i in evenly_spaced(len(rows), limit):
        facts.add(reader.read(dataset[rows[i]]))
    return facts if rows else None


def look_for_labels(dataset: Dataset, limit: int = _FILES_AT_START) -> LabelFacts | None:
    """Like `count_labels`, but only until each class has been seen.

    Where `limit` files show less than two classes, the others are read too until there is a second one: then it is
    certain that there is none. Files with faults are skipped, as they are the loader's to report.
    """
    names = dataset.metadata.get("stuff_classes")
    if not names:
        return None
    reader = LabelReader(dataset.metadata, none=len(names))
    facts = LabelFacts.of_none(len(names), len(dataset))
    first = evenly_spaced(len(dataset), limit)
    for looked, row in enumerate(chain(first, sorted(set(range(len(dataset))) - set(first)))):
        seen = np.count_nonzero(facts.pixels[:-1])
        if seen == len(names) or (looked >= limit and seen > 1):
            break
        record = dataset[row]
        if reader.has_labels(record):
            with contextlib.suppress(DataError):
                facts.add(reader.read(record))
    return facts if facts.files else None


def describe_labels(facts: LabelFacts, metadata: Metadata) -> list[str]:
    """The counts as lines for a terminal."""
    names = metadata.stuff_classes
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
