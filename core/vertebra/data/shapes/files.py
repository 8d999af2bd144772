"""The files of the generated dataset `shapes`: pictures, label maps, COCO's JSON.

    images/{train,val}/*.jpg            pictures
    annotations/instances_*.json        boxes, masks (polygons and run lengths), crowds
    annotations/keypoints_*.json        the same with five keypoints per object
    annotations/panoptic_*.json         with panoptic/{train,val}/*.png
    semantic/{train,val}/*.png          class indices, 255 where a pixel has none
    shapes.json                         the options

Picture i of a split depends on the seed, the split, i and the options of the scenes alone, not on how many there are.
An extension may add files beside the pictures, and keys to the records of images and annotations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.data.shapes.coco_truth import object_records, panoptic_ids, panoptic_segments, semantic_map
from vertebra.data.shapes.options import MAX_IMAGES, ShapesOptions
from vertebra.data.shapes.outlines import KEYPOINT_NAMES, KINDS, SKELETON
from vertebra.data.shapes.scene import Scene, draw_scene
from vertebra.data.shapes.texture import STUFF

__all__ = ["MANIFEST", "Extension", "write_dataset"]

Extension = Callable[[Path, dict[str, Any], list[dict[str, Any]], Scene, np.random.Generator], None]
"""Called for each picture with its folder, the records of the image and its annotations, the scene, a generator."""

MANIFEST = "shapes.json"
"""File at the top of the folder that says how it was made; written last."""


def write_dataset(
    root: Path, options: ShapesOptions, extend: Extension | None = None, manifest: dict[str, Any] | None = None
) -> None:
    """Write every file of the dataset below `root`, an empty folder. Raises OSError where that fails.

    Args:
        manifest: what the manifest says; None: the options.
    """
    (root / "annotations").mkdir()
    for part, (split, number) in enumerate((("train", options.images), ("val", options.val_images))):
        for kind in ("images", "semantic", "panoptic"):
            (root / kind / split).mkdir(parents=True)
        records = [_write_picture(root, split, part, options, index, extend) for index in range(number)]
        _write_annotations(root / "annotations", split, records, options.num_classes)
    (root / MANIFEST).write_text(json.dumps(manifest or options.manifest(), indent=1) + "\n", encoding="utf-8")


def _write_picture(
    root: Path, split: str, part: int, options: ShapesOptions, index: int, extend: Extension | None
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Draw picture `index` and write its JPEG and PNGs; returns COCO's records of the image, objects and segments."""
    seed = (options.seed, part, index)
    scene = draw_scene(np.random.default_rng(seed), options)
    image_id = part * (MAX_IMAGES + 1) + index + 1
    name = f"{image_id:07d}"
    height, width = scene.stuff.shape
    Image.fromarray(scene.image).save(root / "images" / split / f"{name}.jpg", quality=92, subsampling=0)
    Image.fromarray(semantic_map(scene, options.num_classes)).save(root / "semantic" / split / f"{name}.png")
    ids = panoptic_ids(scene)
    colors = np.stack((ids % 256, ids // 256 % 256, ids // 65536), axis=-1).astype(np.uint8)
    Image.fromarray(colors).save(root / "panoptic" / split / f"{name}.png")
    segments = panoptic_segments(scene, ids, options.num_classes)
    record = {"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width}
    objects = object_records(scene, image_id)
    if extend is not None:
        extend(root / "images" / split, record, objects, scene, np.random.default_rng((*seed, 1)))
    return (
        record,
        objects,
        {"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments},
    )


def _write_annotations(folder: Path, split: str, records: list[tuple[Any, Any, Any]], num_classes: int) -> None:
    images, objects, segments = (list(column) for column in zip(*records, strict=True))
    things = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(KINDS[:num_classes], start=1)]
    skeleton = {"keypoints": list(KEYPOINT_NAMES), "skeleton": [list(pair) for pair in SKELETON]}
    stuff = [
        {"id": num_classes + i, "name": name, "supercategory": "background", "isthing": 0}
        for i, name in enumerate(STUFF, start=1)
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
        (folder / f"{kind}_{split}.json").write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
