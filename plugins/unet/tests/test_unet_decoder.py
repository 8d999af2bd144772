"""The expansive path: stages for every stride, upsampling of every kind, gates, sizes that do not halve evenly."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vertebra.models import ShapeSpec
from vertebra_unet import AttentionGate, Interpolation, TransposedConvolution, UNetDecoder, UNetEncoder

RESNET = {f"res{i}": ShapeSpec(channels=64 * 2 ** (i - 2), stride=2**i) for i in range(2, 6)}
FINE = {f"l{i}": ShapeSpec(channels=8 * (i + 1), stride=2**i) for i in range(3)}


def features(shapes, height, width):
    """What a backbone gives for an image of this size; sides are rounded up."""
    return {
        name: torch.randn(2, s.channels, -(-height // s.stride), -(-width // s.stride)) for name, s in shapes.items()
    }


def test_a_backbone_without_fine_levels_gets_stages_of_their_own():
    decoder = UNetDecoder(RESNET)
    assert {name: (s.channels, s.stride) for name, s in decoder.output_shape().items()} == {
        "up1": (16, 1),
        "up2": (32, 2),
        "up4": (64, 4),
        "up8": (128, 8),
        "up16": (256, 16),
    }
    maps = decoder(features(RESNET, 64, 96))
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        "up1": (16, 64, 96),
        "up2": (32, 32, 48),
        "up4": (64, 16, 24),
        "up8": (128, 8, 12),
        "up16": (256, 4, 6),
    }


def test_levels_may_be_missing_between():
    shapes = {"fine": ShapeSpec(8, 2), "coarse": ShapeSpec(32, 16)}
    decoder = UNetDecoder(shapes)
    assert [step.skip for step in decoder.steps] == [None, None, "fine", None]
    assert decoder(features(shapes, 32, 48))["up1"].shape == (2, 16, 32, 48)


def test_it_may_end_at_a_coarser_stride():
    decoder = UNetDecoder(RESNET, out_stride=4)
    assert list(decoder.output_shape()) == ["up4", "up8", "up16"]


def test_widths_are_those_asked_for():
    decoder = UNetDecoder(FINE, widths=[12, 6])
    assert {name: s.channels for name, s in decoder.output_shape().items()} == {"up2": 12, "up1": 6}


@pytest.mark.parametrize(
    "upsampling",
    [
        TransposedConvolution(2),
        TransposedConvolution(3),
        TransposedConvolution(4, bilinear=True),
        Interpolation("nearest"),
        Interpolation("bilinear", kernel_size=1),
        Interpolation("bilinear", kernel_size=3),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(8, 12), (9, 11), (1, 1), (2, 5)])
def test_every_upsampling_reaches_sizes_that_do_not_halve_evenly(upsampling, size):
    decoder = UNetDecoder(FINE, upsampling=upsampling, norm="none")
    found = decoder(features(FINE, *size))
    assert found["up1"].shape[-2:] == size
    assert found["up2"].shape[-2:] == (-(-size[0] // 2), -(-size[1] // 2))


def test_a_bilinear_start_interpolates_and_averages_channels():
    up = TransposedConvolution(4, bilinear=True).make(4, 2)
    x = torch.randn(1, 4, 5, 6)
    with torch.no_grad():
        found = up(x, (10, 12))
    wanted = F.interpolate((x[:, :2] + x[:, 2:]) / 2, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1])  # beyond the border the kernel sees 0


def test_a_1x1_convolution_before_interpolation_is_the_same_as_after():
    up = Interpolation("bilinear", kernel_size=1).make(6, 3)
    x = torch.randn(1, 6, 4, 5)
    after = up.conv(F.interpolate(x, size=(8, 10), mode="bilinear", align_corners=False))
    torch.testing.assert_close(up(x, (8, 10)), after)


def test_a_gate_weighs_a_skip_by_the_equations():
    """skip * sigmoid(psi relu(W_x skip + W_g gate)) with all weights 1: worked by hand for one cell."""
    gate = AttentionGate().make(2, 1)
    for parameter in gate.parameters():
        nn.init.ones_(parameter)
    nn.init.zeros_(gate.gate.bias)
    nn.init.zeros_(gate.psi.bias)
    skip, coarse = torch.full((1, 2, 2, 2), 0.25), torch.full((1, 1, 1, 1), -1.0)
    weight = torch.sigmoid(torch.tensor(8 * 0.25 - 1.0))  # 2 channels of 2 x 2 cells; one joint channel
    torch.testing.assert_close(gate(skip, coarse), skip * weight)


def test_gates_stand_at_every_skip_and_nowhere_else():
    decoder = UNetDecoder(RESNET, gate=AttentionGate())
    assert list(decoder.gates) == ["res4", "res3", "res2"]
    assert len(UNetDecoder(RESNET).gates) == 0


def test_valid_convolutions_end_at_388_of_572():
    encoder = UNetEncoder(base_width=1, norm="none", padding="valid", border="keep")
    decoder = UNetDecoder(encoder.output_shape(), norm="none", padding="valid")
    assert decoder.margin == 92
    with torch.no_grad():
        maps = decoder(encoder(torch.zeros(1, 3, 572, 572)))
    assert [x.shape[-1] for x in maps.values()] == [388, 196, 100, 52]


@pytest.mark.parametrize(
    ("shapes", "arguments", "words"),
    [
        ({}, {}, "at least one level"),
        ({"a": ShapeSpec(8, 4), "b": ShapeSpec(8, 4)}, {}, "a and b both have stride 4.*out_features"),
        ({"a": ShapeSpec(8, 3)}, {}, "stride 3, which is not a power of 2"),
        (FINE, {"widths": [4]}, r"widths \[4\] must be 2 numbers"),
        (FINE, {"out_stride": 4}, "out_stride is 4"),
        (FINE, {"out_stride": 3}, "out_stride is 3"),
        (RESNET, {"padding": "valid"}, "needs a feature at every stride from 1 on"),
        ({"only": ShapeSpec(8, 1)}, {}, "below the coarsest feature's stride 1"),
    ],
)
def test_a_wrong_input_or_argument_is_named(shapes, arguments, words):
    with pytest.raises(ValueError, match=words):
        UNetDecoder(shapes, **arguments)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TransposedConvolution(5), "kernel_size is 5"),
        (lambda: TransposedConvolution(2, bilinear=True), "bilinear needs kernel_size 4"),
        (lambda: Interpolation("cubic"), "mode is 'cubic'"),
        (lambda: Interpolation("nearest", 5), "kernel_size is 5"),
        (lambda: AttentionGate(ratio=0), "ratio is 0"),
    ],
)
def test_a_wrong_part_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
