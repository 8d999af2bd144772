"""Boxes from anchors on cells, and which row is responsible for which ground-truth box."""

import math

import pytest
import torch

from vertebra.structures import pairwise_iou
from vertebra_yolo.cells import (
    MAX_OVERLAPS,
    Grid,
    best_overlaps,
    cell_rows,
    decode_boxes,
    encode_boxes,
    last_of_each_row,
    pair_by_shape,
    real_boxes,
)

SIZES, STRIDES = [(4, 6), (2, 3)], [16, 32]  # of an image of 64 x 96 pixels
ANCHORS = [torch.tensor([[10.0, 10.0], [20.0, 10.0]]), torch.tensor([[30.0, 30.0], [30.0, 60.0], [90.0, 60.0]])]
CPU = torch.device("cpu")


def make_grid():
    return Grid.of(SIZES, STRIDES, [2, 3], CPU)


def pairs_of(boxes, threshold=1.0):
    boxes = torch.tensor(boxes)[None]
    return pair_by_shape(
        boxes, torch.ones(boxes.shape[:2], dtype=torch.bool), torch.cat(ANCHORS), make_grid(), threshold
    )


def test_rows_run_level_by_level_cell_by_cell_anchor_by_anchor():
    rows = cell_rows(SIZES, STRIDES, ANCHORS)
    assert rows.shape == (4 * 6 * 2 + 2 * 3 * 3, 5)
    assert rows[0].tolist() == [0, 0, 16, 10, 10]
    assert rows[(1 * 6 + 2) * 2 + 1].tolist() == [32, 16, 16, 20, 10]  # row 1, column 2, second anchor
    assert rows[48 + (1 * 3 + 2) * 3 + 2].tolist() == [64, 32, 32, 90, 60]


def test_zero_regression_is_the_anchor_in_the_middle_of_its_cell():
    rows = cell_rows(SIZES, STRIDES, ANCHORS)
    boxes = decode_boxes(torch.zeros(len(rows), 4), rows)
    assert boxes[(1 * 6 + 2) * 2 + 1].tolist() == [30, 19, 50, 29]


def test_no_regression_leaves_its_cell_or_overflows():
    rows = cell_rows(SIZES, STRIDES, ANCHORS)
    boxes = decode_boxes(torch.full((len(rows), 4), 1e4), rows)
    assert torch.isfinite(boxes).all()
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (center <= rows[:, :2] + rows[:, 2:3] + 0.02).all()
    torch.testing.assert_close(boxes[0, 2] - boxes[0, 0], torch.tensor(10_000.0), rtol=1e-4, atol=0)


def test_encoding_and_decoding_are_inverse(random_boxes):
    boxes = random_boxes(40)
    found = pairs_of(boxes.tolist())
    rows = cell_rows(SIZES, STRIDES, ANCHORS)[found.row]
    place, scale = encode_boxes(boxes[found.truth], rows)
    back = decode_boxes(torch.cat((place.logit(), scale), dim=1), rows)
    torch.testing.assert_close(back, boxes[found.truth], rtol=1e-3, atol=1e-3)


def test_a_box_goes_to_the_anchor_of_the_nearest_shape_in_the_cell_of_its_center():
    pairs = pairs_of([[40.0, 20.0, 61.0, 29.0], [33.0, 1.0, 63.0, 63.0]])
    assert pairs.truth.tolist() == [0, 1]
    assert pairs.row.tolist() == [(1 * 6 + 3) * 2 + 1, 48 + (1 * 3 + 1) * 3 + 1]


def test_a_threshold_pairs_further_anchors():
    box = [[35.0, 10.0, 61.0, 36.0]]  # 26 x 26: IoU 0.75 with 30 x 30, 0.38 with 30 x 60, 0.30 with 20 x 10
    assert len(pairs_of(box).row) == 1
    assert len(pairs_of(box, 0.35).row) == 2
    assert sorted(pairs_of(box, 0.25).row.tolist()) == [(1 * 6 + 3) * 2 + 1, 48 + 3, 48 + 4]


def test_centers_on_and_beyond_the_border_belong_to_the_last_cell():
    pairs = pairs_of([[80.0, 48.0, 112.0, 80.0], [-30.0, -30.0, 0.0, 0.0]])
    assert pairs.row.tolist() == [48 + (1 * 3 + 2) * 3, 48]
    rows = cell_rows(SIZES, STRIDES, ANCHORS)[pairs.row]
    place, _ = encode_boxes(torch.tensor([[80.0, 48.0, 112.0, 80.0], [-30.0, -30.0, 0.0, 0.0]]), rows)
    assert place.tolist() == [[1, 1], [0, 0]]


def test_padding_and_boxes_without_area_are_never_paired():
    boxes = torch.tensor([[[5.0, 5.0, 5.0, 9.0], [9.0, 9.0, 5.0, 5.0], [1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 9.0, 9.0]]])
    valid = real_boxes(boxes, torch.tensor([[True, True, True, False]]))
    assert valid.tolist() == [[False, False, True, False]]
    pairs = pair_by_shape(boxes, valid, torch.cat(ANCHORS), make_grid())
    assert pairs.truth.tolist() == [2]


def test_of_several_boxes_on_one_row_the_last_owns_it():
    pairs = pairs_of([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [2.0, 2.0, 12.0, 12.0]])
    assert pairs.row[0] == pairs.row[2] != pairs.row[1]
    assert last_of_each_row(pairs, 1, 66).tolist() == [2, 1, 2]


@pytest.mark.parametrize("held", [1, 7, 10**6])
def test_best_overlaps_do_not_depend_on_how_many_are_compared_at_a_time(held, monkeypatch, random_boxes):
    monkeypatch.setitem(MAX_OVERLAPS, "cpu", held)
    candidates = torch.stack([random_boxes(30, seed=1), random_boxes(30, seed=2)])
    truth = torch.stack([random_boxes(9, seed=3), random_boxes(9, seed=4)])
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1, 4:] = False
    expected = [pairwise_iou(candidates[0], truth[0]).amax(1), pairwise_iou(candidates[1], truth[1, :4]).amax(1)]
    torch.testing.assert_close(best_overlaps(candidates, truth, valid), torch.stack(expected))


def test_log_scales_are_those_of_the_paper():
    rows = torch.tensor([[0.0, 0.0, 32.0, 16.0, 64.0]])
    _, scale = encode_boxes(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), rows)
    assert scale[0].tolist() == pytest.approx([0, math.log(16 / 64)])
