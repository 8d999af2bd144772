"""TransformConformance: what every transform promises: all that is drawn on an image moves as its pixels do."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vertebra.data.transforms import MixTransform, Sample, Transform
from vertebra.errors import VertebraError
from vertebra.testing.by_recipe import ByRecipe
from vertebra.testing.checks import build_from_defaults, check_same, require
from vertebra.testing.moved_sample import FIELDS, lost_fields, make_sample, misplaced, shown, whole_objects

__all__ = ["TransformConformance", "make_sample"]

_SEEDS = range(12)


class TransformConformance(ByRecipe):
    """Subclass it with `component`. Two bright rectangles on a dark image go through it, with boxes, polygons,
    keypoints, semantic labels and a declared field of every geometry drawn on them; afterwards all of them must still
    lie on each other.

    Attributes:
        component: the transform's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it act on images of 96 x 128 pixels.
        recipe, overrides, data: see `ByRecipe`; two steps are trained where a recipe is given.
        cannot_move: names of the fields (part, rotated, corners, pixels, track, region, depth) that it cannot move and
            refuses with a RecipeError.
        hides: its images need not show the objects any more (mixing, strong noise); all else must agree.
    """

    kind: ClassVar = "transform"
    arguments: ClassVar[Mapping[str, Any]] = {}
    cannot_move: ClassVar[Sequence[str]] = ()
    hides: ClassVar[bool] = False

    def test_moves_every_geometry_alike(self) -> None:
        seen, likeness, joined = 0, [], isinstance(self.make(), MixTransform)
        for seed in _SEEDS:
            given = make_sample(without=self.cannot_move)
            names = set(given.fields)
            sample = self.apply(given, seed)
            for fault in lost_fields(sample, names) or misplaced(
                sample, depth="depth" not in self.cannot_move, joined=joined
            ):
                raise AssertionError(
                    f"seed {seed}: {fault}. Use the sample's own geometry (resize, flip, crop, pad, warp)"
                )
            seen += int(whole_objects(sample).sum())
            likeness += shown(sample)
        require(seen > 0, "no object is left in any of 12 images; choose `arguments` that keep some")
        if not self.hides and likeness:
            mean = sum(likeness) / len(likeness)
            require(
                mean > 0.5,
                "the image does not show the objects where their masks lie: the pixels move and the labels stay, or "
                "the other way round. Use the sample's own geometry (resize, flip, crop, pad, warp), which moves both. "
                "If the image is meant to hide them, set hides = True",
            )

    def test_fields_that_it_cannot_move_are_refused(self) -> None:
        for name in self.cannot_move:
            others = [field for field in FIELDS if field != name]
            try:
                for seed in _SEEDS:
                    self.apply(make_sample(without=others), seed)
            except VertebraError:
                continue
            raise AssertionError(f"the field {name} is in cannot_move, but it goes through; check it with the others")
        for name in FIELDS.keys() - set(self.cannot_move):
            reason = self.make().refuses(FIELDS[name])
            require(reason is None, f"refuses() says of the field {name}, which it moves: {reason}")

    def test_the_generator_alone_decides(self) -> None:
        """One that has moved other samples before does the same as a new one."""
        used = self.make()
        for seed in _SEEDS:
            first = self.apply(make_sample(without=self.cannot_move), seed)
            torch.rand(3), random.random(), np.random.random()
            second = self.apply(make_sample(without=self.cannot_move), seed, used)
            check_same(
                _tensors(first),
                _tensors(second),
                "two samples of one generator (draw what is random from `rng`, keep no state between calls)",
            )

    def test_what_it_is_given_stays_as_it_is(self) -> None:
        """Pixels and arrays may belong to someone else."""
        for seed in _SEEDS:
            given = make_sample(without=self.cannot_move)
            kept = _tensors(given)
            before = {name: one.clone() for name, one in kept.items()}
            self.apply(copy.copy(given), seed)
            changed = [name for name, one in kept.items() if not torch.equal(one, before[name])]
            require(
                not changed,
                f"it writes into the {', '.join(changed)} it is given; change a copy (pixels.clone())",
            )

    def test_images_without_objects(self) -> None:
        for seed in _SEEDS:
            given = make_sample(without=self.cannot_move).select(np.zeros(0, dtype=int))
            names = set(given.fields)
            sample = self.apply(given, seed)
            for fault in lost_fields(sample, names):
                raise AssertionError(f"seed {seed}, an image without objects: {fault}")
            require(not sample.count, f"seed {seed}: an image without objects has {sample.count} afterwards")

    def test_images_of_other_kinds(self) -> None:
        """Five channels of 16 bits, or of floats: they keep their number and type, or are refused."""
        for dtype, highest in ((torch.int32, 65535.0), (torch.float32, 1.0)):
            for seed in _SEEDS:
                given = make_sample(without=self.cannot_move)
                given.image = (given.image[:1].float() / 255 * highest).to(dtype).repeat(5, 1, 1)
                given.highest = highest
                try:
                    image = self.apply(given, seed).image
                except VertebraError:
                    break
                require(
                    len(image) == 5 and image.dtype == dtype,
                    f"an image of 5 channels and {dtype} comes out as {len(image)} channels of {image.dtype}; keep "
                    "both, or refuse it as ColorTransform does (channels, only_uint8)",
                )
                low, high = float(image.min()), float(image.max())
                require(
                    low >= 0 and high <= highest,
                    f"pixel values run from {low:g} to {high:g} where white is {highest:g}: sample.highest is the "
                    "value of white",
                )

    def test_reaches_data_workers(self) -> None:
        try:
            there = pickle.loads(pickle.dumps(self.make()))
        except Exception as err:
            raise AssertionError(
                f"it cannot be pickled for data workers: {err}. Hold no lambdas or open files"
            ) from err
        first = self.apply(make_sample(without=self.cannot_move), 0)
        check_same(
            _tensors(first),
            _tensors(self.apply(make_sample(without=self.cannot_move), 0, there)),
            "a transform and its pickled copy",
        )

    def test_trains_by_its_recipe(self) -> None:
        self.train(keep_transforms=True)

    # What the checks are made of; a subclass may replace these.

    def make(self) -> Transform:
        """A new transform."""
        self.load_plugins()
        return build_from_defaults("transform", self.component, self.arguments)

    def apply(self, sample: Sample, seed: int, transform: Transform | None = None) -> Sample:
        """What it makes of a sample; one that joins several gets further ones of the same kind."""
        transform, rng = transform or self.make(), np.random.default_rng(seed)
        if isinstance(transform, MixTransform):
            others = [copy.deepcopy(sample) for _ in range(transform.count_others(rng))]
            sample = transform.mix(sample, others, rng) if others else sample
        else:
            sample = transform(sample, rng)
        require(isinstance(sample, Sample), f"it returns a {type(sample).__name__}, expected the Sample: return sample")
        return sample


def _tensors(sample: Sample) -> dict[str, Tensor]:
    """Everything in it that is a tensor or array."""
    found = {"image": sample.image}
    for name, field in sample.fields.items():
        for key, value in vars(field).items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value)
            if isinstance(value, Tensor):
                found[f"{name}.{key}"] = value
    return found
