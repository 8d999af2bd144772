"""`panoptic_evaluate`: panopticapi's numbers on its sample, worked cases, and clear errors."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra.errors import DataError
from vertebra.evaluation import panoptic_evaluate

SETS = ("perfect", "no_crowd", "shift_small", "relabel", "merge", "drop", "void", "noise", "spurious")


@pytest.mark.parametrize("name", SETS)
def test_numbers_are_those_of_panopticapi(shared, name):
    sample = shared("data/panoptic_sample")
    expected = json.loads((sample / "expected.json").read_text())["results"][name]
    quality = panoptic_evaluate(
        sample / "panoptic_examples.json",
        sample / "panoptic_examples",
        sample / f"predictions/{name}.json",
        sample / "predictions" / name,
    )
    groups = {"All": quality.all, "Things": quality.things, "Stuff": quality.stuff}
    for group, found in groups.items():
        assert found.n == expected[group]["n"]
        for measure in ("pq", "sq", "rq"):
            assert getattr(found, measure) == pytest.approx(expected[group][measure], abs=1e-12)
    assert set(groups) <= set(expected)
    for category, found in quality.per_class.items():
        row = expected["per_class"].get(str(category))
        if row is None:
            assert found.pq is None and found.tp == found.fp == found.fn == 0
            continue
        assert (found.tp, found.fp, found.fn) == (row["tp"], row["fp"], row["fn"])
        for measure in ("iou_sum", "pq", "sq", "rq"):
            assert getattr(found, measure) == pytest.approx(row[measure], abs=1e-12)


def test_every_reference_result_is_tested(shared):
    assert set(json.loads((shared("data/panoptic_sample") / "expected.json").read_text())["results"]) == set(SETS)


def test_folders_default_to_the_names_of_the_json_files(shared):
    sample = shared("data/panoptic_sample")
    quality = panoptic_evaluate(sample / "panoptic_examples.json", pred_json=sample / "predictions/perfect.json")
    assert quality.metrics["panoptic/PQ"] == 1.0


def _segment(number, category, **more):
    return {"id": number, "category_id": category, "iscrowd": 0, **more}


def test_a_case_worked_by_hand(panoptic, tmp_path):
    """A cat of 60 pixels found by 50 of them and 10 void ones; a dog is missed; sky of 4 rows for 3 true ones."""
    truth = np.zeros((10, 10), int)  # void
    truth[:6] = 300  # cat, 60 pixels
    truth[6:9] = 70000  # sky, 30 pixels; the last row is void
    predicted = np.zeros((10, 10), int)
    predicted[:5] = 1  # cat: 50 of 60, no void
    predicted[5, :4] = 2  # a dog where there is none, on the cat
    predicted[6:] = 3  # sky: 30 true and 10 void pixels, and void does not count
    gt = panoptic.write(tmp_path, "gt", {5: (truth, [_segment(300, 7, area=60), _segment(70000, 40, area=30)])})
    pred = panoptic.write(tmp_path, "pred", {5: (predicted, [_segment(1, 7), _segment(2, 3), _segment(3, 40)])})
    quality = panoptic_evaluate(gt, pred_json=pred)
    cat, dog, sky = (quality.per_class[i] for i in (7, 3, 40))
    assert (cat.tp, cat.fp, cat.fn, cat.iou_sum) == (1, 0, 0, 50 / 60)
    assert (dog.tp, dog.fp, dog.fn, dog.pq, dog.sq, dog.rq) == (0, 1, 0, 0.0, 0.0, 0.0)
    assert (sky.tp, sky.iou_sum) == (1, 1.0)
    assert quality.metrics["panoptic/PQ"] == pytest.approx((50 / 60 + 0 + 1) / 3)
    assert quality.metrics["panoptic/PQ_things"] == pytest.approx((50 / 60 + 0) / 2)
    assert quality.metrics["panoptic/RQ_stuff"] == quality.metrics["panoptic/SQ-sky"] == 1.0


def test_an_iou_of_one_half_is_no_match(panoptic, tmp_path):
    truth, predicted = np.full((2, 2), 1), np.array([[5, 5], [0, 0]])
    gt = panoptic.write(tmp_path, "gt", {1: (truth, [_segment(1, 7, area=4)])})
    pred = panoptic.write(tmp_path, "pred", {1: (predicted, [_segment(5, 7)])})
    cat = panoptic_evaluate(gt, pred_json=pred).per_class[7]
    assert (cat.tp, cat.fp, cat.fn) == (0, 1, 1)


@pytest.mark.parametrize(("void_pixels", "false"), [(2, 1), (3, 0)])
def test_a_prediction_is_excused_if_more_than_half_of_it_is_void(panoptic, tmp_path, void_pixels, false):
    truth = np.ones((1, 4), int)
    truth[0, :void_pixels] = 0
    gt = panoptic.write(tmp_path, "gt", {1: (truth, [_segment(1, 40, area=4 - void_pixels)])})
    pred = panoptic.write(tmp_path, "pred", {1: (np.full((1, 4), 9), [_segment(9, 7)])})
    assert panoptic_evaluate(gt, pred_json=pred).per_class[7].fp == false


@pytest.mark.parametrize(("category", "false"), [(7, 0), (3, 1)])
def test_a_crowd_excuses_predictions_of_its_class_only_and_is_never_missed(panoptic, tmp_path, category, false):
    gt = panoptic.write(tmp_path, "gt", {1: (np.ones((2, 2), int), [_segment(1, 7, area=4) | {"iscrowd": 1}])})
    pred = panoptic.write(tmp_path, "pred", {1: (np.full((2, 2), 9), [_segment(9, category)])})
    found = panoptic_evaluate(gt, pred_json=pred).per_class
    assert found[category].fp == false
    assert found[7].tp == found[7].fn == 0


def test_nothing_to_count_gives_reasons_instead_of_numbers(panoptic, tmp_path):
    gt = panoptic.write(tmp_path, "gt", {1: (np.zeros((2, 2), int), [])})
    pred = panoptic.write(tmp_path, "pred", {1: (np.zeros((2, 2), int), [])})
    quality = panoptic_evaluate(gt, pred_json=pred)
    assert set(quality.metrics.values()) == {None}
    assert set(quality.reasons) == set(quality.metrics)
    assert "no stuff class occurs" in quality.reasons["panoptic/PQ_stuff"]


def test_the_annotated_area_counts_and_a_wrong_one_is_told(panoptic, tmp_path):
    gt = panoptic.write(tmp_path, "gt", {1: (np.ones((2, 2), int), [_segment(1, 7, area=5)])})
    pred = panoptic.write(tmp_path, "pred", {1: (np.ones((2, 2), int), [_segment(1, 7)])})
    quality = panoptic_evaluate(gt, pred_json=pred)
    assert quality.per_class[7].iou_sum == 4 / 5  # union 4 + 5 - 4, as panopticapi has it
    assert "1 ground truth segments have an annotated area" in quality.notes[0]


def test_classes_of_one_name_keep_their_own_metrics(panoptic, tmp_path):
    categories = [{"id": 1, "name": "tree", "isthing": 1}, {"id": 2, "name": "tree", "isthing": 0}]
    images = {1: (np.ones((2, 2), int), [_segment(1, 2, area=4)])}
    gt = panoptic.write(tmp_path, "gt", images, categories)
    metrics = panoptic_evaluate(gt, pred_json=gt).metrics
    assert metrics["panoptic/PQ-tree (1)"] is None and metrics["panoptic/PQ-tree (2)"] == 1.0


def _broken(panoptic, tmp_path, change):
    """A sound pair of files, the prediction changed by `change(record, folder)`."""
    images = {1: (np.ones((4, 4), int), [_segment(1, 7, area=16)])}
    gt, pred = (panoptic.write(tmp_path, name, images) for name in ("gt", "pred"))
    data = json.loads(pred.read_text())
    change(data["annotations"][0], tmp_path / "pred")
    pred.write_text(json.dumps(data))
    return lambda: panoptic_evaluate(gt, pred_json=pred)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record, folder: (folder / "1.png").unlink(), r"image 1\): no such panoptic PNG.*1\.png"),
        (lambda record, folder: record["segments_info"].clear(), "segment ids 1 that are not in its segments_info"),
        (
            lambda record, folder: record["segments_info"][0].update(category_id=8),
            "category_id 8 is not among the categories 3, 7, 40",
        ),
        (
            lambda record, folder: record["segments_info"][0].update(category_id=[7]),
            r"category_id \[7\] is not among",
        ),
        (lambda record, folder: record["segments_info"].append(_segment(2, 7)), "segments 2 .* have no pixel"),
        (
            lambda record, folder: record["segments_info"].append(_segment(1, 7)),
            "segment 1: another segment of the image",
        ),
        (
            lambda record, folder: record["segments_info"].append(_segment(0, 7)),
            "segment 1: id is 0, expected a whole",
        ),
        (
            lambda record, folder: record["segments_info"][0].update(id="x"),
            "segment 0: id is 'x', expected a whole number",
        ),
        (lambda record, folder: record["segments_info"][0].pop("id"), "segment 0: id is missing, expected"),
        (lambda record, folder: record.update(image_id=2), "image 1: has no prediction"),
        (lambda record, folder: record.update(image_id=2), "none of the image ids is in the ground truth"),
        (lambda record, folder: record.update(image_id="1"), "the same but for text and numbers"),
        (lambda record, folder: record.update(file_name="../gt/1.png"), "leaves the image folder"),
        (lambda record, folder: record.pop("segments_info"), r"annotations\[0\]: must be an object with a list"),
        (
            lambda record, folder: Image.new("RGB", (5, 4), (1, 0, 0)).save(folder / "1.png"),
            r"prediction has 5x4 pixels \(width x height\), the ground truth 4x4",
        ),
        (lambda record, folder: Image.new("L", (4, 4), 1).save(folder / "1.png"), "has mode L"),
        (lambda record, folder: (folder / "1.png").write_bytes(b"\x89PNG\r\n"), "damaged panoptic PNG"),
    ],
)
def test_a_broken_prediction_is_told_with_file_and_record(panoptic, tmp_path, change, message):
    evaluate = _broken(panoptic, tmp_path, change)
    with pytest.raises(DataError, match=message) as caught:
        evaluate()
    assert "pred" in str(caught.value)


def test_files_that_are_not_there_or_no_panoptic_files(panoptic, tmp_path):
    gt = panoptic.write(tmp_path, "gt", {1: (np.ones((4, 4), int), [_segment(1, 7, area=16)])})
    with pytest.raises(DataError, match="no such folder"):
        panoptic_evaluate(gt, pred_json=tmp_path / "nothing.json")
    (tmp_path / "list").mkdir()
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match='list "annotations"'):
        panoptic_evaluate(gt, pred_json=tmp_path / "list.json")
    with pytest.raises(DataError, match='list "annotations"'):
        panoptic_evaluate(tmp_path / "list.json", pred_json=gt)
    (tmp_path / "list.json").write_text('{"annotations": []}')
    with pytest.raises(DataError, match='list "categories"'):
        panoptic_evaluate(tmp_path / "list.json", pred_json=gt)


def test_more_threads_change_nothing(shared):
    sample = shared("data/panoptic_sample")
    files = sample / "panoptic_examples.json", None, sample / "predictions/noise.json"
    assert panoptic_evaluate(*files, threads=1).metrics == panoptic_evaluate(*files, threads=3).metrics
