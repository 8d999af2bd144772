"""The recipes that ship with the plugin: all load, and build what their names say."""

import pytest

from vertebra.config import list_recipes, load_recipe
from vertebra.models import build_model
from vertebra_rcnn import CascadeBoxes, PrecomputedProposals, RCNNHead, RFCNBoxes, SharedBoxFeatures

NAMES = [name for name in list_recipes() if name.startswith("rcnn:")]


def head_of(name):
    model = build_model(load_recipe(name), num_classes=3, pretrained=False)
    return model.heads["objects"]


def test_the_forms_are_there():
    forms = ("faster_rcnn_r50_c4", "faster_rcnn_r50_dc5", "faster_rcnn_r50_fpn", "mask_rcnn_r50_fpn_3x", "rfcn_r50")
    more = ("keypoint_rcnn_r50_fpn", "cascade_mask_rcnn_r50_fpn_3x", "fast_rcnn_r50_fpn", "mask_rcnn_nuclei")
    assert {f"rcnn:{name}" for name in (*forms, *more)} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("rcnn:faster_rcnn_r50_fpn", 80, 41_699_936),
        ("rcnn:mask_rcnn_r50_fpn", 80, 44_343_216),
        ("rcnn:keypoint_rcnn_r50_fpn", 1, 59_133_158),
        ("rcnn:faster_rcnn_r50_c4", 80, 33_791_644),
    ],
)
def test_each_has_detectron2s_number_of_parameters(name, classes, count):
    model = build_model(load_recipe(name), num_classes=classes, pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if "r101" not in name and not name.endswith("3x")])
def test_each_builds(name):
    if "keypoint_rcnn_shapes" not in name:  # its keypoints are the dataset's
        head = head_of(name)
        assert isinstance(head, RCNNHead)
        assert isinstance(head.boxes, CascadeBoxes) == ("cascade" in name)
        assert isinstance(head.boxes, RFCNBoxes) == ("rfcn" in name)
        assert isinstance(head.proposals, PrecomputedProposals) == ("fast_rcnn" in name)
        assert (head.masks is not None) == ("mask" in name)
        if name == "rcnn:mask_rcnn_r50_c4":
            assert isinstance(head.masks.pooler, SharedBoxFeatures)


@pytest.mark.parametrize(
    ("name", "steps"), [("rcnn:mask_rcnn_r50_fpn", 90_000), ("rcnn:mask_rcnn_r50_fpn_3x", 270_000)]
)
def test_the_schedules_are_detectron2s(name, steps):
    recipe = load_recipe(name)
    schedule = recipe.train.schedule.build()
    assert recipe.train.steps == steps
    first, second = (60_000, 80_000) if steps == 90_000 else (210_000, 250_000)
    factors = [schedule.factor(step, steps) for step in (first - 1, first, second - 1, second)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])
