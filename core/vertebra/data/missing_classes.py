"""Classes that a dataset names but does not show, in words with the remedy: nobody can learn them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vertebra.data.catalog import Metadata
from vertebra.data.formats import Dataset
from vertebra.data.semantic.label_facts import LabelFacts
from vertebra.structures import IGNORED_LABEL
from vertebra_eval.nearest import listed

__all__ = ["Missing", "missing_labels", "missing_objects"]

_SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Missing:
    """What is missing.

    Args:
        text: what, where, and how to fix it.
        nothing: what is left cannot be told apart, so that there is nothing to learn.
    """

    text: str
    nothing: bool


def missing_objects(dataset: Dataset) -> Missing | None:
    """Classes without an object, crowd regions aside; None where each has one, or images have no annotations."""
    names = dataset.metadata.get("thing_classes") or ()
    absent, annotated = set(range(len(names))), False
    for item in dataset:
        annotated = annotated or "annotations" in item
        absent -= {one["category_id"] for one in item.get("annotations") or () if not one.get("iscrowd", 0)}
        if not absent:
            return None
    if not annotated:
        return None
    found = [name for number, name in enumerate(names) if number not in absent]
    if not found:
        return Missing(
            f"dataset {dataset.name}: none of its {len(dataset)} images has an object ({listed(names)}).\n"
            "  Check the annotations; crowd regions are not learned from",
            nothing=True,
        )
    chosen = f"[{', '.join(found)}]" if len(found) <= _SHOWN else "[...]"
    return Missing(
        f"dataset {dataset.name}: no object has the class {listed([names[number] for number in sorted(absent)])}.\n"
        f"  What is not there cannot be learned. Drop it, an unused background too: classes: {chosen} (format coco); "
        "or check the annotations",
        nothing=False,
    )


def missing_labels(facts: LabelFacts, metadata: Metadata) -> Missing | None:
    """Classes without a pixel in the label files that were read; None where each has some."""
    names = metadata.stuff_classes
    seen = [number for number in range(len(names)) if facts.pixels[number]]
    absent = [number for number in range(len(names)) if not facts.pixels[number]]
    files = f"{facts.files} label files" + (f" read, of {facts.of_files}," if facts.files < facts.of_files else "")
    if not seen:
        what = f"in the {files} every pixel is ignored: none has a class"
    elif len(names) == 1:
        what = f"{names[0]} is the only class: every pixel that counts is of it, and none is wrong"
    elif len(seen) == 1:
        share = facts.pixels[-1] / facts.pixels.sum()
        what = f"the {files} hold only one class, {names[seen[0]]}; {share:.1%} of the pixels have none"
    elif absent:
        what = f"in the {files} no pixel has the class {listed([names[number] for number in absent])}"
    else:
        return None
    return Missing(
        f"dataset {metadata.name}: {what}.\n  {_remedy(facts, metadata, seen, absent)}",
        len(seen) < 2 <= len(names) or not seen,
    )


def _remedy(facts: LabelFacts, metadata: Metadata, seen: Sequence[int], absent: Sequence[int]) -> str:
    none = metadata.get("ignore_label", IGNORED_LABEL)
    if len(metadata.stuff_classes) == 1 and seen:
        return (
            f"Name the rest as a class too, and say what the numbers in the files mean: classes: [background, "
            f"{metadata.stuff_classes[0]}], label_map: {{{none}: 0, 0: 1}}"
        )
    unused = "drop names that do not occur from the dataset's classes"
    if any(metadata.get(key) is not None for key in ("label_map", "label_colors", "panoptic_labels")):
        return f"Check what the files' values mean (label_map, colors, segments), or {unused}"
    meaning = f"{{{', '.join(f'{number}: {number}' for number in seen)}, {none}: {absent[0]}}}"
    if not facts.pixels[-1] or not seen or len(absent) > 1 or len(seen) > _SHOWN:
        meaning = "{0: 0, 255: 1}"
    what = f"The number {none} means no class. If it is one" if facts.pixels[-1] else "If the files have other numbers"
    return f"{what}, say so in the dataset's block, as label_map: {meaning}; otherwise {unused}"
