"""Pascal VOC's average precision on cases that one can work out."""

import numpy as np
import pytest

from vertebra.errors import RecipeError
from vertebra.evaluation import VOCEvaluator
from vertebra_eval.voc import average_precision_07, average_precision_area, voc_evaluate


def truth(objects, classes=("cat", "dog"), images=(1, 2, 3)):
    """objects: [(image, category, xywh box, {more}), ...]"""
    return {
        "images": [{"id": i, "width": 100, "height": 100} for i in images],
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": list(box), "area": box[2] * box[3], **(more or [{}])[0]}
            for n, (i, k, box, *more) in enumerate(objects, start=1)
        ],
    }


def results(detections):
    return [{"image_id": i, "category_id": k, "bbox": list(box), "score": s} for i, k, box, s in detections]


ONE, TWO, FAR = (0, 0, 20, 20), (50, 50, 20, 20), (70, 0, 20, 20)


def test_right_wrong_right_of_two():
    """Recall 0.5, 0.5, 1 at precision 1, 1/2, 2/3: area 0.5 * 1 + 0.5 * 2/3; 6 of 11 points at 1, 5 at 2/3."""
    gt = truth([(1, 1, ONE), (2, 1, TWO)])
    dt = results([(1, 1, ONE, 0.9), (1, 1, FAR, 0.8), (2, 1, TWO, 0.7)])
    numbers = voc_evaluate(gt, dt)
    assert numbers["voc/AP-cat"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert numbers["voc/AP07-cat"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert numbers["voc/AP"] == numbers["voc/AP-cat"]  # there is no dog
    assert numbers["voc/AP-dog"] is None
    assert numbers.reasons["voc/AP-dog"] == "the ground truth has no objects of class dog"


def test_a_second_detection_of_an_object_is_wrong():
    gt = truth([(1, 1, ONE), (1, 1, TWO)])
    numbers = voc_evaluate(gt, results([(1, 1, ONE, 0.9), (1, 1, ONE, 0.8), (1, 1, TWO, 0.7)]))
    assert numbers["voc/AP"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_detection_belongs_to_the_object_it_overlaps_most_even_if_that_is_taken():
    """Both boxes overlap the first object most. COCO would let the second one have the object that is left."""
    gt = truth([(1, 1, (0, 0, 20, 20)), (1, 1, (0, 6, 20, 20))])
    dt = results([(1, 1, (0, 0, 20, 20), 0.9), (1, 1, (0, 2, 20, 20), 0.8)])
    assert voc_evaluate(gt, dt)["voc/AP"] == pytest.approx(0.5)


@pytest.mark.parametrize("field", ["difficult", "ignore", "iscrowd"])
def test_difficult_objects_and_detections_of_them_count_neither_way(field):
    gt = truth([(1, 1, ONE), (1, 1, TWO, {field: 1})])
    dt = results([(1, 1, TWO, 0.9), (1, 1, TWO, 0.8), (1, 1, ONE, 0.7)])
    numbers = voc_evaluate(gt, dt)
    assert numbers["voc/AP"] == numbers["voc/AP07"] == 1.0


def test_only_difficult_objects_is_its_own_reason():
    numbers = voc_evaluate(truth([(1, 1, ONE, {"difficult": 1})]), results([(1, 1, ONE, 0.9)]))
    assert numbers["voc/AP"] is None
    assert numbers.reasons["voc/AP-cat"].endswith("of class cat that count: all 1 are difficult")


def test_an_iou_of_one_half_is_enough():
    gt = truth([(1, 1, (0, 0, 20, 20))])
    assert voc_evaluate(gt, results([(1, 1, (0, 0, 20, 10), 0.9)]))["voc/AP"] == 1.0
    assert voc_evaluate(gt, results([(1, 1, (0, 0, 20, 9.9), 0.9)]))["voc/AP"] == 0.0


def test_infinite_scores_rank_first_and_last():
    dt = results([(1, 1, FAR, float("-inf")), (2, 1, TWO, 0.7), (1, 1, ONE, float("inf"))])
    assert voc_evaluate(truth([(1, 1, ONE), (2, 1, TWO)]), dt)["voc/AP"] == pytest.approx(1)


def test_no_detection_is_zero():
    numbers = voc_evaluate(truth([(1, 1, ONE)]), [])
    assert numbers["voc/AP"] == numbers["voc/AP07"] == 0.0


def test_curves_by_hand():
    recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([1.0, 0.5, 2 / 3, 0.75])
    assert average_precision_area(recall, precision) == pytest.approx(0.25 + 0.5 * 0.75)
    assert average_precision_07(recall, precision) == pytest.approx((3 * 1 + 5 * 0.75) / 11)  # up to 0.2, up to 0.7


def test_the_evaluator_gives_the_same_and_reads_difficult(by_hand):
    box = (10, 10, 30, 30)
    dataset = by_hand.dataset({1: [(box, 0), ((60, 60, 90, 90), 0, {"difficult": 1})], 2: [(box, 0)]}, ["cat"])
    evaluator = VOCEvaluator(dataset)
    metrics = by_hand.run(evaluator, {1: [(box, 0.9, 0), ((60, 60, 90, 90), 0.8, 0)], 2: []})
    assert metrics["voc/AP"] == pytest.approx(0.5)
    assert metrics["voc/AP07"] == pytest.approx(6 / 11)
    with pytest.raises(RecipeError, match="iou is 0"):
        VOCEvaluator(dataset, iou=0)


def one_by_one(gt, dt):
    """The development kit's procedure for one class, detection by detection; right or wrong by falling score."""
    taken, right = set(), []
    for found in sorted(dt, key=lambda d: -d["score"]):
        best, met = -1.0, None
        for thing in (a for a in gt["annotations"] if a["image_id"] == found["image_id"]):
            (x, y, w, h), (u, v, p, q) = found["bbox"], thing["bbox"]
            inside = max(0, min(x + w, u + p) - max(x, u)) * max(0, min(y + h, v + q) - max(y, v))
            overlap = inside / (w * h + p * q - inside)
            if overlap > best:
                best, met = overlap, thing
        if met is None or best < 0.5:
            right.append(False)
        elif not met.get("difficult"):
            right.append(met["id"] not in taken)
            taken.add(met["id"])
    return np.array(right, dtype=bool)


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_the_procedure_written_out(seed):
    rng = np.random.default_rng(seed)
    things = [
        (int(rng.integers(1, 4)), 1, (*rng.integers(0, 60, 2).tolist(), *rng.integers(10, 40, 2).tolist()))
        for _ in range(12)
    ]
    gt = truth([(*thing, {"difficult": int(rng.random() < 0.3)}) for thing in things], ("cat",))
    near = [
        (i, k, [max(1, v + int(d)) for v, d in zip(box, rng.integers(-6, 7, 4), strict=True)]) for i, k, box in things
    ]
    dt = results([(*one, float(s)) for one, s in zip(near * 3, rng.permutation(36) / 36, strict=True)])
    hits = one_by_one(gt, dt)
    count = sum(not a["difficult"] for a in gt["annotations"])
    recall, precision = np.cumsum(hits) / count, np.cumsum(hits) / np.arange(1, len(hits) + 1)
    area = sum(
        (r - before) * max(precision[n:]) for n, (r, before) in enumerate(zip(recall, [0, *recall], strict=False))
    )
    eleven = sum(
        max((p for p, r in zip(precision, recall, strict=True) if r >= t / 10 - 1e-9), default=0) for t in range(11)
    )
    numbers = voc_evaluate(gt, dt)
    assert numbers["voc/AP"] == pytest.approx(area, abs=1e-12)
    assert numbers["voc/AP07"] == pytest.approx(eleven / 11, abs=1e-12)
