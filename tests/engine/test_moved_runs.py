"""A run's folder alone is enough to predict and to export: its checkpoint knows what the model needs of the dataset."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data import Metadata
from vertebra.engine import Trainer
from vertebra.engine.dataset_facts import facts_in, facts_to_keep
from vertebra.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = sorted(f"{file.parts[-4]}:{file.stem}" for file in ROOT.glob("plugins/*/vertebra_*/recipes/*quick*.yaml"))
CONFIGS = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("configs/*/*quick*.yaml"))
SMALL = ["train.steps=2", "train.epochs=null", "train.batch_size=2", "train.device=cpu", "data.workers=0"]
SMALL += ["data.train.images=8", "data.val=null", "train.amp=off", "data.train_transforms=[]"]


def test_the_quick_recipes_are_found():
    assert len(PACKAGED) >= 18 and len(CONFIGS) >= 2


@pytest.mark.e2e
@pytest.mark.parametrize("name", [*PACKAGED, *CONFIGS])
def test_a_moved_run_predicts_and_exports(name, tmp_path, command_line):
    recipe = load_recipe(name if ":" in name else str(ROOT / name), SMALL)
    Trainer(recipe, tmp_path / "run").train()
    moved = shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "picture.png")
    (tmp_path / "no folder").touch()  # so that the generated dataset cannot be made anew
    place = {"cwd": tmp_path, "VERTEBRA_CACHE": tmp_path / "no folder" / "cache"}
    run = [f"{moved}/recipe.yaml", "--weights", f"{moved}/final.pth"]
    command_line("predict", f"{moved}/recipe.yaml", "picture.png", *run[1:], "--output", "found", **place)
    assert (tmp_path / "found" / "picture.png").is_file()
    command_line("export", *run, "--form", "raw", "--output", "model.onnx", **place)
    assert (tmp_path / "model.onnx").is_file()


def test_facts_of_a_strangers_dataset_are_kept_with_it():
    metadata = Metadata("mine").set(
        thing_classes=["a"], label_divisor=256, thing_colors=[(1, 2, 3)], my_fact={"x": [1.5]}, json_file="/a/b.json"
    )
    kept, left_out = facts_to_keep(metadata.set(my_function=len))
    assert kept == {
        "mine": {"thing_classes": ["a"], "label_divisor": 256, "thing_colors": [(1, 2, 3)], "my_fact": {"x": [1.5]}}
    }
    assert left_out == ["my_function"]
    again = facts_in({"metadata": kept}, "run")
    assert (again.name, again.label_divisor, again.my_fact) == ("mine", 256, {"x": [1.5]})


def test_checkpoints_of_the_first_version_are_read():
    content = {"classes": ["a", "b"], "stuff_classes": ["sky"], "category_ids": [7, 9], "stuff_category_ids": [4]}
    found = facts_in(content, "old")
    assert (found.thing_classes, found.stuff_classes) == (["a", "b"], ["sky"])
    assert found.thing_dataset_id_to_contiguous_id == {7: 0, 9: 1} and found.stuff_dataset_id_to_contiguous_id == {4: 0}
    labels = facts_in({"classes": ["sky"], "stuff_classes": ["sky"]}, "old")
    assert labels.get("thing_classes") is None and labels.stuff_classes == ["sky"]
    assert facts_in({"model": {}, "num_classes": 3}, "imported") is None


def test_nothing_in_a_checkpoints_facts_is_trusted():
    assert facts_in({"metadata": {}}, "empty.pth") is None
    for wrong in (3, [1], {"a": 3}, {"a": {"thing_classes": 5}}, {"a": {"thing_classes": [5]}}):
        with pytest.raises(CheckpointError, match=r"odd\.pth: `metadata`.*damaged"):
            facts_in({"metadata": wrong}, "odd.pth")
