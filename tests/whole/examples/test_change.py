"""docs/examples/change.py: change detection from two images."""

import numpy as np
import pytest
import torch
from whole_path import EXAMPLES, FEW, code_lines, predicted, trained

from vertebra import BACKBONES, FORMATS, load_recipe
from vertebra.data import read_image, read_labels
from vertebra.models import ResNet
from vertebra.testing import BackboneConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "change.yaml")
SMALL = ("model.neck.out_channels=8", "model.heads.change.conv_channels=32", "model.backbone.encoder.depth=18")


@pytest.mark.slow
class TestSiameseBackbone(BackboneConformance):
    component = "SiameseBackbone"
    recipe = RECIPE
    arguments = {"encoder": {"name": "ResNet", "depth": 18, "out_features": ["res2", "res5"]}}
    images = {"after": 3}
    data = "recipe"
    overrides = FEW


def test_it_is_one_file():
    assert code_lines(EXAMPLES / "change.py") <= 150


def test_equal_images_differ_in_nothing():
    load_recipe(RECIPE)
    encoder = ResNet(18, norm="bn", out_features=["res2", "res5"])
    backbone = BACKBONES.get("SiameseBackbone")(encoder).eval()
    images = torch.randn(2, 3, 64, 64)
    features = backbone(images, images)
    assert features["res2"].shape == (2, 192, 16, 16)
    first, second, difference = features["res2"].chunk(3, dim=1)
    assert torch.equal(first, second) and not difference.any()
    assert torch.allclose(first, encoder(images)["res2"], atol=1e-5)


def test_what_is_labeled_has_changed_and_the_rest_has_only_other_light():
    load_recipe(RECIPE)
    dataset = FORMATS.get("ChangeShapes")(images=6, size=96).load()
    assert dataset.metadata.stuff_classes == ["unchanged", "gone", "new"]
    changes = set()
    for one in dataset:
        before, after = (read_image(one[key]).astype(float).mean(2) for key in ("file_name", "after"))
        labels = read_labels(one["sem_seg_file_name"])
        changes |= set(np.unique(labels).tolist())
        same = labels == 0
        gain, offset = np.polyfit(before[same], after[same], 1)
        error = np.abs(gain * before + offset - after)
        assert np.median(error[same]) < 8
        if (~same).any():
            assert error[~same].mean() > 2 * error[same].mean()
    assert changes == {0, 1, 2}


@pytest.mark.e2e
def test_its_whole_path(tmp_path):
    settings = [f"data.{split}.size=64" for split in ("train", "val")]
    metrics = trained("change", tmp_path, *SMALL, *settings)
    assert {"sem_seg/mIoU", "sem_seg/IoU-gone"} <= metrics.keys()
    image = load_recipe(tmp_path / "run/recipe.yaml").data.val.build().load()[0]["file_name"]
    written = predicted(tmp_path, [image], inputs={"after": "{stem}_after.png"})
    assert {path.name for path in written.files} >= {"label_maps"}
    assert any(path.suffix == ".png" for path in written.files)
