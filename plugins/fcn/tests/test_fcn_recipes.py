"""The recipes that ship with the plugin: all load, survive saving, and build what their names say."""

import pytest
import torch

from vertebra.config import list_recipes, load_recipe
from vertebra.models import build_model

NAMES = [name for name in list_recipes() if name.startswith("fcn:")]


def test_the_recipes_are_found_by_the_plugins_prefix():
    nets = [f"fcn:fcn{stride}s_vgg16_voc" for stride in (8, 16, 32)]
    assert set(NAMES) >= {*nets, "fcn:fcn_r50_voc", "fcn:fcn_r50_cityscapes", "fcn:fcn8s_r18_camvid"}


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize(("stride", "levels"), [(32, 1), (16, 2), (8, 3)])
def test_the_vgg16_recipes_are_the_papers_three_nets(stride, levels):
    with torch.device("meta"):
        model = build_model(load_recipe(f"fcn:fcn{stride}s_vgg16_voc"), num_classes=21, pretrained=False)
    head = model.heads["labels"]
    assert len(head.levels) == levels
    assert (head.fc6.weight.shape, head.fc7.weight.shape) == ((4096, 512, 7, 7), (4096, 4096, 1, 1))
    assert f"upscore{stride}" in dict(head.named_children())


def test_the_r50_recipes_have_torchvisions_number_of_parameters():
    """35,322,218 of fcn_resnet50 with 21 classes and the auxiliary classifier (torchvision's own table)."""
    with torch.device("meta"):
        model = build_model(load_recipe("fcn:fcn_r50_voc"), num_classes=21, pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == 35_322_218
    assert load_recipe("fcn:fcn_r50_cityscapes").train.steps == 40_000


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (20, 33)])
def test_camvids_net_takes_images_of_a_single_pixel_and_ones_smaller_than_the_crop(size):
    """A prediction has the image's size; in training the crop pads image and labels, here the model alone does."""
    torch.manual_seed(0)
    model = build_model(load_recipe("fcn:fcn8s_r18_camvid"), num_classes=11)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        found = model.eval()([{"image": image, "height": 2 * size[0], "width": size[1]}])[0]["sem_seg"]
    assert found.shape == (11, 2 * size[0], size[1])
    assert torch.isfinite(found).all()
    losses = model.train()([{"image": image, "sem_seg": torch.zeros(size, dtype=torch.int64)}] * 2)
    assert torch.isfinite(losses["labels/loss_sem_seg"])
