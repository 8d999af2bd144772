"""A large kernel's gradient as matrix products: the same as torch's own, taken where it is faster and nowhere else."""

import pytest
import torch
from torch.nn import functional as F

from vertebra.models import convolution, kernel_gradient
from vertebra.models.convolution import ConvNorm
from vertebra.models.kernel_gradient import convolve, products_are_faster


def _gradients(x, weight, bias, padding, dilation, function):
    inputs = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    out = function(*inputs, padding, dilation)
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return out, torch.autograd.grad(out, inputs, towards)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (2, 4)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3), (9, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (9, 9)])
def test_output_and_gradients_are_those_of_conv2d(kernel, dilation, padding):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 21, 19, dtype=torch.float64)
    weight, bias = torch.randn(4, 3, *kernel, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    got = _gradients(x, weight, bias, padding, dilation, convolve)
    wanted = _gradients(x, weight, bias, padding, dilation, lambda x, w, b, p, d: F.conv2d(x, w, b, 1, p, d))
    torch.testing.assert_close(got, wanted)


def test_a_tap_that_sees_nothing_but_padding_has_no_gradient():
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    out = convolve(torch.ones(1, 2, 4, 4), weight, None, (5, 5), (5, 5))
    (grad,) = torch.autograd.grad(out.sum(), weight)
    middle = torch.zeros(2, 2, 3, 3)
    middle[:, :, 1, 1] = 16
    assert torch.equal(grad, middle)


def test_it_can_be_differentiated_twice_and_mapped():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(lambda *inputs: convolve(*inputs, (1, 1), (1, 1)), (x, weight, bias))

    def loss(weight, image):
        return convolve(image[None], weight, None, (1, 1), (1, 1)).square().sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    alone = [torch.autograd.grad(loss(weight, image), weight)[0] for image in x]
    torch.testing.assert_close(each, torch.stack(alone))


def test_only_large_kernels_in_training_take_it(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    x, weight = torch.zeros(2, 256, 16, 16), torch.zeros(256, 256, 3, 3, requires_grad=True)
    assert products_are_faster(x, weight, (1, 1), 1)
    assert not products_are_faster(x, weight, (2, 2), 1)
    assert not products_are_faster(x, weight, (1, 1), 2)
    assert not products_are_faster(x[:1], weight, (1, 1), 1)
    many_cells, many_channels = torch.zeros(40, 256, 16, 16), torch.zeros(512, 512, 3, 3, requires_grad=True)
    assert not products_are_faster(many_cells, weight, (1, 1), 1)
    assert products_are_faster(torch.zeros(40, 512, 16, 16), many_channels, (1, 1), 1)
    assert not products_are_faster(x, weight[:, :, 1:2, 1:2], (1, 1), 1)
    assert not products_are_faster(x, weight[:64], (1, 1), 1)
    assert not products_are_faster(x, weight.detach(), (1, 1), 1)
    assert not products_are_faster(x.double(), weight.double(), (1, 1), 1)
    assert not products_are_faster(x.to(memory_format=torch.channels_last), weight, (1, 1), 1)
    with torch.no_grad():
        assert not products_are_faster(x, weight, (1, 1), 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not products_are_faster(x, weight, (1, 1), 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not products_are_faster(x, weight, (1, 1), 1)


@pytest.mark.parametrize("dilation", [1, 2, 40])
@pytest.mark.parametrize("norm", ["", "bn", "frozen_bn"])
def test_a_conv_norm_learns_the_same_with_it_and_without(monkeypatch, dilation, norm):
    torch.manual_seed(0)
    conv, x = ConvNorm(256, 256, 3, dilation=dilation, norm=norm, relu=True), torch.randn(2, 256, 16, 17)
    calls: list[int] = []
    real = kernel_gradient._kernel_gradient
    monkeypatch.setattr(kernel_gradient, "_kernel_gradient", lambda *args: calls.append(1) or real(*args))
    grads = {}
    for faster in (False, True):
        monkeypatch.setattr(convolution, "products_are_faster", lambda *_, faster=faster: faster)
        conv.zero_grad()
        (conv(x) * torch.linspace(-1, 1, 17)).sum().backward()
        grads[faster] = conv.weight.grad
        assert len(calls) == faster
    torch.testing.assert_close(grads[True], grads[False], rtol=1e-4, atol=1e-4 * float(grads[False].abs().max()))
