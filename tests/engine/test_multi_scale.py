"""The hook MultiScale: another size of the input every few steps, the same after a restart."""

from collections import Counter

import numpy as np
import pytest
import torch

from vertebra.engine.hooks.multi_scale import MultiScale, resize_input
from vertebra.structures import BitMasks, Boxes, DenseMap, Instances, Keypoints, PolygonMasks, RotatedBoxes
from vertebra.testing import HookConformance

CPU = torch.device("cpu")


class TestMultiScale(HookConformance):
    component = "MultiScale"
    arguments = {"sizes": [8, 16], "every": 2}
    changes_training = True


def make_input(size=(40, 60)):
    instances = Instances(
        size,
        gt_boxes=Boxes([[10, 20, 30, 40], [0, 0, 60, 40]]),
        gt_classes=torch.tensor([1, 0]),
        gt_masks=PolygonMasks([[np.array([10.0, 20, 30, 20, 30, 40])], [np.array([0.0, 0, 60, 0, 60, 40, 0, 40])]]),
        gt_keypoints=Keypoints(torch.tensor([[[10.0, 20, 2]], [[60.0, 40, 0]]])),
    )
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[:, 30:] = 255
    image = torch.full((3, *size), 7, dtype=torch.uint8)
    return {"image": image, "instances": instances, "sem_seg": labels, "height": 40, "width": 60, "file_name": "a"}


def test_all_that_is_drawn_is_scaled_with_the_image():
    found = resize_input(make_input(), 0.5, CPU)
    assert found["image"].shape == (3, 20, 30)
    assert found["image"].dtype == torch.uint8
    assert found["image"].unique().tolist() == [7]
    instances = found["instances"]
    assert instances.image_size == (20, 30)
    assert instances.gt_boxes.tensor.tolist() == [[5, 10, 15, 20], [0, 0, 30, 20]]
    assert instances.gt_masks.polygons[0][0].tolist() == [5, 10, 15, 10, 15, 20]
    assert instances.gt_keypoints.tensor.tolist() == [[[5, 10, 2]], [[30, 20, 0]]]
    assert instances.gt_classes.tolist() == [1, 0]
    assert found["sem_seg"].shape == (20, 30)
    assert found["sem_seg"].unique().tolist() == [0, 255]  # labels do not mix
    assert (found["height"], found["width"], found["file_name"]) == (40, 60, "a")


def test_bitmasks_stay_masks():
    sample = make_input()
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, :20] = True
    sample["instances"].gt_masks = BitMasks(masks)
    found = resize_input(sample, 2.0, CPU)["instances"].gt_masks
    assert found.tensor.dtype == torch.bool
    assert found.tensor.sum(dim=(1, 2)).tolist() == [40 * 120, 0]


def test_an_image_without_objects_and_one_pixel_remain_images():
    found = resize_input({"image": torch.zeros(3, 1, 50, dtype=torch.uint8)}, 0.1, CPU)
    assert found["image"].shape == (3, 1, 5)


def test_the_given_input_is_not_changed():
    sample = make_input()
    resize_input(sample, 0.5, CPU)
    assert sample["instances"].gt_boxes.tensor.tolist()[0] == [10, 20, 30, 40]
    assert sample["image"].shape == (3, 40, 60)


def test_sizes_change_every_few_steps_and_depend_on_seed_and_step_alone():
    hook = MultiScale(every=10)
    assert hook.sizes == [320, 352, 384, 416, 448, 480, 512, 544, 576, 608]  # the paper's
    sizes = [hook.size_at(step, seed=3) for step in range(3000)]
    assert all(len(set(sizes[start : start + 10])) == 1 for start in range(0, 3000, 10))
    counts = Counter(sizes[::10])
    assert set(counts) == set(hook.sizes)
    assert max(counts.values()) < 60
    assert sizes == [MultiScale(every=10).size_at(step, seed=3) for step in range(3000)]
    assert sizes != [hook.size_at(step, seed=4) for step in range(3000)]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1 step"):
        MultiScale(every=0)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        MultiScale(sizes=[])


def test_declared_fields_and_further_images_are_scaled_with_the_image():
    instances = Instances((20, 40), gt_boxes=Boxes([[2.0, 4, 10, 12]]), gt_heading=RotatedBoxes([[10.0, 8, 6, 2, 30]]))
    instances.gt_track = torch.tensor([7])
    sample = {
        "image": torch.zeros(3, 20, 40, dtype=torch.uint8),
        "radar": torch.rand(2, 20, 40),
        "depth": DenseMap(torch.arange(800.0).view(20, 40), fill=-1),
        "region": Boxes([[0.0, 0, 20, 10]]),
        "weather": torch.tensor([3]),
        "instances": instances,
    }
    found = resize_input(sample, 2.0, CPU, ("image", "radar"))
    assert found["image"].shape == (3, 40, 80) and found["radar"].shape == (2, 40, 80)
    assert found["depth"].tensor.shape == (40, 80) and found["depth"].fill == -1
    assert torch.equal(
        found["depth"].tensor[::2, ::2], sample["depth"].tensor
    )  # the nearest pixel: no value is made up
    assert found["region"].tensor.tolist() == [[0, 0, 40, 20]] and found["weather"].tolist() == [3]
    assert found["instances"].gt_heading.tensor[0].tolist() == pytest.approx([20, 16, 12, 4, 30], abs=1e-4)
    assert found["instances"].gt_track.tolist() == [7] and sample["region"].tensor[0, 2] == 20
