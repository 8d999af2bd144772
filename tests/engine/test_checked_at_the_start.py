"""What the end of a run needs is checked before its first step."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data import Dataset, Metadata
from vertebra.data.shapes.format import ShapesFormat
from vertebra.engine import Trainer
from vertebra.errors import DataError, RecipeError
from vertebra.evaluation import coco_evaluate
from vertebra.evaluation.run import check_evaluation
from vertebra.runtime.folders import check_can_be_written

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res4], weights: null}
  neck: {name: FPN, out_channels: 8}
  heads: {boxes: {name: RetinaNetHead, num_convs: 0}}
data:
  train: {format: coco, annotations: train.json, images: .}
  val: {format: coco, annotations: val.json, images: .}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 1, batch_size: 1, device: cpu, amp: "off", log_every: 1}
evaluate: {amp: "off", pictures: 1}
"""


def content(**changes):
    record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "annotations": [record | changes],
        "categories": [{"id": 1, "name": "a$b^^$"}],
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save("a.png")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name in ("train.json", "val.json"):
        (tmp_path / name).write_text(json.dumps(content()))
    return tmp_path


def test_a_byte_order_mark_and_a_name_full_of_dollars_do_no_harm(project):
    (project / "val.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content()).encode())
    found = Trainer(load_recipe("recipe.yaml"), "run").train()
    assert found["bbox/AP-a$b^^$"] is not None
    assert "a$b^^$" in (project / "run/evaluation/report.html").read_text()
    assert list((project / "run/evaluation/plots").iterdir())


def test_ground_truth_that_cannot_be_evaluated_stops_before_the_first_step(project):
    (project / "val.json").write_text(json.dumps(content(bbox=[8, 8, 30, float("nan")])))
    with pytest.raises(DataError, match=r"val\.json: annotations\[0\] \(id 1, image 'a\.png'\): bbox .* not finite"):
        Trainer(load_recipe("recipe.yaml"), "run")
    assert not (project / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"area": float("nan")}, "areas that are not finite numbers: 1 (first: annotation 1 of image 1)"),
        ({"area": "large"}, "areas that are not finite numbers: 1 (first: annotation 1 of image 1)"),
        ({"segmentation": [[0, 0, 9, 0, 9, 1e9]]}, "masks that reach far out of their image, cut: 1"),
        ({"segmentation": [[0, 0, 9, 0, 9, 9], [0, 0, 9, 0]]}, "polygons of less than 3 points, dropped: 1"),
    ],
)
def test_what_training_reads_evaluation_reads_with_the_same_words(project, changes, says, caplog):
    (project / "val.json").write_text(json.dumps(content(**changes)))
    trainer = Trainer(load_recipe("recipe.yaml"), "run")
    metrics = trainer.train()
    assert metrics["bbox/AP"] is not None
    assert f"val.json: {says}" in caplog.text
    numbers = coco_evaluate(project / "val.json", [], "segm" if "segmentation" in changes else "bbox")
    assert any(note.startswith(says) for note in numbers.notes)


def test_half_a_character_in_a_class_name_stops():
    with pytest.raises(DataError, match=r"thing_classes\[1\] is 'x\\udcff', which is not text.*lone surrogate"):
        Dataset([], Metadata("odd").set(thing_classes=["a", "x\udcff"]))


@pytest.mark.parametrize("name", ["final.pth", "metrics.jsonl", "log.txt"])
def test_a_folder_in_the_place_of_a_result_stops(project, name):
    (project / "run" / name).mkdir(parents=True)
    with pytest.raises(RecipeError, match=rf"run/{name} is not a file"):
        Trainer(load_recipe("recipe.yaml"), "run")


def test_a_file_in_the_place_of_a_folder_stops(project):
    (project / "run").mkdir()
    (project / "run" / "evaluation").touch()
    with pytest.raises(RecipeError, match="run/evaluation is not a folder"):
        Trainer(load_recipe("recipe.yaml"), "run")
    with pytest.raises(RecipeError, match=r"a\.png is not a folder, so results cannot go to a\.png/x/y"):
        Trainer(load_recipe("recipe.yaml"), "a.png/x/y")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_stops(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(RecipeError, match="locked cannot be written"):
        check_can_be_written(tmp_path / "locked" / "run")


def test_an_evaluation_into_a_file_stops_before_anything_is_predicted(project, command_line):
    Trainer(load_recipe("recipe.yaml", ["data.val=null"]), "run").train()
    done = command_line("evaluate", "recipe.yaml", "-w", "run/final.pth", "-o", "a.png", cwd=project, code=2)
    assert "a.png is not a folder" in done.stderr


@pytest.fixture
def panoptic(tmp_path):
    """(dataset, folder of its PNG files) of generated pictures with panoptic and semantic labels."""
    shapes = ShapesFormat(images=2, val_images=3, split="val", labels=["semantic", "panoptic"])
    dataset = shapes.load()
    for kind in ("panoptic", "semantic"):
        shutil.copytree(shapes.folder / kind / "val", tmp_path / kind)
    dicts = []
    for record in dataset:
        for key, kind in (("pan_seg_file_name", "panoptic"), ("sem_seg_file_name", "semantic")):
            record[key] = str(tmp_path / kind / os.path.basename(record[key]))
        dicts.append(record)
    return Dataset(dicts, dataset.metadata)


@pytest.mark.parametrize(
    ("evaluator", "key"), [("PanopticEvaluator", "pan_seg_file_name"), ("SemSegEvaluator", "sem_seg_file_name")]
)
def test_label_files_belong_to_their_images(project, panoptic, evaluator, key):
    recipe = load_recipe("recipe.yaml", [f"evaluate.evaluators=[{evaluator}]"])
    check_evaluation(recipe, panoptic)
    path = panoptic[1][key]
    picture = Image.open(path)
    picture.crop((0, 0, 20, 30)).save(path)
    with pytest.raises(DataError, match=rf"{os.path.basename(path)}.*20x30"):
        check_evaluation(recipe, panoptic)


def test_a_panoptic_png_with_an_unknown_segment_stops(project, panoptic):
    path = panoptic[0]["pan_seg_file_name"]
    pixels = np.array(Image.open(path))
    pixels[0, 0] = (9, 8, 7)
    Image.fromarray(pixels).save(path)
    with pytest.raises(DataError, match=os.path.basename(path)):
        check_evaluation(load_recipe("recipe.yaml", ["evaluate.evaluators=[PanopticEvaluator]"]), panoptic)
