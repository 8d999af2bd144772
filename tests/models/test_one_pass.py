"""Convolution, sum and ReLU in one pass give the values, and the layout, of the three calls."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vertebra.models import one_pass
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.convolution import ConvNorm
from vertebra.models.fuse import fuse_conv_bn
from vertebra.models.one_pass import convolve

ONCE = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@pytest.fixture
def passes(monkeypatch):
    """How often oneDNN was asked for all at once."""
    if None in (one_pass._OPERATOR, one_pass._select_backend) or not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN, or no operator for its post-operations")
    calls, operator = [], one_pass._OPERATOR
    monkeypatch.setattr(one_pass, "_OPERATOR", lambda *args: calls.append(1) or operator(*args))
    return calls


def three_calls(x, weight, bias, added, relu, **geometry):
    out = F.conv2d(x, weight, bias, **geometry)
    out = out if added is None else out + added
    return out.relu() if relu else out


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    channels=st.tuples(st.sampled_from([1, 3, 8, 30]), st.sampled_from([1, 4, 16, 33])),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    formats=st.tuples(*[st.sampled_from(["NCHW", "NHWC"])] * 3),
    parts=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@settings(max_examples=150, deadline=None)
def test_equal_to_three_calls_bit_for_bit(sizes, channels, kernel, stride, dilation, groups, formats, parts):
    (number, height, width), (with_bias, with_added, relu) = sizes, parts
    torch.manual_seed(0)
    x_format, w_format, added_format = (FORMATS[name] for name in formats)
    x = torch.randn(number, channels[0] * groups, height, width).contiguous(memory_format=x_format)
    weight = torch.randn(channels[1] * groups, channels[0], kernel, kernel).contiguous(memory_format=w_format)
    bias = torch.randn(len(weight)) if with_bias else None
    geometry = {
        "stride": (stride,) * 2,
        "padding": (dilation * (kernel // 2),) * 2,
        "dilation": (dilation,) * 2,
        "groups": groups,
    }
    with torch.inference_mode():
        shape = F.conv2d(x, weight, bias, **geometry).shape
        added = torch.randn(shape).contiguous(memory_format=added_format) if with_added else None
        kept = None if added is None else added.clone()
        found = convolve(x, weight, bias, **geometry, added=added, relu=relu)
        expected = three_calls(x, weight, bias, added, relu, **geometry)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last) == expected.is_contiguous(
        memory_format=torch.channels_last
    )
    assert added is None or torch.equal(added, kept)


@pytest.mark.parametrize("added", [False, True])
def test_predictions_take_one_pass_and_training_does_not(passes, added):
    x, weight = torch.randn(1, 64, 40, 40), torch.randn(64, 64, 3, 3)
    shortcut = torch.randn(1, 64, 40, 40) if added else None
    with torch.inference_mode():
        convolve(x, weight, None, **ONCE, added=shortcut, relu=True)
    assert len(passes) == 1
    convolve(x, weight.requires_grad_(), None, **ONCE, added=shortcut, relu=True).sum().backward()
    assert len(passes) == 1
    assert weight.grad is not None


@pytest.mark.parametrize("case", ["autocast", "double", "transposed", "no map", "subclass", "oneDNN off"])
def test_what_does_not_fit_is_made_by_three_calls(passes, case):
    x, weight = torch.randn(1, 64, 40, 40), torch.randn(64, 64, 3, 3)
    if case == "double":
        x, weight = x.double(), weight.double()
    x = x.transpose(2, 3) if case == "transposed" else x[:0] if case == "no map" else x
    weight = weight.as_subclass(type("Other", (torch.Tensor,), {})) if case == "subclass" else weight
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=case == "autocast"),
        torch.backends.mkldnn.flags(enabled=case != "oneDNN off"),
    ):
        found = convolve(x, weight, None, **ONCE, relu=True)
        expected = three_calls(x, weight, None, None, True, **ONCE)
    assert not passes
    assert torch.equal(found, expected)
    assert found.dtype == expected.dtype


def test_without_the_operator_the_values_are_the_same(passes, monkeypatch):
    torch.manual_seed(0)
    net = fuse_conv_bn(ResNet(50, norm="bn", out_features=["res2", "res3", "res5"], res5_dilation=2))
    image = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        one = net(image)
        assert len(passes) > 30
        monkeypatch.setattr(one_pass, "_OPERATOR", None)
        three = net(image)
    for name, features in three.items():
        assert torch.equal(one[name], features), name


def test_traced_and_exported_graphs_have_plain_convolutions(passes):
    layer = ConvNorm(64, 64, 3, norm="bn", relu=True).eval()
    x = torch.randn(1, 64, 40, 40)
    with torch.no_grad():
        traced = torch.jit.trace(layer, (x, x), check_trace=False)  # the check runs the layer itself
        exported = torch.export.export(layer, (x, x))
        assert not passes
        expected = layer(x, x)
    assert "_convolution_pointwise" not in str(traced.inlined_graph)
    assert "_convolution_pointwise" not in str(exported.graph)
    torch.testing.assert_close(traced(x, x), expected)


@pytest.mark.parametrize("norm", ["", "bn", "frozen_bn", "gn"])
@pytest.mark.parametrize("training", [True, False])
def test_a_shortcut_is_added_behind_the_norm_and_before_the_relu(norm, training):
    torch.manual_seed(0)
    layer = ConvNorm(32, 32, 3, norm=norm, relu=True).train(training)
    plain = ConvNorm(32, 32, 3, norm=norm).train(training)
    plain.load_state_dict(layer.state_dict())
    x, shortcut = torch.randn(2, 32, 20, 20), torch.randn(2, 32, 20, 20)
    kept = shortcut.clone()
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            assert torch.equal(layer(x, shortcut), (plain(x) + shortcut).relu())
    assert torch.equal(shortcut, kept)
