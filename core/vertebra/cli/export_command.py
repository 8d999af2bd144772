"""`vertebra export`: a model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vertebra.cli.options import PluginFiles, height_width, plugin_files
from vertebra.errors import ExportError

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["export"]


def export(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or `plugin:recipe`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", help="A checkpoint or weights file. Default: model.weights.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            metavar="end-to-end|raw", help="Finished detections or labels, or what the heads compute before that."
        ),
    ] = "end-to-end",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Height and width in pixels. Default: the recipe's ResizeLetterbox, or 640x640."
        ),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="The graph takes any height and width.")] = False,
    batch: Annotated[str, typer.Option(metavar="N|dynamic", help="Images in a call.")] = "1",
    pixel_range: Annotated[
        int,
        typer.Option(metavar="1|255", help="Highest value of the graph's input: pixels from 0 to 1, or to 255."),
    ] = 1,
    opset: Annotated[int, typer.Option(min=18, help="Version of ONNX's operators.")] = 18,
    check_image: Annotated[
        list[Path] | None, typer.Option("--check-image", help="A picture to compare on as well; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file where it exists.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Write a trained model as an ONNX file, and check in ONNX Runtime that it gives what the model gives."""
    from vertebra.config import load_recipe
    from vertebra.export import export_onnx

    loaded = load_recipe(recipe, overrides or (), plugin_files(context, plugin))
    report = export_onnx(
        loaded,
        output,
        weights=weights,
        form=form,
        size=height_width(size, "--size") if size else _letterbox_size(loaded) or (640, 640),
        dynamic=dynamic,
        batch=_batch(batch),
        pixel_range=pixel_range,
        opset=opset,
        check_images=check_image or (),
        force=force,
    )
    print(report)


def _batch(text: str) -> int | Literal["dynamic"]:
    if text == "dynamic":
        return "dynamic"
    if not text.isdecimal() or int(text) < 1:
        raise ExportError(f"--batch is {text!r}; expected a number of images from 1, or `dynamic`")
    return int(text)


def _letterbox_size(recipe: Recipe) -> tuple[int, int] | None:
    """(height, width) that the recipe's evaluation fits images into, where it does."""
    for spec in recipe.data.eval_transforms:
        if spec.name == "ResizeLetterbox" and spec.arguments.get("size"):
            size = spec.arguments["size"]
            return (size, size) if isinstance(size, int) else tuple(size)
    return None
