"""Keys of a COCO file's records beyond the usual: those that are declared are kept, the others named in one line."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vertebra.config.extra_fields import FieldSection
from vertebra.data.extra_fields import unused_keys, unused_note
from vertebra_eval.coco.images import CocoImages

__all__ = ["declared_keys", "kept_of_image", "tell_unused"]

logger = logging.getLogger(__name__)

_USED_OF_IMAGES = frozenset(
    (
        *("id", "file_name", "width", "height", "license", "coco_url", "flickr_url", "date_captured"),
        *("neg_category_ids", "not_exhaustive_category_ids", "crowdIndex"),
    )
)
"""Of COCO itself, LVIS and CrowdPose."""


def declared_keys(fields: Mapping[str, FieldSection], *, of_instances: bool | None = None) -> set[str]:
    """Keys of the declared fields; None: of images and of instances."""
    chosen = {name: field for name, field in fields.items() if of_instances in (None, field.of_instances)}
    return {field.key or name for name, field in chosen.items()}


def kept_of_image(
    found: CocoImages, row: int, image_root: Path, fields: Mapping[str, FieldSection], keep_all: bool
) -> dict[str, Any]:
    """The declared fields of one image, by key, or all that is not read otherwise. Paths count from `image_root`."""
    of_files = {field.key or name for name, field in fields.items() if field.geometry in ("dense_map", "image")}
    keys = found.kept.keys() - _USED_OF_IMAGES if keep_all else declared_keys(fields, of_instances=False)
    values = {}
    for key in keys & found.kept.keys():
        value = found.kept[key][row]
        if isinstance(value, str) and (key in of_files or (keep_all and (image_root / value).is_file())):
            value = str(image_root / value)
        if value is not None:
            values[key] = value
    return values


def tell_unused(
    file: Path, images: CocoImages, annotation_keys: Collection[str], fields: Mapping[str, FieldSection]
) -> None:
    """Logs the keys that nothing reads."""
    of_images = sorted(str(key) for key in images.keys - _USED_OF_IMAGES - declared_keys(fields))
    for what, keys in (("images", of_images), ("annotations", unused_keys(annotation_keys, fields))):
        if keys:
            logger.warning("%s: %s", file, unused_note(what, keys))
