"""A small COCO dataset on disk, made anew for each test that asks for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
