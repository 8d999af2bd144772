"""Through `process` and `evaluate`, COCOEvaluator gives pycocotools' own numbers, whichever engine counts."""

import json
from collections import defaultdict

import pytest
import torch

from vertebra.data import Dataset, Metadata
from vertebra.evaluation import COCOEvaluator
from vertebra.structures import Boxes, Instances

both_engines = pytest.mark.parametrize("engine", ["vertebra", "pycocotools"])
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def read(path):
    return json.loads(path.read_text())


def coco_dataset(path, image_ids=None):
    """Images and categories of a COCO file; the annotations are left to `metadata.json_file`."""
    data = read(path)
    categories = sorted(data["categories"], key=lambda category: category["id"])
    metadata = Metadata("coco").set(
        json_file=str(path),
        thing_classes=[category["name"] for category in categories],
        thing_dataset_id_to_contiguous_id={category["id"]: k for k, category in enumerate(categories)},
    )
    dicts = [
        {"image_id": image["id"], "file_name": image["file_name"], "height": image["height"], "width": image["width"]}
        for image in data["images"]
        if image_ids is None or image["id"] in image_ids
    ]
    return Dataset(dicts, metadata)


def feed(evaluator, results, task):
    """COCO results as a model's outputs, image by image in the reverse of the dataset's order."""
    of_image = defaultdict(list)
    for result in results:
        of_image[result["image_id"]].append(result)
    number = evaluator.dataset.metadata.thing_dataset_id_to_contiguous_id
    for record in reversed(evaluator.dataset.dicts):
        found = of_image[record["image_id"]]
        xywh = torch.tensor([r.get("bbox", [0, 0, 1, 1]) for r in found], dtype=torch.float64).reshape(-1, 4)
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
        instances.scores = torch.tensor([r["score"] for r in found])
        instances.pred_classes = torch.tensor([number[r["category_id"]] for r in found], dtype=torch.int64)
        if task == "segm":
            instances.pred_masks = [r["segmentation"] for r in found]
        evaluator.process([record], [{"instances": instances}])


@both_engines
@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("part", ["", "_first50"])
def test_numbers_are_pycocotools_own(shared, tmp_path, task, part, engine):
    root = shared("data/cocoeval_sample")
    expected = read(root / "expected.json")["results"][f"val2014_100_{task}{part}"]
    dataset = coco_dataset(root / expected["gt"], expected["params"].get("imgIds"))
    evaluator = COCOEvaluator(dataset, tmp_path, tasks=None if task == "bbox" else [task], engine=engine)
    inside = {record["image_id"] for record in dataset.dicts}
    detections = [result for result in read(root / expected["det"]) if result["image_id"] in inside]
    feed(evaluator, detections, task)
    metrics = evaluator.evaluate()
    assert [metrics[f"{task}/{name}"] for name in NAMES] == pytest.approx(expected["stats"], rel=0, abs=1e-12)

    names = {category["id"]: category["name"] for category in read(root / expected["gt"])["categories"]}
    per_class = expected["per_category_AP_area_all"]
    assert len(per_class) == 80
    for category_id, values in per_class.items():
        for name in ("AP", "AP50"):
            value = metrics[f"{task}/{name}-{names[int(category_id)]}"]
            if values[name] is None or values[name] == -1:
                assert value is None and evaluator.reasons[f"{task}/{name}-{names[int(category_id)]}"]
            else:
                assert value == pytest.approx(values[name], rel=0, abs=1e-12)


@both_engines
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_result_file_gives_the_same_numbers_to_pycocotools(shared, tmp_path, task, capsys, engine):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    root = shared("data/cocoeval_sample/val2014_100")
    evaluator = COCOEvaluator(coco_dataset(root / "gt_instances.json"), tmp_path, tasks=[task], engine=engine)
    feed(evaluator, read(root / f"det_{task}.json"), task)
    metrics = evaluator.evaluate()
    assert capsys.readouterr().out == ""  # pycocotools prints its progress, we do not

    truth = COCO(str(root / "gt_instances.json"))
    tool = COCOeval(truth, truth.loadRes(str(tmp_path / "coco_results.json")), task)
    tool.evaluate()
    tool.accumulate()
    tool.summarize()
    assert [metrics[f"{task}/{name}"] for name in NAMES] == tool.stats.tolist()


@both_engines
def test_keypoint_numbers_are_pycocotools_own(shared, tmp_path, engine):
    """Ground truth shifted by hand as predictions; pycocotools reads the result file for comparison."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = shared("data/coco_mini/person_keypoints_val.json")
    evaluator = COCOEvaluator(coco_dataset(path), tmp_path, tasks=["keypoints"], engine=engine)
    generator = torch.Generator().manual_seed(0)
    of_image = defaultdict(list)
    for annotation in read(path)["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    for record in evaluator.dataset.dicts:
        found = [a for a in of_image[record["image_id"]] if a.get("num_keypoints")]
        points = torch.tensor([a["keypoints"] for a in found], dtype=torch.float32).reshape(-1, 17, 3)
        points[..., :2] += 0.5 + 4 * torch.randn(points[..., :2].shape, generator=generator)
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(torch.zeros(len(found), 4))
        instances.scores = torch.rand(len(found), generator=generator)
        instances.pred_classes = torch.zeros(len(found), dtype=torch.int64)
        instances.pred_keypoints = points
        evaluator.process([record], [{"instances": instances}])
    metrics = evaluator.evaluate()
    truth = COCO(str(path))
    tool = COCOeval(truth, truth.loadRes(str(tmp_path / "coco_results.json")), "keypoints")
    tool.evaluate()
    tool.accumulate()
    tool.summarize()
    names = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    assert 0.1 < metrics["keypoints/AP"] < 1
    assert [metrics[f"keypoints/{name}"] for name in names] == tool.stats.tolist()
