"""docs/examples/spectral.py: semantic segmentation of thirteen bands."""

import numpy as np
import pytest
import torch
from whole_path import EXAMPLES, FEW, code_lines, predicted, trained

from vertebra import FORMATS, TRANSFORMS, load_recipe
from vertebra.data import read_labels
from vertebra.testing import TransformConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "spectral.yaml")
SMALL = ("model.backbone.out_features=[res2, res3]",)


@pytest.mark.slow
class TestBandDropout(TransformConformance):
    component = "BandDropout"
    recipe = RECIPE
    hides = True  # all three channels may be dropped
    data = "recipe"
    overrides = FEW


def test_it_is_one_file():
    assert code_lines(EXAMPLES / "spectral.py") <= 150


def test_some_bands_are_dropped_and_the_others_stay():
    load_recipe(RECIPE)
    pixels = torch.randint(1, 10000, (13, 4, 5), dtype=torch.int32)
    dropout = TRANSFORMS.get("BandDropout")(bands=3)
    changed = dropout.recolor(pixels, 10000, 2, np.random.default_rng(0))
    gone = (changed == 0).all(dim=(1, 2))
    assert gone.sum() == 2 and torch.equal(changed[~gone], pixels[~gone])
    assert {dropout.draw(np.random.default_rng(seed)) for seed in range(30)} == {1, 2, 3}


def test_red_green_and_blue_do_not_tell_the_material_and_the_other_bands_do():
    recipe = load_recipe(RECIPE)
    dataset = FORMATS.get("SpectralShapes")(images=12, size=96).load()
    reader = recipe.data.image.build()
    pixels = np.concatenate([reader.read(one["file_name"]).reshape(-1, 13) for one in dataset]).astype(float)
    labels = np.concatenate([read_labels(one["sem_seg_file_name"]).ravel() for one in dataset])
    assert pixels.shape[1] == 13 and set(np.unique(labels)) <= {*range(6), 255}
    snow, concrete = pixels[labels == 4], pixels[labels == 3]
    spread = pixels[np.isin(labels, (3, 4))].std(axis=0)
    distance = np.abs(snow.mean(axis=0) - concrete.mean(axis=0)) / spread
    assert distance[[1, 2, 3]].max() < 0.6 < 1 < distance[[0, 4, 5, 6, 7]].min()


@pytest.mark.e2e
def test_its_whole_path(tmp_path):
    settings = [f"data.{split}.size=64" for split in ("train", "val")]
    metrics = trained("spectral", tmp_path, *SMALL, *settings)
    assert {"sem_seg/mIoU", "sem_seg/IoU-snow"} <= metrics.keys()
    resolved = load_recipe(tmp_path / "run/recipe.yaml")
    assert len(resolved.model.pixel_mean) == 13
    image = resolved.data.val.build().load()[0]["file_name"]
    written = predicted(tmp_path, [image])
    assert {"label_maps", image.rpartition("/")[2].replace(".tif", ".png")} <= {path.name for path in written.files}
