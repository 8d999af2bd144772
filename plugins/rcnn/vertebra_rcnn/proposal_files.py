"""Proposals of a dataset in a file, and the dataset format that puts them beside the annotations.

Files: `.npz` (ours: `image_ids` (I,), `counts` (I,), `boxes` (sum of counts, 4) xyxy in pixels of the files' images,
`logits` (sum of counts,)), `.json` in COCO's form of results (a list of `image_id`, `bbox` x, y, w, h, `score`), and
Detectron2's `.pkl` (`ids`, `boxes`, `objectness_logits`, perhaps `bbox_mode`), of which nothing is executed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data import Dataset, Format, resolve_path
from vertebra.errors import CheckpointError, DataError
from vertebra.files import open_whole, read_json
from vertebra.models import check_archive, read_pickle_content
from vertebra.structures import BoxMode

__all__ = ["WithProposals", "read_proposals", "write_proposals"]

Proposals = tuple[np.ndarray, np.ndarray]
"""Of one image: boxes (P, 4) float32 xyxy in pixels, logits (P,) float32."""


class WithProposals(Format):
    """A dataset whose images have proposals from a file, for `PrecomputedProposals`.

    Args:
        dataset: any other format.
        proposals: the file, see this module. A relative path counts from `data.root`.
        topk: only this many of the best per image are kept.
    """

    def __init__(self, dataset: Format, proposals: str, topk: int = 2000) -> None:
        self.dataset = dataset
        self.proposals = proposals
        self.topk = topk

    def load(self, root: str | None = None) -> Dataset:
        self.dataset.fields = self.fields
        dataset = self.dataset.load(root)
        path = resolve_path(self.proposals, root)
        found = read_proposals(path)
        missing = [str(record["image_id"]) for record in dataset if _key(record["image_id"]) not in found]
        if missing:
            raise DataError(
                f"{path}: has no proposals for {len(missing)} of the {len(dataset)} images of {dataset.name}, such "
                f"as {', '.join(missing[:5])}. An image may have none, but the file has to name it"
            )
        return Dataset((self._joined(record, found) for record in dataset), dataset.metadata)

    def _joined(self, record: dict, found: Mapping[str, Proposals]) -> dict:
        boxes, logits = found[_key(record["image_id"])]
        best = np.argsort(-logits, kind="stable")[: self.topk]
        return {**record, "proposal_boxes": boxes[best], "proposal_objectness_logits": logits[best]}


def write_proposals(path: Path, proposals: Iterable[tuple[Any, np.ndarray, np.ndarray]]) -> None:
    """An `.npz` of (image id, boxes (P, 4) xyxy in pixels, logits (P,)) of each image."""
    rows = list(proposals)
    with open_whole(path) as file:
        np.savez_compressed(
            file,
            image_ids=np.array([str(name) for name, _, _ in rows]),
            counts=np.array([len(boxes) for _, boxes, _ in rows], np.int64),
            boxes=np.concatenate([np.zeros((0, 4)), *(boxes.reshape(-1, 4) for _, boxes, _ in rows)]).astype(
                np.float32
            ),
            logits=np.concatenate([np.zeros(0), *(logits for _, _, logits in rows)]).astype(np.float32),
        )


def read_proposals(path: Path) -> dict[str, Proposals]:
    """{image id as text: (boxes, logits)}.

    Raises:
        DataError: not there, not one of the three kinds, or not consistent.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of proposals. A relative path counts from data.root")
    readers = {".npz": _read_npz, ".json": _read_json, ".pkl": _read_pickle}
    if path.suffix not in readers:
        raise DataError(f"{path}: proposals are read from {', '.join(readers)}, not from {path.suffix or 'this'}")
    try:
        return readers[path.suffix](path)
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, OSError, EOFError) as err:
        raise DataError(f"{path}: cannot be read as proposals ({type(err).__name__}: {err})") from err
    except CheckpointError as err:
        raise DataError(str(err)) from err


def _read_npz(path: Path) -> dict[str, Proposals]:
    check_archive(path)
    with np.load(path, allow_pickle=False) as file:
        ids, counts, boxes, logits = (file[name] for name in ("image_ids", "counts", "boxes", "logits"))
    if len(ids) != len(counts) or boxes.shape != (counts.sum(), 4) or logits.shape != (len(boxes),):
        raise ValueError(
            f"{len(ids)} images of {counts.sum()} proposals, but boxes {boxes.shape}, logits {logits.shape}"
        )
    ends = np.cumsum(counts)[:-1]
    return _by_image(ids, np.split(boxes, ends), np.split(logits, ends))


def _read_json(path: Path) -> dict[str, Proposals]:
    boxes: dict[Any, list] = {}
    scores: dict[Any, list] = {}
    for record in read_json(path, unique_keys=False):
        x, y, width, height = record["bbox"]
        boxes.setdefault(record["image_id"], []).append((x, y, x + width, y + height))
        scores.setdefault(record["image_id"], []).append(record["score"])
    return _by_image(boxes, map(np.array, boxes.values()), map(_logit, scores.values()))


def _read_pickle(path: Path) -> dict[str, Proposals]:
    content = read_pickle_content(path)
    mode = BoxMode(int(content.get("bbox_mode", BoxMode.XYXY_ABS)))
    boxes = [np.asarray(one, np.float64).reshape(-1, 4) for one in content["boxes"]]
    boxes = [BoxMode.convert(one, mode, BoxMode.XYXY_ABS) if len(one) else one for one in boxes]
    return _by_image(content["ids"], boxes, content["objectness_logits"])


def _by_image(ids: Iterable[Any], boxes: Iterable[np.ndarray], logits: Iterable[np.ndarray]) -> dict[str, Proposals]:
    found = {}
    for name, one, score in zip(ids, boxes, logits, strict=True):
        one, score = np.asarray(one, np.float32).reshape(-1, 4), np.asarray(score, np.float32).reshape(-1)
        if len(one) != len(score) or not (np.isfinite(one).all() and np.isfinite(score).all()):
            raise ValueError(
                f"image {name}: {len(one)} boxes and {len(score)} scores; expected the same number of finite ones"
            )
        found[_key(name)] = (one, score)
    return found


def _key(image_id: Any) -> str:
    return str(image_id.item() if isinstance(image_id, (np.generic, np.ndarray)) else image_id)


def _logit(scores: list[float]) -> np.ndarray:
    p = np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))
