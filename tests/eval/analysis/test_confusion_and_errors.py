"""Confusion matrix and error split, on cases worked out by hand."""

import numpy as np
import pytest

from vertebra_eval.analysis import confusion_matrix, error_split, overlaps
from vertebra_eval.coco import coco_evaluate, read_ground_truth
from vertebra_eval.evaluate_results import match_results

CAT, DOG = 1, 2
BOX, FAR = (0, 0, 20, 20), (60, 60, 20, 20)
HALF = (10, 0, 20, 20)  # 200 of 600 square pixels in common with BOX: IoU 1/3


def confusion(hand, objects, detections, score=0.5):
    matches = hand.match(hand.truth(objects), hand.results(detections))
    return confusion_matrix(matches, overlaps(matches, 0.1), score=score)


def split(hand, objects, detections):
    matches = hand.match(hand.truth(objects), hand.results(detections))
    return error_split(matches, overlaps(matches, 0.1))


def test_overlaps_are_of_all_classes_within_an_image(hand):
    matches = hand.match(
        hand.truth([(1, CAT, BOX), (1, DOG, HALF), (2, CAT, BOX)]),
        hand.results([(1, CAT, BOX, 0.9), (2, DOG, FAR, 0.8)]),
    )
    pairs = overlaps(matches, 0.1)
    assert matches.category[pairs.detection].tolist() == [0, 0]  # that of image 2 is unmatched
    assert sorted(pairs.iou.tolist()) == pytest.approx([1 / 3, 1])


def test_confusion_counts_right_wrong_missed_and_background(hand):
    objects = [(1, CAT, BOX), (1, DOG, FAR), (2, CAT, BOX)]
    detections = [
        (1, DOG, BOX, 0.9),  # a cat taken for a dog
        (1, DOG, FAR, 0.8),  # right
        (1, CAT, (0, 60, 20, 20), 0.7),  # nothing there
        (2, CAT, BOX, 0.4),  # right, but below the threshold: missed
    ]
    matrix = confusion(hand, objects, detections)
    assert matrix.labels == ["cat", "dog", "background"]
    assert matrix.counts.tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert matrix.confusions(5) == [("cat", "dog", 1)]
    assert confusion(hand, objects, detections, score=0.3).counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_the_better_score_takes_the_object_and_the_larger_overlap_is_taken(hand):
    near = (2, 0, 20, 20)
    matrix = confusion(hand, [(1, CAT, BOX)], [(1, DOG, near, 0.9), (1, CAT, BOX, 0.8)])
    assert matrix.counts.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]  # the cat comes second and finds nothing
    matrix = confusion(hand, [(1, CAT, BOX), (1, DOG, near)], [(1, DOG, BOX, 0.9), (1, CAT, near, 0.8)])
    assert matrix.counts.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    matrix = confusion(hand, [(1, CAT, BOX), (1, DOG, BOX)], [(1, DOG, BOX, 0.9), (1, CAT, BOX, 0.8)])
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]  # of equal overlaps, the own class


def test_crowds_are_neither_objects_nor_background(hand):
    objects = [(1, CAT, (0, 0, 50, 50), True), (1, DOG, FAR)]
    matrix = confusion(hand, objects, [(1, CAT, BOX, 0.9), (1, CAT, (20, 0, 20, 20), 0.8), (1, DOG, BOX, 0.7)])
    assert matrix.counts.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]] and matrix.ignored == 2


def test_every_object_and_counted_detection_is_counted_once(hand):
    truth, results = hand.many(60, seed=3)
    matches = hand.match(truth, results)
    counts = confusion_matrix(matches, overlaps(matches, 0.1), score=0.0).counts
    assert counts[:-1].sum() == len(truth["annotations"]) and counts[:, :-1].sum() == len(results)
    by_class = np.bincount(matches.category)
    assert counts[:, :-1].sum(axis=0).tolist() == by_class.tolist()


@pytest.mark.parametrize(
    ("kind", "objects", "detections"),
    [
        ("localization", [(1, CAT, BOX)], [(1, CAT, HALF, 0.9)]),
        ("class", [(1, CAT, BOX), (2, DOG, BOX)], [(1, DOG, BOX, 0.9)]),
        ("both", [(1, CAT, BOX), (2, DOG, BOX)], [(1, DOG, HALF, 0.9)]),
        ("duplicate", [(1, CAT, BOX)], [(1, CAT, BOX, 0.9), (1, CAT, (1, 0, 20, 20), 0.8)]),
        ("background", [(1, CAT, BOX)], [(1, CAT, FAR, 0.9)]),
    ],
)
def test_each_kind_of_false_detection(hand, kind, objects, detections):
    found = split(hand, objects, detections)
    counts = {name: count for name, count in found.counts.items() if count and name != "missed"}
    assert counts == {kind: 1}


def test_an_object_that_a_wrong_class_or_place_points_at_is_not_missed(hand):
    assert split(hand, [(1, CAT, BOX)], [(1, CAT, HALF, 0.9)]).counts["missed"] == 0
    assert split(hand, [(1, CAT, BOX), (2, DOG, BOX)], [(1, DOG, BOX, 0.9)]).counts["missed"] == 1  # the dog
    assert split(hand, [(1, CAT, BOX)], [(1, CAT, FAR, 0.9)]).counts["missed"] == 1


def test_what_fixing_gains_by_hand(hand):
    """Two cats; the best-scored detection is misplaced, the second right: AP50 is 51 recalls at precision 1/2."""
    found = split(hand, [(1, CAT, BOX), (2, CAT, BOX)], [(1, CAT, HALF, 0.9), (2, CAT, BOX, 0.8)])
    assert found.ap50 == pytest.approx(51 / 101 / 2)
    assert found.delta_ap50["localization"] == pytest.approx(1 - 51 / 101 / 2)  # both found, nothing false
    assert {kind for kind, gain in found.delta_ap50.items() if gain} == {"localization"}


def test_fixing_a_miss_removes_the_object_and_fixing_background_the_detection(hand):
    found = split(hand, [(1, CAT, BOX), (2, CAT, BOX)], [(1, CAT, FAR, 0.9), (1, CAT, BOX, 0.8)])
    assert found.counts["background"] == 1 and found.counts["missed"] == 1
    assert found.ap50 == pytest.approx(51 / 101 / 2)
    assert found.delta_ap50["background"] == pytest.approx(51 / 101 / 2)  # precision 1 up to recall 1/2
    assert found.delta_ap50["missed"] == pytest.approx(1 / 2 - 51 / 101 / 2)  # precision 1/2 up to recall 1


def test_of_two_that_point_at_one_object_the_better_score_is_fixed_and_the_other_is_dropped(hand):
    objects = [(1, CAT, BOX), (2, CAT, BOX)]
    found = split(hand, objects, [(1, CAT, HALF, 0.9), (1, CAT, (9, 0, 20, 20), 0.7), (2, CAT, BOX, 0.8)])
    assert found.counts["localization"] == 2
    assert found.ap50 + found.delta_ap50["localization"] == pytest.approx(1)


def test_a_perfect_detector_has_no_errors_and_crowds_cause_none(hand):
    objects = [(1, CAT, BOX), (1, DOG, (0, 40, 40, 40), True), (2, DOG, FAR)]
    found = split(hand, objects, [(1, CAT, BOX, 0.9), (2, DOG, FAR, 0.8), (1, DOG, (0, 40, 20, 20), 0.7)])
    assert found.ap50 == 1 and not any(found.counts.values()) and not any(found.delta_ap50.values())


def test_without_objects_there_is_no_split(hand):
    assert split(hand, [(1, CAT, BOX, True)], [(1, CAT, FAR, 0.9)]) is None


def test_masks_are_compared_as_masks(hand):
    """A triangle fills half of its box, so a box-shaped mask overlaps it by one half, not by one."""
    truth = hand.truth([(1, CAT, (0, 0, 40, 40))])
    truth["annotations"][0] |= {"segmentation": [[0, 0, 40, 0, 0, 40]], "area": 800}
    square = {"segmentation": [[0, 0, 40, 0, 40, 40, 0, 40]]}
    results = [one | square for one in hand.results([(1, CAT, (0, 0, 40, 40), 0.9)])]
    pairs = overlaps(coco_evaluate(truth, results, "segm").result.matches, 0.1, "segm")
    assert pairs.iou[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("bbox", {"class": 83, "localization": 1, "both": 0, "duplicate": 1, "background": 0, "missed": 97}),
        ("segm", {"class": 76, "localization": 82, "both": 7, "duplicate": 0, "background": 4, "missed": 109}),
    ],
)
def test_counts_are_those_of_the_authors_tool(shared, task, expected):
    """tidecv 1.0.1 on the same files. (Its AP takes in classes that have detections but no object.)"""
    folder = shared("data/cocoeval_sample/val2014_100")
    truth = read_ground_truth(folder / "gt_instances.json", task)
    matches = match_results(folder / f"det_{task}.json", truth, task).result.matches
    assert error_split(matches, overlaps(matches, 0.1, task)).counts == expected
