"""LVIS' federated average precision on cases that one can work out."""

import copy
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from vertebra.data import Dataset, Metadata
from vertebra.errors import DataError
from vertebra.evaluation import LVISEvaluator
from vertebra_eval.lvis import lvis_evaluate

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


def test_objects_and_detections_of_area_0_do_not_exist():
    """As in lvis 0.5.3, which takes annotations of an area above 0 alone: neither misses, nor wrong, nor present."""
    objects = [(1, 1, ONE), (1, 1, (5, 5, 0, 20)), (2, 2, (5, 5, 20, 0))]
    dt = results([(1, 1, (3, 3, 9, 0), 0.95), (1, 1, ONE, 0.9), (2, 2, FAR, 0.8)])
    numbers = lvis_evaluate(truth(objects), dt)
    assert [numbers[f"bbox/{name}"] for name in ("AP", "AR", "AP-c1")] == [EXACT] * 3
    assert numbers["bbox/AP-c2"] is None  # its only object has no area, so image 2 was not annotated for it either
    notes = " ".join(numbers.notes)
    assert "2 of 3 ground-truth objects have an area of 0 or less" in notes
    assert "1 of 3 detections have an area of 0" in notes
    assert "1 of 2 detections are of categories that their image was not annotated for" in notes


def test_the_limit_on_detections_counts_those_of_area_0_too():
    nothing = [(1, 1, (3, 3, 9, 0), 0.9)] * 300
    assert lvis_evaluate(truth([(1, 1, ONE)]), results([*nothing, (1, 1, ONE, 0.1)]))["bbox/AP"] == 0.0
    assert lvis_evaluate(truth([(1, 1, ONE)]), results([*nothing[1:], (1, 1, ONE, 0.1)]))["bbox/AP"] == EXACT


def test_an_empty_mask_is_no_detection(by_hand):
    box = [10, 10, 50, 50]
    mask = {"segmentation": [[10, 10, 50, 10, 50, 50, 10, 50]]}
    dataset = by_hand.dataset({1: [(box, 0, mask)], 2: [(box, 0, mask | {"area": 0})]}, ["c1"])
    masks = torch.from_numpy(np.stack([by_hand.filled((0, 0, 0, 0)), by_hand.filled(box)]))
    output = by_hand.output([(box, 0.9, 0), (box, 0.8, 0)], pred_masks=masks)
    evaluator = LVISEvaluator(dataset, tasks=["segm"])
    assert by_hand.run(evaluator, {1: output})["lvis_segm/AP"] == EXACT
    assert any("1 of 2 detections have an area of 0" in note for note in evaluator.notes)


def test_infinite_scores_rank_first_and_last():
    dt = results([(1, 1, FAR, float("-inf")), (1, 1, ONE, float("inf"))])
    assert lvis_evaluate(truth([(1, 1, ONE)]), dt)["bbox/AP"] == EXACT


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_package_lvis_where_areas_are_odd(task, seed, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 still names it
    lvis = pytest.importorskip("lvis", exc_type=ImportError)
    rng = np.random.default_rng(seed)

    def box():
        return [float(v) for v in (*rng.integers(0, 4, 2) * 20, *rng.integers(0, 3, 2) * 20)]

    objects = [(int(rng.integers(1, 4)), int(rng.integers(1, 4)), box()) for _ in range(20)]
    gt = truth(objects, {i: {"neg_category_ids": [int(rng.integers(1, 4))]} for i in (1, 2, 3)})
    scores = rng.permutation([*np.linspace(0, 1, 28), np.inf, -np.inf]).tolist()
    dt = [
        {"image_id": int(rng.integers(1, 4)), "category_id": int(rng.integers(1, 4)), "bbox": box(), "score": score}
        for score in scores
    ]
    if task == "segm":
        for record in gt["annotations"]:
            x, y, w, h = record["bbox"]
            record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        for record in dt:
            x, y, w, h = map(int, record.pop("bbox"))
            mask = np.zeros((100, 100), np.uint8, order="F")
            mask[y : y + h, x : x + w] = 1
            encoded = coco_mask.encode(mask)
            record["segmentation"] = {"size": [100, 100], "counts": encoded["counts"].decode()}
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(gt))
    reference = lvis.LVIS(str(path))
    tool = lvis.LVISEval(reference, lvis.LVISResults(reference, copy.deepcopy(dt)), task)
    tool.run()
    numbers = lvis_evaluate(gt, dt, task)
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
        wanted = tool.results[name]
        assert numbers[f"{task}/{name}"] == (None if wanted == -1 else pytest.approx(wanted, abs=1e-12)), name


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


def test_the_evaluator_has_notes_on_intervals(by_hand):
    """Two images are too few for one; the note names the metrics by their keys' task."""
    metadata = Metadata("by hand").set(thing_classes=["c1"])
    box = [{"bbox": [0, 0, 20, 20], "bbox_mode": 0, "category_id": 0}]
    shape = {"height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    dicts = [{"image_id": i, "file_name": f"{i}.png", "annotations": box, **shape} for i in (1, 2)]
    evaluator = LVISEvaluator(Dataset(dicts, metadata))
    by_hand.run(evaluator, {1: [((0, 0, 20, 20), 0.75, 0)], 2: [((0, 0, 20, 20), 0.5, 0)]})
    assert evaluator.intervals == {}
    assert "lvis_bbox: no interval of AP, AP50, AP75: all images agree, so their spread is unknown" in evaluator.notes
