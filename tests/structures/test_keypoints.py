import pytest
import torch

from vertebra.structures import Keypoints, heatmaps_to_keypoints

BOX = torch.tensor([[10.0, 20.0, 18.0, 28.0]])


def heatmap_cell(x, y, visibility, size=4):
    cells, valid = Keypoints([[[x, y, visibility]]]).to_heatmap(BOX, size)
    return cells.item(), valid.item()


def test_a_keypoint_falls_into_its_cell():
    assert heatmap_cell(10, 20, 2) == (0, 1)
    assert heatmap_cell(13.9, 20, 1) == (1, 1)
    assert heatmap_cell(14, 27, 2) == (3 * 4 + 2, 1)


def test_the_far_edge_is_inside_and_beyond_it_is_not():
    assert heatmap_cell(18, 28, 2) == (15, 1)
    assert heatmap_cell(18.01, 22, 2) == (0, 0)
    assert heatmap_cell(9.99, 22, 2) == (0, 0)


def test_what_is_not_labeled_is_not_valid():
    assert heatmap_cell(12, 22, 0) == (0, 0)


def test_the_peak_of_a_heatmap_is_the_keypoint():
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 6, 1] = 20
    maps[0, 1, 0, 7] = 20
    found = heatmaps_to_keypoints(maps, BOX)  # the box has 8 x 8 pixels: a cell is a pixel
    assert found.shape == (1, 2, 4)
    assert found[0, :, :2].tolist() == [[11.5, 26.5], [17.5, 20.5]]
    torch.testing.assert_close(found[0, :, 2], torch.tensor([20.0, 20.0]))
    torch.testing.assert_close(found[0, :, 3], torch.ones(2))


def test_there_and_back_stays_within_a_cell():
    generator = torch.Generator().manual_seed(0)
    points = BOX[0, :2] + torch.rand(50, 1, 2, generator=generator) * 8
    boxes = BOX.expand(50, 4)
    cells, valid = Keypoints(torch.cat((points, torch.full((50, 1, 1), 2.0)), dim=-1)).to_heatmap(boxes, 16)
    assert valid.all()
    maps = torch.nn.functional.one_hot(cells, 256).view(50, 1, 16, 16) * 10.0
    found = heatmaps_to_keypoints(maps, boxes)
    assert ((found[..., :2] - points).abs() <= 1).all()


def test_tiny_boxes_and_no_boxes():
    assert heatmaps_to_keypoints(torch.zeros(0, 17, 8, 8), torch.zeros(0, 4)).shape == (0, 17, 4)
    found = heatmaps_to_keypoints(torch.zeros(1, 17, 8, 8), torch.tensor([[5.0, 5.0, 5.0, 5.0]]))
    assert torch.isfinite(found).all()
    cells, valid = Keypoints(torch.zeros(0, 17, 3)).to_heatmap(torch.zeros(0, 4), 56)
    assert cells.shape == valid.shape == (0, 17)


def test_keypoints_are_selected_joined_and_checked():
    keypoints = Keypoints(torch.arange(2 * 4 * 3).view(2, 4, 3))
    assert keypoints.tensor.dtype == torch.float32
    assert len(keypoints[0]) == 1
    assert keypoints[torch.tensor([False, True])].tensor[0, 0, 0] == 12
    assert len(Keypoints.cat([keypoints, keypoints[:1]])) == 3
    assert keypoints.to("meta").device.type == "meta"
    with pytest.raises(ValueError, match="x, y, visibility"):
        Keypoints(torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match="got 1 and 2"):
        keypoints.to_heatmap(BOX, 56)
