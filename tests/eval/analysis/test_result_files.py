"""Good and bad result files: what is an error, what is dropped and counted, and that nothing else is lost."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from vertebra.errors import DataError
from vertebra_eval.coco import coco_evaluate, read_ground_truth
from vertebra_eval.evaluate_results import evaluate_result_files
from vertebra_eval.masks.run_lengths import measure_run_lengths
from vertebra_eval.result_files import read_results

GOOD = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}
ALSO = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.8}


@pytest.fixture
def truth(hand):
    return hand.truth([(1, 1, (0, 0, 20, 20)), (2, 1, (0, 0, 20, 20)), (3, 2, (0, 0, 20, 20))])


def read(hand, tmp_path, truth, content, task="bbox"):
    return read_results(hand.write(tmp_path / "dt.json", content), read_ground_truth(truth, task), task)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (GOOD | {"score": float("nan")}, "NaN"),
        (GOOD | {"bbox": [0, float("nan"), 5, 5]}, "NaN"),
        (GOOD | {"bbox": [40, 40, -30, -28]}, "negative"),
        (GOOD | {"category_id": 77}, "category"),
    ],
)
def test_a_record_that_cannot_be_judged_is_left_out_and_counted(hand, tmp_path, truth, bad, words):
    found = read(hand, tmp_path, truth, [ALSO, bad, GOOD])
    assert len(found) == 2 and sorted(found.scores) == [0.8, 0.9]
    told = " ".join(found.notes)
    assert words in told and "1 of" in told and "record 1" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2', "JSON"),
        ("", "the file is empty"),
        ("{}", "list"),
        ([GOOD, {key: value for key, value in GOOD.items() if key != "score"}], "record 1 (image 1): has no score"),
        ([GOOD, GOOD | {"score": "high"}], "record 1"),
        ([GOOD, GOOD | {"bbox": [1, 2, 3]}], "record 1"),
        ([GOOD, 7], "list of objects"),
        ([GOOD, GOOD | {"image_id": 999}], "record 1 with image_id 999"),
        ([GOOD | {"image_id": "1"}], "text and numbers"),
        ([GOOD | {"score": float("nan")}], "no record of it can be evaluated"),
        ([GOOD | {"category_id": 9}, ALSO | {"category_id": 8}], "none of the category ids"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_with_its_name(hand, tmp_path, truth, content, words):
    with pytest.raises(DataError, match=r"dt\.json") as caught:
        read(hand, tmp_path, truth, content)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path, truth):
    with pytest.raises(DataError, match=r"none\.json"):
        read_results(tmp_path / "none.json", read_ground_truth(truth, "bbox"), "bbox")


def test_an_empty_list_is_a_result(hand, tmp_path, truth):
    gt, dt = hand.write(tmp_path / "gt.json", truth), hand.write(tmp_path / "dt.json", [])
    numbers = evaluate_result_files(gt, dt, "bbox")
    assert numbers.metrics["bbox/AP"] == 0 and any("no detection" in note for note in numbers.notes)


def test_class_numbers_in_place_of_category_ids_are_told(hand, tmp_path, truth):
    found = read(hand, tmp_path, truth, [GOOD | {"category_id": 0}, ALSO | {"category_id": 1}])
    assert any("class numbers from 0" in note for note in found.notes)


def test_corners_in_place_of_sizes_and_equal_scores_are_told(hand, tmp_path, truth):
    corners = [GOOD | {"bbox": [40 + i, 50, 90 + i, 95], "score": 1.0} for i in range(8)]
    columns = read_ground_truth(truth, "bbox")
    told = " ".join(coco_evaluate(columns, read(hand, tmp_path, truth, corners), "bbox").notes)
    assert told.count("look like x0") == 1 and told.count("have the score") == 1
    assert " ".join(coco_evaluate(truth, corners, "bbox").notes) == told.replace(
        str(tmp_path / "dt.json"), "the results"
    )
    assert "look like x0, y0, x1, y1" in told and "all 8 detections have the score 1" in told


def test_the_shared_bad_files(shared, tmp_path):
    gt = shared("data/bad/coco") / "valid.json"
    folder = shared("data/bad/coco_preds")
    dropped = {"nan_score": 1, "nan_box": 1, "unknown_category": 1, "negative_size_box": 1}
    whole = evaluate_result_files(gt, folder / "valid.json", "bbox", resamples=0)
    assert whole.notes == [] or all("dropped" not in note for note in whole.notes)
    for name, count in dropped.items():
        numbers = evaluate_result_files(gt, folder / f"{name}.json", "bbox", resamples=0)
        assert numbers.info["detections"] == whole.info["detections"] - count
        assert any("dropped" in note and f"{name}.json" in note and "1 of 2" in note for note in numbers.notes), name
    for name in ("missing_score", "unknown_image"):
        with pytest.raises(DataError, match=rf"{name}\.json"):
            evaluate_result_files(gt, folder / f"{name}.json", "bbox")
    assert evaluate_result_files(gt, folder / "empty.json", "bbox", resamples=0).metrics["bbox/AP"] == 0


def covered(counts):
    """Pixels of each mask's runs; -1 for broken ones."""
    found = measure_run_lengths(counts)
    return np.where(found.faults > 0, -1, found.covered).tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1)), max_size=6), st.integers(0, 2**32 - 1)
)
def test_run_lengths_of_any_masks_fill_them(shapes, seed):
    rng = np.random.default_rng(seed)
    masks = [np.asfortranarray(rng.random((height, width)) < share, np.uint8) for height, width, share in shapes]
    counts = [coco_mask.encode(mask)["counts"] for mask in masks]
    expected = [mask.size for mask in masks]
    assert covered(counts) == expected
    assert covered([one.decode() for one in counts]) == expected


def test_large_runs_are_summed_and_broken_ones_harm_no_other():
    mask = np.zeros((3000, 2000), np.uint8, order="F")
    mask[5:2990, 1000:1500] = 1
    whole = coco_mask.encode(mask)["counts"]
    expected = [6_000_000, -1, 0, 6_000_000, -1, -1, 6_000_000]
    assert covered([whole, b"P", b"", whole, "\x10", b"~" * 30, whole]) == expected


def compressed(runs):
    """COCO's text of run lengths, whatever they are; pycocotools writes whole ones only."""
    text = ""
    for i, run in enumerate(runs):
        rest, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(bits + 32 * more + 48)
    return text


def test_a_negative_run_is_found_though_the_runs_fill_the_mask():
    """pycocotools reads it as billions of pixels and says nothing."""
    mask = np.zeros((80, 100), np.uint8, order="F")
    mask[10:30, 20:60:7] = 1
    whole = coco_mask.encode(mask)["counts"].decode()
    runs = coco_mask.frPyObjects({"size": [80, 100], "counts": [100, 40, 60, 7800]}, 80, 100)["counts"].decode()
    assert compressed([100, 40, 60, 7800]) == runs
    shares = ([10, -5, 7995], [5, 5, -20, 8010], [-3, 8003], [3, 4, 5, -7, 7995], [2**31, 8000 - 2**31])
    hidden = [compressed(runs) for runs in shares]
    assert covered([whole, *hidden, whole]) == [8000, -1, -1, -1, -1, -1, 8000]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"size": [50, 50], "counts": [2500]}, "size"),
        ({"size": [100, 100], "counts": [50, 30]}, "has runs over 80 pixels"),
        ({"size": [100, 100], "counts": [10500, -500]}, "has a negative run length"),
        ({"size": [100, 100], "counts": "\x10\x11"}, "outside the alphabet"),
        ({"size": [100, 100], "counts": "PPPP"}, "ends inside a run"),
        ({"size": [100], "counts": "0"}, "expected [height, width]"),
        ({"size": 100, "counts": "0"}, "expected [height, width]"),
        ({"size": ["100", "100"], "counts": "0"}, "expected [height, width]"),
        ({"size": [-100, -100], "counts": [10000]}, "expected [height, width]"),
        ({"size": [0, 0], "counts": [0, 0]}, "expected [height, width]"),
        ({"size": [100, 100], "counts": None}, "neither a string nor a list of whole"),
        ({"size": [100, 100], "counts": [5000.5, 4999.5]}, "neither a string nor a list of whole"),
        (["0"], "polygon 0 is '0', not a list of numbers"),
    ],
)
def test_broken_masks_are_named(hand, tmp_path, truth, segmentation, words):
    for annotation in truth["annotations"]:
        annotation["segmentation"] = [[0, 0, 20, 0, 20, 20, 0, 20]]
    record = {"image_id": 2, "category_id": 1, "score": 0.5, "segmentation": segmentation}
    with pytest.raises(DataError, match=r"dt\.json") as caught:
        read(hand, tmp_path, truth, [record], "segm")
    assert words in str(caught.value) and "image 2" in str(caught.value)


def test_numbers_go_to_json_as_metrics_json_has_them(shared, tmp_path):
    folder = shared("data/cocoeval_sample/val2014_100")
    numbers = evaluate_result_files(folder / "gt_instances.json", folder / "det_segm.json", "segm", resamples=100)
    numbers.write(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["segm/AP"] == pytest.approx(0.3195452758576433, abs=1e-12)  # pycocotools 2.0.11
    low, high = written["intervals"]["segm/AP"]
    assert low < high < written["segm/AP"], "100 images of 80 classes are too few for the number itself"
    assert any("the interval is corrected for that" in note for note in written["notes"])
    assert written["reasons"] == numbers.reasons and set(written["reasons"]) == {
        key for key, value in written.items() if "/" in key and value is None
    }
