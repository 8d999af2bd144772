"""COCO panoptic JSON beside an instance file: segment ids in PNG files, what they are in the JSON.

Format: https://cocodataset.org/#format-data, section 4; a PNG's color is the id R + 256 G + 65536 B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vertebra.data.catalog import Metadata
from vertebra.data.formats import ROOT_HINT
from vertebra.data.panoptic_labels import panoptic_label_names
from vertebra.errors import DataError
from vertebra_eval.coco.fields import id_cause
from vertebra_eval.file_names import file_name_fault
from vertebra_eval.json_file import Problems, read_json
from vertebra_eval.panoptic.segments import panoptic_categories, segment_faults

__all__ = ["add_panoptic"]


def add_panoptic(
    file: Path, folder: Path, images: dict, metadata: Metadata, labels: Literal["all", "stuff"] | None = None
) -> None:
    """Give each image's dict `pan_seg_file_name` and `segments_info`, and the metadata its stuff classes.

    Things take the class numbers of the instance file (same category ids there), stuff is numbered from 0 by id.

    Args:
        images: standard dicts by image id, changed in place; every one must be in the panoptic file.
        labels: make the semantic labels out of the panoptic PNG too, see `panoptic_label_names`.
    Raises:
        DataError: names the panoptic file and the records at fault.
    """
    data = read_json(file, hint=ROOT_HINT)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("annotations", "categories")):
        raise DataError(f'{file}: a panoptic file is an object with the lists "annotations" and "categories"')
    records: dict = {}
    for i, record in enumerate(data["annotations"]):
        if not isinstance(record, dict) or not isinstance(record.get("segments_info"), list):
            raise DataError(f"{file}: annotations[{i}] must be an object with a list segments_info")
        key = record.get("image_id")
        if not isinstance(key, (int, str)):
            raise DataError(f"{file}: annotations[{i}]: image_id is {key!r:.60}, expected a number or a name")
        if key in records:
            raise DataError(f"{file}: annotations[{i}]: image_id {key!r} stands in annotations[{records[key][0]}] too")
        records[key] = (i, record)
    problems = Problems(file)
    stuff = sorted((one.id, one.name) for one in panoptic_categories(data["categories"], file) if not one.isthing)
    stuff_ids = {key: i for i, (key, _) in enumerate(stuff)}
    thing_ids = metadata.thing_dataset_id_to_contiguous_id
    for key, image in images.items():
        if key not in records:
            problems.add(f"image {key!r}", f"{Path(image['file_name']).name} has no record in this file")
            continue
        i, record = records[key]
        where = f"annotations[{i}] (image {key!r})"
        fault = file_name_fault(record.get("file_name"))
        if fault:
            problems.add(where, fault)
            continue
        faults = segment_faults(record["segments_info"])
        for which, fault in faults:
            problems.add(f"{where}, {which}", fault)
        segments = []
        for segment in () if faults else record["segments_info"]:
            category = segment.get("category_id")
            if not isinstance(category, int) or (category not in thing_ids and category not in stuff_ids):
                cause = id_cause(category, {*thing_ids, *stuff_ids})
                what = f"category_id {category!r:.60} is not among the categories{cause}"
                problems.add(f"{where}, segment {segment['id']}", what)
                continue
            isthing = category in thing_ids
            number = thing_ids[category] if isthing else stuff_ids[category]
            segments.append({**segment, "category_id": number, "isthing": isthing})
        image["pan_seg_file_name"] = str(folder / record["file_name"])
        image["segments_info"] = segments
    problems.raise_if_any()
    metadata.set(panoptic_json=str(file), panoptic_root=str(folder), stuff_dataset_id_to_contiguous_id=stuff_ids)
    stuff_names = [name for _, name in stuff]
    metadata.set(segment_stuff_classes=stuff_names)
    if labels is not None:
        names = panoptic_label_names(metadata.thing_classes, stuff_names, labels)
        metadata.set(panoptic_labels=labels, stuff_classes=names)
    elif "stuff_classes" not in metadata.as_dict():
        metadata.set(stuff_classes=stuff_names)
