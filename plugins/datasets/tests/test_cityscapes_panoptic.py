"""Cityscapes' panoptic files: their image names say where the images lie."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra.errors import DataError
from vertebra_datasets import CityscapesPanopticFormat


@pytest.fixture
def cityscapes(tmp_path):
    """One image of Aachen: a road with a car on it."""
    stem = "aachen_000000_000019"
    labels = tmp_path / "gtFine" / "cityscapes_panoptic_val_trainId"
    images = tmp_path / "leftImg8bit" / "val" / "aachen"
    for folder in (labels, images):
        folder.mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(images / f"{stem}_leftImg8bit.png")
    ids = np.zeros((2, 4, 3), np.uint8)
    ids[:, :3, 0], ids[:, 3, :2] = 1, (88, 51)  # 13144 = 88 + 256 * 51
    Image.fromarray(ids).save(labels / f"{stem}_gtFine_panoptic.png")
    segments = [
        {"id": 1, "category_id": 0, "iscrowd": 0, "bbox": [0, 0, 3, 2], "area": 6},
        {"id": 13144, "category_id": 13, "iscrowd": 0, "bbox": [3, 0, 1, 2], "area": 2},
    ]
    content = {
        "images": [{"id": stem, "file_name": f"{stem}_gtFine_leftImg8bit.png", "height": 2, "width": 4}],
        "categories": [{"id": 0, "name": "road", "isthing": 0}, {"id": 13, "name": "car", "isthing": 1}],
        "annotations": [{"image_id": stem, "file_name": f"{stem}_gtFine_panoptic.png", "segments_info": segments}],
    }
    labels.with_suffix(".json").write_text(json.dumps(content))
    return tmp_path


def test_images_are_found_in_the_folders_of_their_cities(cityscapes):
    dataset = CityscapesPanopticFormat("val", train_ids=True).load(str(cityscapes))
    (item,) = dataset
    assert item["file_name"] == str(cityscapes / "leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png")
    assert [one["bbox"] for one in item["annotations"]] == [[3, 0, 1, 2]]
    assert (dataset.metadata.thing_classes, len(item["segments_info"])) == (["car"], 2)


def test_files_of_all_label_ids_have_another_name(cityscapes):
    with pytest.raises(DataError, match=r"cityscapes_panoptic_val\.json: no such annotation file"):
        CityscapesPanopticFormat("val").load(str(cityscapes))
