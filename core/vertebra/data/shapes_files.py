"""The files of the generated dataset `shapes`: pictures, label maps, COCO's JSON, a README."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vertebra.data.shapes_classes import KEYPOINT_NAMES, SKELETON, shape_classes
from vertebra.data.shapes_plan import MAX_IMAGES, ShapesPlan
from vertebra.data.shapes_records import (
    object_records,
    panoptic_ids,
    panoptic_segments,
    semantic_map,
    stuff_category_id,
    void_label,
)
from vertebra.data.shapes_scene import draw_scene
from vertebra.data.shapes_texture import STUFF
from vertebra.errors import DataError

__all__ = ["MANIFEST", "SPLITS", "write_dataset"]

SPLITS = ("train", "val")
MANIFEST = "shapes.json"
"""File at the top of the folder that says how it was made."""


def write_dataset(root: Path, plan: ShapesPlan, workers: int) -> None:
    """Write every file of the dataset below `root`, an empty folder. Raises OSError where that fails."""
    (root / "annotations").mkdir()
    for split, number in zip(SPLITS, (plan.images, plan.val_images), strict=True):
        for kind in ("images", "semantic", "panoptic"):
            (root / kind / split).mkdir(parents=True)
        records = list(_map(partial(_write_picture, root, split, plan), number, workers))
        _write_annotations(root / "annotations", split, records, plan.num_classes)
    (root / "README").write_text(_readme(plan), encoding="utf-8")
    (root / MANIFEST).write_text(json.dumps(plan.manifest(), indent=1) + "\n", encoding="utf-8")


def _map(function: partial, number: int, workers: int) -> Iterator[tuple]:
    """`function` of 0, 1, ... `number` - 1 in order, in this process or in several."""
    if workers == 1:
        yield from map(function, range(number))
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half alive
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield from pool.map(function, range(number), chunksize=16)
    except BrokenProcessPool as err:
        raise DataError(
            "shapes: a worker process ended early (memory, or a script without `if __name__ == '__main__':`?).\n"
            "  Its own message is above. workers=1 starts no processes."
        ) from err


def _write_picture(root: Path, split: str, plan: ShapesPlan, index: int) -> tuple[dict, list[dict], dict]:
    """Draw picture `index` and write its JPEG and PNGs; returns COCO's records of the image, objects and segments."""
    part = SPLITS.index(split)
    rng = np.random.default_rng((plan.seed, part, index))
    scene = draw_scene(rng, plan.scene, shape_classes(plan.num_classes))
    image_id = part * (MAX_IMAGES + 1) + index + 1
    name = f"{image_id:07d}"
    height, width = scene.stuff.shape
    Image.fromarray(scene.image).save(root / "images" / split / f"{name}.jpg", quality=92, subsampling=0)
    Image.fromarray(semantic_map(scene, plan.num_classes)).save(root / "semantic" / split / f"{name}.png")
    ids = panoptic_ids(scene)
    colors = np.stack((ids % 256, ids // 256 % 256, ids // 65536), axis=-1).astype(np.uint8)
    Image.fromarray(colors).save(root / "panoptic" / split / f"{name}.png")
    image = {"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width}
    segments = panoptic_segments(scene, ids, plan.num_classes)
    return (
        image,
        object_records(scene, image_id),
        {"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments},
    )


def _write_annotations(
    folder: Path, split: str, records: Iterable[tuple[dict, list[dict], dict]], num_classes: int
) -> None:
    images, objects, segments = (list(column) for column in zip(*records, strict=True))
    names = [shape.name for shape in shape_classes(num_classes)]
    things = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(names, start=1)]
    skeleton = {"keypoints": list(KEYPOINT_NAMES), "skeleton": [list(pair) for pair in SKELETON]}
    stuff = [
        {"id": stuff_category_id(row, num_classes), "name": name, "supercategory": "background", "isthing": 0}
        for row, name in enumerate(STUFF)
    ]
    with_keypoints = [annotation for of_image in objects for annotation in of_image]
    without = [
        {key: value for key, value in annotation.items() if key not in ("keypoints", "num_keypoints")}
        for annotation in with_keypoints
    ]
    head = {"info": {"description": f"shapes, generated, split {split}"}, "licenses": [], "images": images}
    for kind, found, categories in (
        ("instances", without, things),
        ("keypoints", with_keypoints, [{**category, **skeleton} for category in things]),
        ("panoptic", segments, [{**category, "isthing": 1} for category in things] + stuff),
    ):
        content = {**head, "annotations": found, "categories": categories}
        text = json.dumps(content, separators=(",", ":"))
        (folder / f"{kind}_{split}.json").write_text(text, encoding="utf-8")


def _readme(plan: ShapesPlan) -> str:
    names = [shape.name for shape in shape_classes(plan.num_classes)]
    void = void_label(plan.num_classes)
    labels = [f"{i} {name}" for i, name in enumerate([*names, *STUFF])]
    return (
        "shapes: a generated dataset in COCO's form, made by `vertebra data make-shapes`.\n\n"
        f"{plan.images} pictures in split train, {plan.val_images} in split val; seed {plan.seed}. "
        f"How it was made: {MANIFEST}.\n\n"
        "images/SPLIT/*.jpg                  RGB pictures\n"
        "annotations/instances_SPLIT.json    boxes (x, y, w, h) and masks of the visible parts; crowds\n"
        "annotations/keypoints_SPLIT.json    the same with five keypoints per object\n"
        "annotations/panoptic_SPLIT.json     segments of panoptic/SPLIT/*.png; id = R + 256 G + 65536 B, 0 is void\n"
        f"semantic/SPLIT/*.png                labels as below; {void} on crowds and on the borders between regions\n\n"
        "Labels of the semantic maps (a COCO category id is the label plus 1):\n"
        f"{chr(10).join(labels)}\n"
    )
