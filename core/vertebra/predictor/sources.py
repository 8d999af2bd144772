"""Where images come from: files, folders, patterns, videos, cameras, names on standard input, arrays."""

from __future__ import annotations

import glob
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from vertebra.data.images.oddities import OddImages, collected_oddities
from vertebra.data.images.read import image_suffixes
from vertebra.data.images.readers import RGB, ImageReader
from vertebra.errors import DataError
from vertebra.predictor.video import VIDEO_SUFFIXES, VideoFrame, read_camera, read_video
from vertebra_eval.files.file_names import near_file
from vertebra_eval.nearest import listed

__all__ = ["Camera", "Frame", "ImageLike", "Place", "as_array", "list_places", "open_source"]

_STDIN = "-"
_ADDRESS = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://")
logger = logging.getLogger(__name__)

ImageLike = np.ndarray | torch.Tensor | str | Path


@dataclass(frozen=True)
class Frame:
    """One image and where it came from.

    Args:
        image: (H, W, 3) uint8 RGB, or what the `reader` gives.
        name: the file's path as it was found; `camera 0`; `array 3` for what was given as pixels.
        number: of a video's or camera's frame, from 0; None for an image.
        seconds: since the first frame of the video, by its time stamps, or of the camera, by the clock.
        rate: frames a second of the video, on average.
    """

    image: np.ndarray = field(repr=False)
    name: str
    number: int | None = None
    seconds: float | None = None
    rate: float | None = None
    reader: ImageReader = field(default_factory=RGB, repr=False)

    @property
    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, for people."""
        return self.reader.picture(self.image)

    @property
    def stem(self) -> str:
        """A name for files about this image: `cells`; `traffic_000012` for a frame of `traffic.mp4`."""
        stem = Path(self.name).stem.replace(" ", "_") if self.number is not None else Path(self.name).stem
        return stem if self.number is None else f"{stem}_{self.number:06d}"


@dataclass(frozen=True)
class Camera:
    """A camera by its number."""

    number: int

    def __str__(self) -> str:
        return f"camera {self.number}"


Place = str | Path | int | Camera | np.ndarray | torch.Tensor


def open_source(
    source: Place | Iterable[Place], unreadable: list[str] | None = None, reader: ImageReader | None = None
) -> Iterator[Frame]:
    """The images of all places, one at a time.

    Args:
        unreadable: see `Predictor.stream`.
        reader: of image files; None: RGB. Others take no videos.
    Raises:
        DataError: a place that is not there, before the first image is read.
    """
    given = [source] if isinstance(source, (str, Path, int, Camera, np.ndarray, torch.Tensor)) else source
    reader = reader or RGB()
    return _frames(list_places(given, reader=reader), unreadable, reader)


def list_places(
    places: Iterable[Place], stdin: TextIO | None = None, reader: ImageReader | None = None
) -> list[Path | Camera | np.ndarray | torch.Tensor]:
    """Every single image, video and camera that places stand for, in their order.

    A folder stands for the image and video files directly in it, by name; a pattern (`*`, `?`, `[...]`, `**` for any
    folders below) for those that fit it; what is skipped is counted and logged; `-` for a name a line on standard
    input; a number for a camera, unless there is a file of that name.

    Args:
        reader: of the images, which says which files in a folder are images; None: RGB.
    Raises:
        DataError: there is no such place, a folder without images, a pattern that fits nothing.
    """
    found: list[Path | Camera | np.ndarray | torch.Tensor] = []
    for place in places:
        if isinstance(place, (np.ndarray, torch.Tensor, Camera)):
            found.append(place)
        elif isinstance(place, int):
            found.append(Camera(place))
        elif str(place) == _STDIN:
            lines = [line.strip() for line in stdin or sys.stdin]
            if not any(lines):
                raise DataError("-: standard input holds no names; expected one file, folder or pattern per line")
            found += list_places([line for line in lines if line and line != _STDIN], None, reader)
        else:
            found += _named(str(place), reader or RGB())
    return found


def _named(place: str, reader: ImageReader) -> Sequence[Path | Camera]:
    path = Path(place)
    try:
        if path.is_dir():
            return _inside(path, reader)
        if path.is_file():
            return [path]
    except OSError as err:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{place}: {err.strerror}") from err
    if _ADDRESS.match(place):
        raise DataError(
            f"{place}: images are read from files, and addresses of the network are not. Download the file first; a "
            "stream of a network camera can be recorded in pieces: ffmpeg -i ADDRESS -t 60 part.mp4"
        )
    if place.isdecimal() and len(place) < 6:
        return [Camera(int(place))]
    if glob.has_magic(place):
        fitting = [Path(name) for name in sorted(glob.glob(place, recursive=True))]
        known = _known(place, fitting, reader)
        if not known:
            what = f"fits {len(fitting)} files, none of them an image or a video" if fitting else "fits no file"
            raise DataError(f"{place}: this pattern {what}")
        return known
    raise DataError(f"{place}: no such file{near_file(path)} (expected an image, a video or a folder)")


def _inside(folder: Path, reader: ImageReader) -> list[Path]:
    inside = _known(str(folder), sorted(folder.iterdir()), reader)
    if not inside:
        known = ", ".join(sorted({*(reader.suffixes or image_suffixes()), *VIDEO_SUFFIXES}))
        raise DataError(f"{folder}: this folder holds no images or videos ({known})")
    return inside


def _known(place: str, paths: Sequence[Path], reader: ImageReader) -> list[Path]:
    """The images and videos among them; hidden files do not count, and what else is skipped is logged."""
    suffixes = {*(reader.suffixes or image_suffixes()), *VIDEO_SUFFIXES}
    visible = [path for path in paths if not path.name.startswith(".")]
    files = [path for path in visible if not path.is_dir()]
    known = [path for path in files if path.suffix.lower() in suffixes]
    others = [path.name for path in files if path.suffix.lower() not in suffixes]
    if known and others:
        logger.warning("%s: %d files are neither images nor videos: %s", place, len(others), listed(others))
    if known and len(files) < len(visible) and not glob.has_magic(place):
        inner = len(visible) - len(files)
        logger.warning("%s: %d folders in it are not looked into; %s/**/* would", place, inner, place)
    return reader.leaders(known)


def _frames(places: list, unreadable: list[str] | None, reader: ImageReader) -> Iterator[Frame]:
    odd = OddImages()
    for order, place in enumerate(places):
        if isinstance(place, (np.ndarray, torch.Tensor)):
            yield Frame(as_array(place, reader), f"array {order}", reader=reader)
            continue
        try:
            moving = isinstance(place, Camera) or place.suffix.lower() in VIDEO_SUFFIXES
            if moving and not isinstance(reader, RGB):
                raise DataError(
                    f"{place}: videos and cameras give RGB, but the model's images are read by {_called(reader)}"
                )
            if isinstance(place, Camera):
                yield from _moving(read_camera(place.number), place)
            elif place.suffix.lower() in VIDEO_SUFFIXES:
                yield from _moving(read_video(place), place)
            else:
                with collected_oddities() as found:
                    image = reader.read(place)
                odd.tell(found)
                yield Frame(image, str(place), reader=reader)
        except DataError as err:
            if unreadable is None:
                raise
            unreadable.append(str(err))


def _moving(frames: Iterable[VideoFrame], place: Path | Camera) -> Iterator[Frame]:
    for frame in frames:
        yield Frame(frame.image, str(place), frame.number, frame.seconds, frame.rate)


def as_array(image: ImageLike, reader: ImageReader | None = None) -> np.ndarray:
    """Any accepted image as the array (H, W, C) that its reader would give: RGB uint8 without one."""
    reader = reader or RGB()
    channels, dtype = reader.channels, reader.dtype
    if isinstance(image, (str, Path)):
        return reader.read(image)
    if isinstance(image, torch.Tensor):
        first = image.dim() == 3 and image.shape[0] == channels
        image = image.permute(1, 2, 0).cpu().numpy() if first else image.cpu().numpy()
    right = isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == channels
    right = right and (image.dtype == dtype or (dtype == "uint16" and image.dtype == np.int32 and _fits_16(image)))
    if not right:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        colors = "RGB array" if channels == 3 else "array"
        raise DataError(
            f"the image is {what}; expected a file, an {colors} (H, W, {channels}) {dtype}, or a tensor "
            f"({channels}, H, W) {dtype}"
        )
    return reader.checked(image.astype(np.uint16) if image.dtype == np.int32 else image, "the image")


def _fits_16(image: np.ndarray) -> bool:
    return not image.size or (image.min() >= 0 and image.max() < 1 << 16)


def _called(reader: ImageReader) -> str:
    return type(reader).__name__
