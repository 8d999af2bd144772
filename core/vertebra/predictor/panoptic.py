"""Panoptic predictions as COCO's result files, which `vertebra evaluate-results --task panoptic` and other tools read.

Format: https://cocodataset.org/#format-results, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.category_ids import category_ids
from vertebra.data.panoptic_labels import stuff_segment_names
from vertebra.evaluation.coco_json import json_text
from vertebra.predictor.prediction_records import outputs_of
from vertebra.predictor.predictor import Prediction
from vertebra.predictor.writers import Writer, check_free, growing_file
from vertebra_eval.files import WholeFile, free_path
from vertebra_eval.panoptic.runs import write_segment_ids

__all__ = ["PanopticWriter"]

_NAME = "panoptic_predictions"
_UNNAMED_STUFF = 1000  # where the things have no names they cannot be counted, and stuff begins here


class PanopticWriter(Writer):
    """`panoptic_predictions.json`, and in `panoptic_predictions/` a PNG of segment ids for each image.

    image_id counts the images in their order, from 1, and image_file_name is where each came from; category_id is that
    of the dataset which the model was trained on, where it is known, otherwise the model's class, things from 0, stuff
    after them. Void is 0 in the PNG. Further heads' predictions go to
    `panoptic_predictions-<head>`. The JSON is written as it grows, under another name until it is complete.
    """

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.folder = folder
        for path in (folder / _NAME, folder / f"{_NAME}.json"):
            check_free(path)
        things = list(metadata.get("thing_classes") or ())
        stuff = stuff_segment_names(things, metadata.get("stuff_classes"))
        self._first_stuff = len(things) if things or stuff else _UNNAMED_STUFF
        self._ids = _segment_ids(metadata, len(things), len(stuff))
        self._categories = [
            {"id": self._ids[number], "name": name, "isthing": int(number < len(things))}
            for number, name in enumerate([*things, *stuff])
        ]
        self._files: dict[str, WholeFile] = {}  # by the head's suffix
        self._images = 0

    def add(self, prediction: Prediction) -> None:
        self._images += 1
        for suffix, (ids, segments) in outputs_of(prediction, "panoptic_seg"):
            folder = self.folder / f"{_NAME}{suffix}"
            folder.mkdir(parents=True, exist_ok=True)
            path = free_path(folder, prediction.frame.stem, ".png")
            values = np.maximum(ids.numpy().astype(np.int64), 0)  # some models mark void by -1
            write_segment_ids(values, path)
            names = {"file_name": path.name, "image_file_name": prediction.frame.name}
            infos = self._infos(values, segments)
            self._record({"image_id": self._images, **names, "segments_info": infos}, suffix)

    def close(self) -> None:
        for file in self._files.values():
            if not file.file.closed:
                file.file.write(f'\n],\n"categories": {json.dumps(self._categories)}}}\n')
                file.finish()

    @property
    def written(self) -> list[Path]:
        return [path for file in self._files.values() for path in (file.path, file.path.with_suffix(""))]

    def _record(self, record: dict[str, Any], suffix: str) -> None:
        first = suffix not in self._files
        if first:
            self._files[suffix] = growing_file(self.folder / f"{_NAME}{suffix}.json")
        self._files[suffix].file.write(('{"annotations": [\n ' if first else ",\n ") + json_text(record))

    def _infos(self, ids: np.ndarray, segments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`segments_info` of the segments that have a pixel."""
        areas = dict(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True))
        return [
            {
                "id": info["id"],
                "category_id": self._category_id(info["category_id"] + (0 if info["isthing"] else self._first_stuff)),
                "isthing": int(info["isthing"]),
                "area": areas[info["id"]],
                **({"score": round(info["score"], 5)} if "score" in info else {}),
            }
            for info in segments
            if info["id"] in areas
        ]

    def _category_id(self, number: int) -> Hashable:
        return self._ids[number] if number < len(self._ids) else number


def _segment_ids(metadata: Any, num_things: int, num_stuff: int) -> list[Hashable]:
    """Category ids of the things, then of the stuff: the dataset's own, if there is a different one for each."""
    things, stuff = category_ids(metadata, "thing"), category_ids(metadata, "stuff")
    known = (len(things), len(stuff)) == (num_things, num_stuff) and len({*things, *stuff}) == num_things + num_stuff
    return [*things, *stuff] if known else list(range(num_things + num_stuff))
