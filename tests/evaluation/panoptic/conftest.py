"""Panoptic files and datasets made by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vertebra.data import Dataset, Metadata

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 3, "name": "dog", "isthing": 1},
    {"id": 40, "name": "sky", "isthing": 0},
]


def write_png(ids, path):
    ids = np.asarray(ids)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)).save(path)


def write_panoptic(folder, name, images, categories=CATEGORIES):
    """images: {image id: (ids (H, W), segments_info)}; returns the JSON's path."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    annotations = []
    for image_id, (ids, segments) in images.items():
        write_png(ids, folder / name / f"{image_id}.png")
        annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments})
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"annotations": annotations, "categories": categories}))
    return path


def make_dataset(folder, images, things=("cat", "dog"), stuff=("sky",), **metadata):
    """images: {image id: (ids, segments_info of the standard dicts)}."""
    dicts = []
    for image_id, (ids, segments) in images.items():
        path = folder / f"truth_{image_id}.png"
        write_png(ids, path)
        height, width = np.shape(ids)
        dicts.append(
            {
                "image_id": image_id,
                "file_name": str(folder / f"{image_id}.jpg"),
                "height": height,
                "width": width,
                "pan_seg_file_name": str(path),
                "segments_info": segments,
            }
        )
    facts = {"thing_classes": list(things), "stuff_classes": list(stuff), **metadata}
    return Dataset(dicts, Metadata("by_hand").set(**facts))


@pytest.fixture
def panoptic():
    """The helpers of this file, for tests to use."""
    return SimpleNamespace(write=write_panoptic, dataset=make_dataset, png=write_png, categories=CATEGORIES)
