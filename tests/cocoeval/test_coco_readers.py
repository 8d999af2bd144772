"""Bad files: an error that names file and record, or a documented drop with its count."""

import json

import pytest

from vertebra.errors import DataError
from vertebra_eval.coco import coco_evaluate, read_detections, read_ground_truth

GT = {
    "images": [{"id": 10, "height": 20, "width": 30}, {"id": 20, "height": 20, "width": 30}],
    "categories": [{"id": 3, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}],
}
GOOD = {"image_id": 10, "category_id": 3, "bbox": [0.0, 0.0, 10.0, 10.0], "score": 0.9}


def read(records, task="bbox"):
    return read_detections(records, read_ground_truth(GT, task), task)


def test_truncated_results_name_the_file(tmp_path):
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([GOOD] * 3)[:-20])
    with pytest.raises(DataError, match=r"dt\.json: cannot be read as JSON"):
        coco_evaluate(GT, path)
    with pytest.raises(DataError, match=r"missing\.json"):
        coco_evaluate(tmp_path / "missing.json", [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "record 1 with image_id 99; its ids look like 10, 20"),
        ({"image_id": "10"}, "record 1 with image_id '10'"),
        ({"bbox": [1, 2, 3]}, "record 1 has a bbox that is not 4 numbers"),
        ({"bbox": [1, 2, 3, "x"]}, "record 1 has a bbox that is not 4 numbers"),
        ({"score": "high"}, "record 1 has no number as score"),
        ({"score": 10**400}, "record 1 has no number as score"),
        ({"score": [0.5]}, "record 1 has no number as score"),
        ({"bbox": "1234"}, "record 1 has a bbox that is not 4 numbers"),
        ({"bbox": {"1": 1, "2": 2, "3": 3, "4": 4}}, "record 1 has a bbox that is not 4 numbers"),
        ({"bbox": [0, 0, 10**400, 1]}, "record 1 has a bbox that is not 4 numbers"),
        ({"bbox": None}, "record 1 has a bbox that is not 4 numbers"),
        ({"image_id": [10]}, "record 1 has no number or text as image_id"),
        ({"category_id": {}}, "record 1 has no number or text as category_id"),
        ({"score": ...}, "record 1 has no score"),
        ({"category_id": ...}, "record 1 has no category_id"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(change, words):
    bad = {key: value for key, value in (GOOD | change).items() if value is not ...}
    with pytest.raises(DataError, match=words):
        read([GOOD, bad, GOOD])


@pytest.mark.parametrize("box", [None, 5, "abc"])
def test_a_first_record_without_a_box_that_is_one_is_named(box):
    with pytest.raises(DataError, match="record 0 has"):
        read([GOOD | {"bbox": box}, GOOD])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 2, 3]}, "record 2 has a bbox"),
        ({"score": "high"}, "record 2 has no number as score"),
        ({"segmentation": {"size": [20, 31], "counts": "PPYo1"}}, "record 2: segmentation has size"),
        ({"segmentation": None, "bbox": [1, 2, 3]}, "record 2 has a bbox"),
    ],
)
def test_records_are_numbered_as_in_the_file_though_some_were_left_out(change, words):
    mask = {"segmentation": {"size": [20, 30], "counts": [600]}}
    records = [GOOD | mask | {"category_id": 77}, GOOD | mask, GOOD | mask | change]
    with pytest.raises(DataError, match=words):
        read(records, "segm" if "segmentation" in change else "bbox")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": None}, "1 of 3 detections have a NaN score or a place that is not finite"),
        ({"score": float("nan")}, "1 of 3 detections have a NaN score or a place that is not finite .* first record 1"),
        ({"bbox": [0, 0, float("inf"), 1]}, "1 of 3 detections have a NaN score or a place that is not finite"),
        ({"bbox": [0, 0, 1e200, 1e200]}, "1 of 3 detections have a NaN score or a place that"),  # its area is not
        ({"bbox": [5, 5, -2, 3]}, "1 of 3 detections have a box of negative width or height .* first record 1"),
        ({"category_id": 77}, "1 of 3 detections are of categories .* category_id 77"),
    ],
)
def test_a_bad_detection_is_left_out_and_counted_and_nothing_else_is_lost(change, words):
    detections = read([GOOD, GOOD | change, GOOD | {"score": 0.5}])
    assert detections.scores.tolist() == [0.9, 0.5]
    assert len(detections.notes) == 1
    with pytest.raises(DataError, match=words):
        raise DataError(detections.notes[0])


@pytest.mark.parametrize("text", ["Infinity", "1e999"])  # Python's json reads both, JSON itself has only the second
def test_an_infinite_score_is_read_and_noted(text, tmp_path):
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([GOOD | {"bbox": [9, 9, 9, 9]}, GOOD | {"score": "?"}]).replace('"?"', text))
    numbers = coco_evaluate(GT, path)
    assert numbers["bbox/AP"] == pytest.approx(1, abs=1e-12)
    assert numbers.detections.scores.tolist() == [0.9, float("inf")]
    assert any("1 of 2 detections have an infinite score" in note for note in numbers.notes)


def test_detections_of_images_that_were_not_chosen_are_left_out_silently():
    truth = read_ground_truth(GT, "bbox", image_ids=[20])
    detections = read_detections([GOOD], truth, "bbox")
    assert len(detections) == 0 and not detections.notes
    with pytest.raises(DataError, match="no image 5"):
        read_ground_truth(GT, "bbox", image_ids=[5])


def test_masks_of_another_size_than_the_image_or_no_masks():
    mask = {"size": [20, 31], "counts": "PPYo1"}
    record = {"image_id": 10, "category_id": 3, "score": 1.0}
    with pytest.raises(
        DataError, match=r"image 10: record 0: segmentation has size \[20, 31\] .* the image \[20, 30\]"
    ):
        read([record | {"segmentation": mask}], "segm")
    with pytest.raises(DataError, match="record 0: segmentation is not a run-length mask"):
        read([record | {"segmentation": {"counts": "x"}}], "segm")
    with pytest.raises(DataError, match="neither bbox nor segmentation nor keypoints"):
        read([record])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([GOOD], "COCO ground truth is a dict"),
        ({"images": []}, "images, annotations and categories"),
        ({"images": [{}], "categories": []}, "record 0 has no id"),
        (GT | {"annotations": [GT["annotations"][0] | {"bbox": [0, 0, -1, 5]}]}, "annotation 1 has the box"),
        (GT | {"annotations": [{"image_id": 10, "category_id": 3, "id": 1}]}, "record 0 has no bbox"),
        (GT | {"annotations": {}}, "list of objects"),
        (GT | {"images": [{"id": [10]}]}, "images: record 0 has no number or text as id"),
        (GT | {"images": [{"id": 10, "height": "tall", "width": 5}]}, "image 10 has height 'tall'"),
        (GT | {"images": [{"id": 10, "height": 10**30, "width": 5}]}, "image 10 has height"),
        (GT | {"images": [{"id": 10, "height": -5, "width": 5}]}, "image 10 has height -5"),
        (GT | {"annotations": [GT["annotations"][0] | {"category_id": [3]}]}, "record 0 has no number or text"),
        (GT | {"annotations": [GT["annotations"][0] | {"area": "large"}]}, "record 0 has no number as area"),
    ],
)
def test_ground_truth_that_cannot_be_used(source, words):
    with pytest.raises(DataError, match=words):
        read_ground_truth(source, "bbox")


@pytest.mark.parametrize(
    "polygons",
    [
        *([[1, 2]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [["a"] * 6], [[None] * 6], "abc", 5),
        *([[0, 0, 0, 4, 4, float("nan")]], [[0, 0, 1e30, 0, 4, 4]]),
    ],
)
def test_polygons_that_are_none_are_named_and_never_drawn(polygons):
    """pycocotools would stop without a word on where, or not stop at all."""
    stranger = GT["annotations"][0] | {"id": 1, "image_id": 99}  # is dropped
    records = [stranger, GT["annotations"][0] | {"id": 2, "segmentation": polygons}]
    with pytest.raises(DataError, match="image 10: record 1: segmentation is not a list of polygons"):
        read_ground_truth(GT | {"annotations": records}, "segm")
    del records[1]["area"]  # it is to be measured then, for boxes too
    with pytest.raises(DataError, match="image 10: record 1: segmentation is not a list of polygons"):
        read_ground_truth(GT | {"annotations": records}, "bbox")


@pytest.mark.parametrize("points", [5, "abc", [1, 2], [1, 2, "x"], [1, 2, None, 4]])
def test_keypoints_that_are_none_are_named(points):
    records = [GT["annotations"][0] | {"keypoints": [1, 2, 2]}, GT["annotations"][0] | {"keypoints": points}]
    for annotations in (records, records[::-1]):
        with pytest.raises(DataError, match="keypoints"):
            read_ground_truth(GT | {"annotations": annotations}, "keypoints")
        detections = [
            {"image_id": 10, "category_id": 3, "score": 1.0, "keypoints": a["keypoints"]} for a in annotations
        ]
        with pytest.raises(DataError, match="keypoints"):
            read(detections, "keypoints")


def test_what_ground_truth_may_lack():
    record = {"id": 1, "image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 5]}
    truth = read_ground_truth(GT | {"annotations": [record]}, "bbox")
    assert truth.areas.tolist() == [50.0] and not truth.crowd.any() and "no area" in truth.notes[0]
    polygon = {"segmentation": [[0, 0, 0, 4, 4, 4, 4, 0]]}
    both = [record | polygon, record | {"id": 2}]
    truth = read_ground_truth(GT | {"annotations": both}, "segm")
    assert truth.areas.tolist() == [16.0]
    assert "1 ground-truth objects without a mask are ignored" in truth.notes
    truth = read_ground_truth(GT | {"annotations": [record]}, "keypoints")
    assert truth.ignored.tolist() == [True]  # takes detections, but is not to be found


def test_an_annotation_with_id_0_is_noted_as_it_never_counts_as_found():
    truth = GT | {"annotations": [GT["annotations"][0] | {"id": 0}]}
    numbers = coco_evaluate(truth, [GOOD], "bbox")
    assert numbers["bbox/AP"] == 0
    assert any("the id 0, which pycocotools never counts as found" in note for note in numbers.notes)


def test_annotations_that_share_an_id_are_noted_and_each_counts():
    other = {"bbox": [10, 10, 5, 5]}
    truth = GT | {"annotations": [GT["annotations"][0], GT["annotations"][0] | other]}
    numbers = coco_evaluate(truth, [GOOD, GOOD | other])
    assert numbers["bbox/AP"] == pytest.approx(1) and numbers["bbox/AR1"] == 0.5
    assert any("1 annotations have the id of another" in note for note in numbers.notes)


def test_categories_that_share_a_name_keep_their_own_numbers():
    categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}]
    numbers = coco_evaluate(GT | {"categories": categories}, [GOOD])
    assert numbers["bbox/AP-cat (3)"] == pytest.approx(1) and numbers["bbox/AP-cat (5)"] is None
    assert "bbox/AP-dog" in numbers and "bbox/AP-cat" not in numbers


def test_annotations_of_images_or_categories_that_are_not_listed_are_counted():
    good = GT["annotations"][0]
    records = [good, good | {"id": 2, "image_id": 99}, good | {"id": 3, "category_id": 4}]
    truth = read_ground_truth(GT | {"annotations": records}, "bbox")
    assert len(truth) == 1
    (note,) = truth.notes
    assert note.startswith("2 annotations are of images or categories that") and note.endswith("first record 1")
    assert read_ground_truth(GT, "bbox", image_ids=[20]).notes == []  # these were not requested


def test_detections_of_another_skeleton_name_their_file(tmp_path):
    truth = GT | {"annotations": [GT["annotations"][0] | {"keypoints": [1, 2, 2] * 3}]}
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([GOOD | {"keypoints": [1, 2, 2] * 2}]))
    with pytest.raises(DataError, match=r"dt\.json: 2 keypoints in a record, but 3 in the ground truth"):
        coco_evaluate(truth, path, "keypoints")
