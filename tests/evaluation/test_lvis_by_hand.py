"""LVIS' federated average precision on cases that one can work out."""

import json

import pytest

from vertebra.data import Dataset, Metadata
from vertebra.errors import DataError
from vertebra.evaluation import LVISEvaluator
from vertebra.evaluation.lvis import lvis_evaluate

ONE, TWO, FAR = (0, 0, 20, 20), (50, 50, 20, 20), (70, 0, 20, 20)
HALF = pytest.approx(51 / 101)  # recall 1/2 at precision 1: 51 of the recalls 0, 0.01, ..., 1
EXACT = pytest.approx(1, abs=1e-12)  # precision is tp / (tp + fp + 2e-16)


def truth(objects, images=None, frequency=("f", "c", "r")):
    """objects: [(image, category, xywh box), ...]; images: {id: {neg_category_ids, ...}}; categories 1 to 3."""
    images = {1: {}, 2: {}} if images is None else images
    nothing = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    return {
        "images": [{"id": i, "width": 100, "height": 100, **nothing, **more} for i, more in images.items()],
        "categories": [{"id": k, "name": f"c{k}", "frequency": f} for k, f in enumerate(frequency, start=1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": list(box), "area": box[2] * box[3]}
            for n, (i, k, box) in enumerate(objects, start=1)
        ],
    }


def results(detections):
    return [{"image_id": i, "category_id": k, "bbox": list(box), "score": s} for i, k, box, s in detections]


def test_wrong_detections_count_only_where_the_category_was_searched_for():
    objects = [(1, 1, ONE)]
    dt = results([(2, 1, FAR, 0.9), (1, 1, ONE, 0.8)])
    unknown = lvis_evaluate(truth(objects), dt)
    assert unknown["bbox/AP"] == EXACT and any("1 of 2 detections" in note for note in unknown.notes)
    assert lvis_evaluate(truth(objects, {1: {}, 2: {"neg_category_ids": [1]}}), dt)["bbox/AP"] == pytest.approx(0.5)
    assert lvis_evaluate(truth([*objects, (2, 1, TWO)]), dt)["bbox/AP"] == pytest.approx(0.5 * 51 / 101)


def test_where_not_all_objects_are_marked_a_detection_of_none_is_not_wrong():
    objects, dt = [(1, 1, ONE)], results([(1, 1, FAR, 0.9), (1, 1, ONE, 0.8)])
    assert lvis_evaluate(truth(objects), dt)["bbox/AP"] == pytest.approx(0.5)
    incomplete = {1: {"not_exhaustive_category_ids": [1]}, 2: {}}
    assert lvis_evaluate(truth(objects, incomplete), dt)["bbox/AP"] == EXACT


def test_ap_of_rare_common_and_frequent_categories():
    gt = truth([(1, 1, ONE), (1, 2, ONE), (1, 2, TWO), (2, 3, ONE)])
    numbers = lvis_evaluate(gt, results([(1, 1, ONE, 0.9), (1, 2, TWO, 0.8)]))
    assert numbers["bbox/APf"] == EXACT and numbers["bbox/APc"] == HALF and numbers["bbox/APr"] == 0.0
    assert numbers["bbox/AP"] == pytest.approx((1 + 51 / 101) / 3)
    assert numbers["bbox/AR"] == pytest.approx((1 + 0.5) / 3)


def test_frequency_comes_from_the_training_images_where_it_is_not_written():
    gt = truth([(1, 1, ONE), (1, 2, ONE), (1, 3, ONE)])
    for category, count in zip(gt["categories"], (10, 100, 101), strict=True):
        del category["frequency"]
        category["image_count"] = count
    numbers = lvis_evaluate(gt, results([(1, 2, ONE, 0.9)]))
    assert (numbers["bbox/APr"], numbers["bbox/APc"], numbers["bbox/APf"]) == (0.0, EXACT, 0.0)


def test_an_image_gives_300_detections_over_all_categories():
    gt = truth([(1, 1, ONE)], {1: {"neg_category_ids": [2]}})
    many = [(1, 2, FAR, 0.9)] * 299
    assert lvis_evaluate(gt, results([*many, (1, 1, ONE, 0.1)]))["bbox/AP-c1"] == EXACT
    assert lvis_evaluate(gt, results([*many, (1, 2, FAR, 0.9), (1, 1, ONE, 0.1)]))["bbox/AP-c1"] == 0.0


def test_what_does_not_exist_has_its_reason():
    numbers = lvis_evaluate(truth([(1, 1, ONE)], frequency=("f", "c", None)), [])
    assert numbers["bbox/AP"] == 0.0
    assert numbers.reasons["bbox/APc"] == "the ground truth has no objects of a common category"
    assert numbers.reasons["bbox/APr"] == "the ground truth has no categories that are known to be rare"
    assert numbers.reasons["bbox/APl"] == "the ground truth has no large objects"
    assert {key for key, value in numbers.items() if value is None} == set(numbers.reasons)


def test_unknown_category_in_an_images_list_is_named():
    with pytest.raises(DataError, match="image 1: neg_category_ids has 9"):
        lvis_evaluate(truth([], {1: {"neg_category_ids": [9]}}), [])


def test_the_evaluator_reads_the_file_and_gives_the_same(by_hand, tmp_path):
    gt = truth([(1, 1, ONE), (1, 2, TWO)], {1: {"not_exhaustive_category_ids": [2]}, 2: {"neg_category_ids": [1]}})
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(gt))
    metadata = Metadata("lvis").set(
        json_file=str(path),
        thing_classes=["c1", "c2", "c3"],
        thing_dataset_id_to_contiguous_id={k: k - 1 for k in (1, 2, 3)},
    )
    dicts = [{"image_id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in (1, 2)]
    found = {
        1: [((0, 0, 20, 20), 0.75, 0), ((50, 50, 70, 70), 0.5, 1), ((70, 0, 90, 20), 0.875, 1)],
        2: [((70, 0, 90, 20), 0.875, 0), ((70, 0, 90, 20), 0.625, 2)],
    }
    metrics = by_hand.run(LVISEvaluator(Dataset(dicts, metadata)), found)
    dt = results([(i, k + 1, (x, y, x1 - x, y1 - y), s) for i, many in found.items() for (x, y, x1, y1), s, k in many])
    numbers = lvis_evaluate(gt, dt)
    assert metrics == {f"lvis_{name}": value for name, value in numbers.items()}
    assert metrics["lvis_bbox/AP-c1"] == pytest.approx(0.5) and metrics["lvis_bbox/AP-c2"] == EXACT
