"""The recipes that ship with the plugin: all load and build, and models are what their names say."""

import pytest
import torch

from vertebra.config import list_recipes, load_recipe
from vertebra.engine import Trainer
from vertebra.errors import DataError
from vertebra.models import build_model
from vertebra_unet import UNetHead, UNetPlusPlusHead

NAMES = [name for name in list_recipes() if name.startswith("unet:")]
FORMATS = {
    "unet_r34_voc": "voc_segmentation",
    "unet_r34_cityscapes": "cityscapes",
    "unet_r34_ade20k": "ade20k",
    "unet_r34_coco_stuff": "coco_stuff",
    "unet_r34_pets": "oxford_pets",
    "unet_pets_trimap": "oxford_pets",
    "unet_r18_camvid": "semantic_folder",
    "unet_shapes_quick": "shapes",
}
NARROW = ["model.backbone.base_width=4"]


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_the_recipes_are_found_by_the_plugins_prefix():
    assert set(NAMES) >= {
        "unet:unet_shapes_quick",
        "unet:unetpp_shapes_quick",
        "unet:unet_r18_camvid",
        "unet:unet_membrane",
        "unet:unet_membrane_paper",
        "unet:unet_pets_trimap",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_a_head_of_the_plugin(name):
    with torch.device("meta"):
        model = build_model(load_recipe(name), num_classes=7, pretrained=False)
    assert isinstance(model.heads["classes"], (UNetHead, UNetPlusPlusHead))


@pytest.mark.parametrize(("name", "form"), FORMATS.items())
def test_the_recipes_read_the_dataset_in_their_name(name, form):
    data = load_recipe(f"unet:{name}").data
    assert (data.train.name, data.val.name) == (form, form)
    assert type(data.train.build()) is type(data.val.build())
    if form == "oxford_pets":
        assert data.train.arguments["labels"] == ("trimap" if name.endswith("trimap") else "breeds")


def test_the_pets_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = build_model(load_recipe("unet:unet_pets_trimap"), num_classes=3, pretrained=False)
    assert count(model) == 34_513_475


def test_the_papers_network_and_its_training():
    recipe = load_recipe("unet:unet_membrane_paper")
    with torch.device("meta"):
        model = build_model(recipe, num_classes=2, pretrained=False)
    assert count(model) == 31_030_658 + 2 * 9 * 64  # the paper's images have one channel, ours three
    assert model.heads["classes"].margin == 92
    assert recipe.train.batch_size == 1 and recipe.train.optimizer.arguments["momentum"] == 0.99


@pytest.mark.parametrize("backbone", ["ResNet", "MobileNetV2", "VGG", "timm"])
def test_any_backbone_may_be_the_encoder(backbone):
    arguments = {
        "ResNet": {"depth": 18, "norm": "bn", "out_features": ["res2", "res3", "res4"]},
        "MobileNetV2": {"width": 0.35, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
        "VGG": {"depth": 11, "out_features": ["conv1", "conv2", "conv3", "conv4"]},
        "timm": {"model": "resnet18", "out_indices": [0, 1, 2]},
    }[backbone]
    if backbone == "timm":
        pytest.importorskip("timm")
    recipe = load_recipe("unet:unet_shapes_quick", [{"model.backbone": {"name": backbone, **arguments}}])
    model = build_model(recipe, num_classes=5).eval()
    with torch.no_grad():
        found = model([{"image": torch.zeros(3, 45, 70, dtype=torch.uint8)}])
    assert found[0]["sem_seg"].shape == (5, 45, 70)


def small(tmp_path, name, *overrides):
    return load_recipe(
        name,
        [
            {
                "data.train": {
                    "format": "shapes",
                    "images": 8,
                    "val_images": 4,
                    "size": [48, 64],
                    "labels": ["semantic"],
                }
            },
            {"data.val": None, "data.train_transforms": ["RandomFlip"], "data.workers": 0, "evaluate.report": False},
            {"train.steps": 3, "train.epochs": None, "train.batch_size": 2, "train.device": "cpu"},
            *NARROW,
            *overrides,
        ],
    )


@pytest.mark.parametrize("name", ["unet:unet_shapes_quick", "unet:unetpp_shapes_quick"])
def test_two_runs_of_one_seed_end_in_the_same_bits(name, tmp_path):
    recipe = small(tmp_path, name, "model.backbone.num_stages=3", "model.backbone.dropout=0.2")
    ends = []
    for run in "ab":
        Trainer(recipe, output_dir=tmp_path / run).train()
        ends.append(torch.load(tmp_path / run / "final.pth", weights_only=True)["model"])
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def write_pair(folder, name, image, mask):
    from PIL import Image

    for kind, pixels in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def folder_data(folder, **changes):
    data = {"format": "semantic_folder", "images": str(folder / "images"), "masks": str(folder / "masks")}
    return {"data.train": {**data, "classes": ["a", "b"], **changes}}


def test_a_label_outside_the_classes_stops_training_and_names_the_file(tmp_path):
    import numpy as np

    mask = np.zeros((40, 40), np.uint8)
    mask[5, 5] = 7
    write_pair(tmp_path, "odd", np.zeros((40, 40, 3), np.uint8), mask)
    recipe = small(tmp_path, "unet:unet_shapes_quick", folder_data(tmp_path))
    with pytest.raises(DataError, match=r"odd\.png.*7"):
        Trainer(recipe, output_dir=tmp_path / "run").train()


@pytest.mark.parametrize("size", [(1, 1), (3, 40)])
def test_images_smaller_than_the_crop_and_without_any_label_train(size, tmp_path):
    import numpy as np

    for i, value in enumerate((0, 1, 255)):
        write_pair(tmp_path, f"i{i}", np.full((*size, 3), 90, np.uint8), np.full(size, value, np.uint8))
    crop = {"data.train_transforms": [{"name": "RandomScaleCrop", "size": [32, 48]}]}
    recipe = small(tmp_path, "unet:unet_shapes_quick", folder_data(tmp_path), crop)
    results = Trainer(recipe, output_dir=tmp_path / "run").train()
    assert results["loss"] >= 0
