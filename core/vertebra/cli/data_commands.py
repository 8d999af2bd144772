"""`vertebra data make-shapes | info | show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vertebra.errors import DataError

if TYPE_CHECKING:
    from vertebra.data import Dataset

__all__ = ["app"]

app = typer.Typer(help="Make, describe and look at datasets.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A recipe, a COCO JSON file, or a folder written by `make-shapes`.")
]
Images = Annotated[Path | None, typer.Option(help="Image folder of a COCO JSON file.")]
Split = Annotated[str, typer.Option(help="Dataset split: train, val or test.")]
Layer = Literal["instances", "semantic", "panoptic"]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Recipe override, KEY=VALUE; may be repeated.")]


@app.command("make-shapes")
def make_shapes(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder; must be new or empty.")],
    images: Annotated[int, typer.Option(help="Number of training images.")] = 2000,
    val_images: Annotated[
        int | None, typer.Option(help="Number of validation images. Default: a fifth of --images.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed. The same seed gives the same files, byte for byte.")
    ] = 0,
    size: Annotated[
        str, typer.Option(help="Image size in pixels: 160, 120x160 (height x width), 128-192, or 96-128x128-192.")
    ] = "128-192",
    classes: Annotated[int, typer.Option(help="Number of classes, 1 to 7.")] = 3,
) -> None:
    """Write a generated COCO dataset: boxes, masks, keypoints, semantic and panoptic labels."""
    from vertebra.data.shapes.format import ShapesFormat

    ShapesFormat(images, val_images=val_images, seed=seed, size=size, num_classes=classes).write(directory)
    print(f"{directory}: {images} training images, seed {seed}. Look at it: vertebra data show {directory}")


@app.command("info")
def info(source: Source, images: Images = None, split: Split = "train", overrides: Overrides = None) -> None:
    """Summarize a dataset: number of images, objects per class, sizes of images and objects, crowds."""
    from vertebra.data.facts import describe_dataset

    print(describe_dataset(_open(source, images, split, overrides or ())))


@app.command("show")
def show(
    source: Source,
    images: Images = None,
    split: Split = "train",
    number: Annotated[int, typer.Option(help="Number of images.")] = 12,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Output PNG file. Default: a new file dataset.png, dataset-2.png, ..."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Labels to draw: instances, semantic or panoptic. Default: the first that the dataset has."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the choice of images.")] = 0,
    overrides: Overrides = None,
) -> None:
    """Draw images with their annotations on one sheet."""
    from vertebra.data.extra_fields import picture_reader
    from vertebra.visualize import contact_sheet, draw_dataset_dict, save_png

    path = _picture_path(output)
    dataset = _open(source, images, split, overrides or ())
    picked = _sample(len(dataset), number, seed)
    if not picked:
        raise DataError(f"{source}: there are no images to show")
    shown, read_picture = _layer(layer, dataset), picture_reader(dataset.metadata)
    drawn = [
        draw_dataset_dict(read_picture(record["file_name"]), record, dataset.metadata, layer=shown)
        for record in (dataset[i] for i in picked)
    ]
    save_png(contact_sheet(drawn), path)
    print(path)


def _layer(wanted: str | None, dataset: Dataset) -> Layer:
    """What to draw of a dataset."""
    layers: tuple[Layer, ...] = ("instances", "semantic", "panoptic")
    if wanted is not None and wanted not in layers:
        raise DataError(f"--layer is {wanted!r}, expected {', '.join(layers)}")
    if wanted is not None:
        return wanted
    if any(record.get("annotations") for record in dataset):
        return "instances"
    if "sem_seg_file_name" in dataset.fields:
        return "semantic"
    return "panoptic" if "pan_seg_file_name" in dataset.fields else "instances"


def _picture_path(output: Path | None) -> Path:
    """Where to write: `output`, which must not exist, or the first free one of dataset.png, dataset-2.png, ..."""
    if output is None:
        numbers = ("", *(f"-{n}" for n in range(2, 10000)))
        return next(path for path in (Path(f"dataset{n}.png") for n in numbers) if not path.exists())
    if output.exists():
        raise DataError(f"{output}: already exists and is not overwritten; choose another file with --output")
    if output.suffix.lower() != ".png":
        raise DataError(f"{output}: the sheet is written as PNG; choose a file name that ends in .png")
    return output


def _open(source: str, images: Path | None, split: str, overrides: Sequence[str]) -> Dataset:
    """The dataset that `source` names: a shapes folder, a COCO JSON, or a split of a recipe."""
    from vertebra.data import load_split
    from vertebra.data.coco.instances import CocoFormat
    from vertebra_eval.files.foreign_labels import foreign_labels

    path = Path(source)
    if path.is_dir():
        annotations = path / "annotations" / f"instances_{split}.json"
        if not annotations.is_file():
            expected = f"has no annotations/instances_{split}.json; name a COCO JSON file instead"
            raise DataError(f"{path}: {foreign_labels(path) or expected}")
        return CocoFormat(annotations=str(annotations), images=str(path / "images" / split)).load(None)
    if path.suffix == ".json":
        return CocoFormat(annotations=source, images=str(images or path.parent)).load(None)
    if path.is_file() and (cause := foreign_labels(path)):
        raise DataError(f"{path}: {cause}")
    from vertebra.config import load_recipe

    return load_split(load_recipe(source, overrides), split)


def _sample(total: int, number: int, seed: int) -> list[int]:
    import numpy as np

    return sorted(np.random.default_rng(seed).permutation(total)[:number].tolist())
