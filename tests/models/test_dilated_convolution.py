"""ConvNorm leaves out what a dilated kernel sees of the padding and turns depthwise ones round; no result changes."""

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
