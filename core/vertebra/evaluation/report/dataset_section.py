"""What the report shows of the data: images and their sizes, objects by class and by size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vertebra.data.facts import DatasetFacts, count_dataset
from vertebra.data.formats import Dataset
from vertebra.errors import DataError
from vertebra_eval.area_ranges import AREA_RANGES
from vertebra_eval.report.blocks import Facts, Section, Table, Text
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.plot_style import BLUE, INK, new_axes, plot_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["dataset_sections", "size_histogram"]

_BORDERS = [AREA_RANGES["small"][1], AREA_RANGES["large"][0]]  # square pixels


def dataset_sections(dataset: Any, folder: Path) -> list[Section]:
    """Facts of a dataset with `.dicts` and `.metadata`; the plot goes to `folder`. No image is opened."""
    try:
        if not isinstance(dataset, Dataset):
            dataset = Dataset(dataset.dicts, dataset.metadata)
        facts = count_dataset(dataset)
    except DataError as err:
        return [Section("Dataset", [Text(f"The dataset cannot be counted: {err}")])]
    total = sum(facts.objects.values())
    blocks: list = []
    caption = "Objects by size: the square root of the area of their boxes, on a log scale."
    plot = size_histogram(np.sqrt(np.array(facts.areas)))
    blocks += write_plots([("dataset_sizes", plot, caption)], folder, facts_beside=True)
    counts = _counts(facts, total)
    if "sem_seg_file_name" in dataset.fields and not facts.objects:
        del counts["objects"]  # what it has are labeled pixels
    blocks.append(Facts(counts))
    if total:
        names = dataset.metadata.get("thing_classes") or [str(k) for k in range(max(facts.objects) + 1)]
        rows = [
            [name, facts.objects[number], facts.objects[number] / total, facts.images_with[number]]
            for number, name in enumerate(names)
        ]
        blocks.append(Table(["class", "objects", "share", "images"], rows, bar_columns=(2,)))
    return [Section("Dataset", blocks)]


def size_histogram(sides: np.ndarray) -> Figure | None:
    """Objects by side length in pixels, with COCO's borders between small, medium and large. None without objects."""
    sides = sides[sides > 0]
    if not len(sides):
        return None
    bins = np.geomspace(sides.min() * 0.95, max(sides.max(), sides.min() * 1.1) * 1.05, 41)
    with plot_style():
        figure, axes = new_axes(2.8)
        axes.hist(sides, bins=bins.tolist(), color=BLUE, alpha=0.8, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        for border in np.sqrt(_BORDERS):
            axes.axvline(border, color=INK, linestyle="--", linewidth=1)
        axes.set(xlabel="pixels; dashed: 32 and 96", ylabel="objects", title="Sizes of the objects")
        axes.grid(True, axis="y")
    return figure


def _counts(facts: DatasetFacts, total: int) -> dict[str, str]:
    rows = {"images": f"{facts.images:,}", "image size": _extent(facts.sizes)}
    if not total:
        return rows | {"objects": f"none, {facts.crowds:,} crowd regions" if facts.crowds else "none"}
    small, large = (int(count) for count in _outside(np.array(facts.areas)))
    sizes = (("small", small), ("medium", total - small - large), ("large", large))
    rows["images without objects"] = f"{facts.empty_images:,}"
    rows["objects"] = f"{total:,}, {total / max(facts.images, 1):.1f} per image"
    rows["by size"] = ", ".join(f"{count:,} {name} ({count / max(total, 1):.0%})" for name, count in sizes)
    rows["crowd regions"] = f"{facts.crowds:,}"
    for name, count in (("objects with a mask", facts.masks), ("objects with keypoints", facts.keypoints)):
        if count:
            rows[name] = f"{count:,}"
    return rows


def _outside(areas: np.ndarray) -> tuple[int, int]:
    """Number of small and of large areas."""
    return (areas < _BORDERS[0]).sum(), (areas > _BORDERS[1]).sum()


def _extent(sizes: list[tuple[int, int]]) -> str:
    """Range and median of (height, width), as width x height."""
    if not sizes:
        return "not known"
    (h0, w0), (h1, w1) = np.min(sizes, axis=0), np.max(sizes, axis=0)
    if (h0, w0) == (h1, w1):
        return f"{w0} x {h0} pixels"
    h, w = np.median(sizes, axis=0)
    return f"{w0} to {w1} x {h0} to {h1} pixels, median {w:.0f} x {h:.0f}"
