"""Merging: Detectron2's combination of instances and stuff, the grouping of pixels by hand, ids in both forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vertebra.errors import DataError
from vertebra.structures import Boxes, Instances, encode_masks
from vertebra_panoptic import CombineInstances, GroupCenters, panoptic_ids
from vertebra_panoptic.grouping import find_centers, nearest_center

DATA = Path(__file__).parent / "data"


def _instances(masks, scores, classes=None):
    masks = torch.as_tensor(masks)
    count = len(masks)
    classes = torch.zeros(count, dtype=torch.int64) if classes is None else torch.as_tensor(classes)
    return Instances(
        tuple(masks.shape[1:]),
        pred_boxes=Boxes(torch.zeros(count, 4)),
        scores=torch.as_tensor(scores, dtype=torch.float32),
        pred_classes=classes,
        pred_masks=masks.bool(),
    )


@pytest.mark.parametrize("setting", ["default", "loose", "strict"])
def test_combining_agrees_with_detectron2_in_every_pixel(setting):
    arrays, wanted = np.load(DATA / "golden_merge.npz"), json.loads((DATA / "golden_merge.json").read_text())[setting]
    labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    masks = np.unpackbits(arrays["masks"])[: 7 * labels.numel()].reshape(7, *labels.shape)
    merge = CombineInstances(wanted["overlap_threshold"], wanted["stuff_area_thresh"], wanted["instances_score_thresh"])
    found = {"instances": _instances(masks, arrays["scores"], arrays["classes"])}
    segments, infos = merge(found, labels, num_thing_labels=1)
    assert np.array_equal(segments.numpy(), arrays[setting])
    theirs = [{**info, "category_id": info["category_id"] - (not info["isthing"])} for info in wanted["segments_info"]]
    for info in (*infos, *theirs):
        info["score"] = round(info.get("score", 0), 6)
        if info["isthing"]:  # numbered among the instances that are left after the boxes were clipped
            info.pop("instance_id")
    assert infos == theirs


def test_a_mask_covered_by_more_than_the_limit_goes_and_half_exactly_stays():
    left, right = torch.zeros(2, 1, 4)
    left[0, :2], right[0, 1:3] = 1, 1
    labels = torch.full((1, 4), 1)
    found = {"instances": _instances(torch.stack([left, right]), [0.9, 0.8])}
    segments, infos = CombineInstances(0.5, stuff_area=1)(found, labels, 1)
    assert segments.tolist() == [[1, 1, 2, 3]]
    assert [info["isthing"] for info in infos] == [True, True, False]
    segments, infos = CombineInstances(0.49, stuff_area=1)(found, labels, 1)
    assert segments.tolist() == [[1, 1, 2, 2]] and infos[1] == {"id": 2, "isthing": False, "category_id": 0, "area": 2}


def test_without_instances_and_without_enough_stuff_all_is_void():
    found = {"instances": _instances(torch.zeros(0, 2, 3), [])}
    segments, infos = CombineInstances(stuff_area=7)(found, torch.full((2, 3), 2), 1)
    assert not segments.any() and infos == []


def test_run_lengths_and_pixels_are_laid_alike():
    masks = torch.rand(5, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.6
    labels = torch.full((9, 11), 1)
    results = []
    for form in (masks, encode_masks(masks)):
        found = _instances(masks, [0.9, 0.6, 0.8, 0.7, 0.3])
        found.pred_masks = form
        results.append(CombineInstances(stuff_area=1)({"instances": found}, labels, 1))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert len(results[0][1]) > 2


def test_a_mask_without_a_pixel_is_no_segment():
    found = {"instances": _instances(torch.zeros(1, 2, 3), [0.9])}
    assert CombineInstances(stuff_area=1)(found, torch.zeros(2, 3, dtype=torch.int64), 1)[1] == []


def test_instances_without_masks_say_what_is_needed():
    instances = _instances(torch.zeros(1, 2, 3), [0.9])
    instances.remove("pred_masks")
    with pytest.raises(DataError, match="give it a mask branch"):
        CombineInstances()({"instances": instances}, torch.zeros(2, 3, dtype=torch.int64), 1)


def test_centers_are_local_maxima_hottest_first():
    heat = torch.zeros(6, 9)
    heat[1, 1], heat[1, 2], heat[4, 7], heat[5, 0] = 0.5, 0.4, 0.9, 0.1
    places, found = find_centers(heat, threshold=0.1, kernel=3, limit=5)
    assert places.tolist() == [[4, 7], [1, 1]]  # (1, 2) is beside a hotter one, 0.1 is not above the threshold
    assert found.tolist() == pytest.approx([0.9, 0.5])
    assert len(find_centers(heat, 0.1, 3, limit=1)[0]) == 1


def test_a_pixel_goes_to_the_center_its_offset_leads_to_and_not_to_the_near_one():
    places = torch.tensor([[0, 0], [0, 9]])
    offsets = torch.zeros(2, 1, 10)
    offsets[1, 0, 1] = 8.0  # the pixel at x = 1 points to x = 9
    wanted = torch.ones(1, 10, dtype=torch.bool)
    wanted[0, 5] = False
    assert nearest_center(offsets, places, wanted).tolist() == [[1, 2, 1, 1, 1, 0, 2, 2, 2, 2]]


def test_grouping_takes_the_class_most_pixels_have_and_leaves_void_what_has_no_center():
    labels = torch.tensor([[0, 1, 1, 2, 2, 3]])  # things 0 and 1, stuff 2 and 3
    heat = torch.zeros(1, 1, 6)
    found = {"centers": heat, "offsets": torch.zeros(2, 1, 6)}
    merge = GroupCenters(nms_kernel=3, stuff_area=2)
    assert merge(found, labels, 2)[0].tolist() == [[0, 0, 0, 1, 1, 0]]
    heat[0, 0, 1] = 0.8
    segments, infos = merge(found, labels, 2)
    assert segments.tolist() == [[1, 1, 1, 2, 2, 0]]
    assert infos[0] == {"id": 1, "isthing": True, "score": pytest.approx(0.8), "category_id": 1, "area": 3}
    assert infos[1] == {"id": 2, "isthing": False, "category_id": 0, "area": 2}


def test_a_center_that_gets_too_few_pixels_leaves_no_gap_in_the_ids():
    labels = torch.tensor([[0, 1, 1, 1, 0, 0, 0]])
    heat = torch.zeros(1, 1, 7)
    heat[0, 0, 0], heat[0, 0, 5] = 0.9, 0.8
    segments, infos = GroupCenters(nms_kernel=1, stuff_area=1, min_area=2)(
        {"centers": heat, "offsets": torch.zeros(2, 1, 7)}, labels, 1
    )
    assert segments.tolist() == [[0, 2, 2, 2, 1, 1, 1]]
    assert [info["id"] for info in infos] == [1, 2]


def test_class_and_instance_in_one_number():
    segments = torch.tensor([[0, 1, 2], [3, 3, 4]], dtype=torch.int32)
    infos = [
        {"id": 1, "isthing": True, "category_id": 2},
        {"id": 2, "isthing": True, "category_id": 2},
        {"id": 3, "isthing": False, "category_id": 1},
        {"id": 4, "isthing": True, "category_id": 0},
    ]
    assert panoptic_ids(segments, infos, num_things=5).tolist() == [[-1, 2001, 2002], [6000, 6000, 1]]
    with pytest.raises(ValueError, match="more than label_divisor 2"):
        panoptic_ids(segments, infos, num_things=5, label_divisor=2)
