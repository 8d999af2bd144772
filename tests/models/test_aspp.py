"""Atrous spatial pyramid pooling, separable convolutions, dilated MobileNetV2."""

import pytest
import torch
from torch.nn import functional as F

from vertebra.models.backbones.mobilenet import MobileNetV2
from vertebra.models.convolution import ConvNorm
from vertebra.models.layers import ASPP, SeparableConvNorm


@pytest.mark.parametrize("norm", ["none", "bn", "frozen_bn"])
@pytest.mark.parametrize("training", [False, True])
def test_parts_are_as_the_whole_spread_over_the_map(norm, training):
    torch.manual_seed(0)
    conv = ConvNorm(5, 4, 1, norm=norm, relu=True)
    if norm != "none":
        conv.norm.running_mean.normal_()
        conv.norm.running_var.uniform_(0.5, 2)
    x, mean = torch.randn(2, 3, 6, 7), torch.randn(2, 2, 1, 1)
    conv.train(training)
    parts = conv.forward_parts(x, mean)
    torch.testing.assert_close(parts, conv(torch.cat([x, mean.expand(-1, -1, 6, 7)], dim=1)), rtol=1e-4, atol=1e-5)


def test_aspp_of_a_constant_map_worked_by_hand():
    """All weights 1, no norm: the 1x1 branch gives c, a dilated 3x3 one c for each tap inside, the mean c."""
    aspp = ASPP(1, 1, rates=[1, 3], norm="none", dropout=0.0)
    for conv in (*aspp.convs, aspp.pool, aspp.project):
        torch.nn.init.ones_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    out = aspp(torch.full((1, 1, 5, 5), 2.0))
    # the corner: 1 + 4 + 4 + 1 taps; the middle: 1 + 9 + 1 (rate 3 leaves the map on every side) + 1
    assert out[0, 0, 0, 0].item() == 2 * (1 + 4 + 4 + 1)
    assert out[0, 0, 2, 2].item() == 2 * (1 + 9 + 1 + 1)


def test_a_window_as_large_as_the_map_is_the_mean_of_the_map_and_a_larger_one_too():
    torch.manual_seed(0)
    whole = ASPP(4, 8, rates=[2], dropout=0.0).eval()
    x = torch.randn(2, 4, 6, 9)
    for pool_size in [(6, 9), (32, 64)]:
        windowed = ASPP(4, 8, rates=[2], dropout=0.0, pool_size=pool_size).eval()
        windowed.load_state_dict(whole.state_dict())
        torch.testing.assert_close(windowed(x), whole(x), rtol=1e-4, atol=1e-5)


def test_a_smaller_window_sees_what_lies_around_it():
    aspp = ASPP(1, 1, rates=[], norm="none", dropout=0.0, pool_size=(2, 2))
    for conv in (*aspp.convs, aspp.pool, aspp.project):
        torch.nn.init.ones_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    x = torch.arange(8.0).view(1, 1, 2, 4)
    means = torch.tensor([2.5, 3.5, 4.5]).view(1, 1, 1, 3)  # of the three windows, then spread over 4 columns
    wanted = x + F.interpolate(means, size=(2, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(aspp(x), wanted)


def test_one_image_of_one_cell_cannot_train_batch_normalization_and_the_error_says_so():
    with pytest.raises(ValueError, match=r"more than one value per channel.*\(1, 8, 1, 1\).*two images or more"):
        ASPP(4, 8, rates=[1]).train()(torch.randn(1, 4, 1, 1))
    with pytest.raises(ValueError, match="more than one value per channel"):  # the pooled branch of a larger map
        ASPP(4, 8, rates=[1], pool_norm="bn").train()(torch.randn(1, 4, 5, 5))
    for pool_norm, images in [("none", 1), ("bn", 2)]:
        aspp = ASPP(4, 8, rates=[1], pool_norm=pool_norm).train()
        assert aspp(torch.randn(images, 4, 5, 5)).isfinite().all()
    assert ASPP(4, 8, rates=[1]).eval()(torch.randn(1, 4, 1, 1)).shape == (1, 8, 1, 1)


def test_separable_convolution_is_a_kernel_per_channel_and_then_across():
    torch.manual_seed(0)
    layer = SeparableConvNorm(6, 4, 3, dilation=2, norm="none")
    x = torch.randn(1, 6, 9, 9)
    inner = F.conv2d(x, layer.depthwise.weight, layer.depthwise.bias, padding=2, dilation=2, groups=6)
    torch.testing.assert_close(layer(x), F.conv2d(inner, layer.pointwise.weight, layer.pointwise.bias).relu())
    assert sum(p.numel() for p in SeparableConvNorm(6, 4).parameters()) == 6 * 9 + 6 * 4 + 2 * 6 + 2 * 4


def test_separable_convolution_has_norm_and_relu_twice_unless_told_otherwise():
    twice, once = SeparableConvNorm(6, 4), SeparableConvNorm(6, 4, inner_norm="none")
    assert (twice.depthwise.norm is not None, twice.depthwise.relu) == (True, True)
    assert (once.depthwise.norm is None, once.depthwise.relu, once.pointwise.relu) == (True, False, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"rates": [0]}, r"rates are \[0\]"), ({"pool_size": [0, 3]}, "pool_size is .* at least 1 cell")],
)
def test_wrong_arguments_of_aspp_are_explained(arguments, says):
    with pytest.raises(ValueError, match=says):
        ASPP(4, 8, **arguments)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_a_dilated_mobilenet_computes_the_same_at_more_places(output_stride):
    """With the same weights, every second (fourth) cell of the dilated map is the cell of the strided one."""
    torch.manual_seed(0)
    strided = MobileNetV2(width=0.25, out_features=["stage2", "stage5"]).eval()
    dilated = MobileNetV2(width=0.25, out_features=["stage2", "stage5"], output_stride=output_stride).eval()
    dilated.load_state_dict(strided.state_dict())
    assert [spec.stride for spec in dilated.output_shape().values()] == [4, output_stride]
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted, got = strided(images), dilated(images)
    torch.testing.assert_close(got["stage2"], wanted["stage2"])
    step = 32 // output_stride
    torch.testing.assert_close(got["stage5"][:, :, ::step, ::step], wanted["stage5"], rtol=1e-4, atol=1e-5)


def test_mobilenet_says_which_output_strides_there_are():
    with pytest.raises(ValueError, match="output_stride is 4; it must be 8, 16 or 32"):
        MobileNetV2(output_stride=4)
