"""A subclass of the format `shapes` that gives the pictures more."""

import numpy as np
import pytest

from vertebra import FORMATS, load_recipe
from vertebra.data import ShapesFormat, build_mapper, load_split
from vertebra.errors import RecipeError


@FORMATS.register()
class DepthShapes(ShapesFormat):
    extra_fields = {"depth": {"geometry": "dense_map"}, "turn": {"geometry": "scalar"}}

    def __init__(self, scale: float = 1.0, images: int = 3, split: str = "train", size: int = 64):
        super().__init__(images, split, size=size, crowds=0.0)
        self.scale = scale

    def extend(self, folder, image, annotations, scene, rng):
        depth = np.zeros(scene.stuff.shape, np.float32)
        for number, (thing, annotation) in enumerate(zip(scene.things, annotations, strict=True), start=1):
            depth[thing.visible] = number * self.scale
            annotation["turn"] = thing.turn
        image["depth"] = f"{image['id']}_depth.npy"
        np.save(folder / image["depth"], depth)


RECIPE = """
data:
  train: {format: DepthShapes}
  train_transforms: [RandomFlip]
  workers: 0
train: {batch_size: 3, steps: 1}
model:
  backbone: {name: ResNet, depth: 18, out_features: [res5], weights: null}
  heads: {boxes: {name: RetinaNetHead}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))


def test_its_fields_are_declared_and_move_with_the_image(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    dataset = load_split(recipe, "train")
    mapper = build_mapper(recipe, dataset, training=True)
    for number, record in enumerate(dataset):
        item = mapper(record, index=number)
        depth, instances = item["depth"].tensor.squeeze(), item["instances"]
        assert depth.shape[-2:] == item["image"].shape[-2:] and len(instances.gt_turn) == len(instances)
        for box in instances.gt_boxes.tensor.round().int().tolist():
            assert depth[box[1] : box[3], box[0] : box[2]].max() > 0


def test_each_setting_and_the_plain_format_have_a_folder_of_their_own():
    folders = {str(DepthShapes(scale).folder) for scale in (1.0, 2.0)} | {str(ShapesFormat(3, size=64).folder)}
    assert len(folders) == 3
    assert DepthShapes(split="val").folder == DepthShapes().folder
    assert DepthShapes(2.0).load()[0]["depth"].endswith("_depth.npy")


def test_a_field_that_it_does_not_fill_is_refused(monkeypatch):
    monkeypatch.setattr(DepthShapes, "extra_fields", {"depth": {"geometry": "wrong"}})
    with pytest.raises(RecipeError, match=r"extra_fields.depth.geometry"):
        DepthShapes().load()
