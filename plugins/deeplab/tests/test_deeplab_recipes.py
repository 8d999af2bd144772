"""The recipes that ship with the plugin: all load, and build what their names say."""

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.config import list_recipes, load_recipe
from vertebra.engine import Trainer
from vertebra.models import build_model
from vertebra_deeplab import DeepLabV2Head, DeepLabV3Head, DeepLabV3PlusHead

NAMES = [name for name in list_recipes() if name.startswith("deeplab:")]
FORMATS = {
    "cityscapes": "cityscapes",
    "voc": "voc_segmentation",
    "ade20k": "ade20k",
    "coco_stuff": "coco_stuff",
    "camvid": "semantic_folder",
    "pets": "oxford_pets",
    "pets_trimap": "oxford_pets",
    "quick": "shapes",
}


def test_the_recipes_are_found_by_the_plugins_prefix():
    assert len(NAMES) == 16
    assert {name.rsplit("_", 1)[1] for name in NAMES} == {ending.rsplit("_", 1)[-1] for ending in FORMATS}


@pytest.mark.parametrize(("ending", "form"), FORMATS.items())
def test_the_recipes_read_the_dataset_in_their_name(ending, form):
    named = [name for name in NAMES if name.endswith(f"_{ending}")]
    assert named
    for name in named:
        data = load_recipe(name).data
        assert (data.train.name, data.val.name) == (form, form)
        assert type(data.train.build()) is type(data.val.build())
        if form == "oxford_pets":
            assert data.train.arguments["labels"] == ("trimap" if ending.endswith("trimap") else "breeds")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_the_head_and_the_output_stride_of_its_name(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = build_model(recipe, 7, pretrained=False)
    head = model.heads["sem_seg"]
    kinds = {"deeplab_v2": DeepLabV2Head, "deeplab_v3": DeepLabV3Head, "deeplab_v3plus": DeepLabV3PlusHead}
    assert type(head) is kinds["_".join(name.removeprefix("deeplab:").split("_")[:2])]
    dilated_twice = type(head) is not DeepLabV3PlusHead and "r103" not in name
    assert model.backbone.output_shape()[head.in_feature].stride == (8 if dilated_twice else 16)
    assert all(spec.build() for spec in (*recipe.data.train_transforms, *recipe.data.eval_transforms))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "stride"),
    [
        ("deeplab_v3_r103_cityscapes", 19, 58_163_667, 16),  # Detectron2's
        ("deeplab_v3plus_r103_cityscapes", 19, 59_467_315, 16),  # Detectron2's
        ("deeplab_v3_r50_voc", 21, 39_638_869, 8),  # torchvision's, without its auxiliary head
        ("deeplab_v3_r101_voc", 21, 58_630_997, 8),  # torchvision's, without its auxiliary head
    ],
)
def test_sizes_are_those_of_the_networks_that_the_recipes_follow(name, classes, parameters, stride):
    with torch.device("meta"):
        model = build_model(load_recipe(f"deeplab:{name}"), classes, pretrained=False)
    assert (sum(p.numel() for p in model.parameters()), model.size_divisibility) == (parameters, stride)


@pytest.mark.parametrize(
    ("name", "rate", "steps"),
    [("deeplab_v3_r103_cityscapes", 0.01, 90_000), ("deeplab_v3plus_r101_voc", 0.007, 30_000)],
)
def test_the_rate_falls_by_the_poly_schedule_to_nothing(name, rate, steps):
    recipe = load_recipe(f"deeplab:{name}")
    schedule = recipe.train.schedule.build()
    assert (recipe.train.optimizer.build().lr, recipe.train.steps) == (rate, steps)
    assert schedule.factor(steps // 2, steps) == pytest.approx(0.5**0.9)
    assert schedule.factor(steps, steps) == 0


def test_images_smaller_than_the_crop_are_padded_and_train(tmp_path):
    """20 x 30 pixels in a crop of 160 x 224: the rest is ignored. Two steps by the CamVid recipe."""
    rng = np.random.default_rng(0)
    for folder in ("train/images", "train/masks"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(4):
        image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"train/images/{number}.png")
        Image.fromarray(rng.integers(0, 12, (20, 30), dtype=np.uint8)).save(tmp_path / f"train/masks/{number}.png")
    data = {"classes": [f"class{i}" for i in range(11)], "format": "semantic_folder", "ignore_label": 11}
    recipe = load_recipe(
        "deeplab:deeplab_v3plus_r18_camvid",
        [
            {"data.root": str(tmp_path), "data.train": {**data, "images": "train/images", "masks": "train/masks"}},
            {"data.val": None, "data.test": None, "data.workers": 0, "train.steps": 2, "train.batch_size": 2},
            {"train.log_every": 1, "train.device": "cpu", "model.heads.sem_seg.channels": 16},
        ],
    )
    results = Trainer(recipe, output_dir=tmp_path / "run").train()
    assert np.isfinite(results["loss"])
