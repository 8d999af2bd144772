"""`vertebra predict`: a trained model on pictures, videos and cameras."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebra.cli.options import PluginFiles, height_width, plugin_files
from vertebra.errors import RecipeError

if TYPE_CHECKING:
    from vertebra.data.transforms import Transform

__all__ = ["predict"]

_MOST_LISTED = 20


def predict(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or `plugin:recipe`.")],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Image and video files, folders of them, quoted patterns ('data/**/*.jpg'), a camera number, or - "
            "to read names from standard input.",
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="Checkpoint or weights file. Default: the recipe's model.weights."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Output directory. Default: a new directory predictions, predictions-2, ..."
        ),
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT",
            help="Comma-separated list of pictures (also videos), coco, yolo, csv, labels, panoptic, arrays; or none. "
            "Default: pictures, plus coco, labels, panoptic or arrays depending on the model's outputs.",
        ),
    ] = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Minimum score of the detections to draw and write.")
    ] = 0.5,
    nms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="IoU threshold of NMS: of two boxes that overlap more than this, the one with the lower score "
            "is dropped.",
        ),
    ] = None,
    class_agnostic: Annotated[
        bool | None,
        typer.Option("--class-agnostic/--per-class", help="Whether NMS compares boxes of different classes."),
    ] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="Maximum number of detections per image.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Keep only this class, by name or number; may be repeated.")
    ] = None,
    letterbox: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Resize images to fit into this size, and pad; replaces the recipe's transforms."
        ),
    ] = None,
    stretch: Annotated[
        str | None, typer.Option(metavar="HxW", help="Stretch images to this size; replaces the recipe's transforms.")
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=VALUE",
            help="What the model takes beside images, as YAML: --input 'text=[cat, dog]'. Of further images, where "
            "they lie, seen from each image: --input 'image_b={stem}_b{suffix}'. May be repeated.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1 << 17, help="Batch size.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many images or frames.")] = None,
    device: Annotated[
        str, typer.Option(help="Device: cpu, cuda, cuda:1, ...; auto uses a GPU if there is one.")
    ] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe override, KEY=VALUE; may be repeated.")
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Predict on images, videos or a camera; write drawn pictures, COCO JSON, YOLO text, CSV or label maps.

    Prints images per second and the time of each stage.
    """
    from vertebra.config import load_recipe
    from vertebra.predictor import predict_files
    from vertebra.runtime.folders import new_folder

    loaded = load_recipe(recipe, set_ or (), plugin_files(context, plugin))
    listing = _Listing()
    with contextlib.nullcontext(output) if output else new_folder("predictions") as folder:
        written = predict_files(
            loaded,
            source,
            output=folder,
            weights=weights,
            score=score,
            classes=classes,
            save=_formats(save),
            batch_size=batch,
            max_images=limit,
            on_written=listing,
            device=device,
            transforms=_transforms(letterbox, stretch),
            nms_threshold=nms,
            class_agnostic_nms=class_agnostic,
            max_detections=max_detections,
            inputs=_inputs(input_ or ()),
        )
    listing.end()
    results = [path for path in written.files if path.suffix not in (".png", ".mp4")]
    places = ", ".join(map(str, results or [written.output] if written.files else ["nothing written"]))
    detections = "" if written.num_detections is None else f", {written.num_detections} detections from score {score:g}"
    print(f"{written.num_images} images{detections}: {places}")
    print(written.times)


class _Listing:
    """Prints the first pictures' paths, and the number of the others."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path) -> None:
        self.count += 1
        if self.count <= _MOST_LISTED:
            print(path, flush=True)

    def end(self) -> None:
        if self.count > _MOST_LISTED:
            print(f"... and {self.count - _MOST_LISTED} more")


def _formats(save: list[str] | None) -> list[str] | None:
    if save is None:
        return None
    names = [name.strip() for item in save for name in item.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _inputs(written: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as plain values by name."""
    from vertebra.config.yaml_reader import parse_yaml

    found = {}
    for text in written:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise RecipeError(f"--input {text!r}: expected NAME=VALUE, for example --input 'text=[cat, dog]'")
        key = name.strip()
        if key in found:
            raise RecipeError(f"--input {key} is given twice; several values are a list: {key}=[a, b]")
        if value.lstrip().startswith(("{stem}", "{suffix}")):  # part of a file's name, not a mapping of YAML
            found[key] = value.strip()
        else:
            found[key] = parse_yaml(value, f"--input {key}", Path.cwd(), lines=False).plain()
    return found


def _transforms(letterbox: str | None, stretch: str | None) -> list[Transform] | None:
    """What replaces the recipe's `eval_transforms`, or None."""
    from vertebra.data.transforms import ResizeLetterbox, ResizeStretch

    if letterbox and stretch:
        raise RecipeError("--letterbox and --stretch cannot be combined: choose one")
    if letterbox:
        return [ResizeLetterbox(list(height_width(letterbox, "--letterbox")))]
    return [ResizeStretch(list(height_width(stretch, "--stretch")))] if stretch else None
