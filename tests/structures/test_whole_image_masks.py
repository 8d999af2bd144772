"""Masks of whole images: true ones on a coarser grid, predicted ones at the image's size within their boxes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vertebra.structures import BitMasks, Boxes, PolygonMasks, paste, resize_masks_in_boxes, touched_cells


def test_a_cell_belongs_to_the_object_that_covers_half_of_it():
    pixels = torch.zeros(1, 6, 8, dtype=torch.bool)
    pixels[0, 0:4, 0:4] = True  # one cell of 4 x 4 whole
    pixels[0, 0:2, 4:8] = True  # half of the next
    pixels[0, 4, 0:7] = True  # a quarter and less of those below
    assert BitMasks(pixels).to_cells(4, (2, 2)).tolist() == [[[True, True], [False, False]]]


def test_the_grid_may_reach_over_the_image_or_end_inside():
    pixels = torch.ones(2, 6, 8, dtype=torch.bool)
    wide = BitMasks(pixels).to_cells(4, (3, 3))
    assert wide[0].tolist() == [[True, True, False], [True, True, False], [False, False, False]]
    assert BitMasks(pixels).to_cells(4, (1, 1)).tolist() == [[[True]], [[True]]]
    assert BitMasks(pixels[:0]).to_cells(4, (2, 2)).shape == (0, 2, 2)


def test_polygons_and_pixels_agree_on_whole_cells():
    squares = PolygonMasks([[[4, 4, 12, 4, 12, 8, 4, 8]], [[0, 0, 4, 0, 4, 4, 0, 4], [8, 8, 16, 8, 16, 12, 8, 12]], []])
    drawn = squares.to_cells(4, (3, 5))
    assert drawn[0].nonzero().tolist() == [[1, 1], [1, 2]]
    assert drawn[1].nonzero().tolist() == [[0, 0], [2, 2], [2, 3]]
    assert not drawn[2].any()
    assert torch.equal(drawn, BitMasks.from_polygon_masks(squares, 12, 20).to_cells(4, (3, 5)))
    assert PolygonMasks([]).to_cells(4, (3, 5)).shape == (0, 3, 5)


def test_a_mask_ends_halfway_between_its_cells_and_at_its_box():
    masks = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])  # cells of 4 pixels: 8 x 12
    found = resize_masks_in_boxes(masks, torch.tensor([[2.3, 1.0, 30.0, 6.2]]), (8, 12))
    rows, columns = found[0].nonzero().unbind(dim=1)
    assert sorted(set(columns.tolist())) == list(range(2, 8))  # from the pixel the box begins in to the cell's edge
    assert sorted(set(rows.tolist())) == list(range(1, 7))
    assert found.sum() == 6 * 6


def test_the_cells_may_cover_more_than_the_image():
    """Padding on the right and below belongs to the masks, but not to the image."""
    masks = torch.zeros(1, 4, 6)
    masks[:, :, :3] = 1.0  # the left half, which is all of the image
    found = resize_masks_in_boxes(masks, torch.tensor([[0.0, 0.0, 24.0, 10.0]]), (10, 24), frame=(20.0, 48.0))
    assert found.all()
    halved = resize_masks_in_boxes(masks, torch.tensor([[0.0, 0.0, 24.0, 10.0]]), (10, 24), frame=(20.0, 24.0))
    assert torch.equal(halved[0], (torch.arange(24) < 12).expand(10, 24))


def test_resizing_is_bilinear_interpolation_inside_the_boxes():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 7, 9, generator=generator)
    boxes = torch.tensor([[0.0, 0, 45, 35], [-9, -9, 99, 99], [3.2, 4.7, 20.1, 30.9], [50, 40, 60, 50], [7, 7, 7, 7]])
    found = resize_masks_in_boxes(masks, Boxes(boxes), (35, 45), threshold=0.4)
    whole = F.interpolate(masks[None], size=(35, 45), mode="bilinear", align_corners=False)[0] >= 0.4
    assert torch.equal(found, whole & touched_cells(boxes, 35, 45))
    assert torch.equal(found[1], whole[1])
    assert not found[3:].any()  # outside the image, and without extent
    assert resize_masks_in_boxes(masks[:0], boxes[:0], (35, 45)).shape == (0, 35, 45)
    coarse = masks.bfloat16()  # what autocast gives
    assert torch.equal(
        resize_masks_in_boxes(coarse, boxes, (35, 45)), resize_masks_in_boxes(coarse.float(), boxes, (35, 45))
    )


def test_many_masks_at_once_are_the_same_as_one_by_one(monkeypatch):
    """What a GPU does: whole images, a few masks at a time."""
    generator = torch.Generator().manual_seed(1)
    masks, boxes = torch.rand(4, 5, 6, generator=generator), torch.tensor([[2.5, 3.0, 17.0, 22.2]]).repeat(4, 1)
    one_by_one = resize_masks_in_boxes(masks, boxes, (25, 30), (28.0, 33.0))
    monkeypatch.setattr(paste, "MAX_PIXELS", 25 * 30 * 3)
    assert torch.equal(paste._in_boxes(masks, boxes, (25, 30), (28.0, 33.0), 0.5), one_by_one)


def test_a_box_touches_the_cells_it_reaches_into():
    touched = touched_cells(torch.tensor([[[0.5, 1.0, 2.0, 1.1], [1.0, 1.0, 1.0, 2.0]]]), 3, 4)
    assert touched.shape == (1, 2, 3, 4)
    assert touched[0, 0].nonzero().tolist() == [[1, 0], [1, 1]]
    assert not touched[0, 1].any()


def test_masks_and_boxes_must_fit():
    with pytest.raises(ValueError, match="a box for each"):
        resize_masks_in_boxes(torch.zeros(2, 4, 4), torch.zeros(3, 4), (8, 8))


def test_memory_of_large_images_is_that_of_a_window(monkeypatch):
    """20 objects of 30 pixels in 2000 x 3000 pixels: next to the result there is never more than a window of floats."""
    largest = 0
    real = paste._interpolate

    def counted(*arguments):
        nonlocal largest
        found = real(*arguments)
        largest = max(largest, found.numel())
        return found

    monkeypatch.setattr(paste, "_interpolate", counted)
    corner = torch.from_numpy(np.random.default_rng(0).uniform(0, 1900, (20, 2))).float()
    found = resize_masks_in_boxes(torch.ones(20, 50, 75), torch.cat((corner, corner + 30), dim=1), (2000, 3000))
    assert found.flatten(1).sum(dim=1).min() >= 30 * 30
    assert largest <= 31 * 31
