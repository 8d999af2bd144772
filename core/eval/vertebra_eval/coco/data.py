"""COCO ground truth as raw columns: `read_coco`, the one reader of training, evaluation and `data info`.

Nothing is dropped or changed here: a record that cannot be used has NaN, -1 or no mask in its row, and `findings` says
why. Only what has no records at all is refused. Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertebra_eval.coco.annotations import CocoAnnotations
from vertebra_eval.coco.images import CocoCategories, CocoImages, read_categories, read_images
from vertebra_eval.errors import DataError
from vertebra_eval.files import read_json
from vertebra_eval.findings import Finding

__all__ = ["CocoData", "distinct_names", "read_coco"]


@dataclass
class CocoData:
    """A COCO file, or the dict in it.

    Args:
        source: path, or what messages call it.
        annotated: there is a list of annotations, even an empty one.
    """

    source: str
    images: CocoImages
    categories: CocoCategories
    annotations: CocoAnnotations
    annotated: bool = True

    def findings(self) -> list[Finding]:
        """All findings, table after table."""
        self.annotations.settle()
        return [*self.categories.findings, *self.images.findings, *self.annotations.findings]

    def where(self, table: str, row: int) -> str:
        """How messages call a record: `annotations[3] (id 7, image 'a.jpg')`."""
        facts = []
        if table == "annotations":
            key, image = self.annotations.ids[row], int(self.annotations.image[row])
            facts += [f"id {key!r:.40}"] if key is not None else []
            if image >= 0:
                name = self.images.file_names[image]
                facts.append(f"image {(Path(name).name if isinstance(name, str) else self.images.ids[image])!r}")
        else:
            key = (self.images if table == "images" else self.categories).ids[row]
            facts += [f"id {key!r:.40}"] if key is not None else []
        return f"{table}[{row}]" + (f" ({', '.join(facts)})" if facts else "")

    def refuse(
        self,
        severities: Collection[str],
        kinds: Collection[str] | None = None,
        used: np.ndarray | None = None,
        tables: Sequence[str] = ("categories", "images", "annotations"),
        limit: int = 20,
    ) -> None:
        """Raises DataError with the findings of these severities and kinds (None: all), the first `limit` of them.

        Args:
            used: (A,) bool, annotations that matter. None: all.
        """
        found: list[Finding] = []
        for table in tables:
            found += getattr(self, table).findings.of(severities, kinds)
        if used is not None:
            found = [one for one in found if one.kind == "record" or used[one.rows[0]]]
        lines = [f"{self.where(one.table, one.rows[0])}: {one.text}" for one in found[:limit]]
        if len(found) == 1:
            raise DataError(f"{self.source}: {lines[0]}")
        if found:
            more = f"\n  ... and {len(found) - limit} more" if len(found) > limit else ""
            raise DataError(f"{self.source}: {len(found)} faults:\n  " + "\n  ".join(lines) + more)

    def notes(self, kinds: Collection[str], used: np.ndarray | None = None) -> list[str]:
        """Sentences on the errors and notes of some kinds, one for each kind: for a caller that goes on.

        Args:
            used: (A,) bool, annotations that matter. None: all.
        """
        sentences = []
        for part in (self.categories, self.images, self.annotations):
            errors: dict[str, list[Finding]] = {}
            for one in part.findings.of(("error", "note"), kinds):
                if used is not None and part is self.annotations:
                    one = one._replace(rows=[row for row in one.rows if used[row]])
                    if not one.rows:
                        continue
                if one.severity == "note":
                    sentences.append(self.noted(one))
                else:
                    errors.setdefault(one.kind, []).append(one)
            for first, *others in errors.values():
                more = f" (and {len(others)} more such)" if others else ""
                sentences.append(f"{self.where(first.table, first.rows[0])}: {first.text}{more}")
        return sentences

    def noted(self, one: Finding, then: str = "") -> str:
        """A note with the number of its records and the first; `then`: what becomes of them."""
        first = one.rows[0]
        if one.table == "annotations":
            image = int(self.annotations.image[first])
            key = self.images.ids[image] if image >= 0 else None
            own = self.annotations.ids[first]
            called = f"annotations[{first}]" if own is None else f"annotation {own!r}"
            called += f" of image {key!r}"
        else:
            called = self.where(one.table, first)
        return f"{one.what}{then}: {len(one.rows)} (first: {called})" + (f"; {one.remedy}" if one.remedy else "")


def read_coco(
    source: Any,
    name: str = "the ground truth",
    hint: str = "",
    keep: Collection[str] | None = (),
    keep_of_images: Collection[str] | None = (),
) -> CocoData:
    """COCO ground truth: a path, the dict in it, pycocotools' COCO, or what this returned before.

    Args:
        name: what messages call a source that is not a path.
        hint: a sentence for a file that is not there.
        keep: further keys of annotations, whose values are kept as they are written; None: all.
        keep_of_images: the same of images; None: all that COCO, LVIS and CrowdPose do not have.

    Raises:
        DataError: not there, not JSON, or not an object with lists of images and categories.
    """
    if isinstance(source, CocoData):
        return source
    data = getattr(source, "dataset", source)
    if isinstance(source, (str, os.PathLike)):
        name, data = str(source), read_json(source, hint=hint)
    _check_top_level(data, name)
    images, categories = read_images(data["images"], keep_of_images), read_categories(data["categories"])
    records = data.get("annotations", [])
    return CocoData(name, images, categories, CocoAnnotations(records, images, categories, keep), "annotations" in data)


def _check_top_level(data: Any, name: str) -> None:
    if isinstance(data, list):
        raise DataError(
            f"{name}: the root is a list, as in a file of detections; ground truth is an object with `images`, "
            "`annotations` and `categories`"
        )
    if not isinstance(data, dict):
        raise DataError(f"{name}: the root is a {type(data).__name__}, expected an object")
    for key in ("images", "categories", "annotations"):
        if key not in data and key != "annotations":
            there = ", ".join(map(str, data)) or "nothing"
            raise DataError(f'{name}: root: the key "{key}" is missing (there are: {there}); write [] for none')
        if not isinstance(data.get(key, []), list):
            raise DataError(f'{name}: root: "{key}" must be a list, not {type(data[key]).__name__}')


def distinct_names(names: Sequence[str], called: Callable[[int], Hashable]) -> list[str]:
    """Names as metrics need them: one that several classes share has an id behind it.

    Args:
        called: place of a name -> its id.
    """
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({called(place)})" for place, name in enumerate(names)]
