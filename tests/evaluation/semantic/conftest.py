"""Semantic datasets made by hand."""

import numpy as np
import pytest
from PIL import Image

from vertebra.data import Dataset, Metadata


@pytest.fixture
def semantic_dataset(tmp_path):
    """A function: {image id: labels (H, W)}, class names -> Dataset, label files in a temporary folder."""

    def make(images, names, **metadata):
        dicts = []
        for image_id, labels in images.items():
            path = tmp_path / f"labels_{image_id}.png"
            Image.fromarray(np.asarray(labels, dtype=np.uint8)).save(path)
            dicts.append(
                {"image_id": image_id, "file_name": str(tmp_path / f"{image_id}.jpg"), "sem_seg_file_name": str(path)}
            )
        return Dataset(dicts, Metadata("by_hand").set(stuff_classes=list(names), **metadata))

    return make
