"""The simple feature pyramid: its levels, its arithmetic, Detectron2's names, and what it says of what does not fit."""

import re

import pytest
import torch
from torch.nn import functional as F

from vertebra.models import ShapeSpec
from vertebra.models.necks.fpn import FPN, P6P7, MaxPool
from vertebra.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

PLAIN = {name: ShapeSpec(channels=16, stride=16) for name in ("stage9", "stage10", "stage11")}

DETECTRON2 = {
    "simfp_2.0.weight": (16, 8, 2, 2),
    "simfp_2.0.bias": (8,),
    "simfp_2.1.weight": (8,),
    "simfp_2.1.bias": (8,),
    "simfp_2.3.weight": (8, 4, 2, 2),
    "simfp_2.3.bias": (4,),
    "simfp_2.4.weight": (6, 4, 1, 1),
    "simfp_2.4.norm.weight": (6,),
    "simfp_2.4.norm.bias": (6,),
    "simfp_2.5.weight": (6, 6, 3, 3),
    "simfp_2.5.norm.weight": (6,),
    "simfp_2.5.norm.bias": (6,),
    "simfp_3.0.weight": (16, 8, 2, 2),
    "simfp_3.0.bias": (8,),
    "simfp_3.1.weight": (6, 8, 1, 1),
    "simfp_3.1.norm.weight": (6,),
    "simfp_3.1.norm.bias": (6,),
    "simfp_3.2.weight": (6, 6, 3, 3),
    "simfp_3.2.norm.weight": (6,),
    "simfp_3.2.norm.bias": (6,),
    "simfp_4.0.weight": (6, 16, 1, 1),
    "simfp_4.0.norm.weight": (6,),
    "simfp_4.0.norm.bias": (6,),
    "simfp_4.1.weight": (6, 6, 3, 3),
    "simfp_4.1.norm.weight": (6,),
    "simfp_4.1.norm.bias": (6,),
    "simfp_5.1.weight": (6, 16, 1, 1),
    "simfp_5.1.norm.weight": (6,),
    "simfp_5.1.norm.bias": (6,),
    "simfp_5.2.weight": (6, 6, 3, 3),
    "simfp_5.2.norm.weight": (6,),
    "simfp_5.2.norm.bias": (6,),
}
"""Names and shapes of the parameters of Detectron2's SimpleFeaturePyramid, of 16 channels and 6 outputs."""


def layer_norm(x, weight, bias):
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def by_the_paper(x, level, weights):
    """One level in plain functions, from weights in Detectron2's names."""

    def get(name):
        return weights[f"simfp_{level}.{name}"]

    number = {2: 4, 3: 1, 4: 0, 5: 1}[level]
    if level == 2:
        x = F.conv_transpose2d(x, get("0.weight"), get("0.bias"), stride=2)
        x = F.gelu(layer_norm(x, get("1.weight"), get("1.bias")))
        x = F.conv_transpose2d(x, get("3.weight"), get("3.bias"), stride=2)
    elif level == 3:
        x = F.conv_transpose2d(x, get("0.weight"), get("0.bias"), stride=2)
    elif level == 5:
        x = F.max_pool2d(x, 2)
    for place, padding in ((number, 0), (number + 1, 1)):
        x = F.conv2d(x, get(f"{place}.weight"), padding=padding)
        x = layer_norm(x, get(f"{place}.norm.weight"), get(f"{place}.norm.bias"))
    return x


def test_weights_of_detectron2_have_places_and_give_the_papers_arithmetic():
    torch.manual_seed(0)
    neck = SimpleFeaturePyramid(PLAIN, out_channels=6)
    weights = {name: torch.randn(shape) for name, shape in DETECTRON2.items()}
    named = {}
    for name, value in weights.items():
        for pattern, replacement in neck.detectron2_names:
            if re.match(pattern, f"backbone.{name}"):
                named[re.sub(pattern, replacement, f"backbone.{name}")] = value
    neck.load_state_dict(named)  # strict: neither side has one more
    features = {name: torch.randn(2, 16, 4, 6) for name in PLAIN}
    levels = neck(features)
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "p2": (2, 6, 16, 24),
        "p3": (2, 6, 8, 12),
        "p4": (2, 6, 4, 6),
        "p5": (2, 6, 2, 3),
    }
    for level in (2, 3, 4, 5):  # of the last feature
        expected = by_the_paper(features["stage11"], level, weights)
        torch.testing.assert_close(levels[f"p{level}"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "strides"),
    [
        ({}, {"p2": 4, "p3": 8, "p4": 16, "p5": 32}),
        ({"scale_factors": [0.5, 2, 1], "top_block": P6P7()}, {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}),
        ({"top_block": MaxPool()}, {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}),
        ({"scale_factors": [4]}, {"p2": 4}),
    ],
)
def test_levels_are_named_by_stride_and_the_top_block_goes_on(arguments, strides):
    neck = SimpleFeaturePyramid(PLAIN, out_channels=32, **arguments)
    assert {name: spec.stride for name, spec in neck.output_shape().items()} == strides
    assert {spec.channels for spec in neck.output_shape().values()} == {32}
    assert neck.size_divisibility == max(stride for name, stride in strides.items() if name < "p6")
    levels = neck({name: torch.rand(1, 16, 8, 8) for name in PLAIN})
    assert {name: 128 // level.shape[-1] for name, level in levels.items()} == strides


def test_another_feature_than_the_last():
    neck = SimpleFeaturePyramid(PLAIN, in_feature="stage9", out_channels=8)
    features = {"stage9": torch.rand(1, 16, 4, 4)}
    assert neck(features)["p2"].shape == (1, 8, 16, 16)


@pytest.mark.parametrize("norm", ["none", "bn", "gn"])
def test_other_norms(norm):
    shapes = {"x": ShapeSpec(channels=64, stride=16)}
    levels = SimpleFeaturePyramid(shapes, out_channels=32, norm=norm)({"x": torch.rand(2, 64, 2, 2)})
    assert [level.shape[-1] for level in levels.values()] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("shapes", "arguments", "message"),
    [
        (PLAIN, {"in_feature": "res5"}, r"in_feature names 'res5', but the features are stage9, stage10, stage11"),
        ({}, {}, "needs at least one level"),
        (PLAIN, {"scale_factors": [3]}, r"scale_factors is \[3\]; it must name some of 4, 2, 1, 0.5, each once"),
        (PLAIN, {"scale_factors": [1, 1]}, "each once"),
        (PLAIN, {"out_channels": 0}, "out_channels is 0, it must be at least 1"),
        (
            {"stage11": ShapeSpec(channels=16, stride=14)},
            {},
            r"stage11 has a stride of 14, and 4 times its size would have one of 3.5, not .*patch_size: 16",
        ),
    ],
)
def test_what_does_not_fit_is_said(shapes, arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(shapes, **arguments)


def test_other_necks_name_it_where_all_features_have_one_stride():
    with pytest.raises(ValueError, match=r"are \[16, 16, 16\]; .* neck SimpleFeaturePyramid makes levels"):
        FPN(PLAIN)
