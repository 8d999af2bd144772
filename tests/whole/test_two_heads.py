"""A recipe with a YOLO head and a semantic head on one backbone."""

import math

import torch

from vertebra import load_recipe
from vertebra.data.build import build_mapper, load_dataset
from vertebra.engine import Trainer
from vertebra.models import build_model


def test_a_yolo_head_and_a_semantic_head_share_a_backbone(repository):
    images = {"format": "shapes", "images": 4, "size": [64, 96], "labels": ["semantic"]}
    recipe = load_recipe(str(repository / "configs/detection/shapes_yolov5n_fcn.yaml"), [{"data.train": images}])
    dataset = load_dataset(recipe.data.train)
    mapper = build_mapper(recipe, dataset, training=True)
    inputs = [mapper(record, index=i) for i, record in enumerate(dataset.dicts)]
    torch.manual_seed(0)
    model = build_model(recipe, metadata=dataset.metadata).train()
    losses = model(inputs)
    assert {name.split("/")[0] for name in losses} == {"boxes", "labels"}
    sum(losses.values()).backward()
    for head in model.heads.values():
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    with torch.no_grad():
        outputs = model.eval()(inputs)
    for output in outputs:
        assert output["sem_seg"].shape[1:] == (64, 96)
        assert output["instances"].image_size == (64, 96)


def test_one_recipe_trains_and_evaluates_both(repository, tmp_path):
    images = {"format": "shapes", "images": 8, "val_images": 2, "size": [64, 96], "labels": ["semantic"]}
    short = {
        "data.train": images,
        "data.val": {**images, "split": "val"},
        "data.workers": 0,
        "train.epochs": None,
        "train.steps": 2,
        "train.batch_size": 2,
        "train.device": "cpu",
        "evaluate.report": False,
    }
    recipe = load_recipe(str(repository / "configs/detection/shapes_yolov5n_fcn.yaml"), [short])
    trainer = Trainer(recipe, output_dir=tmp_path)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    results = trainer.train()
    assert {"bbox/AP50", "sem_seg/mIoU"} <= results.keys()
    assert math.isfinite(results["loss"])
    for part in ("backbone.", "neck.", "heads.boxes.", "heads.labels."):
        own = [name for name in before if name.startswith(part)]
        assert own and any(not torch.equal(before[name], trainer.model.get_parameter(name)) for name in own), part
