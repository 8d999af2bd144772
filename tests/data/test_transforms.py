import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.data.masks import decode_segmentation
from vertebra.data.transforms import (
    ColorJitter,
    LargeScaleJitter,
    RandomCrop,
    RandomFlip,
    ResizeLetterbox,
    ResizeShortestEdge,
    Sample,
)
from vertebra.data.transforms.resize import shortest_edge_size
from vertebra.errors import RecipeError
from vertebra_eval.masks import clip_polygon


class NumpyGlobalStream:
    """The draws of numpy's global generator after `seed(n)`, in the words of the new one: Detectron2's stream."""

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)
        self.uniform, self.choice, self.random = self.state.uniform, self.state.choice, self.state.rand

    def integers(self, low, high):
        return self.state.randint(low, high)


def golden_sample(arrays) -> Sample:
    return Sample(
        torch.from_numpy(arrays["augment/image"].copy()).permute(2, 0, 1),
        boxes=arrays["augment/boxes"].astype(float),
        keypoints=np.concatenate((arrays["augment/points"], np.full((4, 1), 2.0)), axis=1)[None],
        keypoint_mirror=np.arange(4),
        sem_seg=torch.from_numpy(arrays["augment/sem_seg"].copy()),
    )


def small_sample(height=20, width=30, **fields) -> Sample:
    image = torch.arange(3 * height * width, dtype=torch.int64).remainder(251).to(torch.uint8)
    return Sample(image.view(3, height, width), **fields)


def rows_of(repository, key):
    return json.loads((repository / "tests/reference/golden_data.json").read_text())[key]


def test_shortest_edge_sizes_equal_detectron2s(repository):
    for height, width, edge, limit, new_height, new_width in rows_of(repository, "resize_shortest_edge")["rows"]:
        assert shortest_edge_size(height, width, edge, limit) == (new_height, new_width)


@pytest.mark.parametrize("size", ["60x81", "150x202", "33x140"])
def test_resized_pixels_equal_detectron2s(golden_data, size):
    arrays, _ = golden_data
    height, width = map(int, size.split("x"))
    sample = golden_sample(arrays).resize(height, width)
    difference = sample.image.permute(1, 2, 0).numpy().astype(int) - arrays[f"augment/resize/{size}/uint8"]
    assert abs(difference).max() <= 1  # Pillow and torch round their weights differently
    assert np.array_equal(sample.sem_seg.numpy(), arrays[f"augment/resize/{size}/seg"])
    expected = arrays["augment/boxes"] * np.array([width / 101, height / 75] * 2)
    np.testing.assert_allclose(sample.boxes, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["hflip", "vflip", "crop", "pad"])
def test_geometry_equals_detectron2s(golden_data, name):
    arrays, _ = golden_data
    sample, golden = golden_sample(arrays), f"augment/{name}"
    boxes = arrays[f"{golden}/boxes"]
    if name == "hflip":
        sample.flip(horizontal=True)
    elif name == "vflip":
        sample.flip(vertical=True)
    elif name == "crop":
        sample.boxes = None  # ours are cut at the border, a test below
        sample.crop(top=5, left=7, height=50, width=60)
        cut = golden_sample(arrays)
        cut.keypoints = None
        cut.crop(5, 7, 50, 60)
        expected = boxes.clip(0, [60, 50, 60, 50])
        inside = (expected[:, 2:] > expected[:, :2]).all(axis=1)
        np.testing.assert_allclose(cut.boxes, expected[inside], atol=1e-5)
    else:
        sample.pad(top=2, left=3, bottom=9, right=8, value=128)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), arrays[f"{golden}/image"])
    assert np.array_equal(sample.sem_seg.numpy(), arrays[f"{golden}/seg"])
    np.testing.assert_allclose(sample.keypoints[0, :, :2], arrays[f"{golden}/points"], atol=1e-9)
    if sample.boxes is not None:
        np.testing.assert_allclose(sample.boxes, boxes, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "transforms"),
    [
        ("train_default", [ResizeShortestEdge([40, 48, 56, 64], 1333), RandomFlip()]),
        ("range", [ResizeShortestEdge([40, 64], 90, "range"), RandomFlip(0.7, horizontal=False, vertical=True)]),
        ("crop_abs", [RandomCrop("absolute", [40, 60]), RandomFlip()]),
        ("crop_rel", [RandomCrop("relative_range", [0.5, 0.6])]),
        ("crop_rel_abs", [RandomCrop("absolute_range", [30, 70])]),
        ("lsj", [LargeScaleJitter(64, 0.3, 1.8)]),
    ],
)
def test_seeded_transforms_equal_detectron2s(golden_data, name, transforms, seed):
    arrays, tables = golden_data
    sample, rng, golden = golden_sample(arrays), NumpyGlobalStream(seed), f"augment/random/{name}/{seed}"
    sample.keypoints = None
    for transform in transforms:
        sample = transform(sample, rng)
    height, width, _ = tables["augment/random"][f"{name}/{seed}"]["shape"]
    assert sample.size == (height, width)
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()).reshape(-1)[::37]
    assert abs(image.astype(int) - arrays[f"{golden}/image_sample"]).max() <= 1
    assert np.array_equal(sample.sem_seg.numpy().reshape(-1)[::17], arrays[f"{golden}/seg_sample"])
    expected = arrays[f"{golden}/boxes"].clip(0, [width, height, width, height])
    kept = (expected[:, 2:] > expected[:, :2]).all(axis=1)
    ours = sample.boxes.clip(0, [width, height, width, height])
    np.testing.assert_allclose(ours[(ours[:, 2:] > ours[:, :2]).all(axis=1)], expected[kept], atol=1e-4)


def test_flipping_twice_changes_nothing():
    sample = small_sample(boxes=np.array([[1.0, 2, 8, 9]]), polygons=[[np.array([[1.0, 2], [8, 2], [8, 9]])]])
    image = sample.image
    sample.flip(horizontal=True, vertical=True).flip(horizontal=True, vertical=True)
    assert torch.equal(sample.image, image)
    assert sample.boxes.tolist() == [[1, 2, 8, 9]]
    assert sample.polygons[0][0].tolist() == [[1, 2], [8, 2], [8, 9]]
    np.testing.assert_allclose(sample.matrix, np.eye(3))


def test_mirrored_keypoints_change_their_sides():
    points = np.array([[[1.0, 5, 2], [29, 6, 1]]])  # left, right
    sample = small_sample(keypoints=points, keypoint_mirror=np.array([1, 0])).flip(horizontal=True)
    assert sample.keypoints.tolist() == [[[1, 6, 1], [29, 5, 2]]]
    with pytest.raises(RecipeError, match="keypoint_flip_map"):
        small_sample(keypoints=points).flip(horizontal=True)


def test_keypoints_that_a_crop_cuts_off_do_not_come_back_with_the_padding():
    points = np.array([[[5.0, 5, 2], [25, 5, 2]]])
    sample = small_sample(keypoints=points).crop(0, 0, 20, 10).pad(0, 0, 0, 30)
    assert sample.keypoints[0, :, 2].tolist() == [2, 0]
    assert points[0, 1, 2] == 2  # the caller's own array is left alone


def test_a_crop_drops_instances_that_hardly_show():
    boxes = np.array([[0.0, 0, 10, 10], [8, 0, 18, 10], [20, 0, 30, 10]])
    masks = torch.zeros(3, 20, 30, dtype=torch.uint8)
    assert small_sample(boxes=boxes, bitmasks=masks, rows=np.arange(3)).crop(0, 0, 20, 10).rows.tolist() == [0, 1]
    sample = small_sample(boxes=boxes, bitmasks=masks, rows=np.arange(3)).crop(0, 0, 20, 10, min_visible=0.2)
    assert sample.rows.tolist() == [0] and sample.bitmasks.shape == (1, 20, 10)


def test_boxes_can_be_made_anew_from_what_is_left_of_the_masks():
    triangle = np.array([[0.0, 0], [20, 0], [0, 20]])
    sample = small_sample(boxes=np.array([[0.0, 0, 20, 20]]), polygons=[[triangle]])
    assert sample.crop(0, 15, 20, 15).boxes.tolist() == [[0, 0, 5, 20]]
    assert sample.boxes_from_masks().boxes.tolist() == [[0, 0, 5, 5]]
    mask = torch.zeros(1, 20, 30, dtype=torch.uint8)
    mask[0, 3:5, 7:11] = 1
    assert small_sample(boxes=np.zeros((1, 4)), bitmasks=mask).boxes_from_masks().boxes.tolist() == [[7, 3, 11, 5]]


def test_letterbox_keeps_the_ratio_and_pads_to_the_size():
    sample = ResizeLetterbox([50, 60], pad_value=7)(small_sample(20, 30), np.random.default_rng(0))
    assert sample.size == (50, 60) and (sample.image[:, 40:] == 7).all()
    centered = ResizeLetterbox([50, 60], center=True)(small_sample(20, 30), np.random.default_rng(0))
    assert centered.matrix.tolist() == [[2, 0, 0], [0, 2, 5], [0, 0, 1]]
    assert ResizeLetterbox(60, pad=False)(small_sample(20, 30), np.random.default_rng(0)).size == (40, 60)
    assert ResizeLetterbox(60, pad=False, enlarge=False)(small_sample(), np.random.default_rng(0)).size == (20, 30)


def test_color_jitter_stays_uint8_and_moves_nothing():
    sample = small_sample(boxes=np.array([[1.0, 2, 8, 9]]))
    image = sample.image.clone()
    jitter = ColorJitter(0.5, 0.5, 0.5, 0.2)
    first = jitter(small_sample(), np.random.default_rng(3)).image
    assert first.dtype == torch.uint8 and not torch.equal(first, image)
    assert torch.equal(first, jitter(small_sample(), np.random.default_rng(3)).image)
    assert torch.equal(ColorJitter(0.5, prob=0.0)(sample, np.random.default_rng(3)).image, image)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ResizeShortestEdge([]), "at least 1"),
        (lambda: ResizeShortestEdge([5, 4], sample_style="range"), r"\[lowest, highest\]"),
        (lambda: RandomFlip(1.5), "between 0 and 1"),
        (lambda: RandomFlip(horizontal=False), "horizontal or vertical"),
        (lambda: RandomCrop("relative", [1.5, 0.5]), "up to 1"),
        (lambda: RandomCrop("absolute", [0.5, 0.5]), "whole numbers"),
        (lambda: LargeScaleJitter(64, 2.0, 1.0), "min_scale <= max_scale"),
        (lambda: ResizeLetterbox([1, 2, 3]), r"size \[height, width\]"),
        (lambda: ColorJitter(hue=0.7), "hue in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_one_pixel_images_pass_every_transform():
    transforms = [
        ResizeShortestEdge(3),
        RandomFlip(1.0),
        RandomCrop("relative_range", [0.1, 0.1]),
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        LargeScaleJitter(8, 0.1, 2.0),
        ResizeLetterbox(5),
    ]
    for seed in range(5):
        sample, rng = small_sample(1, 1, sem_seg=torch.zeros(1, 1, dtype=torch.uint8)), np.random.default_rng(seed)
        for transform in transforms:
            sample = transform(sample, rng)
        assert sample.image.shape == (3, 5, 5) and sample.sem_seg.shape == (5, 5)


coordinate = st.integers(-20, 50).map(float)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9))
def test_a_cut_polygon_draws_what_lies_in_the_window(points):
    polygon = np.array(points)
    clipped = clip_polygon(polygon, 30, 20)
    if len(clipped):
        assert (clipped >= 0).all() and (clipped <= (30, 20)).all()
    # draw the whole polygon on a canvas that holds all of it, and look through the window
    canvas = decode_segmentation([(polygon + 100).reshape(-1).tolist()], 240, 240)[100:120, 100:130]
    drawn = decode_segmentation([clipped.reshape(-1).tolist()] if len(clipped) else [], 20, 30)
    inner = (slice(2, -2), slice(2, -2))  # lines drawn along the cut may color the outermost pixels
    rows, columns = np.nonzero(canvas[inner] != drawn[inner])
    # the drawing rounds slanted edges to fifths of a pixel, from either end: no other pixel may differ
    assert all(distance_to_outline((x + 2.5, y + 2.5), polygon) <= 0.25 for y, x in zip(rows, columns, strict=True))


def distance_to_outline(point, polygon):
    """From a point to the nearest of a closed polygon's edges."""
    starts, ends = polygon, np.roll(polygon, -1, axis=0)
    along = ends - starts
    share = ((point - starts) * along).sum(1) / np.maximum((along**2).sum(1), 1e-9)
    return np.hypot(*(starts + share.clip(0, 1)[:, None] * along - point).T).min()
