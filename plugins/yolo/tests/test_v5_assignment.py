"""YOLOv5's assignment: cases by hand, and a plain loop over everything as the reference."""

import math

import pytest
import torch

from vertebra_yolo.assign_ratio import match_by_ratio

ANCHORS = torch.tensor([[[10.0, 13.0], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]]])
STRIDES = torch.tensor([8.0, 16.0])
SIZE = (64, 96)
SIZES = torch.tensor([[12, 8], [6, 4]])  # columns and rows of both levels


def match(boxes, **options):
    boxes = [torch.as_tensor(some, dtype=torch.float32).reshape(-1, 4) for some in boxes]
    most = max(1, *map(len, boxes)) if len(boxes) > 1 else max(1, len(boxes[0]))
    padded, valid = torch.zeros(len(boxes), most, 4), torch.zeros(len(boxes), most, dtype=torch.bool)
    for i, some in enumerate(boxes):
        padded[i, : len(some)], valid[i, : len(some)] = some, True
    pairs = match_by_ratio(padded, valid, ANCHORS, STRIDES, SIZES, **options)
    return [tuple(row) for row in torch.stack(pairs, dim=1).tolist()]  # level, image, object, anchor, x, y


def by_loops(boxes, max_ratio=4.0):
    """The rule, object by object: own cell, then left or right, then up or down, as near as half a cell."""
    found = []
    for level, (stride, (columns, rows)) in enumerate(zip(STRIDES.tolist(), SIZES.tolist(), strict=True)):
        for image, some in enumerate(boxes):
            for row, (x0, y0, x1, y1) in enumerate(torch.as_tensor(some).tolist()):
                for anchor, (wide, high) in enumerate(ANCHORS[level].tolist()):
                    ratios = ((x1 - x0) / wide, (y1 - y0) / high)
                    if max(max(ratio, 1 / ratio) for ratio in ratios) >= max_ratio:
                        continue
                    x, y = (x0 + x1) / 2 / stride, (y0 + y1) / 2 / stride
                    column, line = min(math.floor(x), columns - 1), min(math.floor(y), rows - 1)
                    cells = [(column, line)]
                    cells += [(column - 1, line)] if x - column < 0.5 and column > 0 else []
                    cells += [(column + 1, line)] if x - column > 0.5 and column < columns - 1 else []
                    cells += [(column, line - 1)] if y - line < 0.5 and line > 0 else []
                    cells += [(column, line + 1)] if y - line > 0.5 and line < rows - 1 else []
                    found += [(level, image, row, anchor, *cell) for cell in cells]
    return sorted(found)


def test_an_object_goes_to_its_cell_and_the_two_nearest_neighbors():
    # 12 x 12 pixels about (26, 29): cell (3, 3) of stride 8; left of its middle, below its middle
    cells = {pair[4:] for pair in match([[[20, 23, 32, 35]]]) if pair[0] == 0}
    assert cells == {(3, 3), (2, 3), (3, 4)}
    assert {pair[4:] for pair in match([[[20, 23, 32, 35]]], offset=0.0) if pair[0] == 0} == {(3, 3)}


def test_anchors_fit_whose_sides_differ_by_less_than_four_times():
    wide = [[10, 10, 10 + 39, 10 + 13]]  # 39 x 13: 3.9 times as wide as the first anchor
    assert {pair[3] for pair in match([wide]) if pair[0] == 0} == {0, 1, 2}
    wider = [[10, 10, 10 + 41, 10 + 13]]  # 4.1 times as wide
    assert {pair[3] for pair in match([wider]) if pair[0] == 0} == {1, 2}
    assert not match([wider], max_ratio=1.01)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_loop_over_everything_finds(random_boxes, seed):
    boxes = [
        random_boxes(7, SIZE, seed),
        torch.zeros(0, 4),
        random_boxes(1, SIZE, seed + 10),
        random_boxes(20, SIZE, 3),
    ]
    assert sorted(match(boxes)) == by_loops(boxes)


def test_pairs_come_level_by_level(random_boxes):
    levels = [pair[0] for pair in match([random_boxes(30, SIZE)])]
    assert levels == sorted(levels) and set(levels) == {0, 1}


def test_every_cell_lies_in_its_map(random_boxes):
    corners = [[0, 0, 12, 12], [84, 52, 96, 64], [90, 0, 102, 12], [-5, -5, 20, 20], [95.9, 63.9, 96, 64]]
    for level, _, _, _, x, y in match([corners, random_boxes(50, SIZE)]):
        assert 0 <= x < SIZES[level, 0] and 0 <= y < SIZES[level, 1]


def test_no_objects_no_pairs():
    assert match([[], []]) == []
