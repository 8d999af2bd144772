"""Anchors for a dataset: clustering, evolving, how good they are, and the command."""

import json
from functools import partial

import numpy as np
import pytest

from vertebra.errors import DataError
from vertebra.models import ShapeSpec
from vertebra.structures import BoxMode
from vertebra_yolo import YOLOv2Head, YOLOv3Head
from vertebra_yolo.anchors import box_shapes, cluster_shapes, describe_anchors, evolve_anchors, split_levels

CENTERS = np.array([[10.0, 12.0], [40.0, 30.0], [35.0, 90.0], [120.0, 110.0]])


def make_shapes(seed=0, spread=0.05, count=60):
    rng = np.random.default_rng(seed)
    return (CENTERS[:, None] * np.exp(rng.normal(0, spread, (4, count, 2)))).reshape(-1, 2)


def coco_file(folder, shapes, size=(480, 640)):
    height, width = size
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [0, 0, w, h], "area": w * h, "iscrowd": 0}
            for i, (w, h) in enumerate(shapes, start=1)
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("seed", range(4))
def test_clear_clusters_are_found_whatever_the_start(seed):
    np.testing.assert_allclose(cluster_shapes(make_shapes(), 4, seed=seed), CENTERS, rtol=0.05)


def test_the_distance_is_iou_and_not_euclidean():
    """Large boxes differ by more pixels: by pixels, both anchors would go to them; by IoU, one serves them all."""
    small = np.array([[4.0, 4.0], [8.0, 8.0]]).repeat(10, axis=0)
    large = np.array([[150.0, 150.0], [180.0, 180.0]]).repeat(10, axis=0)
    found = cluster_shapes(np.concatenate((small, large)), 3, seed=1)
    np.testing.assert_allclose(found, [[4, 4], [8, 8], [165, 165]])


def test_the_report_worked_by_hand():
    """The anchor is 20 x 20. IoUs: 1; 200 / 400; 100 / 400; a long one shares 20 x 4 of 400 + 400 - 80."""
    shapes = np.array([[20.0, 20.0], [10.0, 20.0], [10.0, 10.0], [100.0, 4.0]])
    report = describe_anchors(shapes, np.array([[20.0, 20.0]]))
    assert report.mean_iou == pytest.approx((1 + 0.5 + 0.25 + 80 / 720) / 4)
    assert report.recall == 0.25  # 0.5 is not above 0.5
    assert report.recall_by_ratio == 0.75  # the last is 5 times wider
    assert report.boxes == 4


def test_evolving_is_never_worse_and_repeats_itself():
    shapes = make_shapes(spread=0.4)
    clustered = cluster_shapes(shapes, 4)
    evolved = evolve_anchors(shapes, clustered, generations=300, seed=3)
    assert describe_anchors(shapes, evolved).mean_iou > describe_anchors(shapes, clustered).mean_iou
    np.testing.assert_array_equal(evolved, evolve_anchors(shapes, clustered, generations=300, seed=3))
    np.testing.assert_array_equal(evolve_anchors(shapes, clustered, generations=0), clustered)


def test_shapes_are_measured_in_input_pixels():
    record = {
        "height": 480,
        "width": 640,
        "annotations": [
            {"bbox": [10, 10, 74, 58], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0},
            {"bbox": [10, 10, 32, 24], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0},
            {"bbox": [0, 0, 99, 99], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1},
            {"bbox": [5, 5, 0, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0},
        ],
    }
    assert box_shapes([record], (320, 320)).tolist() == [[32, 24], [16, 12]]
    assert box_shapes([record], (320, 320), stretch=True).tolist() == [[32, 32], [16, 16]]
    assert box_shapes([{"height": 4, "width": 4}], (320, 320)).shape == (0, 2)


def test_anchors_are_shared_out_by_growing_area():
    assert split_levels(CENTERS[::-1], 2) == [[[10, 12], [40, 30]], [[35, 90], [120, 110]]]
    with pytest.raises(ValueError, match="4 anchors are not divisible by 3 levels"):
        split_levels(CENTERS, 3)


def test_too_few_boxes_are_refused():
    with pytest.raises(DataError, match="9 anchors are wanted, but the dataset has 2 different shapes"):
        cluster_shapes(np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]]), 9)
    with pytest.raises(DataError, match="no box"):
        describe_anchors(np.zeros((0, 2)), CENTERS)


@pytest.fixture
def anchors(command_line):
    """anchors("gt.json", "--number", "4"): `vertebra yolo anchors` with these arguments."""
    return partial(command_line, "yolo", "anchors")


def test_the_command_reads_a_coco_file(anchors, tmp_path):
    path = coco_file(tmp_path, make_shapes())
    said = anchors(path, "--number", "4", "--levels", "2", "--size", "640").stdout
    assert "240 boxes at 640 pixels, 4 anchors" in said
    assert said.count("best possible recall 1.0000") == 2
    by_level = json.loads(said.rpartition("anchors: ")[2])
    np.testing.assert_allclose(np.array(by_level).reshape(4, 2), CENTERS, rtol=0.1)


def test_the_command_reads_a_recipe_and_repeats_itself(anchors, tmp_path):
    data = "data.train={format: shapes, images: 12, split: train, size: [64, 96]}"
    options = ("--number", "6", "--levels", "2", "--size", "64x96", "--set", data)
    first, second = (anchors("yolo:yolov3_tiny_shapes", *options, VERTEBRA_CACHE=tmp_path).stdout for _ in range(2))
    assert first == second
    assert len(json.loads(first.rpartition("anchors: ")[2])) == 2


def test_the_command_prints_what_each_head_takes(anchors, tmp_path):
    path = coco_file(tmp_path, make_shapes())
    options = ("--number", "4", "--size", "64x96", "--generations", "0")  # 4 is not a multiple of 3, so one level
    *_, nested, flat = anchors(path, *options).stdout.splitlines()
    [level], flat = json.loads(nested.partition(": ")[2]), json.loads(flat.rpartition(": ")[2])
    assert level == flat
    shapes = {"p5": ShapeSpec(channels=8, stride=32)}
    v2, v3 = YOLOv2Head(shapes, 2, anchors=flat), YOLOv3Head(shapes, 2, anchors=[level])
    assert v2.anchors.tolist() == v3.anchors.tolist()
    assert v2.anchors.shape == (4, 2)


@pytest.mark.parametrize("options", [["--number", "7", "--levels", "2"], ["--number", "0"], ["--levels", "0"]])
def test_the_command_refuses_numbers_that_do_not_fit_before_it_reads_anything(anchors, options):
    found = anchors("nothing.json", *options, code=2)
    assert "levels" in found.output or "number" in found.output
    assert "nothing.json" not in found.output


def test_the_command_says_what_a_size_looks_like(anchors, tmp_path):
    assert "480x640" in anchors(coco_file(tmp_path, CENTERS), "--size", "big", code=2).stderr
