"""The evaluator's tables give the same arrays by columns as by pycocotools."""

import numpy as np
import pytest

from vertebra.errors import DataError
from vertebra.evaluation.coco_columns import evaluate_tables
from vertebra.evaluation.detections import DetectionTable, ImageKey
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.pycoco import run_pycocotools
from vertebra_eval.coco import read_coco
from vertebra_eval.masks import read_masks


def masks_of(segmentations):
    """Run lengths as a column."""
    read = read_masks(segmentations, [one["size"] for one in segmentations])
    assert not read.faults
    return read.column


def tables(coco, seed, task):
    """A generated set as the evaluator holds it: image rows, class numbers, boxes xyxy, keypoints in coordinates."""
    gt, dt = coco.make_set(seed, task, images=5, categories=3, first_id=1)
    row = {image["id"]: number for number, image in enumerate(gt["images"])}
    number = {category["id"]: k for k, category in enumerate(gt["categories"])}
    truth = GroundTruth(
        keys=[ImageKey(i, None) for i in row],
        image_ids=list(row),
        sizes=[(image["height"], image["width"]) for image in gt["images"]],
        class_names=[category["name"] for category in gt["categories"]],
        category_ids=list(number),
        data=read_coco(gt),
        numbers=number,
    )
    dt.sort(key=lambda record: row[record["image_id"]])
    boxes = np.array([record.get("bbox", [0, 0, 5, 5]) for record in dt], dtype=float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    points = np.array([record.get("keypoints", []) for record in dt], dtype=float).reshape(len(dt), -1, 3)
    table = DetectionTable(
        image=np.array([row[record["image_id"]] for record in dt], dtype=np.int64),
        boxes=boxes,
        scores=np.array([record["score"] for record in dt], dtype=float),
        classes=np.array([number[record["category_id"]] for record in dt], dtype=np.int64),
        masks=masks_of([record["segmentation"] for record in dt]) if task == "segm" else None,
        keypoints=points + np.array([0.5, 0.5, 0.0]) if task == "keypoints" else None,
    )
    return truth, table


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_arrays_counts_and_matches(coco, task, seed):
    truth, table = tables(coco, seed, task)
    options = {"sigmas": np.full(coco.num_keypoints, 0.3)} if task == "keypoints" else {}
    own, theirs = (run(truth, table, task, **options) for run in (evaluate_tables, run_pycocotools))
    for name in ("precision", "recall", "scores", "num_truth", "num_crowd", "num_detections", "iou_thresholds"):
        assert np.array_equal(getattr(own, name), getattr(theirs, name)), name
    assert (own.areas, list(own.max_dets)) == (theirs.areas, list(theirs.max_dets))
    for names in (
        ("detection_image", "detection_class", "detection_score", "detection_state"),
        ("truth_image", "truth_class", "truth_score"),
    ):
        columns = [np.stack([getattr(arrays.matches, name) for name in names]) for arrays in (own, theirs)]
        assert np.array_equal(*(column[:, np.lexsort(column)] for column in columns), equal_nan=True)  # in any order


def test_masks_of_another_size_than_the_image_are_named(coco):
    truth, table = tables(coco, 1, "segm")
    table.masks.sizes[0] = 7
    with pytest.raises(DataError, match=r"size \[7, 7\]"):
        evaluate_tables(truth, table, "segm")
