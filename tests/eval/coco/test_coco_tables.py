"""The evaluator's tables give the same arrays by columns as by pycocotools."""

import numpy as np
import pytest

from vertebra.errors import DataError
from vertebra.evaluation.detections import ImageKey
from vertebra.evaluation.evaluate_model import evaluate_by_pycocotools, evaluate_model
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra_eval.coco import DetectionColumns, read_coco
from vertebra_eval.masks import read_masks


def masks_of(segmentations):
    """Run lengths as a column."""
    read = read_masks(segmentations, [one["size"] for one in segmentations])
    assert not read.faults
    return read.column


def tables(coco, seed, task):
    """A generated set as the evaluator holds it: image rows, class numbers, detections as columns."""
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
    points = np.array([record.get("keypoints", []) for record in dt], dtype=float).reshape(len(dt), -1, 3)
    table = DetectionColumns(
        image=np.array([row[record["image_id"]] for record in dt], dtype=np.int64),
        boxes=boxes,
        areas=None,
        scores=np.array([record["score"] for record in dt], dtype=float),
        category=np.array([number[record["category_id"]] for record in dt], dtype=np.int64),
        masks=masks_of([record["segmentation"] for record in dt]) if task == "segm" else None,
        keypoints=points if task == "keypoints" else None,
    )
    return truth, table


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_arrays_counts_and_matches(coco, task, seed):
    truth, table = tables(coco, seed, task)
    options = {"sigmas": np.full(coco.num_keypoints, 0.3)} if task == "keypoints" else {}
    own, theirs = (run(truth, table, task, **options) for run in (evaluate_model, evaluate_by_pycocotools))
    for name in ("precision", "recall", "scores"):
        assert getattr(theirs, name) is not getattr(own, name)
        assert np.array_equal(getattr(own, name), getattr(theirs, name)), name


def test_masks_of_another_size_than_the_image_are_named(coco):
    truth, table = tables(coco, 1, "segm")
    table.masks.sizes[0] = 7
    with pytest.raises(DataError, match=r"size \[7, 7\]"):
        evaluate_model(truth, table, "segm")
