"""Detectron2's RetinaNet R50-FPN as golden numbers: weights by rule, images, what came out."""

import fnmatch
import json
import math
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

# What is multiplied and added after the common rule, by name; the first pattern that fits counts.
SCALES = [
    ("*res[2-5].*.conv3.norm.weight", 0.25, 0),
    ("*stem.conv1.weight", 1 / 64, 0),
    ("*fpn_lateral*.weight", 0.5, 0),
    ("*fpn_output*.weight", 0.5, 0),
    ("head.cls_score.weight", 0.6, 0),
    ("head.cls_score.bias", 1, -4),
    ("head.bbox_pred.weight", 0.1, 0),
    ("proposal_generator.rpn_head.anchor_deltas.weight", 0.1, 0),
    ("roi_heads.box_predictor.cls_score.weight", 2, 0),
    ("roi_heads.box_predictor.bbox_pred.weight", 0.5, 0),
    ("roi_heads.mask_head.predictor.weight", 2, 0),
]


def golden_value(name: str, shape: list[int], scales: list[tuple[str, float, float]] = SCALES) -> np.ndarray:
    """The value of a parameter in the golden model: normal numbers seeded by its name, scaled by its kind."""
    value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) >= 2:
        value *= math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        value = 1 + 0.2 * abs(value)
    elif name.endswith("running_mean"):
        value *= 0.1
    elif name.endswith("weight"):
        value = 1 + 0.1 * value
    else:
        value *= 0.05
    for pattern, factor, offset in scales:
        if fnmatch.fnmatchcase(name, pattern):
            value = value * factor + offset
            break
    return value.astype(np.float32)


@pytest.fixture(scope="session")
def golden_rule():
    """`golden_value` and its `SCALES`, for golden models of other files."""
    return SimpleNamespace(value=golden_value, scales=SCALES)


@pytest.fixture(scope="session")
def golden(repository):
    """`weights` in Detectron2's names, `images` (RGB uint8 (3, h, w) by letter), `numbers` (json), `arrays` (npz)."""
    data = repository / "tests/reference"
    numbers = json.loads((data / "golden_retinanet.json").read_text())
    return SimpleNamespace(
        numbers=numbers,
        arrays=dict(np.load(data / "golden_retinanet.npz")),
        weights={name: torch.from_numpy(golden_value(name, shape)) for name, shape, *_ in numbers["state_dict"]},
        images={
            letter: torch.from_numpy(np.array(Image.open(data / f"golden_retinanet_{letter}.png"))).permute(2, 0, 1)
            for letter in "AB"
        },
    )
