"""`vertebra yolo anchors | import-darknet | import-yolov5`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vertebra.data import Dataset
    from vertebra_yolo.anchors import AnchorReport

__all__ = ["app"]

app = typer.Typer(help="Commands for the YOLO detectors.", no_args_is_help=True)


@app.callback()
def yolo() -> None:
    """Commands for the YOLO detectors."""


@app.command("anchors")
def anchors(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A recipe, or a COCO JSON file.")],
    number: Annotated[int, typer.Option(min=1, help="Number of anchors.")] = 9,
    levels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of feature levels; must divide --number. Default: --number / 3, or 1 if 3 does not divide it.",
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Input size of the network in pixels: 416, or 480x640 (height x width).")
    ] = "416",
    stretch: Annotated[
        bool, typer.Option(help="Stretch images to the input size instead of fitting them into it.")
    ] = False,
    generations: Annotated[
        int, typer.Option(min=0, help="Number of random changes tried after the clustering; 0 disables them.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the clustering.")] = 0,
    split: Annotated[str, typer.Option(help="Dataset split of a recipe: train, val or test.")] = "train",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe override, KEY=VALUE; may be repeated.")
    ] = None,
) -> None:
    """Find anchors for a dataset: k-means with IoU as the distance, improved by random changes."""
    from vertebra_yolo.anchors import box_shapes, cluster_shapes, describe_anchors, evolve_anchors, split_levels

    levels = levels or (1 if number % 3 else number // 3)
    if number % levels:
        raise typer.BadParameter(f"--number {number} is not divisible by --levels {levels}")
    shapes = box_shapes(_read(data, split, overrides or ()), _height_width(size), stretch)
    found = cluster_shapes(shapes, number, seed)
    clustered = describe_anchors(shapes, found)
    print(f"{clustered.boxes} boxes at {size} pixels, {number} anchors")
    print(f"k-means:  {_line(clustered)}")
    if generations:
        found = evolve_anchors(shapes, found, generations, seed)
        print(f"evolved:  {_line(describe_anchors(shapes, found))}")
    by_level = split_levels(found, levels, digits=0 if found.min() >= 8 else 1)
    print(f"anchors: {by_level}")
    if levels == 1:
        print(f"anchors of YOLOv2Head, which always has one level: {by_level[0]}")


@app.command("import-darknet")
def import_darknet(
    cfg: Annotated[Path, typer.Option("--cfg", help="Path of the Darknet .cfg file of YOLOv2, YOLOv3 or YOLOv3-tiny.")],
    weights: Annotated[
        Path, typer.Option("--weights", help="Path of the Darknet .weights file that belongs to the .cfg.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output .pth file; the recipe is written beside it.")],
    names: Annotated[
        Path | None, typer.Option("--names", help="File of class names, one per line, such as Darknet's coco.names.")
    ] = None,
) -> None:
    """Translate a Darknet network into a recipe and its weights."""
    from vertebra_yolo.import_darknet import import_darknet as run_import

    recipe = run_import(cfg, weights, output, names)
    print(f"{output}\n{recipe}\nLook at it: vertebra predict {recipe} photo.jpg --weights {output}")


@app.command("import-yolov5")
def import_yolov5(
    weights: Annotated[
        str, typer.Option("--weights", help="YOLOv5 state dict, .pth or .safetensors; no code in it is run.")
    ],
    recipe: Annotated[str, typer.Option("--recipe", help="Recipe of the same size, such as yolo:yolov5n.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output .pth file.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file if it exists.")] = False,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Import only what fits: parameters missing from the file stay as initialized, entries of the file "
            "without a place in the model are dropped, and both are listed. Anchors missing from the file are the "
            "recipe's. The default is to refuse such a file.",
        ),
    ] = False,
) -> None:
    """Translate YOLOv5's weights into weights of a recipe's model."""
    from vertebra_yolo.v5_import import import_yolov5 as run_import

    print(run_import(weights, recipe, output, force=force, partial=partial))


def _line(report: "AnchorReport") -> str:
    return (
        f"mean IoU {report.mean_iou:.4f}, best possible recall {report.recall:.4f} (IoU above 0.5), "
        f"{report.recall_by_ratio:.4f} (within a ratio of 4)"
    )


def _read(data: str, split: str, overrides: Sequence[str]) -> "Dataset":
    """The standard dicts of a COCO JSON file, or of a split of a recipe."""
    if Path(data).suffix == ".json":
        from vertebra.data import CocoFormat

        return CocoFormat(annotations=data, images=str(Path(data).parent), missing_images="leave").load(None)
    from vertebra import load_recipe
    from vertebra.data import load_split

    return load_split(load_recipe(data, overrides), split)


def _height_width(text: str) -> tuple[int, int]:
    """`416` or `480x640`."""
    parts = text.split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"--size {text!r}: expected a size in pixels, such as 416 or 480x640 (height x width)")
    return int(parts[0]), int(parts[-1])
