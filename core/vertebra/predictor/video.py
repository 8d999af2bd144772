"""Videos and cameras through OpenCV, which is optional."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vertebra.errors import DataError, SetupError

__all__ = ["VIDEO_SUFFIXES", "VideoWriter", "read_video"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
_USUAL_RATE = 25.0  # frames a second, where a camera does not say


def read_video(source: str | int, name: str) -> Iterator[tuple[np.ndarray, float, float]]:
    """Frames of a video file, or of a camera for as long as it gives any.

    Yields:
        The frame (H, W, 3) uint8 RGB, seconds since the beginning, frames a second.
    Raises:
        SetupError: OpenCV is not installed.
        DataError: the file or camera cannot be opened, or gives not a single frame.
    """
    cv2 = _opencv(name)
    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            what = "no such camera, or it is in use" if isinstance(source, int) else "not a video OpenCV can read"
            raise DataError(f"{name}: {what}")
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = float(rate) if 0 < rate < 1000 else _USUAL_RATE
        number = 0
        while True:
            there, image = capture.read()
            if not there:
                break
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB), number / rate, rate
            number += 1
        if number == 0:
            raise DataError(f"{name}: not a single frame can be read; the file is damaged or its codec is unknown")
    finally:
        capture.release()


class VideoWriter:
    """Writes pictures of one size as an MP4 file; the first picture decides the size.

    Args:
        path: the .mp4 file.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._writer: Any = None
        self._cv2 = _opencv(str(path))

    def add(self, picture: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB; a picture of another size is stretched to the first one's."""
        cv2 = self._cv2
        if self._writer is None:
            height, width = (side - side % 2 for side in picture.shape[:2])  # the codec wants even sides
            self._size = (max(width, 2), max(height, 2))
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self.rate, self._size)
            if not self._writer.isOpened():
                raise DataError(f"{self.path}: OpenCV cannot write a video here")
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


def _opencv(name: str) -> Any:
    try:
        import cv2
    except ImportError as err:
        raise SetupError(
            f"{name}: videos and cameras need OpenCV, which cannot be imported ({err}).\n"
            "  Fix it: pip install 'vertebra[video]'"
        ) from err
    return cv2
