"""Predictions of any kind as arrays: one .npz file for each image."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.predictor.predictor import Prediction
from vertebra.predictor.writers import Writer, check_free
from vertebra.structures import Instances
from vertebra_eval.files import free_path, open_whole

__all__ = ["ArrayWriter"]

logger = logging.getLogger(__name__)


class ArrayWriter(Writer):
    """`arrays/<image>.npz`: each output of numbers under its key, fields of instances as `instances.scores`.

    Other values, such as run lengths or texts, are named in one line of the log.
    """

    def __init__(self, folder: Path, metadata: Any) -> None:
        self.folder = folder / "arrays"
        check_free(self.folder)
        self.folder.mkdir(parents=True)
        self._warned: set[str] = set()

    def add(self, prediction: Prediction) -> None:
        arrays = {}
        for key, value in _leaves(prediction.outputs):
            array = _numbers(value)
            if array is not None:
                arrays[key] = array
            elif key not in self._warned:
                self._warned.add(key)
                logger.warning("arrays/*.npz do not hold the output %s: it is not an array of numbers", key)
        with open_whole(free_path(self.folder, prediction.frame.stem, ".npz")) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub has one more keyword

    @property
    def written(self) -> list[Path]:
        return [self.folder]


def _leaves(outputs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in outputs.items():
        if isinstance(value, Instances):
            for name, field in value.get_fields().items():
                yield f"{key}.{name}", getattr(field, "tensor", field)
        else:
            yield key, value


def _numbers(value: Any) -> np.ndarray | None:
    """As an array of numbers; None where it is something else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic, int, float)) else None
    return array if array is not None and array.dtype.kind in "biufc" else None
