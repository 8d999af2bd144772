"""Panoptic FPN and Panoptic-DeepLab on the images that are easily forgotten, and from pictures to COCO's files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data import read_labels
from vertebra.data.build import build_mapper
from vertebra.data.coco.panoptic_format import CocoPanopticFormat
from vertebra.models import build_model
from vertebra.predictor import predict_files
from vertebra.structures import BitMasks
from vertebra.testing.checks import backward, check_gradients, check_losses
from vertebra.testing.inputs import THINGS, bare, make_input, make_metadata
from vertebra.testing.predictions import check_predictions
from vertebra_eval.panoptic.runs import read_id_runs, write_segment_ids

pytest.importorskip("vertebra_rcnn", reason="the recipe's things head comes from vertebra-rcnn")
pytest.importorskip("vertebra_panoptic", reason="the recipes' head comes from vertebra-panoptic")

HEAD = "model.heads.panoptic"
FORMS = {
    "Panoptic FPN": ("configs/panoptic/shapes_panoptic_fpn_quick.yaml", (f"{HEAD}.merge.stuff_area=1",)),
    "Panoptic FPN, run lengths": (
        "configs/panoptic/shapes_panoptic_fpn_quick.yaml",
        (f"{HEAD}.merge.stuff_area=1", f"{HEAD}.things.masks.output=RunLengthOutput"),
    ),
    "Panoptic-DeepLab": ("panoptic:panoptic_deeplab_shapes_quick", (f"{HEAD}.merge.stuff_area=1",)),
}


@pytest.fixture(scope="module", params=FORMS)
def form(request, repository):
    """(recipe, model, format of masks). The recipe takes images as they are."""
    path, overrides = FORMS[request.param]
    overrides = [*overrides, "data.train_transforms=[]"]
    recipe = load_recipe(str(repository / path) if path.endswith(".yaml") else path, overrides)
    torch.manual_seed(0)
    return recipe, build_model(recipe, 3, make_metadata(3), pretrained=False), recipe.data.mask_format


def step(form, inputs, what):
    _, model, _ = form
    model.zero_grad(set_to_none=True)
    losses = model.train()(inputs)
    check_losses(losses, what)
    backward(model, losses, what)
    check_gradients(model, what)
    return {name.removeprefix("panoptic/things/"): loss.item() for name, loss in losses.items()}


def test_training_without_objects_and_on_three_hundred(form):
    nothing = step(form, [make_input(0, objects=0, mask_format=form[2])], "an image without objects")
    assert all(nothing[name] == 0 for name in ("loss_mask", "loss_offset") if name in nothing)
    many = make_input(1, objects=300, edge=(4, 20), mask_format=form[2])
    losses = step(form, [many, make_input(2, objects=0, mask_format=form[2])], "300 objects")
    assert all(losses[name] > 0 for name in ("loss_mask", "loss_offset") if name in losses)


def test_training_on_one_pixel_on_empty_masks_and_where_all_is_void(form):
    step(form, [make_input(3, objects=5, edge=(1, 1), mask_format=form[2])], "objects of one pixel")
    sample = make_input(0)
    sample["instances"].gt_masks = BitMasks(torch.zeros(3, 64, 96))
    step(form, [sample], "empty masks")
    void = make_input(0, objects=0, mask_format=form[2])
    void["sem_seg"] = torch.full_like(void["sem_seg"], 255)
    assert step(form, [void], "an image of void")["panoptic/stuff/loss_sem_seg"] == 0


def crowded(folder):
    """A COCO panoptic folder of one picture: a crowd, stuff, and void in the first rows; its JSON file."""
    ids = np.full((64, 96), 2)
    ids[20:50, 10:60], ids[:8] = 1, 0
    (folder / "truth").mkdir()
    write_segment_ids(ids, folder / "truth/a.png")
    Image.fromarray(make_input(0)["image"].permute(1, 2, 0).numpy()).save(folder / "a.png")
    segments = [
        {"id": 1, "category_id": 1, "iscrowd": 1, "bbox": [10, 20, 50, 30], "area": 1500},
        {"id": 2, "category_id": 4, "iscrowd": 0, "bbox": [0, 8, 96, 56], "area": 56 * 96 - 1500},
    ]
    names = [*THINGS, "sky", "grass"]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": i, "name": name, "isthing": int(i < 4)} for i, name in enumerate(names, start=1)],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return str(folder / "truth.json")


def test_training_on_a_file_of_crowds_and_void(form, tmp_path):
    dataset = CocoPanopticFormat(crowded(tmp_path), str(tmp_path)).load()
    sample = build_mapper(form[0], dataset, training=True)(dataset.dicts[0], index=0)
    assert len(sample["instances"]) == 0
    assert sample["sem_seg"].unique().tolist() == [0, 3, 255]  # the crowd's class, sky, void
    losses = step(form, [sample], "an image of crowds and void")
    assert all(losses[name] == 0 for name in ("loss_mask", "loss_offset") if name in losses)


@pytest.mark.parametrize("surely", [True, False])
def test_predictions_with_and_without_segments(form, surely):
    """With instances of any score, and with none that is sure enough."""
    _, model, _ = form
    merge = model.eval().heads["panoptic"].merge
    for name in ("instance_score", "threshold"):
        if hasattr(merge, name):
            setattr(merge, name, 2.0 if surely else -1.0)
    inputs = [make_input(0), make_input(1, size=(40, 57), original=(80, 33))]
    with torch.no_grad():
        found = model(bare(inputs))
    check_predictions(found, inputs, keys=["panoptic_seg", "sem_seg"], num_things=3)
    for one, sample in zip(found, inputs, strict=True):
        ids, segments = one["panoptic_seg"]
        assert ids.shape == (sample["height"], sample["width"])
        assert {info["id"] for info in segments} == set(ids.unique().tolist()) - {0}
        assert not (surely and any(info["isthing"] for info in segments))


def test_pictures_become_panoptic_files_and_overlays(form, tmp_path):
    recipe, model, _ = form
    torch.save(
        {"model": model.state_dict(), "classes": list(THINGS), "stuff_classes": make_metadata(3).stuff_classes},
        tmp_path / "weights.pth",
    )
    (tmp_path / "in").mkdir()
    Image.fromarray(make_input(0)["image"].permute(1, 2, 0).numpy()).save(tmp_path / "in/cells.png")
    out = tmp_path / "out"
    written = predict_files(
        recipe, tmp_path / "in", weights=str(tmp_path / "weights.pth"), output=out, score=0.0, device="cpu"
    )
    assert {"cells.png", "panoptic_predictions.json", "panoptic_predictions", "label_maps"} <= {
        path.name for path in written.files
    }
    content = json.loads((out / "panoptic_predictions.json").read_text())
    assert [c["name"] for c in content["categories"]] == [*THINGS, "sky", "grass"]
    (record,) = content["annotations"]
    ids = read_id_runs(out / "panoptic_predictions/cells.png").pixels()
    assert {info["id"] for info in record["segments_info"]} == set(ids.ravel().tolist()) - {0}
    assert {info["id"]: info["area"] for info in record["segments_info"]} == {
        i: int((ids == i).sum()) for i in np.unique(ids) if i
    }
    assert read_labels(str(out / "label_maps/cells.png")).shape == (64, 96)
    assert Image.open(out / "cells.png").size >= (96, 64)
