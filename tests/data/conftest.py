"""A small COCO dataset on disk, made anew for each test that asks for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from field_samples import SQUARE
from vertebra.structures import BoxMode


@pytest.fixture
def coco_folder(tmp_path):
    """Returns a function that writes `images` (name -> (height, width)) and annotations, and gives the two paths.

    Annotations are (image number from 1, category id, box) or whole records; the record is completed.
    """

    def write(images: dict[str, tuple[int, int]], annotations: list, categories=((1, "cat"), (2, "dog")), **extra):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        records = []
        for number, (name, (height, width)) in enumerate(images.items(), start=1):
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
            records.append({"id": number, "file_name": name, "height": height, "width": width})
        full = []
        for number, item in enumerate(annotations, start=1):
            if not isinstance(item, dict):
                item = dict(zip(("image_id", "category_id", "bbox"), item, strict=True))
            full.append({"id": number, "iscrowd": 0, **item})
        named = [one if isinstance(one, dict) else {"id": one[0], "name": one[1]} for one in categories]
        data = {"images": records, "annotations": full, "categories": named}
        file = tmp_path / "data.json"
        file.write_text(json.dumps({**data, **extra}))
        return str(file), str(folder)

    return write


@pytest.fixture
def golden_data(repository: Path):
    """(arrays, tables) of Detectron2's transforms and samplers."""
    folder = repository / "tests" / "reference"
    return np.load(folder / "golden_data.npz"), json.loads((folder / "golden_data.json").read_text())


@pytest.fixture
def dicts(tmp_path):
    """Two images of 40 x 60 pixels; the first shows two objects and a crowd, the second one object."""

    def annotation(number, **more):
        fields = {"angle": [15, 15, 10, 4, 30], "ends": [10, 15, 20, 15], "part": [SQUARE], "track_id": number}
        box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        return {**box, **fields, **more}

    items = []
    for number in range(2):
        file = tmp_path / f"{number}.png"
        Image.fromarray(np.full((40, 60, 3), 50 * number, np.uint8)).save(file)
        np.save(file.with_suffix(".npy"), np.full((40, 60), 0.5 + number))
        annotations = [annotation(5 + number, head=[12, 10, 4, 4], color=[1, 2, 3])]
        if number == 0:
            annotations += [annotation(9), {**annotation(10), "iscrowd": 1, "track_id": None}]
        common = {"file_name": str(file), "height": 40, "width": 60, "image_id": number, "weather": number}
        items.append({**common, "depth": str(file.with_suffix(".npy")), "annotations": annotations})
    return items
