"""Masks pasted straight into run lengths: the same as pasted into pixels, in far less memory."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebra.structures import BitMasks, encode_masks, paste_masks_as_rle, paste_masks_in_image
from vertebra.structures.rle import encode_window

SIZE = (97, 120)
BOXES = torch.tensor(
    [
        [3.0, 4, 60, 70],
        [-5, -5, 200, 200],  # larger than the image
        [10, 0, 40, 97],  # from the top to the bottom: runs go on in the next column
        [0, 0, 120, 97],
        [50, 50, 50, 50],  # no extent
        [119, 96, 121, 99],  # a corner of it shows
        [130, 10, 150, 40],  # nothing of it shows
    ]
)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.99])
def test_run_lengths_are_those_of_the_pixels(threshold):
    masks = torch.from_numpy(np.random.default_rng(0).random((len(BOXES), 28, 28))).float()
    pixels = paste_masks_in_image(masks, BOXES, SIZE, threshold)
    assert paste_masks_as_rle(masks, BOXES, SIZE, threshold) == encode_masks(pixels)


def test_a_full_and_an_empty_mask():
    whole = torch.tensor([[-50.0, -50, 250, 250]])
    for value in (0.0, 1.0):
        mask = torch.full((1, 28, 28), value)
        assert paste_masks_as_rle(mask, whole, SIZE) == encode_masks(paste_masks_in_image(mask, whole, SIZE))


def test_no_masks():
    assert paste_masks_as_rle(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE) == []


def test_a_window_outside_the_image_is_refused():
    with pytest.raises(ValueError, match="does not lie in an image of 10 x 10"):
        encode_window(np.ones((4, 4), bool), (8, 0), (10, 10))


def test_several_boxes_may_look_at_one_mask():
    masks = BitMasks(torch.rand(3, 40, 50) > 0.5)
    boxes = torch.tensor([[0.0, 0, 20, 20], [5, 5, 45, 35], [10, 0, 30, 40]])
    rows = torch.tensor([2, 0, 2])
    assert torch.equal(masks.crop_and_resize(boxes, 14, rows=rows), masks[rows].crop_and_resize(boxes, 14))


PEAK = Path("/proc/self/clear_refs")


def peak_growth(work) -> tuple[object, int]:
    """What `work` returns, and how far this process's memory rose above its start meanwhile, in KiB."""
    PEAK.write_text("5")  # the peak is now the memory in use
    before = peak()
    result = work()
    return result, peak() - before


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(not os.access(PEAK, os.W_OK), reason="the peak memory is reset and read in /proc")
def test_a_hundred_masks_of_a_large_image_need_less_than_a_gigabyte():
    """4000 x 3000 pixels and 100 objects, as pixels 1.2 GB."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, [3000, 2000], (100, 2))
    boxes = torch.from_numpy(np.concatenate((corner, corner + rng.uniform(100, 1000, (100, 2))), axis=1)).float()
    boxes[:3] = torch.tensor([0.0, 0, 4000, 3000])
    masks = torch.from_numpy(rng.random((100, 28, 28))).float()
    _, seen = peak_growth(lambda: torch.ones(50 * 2**20, dtype=torch.float32))  # 200 MiB
    assert seen > 1e5
    runs, growth = peak_growth(lambda: paste_masks_as_rle(masks, boxes, (3000, 4000)))
    assert len(runs) == 100
    assert growth < 3e5  # KiB; a whole process stays below 1 GB
