"""Large result files are read some MiB at a time, with the columns and the words that the whole file gives."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from vertebra_eval.coco import read_detections, read_ground_truth
from vertebra_eval.errors import DataError
from vertebra_eval.files import json_file, json_list_parts

KEYPOINTS = {"keypoints": [10.0, 20.0, 2, 30.5, 40, 1]}
MASK = np.zeros((100, 100), np.uint8, order="F")
MASK[5:50, 20:28] = 1
RLE = {"segmentation": {"size": [100, 100], "counts": coco_mask.encode(MASK)["counts"].decode()}}
FIELDS = {"bbox": {"bbox": [10, 20.5, 30, 40]}, "keypoints": KEYPOINTS, "segm": RLE}


@pytest.fixture
def truth():
    images = [{"id": number, "height": 100, "width": 100} for number in (1, 2, 3)]
    objects = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 900, "iscrowd": 0, **KEYPOINTS}
        | {"num_keypoints": 2, "segmentation": [[10, 20, 40, 20, 40, 60]]}
    ]
    categories = [{"id": 1, "name": "a", "keypoints": ["x", "y"]}, {"id": 2, "name": "b"}]
    return {"images": images, "annotations": objects, "categories": categories}


def results(task, count=40):
    return [
        {"image_id": 1 + n % 3, "category_id": 1 + n % 2, "score": n / count, **FIELDS[task], "note": "}, {"}
        for n in range(count)
    ]


def outcome(path, columns, task):
    try:
        found = read_detections(path, columns, task)
    except DataError as err:
        return str(err)
    arrays = {name: getattr(found, name) for name in ("image", "category", "boxes", "areas", "scores", "keypoints")}
    arrays = {name: None if array is None else (array.dtype, array.tolist()) for name, array in arrays.items()}
    return arrays, None if found.masks is None else list(found.masks), found.notes


def both(monkeypatch, path, truth, task):
    columns = read_ground_truth(truth, task)
    whole = outcome(path, columns, task)
    sizes = []
    with monkeypatch.context() as patch:
        patch.setattr(json_file, "_PART", 300)
        patch.setattr(json_file, "_TAIL", 250)
        with contextlib.suppress(ValueError):
            sizes = [len(part) for part in json_list_parts(path)]
        return outcome(path, columns, task), whole, sizes


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",", ":")}])
@pytest.mark.parametrize("task", FIELDS)
def test_the_columns_are_those_of_the_whole_file(tmp_path, monkeypatch, truth, task, layout):
    path = tmp_path / "dt.json"
    records = [{name: value for name, value in one.items() if name != "note"} for one in results(task)]
    path.write_text(json.dumps(records, **layout))
    parts, whole, sizes = both(monkeypatch, path, truth, task)
    assert parts == whole and len(sizes) > 5 and sum(sizes) == 40
    assert not parts[2]


@pytest.mark.parametrize(
    "change",
    [
        {"note": "}, {"},
        {"more": [{"a": 1}, {"b": 2}]},
        {"score": float("nan")},
        {"score": "high"},
        {"score": "0.5"},
        {"category_id": 7},
        {"image_id": 9},
        {"bbox": [1, 2, 3]},
        {"bbox": None, **RLE},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 20, 39])
def test_what_is_odd_is_told_of_the_whole_file(tmp_path, monkeypatch, truth, change, place):
    records = [{name: value for name, value in one.items() if name != "note"} for one in results("bbox")]
    records[place] |= change
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(records))
    parts, whole, _ = both(monkeypatch, path, truth, "bbox")
    assert parts == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1, 2]", "[{}] x", '[{"image_id": 1}', "null", '"}, {"'])
def test_other_files_are_told_apart_as_before(tmp_path, monkeypatch, truth, text):
    path = tmp_path / "dt.json"
    path.write_text(text)
    parts, whole, _ = both(monkeypatch, path, truth, "bbox")
    assert parts == whole


VALUES = st.recursive(
    st.none() | st.integers() | st.text('}{,[]"\\ :ü', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('},{"', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text("ab}{", max_size=2), VALUES, max_size=3), max_size=12), st.integers(1, 60))
@settings(deadline=None, max_examples=150)
def test_any_list_comes_whole_or_not_at_all(tmp_path_factory, records, size):
    path = tmp_path_factory.getbasetemp() / "list.json"
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_file, "_PART", size)
        patch.setattr(json_file, "_TAIL", 40)
        try:
            assert [one for part in json_list_parts(path) for one in part] == records
        except ValueError:
            assert "}, {" in str(records) or any(sign in json.dumps(records) for sign in ("},", "} ,"))


def test_another_number_of_keypoints_later_is_told_of_the_whole_file(tmp_path, monkeypatch, truth):
    records = [{name: value for name, value in one.items() if name != "note"} for one in results("keypoints")]
    for one in records[20:]:
        one["keypoints"] = [1.0, 2.0, 2.0]
    path = tmp_path / "dt.json"
    path.write_text(json.dumps(records))
    parts, whole, sizes = both(monkeypatch, path, truth, "keypoints")
    assert parts == whole and "keypoints" in whole and len(sizes) > 5


def test_a_record_longer_than_where_cuts_are_looked_for_first_does_not_make_one_part_of_all(tmp_path, monkeypatch):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"a": "x" * 100} for _ in range(50)]))
    monkeypatch.setattr(json_file, "_PART", 300)
    monkeypatch.setattr(json_file, "_TAIL", 4)
    assert len(list(json_list_parts(path))) > 10


def test_nesting_without_end_has_the_words_of_the_careful_reader(tmp_path, truth):
    path = tmp_path / "dt.json"
    path.write_text('[{"a": ' + "[" * 200_000 + "]" * 200_000 + "}]")
    assert "cannot be read as JSON" in outcome(path, read_ground_truth(truth, "bbox"), "bbox")


def test_masks_of_polygons_are_read_whole(tmp_path, monkeypatch, truth):
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([one | {"segmentation": [[1, 1, 9, 1, 9, 9.5]]} for one in results("segm")]))
    parts, whole, _ = both(monkeypatch, path, truth, "segm")
    assert parts == whole and np.isfinite(parts[0]["areas"][1]).all()


@pytest.mark.parametrize("score", ["0.5", [0.5], {}])
def test_a_score_that_is_no_number_is_refused(tmp_path, truth, score):
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": score}]))
    with pytest.raises(DataError, match=r"dt\.json: record 0 \(image 1\): score is .*, expected a number"):
        read_detections(path, read_ground_truth(truth, "bbox"), "bbox")
