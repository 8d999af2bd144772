import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from vertebra.structures import (
    BitMasks,
    Boxes,
    PolygonMasks,
    decode_rle,
    encode_masks,
    paste_masks_in_image,
    polygons_to_bitmask,
    segmentation_to_bitmask,
)
from vertebra.structures.paste import _sample

SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]  # 4 x 4 pixels, its corner at x 2, y 1


def random_masks(seed, count, height, width):
    return np.random.default_rng(seed).random((count, height, width)) < 0.4


@given(st.integers(0, 1000), st.integers(0, 4), st.integers(1, 40), st.integers(1, 40))
def test_rle_round_trip(seed, count, height, width):
    masks = random_masks(seed, count, height, width)
    rles = encode_masks(masks)
    assert len(rles) == count
    for rle, mask in zip(rles, masks, strict=True):
        assert rle["size"] == [height, width]
        assert np.array_equal(decode_rle(rle), mask)
        assert np.array_equal(decode_rle({**rle, "counts": rle["counts"].encode()}), mask)


def test_an_uncompressed_rle_counts_down_the_columns():
    assert decode_rle({"size": [2, 3], "counts": [1, 3, 2]}).tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [2, 3]}, "`size` and `counts`"),
        ([1, 2], "`size` and `counts`"),
        ({"size": 6, "counts": [6]}, "size is .height, width., got 6"),
        ({"size": [2, 3, 1], "counts": [6]}, "size is"),
        ({"size": [-2, -3], "counts": [6]}, "size is"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "more than COCO's format"),
        ({"size": [2, 3], "counts": [1, 3]}, "add up to its size, 2 x 3 = 6 pixels"),
        ({"size": [2, 3], "counts": [7, -1]}, "whole numbers that add up"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "whole numbers that add up"),
        ({"size": [2, 3], "counts": None}, "text or a list of numbers, got None"),
        ({"size": [2, 3], "counts": "13"}, "runs over 4 pixels"),
        ({"size": [2, 3], "counts": ""}, "runs over 0 pixels"),
        ({"size": [2, 3], "counts": "1 2"}, "outside the alphabet"),
        ({"size": [2, 3], "counts": "1~"}, "outside the alphabet"),
        ({"size": [2, 3], "counts": "1P"}, "ends inside a run"),
    ],
)
def test_a_broken_rle_is_refused_before_anything_reads_beyond_memory(rle, message):
    with pytest.raises(ValueError, match=message):
        decode_rle(rle)


def test_any_coco_segmentation_becomes_a_mask():
    mask = polygons_to_bitmask([SQUARE], 8, 9)
    assert mask.shape == (8, 9)
    assert mask.sum() == 16 and mask[1:5, 2:6].all()
    assert np.array_equal(segmentation_to_bitmask([SQUARE], 8, 9), mask)
    assert np.array_equal(segmentation_to_bitmask(encode_masks(mask[None])[0], 8, 9), mask)
    assert np.array_equal(segmentation_to_bitmask(mask.astype(np.uint8), 8, 9), mask)
    with pytest.raises(ValueError, match="mask of size 8 x 9 in an image of 9 x 8"):
        segmentation_to_bitmask(mask, 9, 8)
    with pytest.raises(ValueError, match="list of polygons, an RLE dict or a mask"):
        segmentation_to_bitmask("polygon", 9, 8)


def test_polygons_of_one_object_are_united():
    other = [4, 3, 8, 3, 8, 7, 4, 7]
    united = polygons_to_bitmask([SQUARE, other], 8, 9)
    assert np.array_equal(united, polygons_to_bitmask([SQUARE], 8, 9) | polygons_to_bitmask([other], 8, 9))
    assert not polygons_to_bitmask([], 8, 9).any()


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([1, 2, 3, 4], "has 4 numbers"),
        ([1, 2, 3, 4, 5, 6, 7], "has 7 numbers"),
        ([1, 2, 3, 4, 5, float("nan")], "not finite or beyond"),
        ([1, 2, 3, 4, 5, 1e12], "not finite or beyond"),
    ],
)
def test_polygons_that_cannot_be_drawn_are_refused(polygon, message):
    with pytest.raises(ValueError, match=message):
        polygons_to_bitmask([polygon], 8, 9)


def test_polygon_masks_facts():
    masks = PolygonMasks([[SQUARE], [SQUARE, [0, 0, 1, 0, 1, 2]], []])
    assert masks.area().tolist() == [16, 17, 0]
    assert masks.get_bounding_boxes().tensor.tolist() == [[2, 1, 6, 5], [0, 0, 6, 5], [0, 0, 0, 0]]
    assert masks.nonempty().tolist() == [True, True, False]
    assert len(masks[1]) == 1
    assert [len(shape) for shape in masks[torch.tensor([True, False, True])]] == [1, 0]
    assert [len(shape) for shape in masks[[2, 1]]] == [0, 2]
    assert [len(shape) for shape in masks[:2]] == [1, 2]
    assert len(masks[torch.tensor([], dtype=torch.int64)]) == len(masks[[]]) == 0
    assert len(PolygonMasks.cat([masks, masks[:1]])) == 4
    assert masks.to("meta") is masks


def test_polygon_area_does_not_depend_on_the_direction():
    points = np.array(SQUARE, dtype=float).reshape(-1, 2)
    assert PolygonMasks([[points[::-1].ravel()]]).area().tolist() == [16]


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([SQUARE], "object 0 has a polygon of 1 numbers"),
        ([[SQUARE], [[1, 2, 3, 4]]], "object 1 has a polygon of 4 numbers"),
        ([[SQUARE], [SQUARE[:-1]]], "object 1 has a polygon of 7 numbers"),
        ([np.zeros((1, 8))], "object 0 is a ndarray"),
        ("abc", "takes a list of objects"),
    ],
)
def test_polygons_that_are_none_are_refused(polygons, message):
    with pytest.raises(ValueError, match=message):
        PolygonMasks(polygons)


def test_crops_of_polygons_and_pixels_agree_on_whole_pixels():
    polygons = PolygonMasks([[SQUARE]])
    pixels = BitMasks.from_polygon_masks(polygons, 8, 9)
    box = torch.tensor([[0.0, 1.0, 8.0, 9.0]])
    crop = polygons.crop_and_resize(box, 8)
    assert torch.equal(crop, pixels.crop_and_resize(box, 8))
    assert crop[0, :4, 2:6].all() and crop.sum() == 16


def test_crops_need_one_box_each_and_may_be_none():
    polygons, pixels = PolygonMasks([[SQUARE]]), BitMasks(torch.zeros(1, 8, 9))
    for masks in (polygons, pixels):
        with pytest.raises(ValueError, match="got 2 and 1"):
            masks.crop_and_resize(torch.zeros(2, 4), 4)
        assert masks[:0].crop_and_resize(torch.zeros(0, 4), 4).shape == (0, 4, 4)
    assert polygons.crop_and_resize(torch.tensor([[3.0, 3, 3, 3]]), 4).shape == (1, 4, 4)  # a box of no size


def test_bit_masks_facts():
    tensor = torch.zeros(3, 5, 7)
    tensor[0, 1:3, 2:6] = 1
    tensor[1, 4, 6] = 1
    masks = BitMasks(tensor)
    assert masks.tensor.dtype == torch.bool
    assert masks.image_size == (5, 7)
    assert masks.area().tolist() == [8, 1, 0]
    assert masks.nonempty().tolist() == [True, True, False]
    assert masks.get_bounding_boxes().tensor.tolist() == [[2, 1, 6, 3], [6, 4, 7, 5], [0, 0, 0, 0]]
    assert len(masks[0]) == 1 and len(masks[torch.tensor([True, True, False])]) == 2
    assert len(BitMasks.cat([masks, masks])) == 6
    assert BitMasks(torch.zeros(0, 5, 7)).get_bounding_boxes().tensor.shape == (0, 4)
    assert BitMasks.from_polygon_masks([], 5, 7).tensor.shape == (0, 5, 7)
    with pytest.raises(ValueError, match="BitMasks takes masks"):
        BitMasks(torch.zeros(5, 7))
    with pytest.raises(ValueError, match="empty list"):
        BitMasks.cat([])


@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 30))
def test_bounding_boxes_are_those_of_coco(seed, height, width):
    masks = np.random.default_rng(seed).random((4, height, width)) < 0.05
    x, y, w, h = torch.tensor(np.stack([coco_mask.toBbox(rle) for rle in encode_masks(masks)])).float().unbind(1)
    expected = torch.stack((x, y, x + w, y + h), dim=1)
    found = BitMasks(masks).get_bounding_boxes().tensor
    assert torch.equal(found, torch.where(BitMasks(masks).nonempty()[:, None], expected, 0))


@given(st.integers(0, 100))
def test_flipping_masks_twice_gives_their_boxes_back(seed):
    masks = torch.from_numpy(random_masks(seed, 3, 6, 9))
    once = BitMasks(masks.flip(2)).get_bounding_boxes().tensor
    twice = torch.stack((9 - once[:, 2], once[:, 1], 9 - once[:, 0], once[:, 3]), dim=1)
    assert torch.equal(twice, BitMasks(masks).get_bounding_boxes().tensor)


def reference_paste(mask, box, height, width):
    """Bilinear sampling at pixel centers by torch's grid_sample, the whole image at once, then cut off."""
    x0, y0, x1, y1 = box.tolist()
    xs = (torch.arange(width) + 0.5 - x0) / (x1 - x0) * 2 - 1
    ys = (torch.arange(height) + 0.5 - y0) / (y1 - y0) * 2 - 1
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    grid = torch.stack((x, y), dim=-1)[None]
    image = torch.nn.functional.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
    image[:, : max(0, math.floor(x0) - 1)] = image[:, math.ceil(x1) + 1 :] = 0
    image[: max(0, math.floor(y0) - 1)] = image[math.ceil(y1) + 1 :] = 0
    return image


@pytest.mark.parametrize("device_like", ["cpu", "gpu"])
def test_pasting_samples_as_grid_sample_does_also_beyond_the_image(device_like):
    generator = torch.Generator().manual_seed(3)
    masks = torch.rand(6, 7, 7, generator=generator)
    boxes = torch.tensor(
        [[2, 3, 12, 9], [-5, -4, 6, 6.5], [10.2, 8.7, 40, 33], [0, 0, 20, 16], [7, 7, 7.4, 7.3], [60, 60, 70, 70]]
    )
    if device_like == "cpu":
        pasted = paste_masks_in_image(masks, boxes, (16, 20), threshold=-1)
        assert pasted.dtype == torch.uint8
    else:  # there the whole image is sampled
        pasted = _sample(masks, boxes, (0, 0, 20, 16)) * 255
    for image, mask, box in zip(pasted, masks, boxes, strict=True):
        expected = reference_paste(mask, box, 16, 20) * 255
        assert (image - expected).abs().max() <= 1.01


def test_pasting_a_full_mask_fills_its_box():
    pasted = paste_masks_in_image(torch.ones(1, 28, 28), Boxes([[2, 3, 10, 8]]), (12, 14))
    expected = torch.zeros(1, 12, 14, dtype=torch.bool)
    expected[:, 3:8, 2:10] = True
    assert torch.equal(pasted, expected)


def test_pasting_nothing_or_into_boxes_of_no_size():
    assert paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
    assert not paste_masks_in_image(torch.ones(1, 28, 28), torch.tensor([[3.0, 3, 3, 3]]), (5, 6)).any()
    with pytest.raises(ValueError, match="got 2 and 1"):
        paste_masks_in_image(torch.zeros(1, 28, 28), torch.zeros(2, 4), (5, 6))
    with pytest.raises(ValueError, match="square masks"):
        paste_masks_in_image(torch.zeros(1, 1, 28, 28), torch.zeros(1, 4), (5, 6))
