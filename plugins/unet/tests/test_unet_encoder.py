"""The contracting path: shapes, sizes of valid convolutions, mirrored borders, dropout, norms."""

import pytest
import torch
from torch import nn

from vertebra_unet import UNetEncoder
from vertebra_unet.valid import mirror, valid_input, valid_margin


def test_features_have_the_papers_channels_and_strides():
    shapes = UNetEncoder().output_shape()
    assert [(name, s.channels, s.stride) for name, s in shapes.items()] == [
        ("enc1", 64, 1),
        ("enc2", 128, 2),
        ("enc3", 256, 4),
        ("enc4", 512, 8),
        ("enc5", 1024, 16),
    ]


def test_valid_convolutions_give_the_sizes_of_figure_1():
    encoder = UNetEncoder(base_width=1, norm="none", padding="valid", border="keep")
    with torch.no_grad():
        features = encoder(torch.zeros(1, 3, 572, 572))
    assert [x.shape[-1] for x in features.values()] == [568, 280, 136, 64, 28]


def test_the_paper_loses_92_pixels_on_every_side():
    assert valid_margin(5) == 92
    assert 572 - 2 * valid_margin(5) == 388
    assert valid_input(388, 5) == 572


@pytest.mark.parametrize("num_stages", [2, 3, 4, 5])
@pytest.mark.parametrize("num_convs", [1, 2, 3])
def test_the_least_input_covers_the_output_and_halves_evenly(num_stages, num_convs):
    step = 2 ** (num_stages - 1)
    for output in range(1, 60):
        side = valid_input(output, num_stages, num_convs)
        covered = side - 2 * valid_margin(num_stages, num_convs)
        assert output <= covered < output + step
        for _ in range(num_stages - 1):
            side -= 2 * num_convs
            assert side > 0 and side % 2 == 0
            side //= 2
        assert side > 2 * num_convs


def test_a_mirrored_border_does_not_repeat_the_edge():
    row = torch.arange(4.0).view(1, 1, 1, 4)
    assert mirror(row, 0, 3, 1, 12)[0, 0, 0].tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]


def test_an_image_narrower_than_the_border_is_mirrored_again_and_again():
    row = torch.arange(2.0).view(1, 1, 1, 2)
    assert mirror(row, 0, 4, 1, 7)[0, 0, 0].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert mirror(torch.full((1, 1, 1, 1), 5.0), 3, 3, 7, 7).unique().tolist() == [5]


def test_a_mirrored_border_equals_torchs_where_that_exists():
    x = torch.randn(2, 3, 20, 17)
    torch.testing.assert_close(mirror(x, 5, 6, 33, 31), nn.functional.pad(x, (6, 8, 5, 8), mode="reflect"))


def test_dropout_comes_before_each_stage_but_the_first_and_at_the_end():
    encoder = UNetEncoder(base_width=2, num_stages=3, dropout=0.3, last_dropout=0.5)
    rates = [module.p for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.3, 0.3, 0.5]
    assert encoder.enc1.dropout is None


@pytest.mark.parametrize(("norm", "layer"), [("bn", nn.BatchNorm2d), ("gn", nn.GroupNorm), ("none", type(None))])
def test_norm_follows_every_convolution_and_replaces_its_bias(norm, layer):
    for conv in (m for m in UNetEncoder(base_width=4, num_stages=2, norm=norm).modules() if isinstance(m, nn.Conv2d)):
        assert isinstance(conv.norm, layer)
        assert (conv.bias is None) == (norm != "none")


def test_group_norm_takes_as_many_groups_as_divide_the_channels():
    encoder = UNetEncoder(base_width=24, num_stages=3, norm="gn")
    groups = [m.num_groups for m in encoder.modules() if isinstance(m, nn.GroupNorm)]
    assert groups == [8, 8, 16, 16, 32, 32]


def test_weights_start_as_the_paper_says():
    """Standard deviation sqrt(2 / N), N the incoming nodes: 9 * 64 for the second convolution."""
    torch.manual_seed(0)
    weight = UNetEncoder(num_stages=2).enc1.convs[1].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"base_width": 0}, "base_width of at least 1"),
        ({"num_stages": 1}, "num_stages of at least 2"),
        ({"padding": "mirror"}, "padding is 'mirror'"),
        ({"border": "zeros"}, "border is 'zeros'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"last_dropout": -0.1}, "last_dropout is -0.1"),
        ({"num_convs": 0}, "num_convs is 0"),
    ],
)
def test_a_wrong_argument_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        UNetEncoder(**arguments)
