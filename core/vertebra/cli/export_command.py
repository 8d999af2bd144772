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
    output: Annotated[Path, typer.Option("--output", "-o", help="Output .onnx file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="Checkpoint or weights file. Default: the recipe's model.weights."),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            metavar="end-to-end|raw",
            help="What the graph returns: final predictions (end-to-end) or the heads' raw outputs (raw).",
        ),
    ] = "end-to-end",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Height and width in pixels. Default: the recipe's ResizeLetterbox, or 640x640."
        ),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Accept any height and width.")] = False,
    batch: Annotated[str, typer.Option(metavar="N|dynamic", help="Batch size of the exported graph.")] = "1",
    pixel_range: Annotated[
        int,
        typer.Option(metavar="1|255", help="Largest pixel value of the graph's input: 1 or 255."),
    ] = 1,
    opset: Annotated[int, typer.Option(min=18, help="Version of the ONNX operators.")] = 18,
    check_image: Annotated[
        list[Path] | None, typer.Option("--check-image", help="Additional image to compare on; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file if it exists.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Write a trained model as an ONNX file, and check in ONNX Runtime that its outputs are the model's."""
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
