"""Periods, precision, devices, run folders."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from vertebra import load_recipe
from vertebra.engine.parts import Plan, build_parts, parse_period
from vertebra.engine.rng import preserved_rng, rng_state, seed_everything, set_rng_state
from vertebra.engine.run_folder import choose_run_folder, recipe_changes
from vertebra.errors import RecipeError, SetupError
from vertebra.runtime import autocast, autocast_dtype, choose_device, supports_bf16, use_channels_last


@pytest.mark.parametrize(
    ("value", "steps"),
    [(None, None), (7, 7), ("1 epoch", 102), ("2 epochs", 205), ("0.5 epochs", 51), (" .001 epoch ", 1)],
)
def test_periods(value, steps):
    assert parse_period(value, 102.4, "train.checkpoint_every") == steps


@pytest.mark.parametrize("value", ["often", "1", "-1 epoch", True, "1 epoch or so"])
def test_other_periods_are_errors(value):
    with pytest.raises(RecipeError, match=r"train\.evaluate_every is .*expected a number of steps"):
        parse_period(value, 10.0, "train.evaluate_every")


def test_a_period_of_nothing_is_an_error():
    with pytest.raises(RecipeError, match=r"train\.log_every is 0"):
        Plan(steps=3, log_every=0)


def test_auto_is_bf16_where_the_device_has_it():
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu, "auto") == (torch.bfloat16 if supports_bf16(cpu) else None)
    assert autocast_dtype(cpu, "bf16") == torch.bfloat16
    with autocast(cpu, "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast(cpu, "off"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_fp16_needs_a_gpu():
    with pytest.raises(SetupError, match="fp16 needs a GPU"):
        autocast_dtype(torch.device("cpu"), "fp16")


@pytest.mark.parametrize(("instructions", "trains"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_auto_takes_channels_last_where_it_is_faster(monkeypatch, instructions, trains):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    cpu = torch.device("cpu")
    assert use_channels_last("auto", cpu, training=True) is trains
    assert use_channels_last("auto", cpu, training=False) is True
    assert use_channels_last("auto", torch.device("cuda"), training=True) is True
    assert use_channels_last(True, cpu, training=True) is True
    assert use_channels_last(False, torch.device("cuda"), training=False) is False


def test_a_recipe_decides_the_memory_layout(tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("model:\n  backbone: {name: ResNet, depth: 18}\n  heads: {boxes: {name: RetinaNetHead}}\n")
    assert load_recipe(str(recipe)).train.channels_last == "auto"
    for value, wanted in (("true", True), ("false", False), ("auto", "auto")):
        assert load_recipe(str(recipe), [f"train.channels_last={value}"]).train.channels_last == wanted
    with pytest.raises(RecipeError, match=r"channels_last.*expected .*auto.*true or false"):
        load_recipe(str(recipe), ["train.channels_last=maybe"])


def test_devices_that_are_not_there():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(SetupError, match="torch sees"):
        choose_device("cuda:99")
    with pytest.raises(SetupError, match="not known to torch"):
        choose_device("gpu")


def test_random_state_round_trip(tmp_path):
    import random

    import numpy as np

    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()

    seed_everything(5)
    draw()
    torch.save(rng_state(), tmp_path / "rng.pth")
    expected = draw(), draw()
    set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True))
    with preserved_rng():
        draw()
    assert (draw(), draw()) == expected


def test_names_and_ids_of_the_classes_are_those_of_the_training_data(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 32}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 90, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "model:\n  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res5]}\n"
        "  heads: {boxes: {name: RetinaNetHead, num_convs: 0}}\n"
        f"data:\n  root: {tmp_path}\n  workers: 0\n"
        "  train: {format: coco, annotations: train.json, images: .}\n"
        "train: {steps: 1, batch_size: 1, device: cpu}\n"
    )
    metadata = build_parts(load_recipe(str(recipe))).model.metadata
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {7: 0, 90: 1}


def test_run_folders_count_up_and_resume_takes_the_newest(tmp_path):
    recipe = SimpleNamespace(run_folder=f"{tmp_path}/cells")
    for expected in ("cells", "cells-2", "cells-3"):
        folder = choose_run_folder(recipe, resume=expected == "cells")
        assert folder == tmp_path / expected and folder.is_dir()
        (folder / "recipe.yaml").touch()
    assert choose_run_folder(recipe) == tmp_path / "cells-4"  # claimed by a run that has written nothing yet
    assert choose_run_folder(recipe, resume=True) == tmp_path / "cells-3"
    assert choose_run_folder(recipe, "elsewhere").name == "elsewhere"


def test_recipe_changes_name_each_key():
    old = "train: {lr: 0.1, hooks: [{name: EMA, decay: 0.9}]}\ndata: {size: [1, 2]}"
    new = "train: {lr: 0.2, hooks: [{name: EMA, decay: 0.8}]}\ndata: {size: [1, 3]}"
    assert recipe_changes(old, new) == [
        "train.lr: 0.1 -> 0.2",
        "train.hooks.0.decay: 0.9 -> 0.8",
        "data.size: [1, 2] -> [1, 3]",
    ]
    assert recipe_changes(old, old) == []
