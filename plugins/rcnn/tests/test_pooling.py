"""Pooling of regions agrees with Detectron2's, position-sensitive pooling with the paper's formula written plainly.

The numbers and their origin: data/golden_pooling.md.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebra.models import ShapeSpec
from vertebra_rcnn import PSROIAlign, PSROIPool, RFCNBoxes, ROIAlign, ROIPool, ROIPooler

GOLDEN = np.load(Path(__file__).parent / "data/golden_pooling.npz")
OPERATORS = {"ROIAlignV2": ROIAlign(), "ROIAlign": ROIAlign(aligned=False), "ROIPool": ROIPool()}


def golden(name):
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_and_its_gradient_agree(ratio, aligned):
    x = golden("x").requires_grad_()
    y = ROIAlign(sampling_ratio=ratio, aligned=aligned)(x, golden("rois"), 7, 0.25)
    wanted = golden(f"align/7/{ratio}/{aligned}")
    torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    torch.testing.assert_close(x.grad, golden(f"align/7/{ratio}/{aligned}/grad"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPERATORS)
def test_pooling_from_a_pyramid_agrees(name):
    features = {f"p{level}": golden(f"pooler/p{level}") for level in range(2, 6)}
    shapes = {f"p{level}": ShapeSpec(channels=2, stride=2**level) for level in range(2, 6)}
    pooler = ROIPooler(shapes, 7, operator=OPERATORS[name])
    boxes = [golden("pooler/boxes0"), golden("pooler/boxes1")]
    rois = torch.cat([torch.cat((torch.full((len(b), 1), float(i)), b), dim=1) for i, b in enumerate(boxes)])
    assert torch.equal(pooler.levels_of(rois[:, 1:]), golden("pooler/levels"))
    torch.testing.assert_close(pooler(features, rois), golden(f"pooler/out/{name}"), rtol=1e-5, atol=1e-5)


def plain_position_sensitive(x, roi, size, scale):
    """R-FCN's equation 1 for one region: cell (i, j) of output c is the mean of map (c, i, j) over the cell's pixels.

    Borders of the region are rounded to pixels of the map, half of one upwards. The map's last row and column are in
    no cell, as in torchvision's operator.
    """
    x0, y0, x1, y1 = (math.floor(v * scale + 0.5) for v in roi[1:].tolist())
    height, width = x.shape[2] - 1, x.shape[3] - 1
    out = torch.zeros(x.shape[1] // size**2, size, size)
    for c in range(len(out)):
        for i in range(size):
            for j in range(size):
                top, bottom = (math.floor(y0 + i * (y1 - y0) / size), math.ceil(y0 + (i + 1) * (y1 - y0) / size))
                left, right = (math.floor(x0 + j * (x1 - x0) / size), math.ceil(x0 + (j + 1) * (x1 - x0) / size))
                cell = x[int(roi[0]), (c * size + i) * size + j, max(top, 0) : min(bottom, height)]
                cell = cell[:, max(left, 0) : min(right, width)]
                out[c, i, j] = cell.mean() if cell.numel() else 0
    return out


def test_position_sensitive_pooling_is_the_papers():
    torch.manual_seed(0)
    x = torch.randn(2, 3 * 9, 14, 18)
    rois = torch.tensor([[0.0, 5, 3, 90, 70], [1, 0, 0, 143, 111], [1, 40, 20, 44, 60], [0, 100, 80, 200, 150]])
    found = PSROIPool()(x, rois, 3, 1 / 8)
    for one, roi in zip(found, rois, strict=True):
        torch.testing.assert_close(one, plain_position_sensitive(x, roi, 3, 1 / 8))


@pytest.mark.parametrize("operator", [PSROIPool(), PSROIAlign(sampling_ratio=2)])
def test_each_cell_sees_only_its_own_map(operator):
    """Map (c, i, j) holds a number of its own: that number is the cell, wherever the region lies."""
    numbers = torch.arange(2 * 9.0)
    x = numbers[:, None, None].expand(-1, 12, 12)[None].contiguous()
    found = operator(x, torch.tensor([[0.0, 10, 10, 80, 60], [0, 5, 20, 30, 90]]), 3, 1 / 8)
    for one in found:
        torch.testing.assert_close(one, numbers.view(2, 3, 3))


def test_rfcn_scores_an_object_by_the_votes_of_its_parts():
    """Maps that light up at an object's own parts: a box on it gets all votes, one half beside it those that fit."""
    branch = RFCNBoxes({"res5": ShapeSpec(channels=4, stride=8)}, 1, channels=0, bins=2)
    maps = torch.zeros(1, 2 * 4, 16, 16)  # class 0's four maps, then background's
    for cell, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        maps[0, cell, 4 + 4 * row : 8 + 4 * row, 4 + 4 * column : 8 + 4 * column] = 1  # object: pixels 32 to 96
    features = {"rfcn_scores": maps, "rfcn_deltas": torch.zeros(1, 16, 16, 16)}
    on, beside, far = branch._answers(
        features, torch.tensor([[0.0, 32, 32, 95, 95], [0, 64, 32, 127, 95], [0, 0, 104, 20, 127]])
    )[0][:, 0].tolist()
    assert on == 1.0 and far == 0.0
    assert beside < 0.5
