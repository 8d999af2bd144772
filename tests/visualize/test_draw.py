"""Pictures of objects, classes and segments: what is drawn, where, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vertebra.data.catalog import Metadata
from vertebra.errors import DataError
from vertebra.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks, RotatedBoxes
from vertebra.visualize import (
    PALETTE,
    Style,
    class_color,
    draw_dataset_dict,
    draw_instances,
    draw_panoptic,
    draw_sem_seg,
)
from vertebra.visualize.canvas import Canvas, inner_point

PLAIN = Style(min_side=0, labels=False)
GRAY = np.full((60, 80, 3), 128, np.uint8)


def _instances(**fields):
    return Instances((60, 80), **fields)


def _one(box=(10, 20, 50, 40), **fields):
    return _instances(gt_boxes=Boxes(torch.tensor([box])), gt_classes=torch.tensor([0]), **fields)


def _changed(picture, before=GRAY):
    return (picture != before).any(axis=2)


def test_image_without_objects_stays_as_it_is():
    nothing = _instances(pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0), pred_classes=torch.zeros(0).long())
    np.testing.assert_array_equal(draw_instances(GRAY, nothing, style=PLAIN), GRAY)
    np.testing.assert_array_equal(draw_instances(GRAY, {"annotations": []}, style=PLAIN), GRAY)


def test_small_image_is_enlarged_to_the_least_side_and_a_large_one_is_not():
    nothing = {"annotations": []}
    assert draw_instances(GRAY, nothing).shape == (480, 640, 3)
    assert draw_instances(GRAY, nothing, style=Style(min_side=30)).shape == GRAY.shape
    strip = np.zeros((2, 300, 3), np.uint8)
    assert max(draw_instances(strip, nothing).shape) <= 4 * 480


def test_box_is_drawn_along_its_edges_and_nowhere_else():
    changed = _changed(draw_instances(GRAY, _one(), style=PLAIN))
    edges = np.zeros_like(changed)
    edges[18:42, 8:52] = True
    edges[23:37, 13:47] = False
    assert changed[30, 10] and changed[30, 49] and changed[20, 30] and changed[39, 30]
    assert not (changed & ~edges).any()


def test_rotated_boxes_are_drawn_instead_of_the_upright_ones_around_them():
    def drawn(angle):
        rotated = RotatedBoxes([[40.0, 30, 20, 10, angle]])
        return _changed(draw_instances(GRAY, _one((20, 10, 60, 50), gt_rotated=rotated), style=PLAIN))

    flat = drawn(0.0)
    assert flat[30, 30] and flat[30, 50] and flat[25, 40] and flat[35, 40] and not flat[15:20].any()
    assert not flat[30, 40] and not flat[30, 20]  # neither inside nor at the upright box
    turned = drawn(90.0)
    assert turned[20, 40] and turned[40, 40] and not turned[30, 30]


def test_rotated_boxes_may_be_the_only_boxes():
    fields = {"scores": torch.ones(1), "pred_classes": torch.zeros(1).long()}
    found = _instances(pred_boxes=RotatedBoxes([[40.0, 30, 20, 20, 45]]), **fields)
    changed = _changed(draw_instances(GRAY, found, style=PLAIN))
    corner = 14  # half the diagonal, pixels: a square that stands on its corner
    assert changed[30, 40 - corner] and changed[30 - corner, 40] and not changed[30, 40] and not changed[20, 30]


def test_mask_takes_the_color_of_its_class_inside_and_leaves_the_outside():
    mask = torch.zeros(1, 60, 80, dtype=torch.bool)
    mask[0, 25:35, 15:45] = True
    picture = draw_instances(GRAY, _one(gt_masks=BitMasks(mask)), style=Style(0, labels=False, mask_alpha=0.5))
    np.testing.assert_allclose(picture[30, 30], (128 + np.array(PALETTE[0])) / 2, atol=2)
    np.testing.assert_array_equal(picture[22, 30], GRAY[22, 30])


def test_every_form_of_mask_gives_the_same_picture():
    square = [20.0, 25.0, 40.0, 25.0, 40.0, 35.0, 20.0, 35.0]
    mask = np.zeros((60, 80), bool)
    mask[25:35, 20:40] = True
    counts = [20 * 60 + 25, *[10, 50] * 19, 10, 25 + 40 * 60]
    record = {"bbox": [10, 20, 50, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    pictures = [
        draw_instances(GRAY, source)
        for source in (
            _one(gt_masks=PolygonMasks([[np.array(square)]])),
            _one(gt_masks=BitMasks(torch.from_numpy(mask)[None])),
            _instances(
                pred_boxes=Boxes(torch.tensor([[10.0, 20, 50, 40]])),
                pred_classes=torch.tensor([0]),
                pred_masks=torch.from_numpy(mask)[None],
            ),
            {"annotations": [{**record, "segmentation": [square]}]},
            {"annotations": [{**record, "segmentation": {"size": [60, 80], "counts": counts}}]},
            {"instances": _one(gt_masks=BitMasks(torch.from_numpy(mask)[None]))},
        )
    ]
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


def test_scores_below_the_threshold_are_not_drawn():
    two = _instances(
        pred_boxes=Boxes(torch.tensor([[2.0, 2, 20, 20], [40, 30, 70, 50]])),
        scores=torch.tensor([0.9, 0.3]),
        pred_classes=torch.tensor([1, 0]),
    )
    picture = draw_instances(GRAY, two, score_threshold=0.5, style=PLAIN)
    assert _changed(picture)[:25, :25].any() and not _changed(picture)[25:].any()
    np.testing.assert_array_equal(picture, draw_instances(GRAY, two[:1], style=PLAIN))


def test_crowd_is_hatched_and_dashed():
    one = {"bbox": [10, 20, 50, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    one["segmentation"] = {"size": [60, 80], "counts": [0, 4800]}
    solid = draw_instances(GRAY, {"annotations": [one]}, style=PLAIN)[25:35, 15:45]
    hatched = draw_instances(GRAY, {"annotations": [{**one, "iscrowd": 1}]}, style=PLAIN)[25:35, 15:45]
    assert len(np.unique(solid.reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(hatched.reshape(-1, 3), axis=0)) > 1


def test_keypoints_are_drawn_where_labeled_and_joined_by_the_skeleton():
    points = torch.tensor([[[20.0, 30, 2], [40, 30, 1], [70, 50, 0]]])
    labeled = _one(gt_keypoints=Keypoints(points))
    changed = _changed(draw_instances(GRAY, labeled, skeleton=[(0, 1), (1, 2)], style=PLAIN))
    assert changed[30, 20] and changed[30, 40] and changed[30, 30] and not changed[44:, 55:].any()
    assert not _changed(draw_instances(GRAY, labeled, style=PLAIN))[30, 30]


def test_unsure_predicted_keypoints_are_left_out():
    points = torch.tensor([[[20.0, 30, 0.9], [40, 30, 0.01]]])
    found = _instances(pred_boxes=Boxes(torch.tensor([[5.0, 5, 75, 55]])), pred_keypoints=points)
    changed = _changed(draw_instances(GRAY, found, style=PLAIN))
    assert changed[30, 20] and not changed[30, 40]


def test_image_may_be_a_tensor_or_gray():
    expected = draw_instances(GRAY, _one(), style=PLAIN)
    tensor = torch.from_numpy(GRAY).permute(2, 0, 1)
    np.testing.assert_array_equal(draw_instances(tensor, _one(), style=PLAIN), expected)
    np.testing.assert_array_equal(draw_instances(GRAY[..., 0], _one(), style=PLAIN), expected)
    with pytest.raises(ValueError, match=r"expected an image \(H, W, 3\)"):
        draw_instances(np.zeros((3, 60, 80, 1)), _one())


def test_inputs_are_not_changed():
    image, instances = GRAY.copy(), _one(gt_keypoints=Keypoints(torch.tensor([[[20.0, 30, 2]]])))
    draw_instances(image, instances)
    np.testing.assert_array_equal(image, GRAY)
    assert instances.gt_keypoints.tensor.tolist() == [[[20.0, 30, 2]]]


def test_objects_of_another_image_size_are_refused():
    with pytest.raises(ValueError, match=r"belong to an image of \(60, 80\), this one is \(30, 40\)"):
        draw_instances(GRAY[:30, :40], _one())
    with pytest.raises(ValueError, match="nothing to draw in a list"):
        draw_instances(GRAY, [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9) | st.floats(-20, 100) | st.just(float("nan"))] * 4), max_size=4))
def test_any_boxes_can_be_drawn(boxes):
    found = _instances(
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        scores=torch.ones(len(boxes)),
        pred_classes=torch.arange(len(boxes)),
    )
    assert draw_instances(GRAY, found, ["größe", ""], style=Style(min_side=0)).shape == GRAY.shape


def test_single_class_with_masks_is_colored_by_object():
    masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    masks[0, 5:20, 5:20] = masks[1, 30:50, 40:70] = True
    two = _instances(gt_boxes=BitMasks(masks).get_bounding_boxes(), gt_classes=torch.zeros(2).long())
    two.gt_masks = BitMasks(masks)
    style = Style(min_side=0)
    alone = draw_instances(GRAY, two, ["cell"], style=style)
    assert (alone[12, 12] != alone[40, 55]).any()
    by_class = draw_instances(GRAY, two, ["cell", "other"], style=PLAIN)
    np.testing.assert_array_equal(by_class[12, 12], by_class[40, 55])


def test_labels_lie_in_the_frame_and_keep_clear_of_each_other():
    canvas = Canvas(np.zeros((300, 400, 3), np.uint8))
    boxes = [(0, 0, 60, 60), (0, 0, 60, 60), (350, 250, 400, 300), (100, 100, 200, 200), (102, 101, 201, 199)]
    colors = [(200, 30, 30 + number) for number in range(len(boxes))]
    for box, color in zip(boxes, colors, strict=True):
        canvas.label("triangle 0.99", np.array(box), color)
    picture = canvas.result()
    assert picture.shape == (300, 400, 3)
    plates = []  # xyxy in pixels
    for color in colors:
        rows, columns = (picture == color).all(axis=2).nonzero()
        plates.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert len({(x1 - x0, y1 - y0) for x0, y0, x1, y1 in plates}) == 1  # one text, one size: none is cut off
    for i, a in enumerate(plates):
        for b in plates[:i]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_colors_of_classes_are_fixed_and_distinct():
    colors = [class_color(i) for i in range(80)]
    assert len(set(colors)) == 80 and colors[0] == PALETTE[0]
    assert all(0 <= part <= 255 for color in colors for part in color)


def test_semantic_picture_colors_labels_and_hatches_what_is_ignored():
    labels = np.zeros((60, 80), np.uint8)
    labels[:, 40:] = 1
    labels[50:] = 255
    style = Style(min_side=0, labels=False, mask_alpha=0.4)  # regions are 0.1 stronger
    picture = draw_sem_seg(GRAY, labels, ["sky", "grass"], style=style)
    for column, color in ((20, PALETTE[0]), (60, PALETTE[1])):
        np.testing.assert_allclose(picture[25, column], (128 + np.array(color)) / 2, atol=2)
    assert picture[53:57].max() <= 128 and len(np.unique(picture[53:57])) > 1
    scores = torch.nn.functional.one_hot(torch.from_numpy(labels % 255).long(), 2).permute(2, 0, 1).float()
    np.testing.assert_array_equal(
        draw_sem_seg(GRAY, scores, style=style), draw_sem_seg(GRAY, labels % 255, style=style)
    )
    with pytest.raises(ValueError, match=r"semantic labels of shape \(5, 5\)"):
        draw_sem_seg(GRAY, np.zeros((5, 5)))


def test_panoptic_picture_tells_things_of_one_class_apart():
    ids = np.full((60, 80), 7)
    ids[10:30, 10:30], ids[10:30, 50:70], ids[55:] = 8, 9, 0
    segments = [
        {"id": 7, "category_id": 0, "isthing": False},
        {"id": 8, "category_id": 0, "isthing": True, "score": 0.7},
        {"id": 9, "category_id": 0, "isthing": True},
    ]
    picture = draw_panoptic(GRAY, ids, segments, ["cell"], ["ground"], style=PLAIN)
    colors = {tuple(picture[y, x]) for y, x in ((20, 20), (20, 60), (45, 40))}
    assert len(colors) == 3
    assert picture[57:].max() <= 128  # void
    labeled = draw_panoptic(GRAY, ids, segments, ["cell"], ["ground"], style=Style(min_side=0))
    assert (labeled != picture).any()


def test_inner_point_of_a_ring_is_on_the_ring():
    y, x = np.mgrid[:60, :80]
    ring = (np.hypot(x - 40, y - 30) < 25) & (np.hypot(x - 40, y - 30) > 12)
    column, row = inner_point(ring)
    assert ring[int(row), int(column)]


def _metadata():
    return Metadata("test").set(
        thing_classes=["cell"],
        stuff_classes=["cell", "ground"],
        keypoint_names=["a", "b"],
        keypoint_connection_rules=[("a", "b", (1, 2, 3))],
    )


def test_dataset_dict_is_drawn_with_the_names_and_lines_of_its_metadata():
    annotation = {"bbox": [10, 20, 40, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    annotation["keypoints"] = [20, 30, 2, 40, 30, 2]
    record = {"file_name": "x.jpg", "annotations": [annotation]}
    expected = draw_instances(GRAY, record, ["cell"], skeleton=[(0, 1)])
    np.testing.assert_array_equal(draw_dataset_dict(GRAY, record, _metadata()), expected)


def test_dataset_dict_shows_its_label_files(tmp_path):
    labels = np.zeros((60, 80), np.uint8)
    labels[30:] = 1
    Image.fromarray(labels).save(tmp_path / "sem.png")
    colors = np.zeros((60, 80, 3), np.uint8)
    colors[..., 1] = 1 + labels  # ids 256 and 512
    Image.fromarray(colors).save(tmp_path / "pan.png")
    segments = [{"id": 256, "category_id": 0, "isthing": True}, {"id": 512, "category_id": 0, "isthing": False}]
    record = {
        "file_name": "x.jpg",
        "sem_seg_file_name": str(tmp_path / "sem.png"),
        "pan_seg_file_name": str(tmp_path / "pan.png"),
        "segments_info": segments,
    }
    semantic = draw_dataset_dict(GRAY, record, _metadata(), layer="semantic")
    np.testing.assert_array_equal(semantic, draw_sem_seg(GRAY, labels, ["cell", "ground"]))
    panoptic = draw_dataset_dict(GRAY, record, _metadata(), layer="panoptic")
    expected = draw_panoptic(GRAY, (1 + labels.astype(int)) * 256, segments, ["cell"], ["ground"])  # each from 0
    np.testing.assert_array_equal(panoptic, expected)
    with pytest.raises(DataError, match="its record has no sem_seg_file_name"):
        draw_dataset_dict(GRAY, {"file_name": "x.jpg"}, _metadata(), layer="semantic")
    (tmp_path / "sem.png").write_text("no image")
    with pytest.raises(DataError, match=r"sem\.png"):
        draw_dataset_dict(GRAY, record, _metadata(), layer="semantic")
