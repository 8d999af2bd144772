"""Every backbone under every head, at tiny widths, by recipe alone: what builds, learns, predicts and exports.

    python tools/matrix.py [--backbones ResNet Swin] [--heads RetinaNet U-Net] [--table FILE]

Each cell loads a recipe, builds its model with random weights and takes 20 steps on one batch of generated images, and
they must lower the loss. It then predicts, writes the ONNX file of the raw form, and compares it with the model in ONNX
Runtime. The table is printed as Markdown; it ends with exit code 1 where a cell fails, and says why.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch starts its threads: tiny layers do not fill more

import torch

from vertebra import BaseModel, Recipe, build_model, load_recipe
from vertebra.data.build import build_mapper, load_dataset
from vertebra.errors import VertebraError
from vertebra.export import export_onnx

STEPS = 20
SIZE = (64, 96)
BATCH = 2
ENDS = 4
"""Losses at the start and at the end that are averaged: one may differ by the sampling of proposals."""
Block = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A backbone.

    Args:
        block: its block in a recipe, given the strides that the head wants.
        plain: all features have one stride, so that the neck makes the levels.
    """

    block: Callable[[Sequence[int]], Block]
    plain: bool = False


@dataclass(frozen=True)
class Row:
    """A head.

    Args:
        recipe: it stands in.
        output: a key of its predictions.
        strides: of the levels that it uses.
        neck: between a backbone of several strides and the head; None: nothing.
        settings: what else differs from the recipe.
        labels: of the generated images.
    """

    recipe: str
    output: str
    strides: tuple[int, ...] = (4, 8, 16, 32)
    neck: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


def _stages(name: str, prefix: str, **options: Any) -> Column:
    """A backbone of ours, whose `out_features` end with the log2 of their stride."""
    return Column(
        lambda strides: {
            "name": name,
            "out_features": [f"{prefix}{stride.bit_length() - 1}" for stride in strides],
            **options,
        }
    )


def _timm(model: str, first: int, **options: Any) -> Column:
    """A convolutional or windowed model of timm, whose feature `first` has a stride of 4."""
    return Column(
        lambda strides: {
            "name": "timm",
            "model": model,
            "out_indices": [first + stride.bit_length() - 3 for stride in strides],
            **options,
        }
    )


def _plain(model: str, **options: Any) -> Column:
    """A plain vision transformer, of which the last map is used."""
    return Column(
        lambda strides: {"name": "timm", "model": model, "out_indices": [1], "depth": 2, **options}, plain=True
    )


BACKBONES: dict[str, Column] = {
    "ResNet": _stages("ResNet", "res", depth=18, norm="bn", res5_dilation=1),
    "VGG": _stages("VGG", "pool", depth=11, batch_norm=True),
    "MobileNet": _stages("MobileNetV3", "stage", size="small", width=0.5),
    "EfficientNet": _timm("efficientnet_b0", 1),
    "ConvNeXt": _timm("convnext_atto", 0),
    "Swin": _timm("swin_tiny_patch4_window7_224", 0, depths=[1, 1, 1, 1], embed_dim=24, num_heads=[1, 2, 4, 8]),
    "DINOv2": _plain("vit_small_patch14_dinov2", patch_size=16, embed_dim=96, num_heads=3),
    "DINOv3": _plain("vit_small_patch16_dinov3", embed_dim=96, num_heads=3),
}

_PYRAMID = {"name": "FPN", "out_channels": 32, "norm": "bn"}
_RCNN = {**_PYRAMID, "top_block": "max_pool"}

HEADS: dict[str, Row] = {
    "RetinaNet": Row("retinanet:retinanet_shapes_quick", "instances", (8, 16, 32), {**_PYRAMID, "top_block": "p6p7"}),
    "YOLOv5": Row("yolo:yolov5n_shapes_quick", "instances", (8, 16, 32), {"name": "PANet", "num_blocks": 1}),
    "Faster R-CNN": Row("rcnn:faster_rcnn_shapes_quick", "instances", neck=_RCNN),
    "Mask R-CNN": Row("rcnn:mask_rcnn_shapes_quick", "instances", neck=_RCNN),
    "Keypoint R-CNN": Row("rcnn:keypoint_rcnn_shapes_quick", "instances", neck=_RCNN, labels=("keypoints",)),
    "FCN": Row("fcn:fcn_shapes_quick", "sem_seg", (8, 16, 32), labels=("semantic",)),
    "U-Net": Row("unet:unet_shapes_quick", "sem_seg", labels=("semantic",)),
    "DeepLab v3+": Row(
        "deeplab:deeplab_v3plus_shapes_quick",
        "sem_seg",
        settings={"model.heads.sem_seg.channels": 32},
        labels=("semantic",),
    ),
    "Panoptic FPN": Row(
        "configs/panoptic/shapes_panoptic_fpn_quick.yaml", "panoptic_seg", neck=_RCNN, labels=("semantic", "panoptic")
    ),
    "Panoptic-DeepLab": Row("panoptic:panoptic_deeplab_shapes_quick", "panoptic_seg", labels=("semantic", "panoptic")),
}


@dataclass
class Cell:
    """What came of one backbone under one head.

    Args:
        losses: total loss of each step.
        failed: what it did not do, and why; empty where it did all.
    """

    losses: list[float] = field(default_factory=list)
    failed: str = ""


def recipe_of(backbone: str, head: str) -> Recipe:
    """The recipe of a cell: the head's, with another backbone and what must stand between."""
    column, row = BACKBONES[backbone], HEADS[head]
    neck = dict(row.neck) if row.neck else None
    if column.plain:
        top = {key: value for key, value in (neck or {}).items() if key == "top_block"}
        scales = [16 / stride for stride in row.strides]
        neck = {"name": "SimpleFeaturePyramid", "out_channels": 32, "scale_factors": scales, **top}
    root = Path(__file__).resolve().parents[1]
    data = {"format": "shapes", "images": 8, "size": list(SIZE), "split": "train", "labels": list(row.labels)}
    return load_recipe(
        root / row.recipe if row.recipe.endswith(".yaml") else row.recipe,
        [
            {"model.backbone": column.block(row.strides), "model.neck": neck, **row.settings},
            {"data.train": data, "data.val": None, "data.train_transforms": [], "data.eval_transforms": []},
            {"evaluate.evaluators": []},
        ],
    )


def run_cell(backbone: str, head: str) -> Cell:
    """Builds, trains, predicts and exports one cell. Whatever goes wrong is in `failed`."""
    cell = Cell()
    doing = "build"
    try:
        model, inputs = _built(recipe_of(backbone, head))
        doing = "train"
        cell.losses = _trained(model, inputs)
        first, last = (sum(some) / ENDS for some in (cell.losses[:ENDS], cell.losses[-ENDS:]))
        if not last < first:
            cell.failed = f"train: the loss goes from {first:.3f} to {last:.3f}"
            return cell
        doing = "predict"
        _predict(model.eval(), inputs, HEADS[head].output)
        doing = "export"
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(model, Path(folder) / "raw.onnx", form="raw", size=SIZE)
    except (VertebraError, ValueError, RuntimeError, KeyError, TypeError) as err:
        cell.failed = f"{doing}: {type(err).__name__}: {err}"
    return cell


def _built(recipe: Recipe) -> tuple[BaseModel, list[dict[str, Any]]]:
    """The model with random weights, and one batch of its data."""
    data = load_dataset(recipe.data.train or [])
    mapper = build_mapper(recipe, data, training=True)
    torch.manual_seed(0)
    model = build_model(recipe, metadata=data.metadata, pretrained=False)
    return model, [mapper(record, index=number) for number, record in enumerate(data.dicts[:BATCH])]


def _trained(model: BaseModel, inputs: list[dict[str, Any]]) -> list[float]:
    """The loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = sum(model(inputs).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _predict(model: BaseModel, inputs: list[dict[str, Any]], key: str) -> None:
    with torch.no_grad():
        outputs = model([{"image": one["image"]} for one in inputs])
    for output in outputs:
        if key not in output:
            raise KeyError(f"the predictions have {', '.join(output)}, not {key}")


def table(cells: Mapping[tuple[str, str], Cell], backbones: Sequence[str], heads: Sequence[str]) -> str:
    """Markdown: heads down, backbones across; the loss at the end as a share of the loss at the start."""
    lines = ["| | " + " | ".join(backbones) + " |", "| --- |" + " --- |" * len(backbones)]
    for head in heads:
        shown = []
        for backbone in backbones:
            cell = cells[backbone, head]
            stage = cell.failed.split(":")[0]
            share = sum(cell.losses[-ENDS:]) / sum(cell.losses[:ENDS]) if cell.losses else 0.0
            shown.append(f"**{stage}**" if cell.failed else f"{share:.2f}")
        lines.append(f"| {head} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES), metavar="NAME")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS), metavar="NAME")
    parser.add_argument("--table", type=Path, help="write the table to this file as well")
    chosen = parser.parse_args(arguments)
    cells = {}
    began = time.process_time()
    for head in chosen.heads:
        for backbone in chosen.backbones:
            cell = cells[backbone, head] = run_cell(backbone, head)
            said = f"FAILED {cell.failed}" if cell.failed else "all"
            print(f"{head} on {backbone}: {said}", file=sys.stderr, flush=True)
    text = table(cells, chosen.backbones, chosen.heads)
    failed = sum(bool(cell.failed) for cell in cells.values())
    print(text)
    print(f"\n{len(cells) - failed} of {len(cells)} cells do all; {time.process_time() - began:.0f} CPU seconds")
    if chosen.table:
        chosen.table.write_text(text + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
