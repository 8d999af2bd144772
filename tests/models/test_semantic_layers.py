"""Upsampling, unpooling, pyramids and large kernels, on cases worked by hand."""

import pytest
import torch
from torch.nn import functional as F

from vertebra.models.convolution import ConvNorm
from vertebra.models.layers import (
    BilinearConvTranspose2d,
    LargeSeparableKernel,
    MaxPoolWithIndices,
    MaxUnpool,
    PyramidPooling,
    Upsample,
    bilinear_kernel,
    crop_like,
)

IMAGE = torch.tensor([[4.0, 5, 8, 7], [1, 8, 8, 8], [3, 6, 6, 4], [6, 5, 7, 8]]).view(1, 1, 4, 4)
KERNEL = torch.tensor([[1.0, 4, 1], [1, 4, 3], [3, 3, 1]]).view(1, 1, 3, 3)
INNER = torch.tensor([[122.0, 148], [126, 134]])


def fill(conv, value):
    """A convolution whose weights are one number or one kernel, without bias."""
    with torch.no_grad():
        conv.weight.copy_(torch.as_tensor(value, dtype=torch.float32).expand_as(conv.weight))
        if conv.bias is not None:
            conv.bias.zero_()
    return conv


def test_a_convolution_worked_by_hand():
    """Top left: 4*1 + 5*4 + 8*1 + 1*1 + 8*4 + 8*3 + 3*3 + 6*3 + 6*1 = 122."""
    conv = fill(ConvNorm(1, 1, 3), KERNEL)
    torch.testing.assert_close(conv(IMAGE)[0, 0, 1:3, 1:3], INNER)  # the middle, which no padding reaches


def test_its_transpose_worked_by_hand():
    """Each value lays down the kernel; first row: 122, 4*122 + 148, 122 + 4*148, 148."""
    layer = fill(BilinearConvTranspose2d(1, factor=1, kernel_size=3, padding=0), KERNEL)
    out = layer(INNER.view(1, 1, 2, 2))[0, 0]
    assert out.shape == (4, 4)
    assert out[0].tolist() == [122, 636, 714, 148]
    assert out[3].tolist() == [3 * 126, 3 * 126 + 3 * 134, 126 + 3 * 134, 134]


def test_the_transpose_is_the_adjoint_of_the_convolution():
    layer = fill(BilinearConvTranspose2d(1, factor=1, kernel_size=3, padding=0), KERNEL)
    x, y = torch.randn(1, 1, 6, 7), torch.randn(1, 1, 4, 5)
    torch.testing.assert_close((F.conv2d(x, KERNEL) * y).sum(), (x * layer(y)).sum())


def test_bilinear_kernels_by_hand():
    assert bilinear_kernel(1).tolist() == [[1.0]]
    assert bilinear_kernel(3).tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    assert bilinear_kernel(4)[1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]  # 3/4 of 1/4, 3/4, 3/4, 1/4


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_a_new_transposed_convolution_interpolates_and_keeps_channels_apart(factor):
    layer = BilinearConvTranspose2d(3, factor)
    x = torch.randn(2, 3, 5, 6)
    out = layer(x)
    assert out.shape == (2, 3, 5 * factor, 6 * factor)
    wanted = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))  # at the border a convolution sees zeros
    torch.testing.assert_close(out[inner], wanted[inner])


def test_channelwise_and_other_widths_start_bilinear_too():
    x = torch.randn(1, 4, 5, 5)
    whole = BilinearConvTranspose2d(4, 2)(x)
    torch.testing.assert_close(BilinearConvTranspose2d(4, 2, groups=4)(x), whole)
    torch.testing.assert_close(BilinearConvTranspose2d(4, 2, out_channels=2)(x), whole[:, :2])


def test_fcns_uncropped_upsampling_and_its_sizes():
    """Stride 32, kernel 64, no padding: (h - 1) * 32 + 64, as in the paper's networks."""
    layer = BilinearConvTranspose2d(2, 32, padding=0, learned=False)
    assert layer(torch.zeros(1, 2, 3, 4)).shape == (1, 2, 128, 160)
    assert not layer.weight.requires_grad
    assert layer.bias is None


def test_crop_like_takes_the_middle_or_the_offset():
    x, reference = torch.arange(30.0).view(1, 1, 5, 6), torch.zeros(1, 9, 2, 3)
    assert crop_like(x, reference)[0, 0].tolist() == [[7, 8, 9], [13, 14, 15]]
    assert crop_like(x, reference, (3, 0))[0, 0].tolist() == [[18, 19, 20], [24, 25, 26]]
    with pytest.raises(ValueError, match="cannot cut 2 x 3 at offset"):
        crop_like(x, reference, 4)
    with pytest.raises(ValueError, match="cannot cut 5 x 6"):
        crop_like(reference, x)


def test_nearest_and_bilinear_upsampling_by_hand():
    x = torch.tensor([[0.0, 4.0]]).view(1, 1, 1, 2)
    assert Upsample(2, "nearest")(x)[0, 0].tolist() == [[0, 0, 4, 4], [0, 0, 4, 4]]
    assert Upsample(2, "bilinear")(x)[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert Upsample(2)(x, size=(1, 2)) is x
    with pytest.raises(ValueError, match="must be 'nearest' or 'bilinear'"):
        Upsample(2, "cubic")


def test_unpooling_puts_the_maxima_back_where_they_stood():
    values, indices = MaxPoolWithIndices(2)(IMAGE)
    assert values[0, 0].tolist() == [[8, 8], [6, 8]]
    assert indices[0, 0].tolist() == [[5, 2], [9, 15]]  # ties go to the first: row 0, column 2; row 2, column 1
    back = MaxUnpool(2)(values, indices)[0, 0]
    assert back.tolist() == [[0, 0, 8, 0], [0, 8, 0, 0], [0, 6, 0, 0], [0, 0, 0, 8]]


def test_unpooling_to_an_odd_size_and_any_layout():
    x = torch.randn(2, 3, 7, 5)
    values, indices = MaxPoolWithIndices(2)(x)
    back = MaxUnpool(2)(values, indices, size=(7, 5))
    assert back.shape == x.shape
    kept = back != 0
    assert kept.sum() == values.numel()
    assert torch.equal(back[kept], x[kept])
    last = MaxUnpool(2)(values.to(memory_format=torch.channels_last), indices, size=(7, 5))
    assert torch.equal(last, back)


def test_unpooling_sends_gradients_to_the_values():
    values = torch.ones(1, 1, 2, 2, requires_grad=True)
    _, indices = MaxPoolWithIndices(2)(IMAGE)
    (MaxUnpool(2)(values, indices) * IMAGE).sum().backward()
    assert values.grad[0, 0].tolist() == [[8, 8], [6, 8]]


def test_pyramid_pooling_by_hand():
    """Grids of 1 and 2 cells of the 4 x 4 image: means 5.875, and 4.5, 7.75, 5, 6.25."""
    pyramid = PyramidPooling(1, bins=(1, 2), bin_channels=1, norm="")
    for conv in pyramid.convs:
        fill(conv, 1.0)
    out = pyramid(IMAGE)
    assert pyramid.out_channels == 3
    assert torch.equal(out[:, :1], IMAGE)
    torch.testing.assert_close(out[0, 1], torch.full((4, 4), 94 / 16))
    quarters = torch.tensor([[4.5, 7.75], [5.0, 6.25]])
    torch.testing.assert_close(out[0, 2, 0, 0], quarters[0, 0])  # corners lie outside the centers of the cells
    torch.testing.assert_close(out[0, 2, -1, -1], quarters[1, 1])
    assert out[0, 2, 0, 1].item() == pytest.approx(0.75 * 4.5 + 0.25 * 7.75)


def test_pyramid_pooling_of_a_single_pixel_and_wrong_bins():
    assert PyramidPooling(8, norm="").eval()(torch.randn(1, 8, 1, 1)).shape == (1, 16, 1, 1)
    with pytest.raises(ValueError, match="at least 1"):
        PyramidPooling(8, bins=())


def test_large_separable_kernels_by_hand():
    """All weights 1: each path adds up the k x k neighborhood, together twice that."""
    layer = LargeSeparableKernel(1, 1, kernel_size=3)
    for conv in (*layer.tall_wide, *layer.wide_tall):
        fill(conv, 1.0)
    out = layer(IMAGE)[0, 0]
    assert out[1, 1].item() == 2 * (4 + 5 + 8 + 1 + 8 + 8 + 3 + 6 + 6)
    assert out[0, 0].item() == 2 * (4 + 5 + 1 + 8)


def test_large_separable_kernels_see_a_square_with_few_weights():
    layer = LargeSeparableKernel(2, 3, kernel_size=15, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 15 * (2 * 3 + 3 * 3)
    x = torch.zeros(1, 2, 31, 31, requires_grad=True)
    layer(x)[0, :, 15, 15].sum().backward()
    seen = (x.grad[0].abs().sum(0) > 0).nonzero()
    assert seen.min().item() == 15 - 7
    assert seen.max().item() == 15 + 7
    assert len(seen) == 15 * 15
    with pytest.raises(ValueError, match="it must be odd"):
        LargeSeparableKernel(2, 3, kernel_size=4)
