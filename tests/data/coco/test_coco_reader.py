import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from vertebra.data import CocoFormat, DatasetCatalog, MetadataCatalog, register_coco_instances
from vertebra.data.annotations import fill_sample
from vertebra.data.transforms.sample import Sample
from vertebra.errors import DataError
from vertebra.structures import BoxMode

ONE = {"a.png": (40, 60)}
SQUARE = [1, 2, 5, 2, 5, 6, 1, 6]


def load(paths, **arguments):
    return CocoFormat(*paths, **arguments).load()


def test_category_ids_of_any_kind_are_mapped_once_both_ways(coco_folder):
    paths = coco_folder(ONE, [(1, 90, [0, 0, 5, 5]), (1, 7, [1, 1, 5, 5])], categories=[(90, "cat"), (7, "dog")])
    dataset = load(paths)
    assert dataset.metadata.thing_classes == ["dog", "cat"]
    assert dataset.metadata.thing_dataset_id_to_contiguous_id == {7: 0, 90: 1}
    assert dataset.metadata.thing_contiguous_id_to_dataset_id == {0: 7, 1: 90}
    assert [item["category_id"] for item in dataset[0]["annotations"]] == [1, 0]


def test_text_ids_are_ids_too(coco_folder):
    dataset = load(coco_folder(ONE, [(1, "c", [0, 0, 5, 5])], categories=[("c", "cat"), ("b", "dog")]))
    assert dataset.metadata.thing_dataset_id_to_contiguous_id == {"b": 0, "c": 1}


def test_a_record_becomes_a_standard_dict(coco_folder):
    record = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 10.5, 4], "segmentation": [SQUARE], "iscrowd": 1}
    file, images = coco_folder(ONE, [record])
    (item,) = load((file, images))
    assert item == {
        "file_name": f"{images}/a.png",
        "height": 40,
        "width": 60,
        "image_id": 1,
        "annotations": [
            {
                "id": 1,
                "bbox": [1, 2, 10.5, 4],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": [SQUARE],
            }
        ],
    }


def test_chosen_classes_come_in_the_order_given_and_others_are_left_out(coco_folder):
    paths = coco_folder(ONE, [(1, 1, [0, 0, 5, 5]), (1, 3, [0, 0, 5, 5])], categories=[(1, "a"), (2, "b"), (3, "c")])
    dataset = load(paths, classes=["c", "b"])
    assert dataset.metadata.thing_dataset_id_to_contiguous_id == {3: 0, 2: 1}
    assert [item["category_id"] for item in dataset[0]["annotations"]] == [0]
    with pytest.raises(DataError, match=r"classes: 'bb' is not among the file's categories. Nearest: b"):
        load(paths, classes=["bb"])


def test_boxes_are_cut_at_the_border_and_left_out_beyond_it_with_a_count(coco_folder, caplog):
    boxes = [[-20, -10, 30, 30], [50, 30, 400, 400], [5, 5, 0, 4], [70, 5, 4, 4], [55, 35, 5.5, 5.5]]
    with caplog.at_level(logging.WARNING):
        (item,) = load(coco_folder(ONE, [(1, 1, box) for box in boxes]))
    assert [a["bbox"] for a in item["annotations"]] == [boxes[0], boxes[1], boxes[4]]  # as written, for evaluation
    sample = Sample(torch.zeros(3, 40, 60, dtype=torch.uint8))
    fill_sample(sample, item["annotations"], "a.png", masks=False, num_keypoints=0)
    assert sample.boxes.tolist() == [[0, 0, 10, 20], [50, 30, 60, 40], [55, 35, 60, 40]]
    assert "boxes without area, dropped: 1 (first: annotation " in caplog.text
    assert "boxes outside their image, dropped: 1" in caplog.text
    assert "by a pixel or more, cut: 2" in caplog.text  # half a pixel is not reported


def test_keypoints_move_to_pixel_centers_and_left_and_right_are_found(coco_folder):
    keypoints = {"keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[2, 1], [1, 3]]}
    record = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [3, 4, 2, 0, 0, 0, 7, 8, 1]}
    file, images = coco_folder(ONE, [record], categories=[(1, "person")])
    data = json.loads(Path(file).read_text())
    data["categories"][0].update(keypoints)
    Path(file).write_text(json.dumps(data))
    dataset = load((file, images))
    assert dataset[0]["annotations"][0]["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0, 7.5, 8.5, 1]
    assert dataset.metadata.keypoint_flip_map == [("left_eye", "right_eye")]
    assert [edge[:2] for edge in dataset.metadata.keypoint_connection_rules] == [
        ("left_eye", "nose"),
        ("nose", "right_eye"),
    ]


def test_all_faults_of_a_file_come_in_one_error(coco_folder):
    annotations = [(1, 1, [0, 0, 5]), (1, 5, [0, 0, 5, 5]), (2, 1, [0, 0, 5, 5]), (1, 1, [0, 0, 5, float("nan")])]
    with pytest.raises(DataError) as caught:
        load(coco_folder(ONE, annotations))
    text = str(caught.value)
    assert "data.json: 4 faults" in text
    assert "annotations[0] (id 1, image 'a.png'): bbox is [0, 0, 5], expected 4 numbers" in text
    assert "annotations[1] (id 2, image 'a.png'): category_id 5 is not among the categories" in text
    assert "annotations[2] (id 3): image_id 2 is not among the images" in text
    assert "annotations[3] (id 4, image 'a.png'): bbox [0, 0, 5, nan] is not finite" in text


def test_faults_beyond_the_first_twenty_are_counted(coco_folder):
    with pytest.raises(DataError, match=r"(?s)25 faults.*and 5 more"):
        load(coco_folder(ONE, [(1, 9, [0, 0, 5, 5])] * 25))


def test_missing_images_are_an_error_or_left_to_the_loader(coco_folder, tmp_path):
    paths = coco_folder({"a.png": (4, 4), "b.png": (4, 4)}, [])
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"data\.json.*b\.png: a record names it \(file_name\), but there is no such file"
    ):
        load(paths)
    assert len(load(paths, missing_images="leave")) == 2


def test_relative_paths_count_from_the_root(coco_folder, tmp_path):
    coco_folder(ONE, [])
    assert len(CocoFormat("data.json", "images").load(str(tmp_path))) == 1


def test_masks_far_out_of_the_image_are_cut_before_anything_draws_them(coco_folder):
    far = [0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9]
    record = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 60, 40], "segmentation": [far]}
    (item,) = load(coco_folder(ONE, [record]))
    points = np.array(item["annotations"][0]["segmentation"][0]).reshape(-1, 2)
    assert points.min() == 0 and points.max(axis=0).tolist() == [60, 40]


def test_run_lengths_of_the_image_pass_in_both_forms(coco_folder):
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[3:9, 10:30] = 1
    packed = coco_mask.encode(mask)
    rles = [{"size": [40, 60], "counts": [403, 6, 1991]}, {"size": [40, 60], "counts": packed["counts"].decode()}]
    records = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": rle} for rle in rles]
    (item,) = load(coco_folder(ONE, records))
    assert [a["segmentation"] for a in item["annotations"]] == [coco_text([403, 6, 1991]), rles[1]]


def coco_text(runs):
    rle = coco_mask.frPyObjects({"size": [40, 60], "counts": runs}, 40, 60)
    return {"size": [40, 60], "counts": rle["counts"].decode()}


def test_panoptic_file_gives_segments_and_stuff_classes(coco_folder, tmp_path):
    paths = coco_folder(ONE, [(1, 2, [0, 0, 5, 5])])
    segments = [{"id": 5, "category_id": 2, "iscrowd": 0}, {"id": 9, "category_id": 40, "iscrowd": 0}]
    panoptic = {
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 2, "name": "dog", "isthing": 1}, {"id": 40, "name": "sky", "isthing": 0}],
    }
    (tmp_path / "pan.json").write_text(json.dumps(panoptic))
    dataset = load(paths, panoptic=str(tmp_path / "pan.json"), panoptic_images=paths[1])
    assert dataset.metadata.stuff_classes == ["sky"]
    assert dataset[0]["pan_seg_file_name"] == f"{paths[1]}/a.png"
    assert [(s["category_id"], s["isthing"]) for s in dataset[0]["segments_info"]] == [(1, True), (0, False)]


def test_detectron2s_registration_works(coco_folder):
    register_coco_instances("test_coco_cells", {}, *coco_folder(ONE, [(1, 2, [0, 0, 5, 5])]))
    try:
        assert DatasetCatalog.get("test_coco_cells")[0]["annotations"][0]["category_id"] == 1
        assert MetadataCatalog.get("test_coco_cells").thing_classes == ["cat", "dog"]
    finally:
        DatasetCatalog.remove("test_coco_cells")
        MetadataCatalog.remove("test_coco_cells")


@pytest.mark.parametrize(
    ("file", "folder", "images", "boxes", "fields"),
    [
        ("bccd/train.json", "bccd/images", 205, 2804, set()),
        ("bccd/dirty.json", "bccd/images", 10, 148, set()),
        ("nuclei/val.json", "nuclei/images", 40, 1311, {"segmentation"}),
        ("nuclei/val_polygons.json", "nuclei/images", 40, 1311, {"segmentation"}),
        ("coco_mini/instances_train.json", "coco_mini/images", 26, 333, {"segmentation"}),
        ("coco_mini/person_keypoints_val.json", "coco_mini/images", 25, 44, {"segmentation", "keypoints"}),
    ],
)
def test_real_datasets_are_read_whole(shared, file, folder, images, boxes, fields):
    dataset = CocoFormat(file, folder).load(str(shared("data")))
    assert len(dataset) == images
    assert sum(len(item["annotations"]) for item in dataset) == boxes
    assert dataset.fields == fields
