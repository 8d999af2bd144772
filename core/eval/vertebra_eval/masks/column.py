"""A column of masks in flat arrays: polygons and run lengths as they came, drawn where pixels are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vertebra_eval.masks.polygons import FARTHEST, polygon_fault, polygons_cause, within_reach
from vertebra_eval.masks.run_lengths import join_counts, measure_joined, measure_run_lengths, run_length_fault

__all__ = ["MaskColumn", "MasksRead", "mask_faults", "read_masks"]

NONE, POLYGONS, RUNS = 0, 1, 2
_AT_A_TIME = 200  # masks; pycocotools 2.0.11 with numpy 2 cannot give the areas of more than 255
_CORNERS = 6  # numbers of a triangle, the least that encloses anything


@dataclass(eq=False)
class MaskColumn(Sequence):
    """n masks; `column[row]` is compressed run lengths {"size": [h, w], "counts": bytes}, None where there is no mask.

    Args:
        kinds: (n,) int8: 0 no mask, 1 polygons (none of them: an empty mask), 2 run lengths.
        sizes: (n, 2) int64 height, width of the image.
        starts, ends: (n,) int64: the mask's polygons, or its part of `counts`.
        polygon_ends: (P + 1,) int64, 0 and where in `numbers` each polygon ends. numbers: (N,) float64 x, y, x, y, ...
        counts: the compressed run lengths of all masks, B bytes.
        run_areas: (n,) int64 pixels of the masks that are run lengths; None: not counted yet.
    """

    kinds: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    polygon_ends: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0))
    counts: bytes = b""
    run_areas: np.ndarray | None = None

    @classmethod
    def of_run_lengths(cls, counts: bytes, lengths: np.ndarray, sizes: np.ndarray) -> MaskColumn:
        """Compressed run lengths, sound ones.

        Args:
            counts: of all masks, one after the other. lengths: (n,) int64 bytes of each.
            sizes: (n, 2) int height, width.
        """
        ends = np.cumsum(lengths)
        return cls(np.full(len(lengths), RUNS, np.int8), sizes, ends - lengths, ends, counts=counts)

    @classmethod
    def of_encoded(cls, masks: Sequence[dict]) -> MaskColumn:
        """Compressed run lengths {"size": [h, w], "counts": bytes}, sound ones."""
        lengths = np.fromiter((len(mask["counts"]) for mask in masks), np.int64, len(masks))
        sizes = np.array([mask["size"] for mask in masks], np.int64).reshape(-1, 2)
        return cls.of_run_lengths(b"".join(mask["counts"] for mask in masks), lengths, sizes)

    @classmethod
    def joined(cls, columns: Sequence[MaskColumn]) -> MaskColumn | None:
        """One column after the other; None where there are polygons."""
        if any((column.kinds == POLYGONS).any() for column in columns):
            return None
        before = np.cumsum([0, *(len(column.counts) for column in columns)])[:-1]
        shifted = np.repeat(before, list(map(len, columns)))
        areas = [column.run_areas for column in columns if column.run_areas is not None]
        return cls(
            np.concatenate([column.kinds for column in columns]),
            np.concatenate([column.sizes for column in columns]),
            np.concatenate([column.starts for column in columns]) + shifted,
            np.concatenate([column.ends for column in columns]) + shifted,
            counts=b"".join(column.counts for column in columns),
            run_areas=np.concatenate(areas) if len(areas) == len(columns) else None,
        )

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, (slice, np.ndarray)):
            return self.take(row)
        kind = self.kinds[row]  # raises IndexError, which ends an iteration
        if kind == NONE:
            return None
        if kind == RUNS:
            return {"size": self.sizes[row].tolist(), "counts": self._text(row)}
        height, width = self.sizes[row].tolist()
        if self.starts[row] == self.ends[row]:  # all of it lay beyond the image
            return coco_mask.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)
        return coco_mask.merge(coco_mask.frPyObjects(self._polygons(row), height, width))

    def take(self, rows: np.ndarray | slice) -> MaskColumn:
        """Selects masks by index, slice or boolean mask; the flat arrays are shared."""
        return MaskColumn(
            self.kinds[rows],
            self.sizes[rows],
            self.starts[rows],
            self.ends[rows],
            self.polygon_ends,
            self.numbers,
            self.counts,
            None if self.run_areas is None else self.run_areas[rows],
        )

    def encoded(self, rows: np.ndarray) -> list[dict]:
        """`self[row]` of many rows that have a mask, faster."""
        places = zip(self.sizes[rows].tolist(), self.starts[rows].tolist(), self.ends[rows].tolist(), strict=True)
        if (self.kinds[rows] == RUNS).all():
            return [{"size": size, "counts": self.counts[start:end]} for size, start, end in places]
        return [self[row] for row in rows.tolist()]

    def segmentation(self, row: int) -> Any:
        """As COCO has it: a list of flat polygons, run lengths as text, or None."""
        if self.kinds[row] == POLYGONS:
            return [polygon.tolist() for polygon in self._polygons(row)]
        if self.kinds[row] == NONE:
            return None
        return {"size": self.sizes[row].tolist(), "counts": self._text(row).decode("ascii")}

    def unsound(self) -> np.ndarray:
        """Rows whose run lengths do not fill their size, ascending; pycocotools must not see them."""
        rows = np.flatnonzero(self.kinds == RUNS)
        found = measure_run_lengths([self._text(row) for row in rows.tolist()])
        return rows[(found.faults > 0) | (found.covered != self.sizes[rows].prod(axis=1, dtype=np.int64))]

    def outline(self, row: int) -> np.ndarray | None:
        """(numbers,) float64 of all the mask's polygons, x, y, x, y, ...; None where it has none."""
        if self.kinds[row] != POLYGONS:
            return None
        return self.numbers[self.polygon_ends[self.starts[row]] : self.polygon_ends[self.ends[row]]]

    def boxes(self) -> np.ndarray:
        """(n, 4) float64 xywh around the masks, zeros where there is no mask."""
        boxes = np.zeros((len(self), 4))
        for rows in _portions(np.flatnonzero(self.kinds)):
            boxes[rows] = coco_mask.toBbox(self.encoded(rows)).reshape(-1, 4)
        return boxes

    def areas(self) -> np.ndarray:
        """(n,) float64 pixels of the masks, zeros where there is no mask."""
        areas = np.zeros(len(self))
        counted = np.zeros(0, np.int64) if self.run_areas is None else np.flatnonzero(self.kinds == RUNS)
        if self.run_areas is not None:
            areas[counted] = self.run_areas[counted]
        for rows in _portions(np.setdiff1d(np.flatnonzero(self.kinds), counted, assume_unique=True)):
            areas[rows] = coco_mask.area(self.encoded(rows))
        return areas

    def _text(self, row: int) -> bytes:
        return self.counts[self.starts[row] : self.ends[row]]

    def _polygons(self, row: int) -> list[np.ndarray]:
        ends = self.polygon_ends[self.starts[row] : self.ends[row] + 1].tolist()
        return [self.numbers[start:end] for start, end in pairwise(ends)]


@dataclass
class MasksRead:
    """What became of segmentations.

    Args:
        column: the masks; none in the rows of `faults`.
        faults: row -> what cannot be read as a mask; each begins with "segmentation".
        short: rows with polygons of less than 3 points beside others; they enclose nothing and are dropped.
        far: rows with polygons beyond `FARTHEST`, which are cut at the image's border.
        unsized: rows with polygons in images of unknown size, which cannot be drawn: they have no mask in the column.
    """

    column: MaskColumn
    faults: dict[int, list[str]]
    short: np.ndarray
    far: np.ndarray
    unsized: list[int]


def read_masks(segmentations: Sequence[Any], sizes: np.ndarray) -> MasksRead:
    """Segmentations in COCO's three forms to a column.

    Args:
        segmentations: n polygon lists, run lengths, or None.
        sizes: (n, 2) int height, width of each image; 0 where unknown.
    """
    faults: dict[int, list[str]] = {}
    kinds, sizes = np.zeros(len(segmentations), np.int8), np.array(sizes, np.int64).reshape(-1, 2)
    starts, ends = np.zeros((2, len(segmentations)), np.int64)
    drawn, encoded, unsized = [], [], []
    for row, segmentation in enumerate(segmentations):
        if segmentation is None:
            continue
        if isinstance(segmentation, (list, tuple)):
            if sizes[row, 0]:
                drawn.append(row)
            else:
                unsized.append(row)
        elif isinstance(segmentation, dict):
            encoded.append(row)
        else:
            faults[row] = mask_faults(segmentation, None)
    rows, lists = _readable_polygons(drawn, segmentations, faults)
    far: list[int] = []
    lengths, numbers = _flat(lists)
    if len(numbers) and np.abs(numbers).max() > FARTHEST:
        for place, row in enumerate(rows):
            polygons = [polygon for polygon in lists[place] if len(polygon) >= _CORNERS]
            cut = within_reach(polygons, *sizes[row].tolist())
            if cut is not polygons:
                far.append(row)
                lists[place] = list(cut)
        lengths, numbers = _flat(lists)
    of_row = np.repeat(rows, list(map(len, lists))).astype(np.int64)
    long = lengths >= _CORNERS
    numbers = numbers[np.repeat(long, lengths)]
    short, of_row, lengths = np.unique(of_row[~long]), of_row[long], lengths[long]
    drawn_rows = np.unique(of_row)
    kinds[drawn_rows] = POLYGONS
    starts[drawn_rows] = np.searchsorted(of_row, drawn_rows, side="left")
    ends[drawn_rows] = np.searchsorted(of_row, drawn_rows, side="right")
    counts, areas = _run_lengths(encoded, segmentations, sizes, faults, (kinds, starts, ends))
    for row in (set(short[kinds[short] == NONE].tolist()) - set(far)) if len(short) else ():
        faults[row] = mask_faults(segmentations[row], None)
    short = short[kinds[short] != NONE]
    kinds[far] = POLYGONS  # an empty mask, where nothing is left
    column = MaskColumn(kinds, sizes, starts, ends, np.concatenate([[0], np.cumsum(lengths)]), numbers, counts, areas)
    return MasksRead(column, faults, short, np.array(far, np.int64), unsized)


def _portions(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + _AT_A_TIME] for start in range(0, len(rows), _AT_A_TIME))


def mask_faults(segmentation: Any, size: tuple[int, int] | None) -> list[str]:
    """What is wrong with polygons or run lengths of an image of this (height, width); None: the size is not known."""
    if isinstance(segmentation, (list, tuple)):
        found = [(number, polygon_fault(polygon)) for number, polygon in enumerate(segmentation)]
        faults = [f"segmentation: polygon {number} {fault}" for number, fault in found if fault]
        lengths = [len(polygon) for polygon in segmentation] if not faults else []
        if lengths and max(lengths) < _CORNERS:
            faults = [f"segmentation: polygon 0 has {lengths[0] // 2} points; a polygon needs at least 3"]
        cause = polygons_cause(segmentation) if faults else None
        return [f"segmentation {cause}"] if cause else faults
    fault = run_length_fault(segmentation, size)
    return [f"segmentation {fault}"] if fault else []


def _readable_polygons(
    rows: list[int], segmentations: Sequence[Any], faults: dict[int, list[str]]
) -> tuple[list[int], list[list]]:
    """The rows whose polygons are lists of finite numbers in pairs, and these; the others go to `faults`."""
    lists = [segmentations[row] for row in rows]
    if _are_plain(lists):  # nearly always
        return rows, lists
    good: list[int] = []
    read = []
    for row, polygons in zip(rows, lists, strict=True):
        found = mask_faults(polygons, None)
        if found:
            faults[row] = found
        else:
            good.append(row)
            read.append([[float(value) for value in polygon] for polygon in polygons])
    return good, read


def _flat(lists: Sequence[Sequence[Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """(P,) int64 numbers of each polygon, and the numbers themselves, float64."""
    lengths = np.fromiter(map(len, chain.from_iterable(lists)), np.int64)
    return lengths, np.fromiter(chain.from_iterable(chain.from_iterable(lists)), np.float64, int(lengths.sum()))


def _are_plain(lists: Sequence[Iterable]) -> bool:
    if not set(map(type, lists)) <= {list}:
        return False
    polygons = list(chain.from_iterable(lists))
    if not set(map(type, polygons)) <= {list} or any(len(polygon) % 2 for polygon in polygons):
        return False
    if not set(map(type, chain.from_iterable(polygons))) <= {int, float}:
        return False
    if any(len(polygon) == 2 for polygon in polygons):  # perhaps a list of points
        return False
    try:
        return bool(np.isfinite(np.fromiter(map(sum, polygons), np.float64, len(polygons))).all())
    except OverflowError:  # whole numbers beyond any float
        return False


def _run_lengths(
    rows: list[int],
    segmentations: Sequence[Any],
    sizes: np.ndarray,
    faults: dict[int, list[str]],
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[bytes, np.ndarray]:
    """The compressed run lengths of the rows, and (n,) pixels of all masks that are such; fills kinds, starts, ends and
    unknown sizes."""
    kinds, starts, ends = columns
    known = sizes.tolist()
    counts = [segmentations[row].get("counts") for row in rows]
    usual = set(map(type, counts)) <= {str, bytes}
    if not usual or [segmentations[row].get("size") for row in rows] != [known[row] for row in rows]:
        rows, counts = _unusual_run_lengths(rows, segmentations, sizes, faults)
    chosen = np.array(rows, np.int64)
    text, lengths = join_counts(counts)
    covered, area, broken = measure_joined(text, lengths)
    kinds[chosen], ends[chosen] = RUNS, np.cumsum(lengths)
    starts[chosen] = ends[chosen] - lengths
    for place in np.flatnonzero((broken > 0) | (covered != sizes[chosen].prod(axis=1))).tolist():
        row = rows[place]
        kinds[row] = NONE
        faults[row] = mask_faults(segmentations[row], tuple(known[row]) if known[row][0] else None)
    areas = np.zeros(len(kinds), np.int64)
    areas[chosen] = area
    return text, areas


def _unusual_run_lengths(
    rows: list[int], segmentations: Sequence[Any], sizes: np.ndarray, faults: dict[int, list[str]]
) -> tuple[list[int], list[str | bytes]]:
    """The rows without a fault, and their texts; fills unknown sizes."""
    good, texts = [], []
    for row in rows:
        rle, size = segmentations[row], sizes[row].tolist()
        found = mask_faults(rle, tuple(size) if size[0] else None)
        if found:
            faults[row] = found
            continue
        sizes[row], counts = rle["size"], rle["counts"]
        if not isinstance(counts, (str, bytes)):
            height, width = rle["size"]
            counts = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)["counts"]
        good.append(row)
        texts.append(counts)
    return good, texts
