"""What transforms do with declared fields; that all geometries stay together is the conformance kit's to check."""

import numpy as np
import pytest
import torch

from vertebra.config import ComponentSpec
from vertebra.data.transforms import MixTransform, MixUp, Mosaic, RandomAffine, RandomFlip, Sample, Transform
from vertebra.data.transforms.drawn import PointsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn
from vertebra.errors import RecipeError
from vertebra.testing.transforms import make_sample

WIDTH = 128
ARGUMENTS = {
    "RandomAffine": {"degrees": 30, "translate": 0.2},
    "RandomRotation": {"degrees": 30},
    "ResizeStretch": {"size": [60, 200]},
}


def transform_of(name: str) -> Transform:
    return ComponentSpec("transform", name, ARGUMENTS.get(name, {})).build()


def through(transform: Transform, rng: np.random.Generator, *without: str) -> Sample:
    def one() -> Sample:
        sample = make_sample()
        for name in without:
            del sample.fields[name]
        return sample

    if not isinstance(transform, MixTransform):
        return transform(one(), rng)
    others = [one() for _ in range(transform.count_others(rng))]
    return transform.mix(one(), others, rng) if others else one()


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
        slanted(make_sample(), np.random.default_rng(0))
    sample = make_sample()
    del sample.fields["rotated"]
    assert slanted(sample, np.random.default_rng(0)).fields["corners"].values.shape[1:] == (4, 3)


def test_points_that_change_places_are_swapped_and_others_refused():
    sample = make_sample()
    before = sample.fields["corners"].values
    sample.fields["corners"] = PointsDrawn(before, mirror=np.array([1, 0, 3, 2]))
    after = RandomFlip(prob=1.0)(sample, np.random.default_rng(0)).fields["corners"].values
    assert after[0, 0].tolist() == [WIDTH - before[0, 1, 0], before[0, 1, 1], 2]
    sample = make_sample()
    sample.fields["corners"] = PointsDrawn(before, unknown="set mirror in data.fields.corners")
    with pytest.raises(RecipeError, match=r"field corners: .*set mirror in data\.fields\.corners"):
        RandomFlip(prob=1.0)(sample, np.random.default_rng(0))


def test_padding_gets_the_fill_of_each_field():
    sample = make_sample().pad(2, 3, 4, 5, value=11)
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
