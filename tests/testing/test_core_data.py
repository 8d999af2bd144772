"""The core's own transforms, samplers and formats keep what the conformance kit asks of a plugin's."""

import json

import numpy as np
import pytest
from PIL import Image

from vertebra.plugins import core
from vertebra.testing import FormatConformance, SamplerConformance, TransformConformance

ARGUMENTS = {
    "ClassBalancedCrop": {"size": 80},
    "ColorJitter": {"brightness": 0.5, "hue": 0.1},
    "LargeScaleJitter": {"size": 120},
    "MixUp": {"prob": 1.0},
    "Mosaic": {"prob": 1.0},
    "PadTo": {"size": [150, 160], "center": True},
    "RandomAffine": {"degrees": 30, "translate": 0.2},
    "RandomCrop": {"crop_type": "relative", "crop_size": [0.8, 0.8]},
    "RandomFlip": {"vertical": True},
    "RandomRotation": {"degrees": 30},
    "RandomScaleCrop": {"size": [90, 100]},
    "ResizeLetterbox": {"size": [64, 200]},
    "ResizeShortestEdge": {"short_edge": 60},
    "ResizeStretch": {"size": [60, 200]},
}
CANNOT_MOVE = {"ElasticDeform": ["rotated"], "MixUp": ["region", "depth"], "Mosaic": ["region"]}
TRANSFORM_CHECKS = [name for name in dir(TransformConformance) if name.startswith("test_")]


@pytest.mark.parametrize("name", sorted(core().components["transform"]))
@pytest.mark.parametrize("check", TRANSFORM_CHECKS)
def test_transforms(name, check):
    settings = {
        "arguments": ARGUMENTS.get(name, {}),
        "cannot_move": CANNOT_MOVE.get(name, ()),
        "hides": name == "MixUp",
    }
    getattr(type("Kit", (TransformConformance,), {"component": name, **settings})(), check)()


class TestTrainingSampler(SamplerConformance):
    component = "TrainingSampler"


class TestTrainingSamplerInOrder(SamplerConformance):
    component = "TrainingSampler"
    arguments = {"shuffle": False}
    shuffles = False


class TestRepeatFactorSampler(SamplerConformance):
    component = "RepeatFactorSampler"
    arguments = {"repeat_threshold": 0.5}


def test_every_sampler_of_the_core_is_among_these():
    assert set(core().components["sampler"]) == {
        cls.component for cls in SamplerConformance.__subclasses__() if cls.__module__ == __name__
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A COCO file, its panoptic kin and folders of labels, of three small images."""
    root = tmp_path_factory.mktemp("sample")
    (root / "images").mkdir(), (root / "labels").mkdir()
    images, annotations = [], []
    for number, name in enumerate(("b.png", "a.png", "c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / name)
        Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(root / "labels" / name)
        images.append({"id": number + 1, "file_name": name, "height": 40, "width": 60})
        box = {
            "id": number + 1,
            "image_id": number + 1,
            "category_id": 5,
            "bbox": [10, 5, 30 + number, 20],
            "iscrowd": 0,
        }
        annotations.append({**box, "area": 600, "segmentation": [[10, 5, 40, 5, 40, 25]]})
    categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "boxes.json").write_text(text)
    return root


FORMATS = {
    "coco": {"annotations": "boxes.json", "images": "images"},
    "semantic_folder": {"images": "images", "masks": "labels", "classes": ["ground", "thing"]},
}


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("check", [name for name in dir(FormatConformance) if name.startswith("test_")])
def test_formats(folder, name, check):
    settings = {"component": name, "root": folder, "arguments": FORMATS[name]}
    getattr(type("Kit", (FormatConformance,), settings)(), check)()
