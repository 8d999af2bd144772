import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertebra.structures import (
    Boxes,
    BoxMode,
    clip_to_size,
    matched_pairwise_iou,
    pad_boxes,
    pad_rows,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)

coordinates = st.floats(-500, 1500, width=32, allow_nan=False)
sizes = st.floats(0, 800, width=32)


@st.composite
def box_tensors(draw, min_size=0, max_size=6):
    rows = draw(st.lists(st.tuples(coordinates, coordinates, sizes, sizes), min_size=min_size, max_size=max_size))
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)


@given(box_tensors(), box_tensors())
def test_iou_is_symmetric_and_between_0_and_1(first, second):
    iou = pairwise_iou(first, second)
    assert iou.shape == (len(first), len(second))
    torch.testing.assert_close(iou, pairwise_iou(second, first).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-3)).all()  # thin boxes far out: areas round


@given(box_tensors(min_size=1))
def test_a_box_overlaps_itself_fully_unless_it_is_empty(boxes):
    area = Boxes(boxes).area()
    expected = torch.where(area > 0, 1.0, 0.0)
    torch.testing.assert_close(pairwise_iou(boxes, boxes).diagonal(), expected)
    torch.testing.assert_close(matched_pairwise_iou(boxes, boxes), expected)


@given(box_tensors(min_size=1), box_tensors(min_size=1))
def test_overlaps_do_not_change_when_both_are_mirrored(first, second):
    def mirror(boxes):
        return torch.stack((1000 - boxes[:, 2], boxes[:, 1], 1000 - boxes[:, 0], boxes[:, 3]), dim=1)

    inter = pairwise_intersection(first, second)
    torch.testing.assert_close(inter, pairwise_intersection(mirror(first), mirror(second)), rtol=1e-3, atol=0.5)


@given(box_tensors())
def test_clipping_twice_is_clipping_once_and_ends_inside(boxes):
    clipped = clip_to_size(boxes, 300, 400)
    assert torch.equal(clip_to_size(clipped, 300, 400), clipped)
    assert Boxes(clipped).inside_box((300, 400), 0.5).all()


@given(box_tensors(min_size=1))
def test_box_mode_round_trip(boxes):
    there = BoxMode.convert(boxes.double(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    torch.testing.assert_close(BoxMode.convert(there, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS), boxes.double())


def test_overlaps_worked_by_hand():
    one, other = Boxes([[0, 0, 2, 2]]), Boxes([[1, 1, 3, 4], [2, 0, 4, 2], [0, 0, 0, 0]])
    assert pairwise_intersection(one, other).tolist() == [[1, 0, 0]]
    torch.testing.assert_close(pairwise_iou(one, other), torch.tensor([[1 / 9, 0, 0]]))
    torch.testing.assert_close(pairwise_ioa(one, other), torch.tensor([[1 / 6, 0, 0]]))


def test_overlaps_of_a_padded_batch_equal_those_of_each_image():
    first, second = torch.rand(3, 5, 4).cumsum(-1), torch.rand(3, 7, 4).cumsum(-1)
    one_by_one = torch.stack([pairwise_iou(a, b) for a, b in zip(first, second, strict=True)])
    assert torch.equal(pairwise_iou(first, second), one_by_one)
    assert torch.equal(pairwise_iou(first, second[0])[1], pairwise_iou(first[1], second[0]))


def test_overlap_of_boxes_has_a_gradient():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], requires_grad=True)
    pairwise_iou(boxes, torch.tensor([[-1.0, -1.0, 4.0, 3.0]])).sum().backward()
    torch.testing.assert_close(boxes.grad, torch.tensor([[-0.1, -0.1, 0.1, 0.1]]))  # 2 of 20 square pixels a step


def test_matched_iou_needs_pairs():
    with pytest.raises(ValueError, match="got 2 and 3"):
        matched_pairwise_iou(torch.zeros(2, 4), torch.zeros(3, 4))


def test_distances_of_a_point_to_the_edges():
    distance = pairwise_point_box_distance(torch.tensor([[3.0, 4.0]]), Boxes([[1, 1, 10, 10], [5, 0, 6, 8]]))
    assert distance.tolist() == [[[2, 3, 7, 6], [-2, 4, 3, 4]]]


def test_boxes_are_float32_and_keep_their_device_and_rows():
    boxes = Boxes([[0, 0, 1, 1], [2, 2, 5, 6]])
    assert boxes.tensor.dtype == torch.float32
    assert boxes.to("cpu").device == torch.device("cpu")
    assert boxes[1].tensor.tolist() == [[2, 2, 5, 6]]
    assert len(boxes[torch.tensor([False, True])]) == 1
    assert boxes[-1:].tensor.tolist() == boxes[torch.tensor([1])].tensor.tolist()
    assert [box.tolist() for box in boxes] == [[0, 0, 1, 1], [2, 2, 5, 6]]
    assert boxes.area().tolist() == [1, 12]
    assert boxes.get_centers().tolist() == [[0.5, 0.5], [3.5, 4]]


def test_no_boxes_are_fine():
    empty = Boxes([])
    assert empty.tensor.shape == (0, 4)
    assert len(Boxes.cat([])) == 0
    assert len(Boxes.cat([empty, Boxes([[0, 0, 1, 1]])])) == 1
    assert empty.area().shape == empty.nonempty().shape == (0,)
    assert pairwise_iou(empty, Boxes([[0, 0, 1, 1]])).shape == (0, 1)


def test_scale_and_clip_work_in_place_and_clone_does_not_share():
    boxes = Boxes([[1, 2, 30, 40]])
    copy = boxes.clone()
    boxes.scale(2, 0.5)
    assert boxes.tensor.tolist() == [[2, 1, 60, 20]]
    boxes.clip((10, 50))
    assert boxes.tensor.tolist() == [[2, 1, 50, 10]]
    assert copy.tensor.tolist() == [[1, 2, 30, 40]]


def test_nonempty_and_inside_are_strict_at_the_border():
    boxes = Boxes([[0, 0, 2, 2], [0, 0, 2, 0], [0, 0, 10, 10], [0, 0, 9.5, 9.5]])
    assert boxes.nonempty().tolist() == [True, False, True, True]
    assert boxes.nonempty(2).tolist() == [False, False, True, True]
    assert boxes.inside_box((10, 10)).tolist() == [True, True, False, True]


@pytest.mark.parametrize("bad", [[1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 3.0]], torch.zeros(2, 5)])
def test_boxes_of_a_wrong_shape_are_refused(bad):
    with pytest.raises(ValueError, match=r"Boxes takes an \(N, 4\) tensor"):
        Boxes(bad)


def test_joining_what_are_no_boxes_is_refused():
    with pytest.raises(ValueError, match="found Tensor"):
        Boxes.cat([torch.zeros(1, 4)])


def test_box_mode_keeps_the_type_and_the_input():
    assert BoxMode.convert([1, 2, 3, 4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) == [1, 2, 4, 6]
    assert BoxMode.convert((1, 2, 3.5, 4), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS) == (1, 2, 2.5, 2)
    array = np.array([[1, 2, 3, 4]], dtype=np.float32)
    converted = BoxMode.convert(array, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert isinstance(converted, np.ndarray) and converted.dtype == np.float32
    assert converted.tolist() == [[1, 2, 4, 6]]
    assert array.tolist() == [[1, 2, 3, 4]]
    same = [1, 2, 3, 4]
    assert BoxMode.convert(same, BoxMode.XYXY_ABS, BoxMode.XYXY_ABS) is same


def test_box_mode_of_rotated_boxes():
    upright = BoxMode.convert([10, 20, 4, 8, 90], BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    assert upright == pytest.approx([6, 18, 14, 22])
    assert BoxMode.convert([1, 2, 3, 4], BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) == [2.5, 4, 3, 4, 0]


def test_box_mode_says_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"XYXY_REL -> XYXY_ABS.*image's size first"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)
    with pytest.raises(ValueError, match="XYWH_ABS has 4 numbers"):
        BoxMode.convert([1, 2, 3], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    with pytest.raises(ValueError, match="got str"):
        BoxMode.convert("abcd", BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)


def test_padding_marks_what_is_real():
    boxes, valid = pad_boxes([Boxes([[0, 0, 1, 1], [1, 1, 2, 2]]), Boxes([]), torch.tensor([[3.0, 3, 4, 4]])])
    assert boxes.shape == (3, 2, 4)
    assert valid.tolist() == [[True, True], [False, False], [True, False]]
    assert boxes[~valid].abs().sum() == 0
    assert boxes[2, 0].tolist() == [3, 3, 4, 4]


def test_padding_to_a_length_and_with_a_value():
    classes, valid = pad_rows([torch.tensor([4, 5]), torch.tensor([], dtype=torch.int64)], value=-1, length=3)
    assert classes.tolist() == [[4, 5, -1], [-1, -1, -1]]
    assert valid.sum() == 2
    with pytest.raises(ValueError, match="2 rows, more than length=1"):
        pad_rows([torch.tensor([4, 5])], length=1)
