"""The generated dataset `shapes`, written as a COCO folder. The same arguments give the same files, byte for byte.

    make_shapes("data/shapes", images=2000, seed=0)

    images/{train,val}/*.jpg            pictures
    annotations/instances_*.json        boxes, masks (polygons and run lengths), crowds
    annotations/keypoints_*.json        the same with five keypoints per object
    annotations/panoptic_*.json         with panoptic/{train,val}/*.png
    semantic/{train,val}/*.png          class indices, 255 where a pixel has none

Picture i of a split depends on the seed, the split, i and the options of the scenes alone: neither on how many
pictures there are nor on the number of workers.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from vertebra.data.shapes_files import MANIFEST, write_dataset
from vertebra.data.shapes_plan import Extent, ShapesPlan, is_whole, plan_shapes
from vertebra.errors import DataError
from vertebra_eval.regular_files import read_text

__all__ = ["make_shapes", "write_plan"]

_log = logging.getLogger(__name__)


def make_shapes(
    directory: str | os.PathLike,
    *,
    images: int = 2000,
    val_images: int | None = None,
    seed: int = 0,
    size: int | str | Sequence[Extent] = (128, 160),
    num_classes: int = 3,
    max_objects: int = 6,
    object_size: Sequence[float] = (0.2, 0.6),
    crowds: float = 0.1,
    empty: float = 0.02,
    workers: int = 1,
) -> Path:
    """Write the dataset into a new or empty folder, all of it or nothing; does nothing if it is there already.

    Args:
        directory: the folder; missing parents are made.
        images: pictures in split train.
        val_images: pictures in split val; a fifth of `images` by default, at least 1.
        seed: 0 or more.
        size: (height, width) in pixels, each a number or a (least, largest) range; one number makes squares.
            As text: "160", "128x160", "128-192" (both sides from that range), "96-128x128-192".
        num_classes: 1 to 12 differ in outline, up to 60 also in pattern, up to 2784 also in colors.
        max_objects: most objects in a picture, besides a crowd; at most 90.
        object_size: least and largest diameter of an object, as a share of the picture's shorter side.
        crowds: share of the pictures with a crowd.
        empty: share of the pictures without any object.
        workers: processes; above 1 they are spawned, so a script needs its `if __name__ == "__main__":`.

    Returns:
        The folder.

    Raises:
        DataError: an argument out of range, a folder that holds something else, or a disk that cannot be written.
    """
    plan = plan_shapes(images, val_images, seed, size, num_classes, max_objects, object_size, crowds, empty)
    if not is_whole(workers) or workers < 1:
        raise DataError(f"shapes: workers is {workers!r}, expected a whole number from 1 (the number of processes)")
    return write_plan(Path(directory), plan, workers)


def write_plan(directory: Path, plan: ShapesPlan, workers: int = 1) -> Path:
    """`make_shapes` for a plan that was checked already. Writes beside the folder and renames at the end."""
    target = directory.expanduser().absolute()
    if _is_done(target, plan):
        _log.info("%s already holds this dataset; nothing to do", target)
        return target
    draft = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        draft.mkdir(parents=True)
        write_dataset(draft, plan, workers)
        if target.exists():
            target.rmdir()  # empty, as seen above
        draft.rename(target)
    except OSError as err:
        if _finished_meanwhile(target, plan):
            return target
        place = f" ({err.filename})" if err.filename else ""
        raise DataError(
            f"shapes: cannot write {target}: {err.strerror or err}{place}.\n"
            "  Free some space, or choose a folder that you may write to. Nothing was left behind."
        ) from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _finished_meanwhile(target: Path, plan: ShapesPlan) -> bool:
    """Whether another process put the same dataset in place while this one was writing."""
    return (target / MANIFEST).is_file() and _is_done(target, plan)


def _is_done(target: Path, plan: ShapesPlan) -> bool:
    """Whether the folder holds exactly this dataset; false where it may be written. Anything else is an error."""
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return False
        if not target.is_dir():
            raise DataError(f"shapes: {target} is a file; name a new folder")
        manifest = json.loads(read_text(target / MANIFEST))
    except FileNotFoundError:
        raise DataError(f"shapes: {target} holds other files; name a new or empty folder") from None
    except ValueError:
        raise DataError(f"shapes: {target / MANIFEST} is damaged; remove {target} or name another folder") from None
    except OSError as err:
        raise DataError(f"shapes: cannot read {target}: {err.strerror or err}") from err
    if manifest == plan.manifest():
        return True
    differs = _differences(manifest, plan.manifest()) if isinstance(manifest, dict) else "everything"
    raise DataError(
        f"shapes: {target} holds a dataset made with other arguments ({differs}).\n"
        "  Name a new folder, or remove that one first."
    )


def _differences(there: dict, asked: dict) -> str:
    flat_there, flat_asked = ({**d, **(d.get("scene") or {})} for d in (there, asked))
    keys = [key for key in flat_asked if key != "scene" and flat_there.get(key) != flat_asked[key]]
    return (
        ", ".join(f"{key} {flat_there.get(key)} there, {flat_asked[key]} requested" for key in keys) or "more settings"
    )
