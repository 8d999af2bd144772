"""Video files through FFmpeg (PyAV), by the time stamps of their frames, and cameras through OpenCV; both optional."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vertebra.errors import DataError, SetupError
from vertebra_eval.files import check_regular
from vertebra_eval.nearest import listed

__all__ = ["VIDEO_SUFFIXES", "VideoFrame", "VideoWriter", "read_camera", "read_video"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
_USUAL_RATE = 25.0  # frames a second, where a file or camera does not say
_TICK = Fraction(1, 16_000)  # seconds; of what is written, so that any rate and varying ones keep their times
_MOST_NAMED = 5  # skipped frames whose numbers are shown


class VideoFrame(NamedTuple):
    """One frame.

    Args:
        image: (H, W, 3) uint8 RGB, upright.
        number: from 0; frames that were skipped have theirs.
        seconds: since the first frame.
        rate: frames a second, on average.
    """

    image: np.ndarray
    number: int
    seconds: float
    rate: float


def read_video(path: str | Path) -> Iterator[VideoFrame]:
    """The frames of a video file that can be decoded, in the order in which they are shown.

    Raises:
        SetupError: PyAV is not installed.
        DataError: the file is not a video; or, after the last frame, some were damaged or the file ends early: says
            which.
    """
    av = _pyav(str(path))
    try:
        check_regular(path)
        container = av.open(str(path))
    except (OSError, ValueError, av.FFmpegError) as err:
        raise DataError(f"{path}: not a video that FFmpeg can read ({_reason(err)})") from err
    with container:
        if not container.streams.video:
            kinds = ", ".join(sorted({each.type for each in container.streams})) or "nothing that can be read"
            raise DataError(f"{path}: not a video that FFmpeg can read (no pictures; it holds {kinds})")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        decoded = _Decoded(av, container, stream)
        yield from decoded
        decoded.raise_if_incomplete(path)


class _Decoded:
    """The frames of a stream, and afterwards what is missing."""

    def __init__(self, av: Any, container: Any, stream: Any) -> None:
        self.av, self.container, self.stream = av, container, stream
        self.rate = float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
        self.number = 0
        self.skipped: list[int] = []
        self.last = self.end = 0.0  # seconds at which the last frame begins, and gives way
        self.longest = 1 / self.rate  # seconds that a frame was shown
        self.error: str | None = None
        self.broken = False  # since the last key frame

    def __iter__(self) -> Iterator[VideoFrame]:
        start = self.stream.start_time
        first = None if start is None else float(start * self.stream.time_base)
        for frame in self._frames():
            time_of = frame.time if frame.time is not None else self.number / self.rate
            first = time_of if first is None else min(first, time_of)
            # what refers to a damaged frame is wrong too, and the decoder does not say so
            self.broken = frame.is_corrupt or (self.broken and not frame.key_frame)
            if self.broken:
                self.skipped.append(self.number)
            else:
                image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield VideoFrame(np.ascontiguousarray(image), self.number, time_of - first, self.rate)
            self.longest = max(self.longest, time_of - first - self.last)
            self.last = time_of - first
            self.end = self.last + max(float((frame.duration or 0) * self.stream.time_base), 1 / self.rate)
            self.number += 1

    def _frames(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except self.av.FFmpegError as err:
                self.error = _reason(err)
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self.av.FFmpegError:  # the decoder goes on with the next one
                self.skipped.append(self.number)
                self.number += 1
                self.broken = True

    def raise_if_incomplete(self, path: str | Path) -> None:
        announced, seconds = self.stream.frames, self._announced_seconds()
        # Files that announce a number of frames may leave some of them empty: the one before is shown for longer.
        slack = 1.5 * (self.longest if announced else 1 / self.rate)
        is_short = seconds is not None and self.end + slack < seconds and not 0 < announced <= self.number
        told = []
        if self.skipped:
            numbers = listed(self.skipped, _MOST_NAMED)
            what = "are damaged, or refer to such, and were skipped"
            told.append(f"{len(self.skipped)} of {self.number} frames {what} (number {numbers})")
        if is_short or self.error:
            of = f" of {announced} frames" if announced else f" of {seconds:.2f} seconds" if seconds else ""
            came = f"{self.number}" if announced else f"{self.end:.2f}"
            told.append(f"it ends after {came}{of}{f' ({self.error})' if self.error else ''}; was it cut off?")
        if self.number == len(self.skipped):
            raise DataError(f"{path}: not a single frame can be read; the file is damaged or its codec is unknown")
        if told:
            raise DataError(f"{path}: {'; '.join(told)}")

    def _announced_seconds(self) -> float | None:
        """The duration of the pictures by the file's header: of the stream, or of the whole where it has one stream."""
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", self.stream.metadata.get("DURATION", ""))
        start = 0.0  # Matroska counts from 0, also where its first frame comes later
        if "matroska" in self.container.format.name and self.stream.start_time:
            start = float(self.stream.start_time * self.stream.time_base)
        if clock:
            return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]) - start
        if self.container.duration and len(self.container.streams) == 1:
            return self.container.duration / self.av.time_base - start
        return None


def read_camera(number: int) -> Iterator[VideoFrame]:
    """Frames of a camera for as long as it gives any; `seconds` are those of the clock.

    Raises:
        SetupError: OpenCV is not installed.
        DataError: there is no such camera, or it gives not a single frame.
    """
    cv2 = _opencv(f"camera {number}")
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise DataError(f"camera {number}: no such camera, or it is in use")
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = float(rate) if 0 < rate < 1000 else _USUAL_RATE
        count, start = 0, 0.0
        while True:
            there, image = capture.read()
            if not there:
                break
            now = time.monotonic()
            start = start if count else now
            yield VideoFrame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), count, now - start, rate)
            count += 1
        if count == 0:
            raise DataError(f"camera {number}: gives not a single frame")
    finally:
        capture.release()


class VideoWriter:
    """Writes pictures as an MP4 file, each shown from its time on; the first picture decides the size.

    Args:
        path: the .mp4 file.
        rate: frames a second, on average; for players that ask.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self._av = _pyav(str(path))
        self._rate = Fraction(rate).limit_denominator(1000)
        self._container: Any = None
        self._last = -1

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """(H, W, 3) uint8 RGB; a picture of another size is stretched to the first one's."""
        try:
            if self._container is None:
                self._open(*picture.shape[:2])
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            self._last = frame.pts = max(round(seconds / _TICK), self._last + 1)
            frame.time_base = _TICK
            self._container.mux(self._stream.encode(frame))
        except self._av.FFmpegError as err:
            raise DataError(f"{self.path}: cannot be written as a video ({_reason(err)})") from err

    def _open(self, height: int, width: int) -> None:
        self._container = self._av.open(str(self.path), "w", format="mp4")
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        # Frames in the order in which they are shown: with B-frames MP4 tells the length of varying rates wrongly
        self._stream = self._container.add_stream(codec, rate=self._rate, options={"bf": "0", "preset": "veryfast"})
        self._stream.width, self._stream.height = max(width // 2 * 2, 2), max(height // 2 * 2, 2)  # even: 4:2:0
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _TICK

    def close(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._container = None


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as err:
        raise SetupError(_needs(name, "video files", "PyAV", err)) from err
    return av


def _opencv(name: str) -> Any:
    try:
        import cv2
    except ImportError as err:
        raise SetupError(_needs(name, "cameras", "OpenCV", err)) from err
    return cv2


def _needs(name: str, what: str, package: str, err: ImportError) -> str:
    return f"{name}: {what} need {package}, which cannot be imported ({err}).\n  Fix it: pip install 'vertebra[video]'"


def _reason(err: BaseException) -> str:
    return getattr(err, "strerror", None) or str(err) or type(err).__name__
