"""The recipes that ship with the plugin: all load, survive saving, and build what their names say."""

import numpy as np
import pytest
import torch

from vertebra.config import list_recipes, load_recipe
from vertebra.data.transforms.sample import Sample
from vertebra.engine import Trainer
from vertebra.errors import DataError
from vertebra.models import build_model

NAMES = [name for name in list_recipes() if name.startswith("fcn:")]
FORMATS = {
    "fcn_r50_voc": "voc_segmentation",
    "fcn_r50_cityscapes": "cityscapes",
    "fcn_r50_ade20k": "ade20k",
    "fcn_r50_coco_stuff": "coco_stuff",
    "fcn_r50_pets": "oxford_pets",
    "fcn8s_r18_camvid": "semantic_folder",
    "fcn_shapes_quick": "shapes",
}


def test_the_recipes_are_found_by_the_plugins_prefix():
    nets = [f"fcn:fcn{stride}s_vgg16_voc" for stride in (8, 16, 32)]
    assert set(NAMES) >= {*nets, "fcn:fcn_r50_voc", "fcn:fcn_r50_cityscapes", "fcn:fcn8s_r18_camvid"}


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_recipe_loads_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_heads_of_the_plugin_and_its_transforms(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = build_model(recipe, num_classes=7, pretrained=False)
    assert all(type(head).__module__.startswith("vertebra_fcn.") for head in model.heads.values())
    assert all(spec.build() for spec in (*recipe.data.train_transforms, *recipe.data.eval_transforms))


@pytest.mark.parametrize(("name", "form"), FORMATS.items())
def test_the_recipes_read_the_dataset_in_their_name(name, form):
    data = load_recipe(f"fcn:{name}").data
    assert (data.train.name, data.val.name) == (form, form)
    assert type(data.train.build()) is type(data.val.build())


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


@pytest.mark.parametrize("size", [(1, 1), (20, 33)])
def test_images_smaller_than_the_crop_are_padded_with_ignored_pixels_and_train(size):
    recipe = load_recipe("fcn:fcn8s_r18_camvid")
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(2):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        sample = Sample(image, sem_seg=torch.zeros(size, dtype=torch.uint8))
        for spec in recipe.data.train_transforms:
            sample = spec.build()(sample, rng)
        assert sample.size == (160, 224)
        assert set(sample.sem_seg.unique().tolist()) == {0, 255}
        samples.append({"image": sample.image, "sem_seg": sample.sem_seg})
    torch.manual_seed(0)
    model = build_model(recipe, num_classes=11).train()
    losses = model(samples)
    assert torch.isfinite(losses["labels/loss_sem_seg"])
    assert losses["labels/loss_sem_seg"] > 0


def test_a_label_outside_the_classes_is_an_error_of_the_data():
    model = build_model(load_recipe("fcn:fcn8s_r18_camvid"), num_classes=11).train()
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    sample = {"image": image, "sem_seg": torch.full((32, 32), 11, dtype=torch.uint8)}
    with pytest.raises(DataError, match=r"2048 pixels have the label 11; labels must be class ids 0 to 10 or 255"):
        model([sample, sample])


def test_images_that_are_all_ignored_cost_nothing():
    model = build_model(load_recipe("fcn:fcn8s_r18_camvid"), num_classes=11).train()
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    loss = model([{"image": image, "sem_seg": torch.full((32, 32), 255)}] * 2)["labels/loss_sem_seg"]
    assert loss.item() == 0
    loss.backward()


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["fcn:fcn_shapes_quick", "fcn:fcn_conv_shapes_quick"])
def test_two_trainings_with_one_seed_give_the_same_weights(name, tmp_path):
    """The CPU's; every operation of net and loss is deterministic there."""
    weights = []
    for run in range(2):
        overrides = ["data.workers=0", "train.epochs=null", "train.steps=3", "train.batch_size=2"]
        overrides += ["data.train.images=8", "data.val.images=8", "train.checkpoint_every=3"]
        recipe = load_recipe(name, overrides)
        trainer = Trainer(recipe, tmp_path / str(run))
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
