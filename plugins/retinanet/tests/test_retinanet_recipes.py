"""The recipes that ship with the plugin: all load, and build what their names say."""

import pytest
import torch

from vertebra.config import list_recipes, load_recipe
from vertebra.models import build_model
from vertebra_retinanet import RetinaNetHead

NAMES = [name for name in list_recipes() if name.startswith("retinanet:")]


def test_the_recipes_are_found_by_the_plugins_prefix():
    assert set(NAMES) >= {
        "retinanet:retinanet_r50_fpn",
        "retinanet:retinanet_r101_fpn",
        "retinanet:retinanet_shapes_quick",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


def test_r50_has_detectron2s_number_of_parameters():
    recipe = load_recipe("retinanet:retinanet_r50_fpn")
    model = build_model(recipe, num_classes=80, pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == 37_915_572
    assert isinstance(model.heads["boxes"], RetinaNetHead)


@pytest.mark.parametrize(
    ("name", "steps", "milestones"),
    [
        ("retinanet:retinanet_r50_fpn", 90_000, (60_000, 80_000)),
        ("retinanet:retinanet_r101_fpn", 270_000, (210_000, 250_000)),
    ],
)
def test_the_schedule_is_detectron2s_and_fits_a_shorter_run_too(name, steps, milestones):
    recipe = load_recipe(name, ["train.steps=360"])
    schedule = recipe.train.schedule.build()
    schedule.check(recipe.train.steps)
    assert load_recipe(name).train.steps == steps
    assert [schedule.factor(0, steps), schedule.factor(1000, steps)] == pytest.approx([0.001, 1])
    for milestone, after in zip(milestones, (0.1, 0.01), strict=True):
        assert schedule.factor(milestone - 1, steps) == pytest.approx(10 * after)
        assert schedule.factor(milestone, steps) == pytest.approx(after)


def test_the_quick_recipe_detects_and_trains_on_pictures_of_its_size():
    recipe = load_recipe("retinanet:retinanet_shapes_quick")
    model = build_model(recipe, num_classes=3).eval()
    with torch.no_grad():
        found = model([{"image": torch.zeros(3, 128, 160, dtype=torch.uint8)}])[0]["instances"]
    assert found.image_size == (128, 160)
