"""A probe of each geometry goes through every registered transform, and all of them stay together."""

import numpy as np
import pytest
import torch

from vertebra.config import ComponentSpec
from vertebra.data.transforms import MixTransform, MixUp, Mosaic, RandomAffine, RandomFlip, Sample, Transform
from vertebra.data.transforms.drawn import BoxesDrawn, PointsDrawn, RotatedBoxesDrawn, ScalarsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, MasksDrawn
from vertebra.errors import RecipeError
from vertebra.registry import TRANSFORMS
from vertebra.structures.rotated_boxes import corners_of

BOX = np.array([[40.0, 30, 70, 50], [80, 60, 110, 80]])
ROTATED = np.array([[55.0, 40, 30, 20, 0], [95, 70, 20, 30, 90]])  # the same rectangles
HEIGHT, WIDTH = 96, 128
ARGUMENTS = {
    "ClassBalancedCrop": {"size": 80},
    "ColorJitter": {"brightness": 0.5, "hue": 0.1},
    "LargeScaleJitter": {"size": 120},
    "PadTo": {"size": [150, 160], "center": True},
    "RandomAffine": {"degrees": 30, "translate": 0.2},
    "RandomCrop": {"crop_type": "relative", "crop_size": [0.8, 0.8]},
    "RandomFlip": {"vertical": True},
    "RandomRotation": {"degrees": 30},
    "RandomScaleCrop": {"size": [90, 100]},
    "ResizeLetterbox": {"size": [64, 200]},
    "ResizeShortestEdge": {"short_edge": 60},
    "ResizeStretch": {"size": [60, 200]},
}


def probe() -> Sample:
    corners = np.stack([corners_of(torch.from_numpy(box)).numpy() for box in ROTATED])
    points = np.concatenate((corners, np.full((2, 4, 1), 2.0)), axis=2)
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, BOX.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    sample = Sample(
        torch.full((3, HEIGHT, WIDTH), 90, dtype=torch.uint8),
        boxes=BOX.copy(),
        polygons=[[item[:, :2].copy()] for item in points],
        keypoints=points.copy(),
        keypoint_mirror=np.arange(4),
        sem_seg=(masks * torch.tensor([1, 2])[:, None, None]).sum(dim=0).to(torch.uint8),
        rows=np.arange(2),
    )
    sample.fields |= {
        "part": BoxesDrawn(BOX.copy()),
        "rotated": RotatedBoxesDrawn(ROTATED.copy()),
        "corners": PointsDrawn(points.copy(), mirror=np.arange(4)),
        "pixels": MasksDrawn(bitmasks=masks.clone()),
        "track": ScalarsDrawn(np.array([7, 8])),
        "region": BoxesDrawn(BOX[:1].copy(), of_instances=False),
        "depth": DenseMapDrawn((masks * torch.tensor([1.5, -2.5])[:, None, None]).sum(dim=0), fill=9.0, labels=False),
    }
    return sample


def seen_together(sample: Sample, *, depth: bool = True) -> int:
    """Checks that all probes of a sample lie on each other; returns the number of instances that lie inside it."""
    height, width = sample.size
    seen = 0
    assert sample.fields["track"].values.tolist() == [(7, 8)[row] for row in sample.rows]
    for row, number in enumerate(sample.rows):
        points = sample.fields["corners"].values[row]
        assert np.array_equal(points, sample.keypoints[row])
        if (points[:, 2] == 0).any():
            continue
        seen += 1
        assert np.array_equal(np.sort(np.concatenate(sample.polygons[row])[:4], axis=0).shape, (4, 2))
        box, (low, high) = sample.fields["part"].values[row], (points[:, :2].min(0), points[:, :2].max(0))
        assert (box[:2] <= low + 1e-6).all() and (box[2:] >= high - 1e-6).all()
        assert (box[2:] - box[:2] <= high - low + 8).all()
        x, y = points[:, :2].mean(axis=0)
        at = min(int(y), height - 1), min(int(x), width - 1)
        mask = sample.fields["pixels"].bitmasks[row]
        assert mask.shape == (height, width) and mask[at] == 1
        assert sample.sem_seg.shape == (height, width)
        if depth:
            assert sample.sem_seg[at] == number + 1
            assert sample.fields["depth"].values[at] == (1.5, -2.5)[number]
        outline = np.concatenate(sample.polygons[row])
        assert abs(int(mask.sum()) - area_of(outline)) < 0.15 * area_of(outline) + 8
        if "rotated" in sample.fields:
            corners = corners_of(torch.from_numpy(sample.fields["rotated"].values[row])).numpy()
            nearest = np.linalg.norm(corners[:, None] - points[None, :, :2], axis=2)
            assert nearest.min(axis=1).max() < 1e-6 and len(set(nearest.argmin(axis=1).tolist())) == 4
    return seen


def area_of(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def transform_of(name: str) -> Transform:
    return ComponentSpec("transform", name, ARGUMENTS.get(name, {})).build()


def through(transform: Transform, rng: np.random.Generator, *without: str) -> Sample:
    def one() -> Sample:
        sample = probe()
        for name in without:
            del sample.fields[name]
        return sample

    if not isinstance(transform, MixTransform):
        return transform(one(), rng)
    others = [one() for _ in range(transform.count_others(rng))]
    return transform.mix(one(), others, rng) if others else one()


@pytest.mark.parametrize("name", sorted(TRANSFORMS.names()))
def test_probes_of_all_geometries_stay_together(name):
    transform, seen = transform_of(name), 0
    joins, bends = isinstance(transform, MixTransform), name == "ElasticDeform"
    without = [*(["region"] if joins else []), *(["depth"] if name == "MixUp" else []), *(["rotated"] if bends else [])]
    for seed in range(12):
        sample = through(transform, np.random.default_rng(seed), *without)
        assert set(sample.fields) == set(probe().fields) - set(without)
        seen += seen_together(sample, depth=name != "MixUp")
        if not joins:
            assert len(sample.fields["region"].values) == 1
    assert seen >= 6


@pytest.mark.parametrize(
    ("transform", "without", "reason"),
    [
        ("ElasticDeform", [], "field rotated: a rotated box that is bent"),
        ("Mosaic", [], "field region: images that have it cannot be joined, as it belongs to the whole image"),
        ("MixUp", ["region"], "field depth: images that have it cannot be joined, as the values of two images"),
    ],
)
def test_what_cannot_be_moved_or_joined_is_refused(transform, without, reason):
    settings = {"MixUp": {"prob": 1.0}}.get(transform, {})
    transform = ComponentSpec("transform", transform, settings).build()
    with pytest.raises(RecipeError, match=reason):
        through(transform, np.random.default_rng(0), *without)


def test_perspective_is_refused_for_rotated_boxes_alone():
    slanted = RandomAffine(perspective=0.002)
    with pytest.raises(RecipeError, match="in perspective is not a rotated box"):
        slanted(probe(), np.random.default_rng(0))
    sample = probe()
    del sample.fields["rotated"]
    assert slanted(sample, np.random.default_rng(0)).fields["corners"].values.shape[1:] == (4, 3)


def test_points_that_change_places_are_swapped_and_others_refused():
    sample = probe()
    before = sample.fields["corners"].values
    sample.fields["corners"] = PointsDrawn(before, mirror=np.array([1, 0, 3, 2]))
    after = RandomFlip(prob=1.0)(sample, np.random.default_rng(0)).fields["corners"].values
    assert after[0, 0].tolist() == [WIDTH - before[0, 1, 0], before[0, 1, 1], 2]
    sample = probe()
    sample.fields["corners"] = PointsDrawn(before, unknown="set mirror in data.fields.corners")
    with pytest.raises(RecipeError, match=r"field corners: .*set mirror in data\.fields\.corners"):
        RandomFlip(prob=1.0)(sample, np.random.default_rng(0))


def test_padding_gets_the_fill_of_each_field():
    sample = probe().pad(2, 3, 4, 5, value=11)
    assert sample.image[0, 0, 0] == 11 and sample.sem_seg[0, 0] == 255
    assert sample.fields["depth"].values[0, 0] == 9.0 and sample.fields["pixels"].bitmasks[0, 0, 0] == 0
    assert Mosaic(prob=1.0).count_others(np.random.default_rng(0)) == 3 and MixUp(prob=1.0)


@pytest.mark.parametrize("kind", [torch.int32, torch.float32])
def test_dense_maps_keep_values_that_other_types_cannot_hold(kind):
    values = torch.tensor([[2**24 + 1, 5], [7, 9]], dtype=torch.float64).to(kind)
    wide = values.repeat_interleave(8, 0).repeat_interleave(8, 1)
    for name in ("ElasticDeform", "RandomRotation", "RandomQuarterTurn", "RandomAffine", "ResizeStretch"):
        sample = Sample(torch.zeros(3, 16, 16, dtype=torch.uint8))
        sample.fields["depth"] = DenseMapDrawn(wide.clone(), fill=-1)
        moved = transform_of(name)(sample, np.random.default_rng(1)).fields["depth"].values
        assert moved.dtype == kind and set(moved.unique().tolist()) <= {*values.flatten().tolist(), -1}


def test_float_maps_may_be_unknown_where_pixels_come_from_outside():
    sample = Sample(torch.zeros(3, 20, 20, dtype=torch.uint8))
    sample.fields["depth"] = DenseMapDrawn(torch.full((20, 20), 3.0), fill=float("nan"))
    for turned in (transform_of("RandomRotation"), transform_of("RandomAffine")):
        depth = turned(sample, np.random.default_rng(3)).fields["depth"].values
        assert depth.isnan().any() and set(depth[~depth.isnan()].tolist()) == {3.0}
