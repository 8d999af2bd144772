"""What a checkpoint keeps of the dataset that its model was trained on, so that the model can be used without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vertebra.data import Metadata
from vertebra.errors import CheckpointError

__all__ = ["check_same_classes", "facts_in", "facts_to_keep"]

# Where the files of a dataset lie and how they are read, which means nothing without them.
_PLACES = {"name", "json_file", "image_root", "image_dir", "sem_seg_root", "panoptic_json", "panoptic_root"}
_PLACES |= {"evaluator_type", "dirname", "gt_dir", "cityscapes_root", "missing_images", "label_map", "label_colors"}
_PLACES |= {"notes", "object_notes"}  # on its records
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("thing_classes", "stuff_classes", "keypoint_names", "dropped_classes"), list),
    **dict.fromkeys(("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"), Mapping),
}


def facts_to_keep(metadata: Any | None) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """{dataset name: its facts} for a checkpoint, and the names of facts that are not plain data, which it omits."""
    if metadata is None:
        return {}, []
    facts = {key: value for key, value in vars(metadata).items() if key not in _PLACES and not key.startswith("_")}
    plain = {key: value for key, value in facts.items() if _is_plain(value)}
    return {str(getattr(metadata, "name", "dataset")): plain}, sorted(facts.keys() - plain.keys())


def facts_in(content: Mapping[str, Any], name: str) -> Metadata | None:
    """The facts that a checkpoint keeps; None where it names no classes (weights alone, imported ones).

    Args:
        name: of the result, where the checkpoint does not name its dataset (those of vertebra 0.1 do not).
    Raises:
        CheckpointError: facts of a wrong type.
    """
    kept = content.get("metadata")
    if kept is None or (isinstance(kept, Mapping) and not kept):
        return _of_lists(content, name)
    dataset, facts = next(iter(kept.items())) if isinstance(kept, Mapping) else ("", None)
    if not isinstance(facts, Mapping):
        raise CheckpointError(
            f"{name}: `metadata` is not {{dataset: its facts}}: the file is damaged or not a checkpoint"
        )
    for key, kind in _TYPES.items():
        value = facts.get(key)
        texts = kind is list and isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
        if value is not None and not texts and not (kind is Mapping and isinstance(value, Mapping)):
            raise CheckpointError(
                f"{name}: `metadata`: {key} is {value!r:.60}: the file is damaged or not a checkpoint"
            )
    return Metadata(str(dataset)).set(**{str(key): value for key, value in facts.items() if key != "name"})


def check_same_classes(content: Mapping[str, Any], metadata: Any | None, source: str | Path) -> None:
    """A training that is resumed has the classes of its checkpoint, in the same order.

    Raises:
        CheckpointError: it has not; shows both lists.
    """
    kept = facts_in(content, str(source))
    for key in ("thing_classes", "stuff_classes", "keypoint_names"):
        before, now = (list(getattr(one, key, None) or ()) for one in (kept, metadata))
        if before and now and before != now:
            raise CheckpointError(
                f"{source}: {key} of the training set are no longer those of the checkpoint.\n"
                f"  checkpoint: {', '.join(before)}\n  training set: {', '.join(now)}\n"
                "  Resume with the dataset of the run, or start a new run with model.weights set to this file, which "
                "keeps the weights of classes with the same name"
            )


def _of_lists(content: Mapping[str, Any], name: str) -> Metadata | None:
    """Names and ids as lists, which importers write, and as vertebra 0.1 wrote them."""
    keys = ("classes", "stuff_classes", "category_ids", "stuff_category_ids")
    things, stuff, *ids = (list(content[key]) if isinstance(content.get(key), (list, tuple)) else [] for key in keys)
    if things == stuff:  # without things, the stuff stood under `classes` as well
        things = []
    metadata = Metadata(name)
    for kind, names, numbers in (("thing", things, ids[0]), ("stuff", stuff, ids[1])):
        if names:
            metadata.set(**{f"{kind}_classes": names})
        if names and numbers:
            metadata.set(**{f"{kind}_dataset_id_to_contiguous_id": {known: i for i, known in enumerate(numbers)}})
    return metadata if things or stuff else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, (str, int, float)) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int, float, bool, type(None), torch.Tensor))
