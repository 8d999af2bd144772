"""COCO evaluation on datasets made by hand: numbers one can work out, and reasons where there are none."""

import json

import numpy as np
import pytest
import torch

from vertebra.errors import DataError, RecipeError
from vertebra.evaluation import COCOEvaluator, coco_evaluate
from vertebra.evaluation.report.mistakes import worst_missed
from vertebra_eval.report.plots import score_histogram

SMALL, MEDIUM = (10, 10, 30, 30), (10, 10, 60, 60)  # 400 and 2500 square pixels
ONE = pytest.approx(1, abs=1e-12)  # pycocotools' precision is tp / (tp + fp + 2e-16)
SUMMARY = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
SUMMARY |= {"AR_50", "AR_75"}


def test_perfect_boxes_give_one_and_what_does_not_exist_a_reason(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)], 2: [(MEDIUM, 0)]}, ["cat", "dog"]))
    metrics = by_hand.run(evaluator, {1: [(SMALL, 0.9, 0)], 2: [(MEDIUM, 0.8, 0)]})
    per_class = {f"{name}-{label}" for name in ("AP", "AP50", "AP75", "AR") for label in ("cat", "dog")}
    assert set(metrics) == {f"bbox/{name}" for name in SUMMARY | per_class}
    defined = {key for key, value in metrics.items() if value is not None}
    assert [metrics[key] for key in defined] == [ONE] * len(defined)
    assert evaluator.reasons.keys() == metrics.keys() - defined
    assert evaluator.reasons["bbox/APl"] == "the ground truth has no large objects (area above 9216 square pixels)"
    assert evaluator.reasons["bbox/AP-dog"] == "the ground truth has no objects of class dog"


def test_one_of_two_found_gives_the_worked_ap(by_hand):
    """Recall 0.5 at precision 1: of the recalls 0, 0.01, ..., 1 the 51 up to 0.5 have precision 1, the others 0."""
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0), (MEDIUM, 0)]}, ["cat"]))
    metrics = by_hand.run(evaluator, {1: [(SMALL, 0.9, 0)]})
    assert metrics["bbox/AP50"] == pytest.approx(51 / 101)
    assert metrics["bbox/AR100"] == 0.5
    assert metrics["bbox/ARs"] == ONE and metrics["bbox/ARm"] == 0.0


def test_box_that_overlaps_by_0_7_counts_at_thresholds_up_to_0_7(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [((0, 0, 100, 100), 0)]}, ["cat"]))
    metrics = by_hand.run(evaluator, {1: [((0, 0, 100, 71), 0.9, 0)]})
    assert metrics["bbox/AP50"] == ONE and metrics["bbox/AP75"] == 0.0
    assert metrics["bbox/AP"] == pytest.approx(0.5)  # 5 of 10 thresholds: 0.5, 0.55, 0.6, 0.65, 0.7


def test_detection_on_a_crowd_region_counts_neither_way(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(MEDIUM, 0, {"iscrowd": 1}), ((70, 70, 95, 95), 0)]}, ["cat"]))
    metrics = by_hand.run(evaluator, {1: [((15, 15, 40, 40), 0.9, 0), ((70, 70, 95, 95), 0.5, 0)]})
    assert metrics["bbox/AP"] == ONE


def test_only_crowds_is_its_own_reason(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(MEDIUM, 0, {"iscrowd": 1})]}, ["cat"]))
    metrics = by_hand.run(evaluator, {1: [(MEDIUM, 0.9, 0)]})
    assert set(metrics.values()) == {None}
    assert evaluator.reasons["bbox/AP"] == "the ground truth has no objects that count: all 1 are crowd regions"


def test_no_detection_is_zero_with_a_note(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    assert by_hand.run(evaluator, {1: []})["bbox/AP"] == 0.0
    assert "the model returned no detections at all" in evaluator.notes[0]


def test_images_that_were_not_predicted_count_as_missed(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)], 2: [(SMALL, 0)]}, ["cat"]))
    assert by_hand.run(evaluator, {1: [(SMALL, 0.9, 0)]})["bbox/AR100"] == 0.5
    assert "1 of the dataset's 2 images were not predicted" in evaluator.notes[0]


@pytest.mark.parametrize("images", [{}, {1: []}])
def test_empty_ground_truth_is_undefined_everywhere(by_hand, images):
    evaluator = COCOEvaluator(by_hand.dataset(images, ["cat"]))
    metrics = by_hand.run(evaluator, {1: [(SMALL, 0.9, 0)]})
    assert set(metrics.values()) == {None} and evaluator.reasons.keys() == metrics.keys()
    expected = "the ground truth has no objects" if images else "the dataset has no images"
    assert evaluator.reasons["bbox/AP"] == expected


def test_dataset_without_annotations_still_gets_a_result_file(by_hand, tmp_path):
    dataset = by_hand.dataset({1: []}, ["cat"])
    dicts = [{key: value for key, value in dataset[0].items() if key != "annotations"}]
    evaluator = COCOEvaluator(type(dataset)(dicts, dataset.metadata), tmp_path)
    by_hand.run(evaluator, {1: [(SMALL, 0.9, 0)]})
    assert "no ground truth annotations" in evaluator.reasons["bbox/AP"]
    result = json.loads((tmp_path / "coco_results.json").read_text())
    assert result == [{"image_id": 1, "category_id": 0, "score": pytest.approx(0.9), "bbox": [10, 10, 20, 20]}]


@pytest.mark.parametrize("ids", [("b", "a"), (10, 9), ("x", 3), (None, None)])
def test_image_ids_may_be_anything(by_hand, tmp_path, ids):
    dataset = by_hand.dataset({0: [(SMALL, 0)], 1: [(MEDIUM, 0)]}, ["cat"])
    dicts = [dict(record, image_id=image_id) for record, image_id in zip(dataset, ids, strict=True)]
    evaluator = COCOEvaluator(type(dataset)(dicts, dataset.metadata), tmp_path)
    for record, box in zip(dicts, (SMALL, MEDIUM), strict=True):
        evaluator.process([record], [by_hand.output([(box, 0.5, 0)])])
    assert evaluator.evaluate()["bbox/AP"] == ONE
    written = {result["image_id"] for result in json.loads((tmp_path / "coco_results.json").read_text())}
    assert written == (set(ids) if ids[0] is not None else {1, 2})


def test_sparse_category_ids_come_back_in_the_result_file(by_hand, tmp_path):
    mapping = {7: 0, 90: 1}
    dataset = by_hand.dataset({1: [(SMALL, 1)]}, ["a", "b"], thing_dataset_id_to_contiguous_id=mapping)
    evaluator = COCOEvaluator(dataset, tmp_path)
    assert by_hand.run(evaluator, {1: [(SMALL, 0.9, 1)]})["bbox/AP-b"] == ONE
    assert json.loads((tmp_path / "coco_results.json").read_text())[0]["category_id"] == 90
    truth = json.loads((tmp_path / "coco_ground_truth.json").read_text())
    assert [category["id"] for category in truth["categories"]] == [7, 90]
    assert truth["annotations"][0]["category_id"] == 90 and truth["annotations"][0]["id"] == 1


def test_written_ground_truth_and_results_open_in_pycocotools(by_hand, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    mask = by_hand.filled(MEDIUM)
    polygon = [[10, 10, 60, 10, 60, 60, 10, 60]]
    dataset = by_hand.dataset({5: [(MEDIUM, 0, {"segmentation": polygon})], 6: []}, ["cat"])
    evaluator = COCOEvaluator(dataset, tmp_path)
    detections = {5: by_hand.output([(MEDIUM, 0.9, 0)], pred_masks=torch.from_numpy(mask[None]))}
    metrics = by_hand.run(evaluator, detections)
    assert metrics["segm/AP"] == metrics["bbox/AP"] == ONE
    truth = COCO(str(tmp_path / "coco_ground_truth.json"))
    for task, name in (("bbox", "coco_results"), ("segm", "coco_results_segm")):
        tool = COCOeval(truth, truth.loadRes(str(tmp_path / f"{name}.json")), task)
        tool.evaluate()
        tool.accumulate()
        tool.summarize()
        assert tool.stats[0] == ONE


def test_not_finite_predictions_are_left_out_and_counted(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    nan, inf = float("nan"), float("inf")
    metrics = by_hand.run(evaluator, {1: [(SMALL, nan, 0), ((0, 0, inf, 9), 0.9, 0), (SMALL, 0.8, 0)]})
    assert metrics["bbox/AP"] == ONE
    assert evaluator.notes[0].startswith("2 of 3 predictions were dropped: a score is NaN, or a coordinate is not")


@pytest.mark.parametrize("engine", ["vertebra", "pycocotools"])
@pytest.mark.parametrize("streamed", [True, False])
def test_infinite_scores_count_and_their_file_is_json(by_hand, tmp_path, engine, streamed):
    """The wrong box ranks first, then the right one, then another wrong one: precision 1/2 at every recall."""
    inf = float("inf")
    evaluator = COCOEvaluator(by_hand.dataset({'"NaN" -Infinity': [(SMALL, 0)]}, ["cat"]), tmp_path, engine=engine)
    points = torch.tensor([[[1.0, 1.0, inf]], [[2.0, 2.0, 0.5]], [[3.0, 3.0, -inf]]])
    output = by_hand.output([(SMALL, -inf, 0), (MEDIUM, inf, 0), (SMALL, 0.5, 0)], pred_keypoints=points)
    evaluator.process(evaluator.dataset.dicts, [output])
    if not streamed:
        evaluator.stream.discard()
        evaluator.stream = None
    metrics = evaluator.evaluate()
    assert metrics["bbox/AP"] == pytest.approx(0.5, abs=1e-12)
    assert any("2 of 3 detections have an infinite score" in note for note in evaluator.notes)
    for name in ("coco_results", "coco_results_keypoints"):
        text = (tmp_path / f"{name}.json").read_text()
        records = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
        assert [record["score"] for record in records] == [-inf, inf, 0.5]
        assert {record["image_id"] for record in records} == {'"NaN" -Infinity'}
    truth = tmp_path / "coco_ground_truth.json"
    assert coco_evaluate(str(truth), str(tmp_path / "coco_results.json"))["bbox/AP"] == metrics["bbox/AP"]


def test_a_report_on_infinite_scores(by_hand, tmp_path):
    """Curves, histogram, calibration, confusion and mistakes; an object found at minus infinity is not missed."""
    inf = float("inf")
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)], 2: [(MEDIUM, 0)]}, ["cat"]), tmp_path)
    by_hand.run(evaluator, {1: [(SMALL, -inf, 0)], 2: []})
    matches = evaluator.arrays["bbox"].matches
    assert matches.best_threshold(matches.half) == -inf
    assert [part.tolist() for part in matches.errors_by_image(matches.half, -inf)] == [[0, 0], [0, 1]]
    missed = worst_missed(matches, matches.half, -inf, 9)
    assert [mistake.image for mistake in missed] == [1]
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]), tmp_path / "more")
    by_hand.run(evaluator, {1: [(SMALL, inf, 0), (MEDIUM, -inf, 0), (MEDIUM, 0.5, 0)]})
    assert score_histogram(evaluator.arrays["bbox"], inf)


def test_a_class_beyond_the_datasets_is_an_error(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    with pytest.raises(DataError, match="predicts class 5, but the dataset has 1 classes"):
        by_hand.run(evaluator, {1: [(SMALL, 0.9, 5)]})


def test_an_image_the_dataset_lacks_is_an_error(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    evaluator.process([{"image_id": 77}], [by_hand.output([])])
    with pytest.raises(DataError, match="1 predicted images are not in the dataset's dicts, first 77"):
        evaluator.evaluate()


def test_the_same_image_twice_counts_once(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    for _ in range(2):
        evaluator.process([evaluator.dataset[0]], [by_hand.output([(SMALL, 0.9, 0)])])
    assert evaluator.evaluate()["bbox/AP"] == ONE
    assert len(evaluator.table) == 1


def test_task_the_model_does_not_do_is_an_error(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]), tasks=["segm"])
    with pytest.raises(RecipeError, match="task segm needs pred_masks"):
        by_hand.run(evaluator, {1: [(SMALL, 0.9, 0)]})


@pytest.mark.parametrize(
    "arguments", [{"tasks": ["boxes"]}, {"tasks": []}, {"max_dets": [0]}, {"iou_thresholds": [50]}]
)
def test_wrong_arguments_are_said_at_once(by_hand, arguments):
    with pytest.raises(RecipeError, match=next(iter(arguments))):
        COCOEvaluator(by_hand.dataset({}, ["cat"]), **arguments)


def test_masks_of_another_size_are_an_error(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    output = by_hand.output([(SMALL, 0.9, 0)], pred_masks=torch.ones(1, 50, 40, dtype=torch.bool))
    with pytest.raises(DataError, match=r"size \(50, 40\) \(height, width\), the original image \(100, 100\)"):
        by_hand.run(evaluator, {1: output})


def test_boxes_without_masks_leave_segm_undefined(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)]}, ["cat"]))
    output = by_hand.output([(SMALL, 0.9, 0)], pred_masks=torch.from_numpy(by_hand.filled(SMALL)[None]))
    metrics = by_hand.run(evaluator, {1: output})
    assert metrics["bbox/AP"] == ONE and metrics["segm/AP"] is None
    assert evaluator.reasons["segm/AP"] == "the ground truth has boxes but no masks"


def test_keypoints_of_any_number_are_evaluated(by_hand):
    points = [20.5, 20.5, 2, 25.5, 25.5, 1, 0.5, 0.5, 0]  # the third one has no label
    dataset = by_hand.dataset({1: [(MEDIUM, 0, {"keypoints": points})]}, ["bee"], keypoint_names=["a", "b", "c"])
    evaluator = COCOEvaluator(dataset)
    close = torch.tensor([[[20.5, 20.5, 0.9], [25.5, 25.5, 0.9], [99.0, 99.0, 0.9]]])
    metrics = by_hand.run(evaluator, {1: by_hand.output([(MEDIUM, 0.9, 0)], pred_keypoints=close)})
    assert metrics["keypoints/AP"] == ONE
    assert {"keypoints/AR", "keypoints/APm", "keypoints/ARl"} <= metrics.keys() and "keypoints/APs" not in metrics
    assert any("no OKS sigmas are known for these 3 keypoints" in note for note in evaluator.notes)


def test_own_limits_and_thresholds_name_their_numbers(by_hand):
    dataset = by_hand.dataset({1: [(SMALL, 0), (MEDIUM, 0)]}, ["cat"])
    evaluator = COCOEvaluator(dataset, max_dets=[2, 1], iou_thresholds=[0.5, 0.6])
    metrics = by_hand.run(evaluator, {1: [(SMALL, 0.9, 0), (MEDIUM, 0.8, 0)]})
    assert metrics["bbox/AR1"] == 0.5 and metrics["bbox/AR2"] == ONE and metrics["bbox/AP"] == ONE
    assert metrics["bbox/AP75"] is None and "0.75 was not among those evaluated" in evaluator.reasons["bbox/AP75"]


def test_subset_of_a_json_files_images_is_evaluated_alone(by_hand, tmp_path):
    whole = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0)], 2: [(SMALL, 0)]}, ["cat"]), tmp_path)
    by_hand.run(whole, {})
    part = by_hand.dataset({2: []}, ["cat"], json_file=str(tmp_path / "coco_ground_truth.json"))
    assert by_hand.run(COCOEvaluator(part), {2: [(SMALL, 0.9, 0)]})["bbox/AR100"] == ONE
    stranger = by_hand.dataset({3: []}, ["cat"], json_file=str(tmp_path / "coco_ground_truth.json"))
    with pytest.raises(DataError, match="1 of the dataset's 1 images are not in it, first 3"):
        by_hand.run(COCOEvaluator(stranger), {})


def test_run_length_masks_and_arrays_of_masks_are_the_same(by_hand):
    from pycocotools import mask as coco_mask

    mask = by_hand.filled(MEDIUM)
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    tables = []
    for masks in (torch.from_numpy(mask[None]), [rle], [{**rle, "counts": rle["counts"].decode()}]):
        evaluator = COCOEvaluator(by_hand.dataset({1: [(MEDIUM, 0, {"segmentation": dict(rle)})]}, ["cat"]))
        output = by_hand.output([(MEDIUM, 0.9, 0)], pred_masks=masks)
        assert by_hand.run(evaluator, {1: output})["segm/AP"] == ONE
        tables.append(evaluator.table.masks[0])
    assert tables[0] == tables[1] == tables[2]
