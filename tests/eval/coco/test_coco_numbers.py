"""`coco_evaluate`: names, reasons and notes of the numbers; and the matches, worked by hand."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from vertebra.errors import DataError
from vertebra_eval.coco import (
    CocoParams,
    DetectionColumns,
    GroundTruthColumns,
    coco_evaluate,
    evaluate_columns,
    read_detections,
    read_ground_truth,
)


def ground_truth(*objects, images=(1, 2), categories=(1, 2)):
    """objects: (image, category, box, extras). Images are 100 x 100."""
    records = []
    for number, (image, category, box, *extras) in enumerate(objects, start=1):
        record = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
        records.append(record | {"area": box[2] * box[3]} | (extras[0] if extras else {}))
    return {
        "images": [{"id": i, "height": 100, "width": 100} for i in images],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": records,
    }


def found(image, category, box, score):
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_one_of_two_objects_found_first():
    gt = ground_truth((1, 1, [0, 0, 10, 10]), (2, 1, [0, 0, 40, 40]))
    numbers = coco_evaluate(gt, [found(1, 1, [0, 0, 10, 10], 0.9), found(2, 1, [50, 50, 9, 9], 0.8)])
    assert numbers["bbox/AP"] == pytest.approx(51 / 101)  # precision 1 up to recall 0.5, then 0
    assert numbers["bbox/AR1"] == 0.5
    assert numbers["bbox/APs"] == pytest.approx(1.0) and numbers["bbox/APm"] == 0.0
    assert numbers["bbox/AP-class 1"] == numbers["bbox/AP"]
    assert json.loads(json.dumps(numbers)) == numbers


def test_what_is_undefined_is_none_with_its_reason():
    gt = ground_truth((1, 1, [0, 0, 10, 10]), (1, 1, [20, 20, 10, 10], {"iscrowd": 1}))
    numbers = coco_evaluate(gt, [found(1, 1, [0, 0, 10, 10], 0.9)])
    assert numbers["bbox/APl"] is None and "no large object" in numbers.reasons["bbox/APl"]
    assert numbers["bbox/AP-class 2"] is None and "class 2" in numbers.reasons["bbox/AP-class 2"]
    assert set(numbers.reasons) == {name for name, value in numbers.items() if value is None}


def test_files_dicts_pycocotools_and_columns_are_the_same_to_it(coco, tmp_path, capsys):
    gt, dt = coco.make_set(5, "segm", images=6)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(dt))
    truth = read_ground_truth(gt, "segm")
    wanted = coco_evaluate(gt, dt, "segm")
    theirs = COCO(str(tmp_path / "gt.json"))
    for pair in (
        (tmp_path / "gt.json", str(tmp_path / "dt.json")),
        (theirs, theirs.loadRes(str(tmp_path / "dt.json"))),
        (truth, read_detections(dt, truth, "segm")),
    ):
        assert np.array_equal(coco_evaluate(*pair, "segm").result.precision, wanted.result.precision)


def test_no_detection_at_all_gives_zeros_and_says_so():
    numbers = coco_evaluate(ground_truth((1, 1, [0, 0, 10, 10])), [])
    assert numbers["bbox/AP"] == 0.0
    assert any("no detection" in note for note in numbers.notes)


def test_a_dataset_without_images_objects_or_categories():
    numbers = coco_evaluate({"images": [], "categories": [], "annotations": []}, [])
    assert numbers["bbox/AP"] is None and numbers.result.precision.shape == (10, 101, 0, 4, 3)
    assert coco_evaluate(ground_truth(), [])["bbox/AP"] is None


def test_detections_choose_in_the_order_of_scores_and_a_crowd_takes_many():
    crowd = {"iscrowd": 1}
    gt = ground_truth((1, 1, [0, 0, 10, 10]), (1, 1, [50, 50, 40, 40], crowd))
    dt = [
        found(1, 1, [60, 60, 10, 10], 0.3),
        found(1, 1, [0, 0, 10, 9], 0.5),  # IoU 0.9, but later
        found(1, 1, [0, 0, 10, 8], 0.8),  # IoU 0.8
        found(1, 1, [70, 70, 10, 10], 0.2),
    ]
    result = coco_evaluate(gt, dt).result
    matches, thresholds = result.matches, result.params.iou_thresholds
    assert matches.detection.tolist() == [2, 1, 0, 3]
    at50, at85 = 0, int(np.argmin(np.abs(thresholds - 0.85)))
    assert matches.matched()[:, at50].tolist() == [0, -1, 1, 1]
    assert matches.matched()[:, at85].tolist() == [-1, 0, 1, 1]  # too small an overlap leaves it to the next
    assert matches.ignored()[:, at50].tolist() == [False, False, True, True]
    large = list(result.params.area_ranges).index("large")
    assert matches.ignored(large)[:, at50].tolist() == [True] * 4  # matched what is too small, or is itself too small


def test_of_equal_overlaps_the_later_object_is_taken():
    gt = ground_truth((1, 1, [0, 0, 10, 10]), (1, 1, [0, 0, 10, 10]))
    assert coco_evaluate(gt, [found(1, 1, [0, 0, 10, 10], 0.9)]).result.matches.matched()[0, 0] == 1


def test_a_box_meets_its_equal_at_the_threshold_1_though_their_iou_rounds_below_it(coco):
    box = [0.3, 0.1, 0.6, 0.1]
    gt, dt = ground_truth((1, 1, box)), [found(1, 1, box, 0.9)]
    tool = coco.reference(gt, dt, "bbox", iouThrs=np.array([1.0]))
    assert tool.ious[1, 1][0, 0] < 1
    result = coco_evaluate(gt, dt, iou_thresholds=[1.0]).result
    assert result.matches.matched()[0, 0] == 0
    assert np.array_equal(result.precision, tool.eval["precision"])


def test_a_match_with_the_object_of_id_0_counts_as_none(coco):
    gt = ground_truth((1, 1, [0, 0, 10, 10]))
    gt["annotations"][0]["id"] = 0
    dt = [found(1, 1, [0, 0, 10, 10], 0.9)]
    assert coco_evaluate(gt, dt)["bbox/AP"] == 0.0
    coco.assert_equal(coco.ours(gt, dt, "bbox"), coco.reference(gt, dt, "bbox"))


def test_keypoints_of_another_skeleton_get_mean_sigmas_with_a_note(coco):
    gt, dt = coco.make_set(2, "keypoints", images=5)
    numbers = coco_evaluate(gt, dt, "keypoints")
    assert any("5 keypoints" in note for note in numbers.notes)
    with pytest.raises(DataError, match="one sigma for each keypoint"):
        coco_evaluate(gt, dt, "keypoints", sigmas=[0.1] * 17)


def test_parameters_that_do_not_exist_or_cannot_be_named():
    gt = ground_truth()
    with pytest.raises(DataError, match="no parameter 'max_det'"):
        coco_evaluate(gt, [], max_det=3)
    with pytest.raises(DataError, match="area_ranges need at least one entry"):
        coco_evaluate(gt, [], area_ranges={})
    with pytest.raises(DataError, match="task is 'boxes'"):
        coco_evaluate(gt, [], "boxes")
    with pytest.raises(DataError, match="at least 1"):
        coco_evaluate(gt, [], max_dets=[0, 10])


def test_columns_of_unequal_length_or_with_numbers_out_of_range():
    def truth(**changes):
        columns = {
            "image": np.array([0]),
            "category": np.array([0]),
            "boxes": np.zeros((1, 4)),
            "areas": np.zeros(1),
            "crowd": np.zeros(1, bool),
            "ignored": np.zeros(1, bool),
            "annotation_ids": np.ones(1, np.int64),
        }
        return GroundTruthColumns(**(columns | changes), image_ids=[1], category_ids=[1], category_names=["one"])

    with pytest.raises(DataError, match="areas"):
        truth(areas=np.zeros(2))
    with pytest.raises(DataError, match="column image has the number 1"):
        truth(image=np.array([1]))
    zero = np.zeros(1, np.int64)
    nan = DetectionColumns(zero, zero, np.zeros((1, 4)), np.zeros(1), np.array([np.nan]))
    with pytest.raises(DataError, match="a score is NaN"):
        evaluate_columns(truth(), nan, "bbox")
    stranger = DetectionColumns(zero + 7, zero, np.zeros((1, 4)), np.zeros(1), np.ones(1))
    with pytest.raises(DataError, match="number 7"):
        evaluate_columns(truth(), stranger, "bbox")
    with pytest.raises(DataError, match="column of masks"):
        evaluate_columns(truth(), stranger.take(np.array([], int)), "segm", CocoParams.for_task("segm"))
