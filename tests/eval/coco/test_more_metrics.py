"""What COCO's twelve numbers do not say: other area ranges, one confidence, boundaries of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.evaluation import COCOEvaluator
from vertebra_eval import DataError
from vertebra_eval.coco import coco_evaluate, operating_point
from vertebra_eval.masks.boundary import boundary_of

IMAGES = [{"id": 1, "file_name": "a.png", "height": 200, "width": 200}]


def truth(boxes, categories=None):
    records = [
        {"id": n, "image_id": 1, "category_id": c, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
        for n, (box, c) in enumerate(zip(boxes, categories or [1] * len(boxes), strict=True), start=1)
    ]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": IMAGES, "categories": names, "annotations": records}


def found(*detections):
    return [{"image_id": 1, "category_id": c, "bbox": list(box), "score": score} for box, score, c in detections]


TINY, WIDE = (0, 0, 10, 10), (50, 50, 100, 100)


def test_area_ranges_of_ones_own_name_metrics():
    ranges = {"all": (0, 1e10), "tiny": (0, 150), "huge": (5000, 1e10)}
    numbers = coco_evaluate(truth([TINY, WIDE]), found((TINY, 0.9, 1)), area_ranges=ranges)
    assert numbers["bbox/AP_tiny"] == pytest.approx(1) and numbers["bbox/AR_tiny"] == 1
    assert numbers["bbox/AP_huge"] == 0 and "bbox/APs" not in numbers
    none = coco_evaluate(truth([TINY]), [], area_ranges=ranges)
    assert none["bbox/AP_huge"] is None
    assert none.reasons["bbox/AP_huge"] == "the ground truth has no huge objects (area above 5000 square pixels)"
    with pytest.raises(DataError, match=r"the area range '50' is .*expected a name that is not a number"):
        coco_evaluate(truth([TINY]), [], area_ranges={"all": (0, 1e10), "50": (0, 9)})


def test_recall_at_two_iou_thresholds():
    shifted = (50, 50, 100, 70)  # IoU 0.7
    numbers = coco_evaluate(truth([TINY, WIDE]), found((TINY, 0.9, 1), (shifted, 0.8, 1)))
    assert numbers["bbox/AR_50"] == 1 and numbers["bbox/AR_75"] == 0.5
    other = coco_evaluate(truth([TINY]), [], iou_thresholds=[0.6])
    assert other["bbox/AR_50"] is None and "0.5 was not among" in other.reasons["bbox/AR_50"]


def test_numbers_at_one_confidence_by_hand():
    """At 0.5: one hit of IoU 0.7 and one of 1, one false detection, one object missed."""
    detections = found((WIDE, 0.3, 2), (TINY, 0.9, 1), ((50, 50, 100, 70), 0.8, 1), ((150, 0, 9, 9), 0.6, 1))
    numbers = coco_evaluate(truth([TINY, WIDE, WIDE], [1, 1, 2]), detections, confidence=0.5)
    assert numbers["bbox/precision"] == pytest.approx(2 / 3) and numbers["bbox/recall"] == pytest.approx(2 / 3)
    assert numbers["bbox/F1"] == pytest.approx(2 / 3) and numbers["bbox/mIoU"] == pytest.approx(0.85)
    assert numbers["bbox/confidence"] == 0.5
    best = coco_evaluate(truth([TINY, WIDE, WIDE], [1, 1, 2]), detections, confidence="best")
    assert best["bbox/confidence"] == 0.3 and best["bbox/F1"] == pytest.approx(6 / 7)
    high = coco_evaluate(truth([TINY]), detections, confidence=0.95)
    assert high["bbox/precision"] is None and "no detection has a score of 0.95" in high.reasons["bbox/precision"]
    assert high["bbox/recall"] == 0 and high["bbox/mIoU"] is None
    without = coco_evaluate(truth([WIDE]), [], confidence="best")
    assert without["bbox/F1"] is None and "no detection matched an object" in without.reasons["bbox/F1"]
    assert "was not among those evaluated" in operating_point(without.result, iou=0.33)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.2, 1), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_boundary_is_what_an_erosion_takes_away(height, width, share, distance, seed):
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(seed).random((height, width)) < share
    eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance)  # the authors' tool: 3 x 3, d times
    assert np.array_equal(boundary_of(mask.astype(np.uint8), distance), mask & ~eroded)


def test_boundaries_are_stricter_than_masks_for_large_objects():
    """A square moved by 5 of 100 pixels: mask IoU 0.905; of its boundary, 6 pixels wide, much less is common."""
    square = [[50, 50, 150, 50, 150, 150, 50, 150]]
    moved = [[55, 50, 155, 50, 155, 150, 55, 150]]
    gt = truth([(50, 50, 100, 100)])
    gt["annotations"][0]["segmentation"] = square
    results = [{"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": moved}]
    by_mask, by_boundary = (coco_evaluate(gt, results, task) for task in ("segm", "boundary"))
    assert by_mask["segm/AP75"] == pytest.approx(1)
    thick = 6  # 2 % of the diagonal of 283 pixels
    ring = 100**2 - (100 - 2 * thick) ** 2
    a, b = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    a[50:150, 50:150], b[50:150, 55:155] = True, True
    a[56:144, 56:144], b[56:144, 61:149] = False, False
    assert a.sum() == b.sum() == ring
    iou = (a & b).sum() / (a | b).sum()
    hits = np.arange(0.5, 0.96, 0.05) <= iou
    assert by_boundary["boundary/AR1"] == pytest.approx(hits.mean()) and 0 < iou < 0.75
    perfect = coco_evaluate(gt, [results[0] | {"segmentation": square}], "boundary")
    assert perfect["boundary/AP"] == pytest.approx(1)


def test_an_evaluator_takes_the_task(by_hand_masks):
    dataset, output = by_hand_masks
    evaluator = COCOEvaluator(dataset, tasks=["segm", "boundary"], resamples=0)
    evaluator.process([dataset.dicts[0]], [output])
    metrics = evaluator.evaluate()
    assert metrics["boundary/AP"] == pytest.approx(1) == metrics["segm/AP"]
