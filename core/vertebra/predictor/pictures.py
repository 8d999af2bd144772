"""Predictions drawn: a PNG for each image, a video for each video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.data.panoptic_labels import stuff_segment_names
from vertebra.predictor.prediction_records import outputs_of
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

    def __init__(self, folder: Path, metadata: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.metadata = metadata
        self.pictures: list[Path] = []
        self._videos: dict[str, VideoWriter] = {}
        self._shown = ("", -1)  # name and number of the frame before

    def add(self, prediction: Prediction) -> None:
        frame = prediction.frame
        if frame.number is None or (frame.name, frame.number) <= self._shown or frame.name != self._shown[0]:
            self.close()  # the video before is complete
        self._shown = (frame.name, -1 if frame.number is None else frame.number)
        style = Style(min_side=0) if frame.number is not None else None
        for suffix, picture in draw_prediction(prediction, self.metadata, style):
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


def draw_prediction(prediction: Prediction, metadata: Any, style: Style | None = None) -> list[tuple[str, np.ndarray]]:
    """One picture for each output that can be drawn: a suffix for its file's name, and (H', W', 3) uint8 RGB."""
    image = prediction.frame.picture
    things, stuff = metadata.get("thing_classes"), metadata.get("stuff_classes")
    pictures: list[tuple[str, np.ndarray]] = []
    for suffix, (ids, segments) in outputs_of(prediction, "panoptic_seg"):
        names = things, stuff_segment_names(things, stuff)
        pictures.append((suffix, draw_panoptic(image, ids, segments, *names, style=style)))
    for suffix, found in outputs_of(prediction, "instances"):
        pictures.append((suffix, draw_instances(image, found, things, skeleton=skeleton_of(metadata), style=style)))
    for suffix, labels in outputs_of(prediction, "sem_seg"):
        colors: Sequence | None = metadata.get("stuff_colors")
        pictures.append((suffix, draw_sem_seg_overlay(image, labels, stuff or things, colors=colors, style=style)))
    return _apart(pictures)


def _apart(pictures: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """Suffixes that differ: the first picture has the image's own name."""
    seen: dict[str, int] = {}
    result = []
    for suffix, picture in pictures:
        seen[suffix] = seen.get(suffix, 0) + 1
        result.append((suffix if seen[suffix] == 1 else f"{suffix}-{seen[suffix]}", picture))
    return result
