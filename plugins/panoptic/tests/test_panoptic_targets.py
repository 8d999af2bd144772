"""Targets of centers and offsets by hand, and that right maps give back the instances they were made of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vertebra.data import Metadata
from vertebra.errors import DataError
from vertebra.models import Batch, ShapeSpec
from vertebra.structures import BitMasks, Boxes, Instances
from vertebra_panoptic import CenterOffsetHead, GroupCenters
from vertebra_panoptic.targets import center_targets, instance_map


def _batch(masks, size=(12, 16), sem_seg=None):
    """One image for each (n, h, w) tensor of masks, padded to `size`."""
    sizes = [tuple(one.shape[1:]) for one in masks]
    inputs = [
        {
            "instances": Instances(
                hw,
                gt_boxes=Boxes(torch.zeros(len(one), 4)),
                gt_classes=torch.zeros(len(one), dtype=torch.int64),
                gt_masks=BitMasks(one.bool()),
            )
        }
        for one, hw in zip(masks, sizes, strict=True)
    ]
    return Batch(torch.zeros(len(masks), 3, *size), sizes, sizes, inputs, sem_seg=sem_seg)


def test_offsets_lead_from_each_pixel_to_the_center_of_mass():
    masks = torch.zeros(1, 5, 6)
    masks[0, 1:4, 2:5] = 1  # center (2, 3)
    targets = center_targets(_batch([masks]), sigma=2.0)
    assert targets.offsets[0, :, 1, 2].tolist() == [1, 1]
    assert targets.offsets[0, :, 3, 4].tolist() == [-1, -1]
    assert not targets.offsets[0][:, ~targets.owned[0]].any()
    assert targets.owned.sum() == 9
    assert targets.heat[0, 2, 3] == 1
    assert targets.heat[0, 2, 5] == pytest.approx(torch.tensor(-4 / 8).exp().item())
    assert targets.known[0].sum() == 30  # the image, without its padding


def test_where_gaussians_meet_the_higher_counts():
    masks = torch.zeros(2, 5, 9)
    masks[0, 2, 2], masks[1, 2, 5] = 1, 1
    heat = center_targets(_batch([masks]), sigma=2.0).heat[0]
    assert heat[2, 2] == heat[2, 5] == 1
    assert heat[2, 4] == pytest.approx(torch.tensor(-1 / 8).exp().item())


def test_images_do_not_mix_and_one_without_objects_is_empty():
    masks = torch.zeros(1, 4, 4)
    masks[0, 0, 0] = 1
    owner, image, count = instance_map(_batch([torch.zeros(0, 5, 5), masks, masks]))
    assert owner[0].sum() == 0 and owner[1, 0, 0] == 1 and owner[2, 0, 0] == 2
    assert (image.tolist(), count) == ([1, 2], 2)
    targets = center_targets(_batch([torch.zeros(0, 5, 5)]))
    assert not targets.heat.any() and not targets.owned.any()


def test_an_empty_or_hidden_mask_has_no_center():
    masks = torch.zeros(3, 4, 4)
    masks[1, 1, 1], masks[2, 1, 1] = 1, 1
    targets = center_targets(_batch([masks]), sigma=0.3)
    assert (targets.heat == 1).sum() == 1 and targets.heat[0, 1, 1] == 1


def test_ignored_pixels_do_not_count_unless_they_have_an_instance():
    masks = torch.zeros(1, 12, 16)
    masks[0, 0, 0] = 1
    sem_seg = torch.zeros(1, 12, 16, dtype=torch.int64)
    sem_seg[0, 0, :2] = 255
    known = center_targets(_batch([masks], sem_seg=sem_seg)).known[0]
    assert known[0, 0] and not known[0, 1] and known.sum() == 12 * 16 - 1


def test_a_crowd_neither_has_centers_nor_lacks_them():
    """Labeled as a thing, but no instance: such pixels teach nothing about centers and offsets."""
    masks = torch.zeros(1, 12, 16)
    masks[0, :4, :4] = 1
    sem_seg = torch.full((1, 12, 16), 2)
    sem_seg[0, :4, :4] = 1
    sem_seg[0, 6:, 6:] = 0  # the crowd
    targets = center_targets(_batch([masks], sem_seg=sem_seg), thing_labels=2)
    assert not targets.known[0, 6:, 6:].any() and targets.known.sum() == 12 * 16 - 6 * 10
    assert not targets.owned[0, 6:, 6:].any()
    assert center_targets(_batch([masks], sem_seg=sem_seg), thing_labels=0).known.all()


def test_the_head_knows_the_things_among_the_labels():
    shapes = {"res2": ShapeSpec(channels=4, stride=4), "res5": ShapeSpec(channels=8, stride=32)}
    small = {"aspp_channels": 4, "project_channels": [4], "decoder_channels": 4, "head_channels": 4}
    for things, names, wanted in (
        (["a", "b"], ["a", "b", "sky"], 2),
        (["a"], ["things", "sky"], 1),
        (["a"], ["sky"], 0),
    ):
        metadata = Metadata("by hand").set(thing_classes=things, stuff_classes=names)
        assert CenterOffsetHead(shapes, metadata=metadata, **small).thing_labels == wanted
    assert CenterOffsetHead(shapes, **small).thing_labels == 0


def test_targets_take_as_many_steps_for_two_hundred_instances_as_for_two():
    """No loop over objects: the number of tensor operations does not depend on how many there are."""

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.total += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for objects in (2, 200):
        batch = _batch([torch.rand(objects, 12, 16) > 0.9], sem_seg=torch.full((1, 12, 16), 3))
        with Count() as mode:
            center_targets(batch, sigma=1.0, thing_labels=2)
        counts.append(mode.total)
    assert counts[0] == counts[1]


def test_instances_without_masks_say_what_is_needed():
    batch = _batch([torch.ones(1, 4, 4)])
    batch.inputs[0]["instances"].remove("gt_masks")
    with pytest.raises(DataError, match="must not be none"):
        center_targets(batch)


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 6))
@settings(deadline=None, max_examples=40)
def test_right_maps_give_back_the_instances(seed, count):
    """Rectangles whose centers lie apart: grouped by their own targets, each pixel is with its own again."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(12, generator=generator)[:count]
    masks = torch.zeros(count, 36, 48)
    for mask, cell in zip(masks, cells.tolist(), strict=True):
        h, w = (torch.randint(2, 6, (2,), generator=generator) * 2 - 1).tolist()
        y, x = cell // 4 * 12, cell % 4 * 12
        mask[y : y + h, x : x + w] = 1
    batch = _batch([masks], size=(36, 48))
    targets = center_targets(batch, sigma=1.0)
    owner = instance_map(batch)[0][0]
    labels = (owner == 0).long()
    segments, infos = GroupCenters(nms_kernel=3, stuff_area=1)(
        {"centers": targets.heat, "offsets": targets.offsets[0]}, labels, 1
    )
    things = [info["id"] for info in infos if info["isthing"]]
    assert len(things) == count
    pairs = {(a, b) for a, b in zip(owner[owner > 0].tolist(), segments[owner > 0].tolist(), strict=True)}
    assert len(pairs) == count and {b for _, b in pairs} == set(things)
