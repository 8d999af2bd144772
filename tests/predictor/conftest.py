"""A tiny trained-looking model on disk, and pictures to predict on."""

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra import build_model, load_recipe

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4, res5]}
  neck: {name: FPN, out_channels: 16}
  heads:
    boxes: {name: RetinaNetHead, num_convs: 1, prior_prob: 0.3, score_threshold: 0.2, num_classes: 3}
data:
  eval_transforms: []
evaluate: {amp: "off"}
"""
CLASSES = ["circle", "square", "star"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(recipe file, weights file) of a detector of three classes that finds much in any picture."""
    folder = tmp_path_factory.mktemp("detector")
    (folder / "tiny.yaml").write_text(RECIPE)
    torch.manual_seed(1)
    model = build_model(load_recipe(str(folder / "tiny.yaml")))
    for parameter in model.heads["boxes"].cls_score.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save({"model": model.state_dict(), "classes": CLASSES}, folder / "weights.pth")
    return folder / "tiny.yaml", folder / "weights.pth"


@pytest.fixture
def predictor(trained):
    from vertebra import Predictor

    return Predictor(*trained, device="cpu")


@pytest.fixture(scope="session")
def pixels():
    """pixels(64, 96, seed=0): a colorful picture (H, W, 3) uint8."""

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def folder(tmp_path, pixels):
    """A folder with a.png (64 x 96) and b.jpg (80 x 64)."""
    inside = tmp_path / "images"
    inside.mkdir()
    Image.fromarray(pixels(64, 96, 1)).save(inside / "a.png")
    Image.fromarray(pixels(80, 64, 2)).save(inside / "b.jpg")
    (inside / "notes.txt").write_text("no image")
    return inside


@pytest.fixture
def video(tmp_path, pixels):
    """clip.mp4: 5 frames of 64 x 96 pixels, 10 a second."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MP4")
    for seed in range(5):
        writer.write(pixels(64, 96, seed)[:, :, ::-1])
    writer.release()
    return path
