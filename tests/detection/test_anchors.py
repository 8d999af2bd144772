import copy
import pickle

import pytest
import torch
from torch import nn

from vertebra.detection import AnchorGenerator
from vertebra.detection.anchors import MAX_CACHED_GRIDS


def make(**changes):
    return AnchorGenerator(**{"sizes": [[32.0], [64.0]], "aspect_ratios": [[0.5, 1.0]], "strides": [8, 16], **changes})


def maps(*sizes, device="cpu"):
    return [torch.empty(1, 1, *size, device=device) for size in sizes]


def test_anchors_run_along_rows_then_columns_then_shapes():
    first, second = make()(maps((2, 3), (1, 2)))
    assert first.shape == (2 * 3 * 2, 4) and second.shape == (1 * 2 * 2, 4)
    assert first[1].tolist() == [-16, -16, 16, 16]
    assert (first[3] - first[1]).tolist() == [8, 0, 8, 0]
    assert (first[3 * 2 + 1] - first[1]).tolist() == [0, 8, 0, 8]
    assert second[1].tolist() == [-32, -32, 32, 32]


def test_all_shapes_of_a_size_have_its_area_and_their_ratio():
    ratios = [0.25, 0.5, 1.0, 2.0, 4.0]
    cell = make(sizes=[[48.0]], aspect_ratios=[ratios]).cell_anchors[1]
    size = cell[:, 2:] - cell[:, :2]
    torch.testing.assert_close(size.prod(dim=1), torch.full((5,), 48.0**2))
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor(ratios))


def test_offset_half_centers_anchors_in_their_cells():
    anchors = make(offset=0.5)(maps((1, 1), (1, 1)))
    assert [((a[1, :2] + a[1, 2:]) / 2).tolist() for a in anchors] == [[4, 4], [8, 8]]


def test_a_repeated_call_returns_the_same_tensors():
    generator = make()
    first, again = generator(maps((4, 5), (2, 3))), generator(maps((4, 5), (2, 3)))
    assert all(a is b for a, b in zip(first, again, strict=True))
    first.clear()
    assert len(generator(maps((4, 5), (2, 3)))) == 2
    assert generator(maps((5, 4), (2, 3)))[0] is not again[0]


def test_memory_of_past_sizes_is_bounded():
    generator = make()
    for width in range(1, 3 * MAX_CACHED_GRIDS):
        generator(maps((1, width), (1, 1)))
    assert len(generator._cache) == MAX_CACHED_GRIDS


def test_no_cell_at_all_gives_no_anchors():
    assert [len(anchors) for anchors in make()(maps((0, 4), (1, 0)))] == [0, 0]


def test_nothing_is_in_the_state_dict_or_becomes_half_precision_or_goes_into_copies():
    model = nn.Sequential(make()).half()
    assert model.state_dict() == {}
    assert model[0](maps((4, 4), (2, 2)))[0].dtype == torch.float32
    for other in (copy.deepcopy(model[0]), pickle.loads(pickle.dumps(model[0]))):
        assert len(other._cache) == 0
        assert torch.equal(other(maps((4, 4), (2, 2)))[1], model[0](maps((4, 4), (2, 2)))[1])


def test_anchors_first_made_in_inference_mode_can_be_trained_with():
    generator = make()
    with torch.inference_mode():
        generator(maps((2, 2), (1, 1)))
    deltas = torch.zeros(8, 4, requires_grad=True)
    (deltas * generator(maps((2, 2), (1, 1)))[0]).sum().backward()
    assert deltas.grad is not None


def test_anchors_follow_the_device_of_the_features():
    generator = make()
    assert generator(maps((2, 2), (1, 1), device="meta"))[0].device.type == "meta"
    assert generator(maps((2, 2), (1, 1)))[0].device.type == "cpu"


class AddAnchors(nn.Module):
    def __init__(self):
        super().__init__()
        self.anchors = make()

    def forward(self, fine, coarse):
        return [anchors + fine.sum() for anchors in self.anchors([fine, coarse])]


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_sizes_left_open_gives_the_anchors_of_any_size(strict):
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    shapes = {"fine": {2: 2 * height, 3: 2 * width}, "coarse": {2: height, 3: width}}
    exported = torch.export.export(
        AddAnchors(), (torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)), dynamic_shapes=shapes, strict=strict
    ).module()
    inputs = (torch.zeros(1, 1, 20, 10), torch.zeros(1, 1, 10, 5))
    for found, expected in zip(exported(*inputs), AddAnchors()(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_compiles_whole_and_leaves_nothing_of_the_tracer_behind():
    model = AddAnchors()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for size in ((8, 12), (6, 4), (8, 12)):
        inputs = (torch.zeros(1, 1, *size), torch.zeros(1, 1, size[0] // 2, size[1] // 2))
        for found, expected in zip(compiled(*inputs), AddAnchors()(*inputs), strict=True):
            assert torch.equal(found, expected)
    assert len(model.anchors._cache) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [[32.0], [64.0], [128.0]]}, "sizes has 3 levels, strides 2"),
        ({"sizes": [32.0, 64.0]}, "list of non-empty lists"),
        ({"aspect_ratios": [[]]}, "aspect_ratios is"),
        ({"sizes": [[0.0]]}, "more than 0"),
        ({"offset": 1.0}, r"offset is 1.0, must be in \[0, 1\)"),
        ({"strides": []}, "at least one level"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_wrong_number_of_feature_maps_is_refused():
    with pytest.raises(ValueError, match=r"made for 2 levels .* got 1"):
        make()(maps((2, 2)))
