"""Panoptic ground truth of a dataset: its classes in one list, and each image's record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vertebra.data.panoptic_labels import segment_stuff_names
from vertebra.errors import DataError
from vertebra.evaluation.detections import ImageKey
from vertebra_eval.panoptic.counts import Segments
from vertebra_eval.panoptic.quality import PanopticClass

__all__ = ["PanopticTruth"]


class PanopticTruth:
    """What a dataset says about panoptic ground truth; the PNG files are not read here.

    Args:
        dataset: `.dicts` with `segments_info` (`id`, `category_id` counted from 0 among things or stuff, `isthing`,
            and perhaps `iscrowd`, `area`), and `.metadata` with `thing_classes` and `stuff_classes`.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        metadata = dataset.metadata
        self.thing_names = list(getattr(metadata, "thing_classes", None) or ())
        self.stuff_names = segment_stuff_names(metadata)
        if not self.thing_names and not self.stuff_names:
            raise DataError(
                "PanopticEvaluator needs the dataset's thing_classes and stuff_classes in its metadata, there are none"
            )
        self.classes = self._classes(metadata)
        """Things first, then stuff; each part in its own order."""
        self.rows = {(True, i): i for i in range(len(self.thing_names))}
        self.rows |= {(False, i): len(self.thing_names) + i for i in range(len(self.stuff_names))}
        self._records: dict[ImageKey, int] | None = None
        self._names: Counter = Counter()

    def keys(self) -> list[ImageKey]:
        """The images, in the dataset's order."""
        return list(self._rows())

    def record(self, key: ImageKey) -> dict:
        """The dataset dict of an image."""
        row = self._rows().get(key)
        if row is None:
            raise DataError(f"image {key.image_id!r} ({key.file_name}) was predicted, but is not in the dataset")
        return self.dataset.dicts[row]

    def segments(self, record: Mapping[str, Any], where: str) -> Segments:
        """The true segments of one image."""
        if record.get("segments_info") is None:
            raise DataError(f"{where}: its dataset dict has no segments_info; load the dataset with panoptic labels")
        return Segments.of(self.with_rows(record["segments_info"], where), self.rows, where)

    def with_rows(self, infos: Iterable[Mapping[str, Any]], where: str) -> list[dict]:
        """`segments_info` with (isthing, category_id) in place of the category id, as `rows` knows them."""
        segments = []
        for info in infos:
            if info.get("isthing") is None or info.get("category_id") is None:
                raise DataError(f"{where}: each of segments_info needs id, category_id and isthing, found {dict(info)}")
            key = (bool(info["isthing"]), int(info["category_id"]))
            if key not in self.rows:
                kind, names = ("thing", self.thing_names) if key[0] else ("stuff", self.stuff_names)
                raise DataError(
                    f"{where}: segment {info.get('id')} is of {kind} class {key[1]}, but the dataset has {len(names)} "
                    f"{kind} classes, numbered from 0"
                )
            segments.append({**info, "category_id": key})
        return segments

    def result_name(self, key: ImageKey) -> str:
        """A PNG name for the predictions of an image, the same in every process and for no other image."""
        self._rows()
        stem = Path(key.file_name).stem if key.file_name else str(key.image_id)
        return f"{stem}.png" if self._names[stem] == 1 else f"{self._rows()[key]:06d}_{stem}.png"

    def _rows(self) -> dict[ImageKey, int]:
        if self._records is None:
            self._records = {ImageKey.of(record): row for row, record in enumerate(self.dataset.dicts)}
            self._names = Counter(Path(key.file_name).stem for key in self._records if key.file_name)
        return self._records

    def _classes(self, metadata: Any) -> list[PanopticClass]:
        """With the dataset's own category ids; where these are unknown or meet, numbers from 1."""
        things, stuff = (
            {row: known for known, row in (getattr(metadata, name, None) or {}).items()}
            for name in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
        )
        names = [*self.thing_names, *self.stuff_names]
        found = [things.get(i) for i in range(len(self.thing_names))]
        found += [stuff.get(i) for i in range(len(self.stuff_names))]
        ids = [known for known in found if known is not None]
        if len(set(ids)) < len(names):
            ids = list(range(1, len(names) + 1))
        return [PanopticClass(ids[i], names[i], i < len(self.thing_names)) for i in range(len(ids))]
