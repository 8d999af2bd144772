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


def annotated(**changes):
    return GT | {"annotations": [GT["annotations"][0] | changes]}


def read(records, task="bbox"):
    return read_detections(records, read_ground_truth(GT, task), task)


def test_truncated_results_name_the_file(tmp_path):
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([GOOD] * 3)[:-20])
    with pytest.raises(DataError, match=r"dt\.json: line 1, column \d+: .* not valid JSON"):
        coco_evaluate(GT, path)
    with pytest.raises(DataError, match=r"missing\.json"):
        coco_evaluate(tmp_path / "missing.json", [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "record 1 with image_id 99; its ids look like 10, 20"),
        ({"image_id": "10"}, "record 1 with image_id '10'"),
        ({"bbox": [1, 2, 3]}, r"record 1 \(image 10\): bbox is .*, expected 4"),
        ({"bbox": [1, 2, 3, "x"]}, r"record 1 \(image 10\): bbox is .*, expected 4"),
        ({"score": "high"}, r"record 1 \(image 10\): score is .*, expected a number"),
        ({"score": 10**400}, r"record 1 \(image 10\): score is .*, expected a number"),
        ({"score": [0.5]}, r"record 1 \(image 10\): score is .*, expected a number"),
        ({"bbox": "1234"}, r"record 1 \(image 10\): bbox is .*, expected 4"),
        ({"bbox": {"1": 1, "2": 2, "3": 3, "4": 4}}, r"record 1 \(image 10\): bbox is .*, expected 4"),
        ({"bbox": [0, 0, 10**400, 1]}, r"record 1 \(image 10\): bbox is .*, expected 4"),
        ({"bbox": None}, r"record 1 \(image 10\): bbox is .*, expected 4"),
        ({"image_id": [10]}, r"record 1: image_id is \[10\], expected a whole number or a text"),
        ({"category_id": {}}, r"record 1: category_id is \{\}, expected a whole number or a text"),
        ({"score": ...}, r"record 1 \(image 10\): has no score"),
        ({"category_id": ...}, "record 1 has no category_id"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(change, words):
    bad = {key: value for key, value in (GOOD | change).items() if value is not ...}
    with pytest.raises(DataError, match=words):
        read([GOOD, bad, GOOD])


@pytest.mark.parametrize("box", [None, 5, "abc"])
def test_a_first_record_without_a_box_that_is_one_is_named(box):
    with pytest.raises(DataError, match=r"record 0( \(image 10\): bbox is| has neither)"):
        read([GOOD | {"bbox": box}, GOOD])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [1, 2, 3]}, r"record 2 \(image 10\): bbox is"),
        ({"score": "high"}, r"record 2 \(image 10\): score is"),
        ({"segmentation": {"size": [20, 31], "counts": "PPYo1"}}, r"record 2 \(image 10\): segmentation has size"),
        ({"segmentation": None, "bbox": [1, 2, 3]}, r"record 2 \(image 10\): bbox is"),
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
        DataError, match=r"record 0 \(image 10\): segmentation has size \[20, 31\], its image \[20, 30\]"
    ):
        read([record | {"segmentation": mask}], "segm")
    with pytest.raises(DataError, match="segmentation is neither a list of polygons nor a run length mask"):
        read([record | {"segmentation": {"counts": "x"}}], "segm")
    with pytest.raises(DataError, match="neither bbox nor segmentation nor keypoints"):
        read([record])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([GOOD], "the root is a list, as in a file of detections"),
        ({"images": []}, 'the key "categories" is missing'),
        ({"images": [{}], "categories": []}, r"images\[0\]: has no id"),
        (
            annotated(bbox=[0, 0, -1, 5]),
            r"annotations\[0\] \(id 1, image 10\): bbox \[0, 0, -1, 5\] has a negative width",
        ),
        (annotated(bbox=None), r"annotations\[0\] \(id 1, image 10\): bbox is missing"),
        (GT | {"annotations": {}}, '"annotations" must be a list, not dict'),
        (GT | {"images": [{"id": [10]}]}, r"images\[0\]: id is \[10\], expected a whole number or a text"),
        (annotated(category_id=[3]), r"annotations\[0\] .*: category_id \[3\] is not among the categories"),
    ],
)
def test_ground_truth_that_cannot_be_used(source, words):
    with pytest.raises(DataError, match=words):
        read_ground_truth(source, "bbox")


@pytest.mark.parametrize(
    "polygons",
    [
        *(
            [[1, 2]],
            [[1, 2, 3, 4]],
            [[1, 2, 3, 4, 5]],
            [["a"] * 6],
            [[None] * 6],
            "abc",
            5,
            [[0, 0, 0, 4, 4, float("nan")]],
        ),
    ],
)
def test_polygons_that_are_none_are_named_and_never_drawn(polygons):
    """pycocotools would stop without a word on where, or not stop at all."""
    stranger = GT["annotations"][0] | {"id": 1, "image_id": 99}  # is dropped
    records = [stranger, GT["annotations"][0] | {"id": 2, "segmentation": polygons}]
    with pytest.raises(DataError, match=r"annotations\[1\] \(id 2, image 10\): segmentation"):
        read_ground_truth(GT | {"annotations": records}, "segm")
    del records[1]["area"]  # it is to be measured then, for boxes too
    with pytest.raises(DataError, match=r"annotations\[1\] \(id 2, image 10\): segmentation"):
        read_ground_truth(GT | {"annotations": records}, "bbox")


@pytest.mark.parametrize("point", [[1, 2], [1, 2, 3, 4]])
def test_polygons_that_enclose_nothing_are_dropped_beside_others(point):
    annotation = GT["annotations"][0] | {"segmentation": [point, [0, 0, 4, 0, 4, 4, 0, 4]]}
    truth = read_ground_truth(GT | {"annotations": [annotation]}, "segm")
    assert truth.masks.areas().tolist() == [16.0]
    assert truth.notes == ["polygons of less than 3 points, dropped: 1 (first: annotation 1 of image 10)"]


@pytest.mark.parametrize("height", ["tall", 10**30, -5, 1.5])
def test_an_image_size_that_is_none_is_noted_and_matters_to_polygons_alone(height):
    images = [{"id": 10, "height": height, "width": 30}]
    numbers = coco_evaluate(GT | {"images": images}, [GOOD])
    assert numbers["bbox/AP"] == pytest.approx(1)
    assert any(f"images[0] (id 10): height and width are {height!r} and 30" in note for note in numbers.notes)
    polygons = annotated(segmentation=[[0, 0, 4, 0, 4, 4]]) | {"images": images}
    with pytest.raises(DataError, match="needs height and width of the image"):
        read_ground_truth(polygons, "segm")


@pytest.mark.parametrize("far", [2e6, -1e30])
def test_polygons_that_reach_absurdly_far_are_cut_at_the_border(far):
    """pycocotools would walk along the whole outline, and never come to its end."""
    annotation = GT["annotations"][0] | {"segmentation": [[0, 0, far, 0, far, 10, 0, 10]]}
    truth = read_ground_truth(GT | {"annotations": [annotation]}, "segm")
    assert truth.masks.areas().tolist() == [300.0 if far > 0 else 0.0][: len(truth)]
    assert "masks that reach far out of their image, cut: 1 (first: annotation 1 of image 10)" in truth.notes


@pytest.mark.parametrize("area", ["large", float("nan"), [1], 10**400])
def test_an_area_that_is_no_finite_number_is_computed(area):
    truth = read_ground_truth(GT | {"annotations": [GT["annotations"][0] | {"area": area}]}, "bbox")
    assert truth.areas.tolist() == [100.0]
    what = "areas that are not finite numbers; they are computed"
    assert any(note.startswith(what.split(";")[0]) for note in truth.notes)
    text = read_ground_truth(GT | {"annotations": [GT["annotations"][0] | {"area": "99"}]}, "bbox")
    assert text.areas.tolist() == [99.0]


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
    assert note.startswith("2 annotations are of images or categories that")
    assert "first annotations[1] (id 2): image_id 99 is not" in note
    assert read_ground_truth(GT, "bbox", image_ids=[20]).notes == []  # these were not requested


def test_detections_of_another_skeleton_name_their_file(tmp_path):
    truth = GT | {"annotations": [GT["annotations"][0] | {"keypoints": [1, 2, 2] * 3}]}
    path = tmp_path / "dt.json"
    path.write_text(json.dumps([GOOD | {"keypoints": [1, 2, 2] * 2}]))
    with pytest.raises(DataError, match=r"dt\.json: 2 keypoints in a record, but 3 in the ground truth"):
        coco_evaluate(truth, path, "keypoints")
