"""The parameters of COCO evaluation are pycocotools' doubles, bit for bit, and stand in one place."""

import json

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import Params

import vertebra.evaluation.coco_evaluator as evaluator_module
from vertebra.data import Dataset, Metadata
from vertebra.evaluation import COCOEvaluator
from vertebra.structures import Boxes, Instances
from vertebra_eval.coco import COCO_TASKS, CocoParams, coco_evaluate


@pytest.mark.parametrize("task", COCO_TASKS)
def test_defaults_are_the_doubles_of_pycocotools(task):
    own, reference = CocoParams.for_task(task), Params(task)
    assert own.iou_thresholds.tolist() == reference.iouThrs.tolist()
    assert own.recall_thresholds.tolist() == reference.recThrs.tolist()
    assert list(own.max_dets) == reference.maxDets
    assert own.areas.tolist() == np.array(reference.areaRng, dtype=float).tolist()
    assert list(own.area_ranges) == reference.areaRngLbl
    if task == "keypoints":
        assert own.sigmas.tolist() == reference.kpt_oks_sigmas.tolist()


@pytest.mark.parametrize("task", COCO_TASKS)
def test_the_evaluator_has_the_same_whichever_engine_counts(task, monkeypatch):
    """What COCOEvaluator hands to its engines, for a person with 17 keypoints and a mask."""
    annotation = {"bbox": [0, 0, 9, 9], "bbox_mode": 0, "category_id": 0, "keypoints": [3.0, 3.0, 2] * 17}
    annotation["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    record = {"image_id": 1, "file_name": "1.png", "height": 10, "width": 10, "annotations": [annotation]}
    evaluator = COCOEvaluator(Dataset([record], Metadata("one").set(thing_classes=["person"])), tasks=[task])
    given = {}

    def engine(truth, table, task, **arguments):
        given.update(arguments)
        raise StopIteration

    monkeypatch.setitem(evaluator_module._ENGINES, "vertebra", engine)
    with pytest.raises(StopIteration):
        evaluator.evaluate()
    reference = Params(task)
    assert list(given["max_dets"]) == reference.maxDets
    if task == "keypoints":
        assert given["sigmas"].tolist() == reference.kpt_oks_sigmas.tolist()


def _oks(distance, sigma, area):
    return np.exp(-(np.array([distance]) ** 2) / (sigma * 2) ** 2 / (area + np.spacing(1)) / 2)[0]


def _steps(area):
    """The doubles around an area."""
    for _ in range(400):
        area = np.nextafter(area, 0)
    for _ in range(800):
        yield area
        area = np.nextafter(area, np.inf)


def test_a_person_whose_oks_is_exactly_one_half_is_found_by_all(coco, tmp_path):
    """The sigma of the nose, 0.26 / 10, is not the double 0.026: with that one this person is missed at 0.5."""
    nose = Params("keypoints").kpt_oks_sigmas[0]
    distance, area = next(
        (distance, area)
        for distance in range(3, 60)
        for area in _steps(distance**2 / (2 * (2 * nose) ** 2 * np.log(2)))
        if _oks(distance, nose, area) >= 0.5 > _oks(distance, 0.026, area)
    )
    points, found = [0.0] * 51, [0.0] * 51
    points[:3], found[:3] = [100.0, 100.0, 2], [100.0 + distance, 100.0, 1]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 900, 900], "area": float(area)}
    gt = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 1000, "width": 1000}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [annotation | {"iscrowd": 0, "num_keypoints": 1, "keypoints": points}],
    }
    dt = [{"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": found}]
    wanted = coco.reference(gt, dt, "keypoints").stats[1]
    assert wanted == pytest.approx(1)
    assert coco_evaluate(gt, dt, "keypoints")["keypoints/AP50"] == wanted
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(gt))
    metadata = Metadata("noses").set(
        thing_classes=["person"], thing_dataset_id_to_contiguous_id={1: 0}, json_file=str(path)
    )
    record = {"file_name": "a.jpg", "image_id": 1, "height": 1000, "width": 1000}
    for engine in ("vertebra", "pycocotools"):
        evaluator = COCOEvaluator(Dataset([record], metadata), tasks=["keypoints"], resamples=0, engine=engine)
        instances = Instances((1000, 1000), pred_boxes=Boxes(torch.tensor([[0.0, 0, 900, 900]])))
        instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([0])
        instances.pred_keypoints = torch.tensor(found).view(1, 17, 3) + torch.tensor([0.5, 0.5, 0])
        evaluator.process([record], [{"instances": instances}])
        assert evaluator.evaluate()["keypoints/AP50"] == wanted
