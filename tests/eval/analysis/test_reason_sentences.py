"""Each cause of a meaningless number has its sentence, and sound data has none."""

import numpy as np
import pytest

from vertebra_eval.coco import coco_evaluate
from vertebra_eval.coco.reasons import (
    boxes_look_like_xywh,
    boxes_look_like_xyxy,
    classes_without_detections,
    equal_scores,
    ids_apart,
    no_detection_from,
)

XYWH = np.array([[60, 60, 30, 30], [70, 10, 20, 40], [5, 5, 10, 10], [50, 80, 20, 10], [80, 50, 15, 20], [0, 0, 9, 9]])
XYXY = np.concatenate([XYWH[:, :2], XYWH[:, :2] + XYWH[:, 2:]], axis=1)
SIZES = np.full((6, 2), 100.0)


def test_no_ground_truth_in_a_range_names_the_range(hand):
    numbers = coco_evaluate(hand.truth([(1, 1, (0, 0, 20, 20))]), hand.results([(1, 1, (0, 0, 20, 20), 0.9)]), "bbox")
    assert numbers["bbox/APl"] is None
    assert numbers.reasons["bbox/APl"] == "the ground truth has no large objects (area above 9216 square pixels)"
    assert "of class dog" in numbers.reasons["bbox/AP-dog"]


def test_no_detection_from_a_score_on():
    assert no_detection_from(np.array([0.2, 0.3]), 0.5) == (
        "no detection has a score of 0.5 or above; the highest of 2 is 0.3"
    )
    assert no_detection_from(np.zeros(0), 0.5) == "there are no detections at all"
    assert no_detection_from(np.array([0.5]), 0.5) is None


def test_classes_that_have_objects_but_no_detection_are_named():
    text = classes_without_detections(np.array([3, 2, 0]), np.array([5, 0, 0]), ["cat", "dog", "owl"])
    assert "no detection of 1 of the classes" in text and text.endswith("(2 missed): dog")
    assert classes_without_detections(np.array([3, 2]), np.array([5, 1]), ["cat", "dog"]) is None
    assert classes_without_detections(np.array([3, 2]), np.array([0, 0]), ["cat", "dog"]) is None  # told elsewhere


def test_equal_scores_are_told():
    assert "all 6 detections have the score 1" in equal_scores(np.ones(6))
    assert equal_scores(np.array([1, 1, 1, 1, 0.9])) is None
    assert equal_scores(np.ones(2)) is None  # two may well be equal


def test_corners_where_sizes_are_expected_are_told():
    assert "look like x0, y0, x1, y1" in boxes_look_like_xyxy(XYXY, SIZES)
    assert boxes_look_like_xyxy(XYWH, SIZES) is None
    assert boxes_look_like_xyxy(XYXY, np.full((6, 2), np.nan)) is None  # sizes of the images are not known
    assert boxes_look_like_xyxy(XYXY[:3], SIZES[:3]) is None  # too few to tell


def test_sizes_where_corners_are_expected_are_told():
    assert "look like x, y, width, height" in boxes_look_like_xywh(XYWH, SIZES)
    assert boxes_look_like_xywh(XYXY, SIZES) is None


@pytest.mark.parametrize(
    ("what", "given", "known", "words"),
    [
        ("image", ["1", "2"], [1, 2, 3], "text and numbers"),
        ("category", [0, 1, 2], [1, 2, 3], "class numbers from 0"),
        ("image", [7, 8], [1, 2], "none of the image ids"),
    ],
)
def test_ids_that_do_not_meet_have_a_likely_cause(what, given, known, words):
    assert words in ids_apart(what, given, known)


def test_ids_that_meet_or_nearly_do_have_no_cause():
    assert ids_apart("image", [1, 2], [1, 2, 3]) is None
    assert ids_apart("image", [1, 2, 9], [1, 2, 3]) is None
