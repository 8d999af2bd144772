"""`vertebra predict`: a trained model on pictures, videos and cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vertebra.cli.options import PluginFiles, height_width, plugin_files
from vertebra.cli.runs import free_folder
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
            help="Image and video files, folders of images, quoted patterns ('data/**/*.jpg'), a camera's number, or - "
            "for names on standard input.",
        ),
    ],
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", help="A checkpoint or weights file. Default: model.weights.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="For all that is written. Default: predictions, then -2, ...")
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT",
            help="pictures (videos too), coco, yolo, csv, labels, panoptic, or none; several with commas. Default: "
            "pictures, and coco, labels or panoptic, whichever the model's outputs fill.",
        ),
    ] = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Draw and write detections from this score on.")] = 0.5,
    nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of two boxes that overlap by a greater IoU, the worse one goes.")
    ] = None,
    class_agnostic: Annotated[
        bool | None,
        typer.Option("--class-agnostic/--per-class", help="Whether boxes of different classes suppress each other."),
    ] = None,
    max_detections: Annotated[int | None, typer.Option(min=1, help="Kept in an image.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class, by name or number; may be repeated.")
    ] = None,
    letterbox: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Fit images into this size and pad the rest, instead of the recipe's transforms."
        ),
    ] = None,
    stretch: Annotated[
        str | None, typer.Option(metavar="HxW", help="Stretch images to this size, instead of the recipe's transforms.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the model together.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many images and frames.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Recipe overrides, KEY=VALUE.")] = None,
    plugin: PluginFiles = None,
) -> None:
    """Predict on pictures, videos or a camera: drawn, and as COCO JSON, YOLO text, CSV or label maps.

    Prints images a second and how long each stage takes.
    """
    from vertebra.config import load_recipe
    from vertebra.predictor import predict_files

    loaded = load_recipe(recipe, set_ or (), plugin_files(context, plugin))
    listing = _Listing()
    written = predict_files(
        loaded,
        source,
        output=output or free_folder(Path(), "predictions"),
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
    )
    listing.end()
    results = [path for path in written.files if path.suffix not in (".png", ".mp4")]
    places = ", ".join(map(str, results or [written.output] if written.files else ["nothing written"]))
    detections = "" if written.num_detections is None else f", {written.num_detections} detections from score {score:g}"
    print(f"{written.num_images} images{detections}: {places}")
    print(written.times)


class _Listing:
    """Prints the first pictures' paths, and how many more there are."""

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


def _transforms(letterbox: str | None, stretch: str | None) -> list[Transform] | None:
    """What replaces the recipe's `eval_transforms`, or None."""
    from vertebra.data.transforms import ResizeLetterbox, ResizeStretch

    if letterbox and stretch:
        raise RecipeError("--letterbox and --stretch exclude each other: an image is fitted in, or stretched")
    if letterbox:
        return [ResizeLetterbox(list(height_width(letterbox, "--letterbox")))]
    return [ResizeStretch(list(height_width(stretch, "--stretch")))] if stretch else None
