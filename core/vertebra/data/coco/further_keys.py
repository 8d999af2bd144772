"""Keys of a COCO file's records beyond the usual: those of images are passed on; those of annotations are kept
where they are declared, the others named in one line."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vertebra.config.extra_fields import RESERVED, FieldSection
from vertebra.data.extra_fields import unused_keys, unused_note
from vertebra_eval.coco.images import CocoImages

__all__ = ["declared_keys", "kept_of_image", "tell_unused"]

logger = logging.getLogger(__name__)


def declared_keys(fields: Mapping[str, FieldSection], *, of_instances: bool | None = None) -> set[str]:
    """Keys of the declared fields; None: of images and of instances."""
    chosen = {name: field for name, field in fields.items() if of_instances in (None, field.of_instances)}
    return {field.key or name for name, field in chosen.items()}


def kept_of_image(
    found: CocoImages, row: int, image_root: Path, fields: Mapping[str, FieldSection], paths_too: bool = False
) -> dict[str, Any]:
    """The further keys of one image. Paths of declared fields count from `image_root`.

    Args:
        paths_too: so do texts that name a file there, of fields that may be declared later.
    """
    of_files = {field.key or name for name, field in fields.items() if field.geometry in ("dense_map", "image")}
    values = {}
    for key in sorted(found.kept.keys() - (RESERVED - declared_keys(fields))):
        value = found.kept[key][row]
        if isinstance(value, str) and (key in of_files or (paths_too and (image_root / value).is_file())):
            value = str(image_root / value)
        if value is not None:
            values[key] = value
    return values


def tell_unused(
    file: Path, images: CocoImages, annotation_keys: Collection[str], fields: Mapping[str, FieldSection]
) -> None:
    """Logs the keys that nothing reads."""
    if taken := sorted(images.kept.keys() & RESERVED - declared_keys(fields)):
        logger.warning(
            "%s: images have keys that mean something else here and are not used: %s. Rename them",
            file,
            ", ".join(taken),
        )
    if keys := unused_keys(annotation_keys, fields):
        logger.warning("%s: %s", file, unused_note(keys))
