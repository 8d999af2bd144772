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

from vertebra.config.extra_fields import FieldSection
from vertebra.data.transforms import MixTransform, Sample, Transform
from vertebra.data.transforms.drawn import BoxesDrawn, PointsDrawn, RotatedBoxesDrawn, ScalarsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, MasksDrawn
from vertebra.errors import VertebraError
from vertebra.structures.rotated_boxes import corners_of
from vertebra.testing.checks import build_from_defaults, check_same, require
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["TransformConformance", "make_sample"]

_SEEDS = range(12)
_BOXES = np.array([[40.0, 30, 70, 50], [80, 60, 110, 80]])
_ROTATED = np.array([[55.0, 40, 30, 20, 0], [95, 70, 20, 30, 90]])  # the same rectangles
_SIZE = (96, 128)
_DARK, _BRIGHT = 60, 180
_DEPTH = (1.5, -2.5)  # of the two objects
_FIELDS: dict[str, FieldSection] = {
    "part": FieldSection(geometry="box"),
    "rotated": FieldSection(geometry="rotated_box"),
    "corners": FieldSection(geometry="points", size=4, mirror=[]),
    "pixels": FieldSection(geometry="mask"),
    "track": FieldSection(geometry="scalar", integer=True),
    "region": FieldSection(geometry="box", of="image"),
    "depth": FieldSection(geometry="dense_map", fill=9.0),
}


class TransformConformance:
    """Subclass it with `component`. Two bright rectangles on a dark image go through it, with boxes, polygons,
    keypoints, semantic labels and a declared field of every geometry drawn on them; afterwards all of them must still
    lie on each other.

    Attributes:
        component: the transform's name, as a recipe writes it.
        arguments: for its constructor: what has no default, or what makes it act on images of 96 x 128 pixels.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
        cannot_move: names of the fields (part, rotated, corners, pixels, track, region, depth) that it cannot move and
            refuses with a RecipeError.
        hides: its images need not show the objects any more (mixing, strong noise); all else must agree.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    cannot_move: ClassVar[Sequence[str]] = ()
    hides: ClassVar[bool] = False

    def test_moves_every_geometry_alike(self) -> None:
        seen, likeness = 0, []
        for seed in _SEEDS:
            sample = self.apply(make_sample(without=self.cannot_move), seed)
            for fault in misplaced(sample, depth="depth" not in self.cannot_move):
                raise AssertionError(
                    f"seed {seed}: {fault}. Use the sample's own geometry (resize, flip, crop, pad, warp)"
                )
            seen += int(_inside(sample).sum())
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
            others = [field for field in _FIELDS if field != name]
            try:
                for seed in _SEEDS:
                    self.apply(make_sample(without=others), seed)
            except VertebraError:
                continue
            raise AssertionError(f"the field {name} is in cannot_move, but it goes through; check it with the others")
        for name in _FIELDS.keys() - set(self.cannot_move):
            reason = self.make().refuses(_FIELDS[name])
            require(reason is None, f"refuses() says of the field {name}, which it moves: {reason}")

    def test_the_generator_alone_decides(self) -> None:
        for seed in _SEEDS:
            first = self.apply(make_sample(without=self.cannot_move), seed)
            torch.rand(3), random.random(), np.random.random()
            second = self.apply(make_sample(without=self.cannot_move), seed)
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
            sample = self.apply(make_sample(without=self.cannot_move).select(np.zeros(0, dtype=int)), seed)
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
        if self.recipe:
            check_trains_by_recipe(self.recipe, "transform", self.component, keep_transforms=True)

    # What the checks are made of; a subclass may replace these.

    def make(self) -> Transform:
        """A new transform."""
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


def make_sample(without: Sequence[str] = ()) -> Sample:
    """An image of 96 x 128 pixels with two bright rectangles, and everything that can be drawn on them.

    Args:
        without: names of fields that it does not have.
    """
    corners = np.stack([corners_of(torch.from_numpy(box)).numpy() for box in _ROTATED])
    points = np.concatenate((corners, np.full((2, 4, 1), 2.0)), axis=2)
    masks = torch.zeros(2, *_SIZE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, _BOXES.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    pixels = torch.where(masks.any(dim=0), _BRIGHT, _DARK).to(torch.uint8)
    sample = Sample(
        pixels.repeat(3, 1, 1),
        boxes=_BOXES.copy(),
        polygons=[[item[:, :2].copy()] for item in points],
        keypoints=points.copy(),
        keypoint_mirror=np.arange(4),
        sem_seg=(masks * torch.tensor([1, 2])[:, None, None]).sum(dim=0).to(torch.uint8),
        rows=np.arange(2),
    )
    sample.fields |= {
        "part": BoxesDrawn(_BOXES.copy()),
        "rotated": RotatedBoxesDrawn(_ROTATED.copy()),
        "corners": PointsDrawn(points.copy(), mirror=np.arange(4)),
        "pixels": MasksDrawn(bitmasks=masks.clone()),
        "track": ScalarsDrawn(np.array([7, 8])),
        "region": BoxesDrawn(_BOXES[:1].copy(), of_instances=False),
        "depth": DenseMapDrawn((masks * torch.tensor(_DEPTH)[:, None, None]).sum(dim=0), fill=9.0, labels=False),
    }
    sample.fields = {name: field for name, field in sample.fields.items() if name not in without}
    return sample


def misplaced(sample: Sample, *, depth: bool = True) -> list[str]:
    """What of a moved `make_sample` does not lie where its keypoints do, in sentences.

    Args:
        depth: compare pixels of maps too: not where several images shine through each other.
    """
    height, width = sample.size
    counts = {name: len(field) for name, field in sample.fields.items() if field.of_instances}
    if len(set(counts.values())) > 1:
        return [f"the fields have different numbers of objects: {counts}; select() drops objects from all"]
    maps = {
        "sem_seg": sample.sem_seg,
        **{n: f.values for n, f in sample.fields.items() if isinstance(f, DenseMapDrawn)},
    }
    masks = {n: f.bitmasks for n, f in sample.fields.items() if isinstance(f, MasksDrawn) and f.bitmasks is not None}
    for name, pixels in {**maps, **masks}.items():
        if pixels is not None and tuple(pixels.shape[-2:]) != (height, width):
            return [f"{name} is {tuple(pixels.shape[-2:])}, but the image {(height, width)} (height, width)"]
    rows, points = sample.rows, sample.keypoints
    if rows is None or points is None:
        return ["rows or keypoints are gone: return the sample that was given, changed, and not a new one"]
    found: list[str] = []
    for place in np.flatnonzero(_inside(sample)):
        found += _faults_of(sample, int(place), int(rows[place]) % 2, points[place], depth)
    return found


def shown(sample: Sample) -> list[float]:
    """How well the image's brightness fits the masks: 1 for bright objects on dark ground or dark on bright, 0 for
    none. Empty where there is no object or no contrast."""
    labels = sample.sem_seg
    if labels is None:
        return []
    truth = ((labels == 1) | (labels == 2))[labels != 255].double()
    pixels = sample.image.double().mean(dim=0)[labels != 255]
    if truth.std() < 1e-6 or pixels.std() < 1e-6:
        return []
    return [float(torch.corrcoef(torch.stack((truth, pixels)))[0, 1].abs())]


def _faults_of(sample: Sample, place: int, number: int, points: np.ndarray, depth: bool) -> list[str]:
    """Of one object that lies inside the image whole; `number` is which of the two it was."""
    fields: dict[str, Any] = dict(sample.fields)
    found: list[str] = []
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    x, y = points[:, :2].mean(axis=0)
    at = min(int(y), sample.size[0] - 1), min(int(x), sample.size[1] - 1)
    where = f"object {number} has its keypoints at ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}), but"
    for name in ("boxes", "part"):
        if name in fields:
            box = fields[name].values[place]
            around = (box[:2] <= low + 1e-6).all() and (box[2:] >= high - 1e-6).all()
            if not around or (box[2:] - box[:2] > high - low + 8).any():
                found.append(f"{where} its box {name} at {np.round(box).tolist()}")
    for name in ("corners",):
        if name in fields and not np.allclose(fields[name].values[place], points):
            found.append(f"{where} the points {name} at {np.round(fields[name].values[place]).tolist()}")
    if sample.polygons is not None:
        outline = np.concatenate(sample.polygons[place] or [np.zeros((1, 2))])
        if (np.abs(outline.min(0) - low) > 4).any() or (np.abs(outline.max(0) - high) > 4).any():
            found.append(f"{where} its polygon at {np.round(outline.min(0)).tolist()}")
    if "pixels" in fields and fields["pixels"].bitmasks[place][at] != 1:
        found.append(f"{where} its mask is empty there")
    if "rotated" in fields:
        corners = corners_of(torch.from_numpy(fields["rotated"].values[place])).numpy()
        if np.linalg.norm(corners[:, None] - points[None, :, :2], axis=2).min(axis=1).max() > 1:
            found.append(f"{where} its rotated box has other corners: {np.round(corners).tolist()}")
    if "track" in fields and fields["track"].values[place] != 7 + number:
        found.append(f"object {number} has the track of another one")
    if depth and sample.sem_seg is not None and sample.sem_seg[at] != number + 1:
        found.append(f"{where} sem_seg has the label {int(sample.sem_seg[at])} there")
    if depth and "depth" in fields and float(fields["depth"].values[at]) != _DEPTH[number]:
        found.append(f"{where} the dense map has another value there")
    return found


def _inside(sample: Sample) -> np.ndarray:
    """(N,) bool: objects of which all keypoints are in the image."""
    if sample.keypoints is None:
        return np.zeros(0, bool)
    return np.asarray((sample.keypoints[..., 2] > 0).all(axis=1))


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
