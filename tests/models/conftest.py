"""Detectron2's RetinaNet as golden numbers (tests/reference/golden_retinanet.md), for the stages of the backbone."""

import fnmatch
import json
import math
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image


def golden_value(name: str, shape: list[int]) -> np.ndarray:
    """The value of a backbone's parameter in the golden model: normal numbers seeded by its name."""
    value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) >= 2:
        value *= math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        value = 1 + 0.2 * abs(value)
    elif name.endswith("weight"):
        value = 1 + 0.1 * value
    else:
        value *= 0.1 if name.endswith("running_mean") else 0.05
    factors = {"*res[2-5].*.conv3.norm.weight": 0.25, "*stem.conv1.weight": 1 / 64, "*fpn_*.weight": 0.5}
    factor = next((factor for pattern, factor in factors.items() if fnmatch.fnmatchcase(name, pattern)), 1)
    return (value * factor).astype(np.float32)


@pytest.fixture(scope="session")
def golden_backbone(repository):
    """`weights` in Detectron2's names, `images` (BGR uint8 (3, h, w) by letter), `slices`, `bounds` of each stage."""
    data = repository / "tests/reference"
    numbers = json.loads((data / "golden_retinanet.json").read_text())
    arrays = np.load(data / "golden_retinanet.npz")
    images = {}
    for letter in "AB":
        rgb = np.array(Image.open(data / f"golden_retinanet_{letter}.png"))
        images[letter] = torch.from_numpy(rgb[..., ::-1].copy()).permute(2, 0, 1)
    return SimpleNamespace(
        weights={
            name: torch.from_numpy(golden_value(name, shape))
            for name, shape, *_ in numbers["state_dict"]
            if name.startswith("backbone.")
        },
        sums={name: total for name, _, total, _ in numbers["state_dict"] if name.startswith("backbone.")},
        images=images,
        slices={key: torch.from_numpy(arrays[key]) for key in arrays.files if "/backbone" in key},
        bounds={key: bounds for key, bounds in numbers["stages"].items() if "/backbone" in key},
    )
