"""Evaluation of a model on a dataset whose files number the same classes otherwise, or have only some of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vertebra.config import load_recipe
from vertebra.data import CocoFormat, Metadata
from vertebra.data.panoptic_labels import read_panoptic_ids
from vertebra.data.semantic.label_reader import LabelReader
from vertebra.data.shapes.format import ShapesFormat
from vertebra.errors import DataError
from vertebra.evaluation import evaluate
from vertebra.evaluation.subset import SubsetOfClasses
from vertebra.structures import Boxes, Instances

NEW_ID = {1: 30, 2: 10, 3: 20}  # things of `shapes`, renumbered so that their order is another
EVALUATORS = "[{name: COCOEvaluator, resamples: 0}, LVISEvaluator, VOCEvaluator, SemSegEvaluator, PanopticEvaluator]"
RECIPE = f"""
model: {{backbone: {{name: ResNet, depth: 18}}, heads: {{boxes: RetinaNetHead}}}}
data: {{workers: 0, eval_transforms: []}}
evaluate: {{report: false, amp: "off", evaluators: {EVALUATORS}}}
"""


class Oracle(nn.Module):
    """Predicts the ground truth of a dataset in that dataset's numbers, with every fifth object of a wrong class."""

    def __init__(self, dataset):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.metadata = dataset.metadata
        self.records = {record["image_id"]: record for record in dataset}
        self.labels = LabelReader(dataset.metadata)

    def forward(self, inputs):
        return [self.predicted(self.records[one["image_id"]]) for one in inputs]

    def predicted(self, record):
        found = Instances((record["height"], record["width"]))
        boxes = torch.tensor([one["bbox"] for one in record["annotations"]], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = torch.tensor([one["category_id"] for one in record["annotations"]], dtype=torch.int64)
        wrong = torch.arange(len(classes)) % 5 == 4
        found.pred_boxes = Boxes(boxes)
        found.pred_classes = torch.where(wrong, (classes + 1) % 3, classes)
        found.scores = torch.linspace(0.9, 0.1, len(classes))
        labels = torch.from_numpy(self.labels.read(record).astype(np.int64))
        labels[:9] = labels[:9].flip(0)
        ids = torch.from_numpy(read_panoptic_ids(record["pan_seg_file_name"]))
        segments = [dict(one, isthing=bool(one["isthing"])) for one in record["segments_info"]]
        segments[-1]["category_id"] = (segments[-1]["category_id"] + 1) % 3
        return {"instances": found, "sem_seg": labels, "panoptic_seg": (ids, segments)}


@pytest.fixture(scope="module")
def shapes():
    return ShapesFormat(images=2, val_images=12, split="val", labels=["semantic", "panoptic"])


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.fixture
def renumbered(shapes, tmp_path):
    """The same dataset, whose files have other ids and other label numbers."""
    source, names = shapes.folder, shapes.load().metadata.stuff_classes
    for kind in ("instances", "panoptic"):
        data = json.loads((source / "annotations" / f"{kind}_val.json").read_text())
        for category in data["categories"]:
            category["id"] = NEW_ID.get(category["id"], 200 - category["id"])
        for one in data["annotations"]:
            for each in one.get("segments_info", [one]):
                each["category_id"] = NEW_ID.get(each["category_id"], 200 - each["category_id"])
        (tmp_path / f"{kind}.json").write_text(json.dumps(data))
    (tmp_path / "semantic").mkdir()
    order = [4, 0, 6, 1, 5, 2, 3]  # the new number of each label
    table = np.arange(256, dtype=np.uint8)
    table[: len(names)] = order
    for path in (source / "semantic" / "val").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(table[labels]).save(tmp_path / "semantic" / path.name)
    return CocoFormat(
        str(tmp_path / "instances.json"),
        str(source / "images" / "val"),
        sem_seg=str(tmp_path / "semantic"),
        stuff_classes=[names[order.index(number)] for number in range(len(names))],
        ignore_label=shapes.load().metadata.ignore_label,
        panoptic=str(tmp_path / "panoptic.json"),
        panoptic_images=str(source / "panoptic" / "val"),
    ).load()


def test_all_numbers_are_those_of_equal_ids(shapes, renumbered, recipe, tmp_path):
    dataset = shapes.load()
    model = Oracle(dataset)
    assert renumbered.metadata.thing_classes != dataset.metadata.thing_classes
    assert renumbered.metadata.stuff_classes != dataset.metadata.stuff_classes
    wanted = evaluate(model, recipe, dataset=dataset, output_dir=tmp_path / "a").metrics
    found = evaluate(model, recipe, dataset=renumbered, output_dir=tmp_path / "b").metrics
    assert found == wanted
    assert 0.3 < wanted["bbox/AP"] < 1 and 0.3 < wanted["sem_seg/mIoU"] < 1 and 0.3 < wanted["panoptic/PQ"] < 1
    written = json.loads((tmp_path / "b" / "coco_results.json").read_text())
    assert {one["category_id"] for one in written} == set(NEW_ID.values())


def test_a_subset_is_evaluated_as_a_subset_and_says_so(shapes, recipe, tmp_path):
    dataset = shapes.load()
    model = Oracle(dataset)
    file = shapes.folder / "annotations" / "instances_val.json"
    narrow = CocoFormat(str(file), str(shapes.folder / "images" / "val"), classes=["square"]).load()
    boxes = load_recipe(recipe.source, ["evaluate.evaluators=[{name: COCOEvaluator, resamples: 0}]"])
    whole = evaluate(model, boxes, dataset=dataset, output_dir=tmp_path / "a").metrics
    result = evaluate(model, boxes, dataset=narrow, output_dir=tmp_path / "b")
    assert result.metrics["bbox/AP"] == result.metrics["bbox/AP-square"] == whole["bbox/AP-square"]
    assert result.metrics["bbox/AP-circle"] is None and result.reasons["bbox/AP-circle"]
    (note,) = [note for note in result.notes if "subset" in note]
    assert note.startswith("evaluated on a subset of the model's classes: the dataset does not have circle, triangle; ")
    written = json.loads((tmp_path / "b" / "coco_results.json").read_text())
    assert {one["category_id"] for one in written} == {2}
    predicted = torch.cat([model.predicted(record)["instances"].pred_classes for record in dataset])
    assert f"; {int((predicted != 1).sum())} detections and " in note


def test_segments_of_classes_that_the_dataset_does_not_have_are_void():
    metadata = Metadata("val").set(
        thing_classes=["cat", "dog"], stuff_classes=["sky", "road"], absent_things=[1], absent_stuff=[0]
    )
    ids = torch.tensor([[1, 2, 3, 4]])
    segments = [
        {"id": 1, "category_id": 0, "isthing": True},
        {"id": 2, "category_id": 1, "isthing": True},
        {"id": 3, "category_id": 0, "isthing": False},
        {"id": 4, "category_id": 1, "isthing": False},
    ]
    subset = SubsetOfClasses(lambda inputs: [{"panoptic_seg": (ids, segments)}], metadata)
    (output,) = subset([{}])
    assert output["panoptic_seg"][0].tolist() == [[1, 0, 0, 4]]
    assert [one["id"] for one in output["panoptic_seg"][1]] == [1, 4]
    assert subset.note().endswith("does not have dog, sky; 2 segments of these were dropped")


def test_classes_that_the_model_does_not_know_stop_before_anything_is_predicted(shapes, recipe, tmp_path):
    dataset = shapes.load()
    model = Oracle(dataset)
    model.metadata = Metadata("train").set(thing_classes=["circle", "Square", "triangle"])
    model.forward = None
    with pytest.raises(DataError, match=r"(?s)classes of dataset shapes/val do not match those of the model: square.*"):
        evaluate(model, recipe, dataset=dataset, output_dir=tmp_path / "a")


def test_a_model_that_does_not_know_its_classes_takes_the_datasets(shapes, recipe, tmp_path):
    model = Oracle(shapes.load())
    model.metadata = None
    assert evaluate(model, recipe, dataset=shapes.load(), output_dir=tmp_path / "a").metrics["bbox/AP"]
