"""resize_pixels equals torchvision's v2 kernel bit for bit, memory layout included.

No size here is (1, 1): to that, torch itself fails to resize some layouts.
"""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vertebra.data import Sample
from vertebra.structures.resize import resize_pixels


def layouts(shape, dtype):
    """The same values as a (C, H, W) tensor, as an (H, W, C) array seen from the side, and as a window of one."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (height + 4, width + 6, channels), generator=generator).to(dtype)
    inner = values[2:-2, 3:-3]
    return {
        "planes": inner.permute(2, 0, 1).contiguous(),
        "pixels": inner.contiguous().permute(2, 0, 1),
        "window": inner.permute(2, 0, 1),
        "mirror": inner.permute(2, 0, 1).flip(-1),
    }


def order(pixels):
    """How the values lie in memory: strides of all dimensions that have more than one place."""
    return [stride for stride, length in zip(pixels.stride(), pixels.shape, strict=True) if length > 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(3, 37, 53), (1, 20, 31), (5, 16, 16), (4, 1, 1)])
@pytest.mark.parametrize("size", [(64, 40), (17, 90), (37, 53), (1, 2)])
def test_it_equals_torchvision(dtype, shape, size):
    modes = {True: InterpolationMode.BILINEAR, False: InterpolationMode.NEAREST_EXACT}
    for layout, pixels in layouts(shape, dtype).items():
        for smooth, mode in modes.items():
            ours = resize_pixels(pixels, size, smooth=smooth)
            theirs = F.resize_image(pixels, list(size), interpolation=mode, antialias=True)
            assert ours.dtype == theirs.dtype, layout
            assert ours.equal(theirs), (layout, smooth)
            assert order(ours) == order(theirs), (layout, smooth)


def test_no_channels_stay_none():
    assert resize_pixels(torch.zeros(0, 8, 9, dtype=torch.uint8), (4, 5), smooth=False).shape == (0, 4, 5)


def test_a_cpu_that_resizes_uint8_slowly_takes_torchvisions_way_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    for pixels in layouts((3, 37, 53), torch.uint8).values():
        assert resize_pixels(pixels, (64, 40), smooth=True).equal(F.resize_image(pixels, [64, 40]))


@pytest.mark.parametrize("layout", ["planes", "pixels", "window"])
def test_a_samples_padding_crops_and_mirrors_equal_torchvisions(layout):
    pixels = layouts((3, 37, 53), torch.uint8)[layout]

    def check(sample, image, labels):
        for ours, theirs in ((sample.image, image), (sample.bitmasks, image), (sample.sem_seg[None], labels)):
            assert ours.equal(theirs)
        assert order(sample.image) == order(image)

    def new():
        return Sample(pixels, bitmasks=pixels, sem_seg=pixels[0])

    check(new().crop(3, 5, 20, 30), F.crop_image(pixels, 3, 5, 20, 30), F.crop_image(pixels[:1], 3, 5, 20, 30))
    check(new().flip(horizontal=True), F.horizontal_flip_image(pixels), F.horizontal_flip_image(pixels[:1]))
    check(new().flip(vertical=True), F.vertical_flip_image(pixels), F.vertical_flip_image(pixels[:1]))
    padding = [2, 1, 4, 3]  # left, top, right, bottom
    padded = F.pad_image(pixels, padding)
    check(new().pad(1, 2, 3, 4), padded, F.pad_image(pixels[:1], padding, fill=255.0))
    assert new().pad(1, 2, 3, 4, value=114).image.equal(F.pad_image(pixels, padding, fill=114.0))
