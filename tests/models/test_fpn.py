"""FPN: its levels, its arithmetic, and what it says of features that do not fit."""

import pytest
import torch

from vertebra.models import ShapeSpec
from vertebra.models.necks.fpn import FPN, P6P7, MaxPool


def shapes(**channels):
    return {name: ShapeSpec(channels=count, stride=2 ** int(name[-1])) for name, count in channels.items()}


def test_levels_are_named_by_stride_and_the_top_block_goes_on():
    inputs = shapes(res3=2, res4=3, res5=4)
    assert list(FPN(inputs, 8).output_shape().items()) == [
        (f"p{level}", ShapeSpec(channels=8, stride=2**level)) for level in (3, 4, 5)
    ]
    assert list(FPN(inputs, 8, top_block=MaxPool()).output_shape()) == ["p3", "p4", "p5", "p6"]
    neck = FPN(inputs, 8, top_block=P6P7())
    assert neck.output_shape()["p7"] == ShapeSpec(channels=8, stride=128)
    assert neck.size_divisibility == 32  # as Detectron2: the levels beyond need no padding


@pytest.mark.parametrize("top_block", [None, MaxPool(), P6P7()])
def test_odd_sizes_give_maps_of_the_inputs_sizes(top_block):
    neck = FPN(shapes(res3=2, res4=3, res5=4), 8, top_block=top_block)
    features = {"res3": torch.rand(1, 2, 13, 9), "res4": torch.rand(1, 3, 7, 5), "res5": torch.rand(1, 4, 4, 3)}
    levels = neck(features)
    assert list(levels) == list(neck.output_shape())
    sizes = [tuple(level.shape[-2:]) for level in levels.values()]
    assert sizes == [(13, 9), (7, 5), (4, 3), (2, 2), (1, 1)][: len(levels)]


def unit(neck):
    """Laterals that pass their one channel, outputs that pass the middle cell."""
    for level in neck.levels:
        neck.lateral[level].weight.data.fill_(1)
        neck.output[level].weight.data.zero_()
        neck.output[level].weight.data[:, :, 1, 1] = 1
    return neck


def test_each_level_is_its_lateral_plus_the_stretched_coarser_one():
    fine, coarse = torch.tensor([[1.0, 2, 3, 4]] * 2), torch.tensor([[10.0, 20]])
    features = {"res2": fine[None, None], "res3": coarse[None, None]}
    levels = unit(FPN(shapes(res2=1, res3=1), 1))(features)
    assert levels["p3"].flatten().tolist() == [10, 20]
    assert levels["p2"].flatten().tolist() == [11, 12, 23, 24] * 2
    averaged = unit(FPN(shapes(res2=1, res3=1), 1, fuse="avg"))(features)
    assert averaged["p2"].flatten().tolist() == [5.5, 6, 11.5, 12] * 2


def test_max_pool_takes_every_second_cell():
    levels = unit(FPN(shapes(res2=1), 1, top_block=MaxPool()))({"res2": torch.arange(9.0).view(1, 1, 3, 3)})
    assert levels["p3"].flatten().tolist() == [0, 2, 6, 8]


def test_p6_is_made_of_the_coarsest_backbone_feature_or_of_a_level():
    inputs = shapes(res4=3, res5=4)
    assert FPN(inputs, 8, top_block=P6P7()).top_block.p6.in_channels == 4
    assert FPN(inputs, 8, top_block=P6P7("p5")).top_block.p6.in_channels == 8
    with pytest.raises(ValueError, match="in_feature is 'res9', but the features are p4, p5, res4, res5"):
        FPN(inputs, 8, top_block=P6P7("res9"))


def test_in_features_choose_and_are_put_in_order():
    neck = FPN(shapes(res2=2, res3=2, res4=2), 4, in_features=["res4", "res3"], norm="bn")
    assert list(neck.output_shape()) == ["p3", "p4"]
    assert neck.lateral["p3"].bias is None and neck.lateral["p3"].norm is not None


@pytest.mark.parametrize(
    ("inputs", "arguments", "says"),
    [
        (shapes(res3=2), {"in_features": ["res4"]}, "in_features names 'res4', but the features are res3"),
        (shapes(res3=2, res5=2), {}, r"the strides of res3, res5 are \[8, 32\]; each must be twice"),
        ({"a": ShapeSpec(channels=2, stride=12)}, {}, "stride of a is 12, not a power of 2"),
        (shapes(res3=2), {"fuse": "max"}, "'sum' or 'avg'"),
        (shapes(res3=2), {"norm": "batch"}, "norm is 'batch'.*'frozen_bn'"),
    ],
)
def test_what_does_not_fit_is_said(inputs, arguments, says):
    with pytest.raises(ValueError, match=says):
        FPN(inputs, **arguments)


@pytest.mark.parametrize("channels", [0, -4])
def test_a_width_that_no_map_can_have_is_named(channels):
    with pytest.raises(ValueError, match=f"out_channels is {channels}, it must be at least 1"):
        FPN(shapes(res3=2, res4=3, res5=4), channels)
