"""Classes, outlines, masks as polygons and clipping, of which the generated dataset is made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from vertebra.data.shapes.coco_truth import mask_loops
from vertebra.data.shapes.options import parse_size
from vertebra.data.shapes.outlines import KINDS, OUTLINES, keypoints_of
from vertebra.data.shapes.scene import clip_to_frame


@pytest.mark.parametrize("kind", KINDS)
def test_outline_lies_in_the_unit_circle_and_its_keypoints_inside_it(kind):
    outer = OUTLINES[kind][0]
    assert 0.75 < np.hypot(*outer.T).max() <= 1.35
    keypoints = keypoints_of(kind)
    assert keypoints.shape == (5, 2)
    mask = coco_mask.decode(coco_mask.frPyObjects([(outer * 100 + 150).ravel().tolist()], 300, 300))[..., 0]
    columns, rows = np.floor(keypoints * 100 + 150).astype(int).T
    assert mask[rows, columns].all()
    assert len(np.unique(keypoints, axis=0)) == 5


def test_one_pixel_and_a_ring_have_the_loops_worked_out_by_hand():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    outer, holes = mask_loops(mask)
    assert [loop.tolist() for loop in outer] == [[[2, 1], [3, 1], [3, 2], [2, 2]]] and not holes
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    outer, holes = mask_loops(ring)
    assert [sorted(loop.tolist()) for loop in outer] == [[[0, 0], [0, 3], [3, 0], [3, 3]]]
    assert [sorted(loop.tolist()) for loop in holes] == [[[1, 1], [1, 2], [2, 1], [2, 2]]]


def test_pixels_that_touch_at_a_corner_are_two_polygons():
    outer, holes = mask_loops(np.eye(2, dtype=bool))
    assert len(outer) == 2 and not holes


def test_empty_mask_has_no_loops():
    assert mask_loops(np.zeros((4, 5), bool)) == ([], [])


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_pycocotools_fills_the_loops_to_the_mask_again(mask):
    outer, holes = mask_loops(mask)

    def fill(loops):
        if not loops:
            return np.zeros_like(mask)
        return coco_mask.decode(coco_mask.frPyObjects([p.ravel().tolist() for p in loops], *mask.shape)).any(axis=2)

    if not holes:
        np.testing.assert_array_equal(fill(outer), mask)
    signed = [_shoelace(loop) for loop in (*outer, *holes)]
    assert sum(signed) == mask.sum()
    assert all(area > 0 for area in signed[: len(outer)]) and all(area < 0 for area in signed[len(outer) :])


def _shoelace(loop):
    x, y = loop[:, 0], loop[:, 1]
    return 0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))


def test_clipping_keeps_the_part_in_the_frame():
    square = np.array([(-2.0, -2.0), (2, -2), (2, 2), (-2, 2)])
    assert sorted(clip_to_frame(square, 10, 10).tolist()) == [[0, 0], [0, 2], [2, 0], [2, 2]]
    assert clip_to_frame(square + 4, 10, 10).tolist() == (square + 4).tolist()
    assert clip_to_frame(square - 9, 10, 10).shape == (0, 2)


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        (96, (96, 96), (96, 96)),
        ("96", (96, 96), (96, 96)),
        ((96, 128), (96, 96), (128, 128)),
        ("96x128", (96, 96), (128, 128)),
        ("96-128", (96, 128), (96, 128)),
        (["96-128", 64], (96, 128), (64, 64)),
        ("64x96-128", (64, 64), (96, 128)),
    ],
)
def test_size_is_a_number_a_pair_or_ranges(size, height, width):
    assert parse_size(size) == (height, width)
