"""COCO's average precision from overlaps: worked by hand, and compared with that of boxes."""

import numpy as np
import pytest

from vertebra_eval import coco_evaluate
from vertebra_eval.coco.overlap import box_overlaps
from vertebra_eval.overlap_ap import average_precision, match_by_overlap


def test_a_detection_takes_the_best_object_that_no_better_one_has_taken():
    overlap = np.array([[0.9, 0.6], [0.8, 0.4], [0.7, 0.55], [0.0, 0.0]])
    right, ignored = match_by_overlap(overlap, [False, False], [0.5, 0.85])
    assert right.tolist() == [[True, False, True, False], [True, False, False, False]]
    assert not ignored.any()


def test_what_lies_in_a_crowd_is_ignored_unless_it_is_right():
    overlap = np.array([[0.9, 1.0], [0.0, 1.0], [0.0, 0.4]])
    right, ignored = match_by_overlap(overlap, [False, True], [0.5])
    assert right.tolist() == [[True, False, False]] and ignored.tolist() == [[False, True, False]]


@pytest.mark.parametrize(("detections", "objects"), [(0, 0), (0, 2), (2, 0)])
def test_nothing_to_match(detections, objects):
    right, ignored = match_by_overlap(np.zeros((detections, objects)), np.zeros(objects, bool))
    assert right.shape == ignored.shape == (10, detections) and not right.any() and not ignored.any()
    ap = average_precision(np.zeros(detections), right, ignored, 1)
    assert ap.tolist() == [0.0] * 10


def test_precision_at_a_recall_is_the_best_at_it_or_beyond():
    right = np.array([[True, False, True]])  # precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2
    ap = average_precision([0.7, 0.6, 0.5], right, np.zeros((1, 3), bool), 4)
    assert ap[0] == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)  # recalls 0 to 0.25, 0.26 to 0.5, and nothing beyond
    without = average_precision([0.7, 0.6, 0.5], right, np.array([[False, True, False]]), 4)
    assert without[0] == pytest.approx(51 / 101)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_cocos_ap_of_boxes(seed):
    rng = np.random.default_rng(seed)
    truth, results, parts, labels, scores = [], [], [], [], []
    for image in range(1, 9):
        boxes = np.concatenate((rng.integers(0, 40, (6, 2)), rng.integers(15, 40, (6, 2))), axis=1).astype(float)
        classes, crowd = rng.integers(1, 3, 6), rng.random(6) < 0.2
        found = boxes[rng.integers(0, 6, 12)] + rng.integers(-3, 4, (12, 4))
        named, score = rng.integers(1, 3, 12), np.sort(rng.permutation(1000)[:12] / 1000 + image * 1e-5)[::-1]
        for number, (box, label, many) in enumerate(zip(boxes, classes, crowd, strict=True)):
            area = float(box[2] * box[3])
            common = {"id": image * 10 + number, "image_id": image, "category_id": int(label)}
            truth.append({**common, "bbox": box.tolist(), "area": area, "iscrowd": int(many)})
        for box, label, value in zip(found, named, score, strict=True):
            one = {"image_id": image, "category_id": int(label), "bbox": box.tolist(), "score": float(value)}
            results.append(one)
        pairs = [box_overlaps(np.repeat(one[None], 6, axis=0), boxes, crowd) for one in found]
        parts.append(match_by_overlap(np.stack(pairs) * (named[:, None] == classes), crowd))
        labels.append(named)
        scores.append(score)
    images = [{"id": image, "width": 100, "height": 100, "file_name": f"{image}.png"} for image in range(1, 9)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    numbers = coco_evaluate({"images": images, "annotations": truth, "categories": categories}, results)
    right, ignored = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    labels, scores = np.concatenate(labels), np.concatenate(scores)
    for label, name in ((1, "a"), (2, "b")):
        of, count = labels == label, sum(one["category_id"] == label and not one["iscrowd"] for one in truth)
        ap = average_precision(scores[of], right[:, of], ignored[:, of], count)
        assert ap.mean() == pytest.approx(numbers[f"bbox/AP-{name}"], abs=1e-12)
