"""ConvNorm skips what a dilated kernel sees of the padding and turns depthwise ones round; no result changes."""

import pytest
import torch
from torch.nn import functional as F

from vertebra.models.convolution import ConvNorm


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("dilation", [2, 6, 7, 12, 13, 40])  # the map is 13 x 7: 6 reaches across it, 7 does not
def test_output_and_gradients_are_those_of_the_whole_kernel(dilation, kernel, stride, groups, channels_last):
    torch.manual_seed(0)
    conv = ConvNorm(8, 8, kernel, stride=stride, dilation=dilation, groups=groups).double()
    x = torch.randn(2, 8, 13, 7, dtype=torch.float64)
    if channels_last:
        conv, x = conv.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    wanted = F.conv2d(x, conv.weight, conv.bias, stride, dilation * (kernel // 2), dilation, groups)
    got = conv(x)
    towards = torch.randn_like(wanted)
    inputs = (x, conv.weight, conv.bias)
    assert got.stride() == wanted.stride()
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, inputs, towards), torch.autograd.grad(wanted, inputs, towards))


def test_a_dilation_as_wide_as_the_map_computes_the_middle_tap_alone():
    conv = ConvNorm(16, 4, 3, dilation=24)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        real = F.conv2d
        patch.setattr(F, "conv2d", lambda x, weight, **rest: calls.append(weight.shape) or real(x, weight, **rest))
        conv(torch.zeros(1, 16, 20, 25))
    assert calls == [(4, 16, 1, 3)]  # 24 cells up or down is outside; 24 to the side hits the last column


def test_an_exported_dilated_convolution_is_for_maps_of_any_size():
    conv = ConvNorm(4, 4, 3, dilation=6, groups=4).eval()
    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(conv, (torch.randn(1, 4, 5, 5),), dynamic_shapes=(sizes,))  # smaller than 6
    x = torch.randn(1, 4, 20, 17)
    torch.testing.assert_close(program.module()(x), conv(x))


def test_a_traced_dilated_convolution_is_for_maps_of_any_size():
    conv = ConvNorm(4, 4, 3, dilation=6, norm="bn").eval()
    traced = torch.jit.trace(conv, torch.randn(1, 4, 5, 5))
    x = torch.randn(1, 4, 20, 17)
    torch.testing.assert_close(traced(x), conv(x))


def test_another_padding_is_respected():
    conv = ConvNorm(4, 4, 3, dilation=2)
    conv.padding = (0, 0)
    assert conv(torch.zeros(1, 4, 9, 9)).shape == (1, 4, 5, 5)


@pytest.mark.parametrize("groups", [1, 8])
def test_an_empty_batch_gives_an_empty_map_and_a_gradient_of_zero(groups):
    conv = ConvNorm(8, 8, 3, dilation=6, groups=groups).to(memory_format=torch.channels_last)
    out = conv(torch.zeros(0, 8, 5, 9).contiguous(memory_format=torch.channels_last))
    out.sum().backward()
    assert out.shape == (0, 8, 5, 9)
    assert not conv.weight.grad.any()


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("size", [(13, 7), (1, 7), (2, 2), (1, 1)])
def test_bf16_gradients_are_those_of_fp32(groups, size):
    torch.manual_seed(0)
    conv = ConvNorm(8, 8, 3, dilation=6, groups=groups).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    inputs = (x, conv.weight, conv.bias)
    wanted = F.conv2d(x, conv.weight, conv.bias, 1, 6, 6, groups)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = conv(x)
    towards = torch.randn_like(wanted)
    exact, rounded = torch.autograd.grad(wanted, inputs, towards), torch.autograd.grad(got, inputs, towards.to(got))
    for one, other in zip(exact, rounded, strict=True):
        torch.testing.assert_close(other, one, rtol=0.02, atol=0.02 * one.abs().max().item())
