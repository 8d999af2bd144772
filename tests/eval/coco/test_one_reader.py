"""One reader of COCO ground truth: training and evaluation accept the same files, with the same words."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.data import CocoFormat, Dataset, Metadata
from vertebra.errors import DataError
from vertebra.evaluation import COCOEvaluator, coco_evaluate
from vertebra.structures import Boxes, Instances
from vertebra_eval.coco import read_coco, read_ground_truth

SQUARE = [10, 10, 50, 10, 50, 50, 10, 50]
OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
OBJECT["segmentation"] = [SQUARE]
ACCEPTED = {  # name: (annotations, what both note)
    "sound": ([OBJECT], None),
    "a vertex 2,000,000 pixels away": (
        [OBJECT | {"segmentation": [[10, 10, 2e6, 10, 50, 50, 10, 50]]}],
        "masks that reach far out of their image, cut: 1 (first: annotation 1 of image 1)",
    ),
    "an empty list of polygons": ([OBJECT | {"segmentation": []}], None),
    "a box of zero width": (
        [OBJECT, OBJECT | {"id": 2, "bbox": [70, 70, 0, 10], "area": 0}],
        "boxes without area{}: 1 (first: annotation 2 of image 1)",
    ),
    "a box outside its image": (
        [OBJECT, OBJECT | {"id": 2, "bbox": [300, 300, 10, 10]}],
        "boxes outside their image{}: 1 (first: annotation 2 of image 1)",
    ),
    "a box that reaches out": (
        [OBJECT | {"bbox": [10, 10, 120, 40]}],
        "boxes that reach out of their image by a pixel or more{}: 1 (first: annotation 1 of image 1)",
    ),
    "no id": (
        [{key: value for key, value in OBJECT.items() if key != "id"}],
        "annotations without an id: 1 (first: annotations[0] of image 1)",
    ),
    "area as text": ([OBJECT | {"area": "1600"}], None),
    "no area": ([{key: value for key, value in OBJECT.items() if key != "area"}], None),
    "area null": ([OBJECT | {"area": None}], None),
    "area NaN": (
        [OBJECT | {"area": float("nan")}],
        "areas that are not finite numbers: 1 (first: annotation 1 of image 1); they are computed",
    ),
    "a negative area": (
        [OBJECT | {"area": -5}],
        "1 of 1 objects have a negative area (first: ",
    ),
    "iscrowd true": ([OBJECT | {"iscrowd": True}], "1 of 1 objects are crowd regions (iscrowd 1; first: "),
    "a second polygon of two points": (
        [OBJECT | {"segmentation": [SQUARE, [10, 10, 50, 10]]}],
        "polygons of less than 3 points, dropped: 1 (first: annotation 1 of image 1)",
    ),
}
REFUSED = {  # name: (change of the object, task that needs it, the words of both)
    "bbox missing": ({"bbox": None}, "bbox", "bbox is missing, expected 4 numbers x, y, w, h"),
    "bbox of three": ({"bbox": [1, 2, 3]}, "bbox", "bbox is [1, 2, 3], expected 4 numbers x, y, w, h"),
    "bbox NaN": ({"bbox": [1, 2, 3, float("nan")]}, "bbox", "bbox [1, 2, 3, nan] is not finite"),
    "bbox negative": ({"bbox": [1, 2, -3, 4]}, "bbox", "bbox [1, 2, -3, 4] has a negative width or height; x, y must"),
    "a flat polygon": ({"segmentation": SQUARE}, "segm", "segmentation is one flat list of numbers; a pair of"),
    "odd polygon": ({"segmentation": [SQUARE[:7]]}, "segm", "segmentation: polygon 0 has 7 numbers; x and y must"),
    "two points": ({"segmentation": [SQUARE[:4]]}, "segm", "segmentation: polygon 0 has 2 points; a polygon needs"),
    "runs that do not add up": (
        {"segmentation": {"size": [100, 100], "counts": [5, 5]}},
        "segm",
        "segmentation has runs over 10 pixels, its image has 10000",
    ),
    "another size": (
        {"segmentation": {"size": [10, 100], "counts": [1000]}},
        "segm",
        "segmentation has size [10, 100], its image [100, 100] (height, width)",
    ),
    "keypoints of five numbers": ({"keypoints": [1, 2, 2, 3, 4]}, "keypoints", "keypoints must be "),
}


@pytest.fixture
def file(tmp_path):
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "a.jpg")

    def write(annotations, categories=({"id": 1, "name": "c", "keypoints": ["k"]},)):
        images = [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 100}]
        content = {"images": images, "categories": list(categories), "annotations": annotations}
        (tmp_path / "gt.json").write_text(json.dumps(content))
        return tmp_path / "gt.json"

    return write


def detected(box, mask=False):
    found = Instances((100, 100))
    found.pred_boxes, found.scores = Boxes(torch.tensor([box])), torch.tensor([0.9])
    found.pred_classes = torch.tensor([0])
    if mask:
        found.pred_masks = torch.zeros(1, 100, 100, dtype=torch.bool)
        found.pred_masks[0, 10:50, 10:50] = True
    return {"instances": found}


@pytest.mark.parametrize("name", ACCEPTED)
def test_both_accept_a_file_with_the_same_words(file, name, caplog):
    annotations, note = ACCEPTED[name]
    path = file(annotations)
    dataset = CocoFormat(str(path), str(path.parent)).load()
    training = "\n".join(caplog.messages)
    evaluator = COCOEvaluator(dataset, tasks=["bbox", "segm"], resamples=0)
    evaluator.process([dataset[0]], [detected([10.0, 10, 50, 50], mask=True)])
    metrics = evaluator.evaluate()
    assert metrics["bbox/AP50"] is not None or name in ("a negative area", "iscrowd true")
    alone = [note for task in ("bbox", "segm") for note in coco_evaluate(path, [], task).notes]
    if note is None:
        assert not training
        return
    assert note.format(", dropped") in training or note.format(", cut") in training
    for notes in (evaluator.notes, alone):
        assert any(note.format("") in one for one in notes), notes


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_a_file_with_the_same_words(file, name):
    change, task, words = REFUSED[name]
    path = file([OBJECT | change])
    messages = []
    for read in (
        lambda: CocoFormat(str(path), str(path.parent)).load(),
        lambda: coco_evaluate(path, [], task),
    ):
        with pytest.raises(DataError) as caught:
            read()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{path}: annotations[0] (id 1, image 'a.jpg'): {words}")


def test_a_name_that_two_categories_have_stops_a_training_and_is_noted_by_evaluation(file):
    path = file([OBJECT], [{"id": 1, "name": "c"}, {"id": 2, "name": "c"}])
    words = "categories[1] (id 2): the name 'c' is taken by id 1 already"
    with pytest.raises(DataError) as caught:
        CocoFormat(str(path), str(path.parent)).load()
    assert str(caught.value) == f"{path}: {words}"
    numbers = coco_evaluate(path, [])
    assert words in numbers.notes and "bbox/AP-c (1)" in numbers


def test_what_a_task_does_not_need_is_not_looked_at(file):
    path = file([OBJECT | {"segmentation": "broken", "keypoints": 5}])
    assert len(read_ground_truth(path, "bbox")) == 1


def test_findings_name_record_kind_severity_and_remedy(file):
    data = read_coco(file([OBJECT | {"bbox": [1, 2, -3, 4]}, OBJECT | {"category_id": "1"}]))
    found = {(one.table, one.kind, one.severity, tuple(one.rows), one.remedy) for one in data.findings()}
    assert found == {
        ("annotations", "bbox", "fatal", (0,), "x, y must be the upper left corner"),
        ("annotations", "category_id", "error", (1,), "the ids are numbers: write 1 without quotes"),
        ("annotations", "id taken", "error", (1,), ""),
    }


def test_raw_columns_keep_every_record_in_its_row(file):
    annotations = [OBJECT, OBJECT | {"id": 7, "image_id": 9, "bbox": "x", "area": None}, OBJECT | {"id": 8}]
    found = read_coco(file(annotations)).annotations
    assert found.ids == [1, 7, 8]
    assert found.image.tolist() == [0, -1, 0] and found.category.tolist() == [0, 0, 0]
    assert np.isnan(found.boxes).any(axis=1).tolist() == [False, True, False]
    assert np.isnan(found.areas).tolist() == [False, True, False]
    assert found.masks.kinds.tolist() == [1, 0, 1]
    assert found.masks.segmentation(2) == [SQUARE]


def test_evaluation_does_not_read_the_file_again(file):
    path = file([OBJECT])
    dataset = CocoFormat(str(path), str(path.parent)).load()
    path.unlink()
    evaluator = COCOEvaluator(dataset, tasks=["bbox", "segm"], resamples=0)
    evaluator.process([dataset[0]], [detected([10.0, 10, 50, 50], mask=True)])
    metrics = evaluator.evaluate()
    assert metrics["bbox/AP"] == pytest.approx(1) and metrics["segm/AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("instances_val", ["bbox", "segm"]), ("person_keypoints_val", ["bbox", "segm", "keypoints"])],
)
def test_numbers_of_the_file_and_of_its_dicts_are_the_same_to_the_last_bit(shared, name, tasks):
    """coco_mini has polygons, run lengths, crowds and keypoints."""
    path = shared(f"data/coco_mini/{name}.json")
    dataset = CocoFormat(str(path), str(path.parent / "images")).load()
    facts = dataset.metadata.as_dict()
    own = Metadata("own").set(**{key: facts[key] for key in facts if key not in ("json_file", "name")})
    of_dicts = Dataset([dict(one) for one in dataset], own)
    metrics = []
    for one in (dataset, of_dicts):
        evaluator = COCOEvaluator(one, tasks=tasks, resamples=0)
        rng = np.random.default_rng(0)
        for record in one:
            evaluator.process([record], [moved(record, rng, keypoints="keypoints" in tasks)])
        metrics.append(evaluator.evaluate())
    assert metrics[0] == metrics[1]
    assert all(0 < metrics[0][f"{task}/AP"] < 1 for task in tasks)
    assert any(metrics[0][f"{task}/{number}"] not in (None, 0) for task in tasks for number in ("APs", "APm", "APl"))


def moved(record, rng, keypoints):
    """Detections near the objects of a record."""
    found = Instances((record["height"], record["width"]))
    annotations = [one for one in record["annotations"] if not one["iscrowd"]]
    boxes = np.array([one["bbox"] for one in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    shift = rng.normal(0, 0.04, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    found.pred_boxes = Boxes(torch.tensor(boxes + shift))
    found.scores = torch.tensor(rng.random(len(boxes)))
    found.pred_classes = torch.tensor([one["category_id"] for one in annotations], dtype=torch.int64)
    masks = torch.zeros(len(boxes), record["height"], record["width"], dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, (boxes + shift).round().astype(int).clip(min=0).tolist(), strict=True):
        mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    found.pred_masks = masks
    if keypoints:
        points = np.array([one.get("keypoints", [0] * 51) for one in annotations], np.float64).reshape(-1, 17, 3)
        found.pred_keypoints = torch.tensor(points + np.array([1, 1, 0]) * rng.normal(0, 1.5, points.shape))
    return {"instances": found}
