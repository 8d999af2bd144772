import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertebra.detection import Box2BoxTransform, Box2BoxTransformLinear

corners = st.floats(-200, 1000, width=32)
sizes = st.floats(1, 500, width=32)
boxes = st.lists(st.tuples(corners, corners, sizes, sizes), min_size=4, max_size=4).map(
    lambda rows: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows])
)


@given(boxes, boxes, st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]))
def test_decoding_the_deltas_of_a_target_gives_the_target(source, target, weights):
    coder = Box2BoxTransform(weights, scale_clamp=math.log(1000))
    decoded = coder.apply_deltas(coder.get_deltas(source, target), source)
    torch.testing.assert_close(decoded, target, rtol=1e-4, atol=0.05)


@given(boxes, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_linear_round_trip_for_targets_around_the_center(source, left, right, normalize):
    coder = Box2BoxTransformLinear(normalize)
    center = (source[:, :2] + source[:, 2:]) / 2
    target = torch.cat((center - left * 300, center + right * 300), dim=1)
    decoded = coder.apply_deltas(coder.get_deltas(source, target), source)
    torch.testing.assert_close(decoded, target, rtol=1e-4, atol=0.05)


def test_deltas_worked_by_hand():
    source, target = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[5.0, 5.0, 25.0, 15.0]])
    deltas = Box2BoxTransform().get_deltas(source, target)
    torch.testing.assert_close(deltas, torch.tensor([[1.0, 0.0, math.log(2), -math.log(2)]]))
    weighted = Box2BoxTransform((10.0, 10.0, 5.0, 5.0)).get_deltas(source, target)
    torch.testing.assert_close(weighted, deltas * torch.tensor([10.0, 10.0, 5.0, 5.0]))


def test_growth_is_limited():
    decoded = Box2BoxTransform().apply_deltas(torch.tensor([[0.0, 0.0, 50.0, 1e30]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(decoded, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))


def test_leading_dimensions_broadcast_and_one_box_may_have_many_deltas():
    coder, anchors, deltas = Box2BoxTransform(), torch.rand(5, 4).cumsum(-1), torch.randn(3, 5, 12)
    together = coder.apply_deltas(deltas, anchors)
    assert together.shape == (3, 5, 12)
    alone = coder.apply_deltas(deltas[1, :, 4:8], anchors)
    assert torch.equal(together[1, :, 4:8], alone)
    target = torch.rand(3, 5, 4).cumsum(-1)
    assert torch.equal(coder.get_deltas(anchors, target)[2], coder.get_deltas(anchors, target[2]))


def test_half_precision_deltas_give_float32_boxes():
    anchors = torch.tensor([[1000.25, 1000.25, 1010.25, 1010.25]])
    for coder in (Box2BoxTransform(), Box2BoxTransformLinear()):
        assert coder.apply_deltas(torch.zeros(1, 4, dtype=torch.bfloat16), anchors).dtype == torch.float32
    assert torch.equal(Box2BoxTransform().apply_deltas(torch.zeros(1, 4, dtype=torch.bfloat16), anchors), anchors)


def test_no_boxes():
    coder = Box2BoxTransform()
    assert coder.apply_deltas(torch.zeros(0, 8), torch.zeros(0, 4)).shape == (0, 8)
    assert coder.get_deltas(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0, 1.0)])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="four numbers above 0"):
        Box2BoxTransform(weights)
