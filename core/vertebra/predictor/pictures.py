"""Predictions drawn: a PNG for each image, a video for each video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.config.component import described, where_written
from vertebra.data.panoptic_labels import stuff_segment_names
from vertebra.errors import PluginError
from vertebra.models import BaseModel
from vertebra.predictor.prediction_records import class_names_of, outputs_of
from vertebra.predictor.predictor import Prediction
from vertebra.predictor.video import VideoWriter
from vertebra.predictor.writers import Writer
from vertebra.visualize import Style, draw_instances, draw_panoptic, draw_sem_seg_overlay, save_png, skeleton_of
from vertebra_eval.files import free_path

__all__ = ["PictureWriter", "draw_prediction"]


class PictureWriter(Writer):
    """`<image>.png` for each image, `<video>.mp4` for each video; of a model of several tasks one picture a task.

    A picture keeps its name (`cells.jpg` -> `cells.png`; of two equal names the second becomes `cells-2.png`).
    """

    def __init__(self, folder: Path, metadata: Any, model: BaseModel | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.metadata = metadata
        self.model = model
        self.pictures: list[Path] = []
        self.drawn_by_tasks: set[str] = set()
        """Outputs that a head has drawn itself."""
        self._videos: dict[str, VideoWriter] = {}
        self._shown = ("", -1)  # name and number of the frame before

    def add(self, prediction: Prediction) -> None:
        frame = prediction.frame
        if frame.number is None or (frame.name, frame.number) <= self._shown or frame.name != self._shown[0]:
            self.close()  # the video before is complete
        self._shown = (frame.name, -1 if frame.number is None else frame.number)
        style = Style(min_side=0) if frame.number is not None else None
        own, left = _drawn_by_tasks(frame.picture, prediction.outputs, self.metadata, self.model)
        self.drawn_by_tasks |= prediction.outputs.keys() - left.keys()
        for suffix, picture in _apart(own + _drawn_as_usual(Prediction(frame, left), self.metadata, style)):
            if frame.rate is None:  # not a video's
                self.pictures.append(save_png(picture, free_path(self.folder, frame.stem + suffix, ".png")))
                continue
            if suffix not in self._videos:
                stem = Path(frame.name).stem.replace(" ", "_")
                path = free_path(self.folder, stem + suffix, ".mp4")
                self._videos[suffix] = VideoWriter(path, frame.rate)
                self.pictures.append(path)
            self._videos[suffix].add(picture, frame.seconds or 0.0)

    def close(self) -> None:
        for video in self._videos.values():
            video.close()
        self._videos.clear()

    @property
    def written(self) -> list[Path]:
        return self.pictures


def draw_prediction(
    prediction: Prediction, metadata: Any, style: Style | None = None, model: BaseModel | None = None
) -> list[tuple[str, np.ndarray]]:
    """One picture for each output that can be drawn: a suffix for its file's name, and (H', W', 3) uint8 RGB.

    Args:
        model: gave the outputs; its heads draw theirs where they have a `draw` of their own.
    """
    own, left = _drawn_by_tasks(prediction.frame.picture, prediction.outputs, metadata, model)
    return _apart(own + _drawn_as_usual(Prediction(prediction.frame, left), metadata, style))


def _drawn_as_usual(prediction: Prediction, metadata: Any, style: Style | None) -> list[tuple[str, np.ndarray]]:
    image = prediction.frame.picture
    pictures: list[tuple[str, np.ndarray]] = []
    things, stuff = class_names_of(prediction, metadata), metadata.get("stuff_classes")
    for suffix, (ids, segments) in outputs_of(prediction, "panoptic_seg"):
        names = things, stuff_segment_names(things, stuff)
        pictures.append((suffix, draw_panoptic(image, ids, segments, *names, style=style)))
    for suffix, found in outputs_of(prediction, "instances"):
        pictures.append((suffix, draw_instances(image, found, things, skeleton=skeleton_of(metadata), style=style)))
    for suffix, labels in outputs_of(prediction, "sem_seg"):
        colors: Sequence | None = metadata.get("stuff_colors")
        pictures.append((suffix, draw_sem_seg_overlay(image, labels, stuff or things, colors=colors, style=style)))
    return pictures


def _drawn_by_tasks(
    image: np.ndarray, outputs: dict[str, Any], metadata: Any, model: BaseModel | None
) -> tuple[list[tuple[str, np.ndarray]], dict[str, Any]]:
    """Pictures that the tasks draw themselves, and the outputs that are left to be drawn."""
    pictures: list[tuple[str, np.ndarray]] = []
    left = dict(outputs)
    tasks = {} if model is None else model.tasks
    for name, task in tasks.items():
        if getattr(task, "training_only", False):
            continue
        keys = {key: f"{name}/{key}" if f"{name}/{key}" in outputs else key for key in task.task_outputs or outputs}
        own = {key: outputs[called] for key, called in keys.items() if called in outputs}
        drawn = task.draw(image, own, metadata)
        if drawn is not None:
            pictures.append((f"-{name}" if len(tasks) > 1 else "", _checked(drawn, task)))
            left = {key: value for key, value in left.items() if key not in keys.values()}
    return pictures, left


def _checked(drawn: Any, task: Any) -> np.ndarray:
    right = isinstance(drawn, np.ndarray) and drawn.ndim == 3 and drawn.shape[2] == 3 and drawn.dtype == np.uint8
    if not right:
        raise PluginError(
            f"{where_written(task, type(task).__name__)}: draw returned {described(drawn)}, expected an array "
            "(H, W, 3) uint8, or None"
        )
    return drawn


def _apart(pictures: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """Suffixes that differ: the first picture has the image's own name."""
    seen: dict[str, int] = {}
    result = []
    for suffix, picture in pictures:
        seen[suffix] = seen.get(suffix, 0) + 1
        result.append((suffix if seen[suffix] == 1 else f"{suffix}-{seen[suffix]}", picture))
    return result
