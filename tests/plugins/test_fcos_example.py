"""docs/examples/fcos_head.py: one local file under 120 lines that trains on BCCD by recipe alone."""

from pathlib import Path

import pytest
import torch

from vertebra import ShapeSpec, Trainer, load_recipe
from vertebra.testing import HeadConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
RECIPE = str(EXAMPLES / "bccd_fcos.yaml")


class TestFCOSHead(HeadConformance):
    component = "FCOSHead"
    recipe = RECIPE
    overrides = ("model.neck.out_channels=64", "model.heads.boxes.num_convs=1", "train.schedule.warmup_steps=0")


def test_it_is_one_file_of_under_120_lines():
    assert len((EXAMPLES / "fcos_head.py").read_text(encoding="utf-8").splitlines()) < 120


@pytest.fixture
def head():
    recipe = load_recipe(RECIPE, ["model.neck.out_channels=64", "model.heads.boxes.num_convs=1"])
    return recipe.model.heads["boxes"].build(
        input_shape={"p3": ShapeSpec(64, 8), "p4": ShapeSpec(64, 16), "p5": ShapeSpec(64, 32)}, num_classes=2
    )


def test_points_belong_to_the_smallest_box_of_their_levels_reach(head):
    points = torch.tensor([[16.0, 16, 24, 24], [16, 16, 32, 32], [16, 16, 48, 48], [96, 96, 104, 104]])
    boxes = torch.tensor([[[10.0, 10, 30, 30], [12, 12, 28, 28], [-60, -60, 108, 108], [90, 90, 110, 110]]])
    valid = torch.tensor([[True, True, True, False]])
    # stride 8: both small boxes hold (20, 20), the second is smaller; stride 16: (24, 24) is the middle of the large
    # box, which reaches 84 of at most 128 pixels; stride 32: its 76 are less than 128; the last box is padding
    assert head.assign(points, boxes, valid).tolist() == [[1, 2, -1, -1]]


@pytest.mark.e2e
def test_it_trains_on_bccd_for_a_few_steps(shared, tmp_path):
    recipe = load_recipe(
        RECIPE,
        [
            f"data.root={shared('data/bccd')}",
            "data.train.annotations=val.json",
            "data.workers=0",
            "data.train_transforms=[{name: ResizeShortestEdge, short_edge: 96, max_size: 128}]",
            "model.neck.out_channels=64",
            "model.heads.boxes.num_convs=1",
            "data.test=null",
            "train.steps=6",
            "train.batch_size=4",
            "train.log_every=1",
            "train.schedule.warmup_steps=2",
        ],
    )
    metrics = Trainer(recipe, output_dir=tmp_path / "run").train()
    assert metrics["loss"] > 0
    assert (tmp_path / "run/plugins/fcos_head.py").read_bytes() == (EXAMPLES / "fcos_head.py").read_bytes()
    reloaded = load_recipe(tmp_path / "run/recipe.yaml")  # names the copy: the folder alone reproduces the run
    assert reloaded.plugins == [str(tmp_path / "run/plugins/fcos_head.py")]
