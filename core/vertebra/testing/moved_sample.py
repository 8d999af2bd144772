"""A sample with every geometry drawn on it, for `TransformConformance`, and whether all still lies where it belongs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vertebra.config.extra_fields import FieldSection
from vertebra.data.transforms import Sample
from vertebra.data.transforms.drawn import BoxesDrawn, PointsDrawn, RotatedBoxesDrawn, ScalarsDrawn
from vertebra.data.transforms.drawn_pixels import DenseMapDrawn, MasksDrawn
from vertebra.data.transforms.projective import map_points
from vertebra.structures.rotated_boxes import corners_of

__all__ = ["FIELDS", "lost_fields", "make_sample", "misplaced", "shown", "whole_objects"]

_BOXES = np.array([[40.0, 30, 70, 50], [80, 60, 110, 80]])
_ROTATED = np.array([[55.0, 40, 30, 20, 0], [95, 70, 20, 30, 90]])  # the same rectangles
_MIRROR = np.array([1, 0, 3, 2])  # the corners go round: left and right ones change places
_SIZE = (96, 128)
_DARK, _BRIGHT = 60, 180
_LABELS = (40, 90)  # of the two objects; an interpolated label differs from both
_DEPTH, _FAR = (1.5, -2.5), 9.0  # of the two objects; where nothing is known
_RIM = 3  # pixels by which outlines may differ from masks
_STRAY = 0.02  # part of a mask's pixels that may be others
FIELDS: dict[str, FieldSection] = {
    "part": FieldSection(geometry="box"),
    "rotated": FieldSection(geometry="rotated_box"),
    "corners": FieldSection(geometry="points", size=4, mirror=[]),
    "pixels": FieldSection(geometry="mask"),
    "track": FieldSection(geometry="scalar", integer=True),
    "region": FieldSection(geometry="box", of="image"),
    "depth": FieldSection(geometry="dense_map", fill=_FAR),
}


def make_sample(without: Sequence[str] = ()) -> Sample:
    """An image of 96 x 128 pixels with two bright rectangles, and everything that can be drawn on them.

    Args:
        without: names of fields that it does not have.
    """
    points = np.concatenate((_corners(), np.full((2, 4, 1), 2.0)), axis=2)
    masks = torch.zeros(2, *_SIZE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, _BOXES.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    pixels = torch.where(masks.bool().any(dim=0), _BRIGHT, _DARK).to(torch.uint8)
    sample = Sample(
        pixels.repeat(3, 1, 1),
        boxes=_BOXES.copy(),
        polygons=[[item[:, :2].copy()] for item in points],
        keypoints=points.copy(),
        keypoint_mirror=_MIRROR.copy(),
        sem_seg=(masks * torch.tensor(_LABELS)[:, None, None]).sum(dim=0).to(torch.uint8),
        rows=np.arange(2),
    )
    sample.fields |= {
        "part": BoxesDrawn(_BOXES.copy()),
        "rotated": RotatedBoxesDrawn(_ROTATED.copy()),
        "corners": PointsDrawn(points.copy(), mirror=_MIRROR.copy()),
        "pixels": MasksDrawn(bitmasks=masks.clone()),
        "track": ScalarsDrawn(np.array([7, 8])),
        "region": BoxesDrawn(_BOXES[:1].copy(), of_instances=False),
        "depth": DenseMapDrawn((masks * torch.tensor(_DEPTH)[:, None, None]).sum(dim=0), fill=_FAR, labels=False),
    }
    sample.fields = {name: field for name, field in sample.fields.items() if name not in without}
    return sample


def lost_fields(sample: Sample, given: set[str]) -> list[str]:
    """A sentence on the fields that are gone.

    Args:
        given: names of the fields that the sample had.
    """
    gone = sorted(given - sample.fields.keys())
    return [f"it loses {', '.join(gone)}: return the sample that is given, changed, and not a new one"] if gone else []


def misplaced(sample: Sample, *, depth: bool = True, joined: bool = False) -> list[str]:
    """What of a moved `make_sample` does not lie where its keypoints do, in sentences.

    Args:
        depth: compare pixels of maps too: not where several images shine through each other.
        joined: of several images, so that no matrix says where all of it comes from.
    """
    height, width = sample.size
    counts = {name: len(field) for name, field in sample.fields.items() if field.of_instances}
    if len(set(counts.values())) > 1:
        return [f"the fields have different numbers of objects: {counts}; select() drops objects from all"]
    maps = {n: f.values for n, f in sample.fields.items() if isinstance(f, DenseMapDrawn)}
    masks = {n: f.bitmasks for n, f in sample.fields.items() if isinstance(f, MasksDrawn) and f.bitmasks is not None}
    for name, pixels in {**maps, **masks}.items():
        if tuple(pixels.shape[-2:]) != (height, width):
            return [f"{name} is {tuple(pixels.shape[-2:])}, but the image {(height, width)} (height, width)"]
    found: list[str] = []
    rows, points = sample.rows, sample.keypoints
    assert rows is not None and points is not None  # or lost_fields has said so
    for place in np.flatnonzero(whole_objects(sample)):
        found += _faults_of(sample, int(place), int(rows[place]) % 2, points[place])
        if not joined:
            found += _against_matrix(sample, int(rows[place]) % 2, points[place])
    found += _masks_misplaced(sample, depth)
    return found + (_foreign_values(sample) if depth else [])


def shown(sample: Sample) -> list[float]:
    """How well the image's brightness fits the masks: 1 for bright objects on dark ground or dark on bright, 0 for
    none. Empty where there is no object or no contrast."""
    labels = sample.sem_seg
    if labels is None:
        return []
    truth = ((labels == _LABELS[0]) | (labels == _LABELS[1]))[labels != 255].double()
    pixels = sample.image.double().mean(dim=0)[labels != 255]
    if truth.std() < 1e-6 or pixels.std() < 1e-6:
        return []
    return [float(torch.corrcoef(torch.stack((truth, pixels)))[0, 1].abs())]


def whole_objects(sample: Sample) -> np.ndarray:
    """(N,) bool: objects of which all keypoints are in the image."""
    if sample.keypoints is None:
        return np.zeros(0, bool)
    return np.asarray((sample.keypoints[..., 2] > 0).all(axis=1))


def _faults_of(sample: Sample, place: int, number: int, points: np.ndarray) -> list[str]:
    """Of one object that lies inside the image whole; `number` is which of the two it was."""
    fields: dict[str, Any] = dict(sample.fields)
    found: list[str] = []
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    where = f"object {number} has its keypoints at ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}), but"
    for name in ("boxes", "part"):
        if name in fields:
            box = fields[name].values[place]
            around = (box[:2] <= low + 1e-6).all() and (box[2:] >= high - 1e-6).all()
            if not around or (box[2:] - box[:2] > high - low + 8).any():
                found.append(f"{where} its box {name} at {np.round(box).tolist()}")
    if _turn(points) < 0:
        found.append(
            "left and right keypoints do not change places where the image is mirrored: values[:, mirror], as "
            "sample.flip does it"
        )
    elif "corners" in fields and not np.allclose(fields["corners"].values[place], points):
        found.append(f"{where} the points corners at {np.round(fields['corners'].values[place]).tolist()}")
    if sample.polygons is not None:
        outline = np.concatenate(sample.polygons[place] or [np.zeros((1, 2))])
        if (np.abs(outline.min(0) - low) > 4).any() or (np.abs(outline.max(0) - high) > 4).any():
            found.append(f"{where} its polygon at {np.round(outline.min(0)).tolist()}")
    if "rotated" in fields:
        corners = corners_of(torch.from_numpy(fields["rotated"].values[place])).numpy()
        if np.linalg.norm(corners[:, None] - points[None, :, :2], axis=2).min(axis=1).max() > 1:
            found.append(f"{where} its rotated box has other corners: {np.round(corners).tolist()}")
    if "track" in fields and fields["track"].values[place] != 7 + number:
        found.append(f"object {number} has the track of another one")
    return found


def _against_matrix(sample: Sample, number: int, points: np.ndarray) -> list[str]:
    """Where `sample.matrix` takes the points of the start; nothing where the image is bent."""
    if not np.isfinite(sample.matrix).all():
        return []
    expected = map_points(sample.matrix, _corners()[number])
    away = np.linalg.norm(expected[:, None] - points[None, :, :2], axis=2).min(axis=1).max()
    if away > 2:
        return [
            f"sample.matrix is {away:.0f} pixels off: proposals and what else is placed by it would lie beside their "
            "objects. Where a transform moves pixels itself: sample.matrix = move @ sample.matrix"
        ]
    region: Any = sample.fields.get("region")
    if number == 0 and region is not None:
        low, high = expected.min(0), expected.max(0)
        box = region.values[0]
        around = (box[:2] <= low + 2).all() and (box[2:] >= high - 2).all()
        if not around or (box[2:] - box[:2] > 1.5 * (high - low) + 8).any():
            return [f"the box region, of the whole image, is at {np.round(box).tolist()}, but its object elsewhere"]
    return []


def _masks_misplaced(sample: Sample, maps: bool) -> Iterator[str]:
    """Masks and maps against the masks' outlines, a rim aside."""
    masks, fields, rows = sample.fields["masks"], dict[str, Any](sample.fields), sample.rows
    assert isinstance(masks, MasksDrawn) and rows is not None
    if not len(rows):
        return
    drawn = masks.drawn(sample.size).bool()
    core, near = ~_grown(~drawn), _grown(drawn)
    for place, number in enumerate(int(row) % 2 for row in rows):
        inside = core[place]
        if "pixels" in fields:
            pixels = fields["pixels"].bitmasks[place] > 0
            if _too_many(inside & ~pixels, inside) or _too_many(pixels & ~near[place], pixels):
                yield (
                    f"the mask pixels of object {number} is not the area in its polygon: {_extent(pixels)} and "
                    f"{_extent(drawn[place])} (x and y)"
                )
        wanted = {"sem_seg": _LABELS[number], "depth": _DEPTH[number]}
        for name, value in wanted.items() if maps else ():
            if name in fields and _too_many(inside & (fields[name].values != value), inside):
                others = fields[name].values[inside].unique().tolist()[:4]
                yield f"{name} has the values {others} in the polygon of object {number}, expected {value:g}"


def _foreign_values(sample: Sample) -> list[str]:
    """Values that no pixel of a map had before, and padding that counts as ground."""
    fields: dict[str, Any] = dict(sample.fields)
    known = {"sem_seg": (0, *_LABELS, sample.ignore_label), "depth": (0, *_DEPTH, _FAR)}
    for name, values in known.items():
        if name in fields:
            new = [value for value in fields[name].values.unique().tolist() if value not in values]
            if new:
                return [f"{name} has values that it did not have before, {new[:4]}: take the nearest pixel's, no mean"]
    if "depth" in fields:
        padded = fields["depth"].values == _FAR
        labels = fields["sem_seg"].values[padded]
        if _too_many(labels != sample.ignore_label, labels == labels):
            return [
                f"sem_seg has the label {int(labels[labels != sample.ignore_label][0])} where the image was padded, "
                f"expected sample.ignore_label, {sample.ignore_label}"
            ]
    return []


def _corners() -> np.ndarray:
    """(2, 4, 2): of the two objects, one after the other around each."""
    return np.stack([corners_of(torch.from_numpy(box)).numpy() for box in _ROTATED])


def _turn(points: np.ndarray) -> float:
    """Twice the area of the polygon, negative where its corners go round the other way than in `make_sample`."""
    x, y = points[:, 0], points[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def _grown(masks: Tensor) -> Tensor:
    """(N, H, W) bool, larger by a rim."""
    return F.max_pool2d(masks.float(), 2 * _RIM + 1, stride=1, padding=_RIM) > 0


def _too_many(wrong: Tensor, of: Tensor) -> bool:
    return int(wrong.sum()) > _STRAY * int(of.sum())


def _extent(mask: Tensor) -> str:
    """Its first and last pixel."""
    if not mask.any():
        return "nothing"
    ys, xs = mask.nonzero(as_tuple=True)
    return f"({int(xs.min())}, {int(ys.min())}) to ({int(xs.max())}, {int(ys.max())})"
