import copy
import pickle

import numpy as np
import pytest
import torch

from vertebra.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks


def make(count=3):
    return Instances(
        (20, 30),
        gt_boxes=Boxes(torch.arange(4 * count).reshape(count, 4)),
        gt_classes=torch.arange(count),
        gt_masks=PolygonMasks([[[0, 0, 1, 0, 1, i + 1]] for i in range(count)]),
        names=[f"object {i}" for i in range(count)],
        ids=np.arange(count),
    )


def test_fields_are_attributes():
    instances = Instances((20, 30))
    instances.scores = torch.tensor([0.5, 0.25])
    assert instances.has("scores") and not instances.has("boxes")
    assert instances.get("scores") is instances.scores
    assert instances.image_size == (20, 30)
    assert len(instances) == 2
    instances.remove("scores")
    assert instances.get_fields() == {}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (0, [0]),
        (-1, [2]),
        (-3, [0]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([], dtype=torch.int64), []),
        (torch.tensor([False] * 3), []),
    ],
)
def test_indexing_selects_the_same_objects_in_every_field(item, expected):
    chosen = make()[item]
    assert chosen.image_size == (20, 30)
    assert chosen.gt_classes.tolist() == expected
    assert chosen.gt_boxes.tensor[:, 0].tolist() == [4 * i for i in expected]
    assert [polygons[0][-1] for polygons in chosen.gt_masks] == [i + 1 for i in expected]
    assert chosen.names == [f"object {i}" for i in expected]
    assert chosen.ids.tolist() == expected


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_out_of_range_is_an_error(index):
    with pytest.raises(IndexError, match="out of range: there are 3"):
        make()[index]


def test_cat_joins_every_field():
    joined = Instances.cat([make(2), make(0), make(1)])
    assert len(joined) == 3
    assert joined.gt_classes.tolist() == [0, 1, 0]
    assert joined.names == ["object 0", "object 1", "object 0"]
    assert len(joined.gt_boxes) == len(joined.gt_masks) == len(joined.ids) == 3


def test_cat_says_what_does_not_fit():
    with pytest.raises(ValueError, match="image sizes differ"):
        Instances.cat([Instances((1, 2)), Instances((2, 2))])
    with pytest.raises(ValueError, match="not all have the fields b"):
        Instances.cat([Instances((1, 2), a=[1]), Instances((1, 2), a=[1], b=[2])])
    with pytest.raises(ValueError, match="at least one"):
        Instances.cat([])
    with pytest.raises(ValueError, match="'a' is of type dict"):
        Instances.cat([Instances((1, 2), a={1: 2})] * 2)
    with pytest.raises(ValueError, match="found int"):
        Instances.cat([Instances((1, 2)), 3])


def test_fields_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"scores has 2 entries, but the other fields have 3: gt_boxes"):
        make().scores = torch.zeros(2)
    with pytest.raises(ValueError, match="one entry per object"):
        Instances((1, 1), count=3)


def test_a_missing_field_names_those_there_are():
    with pytest.raises(AttributeError, match="no field 'scores'; fields: gt_boxes, gt_classes"):
        _ = make().scores
    with pytest.raises(KeyError, match="no field 'scores'"):
        make().get("scores")
    with pytest.raises(KeyError, match="no field 'scores'"):
        make().remove("scores")


def test_without_fields_there_is_no_length():
    with pytest.raises(NotImplementedError, match="set a field first"):
        len(Instances((1, 1)))


def test_instances_are_not_iterated():
    with pytest.raises(TypeError, match="not iterable"):
        iter(make())


def test_image_size_stays():
    with pytest.raises(ValueError, match="fixed at construction"):
        make().image_size = (1, 2)


def test_copies_and_pickles_hold_the_same():
    for other in (copy.deepcopy(make()), pickle.loads(pickle.dumps(make()))):
        assert other.image_size == (20, 30)
        assert other.gt_classes.tolist() == [0, 1, 2]
        assert torch.equal(other.gt_boxes.tensor, make().gt_boxes.tensor)


def test_to_moves_tensors_and_leaves_lists():
    moved = make().to("meta")
    assert moved.gt_boxes.device.type == moved.gt_classes.device.type == "meta"
    assert moved.names[0] == "object 0"


def test_repr_tells_the_count_and_the_size():
    assert "num_instances=3, image_height=20, image_width=30" in repr(make())
    assert "num_instances=0" in repr(Instances((1, 1)))


def test_image_list_pads_at_the_right_and_bottom():
    small, large = torch.ones(3, 4, 6), torch.ones(3, 5, 2)
    images = ImageList.from_tensors([small, large], size_divisibility=4, pad_value=7)
    assert images.tensor.shape == (2, 3, 8, 8)
    assert images.image_sizes == [(4, 6), (5, 2)]
    assert len(images) == 2
    assert torch.equal(images[0], small) and torch.equal(images[1], large)
    assert images.tensor[0, :, 4:].unique().tolist() == [7]
    assert images.tensor[0, :, :, 6:].unique().tolist() == [7]
    assert images.to(torch.float64).tensor.dtype == torch.float64


def test_image_list_of_label_maps_keeps_their_type():
    labels = ImageList.from_tensors(
        [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 1, dtype=torch.int64)], 0, 255
    )
    assert labels.tensor.shape == (2, 4, 3)
    assert labels.tensor.dtype == torch.int64
    assert labels.tensor[0, 3, 0] == 255


def test_image_list_refuses_what_cannot_be_padded():
    with pytest.raises(ValueError, match="at least one image"):
        ImageList.from_tensors([])
    with pytest.raises(ValueError, match="image 1 has shape"):
        ImageList.from_tensors([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])
    with pytest.raises(ValueError, match="square_size is 3"):
        ImageList.from_tensors([torch.zeros(3, 4, 4)], padding_constraints={"square_size": 3})
    with pytest.raises(ValueError, match="unknown padding constraints squares"):
        ImageList.from_tensors([torch.zeros(3, 4, 4)], padding_constraints={"squares": 3})
    with pytest.raises(ValueError, match="2 images, but 1"):
        ImageList(torch.zeros(2, 3, 4, 4), [(4, 4)])


def test_masks_as_a_field_are_selected_and_joined():
    instances = Instances((4, 4), masks=BitMasks(torch.eye(4).bool().repeat(3, 1, 1)))
    assert len(Instances.cat([instances[0], instances[1:]]).masks) == 3
