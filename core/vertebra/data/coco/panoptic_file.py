"""COCO panoptic JSON beside an instance file: segment ids in PNG files, what they are in the JSON.

Format: https://cocodataset.org/#format-data, section 4; a PNG's color is the id R + 256 G + 65536 B.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vertebra.data.catalog import Metadata
from vertebra.data.formats import ROOT_HINT
from vertebra.data.panoptic_labels import panoptic_label_names
from vertebra_eval.coco.fields import is_whole
from vertebra_eval.files import Problems
from vertebra_eval.panoptic.data import read_panoptic

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
    data = read_panoptic(file, folder, hint=ROOT_HINT)
    data.refuse({row for row, key in enumerate(data.ids) if key is None or data.rows[key] != row})
    problems = Problems(file)
    for key, image in images.items():
        if key not in data.rows:
            problems.add(f"image {key!r}", f"{Path(image['file_name']).name} has no record in this file")
    problems.raise_if_any()
    stuff = sorted((one.id, one.name) for one in data.categories if not one.isthing)
    stuff_ids = {key: i for i, (key, _) in enumerate(stuff)}
    thing_ids = metadata.thing_dataset_id_to_contiguous_id
    wanted = {data.rows[key] for key in images}
    for row in wanted:
        for segment in data.segments[row]:
            category = segment.get("category_id")
            if is_whole(category) and category not in thing_ids and category not in stuff_ids:
                text = f"category_id {category!r} is not among the classes of the annotation file"
                data.findings.add(f"segment {segment['id']}", "error", [row], text)
    data.refuse(wanted)
    for key, image in images.items():
        row = data.rows[key]
        image["pan_seg_file_name"] = str(data.path(row))
        image["segments_info"] = [
            {
                **segment,
                "category_id": thing_ids.get(segment["category_id"], stuff_ids.get(segment["category_id"])),
                "isthing": segment["category_id"] in thing_ids,
            }
            for segment in data.segments[row]
        ]
    metadata.set(panoptic_json=str(file), panoptic_root=str(folder), stuff_dataset_id_to_contiguous_id=stuff_ids)
    stuff_names = [name for _, name in stuff]
    metadata.set(segment_stuff_classes=stuff_names)
    if labels is not None:
        names = panoptic_label_names(metadata.thing_classes, stuff_names, labels)
        metadata.set(panoptic_labels=labels, stuff_classes=names)
    elif "stuff_classes" not in metadata.as_dict():
        metadata.set(stuff_classes=stuff_names)
