"""Inputs that are odd and legal, or nearly: a number or one message, never a traceback or another number."""

import json

import numpy as np
import pytest
import torch

from vertebra.data import CocoFormat, Dataset, Metadata
from vertebra.data.build import build_train_loader
from vertebra.errors import DataError
from vertebra.evaluation import COCOEvaluator
from vertebra.structures import Boxes, BoxMode, Instances
from vertebra_eval import coco_evaluate, read_coco

IMAGES = [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in (1, 2)]
SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]
FAR = [[200000, 200000, 300000, 200000, 300000, 300000]]
CUT = "masks that reach far out of their image, cut: 1"


def annotation(number, image=1, box=(1, 1, 8, 8), **more):
    return {"id": number, "image_id": image, "category_id": 1, "bbox": list(box), "area": 25, "iscrowd": 0, **more}


def truth(*annotations, images=IMAGES, **category):
    return {"images": images, "categories": [{"id": 1, "name": "c", **category}], "annotations": list(annotations)}


def found(**fields):
    return {"image_id": 1, "category_id": 1, "score": 0.5, **fields}


def test_a_mask_of_which_nothing_lies_in_the_image_is_empty_not_none():
    gt = truth(annotation(1, segmentation=SQUARE))
    numbers = coco_evaluate(gt, [found(segmentation=FAR), found(segmentation=SQUARE, score=0.4)], "segm")
    assert numbers["segm/AR100"] == 1 and numbers["segm/AP"] == pytest.approx(0.5)
    assert f"the results: {CUT} (first record 0)" in numbers.notes
    gt = truth(annotation(1, segmentation=SQUARE), annotation(2, segmentation=FAR))
    numbers = coco_evaluate(gt, [found(segmentation=SQUARE)], "segm")
    assert numbers["segm/AR100"] == 0.5  # an object that cannot be found is missed, as in pycocotools
    assert f"{CUT} (first: annotation 2 of image 1)" in numbers.notes


def test_results_of_which_none_takes_part():
    gt = truth(annotation(1, keypoints=[1, 1, 2] * 17, num_keypoints=17))
    other = found(bbox=[1, 1, 5, 5], keypoints=[1, 1, 1] * 17) | {"category_id": 0}
    numbers = coco_evaluate(gt, [other], "keypoints")
    assert numbers["keypoints/AP"] == 0 and "1 of 1 detections are of categories" in " ".join(numbers.notes)
    del other["bbox"]
    assert coco_evaluate(gt, [other], "keypoints")["keypoints/AP"] == 0
    with pytest.raises(DataError, match=r"record 0 .*keypoints must be numbers"):
        coco_evaluate(gt, [found(keypoints=[])], "keypoints")


def test_null_in_a_box_is_dropped_as_nan_is():
    numbers = coco_evaluate(truth(annotation(1)), [found(bbox=[1, 1, None, 5]), found(bbox=[1, 1, 8, 8])])
    assert numbers["bbox/AR100"] == 1
    assert any("1 of 2 detections have a NaN score or a place that is not finite" in note for note in numbers.notes)


def test_short_polygons_of_results_are_noted():
    gt = truth(annotation(1, segmentation=SQUARE))
    numbers = coco_evaluate(gt, [found(segmentation=[*SQUARE, [1, 1]])], "segm")
    assert "the results: polygons of less than 3 points, dropped: 1 (first record 0)" in numbers.notes


@pytest.mark.parametrize(
    ("size", "counts"), [([65536, 65536], [2**32]), ([2**40, 2**40], [2**80]), ([2**80, 1], [2**80])]
)
def test_run_lengths_of_more_pixels_than_the_format_holds(size, counts):
    images = [{"id": 1, "file_name": "1.jpg"}]
    gt = truth(annotation(1, segmentation={"size": size, "counts": counts}), images=images)
    with pytest.raises(DataError, match="more pixels than COCO's format can hold"):
        coco_evaluate(gt, [], "segm")


def test_a_file_without_images_says_which_are_missing(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(truth(annotation(1, segmentation=SQUARE), images=[])))
    with pytest.raises(DataError, match=r"annotations\[0\] \(id 1\): image_id 1 is not among the images"):
        CocoFormat(str(path), str(tmp_path)).load()


def test_notes_are_of_the_images_and_classes_that_count(tmp_path, caplog):
    outside = [annotation(1, 1, (100, 100, 5, 5)), annotation(2, 1, (100, 100, 5, 5)), annotation(3, 2, (99, 99, 5, 5))]
    numbers = coco_evaluate(truth(*outside), [], image_ids=[2])
    assert "boxes outside their image: 1 (first: annotation 3 of image 2)" in numbers.notes
    content = truth(annotation(1), annotation(2, 1, (1, 1, 0, 5)) | {"category_id": 2})
    content["categories"].append({"id": 2, "name": "other"})
    (tmp_path / "gt.json").write_text(json.dumps(content))
    CocoFormat(str(tmp_path / "gt.json"), str(tmp_path), classes=["c"], missing_images="leave").load()
    assert "without area" not in caplog.text


def test_sizes_that_are_whole_but_for_their_type_are_taken_and_noted():
    images = [{"id": 1, "file_name": "1.jpg", "height": 20.0, "width": 30.0}]
    numbers = coco_evaluate(
        truth(annotation(1, segmentation=SQUARE), images=images), [found(segmentation=SQUARE)], "segm"
    )
    assert numbers["segm/AP"] == pytest.approx(1)
    assert any("height and width are 20.0 and 30.0" in note for note in numbers.notes)


def test_an_id_of_another_type_is_named_as_such():
    data = read_coco(truth(annotation(1) | {"image_id": 1.0}))
    texts = [one.text for one in data.findings()]
    assert texts == [
        "image_id is 1.0, expected a whole number or a text; ids are whole numbers: write 1 (pandas writes 1.0 where a "
        "column has gaps)"
    ]


def perfect(record, size):
    """The object of `truth` as a model's output, in an image of this size."""
    instances = Instances(size)
    instances.pred_boxes, instances.scores = Boxes(torch.tensor([[1.0, 1, 9, 9]])), torch.tensor([0.9])
    instances.pred_classes, masks = torch.tensor([0]), torch.zeros(1, *size, dtype=torch.bool)
    masks[0, 1:9, 1:9] = True
    instances.pred_masks = masks
    return [record], [{"instances": instances}]


def test_the_sizes_of_the_dicts_go_before_those_of_the_file(tmp_path):
    """As where a registered function turns images upright."""
    (tmp_path / "gt.json").write_text(json.dumps(truth(annotation(1, segmentation=SQUARE), images=IMAGES[:1])))
    record = {"image_id": 1, "file_name": "1.jpg", "height": 30, "width": 20, "annotations": []}
    facts = {"thing_classes": ["c"], "json_file": str(tmp_path / "gt.json"), "missing_images": "leave"}
    evaluator = COCOEvaluator(Dataset([record], Metadata("turned").set(**facts)), tasks=["segm"], resamples=0)
    evaluator.process(*perfect(record, (30, 20)))
    assert evaluator.evaluate()["segm/AP"] == pytest.approx(1)


def test_an_image_that_comes_twice_is_one(tmp_path):
    objects = [
        {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
        for box in ((1, 1, 9, 9), (12, 1, 19, 9))
    ]
    record = {"image_id": 1, "file_name": "1.jpg", "height": 20, "width": 30}
    dicts = [record | {"annotations": [one]} for one in objects]
    metadata = Metadata("joined").set(thing_classes=["c"], missing_images="leave")
    evaluator = COCOEvaluator(Dataset(dicts, metadata), tasks=["bbox"], resamples=0)
    evaluator.process(*perfect(record, (20, 30)))
    assert evaluator.evaluate()["bbox/AR100"] == 0.5


def test_another_json_file_than_the_one_that_was_loaded_is_read(tmp_path):
    for name, objects in (("one", [annotation(1)]), ("two", [annotation(1), annotation(2, box=(12, 1, 8, 8))])):
        (tmp_path / f"{name}.json").write_text(json.dumps(truth(*objects, images=IMAGES[:1])))
    dataset = CocoFormat(str(tmp_path / "one.json"), str(tmp_path), missing_images="leave").load()
    dataset.metadata = Metadata("two").set(
        **(dataset.metadata.as_dict() | {"json_file": str(tmp_path / "two.json"), "name": "two"})
    )
    evaluator = COCOEvaluator(dataset, tasks=["bbox"], resamples=0)
    evaluator.process(*perfect(dataset[0], (20, 30)))
    assert evaluator.evaluate()["bbox/AR100"] == 0.5


def test_a_set_that_is_trained_on_keeps_no_columns(monkeypatch, tmp_path):
    from vertebra.config import load_recipe

    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model:\n  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res4], weights: null}\n"
        "  neck: {name: FPN, out_channels: 8}\n  heads: {boxes: {name: RetinaNetHead, num_convs: 0}}\n"
        "data: {train: {format: coco, annotations: gt.json, images: .}, workers: 0}\ntrain: {steps: 1, batch_size: 1}\n"
    )
    (tmp_path / "gt.json").write_text(json.dumps(truth(annotation(1), images=IMAGES[:1])))
    dataset = CocoFormat(str(tmp_path / "gt.json"), str(tmp_path), missing_images="leave").load()
    assert dataset.columns is not None
    loader = build_train_loader(load_recipe(recipe), dataset)
    assert dataset.columns is None and np.size(loader.dataset[0]["annotations"]) == 1
