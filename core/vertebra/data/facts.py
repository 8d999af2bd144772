"""What is in a dataset, counted: images, objects by class, their sizes, crowd regions, masks, keypoints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from vertebra.data.annotations import boxes_of
from vertebra.data.catalog import Metadata
from vertebra.data.extra_fields import declared_fields, reader_of
from vertebra.data.formats import Dataset
from vertebra.data.images.survey import survey_images, survey_notes
from vertebra.data.missing_classes import missing_labels, missing_objects
from vertebra.data.semantic.label_facts import count_labels, describe_labels
from vertebra_eval.area_ranges import AREA_RANGES

__all__ = ["DatasetFacts", "count_dataset", "describe_dataset"]

_SMALL, _LARGE = AREA_RANGES["medium"]  # borders between small, medium and large objects


@dataclass
class DatasetFacts:
    """Counts over a dataset. Crowd regions count as such and as nothing else."""

    images: int = 0
    empty_images: int = 0
    """Images without any object besides crowd regions."""
    first: dict[str, str] = field(default_factory=dict)
    """File of the first image that is empty, and of the first with a crowd region."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """(height, width) of each image whose dict says it."""
    objects: Counter[int] = field(default_factory=Counter)
    """Objects by class."""
    images_with: Counter[int] = field(default_factory=Counter)
    """Images by class that they show."""
    areas: list[float] = field(default_factory=list)
    """Area of each object's box in square pixels."""
    crowds: int = 0
    masks: int = 0
    keypoints: int = 0
    """Objects with at least one labeled keypoint."""


def count_dataset(dataset: Dataset) -> DatasetFacts:
    """Go through all dicts once; no image is opened."""
    facts = DatasetFacts(images=len(dataset))
    for item in dataset:
        annotations = [one for one in item.get("annotations", ()) if not one.get("iscrowd", 0)]
        facts.crowds += len(item.get("annotations", ())) - len(annotations)
        facts.empty_images += not annotations
        if not annotations:
            facts.first.setdefault("empty", item["file_name"])
        if len(annotations) < len(item.get("annotations", ())):
            facts.first.setdefault("crowd", item["file_name"])
        height, width = item.get("height", 1), item.get("width", 1)
        if "height" in item and "width" in item:
            facts.sizes.append((height, width))
        classes = [one["category_id"] for one in annotations]
        facts.objects.update(classes)
        facts.images_with.update(set(classes))
        boxes = boxes_of(annotations, height, width, item["file_name"])
        facts.areas.extend(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).tolist())
        facts.masks += sum(bool(one.get("segmentation")) for one in annotations)
        facts.keypoints += sum(any(v > 0 for v in one.get("keypoints", ())[2::3]) for one in annotations)
    return facts


def describe_dataset(dataset: Dataset) -> str:
    """The counts as text for a terminal, one fact per line and one line per class; label files are read for it, and a
    sample of the images is opened.

    At the end it warns of images that cannot be read and of classes that do not occur, and notes what is unusual.
    """
    facts, labels = count_dataset(dataset), count_labels(dataset)
    missing = [missing_objects(dataset), labels and missing_labels(labels, dataset.metadata)]
    survey = survey_images(dataset, reader=reader_of(dataset.metadata))
    opened = f"opened     {survey.opened} of {survey.images} images, {len(survey.unreadable)} of them cannot be read"
    lines = [f"dataset    {dataset.name}", opened, *_object_lines(facts, dataset.metadata, labeled=labels is not None)]
    if labels is not None:
        lines += describe_labels(labels, dataset.metadata)
    declared = declared_fields(dataset.metadata)
    lines += [f"field      {name}: {field.geometry}" for name, field in declared.items()]
    lines += survey_notes(survey)
    for one in missing:
        lines += ["", f"warning: {one.text}"] if one else []
    return "\n".join(lines)


def _object_lines(facts: DatasetFacts, metadata: Metadata, labeled: bool) -> list[str]:
    """Images and objects; of a dataset that is `labeled` and has no objects, the images alone."""
    if labeled and not facts.objects and not facts.crowds:
        return [f"images     {facts.images}", f"size       {_sizes(facts.sizes)}"]
    names = metadata.get("thing_classes") or [str(number) for number in range(max(facts.objects, default=-1) + 1)]
    total = sum(facts.objects.values())
    areas = np.array(facts.areas)
    small, large = int((areas < _SMALL).sum()), int((areas > _LARGE).sum())
    lines = [
        f"images     {facts.images} ({facts.empty_images} without objects{_first(facts, 'empty')})",
        f"size       {_sizes(facts.sizes)}",
        f"objects    {total} in {len(names)} classes, {total / max(facts.images, 1):.1f} per image",
        f"           small {small}, medium {total - small - large}, large {large} (borders 32 x 32, 96 x 96)",
        f"masks      {facts.masks}",
        f"keypoints  {facts.keypoints} objects",
        f"crowds     {facts.crowds}" + (f" ({_first(facts, 'crowd')[2:]})" if facts.crowds else ""),
    ]
    if not total:
        return lines
    wide = max(len("class"), *map(len, names))
    lines += ["", f"{'class':<{wide}}  {'objects':>8}  {'share':>6}  {'images':>7}"]
    for number, name in enumerate(names):
        count = facts.objects[number]
        lines.append(f"{name:<{wide}}  {count:>8}  {count / total:>6.1%}  {facts.images_with[number]:>7}")
    return lines


def _first(facts: DatasetFacts, kind: str) -> str:
    return f", first: {facts.first[kind]}" if kind in facts.first else ""


def _sizes(sizes: list[tuple[int, int]]) -> str:
    if not sizes:
        return "not known"
    low, high = np.min(sizes, axis=0), np.max(sizes, axis=0)
    if (low == high).all():
        return f"{low[1]} x {low[0]} pixels (width x height)"
    return f"{low[1]} to {high[1]} x {low[0]} to {high[0]} pixels (width x height)"
